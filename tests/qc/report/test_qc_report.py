"""The quality-control page: numbers reconcile, what is bad is named, and it is one safe page."""

import json
import re
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from hcsqc.core.errors import InputError
from hcsqc.core.schema import features_schema, write_table
from hcsqc.encoders.roles import HIDDEN
from hcsqc.features.tables import features_table
from hcsqc.figures import tables
from hcsqc.qc.report import page as report_page
from hcsqc.qc.report.focus import FocusScale, edge_reach, focus_text
from hcsqc.qc.report.gallery import borderline, galleries, worst_of_each_artefact
from hcsqc.qc.report.page_data import map_of_features, project
from hcsqc.qc.report.plate_maps import edge_distance, places, plate_shape, shown_part
from hcsqc.qc.report.rates import rates
from hcsqc.qc.report.results import read_results, read_truth
from hcsqc.qc.report.statements import next_steps, promise, shortfall
from hcsqc.qc.thresholds import refusal
from scripts.qc import make_qc_report
from tests.qc.report.made_screen import (
    DETECTOR,
    EVIL,
    PROMISE,
    SCALE,
    THRESHOLD,
    Reader,
    data_of,
    make_features,
    make_folder,
    remake,
    render,
)

# What the page says.


@pytest.mark.parametrize(
    ("flagged", "prevalence", "told"),
    [
        (0.0, [0.154, 0.08, 0.24], "The threshold flags no cell, but by the random labels 15.4% "),
        (0.02, [0.154, 0.08, 0.24], "The threshold flags 2.0% of the cells, but"),
        (0.1, [0.154, 0.08, 0.24], ""),
        (0.02, [0.05, 0.0, 0.11], ""),
        (0.0, None, ""),
        (None, [0.154, 0.08, 0.24], ""),
    ],
)
def test_a_threshold_that_misses_most_says_so(flagged, prevalence, told):
    found = shortfall({"flagged_share": flagged, "prevalence": prevalence})
    assert found.startswith(told) and bool(found) == bool(told)


def test_the_focus_of_a_plate_is_told_in_diameters_pixels_and_micrometres():
    edges = pd.Series([0.2, 0.2, 0.2, 0.8, np.nan])
    told = focus_text(edges, SCALE)
    assert "0.20 nuclei wide in the median field (5.0 px, 3.3 µm)" in told
    assert told.endswith("Beyond the limit of 0.5 (12.5 px, 8.2 µm): 1 of 4 fields, 25.0%.")
    assert "µm" not in focus_text(edges, FocusScale(0.5, 25.0, 0))
    assert "no field has a nucleus" in focus_text(edges[4:], SCALE)


def test_the_axis_of_the_edges_shows_the_limit_and_the_most_blurred_field():
    assert edge_reach(pd.Series([0.2, np.nan]), SCALE) > 0.5
    assert edge_reach(pd.Series([0.2, 1.4]), SCALE) > 1.4
    assert edge_reach(pd.Series([0.2, 90]), SCALE) == 2
    assert edge_reach(pd.Series([np.nan]), SCALE) > 0.5


def test_the_headline_is_what_the_table_of_cells_counts(screen):
    cells = screen["cells"]
    flagged = int(cells["flagged"].fillna(False).sum())
    scored, found = int(cells["score"].notna().sum()), len(cells)
    assert flagged < scored < found
    text = Reader(screen["page"]).text
    share = f"{100 * flagged / scored:.1f}%"
    assert f"{flagged} cells flagged {share} of {scored} scored; {found} nuclei found" in text
    assert "4 bad fields of 48" in text and "2 bad wells of 24" in text
    assert "0 plates with a warning of 2" in text
    assert f"Not scored: {found - scored} nuclei" in text
    assert f"at the border {found - scored}" in text


def test_flags_of_the_galleries_add_up_to_those_of_the_screen(screen):
    text = Reader(screen["page"]).text
    totals = re.findall(r"(?:Blur|Debris|Saturation|Dead): (\d+) flagged cell", text)
    assert len(totals) == 4
    assert sum(map(int, totals)) == int(screen["cells"]["flagged"].fillna(False).sum())


