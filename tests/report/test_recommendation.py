"""What the study recommends: three sentences of known studies, and the rows that they rest on."""

import copy
import json

import numpy as np
import pandas as pd
import pytest
import yaml

from hcsqc.figures.ranking import plot_recommendation
from hcsqc.figures.words import study_words
from hcsqc.report.costs import COLUMNS, duration, encoder_costs
from hcsqc.report.recommendation import as_json, cautions, recommend, sentences
from tests.conftest import ROOT

CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text())
KEYS = ["probe", "budget", "screen", "metric", "encoder"]
RECALL = "recall_at_5_percent"
# Seconds per 1,000 cells, and of pretraining.
COSTS = {
    "image_quality": (0.8, 0),
    "resnet18": (9.0, 0),
    "vgg16": (20.0, 0),
    "simclr": (4.0, 600),
    "random_resnet18": (3.0, 0),
}
CPU = "A CPU (2 threads)"


def study(encoders, **changes) -> dict:
    config = copy.deepcopy(CONFIG)
    config["study"] |= {"train": "here", "test": ["there"], "encoders": list(encoders)}
    config["study"] |= {"probes": ["knn", "logistic", "knn_shuffled"], "not_run": {}} | changes
    return config


def ranking(recalls: dict, alike=None, probe="logistic", budget=350, screen="here", draws=10):
    """Return the rows of one ranking; those in `alike`, or all, cannot be distinguished."""
    order = sorted(recalls, key=recalls.get, reverse=True)
    alike = order if alike is None else alike
    rows = [
        {
            "encoder": name,
            "mean": recalls[name],
            "low": recalls[name] - 0.05,
            "high": recalls[name] + 0.05,
            "not_distinguished": name in alike,
            "best": len(order) > 1 and alike == [name],
        }
        for name in order
    ]
    about = {"probe": probe, "budget": budget, "screen": screen, "metric": RECALL, "draws": draws}
    return pd.DataFrame(rows).assign(**about)


def costs(encoders, **without) -> pd.DataFrame:
    rows = [
        (name, 45, COSTS[name][0], CPU, 822, COSTS[name][1], CPU if COSTS[name][1] else None)
        for name in encoders
    ]
    return pd.DataFrame(rows, columns=COLUMNS).assign(**without)


