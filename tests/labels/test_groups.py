"""Groups: what is independent is on one side of every draw, and a compound's name is no signal."""

import sys
from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hcsqc.core.errors import InputError
from hcsqc.core.schema import read_table, write_table
from hcsqc.labels.groups import COMPOUND, GROUPINGS, PLATE, WELL, compounds_of, groups_of
from hcsqc.labels.splits import split_labels
from hcsqc.labels.test_sets import composition
from hcsqc.probes.metrics import auc
from hcsqc.probes.resampling import bootstrap_scores, scores_without_groups
from scripts.labels import split_labels as command

PLATES = ("p", "q")
COMPOUNDS = 24
SHARES = (0.1, 0.9)  # of abnormal cells, of every other compound


def replicated(seed, plates=PLATES, controls=0, compounds=COMPOUNDS, per_well=12) -> pd.DataFrame:
    """Return labels of compounds in a well of each plate, never the same one.

    The first `controls` compounds are none.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for shift, plate in enumerate(plates):
        for compound in range(compounds):
            place = (compound + 5 * shift) % compounds
            well = f"{'BCDEFGHIJ'[place // 12]}{place % 12 + 1:02d}"
            share = SHARES[compound % len(SHARES)]
            for crop in range(per_well):
                label = "abnormal" if rng.random() < share else "normal"
                name = "" if compound < controls else f"C{compound}"
                rows.append((f"s/{plate}/{well}/s1/x{crop:04d}y0000", plate, well, label, name))
    labels = pd.DataFrame(rows, columns=["crop_id", "plate", "well", "label", "compound"])
    return labels.assign(selection="random")


def draws_of(labels, group_by, draws=8, test_crops=60) -> pd.DataFrame:
    wells = sorted(set(labels["well"]))
    return split_labels(labels, wells, 20, 150, test_crops, draws, 0, group_by)[0]


# What a group is


def test_controls_and_wells_of_which_nothing_is_known_are_groups_by_well():
    fields = pd.DataFrame(
        [
            ("p", "A01", "compound", "Taxol"),
            ("q", "A01", "compound", "  taxol"),
            ("p", "A02", "mock", "anything"),
            ("p", "A03", None, "DMSO"),
            ("p", "A04", None, None),
            ("p", "A05", None, "Nocodazole"),
            ("p", "A05", None, "Nocodazole"),  # a second field
            ("p", "A06", "compound", None),
        ],
        columns=["plate", "well", "role", "compound"],
    )
    labels = fields[["plate", "well"]].drop_duplicates().iloc[::-1].set_index(np.arange(7) + 3)
    found = labels.assign(compound=compounds_of(labels, fields), crop_id="s/p/A01/s1/x1y1")
    names = found.set_index(["plate", "well"])["compound"]["p"].fillna("not known")
    assert names.to_dict() == {
        "A01": "Taxol", "A02": "", "A03": "", "A04": "not known", "A05": "Nocodazole", "A06": ""
    }  # fmt: skip
    assert groups_of(found, COMPOUND).tolist() == [
        "p/A06", "nocodazole", "p/A04", "p/A03", "p/A02", "taxol", "taxol"
    ]  # fmt: skip
    assert groups_of(found, WELL)[0] == "p/A06" and set(groups_of(found, PLATE)) == {"p", "q"}


def test_compounds_that_nobody_knows_are_refused_and_what_to_do_is_said():
    labels = replicated(0)
    with pytest.raises(InputError, match=r"of no labelled well of s is known.*Metadata_Compound"):
        groups_of(labels.assign(compound=None), COMPOUND)
    assert set(groups_of(labels.assign(compound=""), COMPOUND)) == set(groups_of(labels, WELL))
    assert len(groups_of(labels[:0], COMPOUND)) == 0


# Draws


@settings(max_examples=6, deadline=None)
@given(
    seed=st.integers(0, 99),
    group_by=st.sampled_from(GROUPINGS),
    plates=st.sampled_from([PLATES, ("p", "q", "r")]),
    controls=st.integers(0, 8),
)
def test_no_group_is_on_both_sides_of_a_draw(seed, group_by, plates, controls):
    labels = replicated(seed, plates, controls)
    splits = draws_of(labels, group_by, draws=4)
    group = pd.Series(groups_of(labels, group_by), labels["crop_id"])
    assert (splits["group"] == splits["crop_id"].map(group)).all()
    for _, own in splits.groupby("draw"):
        of_part = dict(tuple(own.groupby("part")["group"]))
        assert not set(of_part["test"]) & set(of_part["train"])
    counted = composition(splits, labels)
    assert (counted["groups"] <= counted["wells"]).all() and (counted["groups"] > 0).all()


def test_a_compounds_name_is_a_signal_by_well_and_none_by_compound():
    """By well the compound's other plate has shown how many of its cells are abnormal."""
    areas = {WELL: [], COMPOUND: []}
    for seed, (group_by, found) in product(range(2), areas.items()):
        labels = replicated(seed, compounds=100, per_well=3).set_index("crop_id")
        labels["abnormal"] = (labels["label"] == "abnormal").astype(int)
        for _, own in draws_of(labels.reset_index(), group_by, test_crops=40).groupby("draw"):
            train, test = (labels.loc[own["crop_id"][own["part"] == x]] for x in ("train", "test"))
            shares = train.groupby("compound")["abnormal"].mean()
            scores = test["compound"].map(shares).fillna(0.5)
            found.append(auc(test["abnormal"].to_numpy(), scores.to_numpy()))
    assert np.mean(areas[WELL]) == pytest.approx(0.85, abs=0.05)
    assert areas[COMPOUND] == pytest.approx([0.5] * len(areas[COMPOUND]))


