"""A detector: an encoder, a logistic classifier on its features, and what they were made from.

The classifier is the converged logistic regression of the study (`probes.logistic`), because it
needs no seed, is a handful of numbers, and gives probabilities: the mean of ten, each fitted
without a tenth of the wells. Others, fitted to the abnormal labels, name the most likely artefact.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import load_file, save_file

from hcsqc.core.errors import Damaged, InputError
from hcsqc.core.files import (
    atomic,
    check_sha256,
    read_checked_json,
    sha256,
    write_checked_json,
)
from hcsqc.encoders.store import Encoder, load_encoder, save_encoder
from hcsqc.labels.folds import held_out_fold
from hcsqc.probes.frozen.logistic import (
    FittedLogistic,
    LogisticSettings,
    fit_logistic,
    least_loss,
    mean_of_models,
)
from hcsqc.probes.task import ABNORMAL
from hcsqc.qc.detector_files import ABOUT, CLASSIFIER, ENCODER

HELD_OUT_FOLDS = 10
FEWEST_PER_ARTEFACT = 3  # labels of an artefact, for the detector to name it
FEWEST_PER_KIND = 8  # labels of an artefact, for a classifier of its own
CLIP_SDS = 3.0  # from the mean on real crops: a feature that is further counts as so far
GAIN = 0.01  # of recall, that one classifier per kind is worth its many numbers
QUANTILES = np.linspace(0, 1, 101)
REFERENCE = ("feature_mean", "feature_sd", "clip_sds", "score_quantiles")
CLASSIFIER_DIGEST = "classifier_sha256"
LARGEST_SETTING = 1e9  # in somebody else's detector.json
SINGLE, BY_KIND = "logistic", "logistic by kind"


@dataclass(frozen=True)
class AnyKind:
    """Abnormal is what is any of several kinds, each with a classifier of its own.

    One linear classifier of opposite kinds cancels itself: blur takes away what noise adds.
    """

    kinds: dict[str, FittedLogistic]

    def scores(self, matrix: np.ndarray) -> np.ndarray:
        """Return the probability that a crop is not free of every kind, as if they were apart."""
        none = np.ones(len(matrix))
        for model in self.kinds.values():
            none *= 1 - model.scores(matrix)
        return 1 - none


@dataclass(frozen=True)
class DetectorFit:
    """What `fit_detector` found.

    `held_out` are the labels' scores by models that saw none of their wells, nan where there are
    none; `recalls` what each kind of classifier found of the abnormal labels so, or None.
    """

    classifier: FittedLogistic | AnyKind
    kind: str
    penalty: float
    artefacts: dict[str, FittedLogistic]
    held_out: np.ndarray
    recalls: dict[str, float | None]


@dataclass(frozen=True)
class Scaling:
    """How grey levels became those of the crops (`hcsqc.screens.scale`)."""

    scale_background: float
    scale_cells: float
    scale_knee: float


@dataclass(frozen=True)
class Detector:
    """What scores a crop: `classifier` separates abnormal from normal, `artefacts` the kinds.

    `reference` holds mean and standard deviation of each feature, and 101 quantiles of the score,
    over random crops of the screen it was trained on, and how many standard deviations from the
    mean features are clipped at; `about` is `detector.json`.
    """

    encoder: Encoder
    classifier: FittedLogistic | AnyKind
    artefacts: dict[str, FittedLogistic]
    reference: dict[str, np.ndarray]
    about: dict

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Return the probability of abnormal for each row of n x width features."""
        return self.classifier.scores(standardised(features, self.reference))

    def artefacts_of(self, features: np.ndarray) -> np.ndarray:
        """Return the most likely artefact of each row of n x width features; None if unknown."""
        features = standardised(features, self.reference)
        names = list(self.artefacts)
        if not names:
            return np.full(len(features), None, object)
        scores = np.stack([one.scores(features) for one in self.artefacts.values()], axis=1)
        return np.array(names, object)[scores.argmax(axis=1)]


def fit_detector(
    labels: pd.DataFrame, features: np.ndarray, settings: LogisticSettings, good_cells_lost: float
) -> DetectorFit:
    """Fit the classifiers, and score each label by models that saw none of its well.

    `labels` are rows of the `labels` table with their `group`, which stands for the well here (see
    `labels.groups`); `features` their n x width features, `standardised`.
    The C is chosen on all labels. With it a model is fitted without each tenth of the wells
    (without each well, of fewer than ten), which it then scores, and the detector is the mean of
    these models. It varies less than each, and in simulations no more good cells lie above a
    threshold than the held-out scores show. One model fitted to all labels has scored none of them,
    and with many more features than labels it flagged more. It is the detector only where there are
    too few wells for two of the others, and all scores are then NaN. A score is also NaN where the
    labels of the other wells are of one class.

    Where the labels name kinds of artefacts, one classifier per kind is fitted in the same way, all
    with one C. They are kept if their held-out recall at `good_cells_lost` is higher. Classifiers
    that name the artefact have the C of those that are kept. Raises InputError if all labels are of
    one class.
    """
    found = _fit_classifier(labels, features, settings, good_cells_lost)
    return replace(found, artefacts=_fit_artefacts(labels, features, found.penalty))


