"""The command that finds labels to check, and a person who checks them in a real browser."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from hcsqc.core.errors import InputError
from hcsqc.core.schema import write_table
from hcsqc.crops.shards import ShardFormat, Shards, ShardWriter
from hcsqc.encoders.store import random_encoder
from hcsqc.labels.match import place_labels, read_label_file, settle
from hcsqc.labels.screen_labels import read_nuclei
from hcsqc.probes.frozen.logistic import LogisticSettings
from hcsqc.qc.detector import Scaling
from hcsqc.qc.fitting import Embedding, fit_to_crops, save_fitted
from scripts.qc import find_suspicious_labels as command
from tests.conftest import in_browser

CHANNELS, SIDE, WELLS, PER_WELL = ("w1", "w4", "w5"), 32, 12, 5
PLATE = "=1"
SCALING = Scaling(scale_background=0.5, scale_cells=2.0, scale_knee=0.9)
HEADER = "plate,well,site,x_px,y_px,label,artefact,annotator,selection"
WRONG = (7, 15)  # crops whose label is of the other class
TWICE = (2, 3)  # normal crops that the second annotator calls abnormal, which counts


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """60 crops, every second bright and abnormal, with label files and a detector of them."""
    folder = tmp_path_factory.mktemp("study")
    rng, count = np.random.default_rng(0), WELLS * PER_WELL
    well = [f"B{1 + number % WELLS:02d}" for number in range(count)]
    fields = [f"s/{PLATE}/{name}/s1" for name in well]
    places = pd.DataFrame({"x_px": 100 + np.arange(count), "y_px": 20 * np.arange(count) + 20})
    rows = places.assign(field_id=fields)
    rows["crop_id"] = [
        f"{field}/x{x:04d}y{y:04d}"
        for field, x, y in zip(fields, places["x_px"], places["y_px"], strict=True)
    ]
    bright = np.arange(count) // WELLS % 2 == 1
    pixels = rng.integers(0, 120, (count, 3, SIDE, SIDE)).astype(np.uint8)
    pixels[bright] += 90
    pixels[50] = pixels[10]
    writer = ShardWriter(folder / "p.parquet", ShardFormat(CHANNELS, SIDE, "uint8", {}))
    writer.add(rows.assign(nucleus_area_px=200), pixels)
    writer.close()
    nuclei = rows.assign(area_px=200, kept=True, reason=None)
    write_table(nuclei, folder / "p.nuclei.parquet", "nuclei")
    distinct = pd.DataFrame({"field_id": sorted(set(fields)), "plate": PLATE, "site": 1})
    distinct["well"] = distinct["field_id"].str.split("/").str[2]
    images = [[f"{name}.tif"] * 3 for name in distinct["well"]]
    treatment = {"role": None, "compound": None, "concentration_um": np.nan, "problem": None}
    page, size = [[None] * 3] * len(distinct), [[1] * 3] * len(distinct)
    write_table(
        distinct.assign(image_path=images, image_page=page, image_bytes=size, **treatment),
        folder / "p.fields.parquet",
        "fields",
    )
    digests = [[f"d{number % (WELLS - 1)}"] * 3 for number in range(WELLS)]  # the last is the first
    counts = {"found": PER_WELL, "kept": PER_WELL, "dropped": 0, "status": "ok", "reason": None}
    write_table(
        distinct.assign(image_digest=digests, image_bytes=size, image_changed_ns=size, **counts),
        folder / "p.summary.parquet",
        "summary",
    )
    label = np.where(bright, "abnormal", "normal").astype(object)
    label[list(WRONG)] = np.where(bright[list(WRONG)], "normal", "abnormal")
    artefact = np.where(label == "abnormal", "saturation", "")
    lines = [
        f"'{PLATE},{name},1,{x},{y},{own},{kind},ann,random"
        for name, x, y, own, kind in zip(
            well, places["x_px"], places["y_px"], label, artefact, strict=True
        )
    ]
    lost = f"'{PLATE},H12,1,5,5,normal,,ann,random"
    (folder / "a.csv").write_text("\n".join([HEADER, *lines, lost]) + "\n")
    seconds = [lines[number].replace("ann,random", "bob,diverse") for number in (*WRONG, 0)]
    seconds += [
        lines[number].replace("normal,,ann", "abnormal,dead,bob").replace("random", "diverse")
        for number in TWICE
    ]
    (folder / "b.csv").write_text("\n".join([HEADER, *seconds]) + "\n")
    files = [folder / "a.csv", folder / "b.csv"]
    made = settled(folder, files).assign(compound=None)
    write_table(made, folder / "labels.parquet", "labels")
    write_table(made[made["selection"] == "random"], folder / "random.parquet", "labels")
    about = {"study": "mine", "screen": "s", "encoder": "r", "encoder_chosen": "named"}
    about |= {"composites": [list(CHANNELS)], "window_px": SIDE, "window_um": 0}
    about |= {"scaling": vars(SCALING), "trained_on": "labels"}
    fitted = fit_to_crops(
        random_encoder("test_resnet", SIDE, 3, seed=0),
        Shards([folder / "p.parquet"]),
        made.assign(random=True, group=made["well"]),
        Embedding(CHANNELS, batch_size=32, precision="float32", standardised=40),
        LogisticSettings(penalties=(0.1,), folds=1),
        0.05,
        about,
    )
    save_fitted(fitted, folder / "detector")
    return SimpleNamespace(folder=folder, files=files, crops=rows["crop_id"].tolist())


def settled(folder, files, conflicts="abnormal") -> pd.DataFrame:
    """Return the labels of files, by default abnormal where the annotators differ."""
    rows = pd.concat([read_label_file(path) for path in files], ignore_index=True)
    placed, _ = place_labels(rows, read_nuclei([folder / "p.nuclei.parquet"]), 5)
    return settle(placed, conflicts)


def find(study, folder, files, monkeypatch, capsys=None):
    """Run the command on the study; return the folder of its output."""
    of = study.folder
    words = {
        "screen": ["s"],
        "detector": [of / "detector"],
        "crops": [of / "p.parquet"],
        "nuclei": [of / "p.nuclei.parquet"],
        "summaries": [of / "p.summary.parquet"],
        "labels": [of / "labels.parquet"],
        "random-labels": [of / "random.parquet"],
        "group-by": ["well"],
        "label-files": files,
        "match-px": [5],
        "composite": CHANNELS,
        "window-um": [0],
        "judged-at": [0.05],
        "batch-size": [32],
        "precision": ["float32"],
        "fields": [of / "p.fields.parquet"],
        "output": [folder / "page.html"],
        "ranking": [folder / "ranking.csv"],
        "duplicates": [folder / "duplicates.csv"],
        "penalties": [0.1],
        "folds": [1],
        "record": [folder / "run/run.json"],
    } | {name.replace("_", "-"): [value] for name, value in vars(SCALING).items()}
    argv = [command.__file__]
    for name, values in words.items():
        argv += [f"--{name}", *map(str, values)]
    monkeypatch.setattr(sys, "argv", argv)
    command.main()
    return folder


def content_of(page):
    return json.loads(page.read_text().split('id="content">')[1].split("</script>")[0])


def test_wrong_labels_come_first_and_everything_that_is_there_twice_is_listed(
    study, tmp_path, monkeypatch, capsys
):
    folder = find(study, tmp_path, study.files, monkeypatch)
    ranking = pd.read_csv(folder / "ranking.csv")
    assert len(ranking) == 60 and ranking["self_confidence"].is_monotonic_increasing
    places = {(row.x_px, row.y_px) for row in ranking.head(4).itertuples()}
    assert places == {(100 + number, 20 * number + 20) for number in (*WRONG, *TWICE)}
    assert not ranking["reviewed"].any()
    again = pd.read_csv(folder / "duplicates.csv")
    assert again[["kind", "first", "second"]].to_numpy().tolist() == [
        ["image", f"s/{PLATE}/B01/s1: B01.tif", f"s/{PLATE}/B12/s1: B12.tif"],
        ["crop", study.crops[10], study.crops[50]],
    ]
    content = content_of(folder / "page.html")
    given = [(one["label"], one["annotator"]) for one in content["review"]["given"][:4]]
    assert sorted(given) == [
        ("abnormal", "ann"),
        ("abnormal", "bob"),
        ("abnormal", "bob"),
        ("normal", "ann"),
    ]
    assert len(content["crops"]) == 20 and len(content["review"]["rows"]) == 66
    record = json.loads((folder / "run/run.json").read_text())
    assert record["metrics"]["labels_shown"] == 20
    assert record["metrics"]["duplicates_image"] == record["metrics"]["duplicates_crop"] == 1
    assert "20 of 60 labels to check, 0 checked before" in capsys.readouterr().out


def test_labels_of_a_truth_make_a_file_of_their_own(study, tmp_path, monkeypatch):
    rows = content_of(find(study, tmp_path, [], monkeypatch) / "page.html")["review"]["rows"]
    assert len(rows) == 60 and {row["annotator"] for row in rows} == {"ann", "bob"}
    first = next(row for row in rows if row["y_px"] == 20)
    assert (first["plate"], first["well"], first["x_px"]) == (PLATE, "B01", 100)
    assert first["artefact"] == "" and first["reviewed_by"] == ""


def test_derived_screens_are_refused(study, monkeypatch, tmp_path):
    shards = Shards([study.folder / "p.parquet"])
    writer = ShardWriter(tmp_path / "d.parquet", shards.format)
    writer.add(shards.index[:2].assign(x_px=5, y_px=5, field_id="f"), shards.read([0, 1]))
    writer.close()
    with pytest.raises(InputError, match="several crops at one place"):
        command.find(SimpleNamespace(crops=[tmp_path / "d.parquet"], screen="s", threads=1), None)


# A person at the page


@pytest.fixture
def page(browser, study, tmp_path, monkeypatch):
    file = find(study, tmp_path, study.files, monkeypatch) / "page.html"
    errors = []
    context = browser.new_context(viewport={"width": 1400, "height": 1000}, accept_downloads=True)
    opened = context.new_page()
    opened.set_default_timeout(20_000)
    opened.on("console", lambda message: errors.append(message.text))
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.goto(file.as_uri())
    yield opened
    context.close()
    assert not errors


def press(page, keys):
    for key in keys:
        number = page.evaluate("Number(/Crop (\\d+)/.exec(document.body.innerText)[1])")
        page.wait_for_selector(f"body[data-shown='{number - 1}']")
        page.keyboard.press(key)


def download(page, path):
    with page.expect_download() as download:
        page.click("#download")
    download.value.save_as(path)
    return download.value.suggested_filename


def enter_name(page, name="Eve"):
    page.fill("#annotator", name)
    page.press("#annotator", "Enter")


@in_browser
def test_keys_confirm_and_correct_and_the_file_replaces_the_old_ones(
    page, study, tmp_path, monkeypatch
):
    content = content_of(tmp_path / "page.html")
    given = content["review"]["given"]
    told = page.inner_text("#given")
    assert f"Labelled {given[0]['label']}" in told and f"by {given[0]['annotator']}." in told
    assert f"abnormal with probability {given[0]['score']:.3f}" in told
    enter_name(page)
    # The wrong ones are flipped; of those that were called differently one is kept, one flipped.
    shown = [crop_of(study, crop) for crop in content["crops"][:6]]
    wrong, kept, turned = ([study.crops[n] for n in part] for part in (WRONG, TWICE[:1], TWICE[1:]))
    press(page, ["k" if crop in kept else "f" for crop in shown[:4]] + ["s", "6"])
    page.wait_for_selector("body[data-shown='6']")
    assert (
        page.inner_text("#counts") == "5 of 20 checked (25%): 1 confirmed, 4 corrected; 1 skipped"
    )
    page.reload()
    page.wait_for_selector("body[data-shown='6']")
    assert download(page, tmp_path / "new.csv") == "s_checked_Eve.csv"
    old = settled(study.folder, study.files).set_index("crop_id")
    # Nothing is disputed any more.
    new = settled(study.folder, [tmp_path / "new.csv"], "error").set_index("crop_id")
    other = {"normal": "abnormal", "abnormal": "normal"}
    expected = old["label"].copy()
    for crop in (*wrong, *turned):
        expected[crop] = other[expected[crop]]
    expected[shown[5]] = "abnormal"
    pd.testing.assert_series_equal(new["label"], expected)
    assert new["artefact"][shown[5]] == "empty" and new["artefact"][kept[0]] == "dead"
    corrected = [*wrong, *turned, shown[5]]
    same = new.index.difference(corrected)
    assert new.loc[same, "artefact"].fillna("").equals(old.loc[same, "artefact"].fillna(""))
    assert new.loc[same, "annotator"].equals(old.loc[same, "annotator"])
    assert set(new.loc[corrected, "annotator"]) == {"Eve"}
    # A crop that was chosen at random by anyone stays a random one.
    assert set(new.loc[corrected, "selection"]) == {"random"}
    # Of each of the first four one row is left, of two.
    rows = read_label_file(tmp_path / "new.csv")
    assert len(rows) == 66 - 4 - (shown[5] == study.crops[0])
    assert (rows["reviewed_by"] == "Eve").sum() == 5
    assert (rows["well"] == "H12").sum() == 1  # a label without a crop
    # Checked labels do not come again; one that was skipped does.
    (tmp_path / "again").mkdir()
    again = find(study, tmp_path / "again", [tmp_path / "new.csv"], monkeypatch)
    places = [crop_of(study, crop) for crop in content_of(again / "page.html")["crops"]]
    assert not set(places) & {*shown[:4], shown[5]} and shown[4] in places


def crop_of(study, crop) -> str:
    """Return the crop_id of a crop of the page."""
    ending = f"x{crop['x_px']:04d}y{crop['y_px']:04d}"
    return next(name for name in study.crops if name.endswith(ending))


@in_browser
def test_a_confirmed_label_keeps_its_rows_and_says_who_confirmed_it(page, study, tmp_path):
    enter_name(page, "=Eve")
    crops = [crop_of(study, crop) for crop in content_of(tmp_path / "page.html")["crops"]]
    wrong = min(crops.index(study.crops[number]) for number in WRONG)
    press(page, [*["ArrowRight"] * wrong, "k"])
    download(page, tmp_path / "new.csv")
    rows, before = (
        pd.concat([read_label_file(path) for path in paths], ignore_index=True)
        for paths in ([tmp_path / "new.csv"], study.files)
    )
    names = [name for name in before.columns if name not in ("source", "reviewed_by")]
    pd.testing.assert_frame_equal(rows[names], before[names])
    checked = rows[rows["reviewed_by"] != ""]
    assert len(checked) == 2 and set(checked["reviewed_by"]) == {"=Eve"}


@in_browser
def test_a_decision_is_undone_and_nothing_checked_is_no_file(page):
    enter_name(page)
    page.click("#download")
    assert "No label is checked yet" in page.inner_text("#message")
    press(page, ["f"])
    page.wait_for_selector("body[data-shown='1']")
    page.keyboard.press("u")
    page.wait_for_selector("body[data-shown='0']")
    assert "not checked yet" in page.inner_text("#place")
    page.click("#labels button[data-key='k']")
    page.wait_for_selector("body[data-shown='1']")
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector("body[data-shown='0']")
    assert "confirmed: " in page.inner_text("#place")
    assert page.get_attribute("#labels button[data-key='k']", "aria-pressed") == "true"
    assert page.get_attribute("#labels button[data-key='f']", "aria-pressed") == "false"


@in_browser
def test_duplicates_are_listed_with_their_places_at_every_width(page, study):
    page.click("#duplicates summary")
    text = page.inner_text("#duplicates")
    assert "Duplicates: 2" in text
    for place in (study.crops[10], study.crops[50], f"s/{PLATE}/B12/s1: B12.tif"):
        assert place in text
    for width in (500, 900, 1400):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width


@in_browser
def test_where_all_is_checked_the_page_says_so_and_keys_do_nothing(page, tmp_path):
    path = tmp_path / "page.html"
    content = content_of(path)
    assert content["crops"]
    before, rest = path.read_text(encoding="utf-8").split('id="content">')
    content["crops"], content["review"]["given"] = [], []
    after = rest[rest.index("</script>") :]
    path.write_text(f'{before}id="content">{json.dumps(content)}{after}', encoding="utf-8")
    page.reload()
    assert "There is nothing to check" in page.inner_text("body")
    for key in ("k", "f", "n", "u", "ArrowRight", "+"):
        page.keyboard.press(key)
    assert "There is nothing to check" in page.inner_text("body")