def test_bad_wells_and_fields_are_named_with_the_reason(screen):
    text = Reader(screen["page"]).text
    rows = re.findall(r"well (p\d) (\w\d\d) – more flagged cells than expected", text)
    assert set(rows) == {("p1", "B03"), ("p2", "B03")}
    assert "2 of 24 fields out of focus" in text and "0 of 24 fields saturated" in text
    wells = data_of(screen["page"])["wells"]
    bad = {
        (plate, well)
        for plate, well, bad in zip(wells["plate"], wells["well"], wells["bad"], strict=True)
        if bad
    }
    assert bad == {(0, "B03"), (1, "B03")}


def test_every_crop_has_its_id_and_score(screen):
    found, cells = Reader(screen["page"]), screen["cells"].set_index("crop_id")
    shown = [re.fullmatch(r"Crop (\S+), score (\S+?)(, \w+)?", alt) for alt in found.alts]
    shown = [match for match in shown if match]
    assert len(shown) > 30
    for match in shown:
        assert float(match[2]) == pytest.approx(cells.loc[match[1], "score"], abs=6e-4)


@pytest.mark.parametrize("second", [0.5, np.nan])
def test_corrections_of_light_are_told_the_farthest_first(screen, tmp_path, second):
    def changed(table):
        return table.assign(gain=np.where(table["Metadata_Plate"] == "p2", second, 1.2))

    def warned(table):
        return table.assign(warning=np.where(table["Metadata_Plate"] == "p2", "its light", ""))

    folder = remake(screen, tmp_path, corrections=changed, plates=warned)
    page = render(folder, screen["shards"])
    part = page[page.index('id="corrections"') : page.index('id="detector"')]
    part = part[part.index("<tbody>") : part.index("</tbody>")]
    rows = [Reader(row).text for row in part.split("<tr>")[1:]]
    told = "not known" if np.isnan(second) else "×0.50, -3"
    assert [" ".join(row.split()) for row in rows] == [
        " ".join(["p2", *[told] * 3]),
        "p1 ×1.20, -3 ×1.20, -3 ×1.20, -3",
    ]
    # Warnings come before the flags themselves.
    assert page.index("its light") < page.index('id="drop"') < page.index('id="worst"')


def test_the_warned_compound_is_shown_with_crops_of_its_wells(screen):
    page = screen["page"]
    part = page[page.index('id="compounds"') : page.index('id="more"')]
    found = Reader(part)
    assert "compound 3 at 5 µM" in found.text and "compound 2" not in found.text
    wells = {alt.split("/")[2] for alt in found.alts if alt.startswith("Crop ")}
    assert wells and wells <= {"B03", "C03", "D03"}


def test_the_promise_is_that_of_the_threshold():
    assert promise(PROMISE) == (
        "At most 5% of this screen's normal cells are flagged at the threshold of 0.8, with 95% "
        "confidence: 210 normal labels in 61 wells bound the share at 4.3%, and support a "
        "promise of 4.9% at the strictest."
    )
    without = PROMISE | {"promise": False, "note": "No promise: nobody has looked"}
    assert promise(without) == "No promise is made for the threshold of 0.8: nobody has looked."
    assert "no random labels of this screen" in promise({"promise": False, "threshold": None})
    chosen = promise(PROMISE | {"encoders_compared": 11})
    assert "The encoder was chosen among 11 on labels of the same wells" in chosen
    assert "chosen among" not in promise(PROMISE | {"encoders_compared": 0})


def test_a_promise_that_too_few_wells_refuse_is_told_with_the_wells_it_takes(screen):
    why = refusal(387, 47, 0.05, 0.95)
    refused = PROMISE | {"promise": False, "note": f"No promise: {why}", "wells": 47}
    assert promise(refused) == (
        "No promise is made for the threshold of 0.8: 387 random normal labels lie in 47 wells, "
        "but a promise that at most 5.0% of good cells are lost, with 95% confidence, needs at "
        "least 59 wells with random normal labels, 12 more: 47 wells allow 6.2% at the strictest "
        "(qc.good_cells_lost: 0.062), because they may miss bad wells that are rarer."
    )
    results = read_results(screen["folder"])
    for threshold, where in ((refused, " in 12 more wells"), ({}, "")):
        steps = " ".join(next_steps(replace(results, threshold=threshold), simulated=False))
        assert f"Label random crops of this screen{where}, normal and abnormal" in steps