def _fit_classifier(labels, features, settings, good_cells_lost) -> DetectorFit:
    """Return the fit without classifiers of artefacts."""
    targets = (labels["label"] == ABNORMAL).to_numpy(np.int64)
    wells = labels["group"].to_numpy(str)  # or what else is independent
    if len(np.unique(targets)) < 2:
        raise InputError(
            f"all {len(labels)} labels are {labels['label'].iloc[0]}; a detector needs normal and "
            "abnormal ones, label crops of the other class"
        )
    fold = _well_folds(targets, wells)
    every = np.ones(len(targets), bool)
    penalty = _common_penalty([(targets, every)], features, wells, settings)
    single = _cross_fitted(targets, every, features, wells, fold, penalty)
    recall = _recall(single.held_out, targets, good_cells_lost)
    recalls = {SINGLE: recall}
    found = DetectorFit(single.model, SINGLE, penalty, {}, single.held_out, recalls)
    kinds = _kinds(labels)
    if len(kinds) < 2 or recall is None:
        return found
    problems = {
        name: ((kind & (targets == 1)).astype(np.int64), kind | (targets == 0))
        for name, kind in kinds.items()
    }
    penalty = _common_penalty(list(problems.values()), features, wells, settings)
    parts = {
        name: _cross_fitted(*problem, features, wells, fold, penalty)
        for name, problem in problems.items()
    }
    held_out = 1 - np.prod([1 - part.held_out for part in parts.values()], axis=0)
    if (np.isnan(held_out) != np.isnan(single.held_out)).any():
        return found  # a kind lies in too few wells to be held out
    by_kind = recalls[BY_KIND] = _recall(held_out, targets, good_cells_lost)
    if by_kind is None or by_kind < recall + GAIN:
        return found
    models = AnyKind({name: part.model for name, part in parts.items()})
    return replace(found, classifier=models, kind=BY_KIND, penalty=penalty, held_out=held_out)


@dataclass(frozen=True)
class _CrossFitted:
    model: FittedLogistic
    held_out: np.ndarray


def _common_penalty(problems, features, wells, settings) -> float:
    """Return the C of the least log loss over all problems, each targets and which rows are used.

    Kinds with a C each are not sharp alike, and of their scores taken together the blunt ones rule.
    """
    trials = [
        fit_logistic(
            features[used], targets[used], wells[used], settings, seed=0, standardised=True
        ).trials
        for targets, used in problems
    ]
    # Where there are too few labels for folds, no loss is known.
    carried = [one for one in trials if None not in one.values()] or trials[:1]
    return least_loss({c: _sum([one[c] for one in carried]) for c in trials[0]})


def _sum(losses: list[float | None]) -> float | None:
    known = [loss for loss in losses if loss is not None]
    return sum(known) if len(known) == len(losses) else None


def _cross_fitted(targets, used, features, wells, fold, penalty) -> _CrossFitted:
    """Return the mean of models without a fold each, and the rows' scores by those.

    Only rows that are `used` are fitted to; `fold` is the number of each row's fold, or None.
    """
    alike = LogisticSettings((penalty,), folds=1)  # nothing left to choose
    held_out, models = np.full(len(targets), np.nan), []
    for number in range(0 if fold is None else fold.max() + 1):
        held = fold == number
        rest = used & ~held
        if held.any() and len(set(targets[rest])) == 2:
            model = fit_logistic(
                features[rest], targets[rest], wells[rest], alike, seed=0, standardised=True
            )
            held_out[held] = model.scores(features[held])
            models.append(model)
    if len(models) < 2:  # some labels would be in none
        whole = fit_logistic(
            features[used], targets[used], wells[used], alike, seed=0, standardised=True
        )
        return _CrossFitted(whole, np.full(len(targets), np.nan))
    return _CrossFitted(mean_of_models(models), held_out)


def _well_folds(targets: np.ndarray, wells: np.ndarray) -> np.ndarray | None:
    """Return the number of each label's fold, which its well shares; None of a single well."""
    folds = min(HELD_OUT_FOLDS, len(np.unique(wells)))
    return None if folds < 2 else held_out_fold(targets, wells, folds, seed=0)


