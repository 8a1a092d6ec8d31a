"""The labels of a whole screen: from files or a truth, refused or warned of, and the command."""

import json
import sys
from argparse import Namespace
from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest

from hcsqc.core.errors import InputError
from hcsqc.core.schema import read_table, write_table
from hcsqc.labels.agreement import disagreements
from hcsqc.labels.match import NOT_CROPPED
from hcsqc.labels.screen_labels import (
    LabelSettings,
    ScreenLabels,
    check_unmatched,
    labels_of_files,
    labels_of_truth,
    read_nuclei,
    report_agreement,
    report_unmatched,
)
from scripts.labels import label_screen
from tests.labels.made_labels import label_file, nuclei_at, placed, truth_at

SETTINGS = LabelSettings(
    match_px=12.0,
    truth_per_class=2,
    truth_per_field=20,
    truth_per_artefact=20,
    truth_random=5,
    truth_trimmed=0.1,
    focus_edge=0.5,
    window_px=64,
    conflicts="error",
)
NUCLEI_COLUMNS = ["crop_id", "field_id", "x_px", "y_px", "area_px", "kept", "reason"]


def unmatched(*reasons):
    """Return labels that found no crop, for some reasons."""
    table = pd.DataFrame({"x_px": range(len(reasons)), "reason": list(reasons)}, dtype=object)
    return table.assign(plate="p", well="B02", site=1, y_px=7.4, source="a.csv")


# From files and truths


def test_nuclei_of_all_plates_know_their_place(tmp_path):
    paths = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    write_table(nuclei_at(("AF48", 5, 6, True))[NUCLEI_COLUMNS], paths[0], "nuclei")
    other = nuclei_at(("B02", 7, 8, False), plate="q 2", site=12)
    write_table(other[NUCLEI_COLUMNS], paths[1], "nuclei")
    nuclei = read_nuclei(paths)
    assert nuclei[["plate", "well", "site"]].to_numpy().tolist() == [
        ["p", "AF48", 1],
        ["q 2", "B02", 12],
    ]
    assert nuclei["x_px"].tolist() == [5, 7] and nuclei.index.tolist() == [0, 1]


def test_labels_of_a_truth_are_from_evaluation_wells_and_random_ones_from_all(tmp_path):
    places = [(well, x, 100, True) for well in ("B02", "B03") for x in range(100, 1300, 200)]
    nuclei = nuclei_at(*places, ("B02", 1500, 100, False))
    cells = [(w, x, y, "dead" if x % 400 == 100 else "none") for w, x, y, _ in places]
    write_table(truth_at(*cells, ("B02", 1500, 100, "dead")), tmp_path / "t.parquet", "truth")
    found = labels_of_truth([tmp_path / "t.parquet"], nuclei, ["B03"], SETTINGS)
    assert set(found.labels["well"]) == {"B03"}
    assert found.counts() == {"normal": 2, "abnormal": 2}
    assert found.metrics == {"labels_left_out_nearby": 0}
    assert len(found.at_random) == 5 and found.unmatched.empty
    everything = labels_of_truth(
        [tmp_path / "t.parquet"], nuclei, [], replace(SETTINGS, truth_random=99)
    )
    assert everything.labels.empty and everything.counts() == {}
    assert set(everything.at_random["crop_id"]) == set(nuclei["crop_id"][nuclei["kept"]])
    artefact = everything.at_random.set_index("crop_id")["artefact"]
    x = artefact.index.str.extract(r"x(\d{4})")[0].astype(int)
    assert (artefact.isna().to_numpy() == (x % 400 != 100).to_numpy()).all()


def test_a_crop_without_a_truth_is_no_label_of_a_derived_screen(tmp_path):
    nuclei = nuclei_at(("B02", 50, 50, True), ("B02", 90, 50, True))
    truth = (
        nuclei[["crop_id"]].iloc[:1].assign(artefact="none", strength=0.0, oddness=0.0, edge=0.3)
    )
    write_table(truth, tmp_path / "t.parquet", "crop_truth")
    found = labels_of_truth([tmp_path / "t.parquet"], nuclei, ["B02"], SETTINGS)
    assert found.labels["crop_id"].tolist() == ["s/p/B02/s1/x0050y0050"]


