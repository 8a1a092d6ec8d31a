"""The report: what it says of its data, what it ranks, and that it is one safe file."""

import base64
import copy
import json
import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from hcsqc.analyses.dose_response import ALL, AT_FALSE_ALARMS
from hcsqc.analyses.learning_curves import learning_curves
from hcsqc.analyses.ranking import compare_encoders, rank
from hcsqc.core.schema import TABLES
from hcsqc.encoders.pooling import Pooling
from hcsqc.encoders.store import joined_encoder, pooled_encoder, random_encoder, save_encoder
from hcsqc.figures import tables
from hcsqc.figures.words import study_words
from hcsqc.labels.splits import CROSS_VALIDATION, HELD_OUT
from hcsqc.probes.metrics import TABLE_METRICS
from hcsqc.report.costs import encoder_costs
from hcsqc.report.page import (
    OTHER_METRICS,
    SECTIONS,
    Evidence,
    against_control,
    answers,
    describe_data,
    failed_fields,
    gains,
    label_counts,
    layout_table,
    other_metrics,
    render_report,
    screen_counts,
)
from hcsqc.report.recommendation import as_json, cautions, recommend, sentences
from hcsqc.report.tables import metrics_table
from tests.conftest import ROOT, in_browser
from tests.report.test_tables import make, replicates_of

CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text())
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
    "gg=="
)
EVIL = "<script>alert('x')</script>"
MEANS = {"resnet18": 0.90, "simclr": 0.88, "random_resnet18": 0.60}


def study(**changes) -> dict:
    config = copy.deepcopy(CONFIG)
    simulated = config["screens"]["BBBC022"] | {
        "simulate": {"cell_line": "u2os"},
        "labels": "truth",
    }
    config["screens"] |= {"sim": simulated, "other": copy.deepcopy(simulated)}
    config["study"] |= {
        "name": "mine",
        "train": "sim",
        "test": ["other"],
        "encoders": list(MEANS),
        "not_run": {"vgg16": "no hub here"},
        "probes": ["knn"],
        "budgets": [350, 25],
        "draws": 10,
    }
    config["study"] |= changes
    return config


def scores(config: dict, draws: int = 10) -> pd.DataFrame:
    """Return scores that spread by 5 points around each encoder's mean."""
    return pd.DataFrame(
        [
            (encoder, 0, "knn", budget, draw, screen, metric, mean + (draw % 2 - 0.5) / 10, 130)
            for encoder, mean in zip(config["study"]["encoders"], MEANS.values(), strict=True)
            for budget in (350, 25)
            for draw in range(draws)
            for screen in (config["study"]["train"], *config["study"]["test"])
            for metric in TABLE_METRICS
        ],
        columns=TABLES["scores"].columns.names,
    )


def summary(field_id: str = "sim/p1/B02/s1", reason: str = "cannot be read") -> pd.DataFrame:
    rows = [
        ("sim/p1/B02/s2", "p1", 10, 7, 3, "ok", None),
        (field_id, "p1", 0, 0, 0, "failed", reason),
    ]
    columns = ["field_id", "plate", "found", "kept", "dropped", "status", "reason"]
    return pd.DataFrame(rows, columns=columns)


def about(**provenance) -> dict:
    given = {"weights": "random"} | provenance
    return {
        "kind": "ssl",
        "architecture": "resnet18",
        "width": 512,
        "input": {"size_px": 64},
        "provenance": given,
    }


def ranked(table: pd.DataFrame) -> pd.DataFrame:
    """Return the ranking of encoders whose differences are certain."""
    groups = pd.DataFrame({"group": [f"p/B{place:02d}" for place in range(2, 8)]})
    pairs = compare_encoders(table, table.merge(groups, how="cross"), {})
    return rank(pairs, table, replicates_of(table))


