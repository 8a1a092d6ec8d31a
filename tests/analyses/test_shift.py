"""Diagnosis of shift: a planted cause is named, none is named where there is none."""

import json
import sys

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from hcsqc.analyses.shift import (
    AS_IT_IS,
    COLUMNS,
    DIAGNOSIS,
    SAME_SCREEN,
    STANDARDISED,
    add_labels,
    causes,
    diagnose,
    standardise,
)
from hcsqc.analyses.shift_images import (
    MATCHED_PIXEL_SIZE,
    PERMUTED_CHANNELS,
    permutations,
    write_variants,
)
from hcsqc.core.errors import InputError
from hcsqc.core.schema import features_schema, write_table
from hcsqc.features.tables import features_table
from hcsqc.figures import shift as shift_figures
from hcsqc.figures.shift import plot_diagnosis, plot_score_histograms
from hcsqc.probes.metrics import auc, f1
from hcsqc.probes.task import tasks

DRAWS, BUDGET, WELLS, PER_WELL = 6, 60, 12, 20
NOT_MADE = {
    PERMUTED_CHANNELS: "one channel has no other order",
    MATCHED_PIXEL_SIZE: "the pixel size of a screen is not known",
}


def logistic(train, targets, wells, tests):
    """Return the scores of scikit-learn's logistic regression: a stand-in for the probe."""
    assert len(train) == len(targets) == len(wells)
    fitted = LogisticRegression(max_iter=1000).fit(train, targets)
    return [fitted.predict_proba(matrix)[:, 1] for matrix in tests]


def labels_of(screen: str, wells: int = WELLS, per_well: int = PER_WELL) -> pd.DataFrame:
    """Return labels of which every second in each well is abnormal."""
    count = wells * per_well
    names = [f"B{1 + place // per_well:02d}" for place in range(count)]
    return pd.DataFrame(
        {
            "crop_id": [f"{screen}/p1/{well}/s1/x{i:04d}y0000" for i, well in enumerate(names)],
            "plate": "p1",
            "well": names,
            "label": np.where(np.arange(count) % 2, "abnormal", "normal"),
            "artefact": None,
            "strength": None,
            "compound": None,
            "annotator": "a",
            "source": "s",
            "selection": "random",
        }
    ).assign(group=["p1/" + well for well in names])


def measured(labels: pd.DataFrame, seed: int, distance: float = 4.0) -> np.ndarray:
    """Return 4 noisy features, of which the first tells the labels."""
    features = np.random.default_rng(seed).normal(size=(len(labels), 4))
    features[:, 0] += distance * (labels["label"] == "abnormal")
    return features.astype(np.float32)


