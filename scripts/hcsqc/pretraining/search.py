"""A line search over pretraining: which trial to go on with, judged without any label."""

from collections.abc import Mapping, Sequence

from hcsqc.core.errors import InputError

# RankMe of the trained encoder's features: Garrido et al. 2023 found, on photographs, that linear
# probes do better the larger it is. It sees crops of the pretraining plates, no label and no
# evaluation well.
CRITERION = "feature_rank"
SEARCHED = ("learning_rate", "weight_decay")
BUDGET = ("epochs", "crops", "seed")


def choose_trial(records: Sequence[Mapping]) -> dict[str, object]:
    """Return the criterion, every trial and the settings chosen, from the trials' records.

    The trial with the highest criterion is chosen, of equals the first; one that has diverged or
    collapsed never is. Raises InputError if all have.
    """
    trials = [
        {name: record["parameters"][name] for name in (*SEARCHED, *BUDGET)}
        | {name: record["metrics"].get(name) for name in (CRITERION, "feature_std", "loss")}
        | {name: bool(record["metrics"][name]) for name in ("collapsed", "diverged")}
        for record in records
    ]
    sound = [trial for trial in trials if not trial["collapsed"] and trial[CRITERION] is not None]
    if not sound:
        raise InputError(
            f"search: all {len(trials)} trials have diverged or collapsed (their features hardly "
            "differ between crops); search lower learning rates or train each on more crops"
        )
    best = max(sound, key=lambda trial: trial[CRITERION])
    chosen = {name: best[name] for name in SEARCHED}
    return {"criterion": CRITERION, "trials": trials, "chosen": chosen}