def with_recall(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return scores and replicates with recall at 1% false alarms, half of F1."""
    f1 = table[table["metric"] == "f1"]
    both = pd.concat([table, f1.assign(metric="recall_at_1_percent", value=f1["value"] / 2)])
    return both, replicates_of(both)


def advice(config: dict, table: pd.DataFrame) -> dict:
    """Return what is recommended, where the recall at 5% false alarms is F1."""
    table = table[table["metric"] == "f1"].assign(metric="recall_at_5_percent")
    replicates, names = replicates_of(table), config["study"]["encoders"]
    costs = encoder_costs(names, {}, [], {name: [name] for name in names})
    found = recommend(config, ranked(table), costs, table, replicates)
    words = study_words(config)
    said = {"sentences": sentences(found, words), "cautions": cautions(found, words)}
    return json.loads(json.dumps(said | as_json(found)))


def evidence(config: dict, draws: int = 10, **given) -> Evidence:
    """Return what a small study found."""
    return Evidence(**(_found(json.dumps(config), draws) | given))


@cache
def _found(text: str, draws: int) -> dict:
    config = json.loads(text)
    table = scores(config, draws)
    about = {"encoder": "simclr", "artefact": ["blur", "blur", "dead", "dead"]}
    about |= {"draw": 0, "seen": [True, False] * 2, "detected": [0.9, 0.4, 1.0, np.nan]}
    selection = {"encoder": "simclr", "strategy": "diverse", "budget": [25, 350], "metric": "f1"}
    selection |= {"difference": [0.05, -0.01], "low": [0.01, -0.02], "high": [0.09, 0.0]}
    missed = {"encoder": "simclr", "probe": "knn", "screen": "sim", "artefact": "<debris>"}
    missed |= {"strength": ALL, "threshold": AT_FALSE_ALARMS, "detected": 0.1}
    missed |= {"low": 0.02, "high": 0.3, "crops": 12}
    return {
        "tables": make(table, config),
        "metrics": metrics_table(*with_recall(table), config),
        "advice": advice(config, table),
        "curves": learning_curves(table, replicates_of(table), "sim"),
        "detection": pd.DataFrame([missed]),
        "causes": ["simclr: loses 9 points."],
        "unseen": pd.DataFrame(about),
        "selections": pd.DataFrame(selection),
        "protocol": HELD_OUT,
        "largest_budget": 350,
    }


def page(config: dict, folder: Path, draws: int = 10, **given) -> str:
    pictures = [
        folder / name for name in ("crops_sim.png", "score_against_budget.png", "shift.png")
    ]
    for path in pictures:
        path.write_bytes(PNG)
    arguments = {
        "changed": [("crops.window_px", 64, 128)],
        "evidence": evidence(config, draws),
        "figures": pictures,
        "labels": {"sim": pd.DataFrame({"label": ["normal"], "artefact": [None]})},
        "summaries": {"sim": summary()},
        "encoders": {"simclr": about()},
        "trained_on": [],
    }
    return render_report(config, **(arguments | given))


class Reader(HTMLParser):
    """Collect the tags, the links and the text of a page, without that of scripts and styles."""

    def __init__(self, text: str):
        super().__init__()
        self.inside = None
        self.tags, self.links, self.words = [], [], []
        self.feed(text)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.inside = tag
        self.links += [
            value
            for name, value in attrs
            if name in ("src", "href", "action", "data") and value != "../mlflow.html"
        ]

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, data):
        if self.inside not in ("script", "style"):
            self.words.append(data)


# The page.


def test_the_page_says_that_its_data_are_simulated(tmp_path):
    text = Reader(page(study(), tmp_path)).text
    sentence = "Trained on sim, tested on it and on other: sim is simulated; other is simulated."
    # Once at the head, and above each of the three tables.
    assert text.count(sentence) == 4


def test_the_page_shows_figures_intervals_the_papers_and_reasons(tmp_path):
    text = Reader(page(study(), tmp_path)).text
    assert "kNN on sim (130 test crops, 10 draws)" in text
    assert "90.0 80.5 to 99.5" in text
    assert "88.0 78.5 to 97.5 paper 90.6" in text, "SimCLR's accuracy, the paper's beside it"
    left_out = "ImageNet VGG16 trained on other images; not run: no hub here"
    assert f"{left_out} - paper 96.1 - paper 95.9 - paper 95.4" in text
    assert "crops.window_px 64 128" in text


def test_the_page_begins_with_what_to_use_and_folds_the_rest_by_question(tmp_path):
    html = page(study(), tmp_path)
    text = Reader(html).text
    first = text.index("Use ImageNet ResNet18 with kNN and 350 labels: expect to find 90%")
    assert first < text.index("It finds more than each of the other encoders.")
    assert text.index("Questions") > text.index("It costs 350 labels")
    for name, question in SECTIONS.items():
        assert f'<a href="#{name}">{question}</a>' in html
        assert f'<details id="{name}">' in html
    assert "Which encoder? ImageNet ResNet18: alone at the top" in text
    assert html.count("<details open") == 0


def test_the_questions_have_short_answers():
    config = study()
    advised = advice(config, scores(config))
    cells = [{"percent": 90}, None, {"percent": 40}]
    artefacts = {"blur": 9, "dead": 9, "noise": 9}
    lines = {"resnet18": cells}
    maps = [{"probe": "knn", "artefacts": artefacts, "lines": lines}]
    found = answers(advised, study_words(config), maps)
    assert found["artefacts"] == "noise the most: 40% are found"
    assert found["labels"] == "350 labels; with 25 recall changes by +0 points"
    assert found["screens"] == "other: it finds 90%"
    assert answers(advised, study_words(config), [])["artefacts"] == ""
    unknown = answers(advised | {"encoder": None}, study_words(config), maps)
    assert unknown == dict.fromkeys(SECTIONS, "")


def test_names_are_in_words_with_the_machines_name_beside(tmp_path):
    html = page(study(), tmp_path)
    assert '<span title="simclr">SimCLR, 5 epochs</span>' in html
    assert not re.search(r">\s*(simclr|random_resnet18|knn)\s*<", html)


def test_a_smoke_test_ranks_nothing_and_says_so(tmp_path):
    text = Reader(page(study(smoke_test=True), tmp_path)).text
    assert "This is a smoke test." in text
    for words in ("Use ", "recommended", "It finds more", "cannot be distinguished", "highest"):
        assert words not in text, words


def test_too_few_draws_are_said_to_tell_nothing(tmp_path):
    text = Reader(page(study(draws=2), tmp_path, draws=2)).text
    assert "This study cannot recommend an encoder, because a comparison needs 5 draws" in text
    assert "Use " not in text and "too few draws to say" in text
    assert " to 95" not in text


@pytest.mark.parametrize(("draws", "mark"), [(1, "1 draw"), (2, "2 draws"), (3, None)])
def test_a_figure_of_fewer_than_three_draws_is_marked_as_no_mean(draws, mark, tmp_path):
    text = Reader(page(study(draws=draws), tmp_path, draws=draws)).text
    assert "fewer than 3 are no mean" in text
    assert (f" {mark} " in text.split("Table 1.")[1].split("Table 2.")[0]) is bool(mark)
    assert (f"on sim, {mark}: no mean" in text) is bool(mark)


def test_pictures_lie_in_the_page_and_nothing_is_fetched(tmp_path):
    text = page(study(), tmp_path)
    found = Reader(text)
    assert found.tags.count("img") == 3
    assert found.links.count("audit.html") == 1  # it lies beside the page
    for link in set(found.links) - {"audit.html"} - {f"#{name}" for name in SECTIONS}:
        head, _, data = link.partition(",")
        assert head == "data:image/png;base64"
        assert base64.b64decode(data) == PNG
    ours = text.replace(tables.LIBRARY.read_text(encoding="utf-8"), "")
    assert not re.search(r"https?:|//[a-z]|url\(|@import", ours)
    assert not {"link", "iframe", "object"} & set(found.tags)


@pytest.mark.parametrize("where", ["encoder", "study", "field", "reason", "weights", "value"])
def test_text_from_outside_is_escaped(where, tmp_path):
    config, given = study(), {}
    if where == "encoder":
        config["encoders"][EVIL] = {"kind": "transfer", "features": "own_{screen}.parquet"}
        config["study"]["encoders"] = [EVIL, "simclr", "random_resnet18"]
        given["encoders"] = {EVIL: about()}
    elif where == "study":
        config["study"]["name"] = EVIL
    elif where == "field":
        given["summaries"] = {"sim": summary(field_id=EVIL)}
    elif where == "reason":
        config["study"]["not_run"] = {"vgg16": EVIL}
        given["summaries"] = {"sim": summary(reason=EVIL)}
    elif where == "weights":
        given["encoders"] = {"simclr": about(package=EVIL, licence=EVIL)}
    else:
        given["changed"] = [("tracking.uri", EVIL, None)]
    text = page(config, tmp_path, **given)
    found = Reader(text)
    assert found.tags.count("script") == 3, "the page's own"
    assert "<script>alert" not in text
    assert "&lt;script&gt;" in text and EVIL in found.text


def test_every_tag_is_closed(tmp_path):
    alone = {"meta", "img", "br"}
    open_tags = []

    class Balance(HTMLParser):
        def handle_starttag(self, tag, attrs):
            if tag not in alone:
                open_tags.append(tag)

        def handle_endtag(self, tag):
            assert open_tags.pop() == tag

    Balance().feed(page(study(), tmp_path))
    assert open_tags == []


def test_encoders_are_listed_with_their_origin(tmp_path):
    given = {
        "simclr": about(weights="self-supervised", method="simclr", crops=900, collapsed=True),
        "lite": about(weights="package", package="lite 0.1.0", licence="Apache-2.0"),
        "plain": about(weights="self-supervised", method="vicreg", crops=900, collapsed=False),
    }
    text = Reader(page(study(), tmp_path, encoders=given)).text
    assert "self-supervised, simclr on 900 crops collapsed: its features hardly differ" in text
    assert "package, lite 0.1.0 (Apache-2.0)" in text
    assert text.count("collapsed") == 1


def test_what_encoders_were_trained_on_is_said_and_that_another_rounds_otherwise(tmp_path):
    text = Reader(page(study(), tmp_path, trained_on=["A CPU, 2 threads"])).text
    assert "Trained here on: A CPU, 2 threads. On another device" in text
    both = Reader(page(study(), tmp_path, trained_on=["A CPU, 2 threads", "A CPU, 8 threads"])).text
    assert "A CPU, 2 threads; A CPU, 8 threads. Not all on the same." in both


def test_every_part_of_a_joined_encoder_is_listed_with_its_input_and_pooling(tmp_path):
    network = random_encoder("test_resnet", 32, 3, seed=0)
    parts = [pooled_encoder(network, Pooling("stages", "cell")), network]
    save_encoder(joined_encoder(parts), tmp_path / "encoder.safetensors")
    given = {"both": json.loads((tmp_path / "encoder.json").read_text())}
    text = Reader(page(study(), tmp_path, encoders=given)).text
    assert (
        f"both several joined test_resnet, all stages, of the cell {parts[0].width} 32 random"
        in text
    )
    assert f"both several joined test_resnet {network.width} 32 random" in text


def test_screens_and_the_studys_name_are_not_listed_as_changes(tmp_path):
    changed = [
        ("study.name", "mine", "masud2022"),
        ("screens.sim", {}, None),
        ("study.draws", 3, 20),
    ]
    text = Reader(page(study(), tmp_path, changed=changed)).text
    assert "study.draws 3 20" in text
    assert "study.name" not in text and "screens.sim" not in text
    only = page(study(), tmp_path, changed=changed[:2])
    assert "Nothing." in Reader(only).text


# Its parts.


def test_the_data_of_real_and_derived_screens_are_named():
    config = copy.deepcopy(CONFIG)
    assert describe_data(config) == (
        "Trained on BBBC022, tested on it and on BBBC021: BBBC022 is a real screen; BBBC021 is a "
        "real screen."
    )
    config["screens"]["degraded"] = {"derived_from": "BBBC022"}
    config["study"] |= {"train": "degraded", "test": []}
    assert describe_data(config) == (
        "Trained on degraded, tested on it and on no other screen: degraded is BBBC022 with "
        "simulated artefacts; BBBC022 is a real screen."
    )


def test_each_pretrained_encoder_is_held_against_the_best_control():
    rows = [
        ("simclr", "ssl", 91.0),
        ("vicreg", "ssl", 85.0),
        ("random", "control", 80.0),
        ("sizes", "control", 85.0),
        ("vgg16", "transfer", 99.0),
    ]
    table = pd.DataFrame(rows, columns=["encoder", "kind", "percent"])
    table = table.assign(probe="knn", metric="accuracy", status="run")
    others = [table.assign(probe="linear_paper"), table.assign(metric="f1")]
    found = against_control(pd.concat([table, *others]), CONFIG["probes"])
    assert [(row["encoder"], row["beats"]) for row in found] == [
        ("simclr", True),
        ("vicreg", False),
    ]
    assert {row["control"] for row in found} == {"sizes"}
    assert against_control(table[table["kind"] != "control"], CONFIG["probes"]) == []


def test_the_page_says_whether_pretraining_beats_the_control(tmp_path):
    text = Reader(page(study(), tmp_path)).text
    assert "SimCLR, 5 epochs : 88.0, random ResNet18 : 60.0. It beats the control." in text
    lower = Reader(page(study(encoders=["random_resnet18", "resnet18", "simclr"]), tmp_path)).text
    assert "SimCLR, 5 epochs : 60.0, random ResNet18 : 90.0. It does not beat the control." in lower


def test_the_page_says_what_is_missed_and_which_labels_help(tmp_path):
    text = Reader(page(study(), tmp_path)).text
    assert "kNN on sim Encoder <debris> 12 crops SimCLR, 5 epochs 10 \u25be" in text
    assert "SimCLR, 5 epochs : loses 9 points." in text
    assert "SimCLR, 5 epochs 90 / 40 -" in text, (
        "a family's share with and without it; nothing where unknown"
    )
    assert "SimCLR, 5 epochs diverse +5.0 1.0 to 9.0 -1.0 -2.0 to 0.0" in text
    assert "In each draw the test crops lie in wells that train nothing." in text


def test_the_page_says_that_few_labels_are_cross_validated(tmp_path):
    few = evidence(study(), protocol=CROSS_VALIDATION, largest_budget=25)
    text = Reader(page(study(), tmp_path, evidence=few)).text
    assert "too few labels to hold a test set out." in text
    assert 'allow a budget of 25; larger ones are marked "not enough labels"' in text


@pytest.mark.parametrize(
    ("group_by", "units"),
    [("well", "wells"), ("compound", "compounds (controls by well)"), ("plate", "plates")],
)
def test_the_page_says_what_intervals_resample(group_by, units, tmp_path):
    config = study()
    config["evaluation"]["group_by"] = group_by
    text = Reader(page(config, tmp_path)).text
    assert f"interval, from resampling {units} and draws." in text
    assert f"the test crops lie in {units} that train nothing" in text


def test_gains_say_what_the_next_labels_bring_or_why_not():
    curves = pd.DataFrame(
        [
            ("knn", "a", 350, 0.9, 0.5, 0.1, 1.2, 0.93, None),
            ("knn", "b", 350, 0.95, np.nan, np.nan, np.nan, np.nan, "does not rise"),
        ],
        columns=[
            "probe",
            "encoder",
            "largest_budget",
            "score",
            "gain_next_50",
            "gain_low",
            "gain_high",
            "asymptote",
            "reason",
        ],
    )
    first, second = gains(curves)
    assert (first["encoder"], first["gain"], first["reason"]) == ("b", None, "does not rise")
    found = [second[name] for name in ("encoder", "gain", "interval", "limit")]
    assert found == ["a", "0.5", "0.1 to 1.2", "93.0"]


def test_a_table_has_a_line_per_encoder_and_a_cell_per_budget_and_metric():
    config = study()
    (group,) = layout_table(make(scores(config), config)[2])
    assert (group["probe"], group["screen"], group["budgets"]) == ("knn", "sim", [350, 25])
    assert [line["encoder"] for line in group["lines"]] == [*MEANS, "vgg16"]
    assert [len(line["cells"]) for line in group["lines"]] == [6] * 4
    assert group["lines"][1]["cells"][0]["percent"] == "88.0"
    assert group["lines"][1]["reason"] is None and group["lines"][3]["reason"] == "no hub here"


def test_labels_and_screens_are_counted():
    labels = pd.DataFrame(
        {
            "label": ["normal", "abnormal", "abnormal", "abnormal"],
            "artefact": [None, "blur", "blur", "dead"],
        }
    )
    counts = label_counts(labels)
    assert counts["normal"] == 1 and counts["blur"] == 2 and counts["dead"] == 1
    assert screen_counts(summary()) == {
        "plates": 1,
        "fields": 2,
        "fields failed": 1,
        "nuclei found": 10,
        "crops": 7,
        "dropped at the border": 3,
    }


def test_failed_fields_are_listed_with_their_reason():
    many = pd.concat([summary(f"sim/p1/C0{i}/s1", f"reason {i}") for i in range(9)])
    found = failed_fields({"sim": many, "other": summary("other/p", "x")})
    assert found[:9] == [
        {"field_id": f"sim/p1/C0{i}/s1", "reason": f"reason {i}"} for i in range(9)
    ]


def test_other_metrics_stand_at_the_largest_budget_with_their_interval():
    config = study()
    table = metrics_table(*with_recall(scores(config)), config)
    table.loc[table["budget"] == 25, "value"] = 0.99
    groups = other_metrics(table)
    assert [(group["probe"], group["screen"]) for group in groups] == [
        ("knn", "other"),
        ("knn", "sim"),
    ]
    for group in groups:
        assert group["budget"] == 350
        assert list(group["lines"]) == sorted(MEANS)
        cells = dict(zip(OTHER_METRICS, group["lines"]["simclr"], strict=True))
        assert cells.pop("recall_at_1_percent") == ("44.0", "34.5 to 53.5")
        assert set(cells.values()) == {(None, None)}, "what was not computed has no figure"


# In a browser.


@in_browser
@pytest.mark.parametrize("width", [400, 900, 1400])
def test_links_open_what_is_folded_and_paper_shows_everything(width, tmp_path, browser):
    file = tmp_path / "index.html"
    file.write_text(page(study(), tmp_path), encoding="utf-8")
    opened = browser.new_page(viewport={"width": width, "height": 800})
    said = []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.goto(file.as_uri())
    is_open = "name => document.getElementById(name).open"
    for name, question in SECTIONS.items():
        assert not opened.evaluate(is_open, name)
        opened.click(f"nav >> text={question}")
        opened.wait_for_function(is_open, arg=name, timeout=10_000)
    opened.goto(f"{file.as_uri()}#table-2")
    opened.reload()
    assert opened.is_visible("#table-2") and not opened.evaluate(is_open, "screens")
    assert opened.evaluate("document.documentElement.scrollWidth") <= width, (
        "the page never scrolls sideways"
    )
    opened.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert opened.locator("details:not([open])").count() == 0
    opened.evaluate("dispatchEvent(new Event('afterprint'))")
    assert not opened.evaluate(is_open, "screens") and opened.evaluate(is_open, "labels")
    assert said == []
    opened.close()


@in_browser
@pytest.mark.parametrize("width", [400, 900, 1400])
def test_every_table_sorts_filters_and_downloads(width, tmp_path, browser):
    file = tmp_path / "index.html"
    file.write_text(page(study(), tmp_path), encoding="utf-8")
    opened = browser.new_page(viewport={"width": width, "height": 800}, accept_downloads=True)
    said = []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    opened.goto(file.as_uri())
    opened.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true; })")
    count = opened.locator("table").count()
    opened.wait_for_function(f"document.querySelectorAll('table.dataTable').length === {count}")
    assert opened.locator("button", has_text="Download CSV").count() == count > 10
    table = opened.locator("table[data-name=table2_knn_sim]")
    # Without the heads that span the metrics of a budget.
    assert table.locator("th.dt-orderable-asc").count() == 1 + 2 * len(TABLE_METRICS)
    table.locator("th", has_text="Accuracy").first.click()
    opened.wait_for_selector("table[data-name=table2_knn_sim] th[aria-sort=ascending]")
    names = [
        text.split("\n")[0] for text in table.locator("tbody td:first-child").all_inner_texts()
    ]
    # What was not run comes before all numbers, and no number is compared as a text.
    assert names == ["ImageNet VGG16", "random ResNet18", "SimCLR, 5 epochs", "ImageNet ResNet18"]
    with opened.expect_download() as download:
        opened.locator("button[aria-label$='table2 knn sim']").click()
    assert download.value.suggested_filename == "mine_table2_knn_sim.csv"
    rows = pd.read_csv(download.value.path())
    assert list(rows["Encoder"]) == names
    accuracy = rows.set_index("Encoder")["Accuracy, 350 labels"]
    assert accuracy["SimCLR, 5 epochs"] == 88.0 and np.isnan(accuracy["ImageNet VGG16"])
    assert "78.5 to 97.5" in set(rows["Accuracy, 350 labels, 95% interval"])
    changes = opened.locator("table[data-name=crops_to_label]")
    assert changes.locator("td[data-order='5.0']").count() == 1
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    assert said == []
    opened.close()
