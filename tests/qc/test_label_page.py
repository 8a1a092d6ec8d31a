"""The page for labelling: who is chosen, what it holds, and a person at it in a real browser."""

import base64
import json
import sys
import zlib
from argparse import Namespace
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.preprocessing import StandardScaler

from hcsqc.core.errors import InputError
from hcsqc.core.ids import split_field_id, wells_of
from hcsqc.core.schema import ARTEFACTS, features_schema, write_table
from hcsqc.crops.shards import ShardFormat, Shards, ShardWriter
from hcsqc.features.tables import features_table
from hcsqc.labels.match import FILE_COLUMNS, place_labels, read_label_file
from hcsqc.qc.field_view.images import FieldSource
from hcsqc.qc.label_page import page as label_page
from hcsqc.qc.label_page.page import (
    ABOUT,
    ContextSource,
    Counts,
    choose_crops,
    context_pictures,
    cut_context,
    page_crops,
    render_label_page,
)
from scripts.qc import write_label_page as command
from tests.conftest import in_browser

CHANNELS = ("dna", "<i>actin", "tubulin", "er")
COMPOSITE = ["tubulin", "<i>actin", "dna"]
SIDE, FIELD_PX, LEVELS = 16, 120, 1000
SCREEN = 's"</script><b id="broken">'
PLATES = ("=1+2", '<!--<script>,"é')
# Linear up to the top: pixels are level x 255 / 1000.
SCALE = {name: [0.0, 1000.0, 1000.0, 0.9] for name in CHANNELS}


@pytest.fixture(scope="module")
def screen(tmp_path_factory):
    """Two plates of one field each with 12 crops, and the fields' images."""
    folder = tmp_path_factory.mktemp("screen")
    rng = np.random.default_rng(0)
    shards, fields = [], []
    for number, plate in enumerate(PLATES):
        field_id = f"{SCREEN.replace('/', '_')}/{plate}/B02/s1"
        levels = rng.integers(0, LEVELS + 1, (len(CHANNELS), FIELD_PX, FIELD_PX), np.uint16)
        paths = [f"{number}_{channel}.png" for channel in range(len(CHANNELS))]
        for path, plane in zip(paths, levels, strict=True):
            cv2.imwrite(str(folder / path), plane)
        pixels = np.rint(levels * (255 / LEVELS)).astype(np.uint8)
        places = [(x, y) for y in (20, 50, 110) for x in (10, 40, 70, 100)]
        rows = pd.DataFrame(places, columns=["x_px", "y_px"])
        rows["crop_id"] = [f"{field_id}/x{x:04d}y{y:04d}" for x, y in places]
        rows = rows.assign(field_id=field_id, nucleus_area_px=100)
        crops = [pixels[:, y - 8 : y + 8, x - 8 : x + 8] for x, y in places]
        path = folder / f"{number}.parquet"
        writer = ShardWriter(path, ShardFormat(CHANNELS, SIDE, "uint8", SCALE))
        writer.add(rows, np.stack(crops))
        writer.close()
        shards.append(path)
        fields.append(
            {
                "field_id": field_id,
                "plate": plate,
                "well": "B02",
                "site": 1,
                "role": None,
                "compound": None,
                "concentration_um": np.nan,
                "image_path": paths,
                "image_page": [None] * len(paths),
                "image_bytes": [1] * len(paths),
                "problem": None,
            }
        )
    write_table(pd.DataFrame(fields), folder / "fields.parquet", "fields")
    return SimpleNamespace(
        folder=folder, paths=shards, shards=Shards(shards), fields=pd.DataFrame(fields)
    )


def names(count):
    return np.array([f"s/p/B02/s1/x{number:04d}y0001" for number in range(count)], dtype=object)


def feature_file(path, crops, features):
    write_table(features_table(crops, features), path, features_schema(features.shape[1]))
    return path


# Which crops are chosen


def test_each_way_gives_so_many_and_no_crop_twice(tmp_path):
    crops, rng = names(200), np.random.default_rng(0)
    features = feature_file(tmp_path / "f.parquet", crops, rng.random((200, 4), np.float32))
    scores = pd.Series(rng.random(200), crops)
    chosen = choose_crops(crops, Counts(20, 15, 10), 0, scores, [features])
    assert chosen["selection"].value_counts().to_dict() == {
        "random": 20,
        "diverse": 15,
        "uncertain": 10,
    }
    assert chosen["crop_id"].is_unique and set(chosen["crop_id"]) <= set(crops)