def test_the_estimates_the_detector_and_the_planted_are_shown(screen):
    truth = pd.DataFrame(
        {"what": ["nuclei", EVIL], "planted": [40, 0.25], "found": [38, 0.2], "low": [None, 0.1]}
    ).assign(high=[None, 0.3])
    labels = screen["cells"].dropna(subset="score").head(50)[["crop_id"]].assign(label="normal")
    page = render(screen["folder"], screen["shards"], truth=truth, labels=labels)
    text = Reader(page).text
    assert "91.0% of abnormal cells are flagged 95% interval 83.0% to 96.0%" in text
    assert "87.0% of flagged cells are abnormal" in text
    assert "nuclei 40 38 –" in text and f"{EVIL} 0.25 0.2 0.1 to 0.3" in text
    assert "labels normal: 210; abnormal: 40" in text and "trained on labels" in text
    assert "2% needs 88 more wells; 1% needs 238 more wells" in text


def test_the_prevalence_without_labels_is_shown_with_what_makes_it_doubtful(screen, tmp_path):
    rows = [
        {"method": "DyS", "estimate": 0.031, "low": 0.02, "high": 0.05},
        {"method": "EMQ", "estimate": 0.04, "low": 0.03, "high": 0.06},
    ]
    unlabelled = {"promise": False, "prevalence": None, "prevalence_by_method": rows}
    unlabelled["prevalence_doubt"] = f"Its cells look different. {EVIL}"
    assert "prevalence is doubtful" not in screen["page"]
    folder = make_folder(tmp_path / "other", screen["cells"], 2, threshold=unlabelled)
    text = Reader(render(folder, screen["shards"])).text
    assert (
        "3.1% of the screen's cells are abnormal, if they look like the labelled ones "
        "95% interval 2.0% to 5.0% by DyS; EMQ 4.0%"
    ) in text
    assert f"The estimated prevalence is doubtful. Its cells look different. {EVIL}" in text


def test_first_flags_and_drift_are_announced_in_banners(screen, tmp_path):
    banner = "First flags without any label: look before you trust."
    assert banner not in screen["page"] and 'id="warnings"' not in screen["page"]
    warning = "its features lie 3 standard deviations away"
    folder = remake(screen, tmp_path, plates=lambda table: table.assign(warning=["", warning]))
    dim = "The detector may miss dim and saturated cells."
    assert dim not in screen["page"]
    detector = DETECTOR | {"trained_on": "simulated artefacts", "warning": f"<own>: {HIDDEN}"}
    text = Reader(render(folder, screen["shards"], detector=detector)).text
    assert banner in text and f"{dim} <own>: {HIDDEN}." in text
    assert f"1 plate with a warning p2 : {warning}" in text
    assert "Look at 1 plate with a warning" in text


def test_borderline_crops_lie_on_both_sides_of_the_threshold(screen):
    above, below = borderline(screen["cells"], 5)
    scores = screen["cells"]["score"].dropna()
    assert above["score"].min() == scores[scores > THRESHOLD].min()
    assert below["score"].max() == scores[scores <= THRESHOLD].max()
    assert above["score"].is_monotonic_increasing and below["score"].is_monotonic_decreasing
    assert not above["score"].le(THRESHOLD).any() and not below["score"].gt(THRESHOLD).any()


def test_worst_crops_are_not_all_of_one_well(screen):
    cells = screen["cells"].copy()
    cells["score"] = cells["score"].where(cells["Metadata_Well"] == "B03", cells["score"] / 2)
    cells.loc[cells["Metadata_Well"].isin(["C02", "C03"]) & cells["score"].notna(), "flagged"] = (
        True
    )
    cells.loc[cells["flagged"].fillna(False), "artefact"] = None
    worst = worst_of_each_artefact(cells, 12)
    assert list(worst) == ["of no known kind"]
    (rows,) = worst.values()
    assert len(rows) == 12 and rows["score"].is_monotonic_decreasing
    assert rows.groupby(["Metadata_Plate", "Metadata_Well"]).size().max() == 2
    many = worst_of_each_artefact(cells, 10_000)["of no known kind"]
    assert len(many) == cells["flagged"].fillna(False).sum(), "rather one well than an empty place"
    highest = cells.loc[cells["flagged"].fillna(False), "score"].max()
    assert rows["score"].iloc[0] == highest


# Plates.