def test_a_good_cell_near_an_artefact_is_no_example_but_a_good_cell(tmp_path, capsys):
    places = [("B02", x, 100, True) for x in (100, 200, 300, 400)]
    cells = zip(places, ("none", "none", "none", "dead"), (90, 20, None, 0), strict=True)
    truth = truth_at(*[(*place[:3], artefact, away) for place, artefact, away in cells])
    write_table(truth, tmp_path / "t.parquet", "truth")
    settings = replace(SETTINGS, truth_per_class=9, truth_random=9)
    found = labels_of_truth([tmp_path / "t.parquet"], nuclei_at(*places), ["B02"], settings)
    label_of = found.labels.set_index("crop_id")["label"].to_dict()
    assert label_of == {
        "s/p/B02/s1/x0100y0100": "normal",
        "s/p/B02/s1/x0300y0100": "normal",
        "s/p/B02/s1/x0400y0100": "abnormal",
    }
    assert found.at_random["label"].tolist() == ["normal", "normal", "normal", "abnormal"]
    assert found.metrics == {"labels_left_out_nearby": 1}
    assert capsys.readouterr().out == (
        "1 of 3 good cells are not used as examples, because the artefact of a neighbour "
        "reaches into their window\n"
    )


def test_a_noisy_field_is_not_most_of_a_class(tmp_path):
    places = [("B02", x, 100, True) for x in range(100, 140)]
    places += [("C03", x, 100, True) for x in range(4)]
    cells = [(*place[:3], "noise" if place[0] == "B02" else "blur", 0) for place in places]
    write_table(truth_at(*cells), tmp_path / "t.parquet", "truth")
    settings = replace(SETTINGS, truth_per_class=99, truth_per_field=6)
    wells = ["B02", "C03"]
    found = labels_of_truth([tmp_path / "t.parquet"], nuclei_at(*places), wells, settings)
    assert found.labels["artefact"].value_counts().to_dict() == {"noise": 6, "blur": 4}
    settings = replace(settings, truth_per_artefact=3)
    found = labels_of_truth([tmp_path / "t.parquet"], nuclei_at(*places), wells, settings)
    assert found.labels["artefact"].value_counts().to_dict() == {"noise": 3, "blur": 3}


def test_the_oddest_crops_of_a_derived_screen_are_told_and_give_no_labels(tmp_path, capsys):
    nuclei = nuclei_at(*[("B02", x, 50, True) for x in range(10)])
    truth = nuclei[["crop_id"]].assign(artefact="none", strength=0.0, oddness=range(10), edge=0.3)
    write_table(truth.astype({"oddness": float}), tmp_path / "t.parquet", "crop_truth")
    settings = replace(SETTINGS, truth_per_class=99, truth_random=99)
    found = labels_of_truth([tmp_path / "t.parquet"], nuclei, ["B02"], settings)
    usual = sorted(nuclei["crop_id"])[:9]
    assert found.labels["crop_id"].tolist() == found.at_random["crop_id"].tolist() == usual
    assert found.metrics == {"labels_left_out_blurred": 0, "labels_left_out_odd": 1}
    assert capsys.readouterr().out.startswith("1 of 10 crops get no label: they, or the crops that")


def test_crops_out_of_focus_are_no_normal_examples_of_a_derived_screen(tmp_path, capsys):
    nuclei = nuclei_at(*[("B02", x, 50, True) for x in range(10)])
    edge = [0.6, 0.7, 0.5, *[0.2] * 7]
    truth = nuclei[["crop_id"]].assign(artefact="none", strength=0.0, oddness=0.0, edge=edge)
    write_table(truth, tmp_path / "t.parquet", "crop_truth")
    settings = replace(SETTINGS, truth_per_class=99, truth_random=99)
    found = labels_of_truth([tmp_path / "t.parquet"], nuclei, ["B02"], settings)
    sharp = sorted(nuclei["crop_id"])[2:]
    assert found.labels["crop_id"].tolist() == found.at_random["crop_id"].tolist() == sharp
    told = (
        "2 of 10 crops get no label: they, or the crops that they were copied from, are out of "
        "focus (2)"
    )
    assert capsys.readouterr().out.startswith(told)