def test_ways_are_mixed_and_the_seed_alone_decides():
    crops = names(300)
    scores = pd.Series(np.linspace(0, 1, 300), crops)
    first, again, other = (
        choose_crops(crops, Counts(50, 0, 50), seed, scores) for seed in (0, 0, 1)
    )
    pd.testing.assert_frame_equal(first, again)
    assert set(first["crop_id"]) != set(other["crop_id"])
    assert 15 <= (first["selection"][:50] == "random").sum() <= 35


def test_random_crops_are_the_same_whatever_else_is_asked_for():
    crops = names(100)
    scores = pd.Series(np.linspace(0, 1, 100), crops)
    alone = choose_crops(crops, Counts(10, 0, 0), 3)
    beside = choose_crops(crops, Counts(10, 0, 40), 3, scores)
    assert set(alone["crop_id"]) == set(beside[beside["selection"] == "random"]["crop_id"])


def test_random_crops_are_spread_over_all():
    means = [
        np.mean(
            [int(crop[-9:-5]) for crop in choose_crops(names(1000), Counts(50, 0, 0), s).crop_id]
        )
        for s in range(20)
    ]
    assert abs(np.mean(means) - 499.5) < 4 * 289 / np.sqrt(50 * 20)


def crops_of_wells(sizes):
    return np.array(
        [
            f"s/p/W{well:02d}/s1/x{n:04d}y0001"
            for well, size in enumerate(sizes)
            for n in range(size)
        ],
        dtype=object,
    )


@settings(max_examples=15, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=20),
    counts=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    seed=st.integers(0, 99),
)
def test_random_crops_of_all_pages_together_are_spread_over_the_wells(sizes, counts, seed):
    crops = crops_of_wells(sizes)
    labelled = np.array([], dtype=object)
    for count in counts:
        left = np.setdiff1d(crops, labelled)
        if not len(left):
            break
        chosen = choose_crops(left, Counts(count, 0, 0), seed, labelled=labelled)["crop_id"]
        assert len(chosen) == min(count, len(left)) and set(chosen) <= set(left)
        labelled = np.r_[labelled, chosen]
    each = pd.Series(wells_of(labelled)).value_counts()
    had = each.reindex(np.unique(wells_of(crops)), fill_value=0).to_numpy()
    # No well has a crop more than its share while another lacks more than one.
    assert ((had - 1) / sizes).max() < ((had + 1) / sizes).min()


def test_wells_of_equal_size_get_one_random_crop_each_before_a_second():
    crops = crops_of_wells([9] * 60)
    chosen = choose_crops(crops, Counts(60, 0, 0), 0)["crop_id"]
    assert len(set(wells_of(chosen))) == 60


def test_crops_of_large_and_small_wells_are_equally_likely_to_be_random_ones():
    sizes = [2, 100, 10, 60] * 10
    crops = crops_of_wells(sizes)
    drawn = [choose_crops(crops, Counts(40, 0, 0), seed)["crop_id"] for seed in range(40)]
    counts = pd.Series(wells_of(np.concatenate(drawn))).str[-2:].astype(int) % 4
    shares = counts.value_counts(normalize=True).sort_index()
    np.testing.assert_allclose(shares, np.array([2, 100, 10, 60]) / 172, atol=0.02)


def test_uncertain_crops_have_the_scores_nearest_to_even_odds():
    crops = names(6)
    scores = pd.Series([0.1, 0.49, np.nan, 0.9, 0.52, 0.2], crops)
    chosen = choose_crops(crops, Counts(0, 0, 2), 0, scores)
    assert set(chosen["crop_id"]) == {crops[1], crops[4]}
    everyone = choose_crops(crops, Counts(0, 0, 99), 0, scores)
    assert set(everyone["crop_id"]) == set(crops) - {crops[2]}


