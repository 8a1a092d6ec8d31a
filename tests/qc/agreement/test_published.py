"""How far published flags and ours agree: known 2x2 tables, scikit-learn, and what is left out."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from hcsqc.core.schema import ARTEFACTS, TABLES, write_csv
from hcsqc.qc.agreement.published import (
    ANY,
    compare,
    field_table,
    joined_fields,
    kappa,
    reason_of,
)

NAMES = TABLES["published_flags"].columns.names
COLUMNS = {"isBlurry": "out of focus", "isSaturated": "saturated or debris"}


def made_fields(bad: str, kinds: str | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return our fields and cells: a field per character, two in a well; its ten cells.

    `bad` has b for blurred, s for saturated, r for many flagged cells and - for none; `kinds` the
    first letter of the kind of artefact of eight of its cells.
    """
    fields, cells = [], []
    letters = {kind[0]: kind for kind in ("blur", "saturation", "debris")}
    for number, what in enumerate(bad):
        place = ("p1", f"B{number // 2 + 1:02d}", number % 2 + 1)
        kind = letters.get((kinds or "-" * len(bad))[number])
        fields.append((*place, what != "-", what == "b", what == "s", "why" * (what != "-"), kind))
        cells += [(*place, kind is not None and cell < 8, kind) for cell in range(10)]
    names = ["Metadata_Plate", "Metadata_Well", "Metadata_Site"]
    made = pd.DataFrame(
        fields, columns=[*names, "bad", "out_of_focus", "saturated", "reason", "kind"]
    )
    made = made.assign(
        empty=False,
        scored=10,
        flagged_share=np.where(made["kind"].notna(), 0.8, 0.0),
        edge=np.where(made["out_of_focus"], 0.9, 0.2),
    )
    table = pd.DataFrame(cells, columns=[*names, "flagged", "artefact"])
    return made.drop(columns="kind"), table.assign(
        artefact=table["artefact"].where(table["flagged"])
    )


def published(fields: pd.DataFrame, blurry: str, saturated: str) -> pd.DataFrame:
    """Return published flags of fields: 1, 0, or a space where there is none."""
    flags = {"1": True, "0": False, " ": None}
    made = fields[["Metadata_Plate", "Metadata_Well", "Metadata_Site"]].copy()
    for name, given_flags in zip(COLUMNS, (blurry, saturated), strict=True):
        made[name] = pd.array([flags[flag] for flag in given_flags], "boolean")
    return made


def compared(bad, kinds, blurry, saturated, replicates=50):
    fields, cells = made_fields(bad, kinds)
    joined = joined_fields(published(fields, blurry, saturated), COLUMNS, fields, cells)
    table = compare(joined, COLUMNS, replicates)
    return joined, table.set_index(["unit", "flag", "ours"])


@pytest.mark.parametrize(
    ("words", "checks", "kinds"),
    [
        ("out of focus", ("out_of_focus",), ("blur",)),
        ("Blurry", ("out_of_focus",), ("blur",)),
        ("saturated or debris", ("saturated",), ("saturation", "debris")),
        ("empty", ("empty",), ("empty",)),
    ],
)
def test_words_name_our_checks_and_kinds(words, checks, kinds):
    reason = reason_of(words)
    assert (reason.checks, reason.kinds) == (checks, kinds)
    assert set(kinds) <= set(ARTEFACTS)


def test_other_words_are_compared_with_any_reason_alone():
    assert reason_of("excluded by the annotator") is None


def test_the_cells_of_the_table_are_those_counted_by_hand():
    # Ten fields: three published as blurred, of which ours says two; three more of ours.
    _, table = compared("bb-bsr----", "bb--sd----", "1110000000", "0000110000")
    row = table.loc["field", "isBlurry", "bad"]
    assert row[["both", "published_only", "ours_only", "neither"]].tolist() == [2, 1, 3, 4]
    assert row["published_share"] == 0.3 and row["ours_share"] == 0.5
    assert row["sensitivity"] == pytest.approx(2 / 3) and row["precision"] == pytest.approx(2 / 5)
    row = table.loc["field", "isBlurry", "blur"]
    assert row[["both", "published_only", "ours_only", "neither"]].tolist() == [2, 1, 1, 6]
    row = table.loc["field", "isSaturated", "saturation or debris"]
    assert row[["both", "published_only", "ours_only", "neither"]].tolist() == [2, 0, 0, 8]
    assert row["kappa"] == 1 and row["auc"] == 1
    row = table.loc["field", ANY, "bad"]
    assert row[["both", "published_only", "ours_only", "neither"]].tolist() == [4, 1, 1, 4]
    assert row["kappa"] == pytest.approx(0.6)
    # Wells of fields 1 and 2, 3 and 4, 5 and 6: both, none and two flagged by ours.
    row = table.loc["well", "isBlurry", "bad"]
    assert row[["both", "published_only", "ours_only", "neither"]].tolist() == [1, 0, 1, 3]