def test_disagreements_are_written_before_one_is_refused(tmp_path):
    place = "p,B02,1,50,50"
    files = [
        label_file(tmp_path / "a.csv", f"{place},normal,,a,random"),
        label_file(tmp_path / "b.csv", f"{place},abnormal,,b,random"),
    ]
    lists = tmp_path / "lists" / "d.csv", tmp_path / "u.csv"
    with pytest.raises(InputError, match=r"labelled both .*; all disagreements: .*lists/d.csv"):
        labels_of_files("s", files, nuclei_at(("B02", 50, 50, True)), [], SETTINGS, *lists)
    assert pd.read_csv(lists[0])["annotator"].tolist() == ["a", "b"]
    assert not lists[1].exists()


def test_counts_name_the_more_common_class_first():
    labels = pd.DataFrame({"label": ["abnormal", "normal", "abnormal"]})
    found = ScreenLabels(labels, labels, labels, {})
    assert list(found.counts().items()) == [("abnormal", 2), ("normal", 1)]


# What is said of them


def test_every_pair_is_told_with_its_kappa_and_share(tmp_path, capsys):
    rows = placed(
        *[(f"c{crop}", "a", "normal" if crop < 2 else "abnormal", "") for crop in range(4)],
        *[(f"c{crop}", "b", "normal" if crop < 3 else "abnormal", "") for crop in range(4)],
        ("c0", "c/d", "normal"),
    )
    metrics = report_agreement(rows, disagreements(rows), tmp_path / "d.csv")
    # Cohen's formula by hand: 3/4 agree, 1/2 x 3/4 + 1/2 x 1/4 by chance.
    assert metrics.pop("kappa_a-b") == pytest.approx(0.5)
    assert pd.isna(metrics.pop("kappa_a-c_d")) and pd.isna(metrics.pop("kappa_b-c_d"))
    assert metrics == {"labels_disagreeing": 1}
    told = capsys.readouterr()
    assert told.out.splitlines() == [
        "agreement of a and b: kappa 0.500, 75.0% of 4 crops",
        "agreement of a and c/d: kappa undefined (all of one class), 100.0% of 1 crops",
        "agreement of b and c/d: kappa undefined (all of one class), 100.0% of 1 crops",
    ]
    assert told.err == (
        "warning: 1 crop has labels of both classes; the first is c2: abnormal by a (a.csv), "
        f"normal by b (b.csv); see {tmp_path / 'd.csv'}\n"
    )


def test_disagreements_are_one_line_with_their_number(tmp_path, capsys):
    rows = placed(
        *[(f"c{crop}", "a", "normal") for crop in range(7)],
        *[(f"c{crop}", "b", "abnormal") for crop in range(7)],
        ("kind", "a", "abnormal", "blur"),
        ("kind", "b", "abnormal", "dead"),
    )
    metrics = report_agreement(rows, disagreements(rows), tmp_path / "d.csv")
    assert metrics["labels_disagreeing"] == 7
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith("warning: 7 crops have labels of both classes; the first is c0: ")


@pytest.mark.parametrize(("far", "message"), [(1, None), (2, "2 of 3 labels are not at a nucleus")])
def test_more_than_half_of_the_labels_far_from_nuclei_are_refused(far, message):
    lost = unmatched(*["no nucleus within 12 px"] * far)
    labels = pd.DataFrame({"crop_id": ["c"]})
    if message is None:
        check_unmatched(labels, lost, "s")
        return
    with pytest.raises(
        InputError, match=f"screen s: {message}; the first: .*no nucleus within 12 px"
    ):
        check_unmatched(labels, lost, "s")


def test_labels_of_nuclei_that_were_not_cropped_are_not_far():
    check_unmatched(pd.DataFrame({"crop_id": ["c"]}), unmatched(*[NOT_CROPPED] * 9), "s")


def test_no_label_at_all_is_refused():
    with pytest.raises(InputError, match="screen s: no label matches a crop; the first: no row"):
        check_unmatched(pd.DataFrame({"crop_id": []}), unmatched(), "s")


def test_labels_without_a_crop_are_one_line_that_says_where_all_are(tmp_path, capsys):
    report_unmatched(unmatched(*[NOT_CROPPED] * 7), tmp_path / "u.csv")
    assert capsys.readouterr().err == (
        "warning: 7 labels match no crop; the first: p B02 site 1 (0, 7) of a.csv: "
        f"{NOT_CROPPED}; see {tmp_path}/u.csv\n"
    )
    report_unmatched(unmatched(), tmp_path / "u.csv")
    assert capsys.readouterr().err == ""


