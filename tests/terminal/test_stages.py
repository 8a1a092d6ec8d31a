"""Every rule belongs to a stage that a person reads about."""

import re

from hcsqc.terminal.stages import SHOWN, STAGES, TARGETS, stage_of
from tests.conftest import ROOT

RULES = {
    rule
    for path in (ROOT / "Snakefile", *(ROOT / "rules").rglob("*.smk"))
    for rule in re.findall(
        r"^(?:(?:rule|checkpoint)|use rule \w+ as) (\w+)(?::| with:)",
        path.read_text(),
        re.MULTILINE,
    )
}


def test_every_rule_of_the_workflow_has_one_stage_or_is_a_target():
    named = [*TARGETS, *(rule for rules in STAGES.values() for rule in rules)]
    assert len(RULES) > 50
    assert sorted(named) == sorted(RULES)


def test_stages_that_end_in_a_page_are_stages():
    assert set(SHOWN) <= set(STAGES)


def test_a_rule_of_another_workflow_is_a_stage_of_its_own():
    assert stage_of("crop_plate") == "crops"
    assert stage_of("crops") is None
    assert stage_of("align_reads") == "align reads"