def test_diverse_crops_come_from_every_cluster_over_all_files(tmp_path):
    crops, rng = names(60), np.random.default_rng(1)
    kinds = np.repeat([0, 1, 2], [40, 17, 3])
    features = (10 * np.eye(3)[kinds] + rng.normal(0, 0.1, (60, 3))).astype(np.float32)
    order = rng.permutation(60)
    files = [
        feature_file(tmp_path / "a.parquet", crops[order[:25]], features[order[:25]]),
        feature_file(tmp_path / "b.parquet", crops[order[25:]], features[order[25:]]),
    ]
    chosen = choose_crops(crops, Counts(0, 3, 0), 0, features=files)
    assert sorted(kinds[np.isin(crops, chosen["crop_id"])]) == [0, 1, 2]
    # Each is the crop of its cluster nearest to the centre.
    standardised = StandardScaler().fit_transform(features)
    model = KMeans(3, n_init=10, random_state=0).fit(standardised)
    nearest = np.argmin(model.transform(standardised), axis=0)
    assert set(chosen["crop_id"]) == set(crops[nearest])


def test_crops_without_features_are_not_diverse(tmp_path):
    crops = names(10)
    path = feature_file(tmp_path / "f.parquet", crops[:4], np.eye(4, dtype=np.float32))
    chosen = choose_crops(crops, Counts(0, 8, 0), 0, features=[path])
    assert set(chosen["crop_id"]) == set(crops[:4])


@pytest.mark.parametrize(
    ("counts", "given", "message"),
    [
        (Counts(0, 0, 1), {}, "uncertain crops need a detector's scores"),
        (
            Counts(0, 0, 1),
            {"scores": pd.Series([0.5], ["other"])},
            "none of the crops has a score",
        ),
        (Counts(0, 1, 0), {}, "diverse crops need features"),
        (Counts(0, 0, 0), {}, "no crop is chosen"),
    ],
)
def test_what_a_way_lacks_is_said(counts, given, message):
    with pytest.raises(InputError, match=message):
        choose_crops(names(5), counts, 0, **given)


def test_no_crop_left_is_said():
    with pytest.raises(InputError, match="no crop is left to label"):
        choose_crops([], Counts(1, 0, 0), 0)


def test_features_of_another_screen_or_not_finite_are_refused(tmp_path):
    crops = names(5)
    other = feature_file(tmp_path / "o.parquet", ["x/p/B02/s1/x1y1"], np.ones((1, 2), np.float32))
    with pytest.raises(InputError, match="none of the crops has features"):
        choose_crops(crops, Counts(0, 1, 0), 0, features=[other])
    broken = np.ones((5, 2), np.float32)
    broken[3, 1] = np.nan
    path = feature_file(tmp_path / "b.parquet", crops, broken)
    with pytest.raises(InputError, match=f"b.parquet: features of crop {crops[3]} are not finite"):
        choose_crops(crops, Counts(0, 1, 0), 0, features=[path])


# What the page holds


def chosen_of(screen, selection="random"):
    return pd.DataFrame({"crop_id": screen.shards.index["crop_id"], "selection": selection})


def test_pixels_of_all_channels_are_embedded_without_loss(screen):
    chosen = chosen_of(screen).iloc[::-1].reset_index(drop=True)
    for number, crop in enumerate(page_crops(screen.shards, chosen, [None] * len(chosen))):
        stored = np.frombuffer(zlib.decompress(base64.b64decode(crop["pixels"])), np.uint8)
        (row,) = screen.shards.rows_of([chosen["crop_id"][number]])
        assert (stored.reshape(len(CHANNELS), SIDE, SIDE) == screen.shards.read([row])[0]).all()
        assert f"x{crop['x_px']:04d}y{crop['y_px']:04d}" in chosen["crop_id"][number]


def test_the_windows_pixels_are_the_middle_of_the_context_and_black_is_beyond():
    pixels = np.arange(1, 1 + 40 * 40, dtype=np.uint16).reshape(1, 40, 40)
    context = cut_context(pixels, 20, 18, 10)
    assert context.shape == (1, 30, 30) and (context > 0).all()
    assert (context[0, 10:20, 10:20] == pixels[0, 13:23, 15:25]).all()
    corner = cut_context(pixels, 5, 36, 10)
    assert (corner[0, :, :10] == 0).all() and (corner[0, 19:, :] == 0).all()
    assert (corner[0, :19, 10:] == pixels[0, 21:, :20]).all()
    assert (cut_context(pixels, 500, 20, 10) == 0).all()