# The command


def arguments(folder, nuclei, truth=(), files=(), wells=("B02",)):
    write_table(nuclei[NUCLEI_COLUMNS], folder / "nuclei.parquet", "nuclei")
    fields = pd.DataFrame({"plate": "p", "well": ["B02", "B03"], "role": ["compound", "mock"]})
    fields["field_id"] = "s/p/" + fields["well"] + "/s1"
    fields = fields.assign(site=1, compound=["Taxol", "DMSO"], concentration_um=1.0, problem=None)
    blank = [[None]] * len(fields)
    images = dict.fromkeys(("image_path", "image_page", "image_bytes"), blank)
    write_table(fields.assign(**images), folder / "fields.parquet", "fields")
    return Namespace(
        screen="s",
        nuclei=[folder / "nuclei.parquet"],
        fields=[folder / "fields.parquet"],
        truth=list(truth),
        label_files=list(files),
        unlabelled_plates=["q 2", "P9"],
        evaluation_wells=list(wells),
        output=folder / "labels.parquet",
        random=folder / "random.parquet",
        unmatched=folder / "unmatched.csv",
        disagreements=folder / "disagreements.csv",
        match_px=12.0,
        truth_per_class=5,
        truth_per_field=20,
        truth_per_artefact=20,
        truth_random=12,
        truth_trimmed=0.1,
        focus_edge=0.5,
        conflicts="error",
        window_px=64.0,
    )


def run(args):
    record = SimpleNamespace()
    label_screen.label(args, record)
    return read_table(args.output, "labels"), record.metrics


def test_screen_without_labels_is_sent_to_the_page_on_labels(tmp_path):
    args = arguments(tmp_path, nuclei_at(("B02", 50, 50, True)))
    with pytest.raises(InputError, match=r"screen s has no labels.*docs/labels.md"):
        run(args)


def test_screen_is_labelled_from_files(tmp_path, capsys):
    nuclei = nuclei_at(("B02", 50, 50, True), ("B02", 150, 50, True), ("C03", 5, 5, False))
    one = label_file(
        tmp_path / "a.csv", "p,B02,1,51,50,normal,,a,random", "p,C03,1,5,5,normal,,a,random"
    )
    two = label_file(tmp_path / "b.csv", "p,B02,1,149,50,abnormal,dead,b,uncertain")
    labels, metrics = run(arguments(tmp_path, nuclei, files=[one, two]))
    assert labels["source"].tolist() == ["a.csv", "b.csv"]
    assert metrics == {
        "labels_normal": 1,
        "labels_abnormal": 1,
        "labels_unmatched": 1,
        "labels_random": 1,
        "labels_disagreeing": 0,
    }
    at_random = read_table(tmp_path / "random.parquet", "labels")
    pd.testing.assert_frame_equal(at_random, labels[labels["selection"] == "random"])
    listed = pd.read_csv(tmp_path / "disagreements.csv")
    assert listed.empty and listed.columns[0] == "crop_id"
    unmatched = pd.read_csv(tmp_path / "unmatched.csv")
    assert unmatched["reason"].tolist() == ["the nucleus was not cropped"]
    assert "1 label matches no crop" in capsys.readouterr().err


def test_evaluation_wells_without_a_nucleus_are_named(tmp_path, capsys):
    path = label_file(tmp_path / "a.csv", "p,B02,1,51,50,normal,,a,random")
    nuclei = nuclei_at(("B02", 50, 50, True))
    run(arguments(tmp_path, nuclei, files=[path], wells=("B02", "P24", "C03")))
    told = "warning: evaluation_wells: no nucleus in C03, P24; is the name of a well wrong?"
    assert told in capsys.readouterr().err


def test_a_truth_without_a_crop_in_evaluation_wells_blames_these(tmp_path):
    write_table(truth_at(("B02", 50, 50, "none")), tmp_path / "t.parquet", "truth")
    args = arguments(
        tmp_path, nuclei_at(("B02", 50, 50, True)), truth=[tmp_path / "t.parquet"], wells=("P24",)
    )
    with pytest.raises(InputError, match=r"in evaluation_wells \(P24\); crops lie in B02: correct"):
        run(args)