def _kinds(labels: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return which labels are of each kind; those of rare or unnamed ones are a kind together."""
    abnormal = labels["label"] == ABNORMAL
    names = labels["artefact"].where(abnormal)
    counts = names.value_counts()
    common = sorted(counts.index[counts >= FEWEST_PER_KIND])
    kinds = {name: (names == name).to_numpy() for name in common}
    rest = (abnormal & ~names.isin(common)).to_numpy()
    if rest.sum() >= FEWEST_PER_KIND or not kinds:
        kinds["other"] = rest | kinds.get("other", False)
    elif rest.any():  # too few for a classifier of their own; they are of every kind
        kinds = {name: kind | rest for name, kind in kinds.items()}
    return kinds


def _recall(scores: np.ndarray, targets: np.ndarray, good_cells_lost: float) -> float | None:
    """Return the share of abnormal labels above what that share of the normal ones lies above."""
    known = ~np.isnan(scores)
    normal, abnormal = scores[known & (targets == 0)], scores[known & (targets == 1)]
    if not len(normal) or not len(abnormal):
        return None
    value = np.quantile(normal, 1 - good_cells_lost, method="higher")
    return float((abnormal > value).mean())


def _fit_artefacts(labels, features, penalty) -> dict[str, FittedLogistic]:
    """Fit each artefact against all others; one that is alone needs no telling apart."""
    named = labels["artefact"].notna().to_numpy()
    counts = labels["artefact"][named].value_counts()
    names = sorted(counts.index[counts >= FEWEST_PER_ARTEFACT])
    if len(names) == 1:
        return {names[0]: _constant(features.shape[1])}
    alike = LogisticSettings((penalty,), folds=1)
    wells = labels["group"].to_numpy()[named]  # of no use without folds
    return {
        name: fit_logistic(
            features[named],
            (labels["artefact"][named] == name).to_numpy(np.int64),
            wells,
            alike,
            seed=0,
            standardised=True,
        )
        for name in names
        if (labels["artefact"][named] != name).any()
    }


def _constant(width: int) -> FittedLogistic:
    return FittedLogistic(1.0, {}, np.zeros(width), np.ones(width), np.zeros(width), 0.0)


def reference_of(features: np.ndarray) -> dict[str, np.ndarray]:
    """Return what n x width features of real crops are like, to standardise and to see drift."""
    return {
        "feature_mean": features.mean(axis=0, dtype=np.float64),
        "feature_sd": features.std(axis=0, dtype=np.float64),
        "clip_sds": np.array(CLIP_SDS),
    }


def standardised(features: np.ndarray, reference: dict[str, np.ndarray]) -> np.ndarray:
    """Return n x width features in standard deviations of real crops, at most `clip_sds` of them.

    By the deviation of labels, half of them abnormal, a feature that artefacts move far would
    shrink. What is far beyond all that was learned from must not decide alone: simulated artefacts
    differ from real ones, and the next plate from this one.
    """
    spread = np.where(reference["feature_sd"] > 0, reference["feature_sd"], 1)
    reach = reference["clip_sds"]
    return np.clip((features - reference["feature_mean"]) / spread, -reach, reach)


def save_detector(detector: Detector, folder: Path) -> None:
    """Write encoder, numbers and `detector.json` into a folder."""
    save_encoder(detector.encoder, folder / ENCODER)
    numbers = dict(detector.reference)
    classifier = detector.classifier
    kinds = classifier.kinds if isinstance(classifier, AnyKind) else {}
    models = {f"kind.{name}": model for name, model in kinds.items()} | detector.artefacts
    if isinstance(classifier, FittedLogistic):
        models["abnormal"] = classifier
    for name, fitted in models.items():
        numbers |= {
            f"{name}.centre": fitted.centre,
            f"{name}.scale": fitted.scale,
            f"{name}.weight": fitted.weight,
            f"{name}.intercept": np.array([fitted.intercept, fitted.penalty]),
        }
    with atomic(folder / CLASSIFIER) as temporary:
        save_file({name: np.ascontiguousarray(value) for name, value in numbers.items()}, temporary)
    names = {"artefacts": list(detector.artefacts), "kinds": list(kinds)}
    digest = {CLASSIFIER_DIGEST: sha256(folder / CLASSIFIER)}
    write_checked_json(detector.about | names | digest, folder / ABOUT)


def load_detector(folder: Path) -> Detector:
    """Read a detector that `save_detector` wrote; raises InputError if it cannot."""
    encoder = load_encoder(folder / ENCODER)
    try:
        about = read_checked_json(folder / ABOUT)
        if digest := about.pop(CLASSIFIER_DIGEST, None):  # it is younger than the folder's form
            check_sha256(folder / CLASSIFIER, digest, folder / ABOUT)
        numbers = load_file(folder / CLASSIFIER)
        artefacts = {name: _fitted(numbers, name) for name in about["artefacts"]}
        kinds = {name: _fitted(numbers, f"kind.{name}") for name in about.get("kinds", [])}
        classifier = AnyKind(kinds) if kinds else _fitted(numbers, "abnormal")
        reference = {name: numbers[name] for name in REFERENCE}
        _check_numbers(numbers)
    except Damaged:
        raise
    except Exception as error:  # safetensors raises its own, unexported kinds
        raise InputError(
            f"{folder}: cannot be read as a detector ({error}); name the folder qc/detector of a "
            "study that has one, or fit it again with this version (snakemake qc in its study)"
        ) from error
    return Detector(encoder, classifier, artefacts, reference, about)


def _check_numbers(numbers: dict[str, np.ndarray]) -> None:
    """Raise ValueError for numbers that no detector has."""
    width = numbers["feature_mean"].size
    shapes: dict[str, tuple[int, ...]] = {"clip_sds": (1,), "score_quantiles": QUANTILES.shape}
    for name, value in numbers.items():
        expected = (2,) if name.endswith(".intercept") else shapes.get(name, (width,))
        if value.shape != expected or not np.isfinite(value.astype(np.float64)).all():
            raise ValueError(f"{name} does not consist of {expected} finite numbers")


def _check_about(about: dict) -> None:
    """Raise InputError for what `check_screen` could not compare."""
    composites, scaling = about.get("composites"), about.get("scaling", {})
    roles = about.get("composite_roles", [])
    numbers: list[Any] = [about.get("window_px"), about.get("window_um")]
    if isinstance(scaling, dict):
        numbers += [scaling.get(field.name) for field in fields(Scaling)] if scaling else []
    is_whole = (
        isinstance(composites, list)
        and all(isinstance(one, list) for one in composites)
        and isinstance(roles, list)
        and all(isinstance(name, str) for one in [*composites, roles] for name in one)
        and isinstance(scaling, dict)
        and all(type(one) in (int, float) and abs(one) < LARGEST_SETTING for one in numbers)
    )
    if not is_whole:
        raise InputError(
            f"{ABOUT}: its composites, window_px, window_um or scaling are not those of a "
            "detector; copy the folder again, or fit it again (snakemake qc in its study)"
        )


def _fitted(numbers: dict[str, np.ndarray], name: str) -> FittedLogistic:
    centre, scale, weight = (numbers[f"{name}.{part}"] for part in ("centre", "scale", "weight"))
    intercept, penalty = numbers[f"{name}.intercept"].tolist()
    return FittedLogistic(penalty, {}, centre, scale, weight, intercept)


def check_screen(
    about: dict,
    screen: str,
    composite: Sequence[str],
    window_px: int,
    window_um: float,
    scaling: Scaling,
    shown: Mapping[str, str] | None = None,
) -> None:
    """Raise InputError if a detector was not made for such crops.

    It is for the composites of its own study's screens alone: other channels show other things.
    Channels of other names do if they show the same as those of its training screen, in the same
    order; `shown` is what each channel of the screen shows.
    `window_um` is 0 where crops are not resampled to one size.
    """
    _check_about(about)
    roles = [(shown or {}).get(name, "other") for name in composite]
    alike = "other" not in roles and roles == about.get("composite_roles")
    if list(composite) not in about["composites"] and not alike:
        known = "; ".join(", ".join(one) for one in about["composites"])
        raise InputError(
            f"screen {screen}: its composite is {', '.join(composite)}, but the detector was "
            f"trained on {known}; give the same channels in that order, say in channel_roles that "
            "they show the same, or train another detector"
        )
    if window_px != about["window_px"]:
        raise InputError(
            f"screen {screen}: crops of {window_px} px, but the detector was trained on "
            f"{about['window_px']} px; set crops.window_px: {about['window_px']}"
        )
    if window_um != about["window_um"]:
        told = [f"{value:g}" if value else "null" for value in (window_um, about["window_um"])]
        raise InputError(
            f"screen {screen}: crops.window_um is {told[0]}, but the detector was trained with "
            f"{told[1]}; set the same value"
        )
    if not about.get("scaling"):
        raise InputError(
            f"screen {screen}: the detector is of an older version, which scaled crops by "
            "percentiles that move with the share of artefacts; fit it again (snakemake qc in its "
            "study)"
        )
    for name, value in asdict(scaling).items():
        if value != about["scaling"][name]:
            raise InputError(
                f"screen {screen}: crops.{name} is {value:g}, but the detector was trained with "
                f"{about['scaling'][name]:g}; set the same value"
            )