def test_context_is_the_fields_picture_with_the_crop_in_the_middle(screen):
    source = ContextSource(FieldSource(screen.fields, screen.folder), SIDE)
    pictures, why = context_pictures(screen.shards, chosen_of(screen), COMPOSITE, source)
    assert not why
    alike = []
    for number, picture in enumerate(pictures):
        image = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
        assert image.shape == (3 * SIDE, 3 * SIDE, 3)
        middle = image[SIDE : 2 * SIDE, SIDE : 2 * SIDE, ::-1].astype(float)
        crop = screen.shards.read_composite([number], COMPOSITE)[0].transpose(1, 2, 0)
        alike.append(np.corrcoef(middle.ravel(), crop.ravel())[0, 1])
    # JPEG keeps most of the noise that the field is; one pixel aside nothing would be alike.
    assert min(alike) > 0.8


def test_crops_whose_image_is_missing_have_no_context(screen, tmp_path):
    source = ContextSource(FieldSource(screen.fields, tmp_path), SIDE)
    pictures, why = context_pictures(screen.shards, chosen_of(screen), COMPOSITE, source)
    assert pictures == [None] * 24 and why == "1_2.png: no such file"


def test_crops_of_a_plate_without_a_scale_have_no_context(screen, monkeypatch):
    monkeypatch.setattr(label_page, "scale_tables", lambda paths, channels: {})
    source = ContextSource(FieldSource(screen.fields, screen.folder), SIDE)
    pictures, why = context_pictures(screen.shards, chosen_of(screen), COMPOSITE, source)
    assert pictures == [None] * 24
    told = "its shard is missing, or has no scale of tubulin, <i>actin, dna; crop the plate again"
    assert why in {f"plate {plate}: {told}" for plate in PLATES}


def test_three_hundred_crops_of_noise_are_below_forty_megabytes():
    noise = np.random.default_rng(0).integers(0, 256, 5 * 128 * 128, np.uint8)
    assert 300 * len(base64.b64encode(zlib.compress(noise.tobytes()))) < 34e6


def test_unknown_channel_is_named(screen):
    with pytest.raises(InputError, match="channel 'w9' is not one of dna,"):
        render_label_page(SCREEN, CHANNELS, ["w9"], SIDE, [])


def test_every_artefact_is_explained():
    assert tuple(ABOUT) == ARTEFACTS


# The command


def arguments(screen, folder, **changes):
    given = {
        "screen": SCREEN,
        "crops": screen.paths,
        "composite": COMPOSITE,
        "labels": [],
        "features": [],
        "scores": [],
        "fields": [screen.folder / "fields.parquet"],
        "images": screen.folder,
        "window_px": float(SIDE),
        "z_projection": None,
        "seed": 0,
        "output": folder / "page.html",
        "random": 8,
        "diverse": 0,
        "uncertain": 4,
        "good_cells_lost": 0.05,
        "confidence": 0.95,
        "group_by": "well",
    }
    return Namespace(**given | changes)


def scored(folder, screen):
    crops = screen.shards.index["crop_id"]
    table = pd.DataFrame({"crop_id": crops, "score": np.linspace(0, 0.6, len(crops))})
    table = table.assign(artefact=None, focus=0.0, edge=0.3, saturated=0.0)
    write_table(table, folder / "scores.parquet", "crop_scores")
    return {"scores": [folder / "scores.parquet"]}


def content_of(page):
    embedded = page.split('id="content">')[1].split("</script>")[0]
    return json.loads(embedded)


def write_page(screen, folder, **changes):
    record = SimpleNamespace()
    detector = scored(folder, screen)
    command.write_page(arguments(screen, folder, **detector | changes), record)
    return folder / "page.html", record


def test_command_writes_the_page_and_counts(screen, tmp_path, capsys):
    path, record = write_page(screen, tmp_path)
    assert record.metrics["crops_random"] == 8 and record.metrics["crops_uncertain"] == 4
    assert record.metrics["contexts"] == 12
    said = capsys.readouterr().out
    needs = (
        "needs sampled crops that are labelled normal in 59 wells. No well has one so far: 59 more"
    )
    assert "12 crops (" in said and needs in said and needs in path.read_text()
    assert "The screen has crops in 2 wells only, which allow a promise of 77.7% at" in said
    assert (record.metrics["wells_labelled"], record.metrics["wells_needed"]) == (0, 59)
    content = content_of(path.read_text())
    assert len(content["crops"]) == 12 and content["columns"] == list(FILE_COLUMNS)
    uncertain = [crop for crop in content["crops"] if crop["selection"] == "uncertain"]
    assert {crop["plate"] for crop in uncertain} == {PLATES[1]}  # the later crops score higher