def test_labels_whose_plate_has_lost_its_zeros_are_refused_with_the_reason(tmp_path):
    path = label_file(tmp_path / "a.csv", "42,A01,1,50,100,normal,,al,random")
    nuclei = nuclei_at(("A01", 50, 100, True), plate="0042")
    expected = r"first: 42 A01 site 1 \(50, 100\) of a.csv: no nucleus of plate '42'; .*'0042' with"
    with pytest.raises(InputError, match=expected):
        run(arguments(tmp_path, nuclei, files=[path]))


def test_labels_on_plates_that_labelled_plates_leaves_out_are_refused(tmp_path):
    lines = ["p,B02,1,51,50,normal,,a,random", "q 2,B02,1,51,50,normal,,a,random"]
    known = label_file(tmp_path / "a.csv", *lines[:1], "other,B02,1,51,50,normal,,a,random")
    args = arguments(tmp_path, nuclei_at(("B02", 50, 50, True)), files=[known])
    assert run(args)[1]["labels_unmatched"] == 1
    args.label_files.append(label_file(tmp_path / "b.csv", *lines))
    told = r"screen s: labels lie on plate q 2 \(b.csv\); add it to screens.s.labelled_plates"
    with pytest.raises(InputError, match=told):
        run(args)
    args.label_files.append(label_file(tmp_path / "c.csv", lines[1].replace("q 2", "P9")))
    with pytest.raises(InputError, match=r"plates P9, q 2 \(b.csv, c.csv\); add them to"):
        run(args)


def test_labels_of_another_screen_are_refused(tmp_path):
    path = label_file(tmp_path / "a.csv", "other,B02,1,51,50,normal,,a,random")
    args = arguments(tmp_path, nuclei_at(("B02", 50, 50, True)), files=[path])
    with pytest.raises(InputError, match="no label matches a crop; the first: .*'other'"):
        run(args)


def test_labels_of_another_screen_are_refused_though_some_lie_at_a_nucleus_by_chance(tmp_path):
    nuclei = nuclei_at(("B02", 50, 50, True))
    near, far = "p,B02,1,51,50,normal,,a,random", "p,B02,1,400,300,normal,,a,random"
    wrong = [label_file(tmp_path / "a.csv", near, far, far.replace("400", "450"))]
    with pytest.raises(InputError, match="2 of 3 labels are not at a nucleus; .* another screen"):
        run(arguments(tmp_path, nuclei, files=wrong))
    right = [label_file(tmp_path / "b.csv", near, far)]
    labels, metrics = run(arguments(tmp_path, nuclei, files=right))
    assert len(labels) == 1 and metrics["labels_unmatched"] == 1


def test_label_file_with_its_header_alone_is_refused(tmp_path):
    path = label_file(tmp_path / "a.csv")
    args = arguments(tmp_path, nuclei_at(("B02", 50, 50, True)), files=[path])
    with pytest.raises(InputError, match="no label matches a crop; the first: .*no rows"):
        run(args)


def test_simulated_screen_is_labelled_in_evaluation_wells_from_whole_crops(tmp_path):
    places = [(well, x, 100, True) for well in ("B02", "B03") for x in range(100, 2100, 200)]
    nuclei = nuclei_at(*places, ("B02", 5, 5, False))
    cells = [(w, x + 2, y, "blur" if x % 400 == 100 else "none") for w, x, y, _ in places]
    truth = truth_at(*cells, ("B02", 5, 5, "none"))
    write_table(truth, tmp_path / "truth.parquet", "truth")
    labels, metrics = run(arguments(tmp_path, nuclei, truth=[tmp_path / "truth.parquet"]))
    assert set(labels["well"]) == {"B02"}
    assert metrics == {
        "labels_normal": 5,
        "labels_abnormal": 5,
        "labels_unmatched": 0,
        "labels_random": 12,
        "labels_left_out_nearby": 0,
    }
    at_random = read_table(tmp_path / "random.parquet", "labels")
    assert set(labels["compound"]) == {"Taxol"}
    treated = at_random.groupby("well")["compound"].unique().str.join("+")
    assert treated.to_dict() == {"B02": "Taxol", "B03": ""}
    assert set(at_random["well"]) == {"B02", "B03"} and set(at_random["selection"]) == {"random"}
    assert set(at_random["crop_id"]) <= set(nuclei["crop_id"][nuclei["kept"]])
    assert pd.read_csv(tmp_path / "disagreements.csv").empty
    x = labels["crop_id"].str.extract(r"x(\d{4})")[0].astype(int)
    assert ((x % 400 == 100) == (labels["label"] == "abnormal")).all()