def test_kappa_and_auc_are_scikit_learns():
    rng = np.random.default_rng(0)
    bad = "".join(rng.choice(list("bs-"), 200))
    blurry = "".join(rng.choice(list("10"), 200))
    joined, table = compared(bad, None, blurry, "0" * 200)
    row = table.loc["field", "isBlurry", "blur"]
    flags = joined["published isBlurry"].astype(bool)
    assert row["kappa"] == pytest.approx(cohen_kappa_score(flags, joined["out_of_focus"]))
    assert row["auc"] == pytest.approx(roc_auc_score(flags, joined["edge"]))
    assert row["kappa_low"] < row["kappa"] < row["kappa_high"]
    assert row["auc_low"] < row["auc"] < row["auc_high"]


@pytest.mark.filterwarnings("ignore::UserWarning")  # where it is not defined
@settings(deadline=None)
@given(st.lists(st.integers(0, 30), min_size=4, max_size=4).filter(any))
def test_kappa_of_counts_is_that_of_the_rows(counts):
    first = np.repeat([1, 1, 0, 0], counts)
    second = np.repeat([1, 0, 1, 0], counts)
    expected = cohen_kappa_score(first, second, labels=[0, 1])
    assert kappa(np.array(counts)) == pytest.approx(expected, nan_ok=True)


def test_intervals_are_those_of_wells_not_of_fields():
    """Fields of a well that are alike say no more than one of them."""
    blurry = "11" * 10 + "00" * 30
    _, table = compared("bb--" * 5 + "-" * 60, None, blurry, "0" * 80, replicates=2000)
    row = table.loc["field", "isBlurry", "blur"]
    # Five of ten wells are found: the exact 95% interval of 5 of 10 is .19 to .81; that of 10 of
    # 20 fields would be .27 to .73.
    assert row["sensitivity"] == 0.5
    assert row["sensitivity_low"] < 0.25 and row["sensitivity_high"] > 0.75


def test_a_measure_that_no_resample_changes_has_no_interval():
    _, table = compared("bbb---", None, "111000", "000000")
    row = table.loc["field", "isBlurry", "bad"]
    assert row["sensitivity"] == row["kappa"] == 1
    assert np.isnan([row["sensitivity_low"], row["kappa_high"]]).all()


def test_what_only_one_side_has_is_counted_and_not_compared():
    fields, cells = made_fields("b---")
    given_flags = published(fields, "10 0", "0000")
    given_flags.loc[3, "Metadata_Well"] = "C09"
    joined = joined_fields(given_flags, COLUMNS, fields, cells)
    table = compare(joined, COLUMNS, 20).set_index(["unit", "flag", "ours"])
    row = table.loc["field", "isBlurry", "bad"]
    assert row[["compared", "without_ours", "without_published", "without_flag"]].tolist() == [
        2, 1, 1, 1,
    ]  # fmt: skip
    assert table.loc["field", "isSaturated", "bad"]["compared"] == 3
    assert table.loc["field", ANY, "bad"]["without_flag"] == 1  # neither flag, one of them unknown
    row = table.loc["well", "isSaturated", "bad"]
    assert row[["without_ours", "without_published"]].tolist() == [1, 0]
    told = field_table(joined, COLUMNS).set_index(["Metadata_Well", "Metadata_Site"])["difference"]
    assert told["C09", 2] == "not ours" and told["B02", 2] == "not published"


def test_fields_that_one_side_alone_flags_come_first(tmp_path):
    fields, cells = made_fields("b-r-", "--d-")
    joined = joined_fields(published(fields, "1100", "1000"), COLUMNS, fields, cells)
    table = field_table(joined, COLUMNS)
    assert table["difference"].tolist() == ["ours only", "published only", "", ""]
    assert table["artefact"].tolist()[0] == "debris" and table["reason"].tolist()[0] == "why"
    assert table["published_flags"].tolist() == [
        "", "out of focus", "out of focus; saturated or debris", "",
    ]  # fmt: skip
    write_csv(table, tmp_path / "t.csv", "%.6g", schema="published_fields")
    write_csv(compare(joined, COLUMNS, 20), tmp_path / "f.csv", "%.6g", schema="published_flags")
    assert pd.read_csv(tmp_path / "f.csv").columns.tolist() == NAMES


def test_a_published_flag_may_be_called_as_ours():
    fields, cells = made_fields("b---")
    flags = published(fields, "1100", "0000").rename(columns={"isBlurry": "bad"})
    joined = joined_fields(flags, {"bad": "blur"}, fields, cells)
    row = compare(joined, {"bad": "blur"}, 20).set_index(["unit", "flag", "ours"])
    assert row.loc[("field", "bad", "bad"), "published_only"] == 1


def test_without_any_published_flag_nothing_is_made_up():
    _, table = compared("b---", None, "0000", "0000")
    row = table.loc["field", "isBlurry", "bad"]
    assert np.isnan(row["sensitivity"]) and row["precision"] == 0 and np.isnan(row["auc"])


def test_a_field_without_scored_cells_is_compared_but_has_no_score():
    fields, cells = made_fields("b---", "b---")
    fields.loc[0, ["edge", "flagged_share", "scored"]] = [np.nan, np.nan, 0]
    joined = joined_fields(published(fields, "1100", "0000"), COLUMNS, fields, cells)
    table = compare(joined, COLUMNS, 20).set_index(["unit", "flag", "ours"])
    assert table.loc["field", "isBlurry", "blur"][["compared", "scored"]].tolist() == [4, 3]