def test_labelled_crops_are_not_chosen_again(screen, tmp_path):
    crops = screen.shards.index["crop_id"]
    labels = pd.DataFrame({"crop_id": crops[4:], "plate": "p", "well": "B02", "label": "normal"})
    labels = labels.assign(artefact=None, strength=np.nan, annotator="a", source="f", compound="")
    write_table(labels.assign(selection="random"), tmp_path / "labels.parquet", "labels")
    both = [tmp_path / "labels.parquet"] * 2
    path, record = write_page(screen, tmp_path, labels=both, random=99, uncertain=0)
    assert record.metrics["wells_labelled"] == 2
    assert (
        "2 wells have one so far: 57 more needed. This page samples 0 further" in path.read_text()
    )
    assert sorted((c["x_px"], c["y_px"]) for c in content_of(path.read_text())["crops"]) == [
        (x, 20) for x in (10, 40, 70, 100)
    ]


def test_page_has_no_context_without_images(screen, tmp_path, capsys):
    path, record = write_page(screen, tmp_path, images=tmp_path / "gone")
    assert record.metrics["contexts"] == 0 and 'id="context"' not in path.read_text()
    said = capsys.readouterr().out
    assert "12 of 12 crops have no context, because their image in " in said
    assert f"{tmp_path / 'gone'} cannot be shown; the first: 1_2.png: no such file" in said


def test_context_needs_the_size_of_the_window(screen, tmp_path):
    with pytest.raises(InputError, match="--window-px"):
        write_page(screen, tmp_path, window_px=None)


def test_derived_screen_is_sent_to_its_source(screen, tmp_path):
    path = tmp_path / "derived.parquet"
    rows = screen.shards.index[:2].assign(x_px=5, y_px=5, crop_id=["c", "c/blur"])
    writer = ShardWriter(path, screen.shards.format)
    writer.add(rows, screen.shards.read([0, 1]))
    writer.close()
    with pytest.raises(InputError, match="several crops at one place"):
        write_page(screen, tmp_path, crops=[path])


def test_command_runs_with_its_flags(screen, tmp_path, monkeypatch):
    words = [command.__file__, "--screen", "s", "--composite", "dna", "--random", "3"]
    words += ["--crops", *map(str, screen.paths), "--diverse", "0", "--uncertain", "0"]
    words += ["--seed", "0", "--output", str(tmp_path / "p.html")]
    words += ["--good-cells-lost", "0.05", "--confidence", "0.95", "--group-by", "compound"]
    monkeypatch.setattr(sys, "argv", [*words, "--record", str(tmp_path / "run" / "run.json")])
    command.main()
    page = (tmp_path / "p.html").read_text()
    assert len(content_of(page)["crops"]) == 3
    assert "The threshold counts compounds (controls by well) as wells" in page
    assert json.loads((tmp_path / "run" / "run.json").read_text())["metrics"]["crops_random"] == 3


# A person at the page


@pytest.fixture(scope="module")
def page_file(screen, tmp_path_factory):
    return write_page(screen, tmp_path_factory.mktemp("page"))[0]


@pytest.fixture
def page(browser, page_file):
    errors, requests = [], []
    context = browser.new_context(viewport={"width": 1600, "height": 1000}, accept_downloads=True)
    opened = context.new_page()
    opened.set_default_timeout(20_000)
    opened.on("console", lambda message: errors.append(message.text))
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("request", lambda request: requests.append(request.url.split(":")[0]))
    opened.goto(page_file.as_uri())
    showing(opened, 1)
    yield opened
    context.close()
    assert not errors
    assert set(requests) <= {"file", "data", "blob"}


def showing(page, number):
    page.wait_for_selector(f"body[data-shown='{number - 1}']")
    assert f"Crop {number} of 12" in page.inner_text("#place")


def enter_name(page, name="Ada"):
    page.fill("#annotator", name)
    page.press("#annotator", "Enter")


def type_labels(page, keys, first=1):
    for number, key in enumerate(keys, start=first):
        showing(page, number)
        page.keyboard.press(key)


def download(page, folder):
    with page.expect_download() as download:
        page.click("#download")
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


