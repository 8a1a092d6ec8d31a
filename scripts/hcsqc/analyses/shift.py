"""Diagnosis of domain shift: what wins back the score that a probe loses on another screen.

A probe is trained on one screen and tested on another under conditions that each undo one
possible cause: the order of channels, the size of pixels, the mean and scale of features, or,
by a few labels of the other screen, what the features mean there.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pyarrow as pa

from hcsqc.analyses.shift_images import MATCHED_PIXEL_SIZE, PERMUTED_CHANNELS
from hcsqc.core.errors import InputError
from hcsqc.core.ids import screen_of
from hcsqc.core.schema import LABELS, TableSchema
from hcsqc.labels.splits import class_counts
from hcsqc.probes.draws import FEWEST_DRAWS
from hcsqc.probes.metrics import TABLE_METRICS, table_scores
from hcsqc.probes.task import ABNORMAL, FitScores, Task, select

SAME_SCREEN = "same screen"
AS_IT_IS = "as it is"
STANDARDISED = "standardised features"
TARGET_LABELS = "target labels"

CAUSES = {
    STANDARDISED: "a shift of feature means and scales",
    MATCHED_PIXEL_SIZE: "another pixel size",
    PERMUTED_CHANNELS: "another order of channels",
}
LABELS_CAUSE = (
    "features that mean something else there, which only labels of that screen can correct"
)
LEAST_LOSS = 0.01  # of F1; less is none
MOSTLY = 0.5  # share of the loss that a cause must win back to be named

DIAGNOSIS = TableSchema(
    ("encoder", "seed", "screen", "condition", "draw", "metric"),
    pa.schema(
        [
            pa.field("encoder", pa.string(), nullable=False),
            pa.field("seed", pa.int32(), nullable=False),
            pa.field("screen", pa.string(), nullable=False),
            pa.field("condition", pa.string(), nullable=False),
            pa.field("draw", pa.int32(), nullable=False),
            pa.field("metric", pa.string(), nullable=False),
            pa.field("value", pa.float64()),
            pa.field("reference", pa.float64()),
            pa.field("n_test", pa.int32(), nullable=False),
            pa.field("reason", pa.string()),
        ]
    ),
)
COLUMNS = DIAGNOSIS.columns.names[2:]

# crop_ids and their n x width features, as `read_features` returns them.
Features = tuple[pd.Index, np.ndarray]


def diagnose(
    source: Features,
    draws: Sequence[Task],
    target: Features,
    labels: pd.DataFrame,
    variants: Mapping[str, Features],
    not_made: Mapping[str, str],
    label_counts: Sequence[int],
    fit_scores: FitScores,
    seed: int,
) -> pd.DataFrame:
    """Return a row per condition, draw and metric: columns `COLUMNS`.

    `source` are features of the training screen, `draws` what is trained and tested on there;
    `target` are features of the other screen, `labels` its crop_id, label and group. Features of
    both hold all embedded crops, from which each screen is standardised, without labels. `variants`
    are features of the labelled target crops under changed images, `not_made` the reasons why
    other changes were not made. `label_counts` say how many target labels are added.

    `value` is the metric as a fraction of 1; `reference` that of the probe as it is on the very
    same `n_test` crops, null for the training screen's own. Where something could not be tried,
    both are null and `reason` says why. All metrics of all draws have a row.
    Raises InputError if there is no draw, the labels lack a class or a crop has no features.
    """
    if not draws:
        raise InputError(
            f"there is no draw to diagnose {_screen(labels)}; lower the budget, or label more "
            "crops of the training screen (screens.*.labels)"
        )
    for label in LABELS:
        if not (labels["label"] == label).any():
            raise InputError(
                f"there is no {label} label of {_screen(labels)} to test on; label crops of both "
                "classes (screens.*.labels)"
            )
    source_alone, target_alone = standardise(source), standardise(target)
    rows = []
    for task in draws:
        as_it_is, plain = _images(task, source, target, labels, variants, fit_scores)
        rows += as_it_is
        rows += _standardised(task, source_alone, target_alone, labels, plain, fit_scores)
        for count in label_counts:
            rng = np.random.default_rng([seed, task.draw])
            added = add_labels(labels, count, rng)
            rows += _with_labels(task, source, target, labels, count, added, plain, fit_scores)
        rows += [row for name, why in not_made.items() for row in _not_tried(name, task.draw, why)]
    of_images = sorted([*variants, *not_made], key=lambda name: name == MATCHED_PIXEL_SIZE)
    of_labels = [label_condition(count) for count in label_counts]
    places = [SAME_SCREEN, AS_IT_IS, *of_images, STANDARDISED, *of_labels]
    table = pd.DataFrame(rows).assign(screen=_screen(labels))[COLUMNS]
    return table.sort_values(
        "condition", key=lambda names: names.map(places.index), kind="stable", ignore_index=True
    )


def label_condition(count: int) -> str:
    """Return the name of the condition with `count` labels of the target."""
    return f"{count} {TARGET_LABELS}"


def standardise(features: Features) -> Features:
    """Return features minus their mean, over their standard deviation; a constant one is 0."""
    crops, matrix = features
    centred = matrix - matrix.mean(axis=0, dtype=np.float64)
    spread = matrix.std(axis=0, dtype=np.float64)
    # Rounding leaves a little spread in a constant feature, which would be blown up.
    constant = spread <= 1e-6 * np.abs(matrix).max(axis=0, initial=0.0)
    scaled = centred / np.where(constant, 1.0, spread)
    return crops, np.where(constant, 0.0, scaled).astype(np.float32)


def add_labels(
    labels: pd.DataFrame, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray] | str:
    """Return places in `labels` of `count` crops to train with and of those to test on, or why not.

    Groups come in random order, and each class takes its share, `class_counts`, from the first:
    labels of few wells, as they are made, so that the other groups are left to test on. No crop
    tests whose group trains. The same `rng` state gives the same order: counts nest.
    """
    groups = labels["group"].to_numpy(str)
    names = rng.permutation(np.unique(groups))
    turn = pd.Index(names).get_indexer(groups)
    shuffled = rng.permutation(len(labels))
    order = shuffled[np.argsort(turn[shuffled], kind="stable")]
    chosen = []
    for label, wanted in class_counts(count).items():
        places = order[labels["label"].to_numpy()[order] == label][:wanted]
        if len(places) < wanted:
            return f"{_screen(labels)} has {len(places)} {label} labels; {wanted} are needed"
        chosen.append(places)
    train = np.concatenate(chosen)
    test = np.flatnonzero(~np.isin(groups, groups[train]))
    for label in LABELS:
        if not (labels["label"].to_numpy()[test] == label).any():
            return (
                f"{_screen(labels)} has {len(names)} groups of labels, and those left to test on "
                f"have no {label} crop"
            )
    return train, test


def _images(task, source, target, labels, variants, fit_scores) -> tuple[list[dict], np.ndarray]:
    """Return the rows of one probe on both screens and all variants, and its target scores."""
    there = [select(*features, labels["crop_id"]) for features in (target, *variants.values())]
    own, plain, *changed = fit_scores(
        select(*source, task.train_crops),
        task.train_targets,
        task.train_groups,
        [select(*source, task.test["crop_id"]), *there],
    )
    targets = _targets(labels)
    rows = _tried(SAME_SCREEN, task.draw, _targets(task.test), own, None)
    for name, scores in zip((AS_IT_IS, *variants), (plain, *changed), strict=True):
        rows += _tried(name, task.draw, targets, scores, plain)
    return rows, plain


def _standardised(task, source, target, labels, plain, fit_scores) -> list[dict]:
    (scores,) = fit_scores(
        select(*source, task.train_crops),
        task.train_targets,
        task.train_groups,
        [select(*target, labels["crop_id"])],
    )
    return _tried(STANDARDISED, task.draw, _targets(labels), scores, plain)


def _with_labels(task, source, target, labels, count, added, plain, fit_scores) -> list[dict]:
    if isinstance(added, str):
        return _not_tried(label_condition(count), task.draw, added)
    train, test = added
    there, targets = select(*target, labels["crop_id"]), _targets(labels)
    (scores,) = fit_scores(
        np.concatenate([select(*source, task.train_crops), there[train]]),
        np.concatenate([task.train_targets, targets[train]]),
        np.concatenate([task.train_groups, labels["group"].to_numpy(object)[train]]),
        [there[test]],
    )
    return _tried(label_condition(count), task.draw, targets[test], scores, plain[test])


def _tried(condition, draw, targets, scores, plain) -> list[dict]:
    references = {} if plain is None else table_scores(targets, plain)
    return [
        {
            "condition": condition,
            "draw": draw,
            "metric": name,
            "value": value,
            "reference": references.get(name, np.nan),
            "n_test": len(targets),
            "reason": None,
        }
        for name, value in table_scores(targets, scores).items()
    ]


def _not_tried(condition, draw, reason) -> list[dict]:
    none = {"value": np.nan, "reference": np.nan, "n_test": 0, "reason": reason}
    return [{"condition": condition, "draw": draw, "metric": name} | none for name in TABLE_METRICS]


def _targets(labels: pd.DataFrame) -> np.ndarray:
    return (labels["label"] == ABNORMAL).to_numpy(np.int64)


def _screen(labels: pd.DataFrame) -> str:
    return screen_of(labels["crop_id"].iloc[0])


@dataclass(frozen=True)
class _Effect:
    """A difference of F1 over draws and seeds: mean, half the width of the central 95%, number."""

    mean: float
    spread: float
    draws: int

    @property
    def clear(self) -> bool:
        return self.mean > self.spread


def causes(table: pd.DataFrame, source: str) -> list[str]:
    """Return a sentence per encoder and shift screen of a `DIAGNOSIS` table: what caused the loss.

    `source` is the screen trained on. The loss is the F1 on the same screen less that on the other
    as it is, draw by draw; a condition wins back its value less its reference. Of the conditions
    without labels the one that wins back most, and half of the loss or more, is the cause; of the
    channel orders the best counts, which is an upper bound. If none does and the most target
    labels do, the cause is one that only labels mend.
    Undecided: a cause whose win does not exceed the spread over draws (half the width of their
    central 95%) or leads over another cause by less than that; less than 5 draws. A loss is none
    if it is less than a point or within its spread, which also holds the chance of the test crops:
    draws share many of them, and so vary less than other crops would.
    """
    rows = table[table["metric"] == "f1"].reset_index(drop=True)
    grouped = rows.groupby(["encoder", "screen"], sort=False)
    return [
        f"{encoder}: {_sentence(group, source, screen)}" for (encoder, screen), group in grouped
    ]


def _sentence(rows: pd.DataFrame, source: str, screen: str) -> str:
    by_draw = rows.pivot(index=["seed", "draw"], columns="condition", values="value")
    loss = _effect(by_draw[SAME_SCREEN] - by_draw[AS_IT_IS])
    loss = replace(loss, spread=float(np.hypot(loss.spread, _chance(rows))))
    if loss.draws < FEWEST_DRAWS:
        return (
            f"{loss.draws} draws are too few to say whether F1 drops from {source} "
            f"to {screen} or differs by chance: undecided."
        )
    if loss.mean < LEAST_LOSS or not loss.clear:
        return (
            f"no loss of F1 from {source} to {screen} beyond chance "
            f"({100 * loss.mean:.1f} points, spread {100 * loss.spread:.1f})."
        )
    gains = dict(_gains(rows))
    of_labels = [name for name in gains if name.endswith(TARGET_LABELS)]
    most_labels = max(of_labels, key=lambda name: int(name.split()[0]), default=None)
    words = [f"standardising features per screen wins back {_points(gains[STANDARDISED])}"]
    if MATCHED_PIXEL_SIZE in gains:
        words.append(f"matching the pixel size {_points(gains[MATCHED_PIXEL_SIZE])}")
    if most_labels:
        words.append(f"{most_labels} {_points(gains[most_labels])}")
    if PERMUTED_CHANNELS in gains:
        words.append(f"another channel order at most {_points(gains[PERMUTED_CHANNELS])}")
    verdict = _verdict(
        loss,
        {name: gains[name] for name in CAUSES if name in gains},
        gains.get(most_labels),
    )
    return (
        f"loses {round(100 * loss.mean)} points of F1 from {source} to {screen}; "
        f"{', '.join(words)}: {verdict}.{_left_out(rows, gains)}"
    )


def _gains(rows: pd.DataFrame) -> Iterator[tuple[str, _Effect]]:
    """Yield what each condition wins back; all orders of channels are one, by the best."""
    gain = (rows["value"] - rows["reference"]).dropna()
    found = {
        name: _effect(values)
        for name, values in gain.groupby(rows["condition"], sort=False)
        if name != AS_IT_IS
    }
    found = {name: effect for name, effect in found.items() if effect.draws >= FEWEST_DRAWS}
    orders = [effect for name, effect in found.items() if name.startswith(PERMUTED_CHANNELS)]
    if orders:
        yield PERMUTED_CHANNELS, max(orders, key=lambda effect: effect.mean)
    yield from ((k, v) for k, v in found.items() if not k.startswith(PERMUTED_CHANNELS))


def _verdict(loss: _Effect, tried: Mapping[str, _Effect], labels: _Effect | None) -> str:
    enough = MOSTLY * loss.mean
    best, most = max(tried.items(), key=lambda item: item[1].mean)
    if most.mean >= enough:
        if not most.clear:
            return f"undecided, because what speaks for {CAUSES[best]} is within the spread"
        for name, other in tried.items():
            lead = most.mean - other.mean
            if name != best and other.mean >= enough and lead <= max(most.spread, other.spread):
                return f"undecided between {CAUSES[best]} and {CAUSES[name]}"
        return f"the loss is mostly {CAUSES[best]}"
    if labels and labels.mean >= enough:
        if not labels.clear:
            return "undecided, because what labels win back is within the spread"
        return f"the loss is mostly due to {LABELS_CAUSE}"
    return "undecided, because nothing that was tried wins back half of it"


def _left_out(rows: pd.DataFrame, gains: Mapping[str, _Effect]) -> str:
    missing = rows[rows["reason"].notna()].drop_duplicates("condition")
    reasons = [
        f"{condition} ({reason})"
        for condition, reason in zip(missing["condition"], missing["reason"], strict=True)
        if condition not in gains
    ]
    return f" Not tried: {'; '.join(reasons)}." if reasons else ""


def _effect(values: pd.Series) -> _Effect:
    values = values.dropna()
    if values.empty:
        return _Effect(0.0, 0.0, 0)
    low, high = values.quantile([0.025, 0.975])
    return _Effect(float(values.mean()), float(high - low) / 2, len(values))


def _chance(rows: pd.DataFrame) -> float:
    """Return half the width of the 95% interval of the loss, were F1 a share of test crops.

    By Agresti and Coull (1998), with two crops more of either kind, because a share of 1 is not
    free of chance.
    """
    tested = rows[rows["condition"].isin([SAME_SCREEN, AS_IT_IS])].groupby("condition")
    count = tested["n_test"].mean() + 4
    share = (tested["value"].mean() * (count - 4) + 2) / count
    return 1.96 * float(np.sqrt((share * (1 - share) / count).sum()))


def _points(effect: _Effect) -> int:
    """Return what is won back in points, whole; nothing if more is lost."""
    return max(0, round(100 * effect.mean))