@pytest.mark.parametrize(
    ("wells", "shape"),
    [
        (["B02"], (8, 12)),
        (["A01", "H12"], (8, 12)),
        (["A13"], (16, 24)),
        (["I01", "P24"], (16, 24)),
        (["AF48"], (32, 48)),
        ([f"{row}{column:02d}" for row in "ABCD" for column in range(1, 7)], (4, 6)),
        ([], (8, 12)),
        (["nowhere", None], (8, 12)),
    ],
)
def test_the_plate_is_the_smallest_that_has_the_wells(wells, shape):
    assert plate_shape(wells) == shape


@pytest.mark.parametrize(
    ("wells", "part"),
    [
        (["A01", "A04"], (0, 2, 0, 5)),
        (["B02", "E07"], (0, 6, 0, 8)),
        (["H12", "nowhere"], (6, 8, 10, 12)),
        (["A01", "H12"], (0, 8, 0, 12)),
        ([], (0, 8, 0, 12)),
    ],
)
def test_a_map_has_the_wells_and_one_place_around_them(wells, part):
    assert shown_part(wells, (8, 12)) == part


def test_wells_lie_where_their_names_say():
    found = places(["A01", "H12", "AF48", "A00", "?"])
    assert found.to_numpy().tolist() == [[0, 0], [7, 11], [31, 47], [-1, -1], [-1, -1]]
    wells = ["A05", "B02", "D06", "H12", "C10", "?"]
    assert edge_distance(wells, (8, 12)).tolist() == [0, 1, 3, 0, 2, -1]


def test_rates_are_of_cells_and_their_intervals_of_wells():
    rng = np.random.default_rng(0)
    alike = pd.DataFrame({"by": 1, "scored": 50, "flagged": [0] * 30 + [50] * 10})
    mixed = pd.DataFrame({"by": 2, "scored": 50, "flagged": rng.binomial(50, 0.25, 40)})
    table = rates(pd.concat([alike, mixed]), "by").set_index("by")
    assert table.loc[1, "share"] == pytest.approx(0.25)
    assert table["scored"].tolist() == [2000, 2000] and table["clusters"].tolist() == [40, 40]
    width = table["high"] - table["low"]
    # All or nothing in each of 40 wells: as uncertain as 40 cells, not as 2000.
    assert width[1] == pytest.approx(2 * 2.02 * np.sqrt(0.25 * 0.75 / 39), rel=0.02)
    assert width[2] < 0.06
    none = rates(pd.DataFrame({"by": 1, "scored": [9, 1], "flagged": 0}), "by").iloc[0]
    assert none["share"] == 0 and none["low"] == 0 and none["high"] > 0.2
    one = rates(pd.DataFrame({"by": [1, 2], "scored": [5, 0], "flagged": [1, 0]}), "by")
    assert one["by"].tolist() == [1] and np.isnan(one["low"].iloc[0])


def test_the_map_of_features_keeps_the_largest_spread():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(200, 5)) * [1, 10, 1, 3, 1]
    points, shares = project(vectors)
    assert abs(np.corrcoef(points[:, 0], vectors[:, 1])[0, 1]) > 0.99
    assert shares[0] == pytest.approx(100 / 112, abs=0.05)
    assert (project(np.ones((4, 3)))[0] == 0).all()
    assert project(np.arange(4.0)[:, None])[0].shape == (4, 2)


# What it copes with.


def test_text_from_files_is_escaped(screen, tmp_path):
    cells = screen["cells"].copy()
    first = cells["Metadata_Plate"] == "p1"
    cells.loc[first, "Metadata_Plate"] = EVIL
    cells["reason"] = cells["reason"].where(cells["reason"].isna(), EVIL)

    def evil(*columns):
        return lambda table: table.assign(**dict.fromkeys(columns, EVIL))

    folder = make_folder(
        tmp_path / "evil",
        cells,
        2,
        fields=evil("reason", "compound", "role"),
        wells=evil("reason", "compound", "role", "artefact"),
        plates=evil("warning"),
        compounds=evil("compound", "artefact"),
        threshold=PROMISE | {"note": EVIL},
    )
    page = render(folder, screen["shards"], detector={EVIL: {EVIL: [EVIL]}})
    found = Reader(page)
    assert found.tags.count("script") == 4
    assert "<script>alert" not in page
    assert EVIL in data_of(page)["plates"][0]["name"]
    # Plate, compound, reason, warning, note and detector: all are there, as text.
    assert found.text.count(EVIL) > 20
    assert f"{EVIL} at 5 µM" in found.text


