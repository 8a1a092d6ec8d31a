"""Labels: files are checked by line, nearest nuclei get them, and the truth is not guessed."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hcsqc.core.errors import InputError
from hcsqc.core.schema import read_table, write_table
from hcsqc.labels.match import (
    FILE_COLUMNS,
    draw_at_random,
    draw_labels,
    keep_sharp,
    keep_usual,
    labels_at_random,
    match_truth,
    place_labels,
    read_label_file,
    settle,
)
from tests.conftest import EXAMPLE
from tests.labels.made_labels import HEADER, label_file, label_rows, nuclei_at, truth_at

GOOD = "p,B02,1,50,60,abnormal,blur,alice,random"
MATCH_PX = 12
WINDOW_PX = 64


def placed_and_settled(rows, nuclei, match_px, conflicts="error"):
    """Return the `labels` table of rows, and the rows that find no crop."""
    placed, lost = place_labels(rows, nuclei, match_px)
    return settle(placed, conflicts), lost


# Reading a file


def test_label_file_is_read_with_its_name(tmp_path):
    path = label_file(tmp_path / "alice.csv", GOOD, "p,B03,2,10.5,20,normal,,bob,diverse")
    rows = read_label_file(path)
    assert rows["x_px"].tolist() == [50, 10.5] and rows["site"].tolist() == [1, 2]
    assert rows["artefact"].tolist() == ["blur", ""]
    assert rows["plate"].tolist() == ["p", "p"] and set(rows["source"]) == {"alice.csv"}


def test_numeric_plates_and_wells_stay_text(tmp_path):
    rows = read_label_file(label_file(tmp_path / "a.csv", "020585,B02,1,5,6,normal,,a,random"))
    assert rows["plate"].tolist() == ["020585"]


def test_columns_may_come_in_another_order_and_with_others(tmp_path):
    header = "note," + ",".join(reversed(FILE_COLUMNS))
    line = "x," + ",".join(reversed(GOOD.split(",")))
    rows = read_label_file(label_file(tmp_path / "a.csv", line, header=header))
    assert rows[list(FILE_COLUMNS)].astype(str).agg(",".join, axis=1).tolist() == [GOOD]
    assert "note" not in rows.columns


@pytest.mark.parametrize("column", FILE_COLUMNS)
def test_missing_column_is_named(tmp_path, column):
    header = ",".join(name for name in FILE_COLUMNS if name != column)
    path = label_file(tmp_path / "a.csv", header=header)
    with pytest.raises(
        InputError,
        match=f"a.csv: column '{column}' is missing; a label file has the columns plate,",
    ):
        read_label_file(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("p,B02,1,5,6,strange,,a,random", "unknown label 'strange'; known: normal, abnormal"),
        ("p,B02,1,5,6,Normal,,a,random", "unknown label 'Normal'"),
        ("p,B02,1,5,6,abnormal,fog,a,random", "unknown artefact 'fog'; known: blur, saturation"),
        ("p,B02,1,5,6,normal,,a,chosen", "unknown selection 'chosen'; known: random, diverse"),
        ("p,B02,1,5,6,normal,,a,", "unknown selection ''"),
        ("p,B02,one,5,6,normal,,a,random", r"'one' is not a number \(site\)"),
        ("p,B02,1,,6,normal,,a,random", r"'' is not a number \(x_px\)"),
        ("p,B02,1,5,nan,normal,,a,random", r"'nan' is not a number \(y_px\)"),
    ],
)
def test_bad_value_is_named_with_file_and_line(tmp_path, line, message):
    path = label_file(tmp_path / "alice.csv", GOOD, GOOD, line, GOOD)
    with pytest.raises(InputError, match=f"alice.csv, line 4: {message}"):
        read_label_file(path)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"gone.csv: no such label file"):
        read_label_file(tmp_path / "gone.csv")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        f"{HEADER}\n{GOOD}\n{GOOD},extra\n".encode(),
        f"{HEADER}\n{GOOD}\n".replace("alice", "Zo\u00e9").encode("latin-1"),
    ],
    ids=["empty", "too many values", "latin-1"],
)
def test_file_that_is_no_csv_of_labels_is_named(tmp_path, content):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(InputError, match="a.csv"):
        read_label_file(tmp_path / "a.csv")


def test_comma_at_the_end_of_every_line_does_not_shift_columns(tmp_path):
    rows = read_label_file(label_file(tmp_path / "a.csv", GOOD + ",", GOOD + ","))
    assert rows["well"].tolist() == ["B02", "B02"]


def test_line_is_right_after_a_blank_one(tmp_path):
    path = label_file(tmp_path / "a.csv", GOOD, "", "p,B02,1,5,6,strange,,a,random")
    with pytest.raises(InputError, match="line 4: unknown label 'strange'"):
        read_label_file(path)


def test_infinite_place_is_no_number(tmp_path):
    path = label_file(tmp_path / "a.csv", "p,B02,1,inf,6,normal,,a,random")
    with pytest.raises(InputError, match=r"line 2: 'inf' is not a number \(x_px\)"):
        read_label_file(path)


def test_normal_crop_with_an_artefact_is_refused(tmp_path):
    path = label_file(tmp_path / "a.csv", GOOD, "p,B02,1,5,6,normal,blur,a,random")
    with pytest.raises(InputError, match="line 3"):
        read_label_file(path)


# What spreadsheet programs save


def saved(path, *lines, encoding="utf-8", separator=","):
    text = "\n".join([HEADER, *lines]) + "\n"
    path.write_bytes(text.replace(",", separator).encode(encoding))
    return path


def test_byte_order_mark_is_no_part_of_the_first_column(tmp_path):
    path = saved(tmp_path / "a.csv", GOOD.replace("alice", "Zoë"), encoding="utf-8-sig")
    rows = read_label_file(path)
    assert rows["plate"].tolist() == ["p"] and rows["annotator"].tolist() == ["Zoë"]


def test_windows_line_ends_and_quotes_are_read(tmp_path):
    path = tmp_path / "a.csv"
    line = GOOD.replace("alice", '"A, ""B"""')
    path.write_bytes(f"{HEADER}\r\n{line}\r\n".encode())
    rows = read_label_file(path)
    assert rows["annotator"].tolist() == ['A, "B"'] and rows["selection"].tolist() == ["random"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_utf_16_is_named_with_what_to_do(tmp_path, encoding):
    path = saved(tmp_path / "a.csv", GOOD, encoding=encoding, separator="\t")
    with pytest.raises(
        InputError, match=r"a.csv: is in UTF-16.*save it as CSV in UTF-8 with comma"
    ):
        read_label_file(path)


def test_other_encoding_is_named_with_what_to_do(tmp_path):
    path = saved(tmp_path / "a.csv", GOOD.replace("alice", "Zoë"), encoding="cp1252")
    with pytest.raises(InputError, match=r"a.csv: is not in UTF-8 .*save it as CSV in UTF-8"):
        read_label_file(path)


@pytest.mark.parametrize(("separator", "name"), [(";", "semicolons"), ("\t", "tabs")])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_other_separator_is_named_with_what_to_do(tmp_path, separator, name, encoding):
    path = saved(tmp_path / "a.csv", GOOD, separator=separator, encoding=encoding)
    with pytest.raises(InputError, match=f"a.csv: has {name} between the columns; save it as CSV"):
        read_label_file(path)


def test_decimal_comma_is_named_with_what_to_do(tmp_path):
    path = saved(tmp_path / "a.csv", GOOD, GOOD.replace("50", '"50,5"'))
    message = r"line 3: '50,5' has a decimal comma \(x_px\); save it as .* decimal points"
    with pytest.raises(InputError, match=message):
        read_label_file(path)


@pytest.mark.parametrize("others", [(), (GOOD,)])
def test_decimal_comma_without_quotes_is_not_taken_for_two_columns(tmp_path, others):
    path = saved(tmp_path / "a.csv", *others, GOOD.replace("50", "50,5"))
    line = 2 + len(others)
    with pytest.raises(InputError, match=f"line {line}: 10 values for 9 columns: a decimal comma"):
        read_label_file(path)


def test_quote_that_is_never_closed_is_one_error(tmp_path):
    path = saved(tmp_path / "a.csv", GOOD, '"' + GOOD, *[GOOD] * 4000)
    with pytest.raises(InputError, match=r"a.csv"):
        read_label_file(path)


def test_blanks_around_words_say_nothing(tmp_path):
    path = saved(tmp_path / "a.csv", "p,A01,1,5,6, abnormal,blur ,a,random ")
    words = read_label_file(path)[["label", "artefact", "selection"]]
    assert words.to_numpy().tolist() == [["abnormal", "blur", "random"]]


def test_apostrophe_before_what_looks_like_a_formula_is_left_out(tmp_path):
    path = saved(
        tmp_path / "a.csv",
        "'=p,'-B02,1,5,6,normal,,'@a,random",
        "'p,B,1,5,6,normal,,'\uff1da,random",
    )
    rows = read_label_file(path)
    assert rows[["plate", "well", "annotator"]].to_numpy().tolist() == [
        ["=p", "-B02", "@a"],
        ["'p", "B", "\uff1da"],
    ]


# Matching labels to nuclei


@given(
    x=st.floats(allow_nan=False, allow_infinity=False),
    y=st.floats(allow_nan=False, allow_infinity=False),
)
@example(x=1.7e308, y=-1.7e308)
@settings(deadline=None, max_examples=20)
def test_a_label_anywhere_is_placed_or_listed_and_the_others_are_placed(x, y):
    rows = label_rows(("B02", x, y), ("B02", 50, 50))
    placed, lost = place_labels(rows, nuclei_at(("B02", 50, 50, True)), MATCH_PX)
    near = math.hypot(x - 50, y - 50) <= MATCH_PX
    assert (len(placed), len(lost)) == ((2, 0) if near else (1, 1))
    assert near or lost["reason"].tolist() == [f"no nucleus within {MATCH_PX} px"]


def test_label_goes_to_the_nearest_nucleus_of_its_field():
    nuclei = pd.concat(
        [
            nuclei_at(("B02", 50, 50, True), ("B02", 60, 50, True), ("B03", 54, 50, True)),
            nuclei_at(("B02", 54, 50, True), site=2),
            nuclei_at(("B02", 54, 50, True), plate="q"),
        ],
        ignore_index=True,
    )
    labels, lost = placed_and_settled(
        label_rows(("B02", 54, 50), ("B03", 60, 58)), nuclei, MATCH_PX
    )
    assert labels["crop_id"].tolist() == ["s/p/B02/s1/x0050y0050", "s/p/B03/s1/x0054y0050"]
    assert len(lost) == 0


@pytest.mark.parametrize(("x", "found"), [(62, True), (62.5, False)])
def test_label_is_matched_up_to_the_distance_and_not_beyond(x, found):
    labels, lost = placed_and_settled(
        label_rows(("B02", x, 50)), nuclei_at(("B02", 50, 50, True)), MATCH_PX
    )
    assert (len(labels), len(lost)) == ((1, 0) if found else (0, 1))


def test_labels_without_a_crop_are_listed_with_the_reason():
    nuclei = nuclei_at(("B02", 50, 50, True), ("B02", 5, 50, False))
    rows = label_rows(("B02", 52, 50), ("B02", 8, 50), ("B02", 100, 100), ("C05", 50, 50))
    labels, lost = placed_and_settled(rows, nuclei, MATCH_PX)
    assert labels["crop_id"].tolist() == ["s/p/B02/s1/x0050y0050"]
    assert dict(zip(lost["x_px"], lost["reason"], strict=True)) == {
        8: "the nucleus was not cropped",
        100: "no nucleus within 12 px",
        50: "no such field, or no nucleus in it",
    }
    assert len(labels) + len(lost) == len(rows)


def test_matched_labels_fit_their_table(tmp_path):
    nuclei = nuclei_at(("B02", 50, 50, True), ("B02", 90, 50, True))
    rows = pd.concat(
        [
            label_rows(("B02", 50, 50)),
            label_rows(("B02", 90, 50), label="abnormal", artefact="debris", annotator="bob"),
        ],
        ignore_index=True,
    )
    labels, _ = placed_and_settled(rows, nuclei, MATCH_PX)
    write_table(labels.assign(compound=None), tmp_path / "labels.parquet", "labels")
    back = read_table(tmp_path / "labels.parquet", "labels")
    assert back["artefact"].isna().tolist() == [True, False] and back["artefact"][1] == "debris"
    assert back["strength"].isna().all() and back["annotator"].tolist() == ["alice", "bob"]


def test_crop_labelled_alike_twice_counts_once():
    rows = label_rows(("B02", 50, 50), ("B02", 52, 51))
    labels, lost = placed_and_settled(rows, nuclei_at(("B02", 50, 50, True)), MATCH_PX)
    assert (len(labels), len(lost)) == (1, 0)


def test_crop_labelled_in_two_ways_is_refused_with_its_sources():
    rows = pd.concat(
        [
            label_rows(("B02", 50, 50), ("B02", 90, 50)),
            label_rows(("B02", 48, 50), label="abnormal", source="b.csv"),
        ],
        ignore_index=True,
    )
    nuclei = nuclei_at(("B02", 50, 50, True), ("B02", 90, 50, True))
    with pytest.raises(
        InputError,
        match=r"crop s/p/B02/s1/x0050y0050 is labelled both .* \(a.csv, b.csv\); keep one",
    ):
        placed_and_settled(rows, nuclei, MATCH_PX)


def disputed():
    """Return labels of three crops, the second of which is labelled in two ways, and nuclei."""
    rows = pd.concat(
        [
            label_rows(("B02", 50, 50), ("B02", 90, 50)),
            label_rows(
                ("B02", 91, 50), ("B02", 130, 50), label="abnormal", artefact="blur", source="b.csv"
            ),
        ],
        ignore_index=True,
    )
    return rows, nuclei_at(*[("B02", x, 50, True) for x in (50, 90, 130)])


@pytest.mark.parametrize(
    ("conflicts", "labels"),
    [
        ("abnormal", {50: "normal", 90: "abnormal", 130: "abnormal"}),
        ("drop", {50: "normal", 130: "abnormal"}),
    ],
)
@pytest.mark.parametrize("reverse", [False, True])
def test_conflict_is_settled_by_the_rule(conflicts, labels, reverse):
    rows, nuclei = disputed()
    found, _ = placed_and_settled(rows[::-1] if reverse else rows, nuclei, MATCH_PX, conflicts)
    x = found["crop_id"].str.extract(r"x(\d{4})")[0].astype(int)
    assert dict(zip(x, found["label"], strict=True)) == labels
    assert found["artefact"].isna().tolist() == (found["label"] == "normal").tolist()


def test_conflict_names_the_rule_to_set():
    with pytest.raises(InputError, match=r"x0090y0050 .*set labels.conflicts to abnormal .* drop"):
        placed_and_settled(*disputed(), MATCH_PX)


def test_unknown_rule_is_refused():
    with pytest.raises(InputError, match="labels.conflicts is 'vote', not one of error, abnormal"):
        placed_and_settled(*disputed(), MATCH_PX, "vote")


@pytest.mark.parametrize("conflicts", ["abnormal", "drop"])
def test_labels_without_conflict_are_the_same_under_every_rule(conflicts):
    rows, nuclei = disputed()
    rows = rows.drop(index=1)
    expected, _ = placed_and_settled(rows, nuclei, MATCH_PX)
    pd.testing.assert_frame_equal(
        placed_and_settled(rows, nuclei, MATCH_PX, conflicts)[0], expected
    )


def test_crop_chosen_at_random_and_otherwise_stays_among_the_random_ones():
    rows, nuclei = disputed()
    rows["selection"] = ["random", "random", "uncertain", "diverse"]
    placed, _ = place_labels(rows, nuclei, MATCH_PX)
    labels, _ = placed_and_settled(rows, nuclei, MATCH_PX, "abnormal")
    assert labels["selection"].tolist() == ["random", "uncertain", "diverse"]
    found = labels_at_random(placed, labels)
    assert found["label"].tolist() == ["normal", "abnormal"]
    assert set(found["selection"]) == {"random"}


def test_no_label_finds_a_crop_without_an_error():
    labels, lost = placed_and_settled(
        label_rows(("Z99", 1, 1)), nuclei_at(("B02", 50, 50, True)), MATCH_PX
    )
    assert len(labels) == 0 and len(lost) == 1
    assert "crop_id" in labels.columns


# Labels from a truth


def test_nucleus_takes_the_artefact_of_the_nearest_cell():
    nuclei = nuclei_at(("B02", 100, 100, True), ("B02", 300, 300, True), ("B03", 100, 100, True))
    truth = truth_at(("B02", 103, 98, "blur"), ("B02", 302, 300, "none"), ("B03", 100, 100, "none"))
    matched = match_truth(nuclei, truth, MATCH_PX, WINDOW_PX).set_index("crop_id")
    assert matched["artefact"].to_dict() == {
        "s/p/B02/s1/x0100y0100": "blur",
        "s/p/B02/s1/x0300y0300": "none",
        "s/p/B03/s1/x0100y0100": "none",
    }
    assert matched["strength"].tolist() == [0.7, 0.0, 0.0]


@pytest.mark.parametrize(
    ("away", "x", "nearby"),
    [(0, 100, True), (32, 100, True), (33, 100, False), (33, 101, True), (None, 100, False)],
)
def test_good_crop_whose_window_an_artefact_reaches_is_nearby(away, x, nearby):
    nuclei = nuclei_at(("B02", x, 100, True))
    matched = match_truth(nuclei, truth_at(("B02", 100, 100, "none", away)), MATCH_PX, WINDOW_PX)
    assert matched["nearby"].tolist() == [nearby] and matched["artefact"].tolist() == ["none"]


def test_a_smaller_window_is_reached_less():
    nuclei, truth = nuclei_at(("B02", 9, 9, True)), truth_at(("B02", 9, 9, "none", 20))
    found = [match_truth(nuclei, truth, MATCH_PX, side)["nearby"].item() for side in (64, 40, 38)]
    assert found == [True, True, False]


def test_abnormal_crop_stays_beside_another_abnormal_cell():
    nuclei = nuclei_at(("B02", 100, 100, True))
    truth = truth_at(("B02", 100, 100, "dead", 0), ("B02", 110, 100, "debris", 0))
    matched = match_truth(nuclei, truth, MATCH_PX, WINDOW_PX)
    assert matched["artefact"].tolist() == ["dead"] and not matched["nearby"].any()


def test_nucleus_without_a_cell_near_is_left_out():
    nuclei = nuclei_at(("B02", 100, 100, True), ("B02", 200, 100, True), ("C02", 9, 9, True))
    truth = truth_at(("B02", 112, 100, "none"), ("B02", 213, 100, "none"))
    matched = match_truth(nuclei, truth, MATCH_PX, WINDOW_PX)
    assert matched["crop_id"].tolist() == ["s/p/B02/s1/x0100y0100"]


def candidates(normal, abnormal, kinds=("blur",)):
    """Return so many good and spoilt crops of a field, of each kind in turn."""
    artefacts = ["none"] * normal + [kinds[i % len(kinds)] for i in range(abnormal)]
    rows = nuclei_at(*[("B02", number, 1, True) for number in range(len(artefacts))])
    return rows.assign(artefact=artefacts, strength=[0.0] * normal + [0.4] * abnormal)


def drawn(rows, per_class=10**6, per_field=10**6, per_artefact=10**6, seed=0):
    return draw_labels(rows, per_class, per_field, per_artefact, seed)


@pytest.mark.parametrize(
    ("normal", "abnormal", "expected"),
    [(50, 40, (10, 10)), (50, 4, (10, 4)), (3, 40, (3, 10)), (50, 0, (10, 0)), (0, 0, (0, 0))],
)
def test_at_most_so_many_labels_of_each_class_are_drawn(tmp_path, normal, abnormal, expected):
    labels = drawn(candidates(normal, abnormal), per_class=10)
    counts = labels["label"].value_counts()
    assert (counts.get("normal", 0), counts.get("abnormal", 0)) == expected
    assert labels["crop_id"].is_unique
    write_table(labels.assign(compound=None), tmp_path / "labels.parquet", "labels")


def test_drawn_labels_say_what_the_truth_says(tmp_path):
    rows = candidates(30, 30)
    labels = drawn(rows.sample(frac=1, random_state=1), per_class=20)
    write_table(labels.assign(compound=None), tmp_path / "labels.parquet", "labels")
    back = read_table(tmp_path / "labels.parquet", "labels").set_index("crop_id")
    truth = rows.set_index("crop_id").loc[back.index]
    assert ((back["label"] == "normal") == (truth["artefact"] == "none")).all()
    abnormal = back["label"] == "abnormal"
    assert back["artefact"][abnormal].tolist() == ["blur"] * 20
    assert back["strength"][abnormal].tolist() == [0.4] * 20
    assert back.loc[~abnormal, ["artefact", "strength"]].isna().all(axis=None)
    assert set(back["selection"]) == {"random"}


def test_drawn_labels_depend_on_the_seed_alone():
    rows = candidates(60, 60)
    first, again, other = (drawn(rows, 20, seed=seed) for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(first, again)
    assert set(first["crop_id"]) != set(other["crop_id"])


def test_drawn_labels_depend_on_neither_order_nor_the_name_of_the_screen():
    rows = candidates(60, 60, kinds=("blur", "dead"))
    caps = {"per_class": 20, "per_field": 30, "per_artefact": 8}
    renamed = rows.sample(frac=1, random_state=2)
    for name in ("crop_id", "field_id"):
        renamed[name] = "another" + renamed[name].str.removeprefix("s")
    for one, other in (
        (drawn(rows, **caps), drawn(renamed, **caps)),
        (draw_at_random(rows, 30, 0), draw_at_random(renamed, 30, 0)),
    ):
        other["crop_id"] = "s" + other["crop_id"].str.removeprefix("another")
        pd.testing.assert_frame_equal(one, other)


def test_no_field_has_more_than_its_share_of_a_class():
    noisy = candidates(10, 40, kinds=("noise",))
    others = [
        candidates(6, 2).assign(
            field_id=f"s/p/C{n:02}/s1", crop_id=[f"s/p/C{n:02}/s1/{i}" for i in range(8)]
        )
        for n in range(1, 6)
    ]
    rows = pd.concat([noisy, *others], ignore_index=True)
    labels = drawn(rows, per_field=5)
    counts = labels.groupby([labels["crop_id"].str[:9], "label"]).size().unstack()
    assert counts.loc["s/p/B02/s"].tolist() == [5, 5]
    assert counts.drop("s/p/B02/s")["abnormal"].tolist() == [2] * 5, "what there is stays"
    assert counts.drop("s/p/B02/s")["normal"].tolist() == [5] * 5
    # Of 50 abnormal ones 40 were of the noisy field, of the labels a third are.
    assert (labels["artefact"] == "noise").sum() == 5


def test_no_kind_has_more_than_its_share():
    labels = drawn(candidates(50, 40, kinds=("noise", "blur", "noise", "noise")), per_artefact=12)
    assert labels["artefact"].value_counts().to_dict() == {"noise": 12, "blur": 10}
    assert (labels["label"] == "normal").sum() == 50, "normal is no kind of artefact"


def test_caps_do_not_cost_labels_that_others_can_give():
    rows = candidates(0, 60, kinds=("noise", "noise", "blur", "dead"))
    labels = drawn(rows, per_class=30, per_artefact=12)
    assert len(labels) == 30 and labels["artefact"].value_counts()["noise"] <= 12


# Crops of a derived screen


def test_the_labels_of_the_real_fields_are_those_that_their_readme_counts():
    first, second = (read_label_file(EXAMPLE / f"labels/annotator_{one}.csv") for one in "ab")
    keys = ["plate", "well", "site", "x_px", "y_px"]
    both = first.merge(second, on=keys, validate="one_to_one")
    alike = both[both["label_x"] == both["label_y"]]
    assert (len(both), len(alike), (alike["label_x"] == "abnormal").sum()) == (391, 382, 25)


def test_blurred_crops_go_unless_most_are_blurred():
    def kept(edges):
        rows = derived_candidates([0] * len(edges)).assign(edge=np.repeat(edges, 2))
        return keep_sharp(rows, 0.5)["edge"].tolist()

    assert kept([0.9, 0.2, np.nan, 0.5]) == [0.2, 0.2, 0.5, 0.5]
    few_sharp = kept([0.9, 0.2, np.nan])
    assert len(few_sharp) == 6 and few_sharp[0] == 0.9


def derived_candidates(oddness, plate="p"):
    """Return originals of known oddness, each followed by its copy."""
    names = [f"s/{plate}/B02/s1/x{i:04d}y0001" for i in range(len(oddness))]
    crops = [crop for name in names for crop in (name, f"{name}/blur")]
    return pd.DataFrame({"crop_id": crops, "plate": plate, "oddness": np.repeat(oddness, 2)})


def test_the_oddest_share_of_a_plate_and_its_copies_give_no_labels():
    rows = derived_candidates(np.arange(20.0))
    kept = keep_usual(rows.sample(frac=1, random_state=0), 0.1)
    assert sorted(kept["crop_id"]) == sorted(rows["crop_id"][rows["oddness"] < 18])
    assert len(keep_usual(rows, 0.0)) == 40 and len(keep_usual(rows.head(2), 0.5)) == 2


def test_each_plate_is_trimmed_by_itself():
    rows = pd.concat([derived_candidates(np.arange(10.0)), derived_candidates(np.arange(10), "q")])
    rows.loc[rows["plate"] == "q", "oddness"] += 100
    kept = keep_usual(rows, 0.2)
    assert kept["plate"].value_counts().to_dict() == {"p": 16, "q": 16}


def test_no_crop_is_trimmed_of_none():
    assert keep_usual(derived_candidates([]), 0.1).empty


def test_crops_drawn_at_random_keep_the_share_of_abnormal_ones(tmp_path):
    rows = candidates(1800, 200)
    labels = draw_at_random(rows, 1000, seed=0)
    assert len(labels) == 1000 and labels["crop_id"].is_unique
    share = (labels["label"] == "abnormal").mean()
    assert abs(share - 0.1) < 4 * np.sqrt(0.1 * 0.9 / 1000)
    truth = rows.set_index("crop_id")["artefact"].loc[labels["crop_id"]]
    assert ((truth == "none").to_numpy() == (labels["label"] == "normal")).all()
    write_table(labels.assign(compound=None), tmp_path / "labels.parquet", "labels")


def test_more_crops_at_random_than_there_are_is_all():
    assert len(draw_at_random(candidates(3, 2), 10, seed=0)) == 5
    assert len(draw_at_random(candidates(0, 0), 10, seed=0)) == 0