def test_derived_screen_is_labelled_by_the_names_of_its_crops(tmp_path):
    nuclei = nuclei_at(("B02", 50, 50, True), ("B02", 90, 50, True))
    copies = nuclei.assign(crop_id=nuclei["crop_id"] + "/noise")
    both = pd.concat([nuclei, copies], ignore_index=True)
    truth = both[["crop_id"]].assign(artefact=["none"] * 2 + ["noise"] * 2, strength=0.0)
    truth["oddness"], truth["edge"] = 1.0, 0.3
    write_table(truth, tmp_path / "truth.parquet", "crop_truth")
    labels, metrics = run(arguments(tmp_path, both, truth=[tmp_path / "truth.parquet"]))
    assert metrics["labels_normal"] == metrics["labels_abnormal"] == 2
    assert (labels["crop_id"].str.endswith("/noise") == (labels["label"] == "abnormal")).all()


def two_annotators(folder):
    nuclei = nuclei_at(*[("B02", x, 50, True) for x in range(50, 50 + 40 * 8, 40)])
    places = [f"p,B02,1,{x},50" for x in range(50, 50 + 40 * 8, 40)]
    one = [f"{place},normal,,=A b,random" for place in places[:4]]
    one += [f"{place},abnormal,blur,=A b,random" for place in places[4:]]
    two = [f"{place},normal,,bob,diverse" for place in places[:3]]
    two += [f"{place},abnormal,,bob,diverse" for place in places[3:7]]
    files = [label_file(folder / "a.csv", *one), label_file(folder / "b.csv", *two)]
    return arguments(folder, nuclei, files=files)


def test_kappa_is_printed_and_recorded_and_disagreements_are_listed(tmp_path, capsys):
    args = two_annotators(tmp_path)
    args.conflicts = "drop"
    labels, metrics = run(args)
    assert len(labels) == 7 and metrics["labels_disagreeing"] == 1
    assert metrics["kappa__A_b-bob"] == pytest.approx(0.72, abs=0.005)
    assert "agreement of =A b and bob: kappa 0.720, 85.7% of 7 crops" in capsys.readouterr().out
    listed = pd.read_csv(tmp_path / "disagreements.csv")
    assert listed["crop_id"].tolist() == ["s/p/B02/s1/x0170y0050"] * 2
    assert sorted(listed["label"]) == ["abnormal", "normal"]


def test_conflict_is_listed_and_printed_before_it_is_an_error(tmp_path, capsys):
    args = two_annotators(tmp_path)
    message = r"labels.conflicts to abnormal.* all disagreements: .*disagreements.csv"
    with pytest.raises(InputError, match=message):
        run(args)
    assert len(pd.read_csv(tmp_path / "disagreements.csv")) == 2
    told = capsys.readouterr().err
    assert "x0170y0050: normal by =A b (a.csv), abnormal by bob" in told
    assert not args.output.exists()


def test_files_without_random_labels_give_an_empty_random_table(tmp_path):
    path = label_file(tmp_path / "a.csv", "p,B02,1,51,50,normal,,a,diverse")
    args = arguments(tmp_path, nuclei_at(("B02", 50, 50, True)), files=[path])
    labels, metrics = run(args)
    assert len(labels) == 1 and metrics["labels_random"] == 0
    assert read_table(args.random, "labels").empty


def test_command_runs_with_its_flags(tmp_path, monkeypatch, capsys):
    path = label_file(tmp_path / "a.csv", "p,B02,1,51,50,normal,,a,random")
    args = arguments(tmp_path, nuclei_at(("B02", 50, 50, True)), files=[path])
    words = [label_screen.__file__, "--record", str(tmp_path / "run" / "run.json")]
    for name, value in vars(args).items():
        values = value if isinstance(value, list) else [value]
        words += ["--" + name.replace("_", "-"), *map(str, values)]
    monkeypatch.setattr(sys, "argv", words)
    label_screen.main()
    assert read_table(args.output, "labels")["source"].tolist() == ["a.csv"]
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["metrics"]["labels_normal"] == 1
    assert "labels of s: 1 normal\n" in capsys.readouterr().out