def test_pictures_lie_in_the_page_and_nothing_is_fetched(screen):
    for page in (screen["page"], screen["plate"]):
        found = Reader(page)
        assert len(found.alts) > 30 and all(found.alts)
        assert re.search(r"url\(data:image/webp;base64,[\w+/=]+\)", page)
        ours = page.replace(tables.LIBRARY.read_text(encoding="utf-8"), "")
        assert not re.search(r"(src|href)=.?(https?:|//)|url\((?!data:|\${picture)|@import", ours)
        # The only other address is a name: of SVG's elements.
        assert set(re.findall(r"https?:[^\"]*", ours)) == {"http://www.w3.org/2000/svg"}
        assert not {"link", "iframe", "object"} & set(found.tags)
        for script in (report_page.SCRIPT, tables.SCRIPT):
            assert not re.search(
                r"\beval\(|innerHTML|insertAdjacentHTML", script.read_text("utf-8")
            )


def test_a_screen_in_which_nothing_is_scored_says_so(screen, tmp_path):
    cells = screen["cells"].copy()
    cells[["score", "probability", "focus", "saturated"]] = np.nan
    cells["flagged"], cells["artefact"], cells["reason"] = pd.NA, None, "no crop"
    cells["flagged"] = cells["flagged"].astype("boolean")
    missing = {"threshold": None, "promise": False, "recall": None, "prevalence": None}
    folder = make_folder(tmp_path / "none", cells, 2, threshold=missing)
    text = Reader(render(folder, screen["shards"], features=[screen["features"]])).text
    assert f"0 cells flagged – of 0 scored; {len(cells)} nuclei found" in text
    assert "No cell is flagged." in text and "Nothing was scored." in text
    assert "Nothing was scored: first see why" in text
    assert "nan" not in text.lower().replace("nanometre", "")


def test_a_screen_without_flags_compounds_or_bad_wells_says_so(screen, tmp_path):
    cells = screen["cells"][screen["cells"]["Metadata_Plate"] == "p1"].copy()
    cells["flagged"] = cells["flagged"].where(cells["flagged"].isna(), False)
    cells["artefact"] = None
    folder = make_folder(
        tmp_path / "good",
        cells,
        2,
        compounds=lambda table: table.head(0),
        wells=lambda table: table.assign(bad=False, focus=np.nan),
        fields=lambda table: table.assign(bad=False, compound=None, concentration_um=np.nan),
    )
    text = Reader(render(folder, screen["shards"])).text
    for words in (
        "0 cells flagged 0.0% of",
        "No well and no field is bad.",
        "No cell is flagged.",
        "No compound was compared with controls.",
        "No table of features was given.",
    ):
        assert words in text, words


def test_a_long_list_is_cut_in_the_page_and_whole_in_its_csv(screen, tmp_path, monkeypatch):
    monkeypatch.setattr(report_page, "MOST_ROWS", 5)
    folder = remake(screen, tmp_path, wells=lambda table: table.assign(bad=True))
    page = render(folder, screen["shards"])
    assert "And 19 more: the buttons above give all of them" in Reader(page).text
    assert len(data_of(page)["drops"].splitlines()) == 1 + 24


# Bad input.


def test_tables_of_different_runs_are_refused(screen, tmp_path):
    folder = remake(
        screen, tmp_path, wells=lambda table: table.assign(flagged=table["flagged"] + 1)
    )
    with pytest.raises(InputError, match=r"wells.csv: \d+ cells flagged, but cells.parquet has"):
        read_results(folder)


def test_plates_and_compounds_keep_their_names(screen, tmp_path):
    cells = screen["cells"].assign(Metadata_Plate="0042")
    folder = make_folder(
        tmp_path / "names", cells, 2, compounds=lambda table: table.assign(compound="NA")
    )
    results = read_results(folder)
    assert set(results.plates["Metadata_Plate"]) == {"0042"}
    assert set(results.compounds["compound"]) == {"NA"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("wells.csv", "a,b\n1,2\n", "column 'Metadata_Plate' is missing"),
        ("threshold.json", "[1]", "it holds no keys"),
        ("threshold.json", "{", "is damaged"),
        ("plates.csv", None, "cannot be read as CSV"),
    ],
)
def test_a_file_that_is_not_as_agreed_is_named(screen, tmp_path, name, content, message):
    folder = remake(screen, tmp_path)
    (folder / name).unlink() if content is None else (folder / name).write_text(content)
    with pytest.raises(InputError, match=f"{name}: .*{message}"):
        read_results(folder)