def scored(encoders, by_budget=None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return scores and replicates of the recall by budget, which spread by 2 points in step."""
    by_budget = by_budget or {350: 0.9}
    keys = {"probe": "logistic", "screen": "here", "metric": RECALL}
    rows = [{"encoder": n, "budget": b, "value": v} for n in encoders for b, v in by_budget.items()]
    scores = pd.DataFrame(rows).assign(**keys)
    noise = np.random.default_rng(0).normal(0, 0.02, 200)
    replicates = pd.concat(
        [
            pd.DataFrame({"replicate": range(200), "value": row["value"] + noise * (1 + k / 2)})
            .assign(**{key: row[key] for key in ("encoder", "budget")}, n_groups=12, **keys)
            for k, row in enumerate(rows)
        ]
    )  # fmt: skip
    return scores, replicates


def said(ranked, config=None, spent=None, by_budget=None):
    """Return the recommendation and its sentences."""
    names = list(dict.fromkeys(ranked["encoder"]))
    config = config or study(names)
    spent = costs(names) if spent is None else spent
    found = recommend(config, ranked, spent, *scored(names, by_budget))
    return found, sentences(found, study_words(config))


def test_a_clear_winner_is_recommended_with_recall_loss_and_cost():
    ranked = ranking({"vgg16": 0.93, "image_quality": 0.7, "resnet18": 0.6}, ["vgg16"])
    found, text = said(ranked)
    assert found.encoder == "vgg16"
    assert text == [
        "Use ImageNet VGG16 with logistic regression and 350 labels: expect to find 93% of the "
        "aberrant cells where at most 5% of the good cells are lost (95% interval 88 to 98%).",
        "It finds more than each of the other encoders.",
        "It costs 350 labels (175 good cells and 175 aberrant ones) and 20 s per 1,000 cells for "
        "45 features on A CPU (2 threads).",
    ]


def test_of_a_tie_the_cheapest_is_recommended_and_the_highest_is_named():
    recalls = {"vgg16": 0.93, "image_quality": 0.91, "resnet18": 0.9, "simclr": 0.5}
    found, text = said(ranking(recalls, ["vgg16", "image_quality", "resnet18"]))
    assert found.encoder == "image_quality"
    assert text[0].startswith("Use image quality measures with logistic regression")
    assert "expect to find 91%" in text[0]
    assert text[1] == (
        "These labels cannot distinguish it from ImageNet VGG16 and ImageNet ResNet18, of which "
        "ImageNet VGG16 found the most (93%); it is the cheapest of them."
    )


def test_where_the_highest_is_the_cheapest_too_the_sentence_says_so():
    found, text = said(ranking({"image_quality": 0.93, "vgg16": 0.91}))
    assert found.encoder == "image_quality"
    assert text[1] == (
        "These labels cannot distinguish it from ImageNet VGG16; none of them is much cheaper."
    )


def test_what_must_be_pretrained_costs_more_than_what_need_not():
    found, _ = said(ranking({"simclr": 0.93, "resnet18": 0.9}))
    assert found.encoder == "resnet18"
    alone, text = said(ranking({"simclr": 0.93, "resnet18": 0.5}, ["simclr"]))
    assert alone.encoder == "simclr"
    assert text[2].endswith(
        ", 4.0 s per 1,000 cells for 45 features on A CPU (2 threads) and 10 min of one-time "
        "pretraining on A CPU (2 threads)."
    )


def test_times_that_are_alike_decide_nothing():
    spent = costs(["resnet18", "vgg16"], seconds=[10.0, 9.0])
    found, _ = said(ranking({"resnet18": 0.93, "vgg16": 0.91}), spent=spent)
    assert found.encoder == "resnet18"


def test_a_control_is_never_recommended_while_another_is_as_good_and_the_sentence_names_it():
    found, text = said(ranking({"vgg16": 0.93, "random_resnet18": 0.9}))
    assert found.encoder == "vgg16"
    assert text[1] == (
        "These labels cannot distinguish it from random ResNet18; a control is among them (random "
        "ResNet18), so these labels do not show that the encoder matters."
    )
    _, text = said(ranking({"vgg16": 0.93, "resnet18": 0.92, "random_resnet18": 0.9}))
    assert "(93%); leaving controls aside, it is the cheapest of them; a control is" in text[1]


def test_a_single_encoder_is_recommended_and_said_to_be_alone():
    found, text = said(ranking({"image_quality": 0.9}))
    assert found.encoder == "image_quality"
    assert text[1] == "It is the only encoder of this study, so nothing is known of any other."


def test_without_costs_the_one_that_found_the_most_is_recommended():
    names = ["vgg16", "image_quality"]
    spent = encoder_costs(names, {}, [], {name: [name] for name in names})
    found, text = said(ranking({"vgg16": 0.93, "image_quality": 0.9}), spent=spent)
    assert found.encoder == "vgg16"
    assert "without costs on record, the one that found the most is recommended" in text[1]
    assert text[2] == (
        "It costs 350 labels (175 good cells and 175 aberrant ones); no computing time is on "
        "record."
    )


def test_many_that_are_as_good_are_counted():
    names = ["image_quality", "resnet18", "vgg16", "simclr", "random_resnet18", "swav", "vicreg"]
    spent = encoder_costs(names, {}, [], {name: [name] for name in names})
    recalls = {name: 0.9 - 0.01 * place for place, name in enumerate(names)}
    _, text = said(ranking(recalls), spent=spent)
    assert "SimCLR, 5 epochs; random ResNet18; and 2 more" in text[1]


@pytest.mark.parametrize("draws", [1, 4])
def test_too_few_draws_recommend_nothing(draws):
    found, text = said(ranking({"vgg16": 0.93, "image_quality": 0.5}, draws=draws))
    assert not found.judged
    assert text[0].startswith(
        "This study cannot recommend an encoder, because a comparison needs 5 draws of labels and "
        f"it has {draws}; over its draw{'s' if draws > 1 else ''}, ImageNet VGG16"
    )
    assert "interval" not in text[0] and text[1].startswith("It cannot be distinguished from")


def test_without_any_recall_the_one_sentence_says_so(tmp_path):
    ranked = ranking({"vgg16": 0.9}).assign(metric="f1")
    found, text = said(ranked)
    assert text == [
        "This study cannot recommend an encoder: it has no recall on its training screen."
    ]
    plot_recommendation(found.options, {}, "", found.lost, tmp_path / "f.png")
    assert (tmp_path / "f.png").stat().st_size > 0
    assert cautions(found, study_words(study(["vgg16"]))) == []


def test_the_classifier_of_the_highest_recall_is_taken_but_never_the_control():
    ranked = pd.concat(
        [
            ranking({"vgg16": 0.8, "image_quality": 0.95}, probe="knn"),
            ranking({"vgg16": 0.9, "image_quality": 0.7}, ["vgg16"]),
            ranking({"vgg16": 0.99}, probe="knn_shuffled"),
            ranking({"vgg16": 0.98}, probe="logistic", budget=25),
        ]
    )
    found, _ = said(ranked)
    assert (found.probe, found.budget, found.encoder) == ("knn", 350, "image_quality")
    assert found.classifiers["probe"].tolist() == ["knn", "logistic"]
    assert found.classifiers["alike"].tolist() == [1, 0]


def test_the_promised_loss_decides_the_recall():
    config = study(["vgg16"])
    config["qc"]["good_cells_lost"] = 0.01
    ranked = ranking({"vgg16": 0.6}).assign(metric="recall_at_1_percent")
    scores, replicates = (rows.assign(metric="recall_at_1_percent") for rows in scored(["vgg16"]))
    found = recommend(config, ranked, costs(["vgg16"]), scores, replicates)
    text = sentences(found, study_words(config))
    assert "60% of the aberrant cells where at most 1% of the good cells are lost" in text[0]


@pytest.mark.parametrize(
    ("fewer", "clause"),
    [
        (0.895, "with 100 labels the recall cannot be distinguished from that (90%)"),
        (0.70, "with 100 labels the recall is 20 points lower (70%)"),
    ],
)
def test_what_fewer_labels_would_find_is_said(fewer, clause):
    found, text = said(ranking({"vgg16": 0.9}), by_budget={350: 0.9, 100: fewer, 10: 0.5})
    assert text[2].endswith(f"; {clause}.")
    assert found.budgets["budget"].tolist() == [100, 10]
    assert found.budgets["difference"].tolist() == pytest.approx([fewer - 0.9, -0.4])
    assert (found.budgets["low"] < found.budgets["difference"]).all()
    assert (found.budgets["high"] > found.budgets["difference"]).all()


def test_what_it_finds_on_another_screen_is_said_beside_the_best_there():
    names = {"image_quality": 0.93, "vgg16": 0.91}
    there = ranking({"image_quality": 0.4, "vgg16": 0.8}, screen="there")
    found, _ = said(pd.concat([ranking(names), there]))
    assert cautions(found, study_words(study(names))) == [
        "On there, which it was not trained on, it finds 40% (95% interval 35 to 45%) at the same "
        "loss; ImageNet VGG16 finds the most there, 80%."
    ]


def test_as_json_it_holds_no_number_that_json_lacks():
    found, _ = said(ranking({"vgg16": 0.9}).assign(low=np.nan, high=np.nan))
    text = json.dumps(as_json(found), allow_nan=False)
    assert json.loads(text)["options"][0]["low"] is None
    assert json.loads(text)["encoder"] == "vgg16"


def test_the_figure_has_a_row_per_encoder_and_shades_the_choice(tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr("hcsqc.figures.ranking.save_figure", lambda figure, _: kept.append(figure))
    there = ranking({"vgg16": 0.5, "image_quality": 0.6, "simclr": 0.7}, screen="there")
    here = ranking({"vgg16": 0.93, "image_quality": 0.91, "simclr": 0.4}, ["vgg16"])
    found, _ = said(pd.concat([here, there]))
    plot_recommendation(found.options, {"vgg16": "VGG"}, "title", 0.05, tmp_path / "f.png")
    left, right = kept[0].axes
    ticks = [tick.get_text() for tick in left.get_yticklabels()]
    assert ticks == ["VGG", "image_quality", "simclr"]
    points = [line for line in left.lines if line.get_marker() == "o"]
    assert [line.get_xdata()[0] for line in points] == pytest.approx([93, 91, 40])
    (elsewhere,) = [line for line in left.lines if line.get_marker() == "D"]
    assert elsewhere.get_xdata().tolist() == pytest.approx([50, 60, 70])
    filled = [line.get_markerfacecolor() != "white" for line in points]
    assert filled == [True, False, False]
    assert [bar.get_width() for bar in right.patches[:3]] == [20, 0.8, 4]
    assert any("pretraining" in text.get_text() for text in right.texts)


# What encoders cost.


def record(key, seconds, crops=None, device="A CPU, 1 threads, float32") -> dict:
    return {"key": key, "cost": {"wall_s": seconds, "device": device}, "metrics": {"crops": crops}}


def test_costs_are_means_over_seeds_per_1000_cells_and_count_pretrained_parts():
    records = [
        record("features/simclr/seed0/here", 2, 500),
        record("features/simclr/seed1/here", 4, 500),
        record("features/both/seed0/here", 5, 500),
        record("pretrain/simclr/seed0", 60, device="A GPU"),
        record("pretrain/simclr/seed1", 80, device="A GPU"),
    ]
    made_of = {"simclr": ["simclr"], "both": ["simclr", "vgg16", "both"], "vgg16": ["vgg16"]}
    table = encoder_costs(list(made_of), {"simclr": 512}, records, made_of).set_index("encoder")
    assert table["seconds"].tolist()[:2] == [6, 10] and np.isnan(table.at["vgg16", "seconds"])
    assert table["pretraining_seconds"].tolist() == [70, 70, 0]
    assert table.at["simclr", "device"] == "A CPU (1 thread, float32)"
    assert table.at["both", "pretraining_device"] == "A GPU"
    assert table.at["simclr", "features"] == 512 and table.at["simclr", "measured_on"] == 500


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.79, "0.8 s"), (21.4, "21 s"), (119, "119 s"), (600, "10 min"), (9000, "2.5 h")],
)
def test_durations_read_in_the_unit_that_suits_them(seconds, text):
    assert duration(seconds) == text