def splits_of(labels: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return draws that test on 40 crops of two random wells and train on all others."""
    parts = []
    for draw in range(DRAWS):
        rng = np.random.default_rng([seed, draw])
        tested = labels["well"].isin(rng.choice(labels["well"].unique(), 2, replace=False))
        train = labels[~tested].sample(frac=1, random_state=draw)
        rank = 2 * train.groupby("label").cumcount() + (train["label"] == "abnormal")
        parts.append(train.assign(part="train", rank=rank, draw=draw))
        parts.append(labels[tested].assign(part="test", rank=None, draw=draw))
    table = pd.concat(parts, ignore_index=True).astype({"rank": "Int32"})
    return table[["draw", "crop_id", "label", "group", "part", "rank"]]


@pytest.fixture(scope="module")
def draws(tmp_path_factory):
    """Return the path of the splits of screen a, and its draws at the largest budget."""
    path = tmp_path_factory.mktemp("splits") / "a.parquet"
    write_table(splits_of(labels_of("a"), seed=0), path, "splits")
    return path, list(tasks(path, [], DRAWS, BUDGET))


def run(draws, target, labels=None, source=None, variants=None, not_made=None, counts=(5, 10, 25)):
    """Return the diagnosis of a shift from screen a to screen b, with encoder and seed."""
    own = labels_of("a")
    labels = labels_of("b") if labels is None else labels
    source = measured(own, 1) if source is None else source
    crops = pd.Index(labels["crop_id"])
    table = diagnose(
        (pd.Index(own["crop_id"]), source),
        draws[1],
        (crops, target),
        labels[["crop_id", "label", "group"]],
        {name: (crops, matrix) for name, matrix in (variants or {}).items()},
        NOT_MADE if not_made is None else not_made,
        counts,
        logistic,
        seed=0,
    )
    return table.assign(encoder="means", seed=0)


def mean_f1(table: pd.DataFrame, condition: str, column: str = "value") -> float:
    return table.loc[(table["condition"] == condition) & (table["metric"] == "f1"), column].mean()


def test_a_constant_offset_is_named_a_shift_of_means(draws):
    table = run(draws, measured(labels_of("b"), 2) + 4)
    assert mean_f1(table, AS_IT_IS) < 0.6 < 0.9 < mean_f1(table, SAME_SCREEN)
    assert mean_f1(table, STANDARDISED) > 0.9
    (sentence,) = causes(table, "a")
    assert sentence.startswith("means: loses ")
    assert " points of F1 from a to b; standardising features per screen wins back " in sentence
    assert ": the loss is mostly a shift of feature means and scales. Not tried: " in sentence
    assert sentence.endswith("matched pixel size (the pixel size of a screen is not known).")


@pytest.mark.parametrize("seed", [2, 3, 4])
def test_no_shift_is_said_to_be_none(draws, seed):
    (sentence,) = causes(run(draws, measured(labels_of("b"), seed)), "a")
    assert sentence.startswith("means: no loss of F1 from a to b beyond chance (")


def test_swapped_meaning_of_features_is_mended_by_labels_alone(draws):
    flipped = labels_of("b")
    target = measured(flipped, 2)
    target[:, [0, 1]] = target[:, [1, 0]]  # another feature tells the labels there
    own = measured(labels_of("a"), 1)
    (sentence,) = causes(run(draws, target, source=own, counts=(5, 10, 100)), "a")
    assert sentence.count(": the loss is mostly due to features that mean something else") == 1


def composites(labels: pd.DataFrame, seed: int) -> np.ndarray:
    """Return n x 3 x 8 x 8 crops; abnormal ones are brighter in channel 1, darker in 2."""
    rng = np.random.default_rng(seed)
    bright = np.array([100, 90, 60]) + rng.normal(0, 4, (len(labels), 3))
    bright += np.array([12, -12, 0]) * (labels[["label"]] == "abnormal").to_numpy()
    noise = rng.normal(0, 5, (len(labels), 3, 8, 8))
    return np.clip(bright[:, :, None, None] + noise, 0, 255).astype(np.uint8)


def mean_intensity(crops: np.ndarray) -> np.ndarray:
    return (crops.mean(axis=(2, 3)) / 10).astype(np.float32)


def test_permuted_channels_are_named_and_the_right_order_wins_back_the_loss(draws):
    source = mean_intensity(composites(labels_of("a"), 1))
    crops = composites(labels_of("b"), 2)[:, [2, 0, 1]]
    variants = {
        f"{PERMUTED_CHANNELS} {'-'.join(map(str, order))}": mean_intensity(
            crops[:, [place - 1 for place in order]]
        )
        for order in permutations(3)
    }
    not_made = {MATCHED_PIXEL_SIZE: "both screens have the same pixel size"}
    table = run(draws, mean_intensity(crops), None, source, variants, not_made)
    f1_of = {name: mean_f1(table, name) for name in variants}
    assert max(f1_of, key=f1_of.get) == "permuted channels 2-3-1"
    assert f1_of["permuted channels 2-3-1"] > 0.9
    (sentence,) = causes(table, "a")
    assert ": the loss is mostly another order of channels." in sentence
    assert "another channel order at most " in sentence


def test_rows_are_complete_and_compared_on_the_same_crops(draws, tmp_path):
    target = measured(labels_of("b"), 2) + 1
    table = run(draws, target)
    names = [SAME_SCREEN, AS_IT_IS, PERMUTED_CHANNELS, MATCHED_PIXEL_SIZE, STANDARDISED]
    names += ["5 target labels", "10 target labels", "25 target labels"]
    assert list(dict.fromkeys(table["condition"])) == names
    assert (table.groupby("condition").size() == 3 * DRAWS).all()
    assert [name for name in table.columns if name not in ("encoder", "seed")] == COLUMNS
    assert set(table["screen"]) == {"b"}
    by_name = table.groupby("condition")["n_test"].agg(["min", "max"])
    assert by_name.loc[SAME_SCREEN].tolist() == [40, 40]
    assert by_name.loc[STANDARDISED].tolist() == [WELLS * PER_WELL] * 2
    assert by_name.loc["25 target labels", "max"] <= (WELLS - 2) * PER_WELL
    plain = table[table["condition"] == AS_IT_IS]
    np.testing.assert_array_equal(plain["value"], plain["reference"])
    assert table.loc[table["condition"] == SAME_SCREEN, "reference"].isna().all()
    not_tried = table[table["condition"].isin(NOT_MADE)]
    assert not_tried["value"].isna().all()
    assert (not_tried["reason"] == not_tried["condition"].map(NOT_MADE)).all()
    write_table(table, tmp_path / "diagnosis.parquet", DIAGNOSIS)
    assert causes(pd.read_parquet(tmp_path / "diagnosis.parquet"), "a") == causes(table, "a")


def test_scores_are_those_of_the_probe_fitted_by_hand(draws):
    own, labels = labels_of("a"), labels_of("b")
    source, target = measured(own, 1), measured(labels, 2) + 1
    table = run(draws, target).set_index(["condition", "draw", "metric"])
    task = draws[1][3]
    index = pd.Index(own["crop_id"])
    train = index.get_indexer(task.train_crops)
    truth = (labels["label"] == "abnormal").to_numpy(int)
    fitted = LogisticRegression(max_iter=1000).fit(source[train], task.train_targets)
    plain = fitted.predict_proba(target)[:, 1]
    assert table.loc[(AS_IT_IS, 3, "auc"), "value"] == pytest.approx(auc(truth, plain))
    scaled = StandardScaler().fit_transform(source), StandardScaler().fit_transform(target)
    fitted = LogisticRegression(max_iter=1000).fit(scaled[0][train], task.train_targets)
    expected = auc(truth, fitted.predict_proba(scaled[1])[:, 1])
    assert table.loc[(STANDARDISED, 3, "auc"), "value"] == pytest.approx(expected, abs=1e-4)
    places, rest = add_labels(labels, 10, np.random.default_rng([0, 3]))
    fitted = LogisticRegression(max_iter=1000).fit(
        np.concatenate([source[train], target[places]]),
        np.concatenate([task.train_targets, truth[places]]),
    )
    row = table.loc[("10 target labels", 3, "f1")]
    assert row["value"] == pytest.approx(f1(truth[rest], fitted.predict_proba(target[rest])[:, 1]))
    assert row["reference"] == pytest.approx(f1(truth[rest], plain[rest]))
    assert row["n_test"] == len(rest)


@pytest.mark.parametrize("count", [5, 10, 25])
def test_added_labels_are_balanced_and_their_wells_never_test(count):
    labels = labels_of("b")
    wells = labels["group"].to_numpy()
    train, test = add_labels(labels, count, np.random.default_rng(4))
    counts = labels["label"].iloc[train].value_counts()
    assert counts["normal"] == count - count // 2
    assert counts["abnormal"] == count // 2
    assert len(set(train)) == count
    assert not set(wells[train]) & set(wells[test])
    assert len(test) == PER_WELL * (WELLS - len(set(wells[train])))
    more, _ = add_labels(labels, 40, np.random.default_rng(4))
    assert set(train) < set(more), "counts nest"


def test_other_draws_add_other_labels():
    first, second = (
        add_labels(labels_of("b"), 10, np.random.default_rng([0, draw]))[0] for draw in (0, 1)
    )
    assert set(first) != set(second)


def test_too_few_labels_or_wells_have_a_reason(draws):
    labels = labels_of("b", wells=2, per_well=8)
    table = run(draws, measured(labels, 2), labels)
    by_name = table.groupby("condition")["reason"].first()
    assert by_name["25 target labels"] == "b has 8 normal labels; 13 are needed"
    assert by_name["10 target labels"] == (
        "b has 2 groups of labels, and those left to test on have no normal crop"
    )
    assert by_name[["5 target labels"]].isna().all()
    short = table[table["condition"] == "25 target labels"]
    assert short["value"].isna().all()
    assert (short["n_test"] == 0).all()


def test_no_draw_is_refused():
    target = measured(labels_of("b"), 2)
    with pytest.raises(
        InputError, match="there is no draw to diagnose b; lower the budget, or label"
    ):
        run((None, []), target)


def test_labels_of_one_class_cannot_be_diagnosed(draws):
    labels = labels_of("b").assign(label="normal")
    with pytest.raises(InputError, match="there is no abnormal label of b to test on"):
        run(draws, measured(labels, 2), labels)


def test_standardising_is_scikit_learns_and_leaves_constants_at_nothing():
    matrix = np.random.default_rng(0).normal(5, 3, (50, 4)).astype(np.float32)
    matrix[:, 2] = 0.1
    _, scaled = standardise((pd.Index(range(50)), matrix))
    kept = [0, 1, 3]
    expected = StandardScaler().fit_transform(matrix[:, kept].astype(np.float64))
    np.testing.assert_allclose(scaled[:, kept], expected, atol=1e-5)
    assert (scaled[:, 2] == 0).all()
    assert scaled.dtype == np.float32


def made(gains: dict[str, float], loss=0.2, noise=0.0, draws=8, reasons=None) -> pd.DataFrame:
    """Return a diagnosis in which each condition wins back so much, give or take noise."""
    wobble = np.linspace(-noise, noise, draws)
    rows = []
    for draw in range(draws):
        for name, gain in {SAME_SCREEN: loss, AS_IT_IS: 0.0, **gains}.items():
            plain = np.nan if name == SAME_SCREEN else 0.6
            value = 0.6 + gain + (0 if name in (AS_IT_IS, SAME_SCREEN) else wobble[draw])
            rows.append((name, draw, value, plain, 10**6, None))
        rows += [(name, draw, np.nan, np.nan, 0, why) for name, why in (reasons or {}).items()]
    table = pd.DataFrame(
        rows, columns=["condition", "draw", "value", "reference", "n_test", "reason"]
    )
    return table.assign(encoder="e", seed=0, screen="b", metric="f1")


@pytest.mark.parametrize(
    ("gains", "noise", "expected"),
    [
        ({STANDARDISED: 0.15}, 0.0, "the loss is mostly a shift of feature means and scales."),
        ({STANDARDISED: 0.15, "25 target labels": 0.19}, 0.0, "mostly a shift of feature means"),
        ({STANDARDISED: 0.12}, 0.2, "undecided, because what speaks for a shift of feature means"),
        ({STANDARDISED: 0.15, MATCHED_PIXEL_SIZE: 0.14}, 0.05, "undecided between a shift of "
         "feature means and scales and another pixel size."),
        ({STANDARDISED: 0.11, MATCHED_PIXEL_SIZE: 0.19}, 0.0, "mostly another pixel size."),
        ({STANDARDISED: 0.01, "5 target labels": 0.0, "25 target labels": 0.15}, 0.0,
         "due to features that mean something else there, which only labels of that screen can "
         "correct."),
        ({STANDARDISED: 0.09}, 0.0, "undecided, because nothing that was tried wins back half"),
        ({STANDARDISED: -0.1, "permuted channels 1-3-2": -0.3, "permuted channels 2-1-3": 0.16},
         0.0, "wins back 0, another channel order at most 16: the loss is mostly another order"),
    ],
)  # fmt: skip
def test_the_rule_that_names_a_cause(gains, noise, expected):
    (sentence,) = causes(made(gains, noise=noise), "a")
    assert sentence.startswith("e: loses 20 points of F1 from a to b; standardising ")
    assert expected in sentence


def test_a_loss_of_less_than_a_point_is_none():
    (sentence,) = causes(made({STANDARDISED: 0.0}, loss=0.009), "a")
    assert "no loss of F1 from a to b beyond chance (0.9 points, spread 0.1)" in (sentence)


def test_a_loss_on_few_crops_may_be_chance():
    table = made({STANDARDISED: 0.2}).assign(n_test=20)
    (sentence,) = causes(table, "a")
    # 1.96 standard errors of shares of 18 and 14 of 24 crops, together.
    assert sentence.endswith("beyond chance (20.0 points, spread 26.3).")


def test_few_draws_are_undecided():
    (sentence,) = causes(made({STANDARDISED: 0.2}, draws=4), "a")
    assert sentence == (
        "e: 4 draws are too few to say whether F1 drops from a to b or differs by chance: "
        "undecided."
    )


def test_sentences_come_per_encoder_and_screen_and_draws_of_all_seeds_count():
    one = made({STANDARDISED: 0.2}, draws=4)
    several = [one, one.assign(seed=1), one.assign(screen="c"), one.assign(encoder="f")]
    found = causes(pd.concat(several), "a")
    assert [sentence.split(":")[0] for sentence in found] == ["e", "e", "f"]
    assert "mostly a shift" in found[0]
    assert "from a to c" in found[1]
    assert "undecided" in found[2]


@pytest.fixture
def drawn(monkeypatch) -> list:
    """Collect the figures that are saved, and keep them open until the test ends."""
    seen, save = [], shift_figures.save_figure

    def keep(figure, path):
        seen.append(figure)
        save(figure, path)

    monkeypatch.setattr(shift_figures, "save_figure", keep)
    monkeypatch.setattr(plt, "close", lambda figure: None)
    yield seen
    monkeypatch.undo()
    plt.close("all")


def test_the_figure_of_the_diagnosis_shows_values_and_references(tmp_path, drawn):
    gains = {STANDARDISED: 0.15, "25 target labels": 0.1}
    table = made(gains, noise=0.04, reasons={MATCHED_PIXEL_SIZE: "not known"})
    table = pd.concat([table, table.assign(encoder="f")])
    plot_diagnosis(table, tmp_path / "diagnosis.png")
    assert plt.imread(tmp_path / "diagnosis.png").std() > 0.01
    first, second = drawn[0].axes
    assert [axis.get_title() for axis in (first, second)] == ["e\nb", "f\nb"]
    names = [tick.get_text() for tick in first.get_yticklabels()]
    assert names == [SAME_SCREEN, AS_IT_IS, *gains, MATCHED_PIXEL_SIZE]
    by_label = {line.get_label(): line for line in first.lines}
    values = by_label["mean over draws"].get_xdata()
    np.testing.assert_allclose(values, [80, 60, 75, 70, np.nan], atol=1e-9)
    reference = by_label["as it is, on the same crops"].get_xdata()
    np.testing.assert_allclose(reference, [np.nan, np.nan, 60, 60, np.nan], atol=1e-9)
    assert [text.get_text() for text in first.texts] == ["not tried"]


def test_score_histograms_add_up_to_all_crops_of_a_label(tmp_path, drawn):
    rng = np.random.default_rng(0)
    rows = [
        {"encoder": encoder, "screen": screen, "label": label, "score": score}
        for encoder in ("e", "f")
        for screen in ("a", "b")
        for label, count in (("normal", 30), ("abnormal", 50))
        for score in [*rng.random(count - 1), 1.0]
    ]
    plot_score_histograms(pd.DataFrame(rows), ["a", "b"], tmp_path / "scores.png")
    assert plt.imread(tmp_path / "scores.png").std() > 0.01
    axes = drawn[0].axes
    assert [axis.get_title() for axis in axes] == ["e\na", "e\nb", "f\na", "f\nb"]
    for axis in axes:
        assert [patch.get_hatch() for patch in axis.patches] == [None, "////"]
        for patch in axis.patches:
            corners = patch.get_xy()
            assert shoelace(corners) == pytest.approx(100 * 0.05), "bins are 0.05 wide"


def shoelace(corners: np.ndarray) -> float:
    """Return the area of a polygon."""
    x, y = corners.T
    return abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2


def write_features(path, crops, matrix):
    write_table(features_table(list(crops), matrix), path, features_schema(matrix.shape[1]))
    return path


@pytest.mark.parametrize("with_images", [True, False])
def test_the_script_writes_the_diagnosis_of_every_shift_screen(
    draws, tmp_path, monkeypatch, with_images
):
    from scripts.analyses import diagnose_shift

    own = labels_of("a")
    words = ["--source-features", write_features(tmp_path / "a", own["crop_id"], measured(own, 1))]
    words += [
        "--splits",
        draws[0],
        "--budgets",
        1000,
        BUDGET,
        10,
        "--draws",
        2,
        "--label-counts",
        5,
        500,
    ]
    features, labels, variants = [], [], []
    for place, screen in enumerate("bc"):
        there = labels_of(screen)
        name = f"{screen}.parquet"
        matrix = measured(there, 2 + place)
        features.append(write_features(tmp_path / "features" / name, there["crop_id"], matrix))
        labels.append(tmp_path / "labels" / name)
        write_table(there.drop(columns="group"), labels[-1], "labels")
        variants.append(tmp_path / "variants" / name)
        variants[-1].parent.mkdir(exist_ok=True)
        changed = {f"{PERMUTED_CHANNELS} 2-1": matrix[:, [1, 0, 2, 3]]}
        not_made = {MATCHED_PIXEL_SIZE: "not known"}
        write_variants(there["crop_id"].tolist(), changed, 4, not_made, variants[-1])
    words += ["--target-features", *features[::-1], "--target-labels", *labels]
    words += ["--variants", *variants] if with_images else []
    words += [
        "--group-by",
        "well",
        "--encoder",
        "e",
        "--seed",
        0,
        "--penalties",
        0.1,
        1,
        "--folds",
        3,
    ]
    words += ["--output", tmp_path / "out.parquet", "--record", tmp_path / "run.json"]
    monkeypatch.setattr(sys, "argv", [diagnose_shift.__file__, *map(str, words)])
    diagnose_shift.main()
    assert json.loads((tmp_path / "run.json").read_text())["parameters"]["budget"] == BUDGET
    table = pd.read_parquet(tmp_path / "out.parquet")
    assert table.columns.tolist() == DIAGNOSIS.columns.names
    assert set(table["screen"]) == {"b", "c"}
    assert mean_f1(table, AS_IT_IS) > 0.85
    reasons = table.groupby("condition")["reason"].first()
    assert reasons["500 target labels"] == "b has 120 normal labels; 250 are needed"
    if with_images:
        assert mean_f1(table, f"{PERMUTED_CHANNELS} 2-1") < 0.7
        assert reasons[MATCHED_PIXEL_SIZE] == "not known"
    else:
        assert "table of features" in reasons[PERMUTED_CHANNELS]


def test_draws_without_a_value_are_counted_as_none():
    table = made({STANDARDISED: 0.2})
    table.loc[table["condition"] == AS_IT_IS, "value"] = np.nan
    (sentence,) = causes(table, "a")
    assert sentence.startswith("e: 0 draws are too few")