@in_browser
def test_labels_are_given_kept_undone_and_downloaded(page, page_file, screen, tmp_path):
    enter_name(page)
    type_labels(page, ["n", "a", "1", "8", "s", "n"])
    showing(page, 7)
    page.reload()
    showing(page, 7)
    assert page.input_value("#annotator") == "Ada"
    page.keyboard.press("u")
    showing(page, 6)
    assert "no label yet" in page.inner_text("#place")
    page.keyboard.press("Backspace")
    showing(page, 5)
    type_labels(page, ["3", "n", "n"], first=5)
    showing(page, 8)
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    showing(page, 6)
    page.keyboard.press("7")  # another label for a crop that has one; goes on where labels end
    showing(page, 8)
    page.keyboard.press("u")
    showing(page, 6)
    assert "normal" in page.inner_text("#place").split()[-1]  # the label that it had before
    page.keyboard.press("7")
    showing(page, 8)
    assert "7 of 12 labelled (58%): 2 normal, 5 abnormal; 0 skipped" in page.inner_text("#counts")

    rows = read_label_file(download(page, tmp_path))
    told = page.inner_text("#message")
    assert "Sampled crops labelled normal lie in" in told and "the promise needs 59, 5" in told
    crops = content_of(page_file.read_text())["crops"][:7]
    expected = pd.DataFrame(crops)[["plate", "well", "site", "x_px", "y_px", "selection"]]
    assert rows["label"].tolist() == ["normal", *["abnormal"] * 5, "normal"]
    assert rows["artefact"].tolist() == ["", "", "blur", "other", "debris", "dead", ""]
    for name in expected:
        assert rows[name].tolist() == expected[name].tolist()
    assert set(rows["annotator"]) == {"Ada"}
    nuclei = screen.shards.index.join(split_field_id(screen.shards.index["field_id"]))
    placed, lost = place_labels(rows, nuclei.assign(kept=True), 0)
    assert len(placed) == 7 and lost.empty
    label_of = dict(
        zip(zip(rows.plate, rows.x_px, rows.y_px, strict=True), rows.label, strict=True)
    )
    for row in placed[["crop_id", "label"]].merge(nuclei, on="crop_id").itertuples():
        assert label_of[row.plate, row.x_px, row.y_px] == row.label


@in_browser
def test_the_whole_list_ends_with_a_word_and_skipped_crops_are_not_in_the_file(page, tmp_path):
    enter_name(page)
    type_labels(page, [*"nnnnnnnnnnn", "s"])
    page.wait_for_function("document.getElementById('message').textContent.startsWith('All crops')")
    assert page.evaluate("document.getElementById('progress').value") == 11
    assert len(read_label_file(download(page, tmp_path))) == 11


@in_browser
def test_canvases_hold_the_crops_pixels(page, page_file, screen):
    crop = content_of(page_file.read_text())["crops"][0]
    about = screen.shards.index.join(split_field_id(screen.shards.index["field_id"]))
    (row,) = np.flatnonzero(
        (about["plate"] == crop["plate"])
        & (about["x_px"] == crop["x_px"])
        & (about["y_px"] == crop["y_px"])
    )
    colours = screen.shards.read_composite([row], COMPOSITE)[0].transpose(1, 2, 0)
    assert (canvas_pixels(page, "#big") == colours).all()
    one = screen.shards.read([row])[0][1]
    small = canvas_pixels(page, ".channel[data-channel='1'] canvas")
    assert (small == one[:, :, None]).all()
    page.click(".channel[data-channel='1']")
    assert (canvas_pixels(page, "#big") == one[:, :, None]).all()
    page.keyboard.press("c")
    page.wait_for_selector(".channel[data-channel='2'][aria-pressed=true]")
    for _ in range(2):
        page.keyboard.press("c")
    assert (canvas_pixels(page, "#big") == colours).all()


def canvas_pixels(page, selector):
    address = page.eval_on_selector(selector, "one => one.toDataURL('image/png')")
    content = np.frombuffer(base64.b64decode(address.split(",")[1]), np.uint8)
    return cv2.imdecode(content, cv2.IMREAD_COLOR)[:, :, ::-1]


@in_browser
def test_contrast_changes_all_pictures_and_stays(page):
    enter_name(page)
    for _ in range(4):
        page.keyboard.press("+")
    page.reload()
    showing(page, 1)
    for selector in ("#big", ".channel canvas", "#context"):
        look = page.eval_on_selector(selector, "one => getComputedStyle(one).filter")
        assert look == "brightness(2)"


