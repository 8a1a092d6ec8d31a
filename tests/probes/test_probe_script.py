"""The one command of all probes on frozen features."""

import json
import subprocess
import sys

import pytest

from hcsqc.core.digest import code_digest
from tests.conftest import ROOT
from tests.probes.test_logistic import run_script, study_tables

SCRIPT = ROOT / "scripts" / "probes" / "probe_features.py"


def run(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, SCRIPT, *words], capture_output=True, text=True)


def test_help_names_the_kinds_and_the_flags_of_one():
    done = run("--help")
    assert done.returncode == 0 and "{knn,linear,linear_search,logistic}" in done.stdout
    assert "--neighbours" not in done.stdout
    assert "--neighbours" in run("--kind", "knn", "--help").stdout


def test_an_unknown_kind_is_named_beside_those_there_are():
    done = run("--kind", "nope")
    assert done.returncode == 2
    assert "invalid choice: 'nope'" in done.stderr and "logistic" in done.stderr


@pytest.mark.parametrize("kind", ["logistic"])
def test_the_record_holds_the_digest_of_the_kind_too(kind, tmp_path, monkeypatch):
    _, record = run_script(tmp_path, monkeypatch, *study_tables())
    module = f"hcsqc/probes/frozen/{kind}.py"
    assert record["code_digest"] == code_digest("probes/probe_features.py", module)
    assert record["code_digest"] != code_digest("probes/probe_features.py")
    assert json.dumps(record["parameters"]["kind"]) == f'"{kind}"'