def test_the_bootstrap_resamples_what_the_predictions_call_a_group():
    labels = replicated(1)
    rows = labels[["crop_id", "label"]].assign(draw=0, screen="s")
    rows["score"] = np.random.default_rng(0).random(len(rows))
    by = {name: rows.assign(group=groups_of(labels, name)) for name in GROUPINGS}
    found = {name: bootstrap_scores(table, ["f1"], 100, 0) for name, table in by.items()}
    counts = {name: set(table["n_groups"]) for name, table in found.items()}
    assert counts == {WELL: {2 * COMPOUNDS}, COMPOUND: {COMPOUNDS}, PLATE: {2}}
    left = scores_without_groups(by[COMPOUND], ["f1"])
    assert set(left["group"]) == {f"c{number}" for number in range(COMPOUNDS)}
    # The plates' scores, and their mean: as many values as resamples of two plates can have.
    assert found[PLATE]["value"].round(9).nunique() == 3


# The command


def run(folder, labels, monkeypatch, group_by):
    table = labels.assign(artefact=None, strength=np.nan, annotator="a", source="f.csv")
    write_table(table, folder / "labels.parquet", "labels")
    words = f"--labels {folder}/labels.parquet --evaluation-wells {' '.join(set(labels['well']))}"
    words += f" --smallest 20 --largest 100 --test-crops 60 --draws 3 --group-by {group_by}"
    words += f" --output {folder}/s.parquet --composition {folder}/c.csv --record {folder}/r.json"
    monkeypatch.setattr(sys, "argv", [command.__file__, *words.split()])
    command.main()
    return read_table(folder / "s.parquet", "splits"), pd.read_csv(folder / "c.csv")


def test_the_command_says_how_many_groups_there_are(tmp_path, monkeypatch, capsys):
    splits, counted = run(tmp_path, replicated(0), monkeypatch, COMPOUND)
    assert splits["group"].nunique() == COMPOUNDS
    assert "splits: 24 groups by compound; c" in capsys.readouterr().out
    assert counted["groups"].max() < counted["wells"].max()


@pytest.mark.parametrize(
    ("change", "group_by", "message"),
    [
        ({"plates": ("p",)}, PLATE, "labels are of one plate, p, so that none is left to train"),
        ({"controls": COMPOUNDS}, COMPOUND, "the compound of no labelled well of s is known"),
    ],
)
def test_too_few_groups_are_refused_with_what_would_work(
    change, group_by, message, tmp_path, monkeypatch, capsys
):
    labels = replicated(0, **change)
    labels["compound"] = labels["compound"].replace("", None) if "controls" in change else "Taxol"
    with pytest.raises(SystemExit):
        run(tmp_path, labels, monkeypatch, group_by)
    (said,) = capsys.readouterr().err.splitlines()
    assert message in said and "These labels suffice for evaluation.group_by: well. " in said