@pytest.mark.parametrize(("column", "value"), [("bad", "maybe"), ("scored", "many")])
def test_a_value_that_is_no_number_or_truth_is_named(screen, tmp_path, column, value):
    folder = remake(screen, tmp_path, fields=lambda table: table.assign(**{column: value}))
    with pytest.raises(InputError, match=f"fields.csv: '{column}' must be"):
        read_results(folder)


def test_features_of_another_screen_or_encoder_are_refused(screen, tmp_path):
    other = make_features(
        tmp_path / "other.parquet", screen["cells"].assign(crop_id="x" + screen["cells"]["crop_id"])
    )
    results = read_results(screen["folder"])
    with pytest.raises(InputError, match="other.parquet: none of its crops is in cells.parquet"):
        map_of_features([other], results)
    with pytest.raises(InputError, match="is in more than one table"):
        map_of_features([screen["features"]] * 2, results)


def test_features_that_are_not_finite_are_left_out(screen, tmp_path):
    cells = screen["cells"].dropna(subset="score").head(40)
    vectors = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    vectors[[3, 5], 0] = np.nan, np.inf
    table = features_table(cells["crop_id"].tolist(), vectors)
    write_table(table, tmp_path / "f.parquet", features_schema(4))
    results = read_results(screen["folder"])
    found = map_of_features([tmp_path / "f.parquet"], results)
    assert (found["shown"], found["left_out"], len(found["points"]["x"])) == (38, 2, 38)


# The command and the browser.


def test_the_command_writes_the_page_or_one_line(screen, tmp_path, monkeypatch, capsys):
    (tmp_path / "detector.json").write_text(json.dumps(DETECTOR))
    columns = ["what", "planted", "found", "low", "high"]
    pd.DataFrame([["nuclei", 9, 8, None, None]], columns=columns).to_csv(tmp_path / "truth.csv")
    assert read_truth(tmp_path / "truth.csv")["found"].tolist() == [8]

    def run(folder):
        flags = f"--screen sim --folder {folder} --crops {screen['shards']} --composite w1 w2 w3"
        flags += f" --features {screen['features']} --detector {tmp_path}/detector.json"
        flags += f" --truth {tmp_path}/truth.csv --output {tmp_path}/qc.html"
        flags += " --focus-edge 0.5 --nucleus-diameter-px 25 --pixel-um 0 --well-share 0.2"
        flags += " --drift-features 0.5 --drift-scores 0.2 --drift-gain 1.5"
        flags += f" --record {tmp_path}/run.json"
        monkeypatch.setattr(sys, "argv", [make_qc_report.__file__, *flags.split()])
        make_qc_report.main()

    run(screen["folder"])
    text = Reader((tmp_path / "qc.html").read_text()).text
    assert "Quality of the screen sim" in text and "nuclei 9 8 –" in text
    capsys.readouterr()
    with pytest.raises(SystemExit):
        run(tmp_path / "gone")
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and "cells.parquet: cannot be read as Parquet" in said[0]


def test_two_crops_make_no_map(screen, tmp_path):
    cells = screen["cells"].dropna(subset="score").head(2)
    table = features_table(cells["crop_id"].tolist(), np.ones((2, 4), np.float32))
    write_table(table, tmp_path / "f.parquet", features_schema(4))
    found = map_of_features([tmp_path / "f.parquet"], read_results(screen["folder"]))
    assert found == {"points": None, "shown": 2, "left_out": 0}


def test_crops_just_flagged_and_just_passed_are_shown(screen):
    found = galleries(read_results(screen["folder"]))
    rows = {one["title"]: one["rows"] for one in found if one["kind"] == "borderline"}
    assert list(rows) == ["just flagged", "just passed"]
    assert rows["just flagged"]["flagged"].all() and not rows["just passed"]["flagged"].any()