@in_browser
def test_annotator_sees_neither_the_selection_nor_the_place(page):
    text = page.inner_text("body")
    for word in ("random", "diverse", "uncertain", "B02", *PLATES):
        assert word not in text


@in_browser
def test_names_break_out_of_nothing(page):
    assert page.query_selector("#broken") is None
    assert SCREEN in page.inner_text("h1")
    captions = [one.inner_text() for one in page.query_selector_all(".caption")]
    assert captions == list(CHANNELS)


@in_browser
@pytest.mark.parametrize(
    "name", ['=HYPERLINK("x","y")', 'Zoë, Ada\'s "aunt"', "+1", "' Ada", "\uff1d1"]
)
def test_strange_annotator_comes_back_as_typed_and_is_no_formula(page, tmp_path, name):
    enter_name(page, name)
    type_labels(page, "n")
    path = download(page, tmp_path)
    assert set(read_label_file(path)["annotator"]) == {name}
    first_cells = path.read_text().replace('"', "").replace("\n", ",").split(",")
    assert not any(cell.startswith(tuple("=+-@\uff1d")) for cell in first_cells)


@in_browser
def test_name_is_asked_for_before_the_download(page):
    page.keyboard.press("Escape")
    type_labels(page, "n")
    showing(page, 2)
    page.click("#download")
    assert "Enter your name first" in page.inner_text("#message")
    page.keyboard.type("nasu1")  # into the name, where it labels nothing
    assert page.input_value("#annotator") == "nasu1"
    assert "1 of 12 labelled" in page.inner_text("#counts")


@in_browser
def test_nothing_to_download_or_undo_is_said(page):
    enter_name(page)
    page.click("#download")
    assert "no label yet" in page.inner_text("#message")
    page.keyboard.press("u")
    assert "nothing to undo" in page.inner_text("#message")


@in_browser
def test_key_held_down_is_one_label_and_shortcuts_of_the_browser_are_none(page):
    enter_name(page)
    page.keyboard.down("n")
    showing(page, 2)
    for _ in range(5):
        page.keyboard.down("n")  # repeated, as the system does
    page.keyboard.up("n")
    page.evaluate("document.dispatchEvent(new KeyboardEvent('keydown', {key: 'a', ctrlKey: true}))")
    assert "1 of 12 labelled" in page.inner_text("#counts")


@in_browser
@pytest.mark.parametrize(
    ("key", "code", "artefact"),
    [("&", "Digit1", "blur"), ("-", "Digit6", "empty"), ("1", "Numpad1", "blur")],
)
def test_digits_count_by_place_where_they_need_the_shift_key(page, key, code, artefact):
    enter_name(page)
    page.evaluate(
        "([key, code]) => document.dispatchEvent(new KeyboardEvent('keydown', {key, code}))",
        [key, code],
    )
    showing(page, 2)
    page.keyboard.press("ArrowLeft")
    assert f"abnormal, {artefact}" in page.inner_text("#place")


@in_browser
def test_buttons_do_what_the_keys_do(page):
    enter_name(page)
    page.click("#labels button[data-key='2']")
    showing(page, 2)
    page.click("#labels button[data-key='ArrowLeft']")
    showing(page, 1)
    assert page.get_attribute("#labels button[data-key='2']", "aria-pressed") == "true"
    assert page.inner_text("#labels button[data-key='2'] .count") == "1"


@in_browser
def test_starting_over_erases_only_after_a_yes(page):
    enter_name(page)
    type_labels(page, "nn")
    page.once("dialog", lambda dialog: dialog.dismiss())
    page.click("#restart")
    assert "2 of 12" in page.inner_text("#counts")
    page.once("dialog", lambda dialog: dialog.accept())
    page.click("#restart")
    showing(page, 1)
    assert "0 of 12" in page.inner_text("#counts") and page.input_value("#annotator") == ""


@in_browser
def test_another_list_of_crops_begins_anew(page, screen, tmp_path):
    enter_name(page)
    type_labels(page, "nn")
    other, _ = write_page(screen, tmp_path, seed=1)
    page.goto(other.as_uri())
    showing(page, 1)
    assert "0 of 12" in page.inner_text("#counts")


@in_browser
@pytest.mark.parametrize("width", [800, 1600])
def test_page_fits_its_width(page, width):
    page.set_viewport_size({"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for button in page.query_selector_all("#labels button"):
        assert button.evaluate("one => one.scrollWidth <= one.clientWidth"), button.inner_text()
