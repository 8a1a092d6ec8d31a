"""A line search over pretraining: which trial to go on with, judged without any label."""

from collections.abc import Mapping, Sequence

from hcsqc.errors import InputError

# RankMe of the trained encoder's features (Garrido et al. 2023): the larger, the better a linear
# probe does. It sees crops of the pretraining plates, no label and no evaluation well.
CRITERION = "feature_rank"
SEARCHED = ("learning_rate", "weight_decay")


def choose_trial(records: Sequence[Mapping]) -> dict[str, object]:
    """Return the criterion, every trial and the settings chosen, from the trials' records.

    The trial with the highest criterion is chosen, of equals the first; one that has collapsed
    never is. Raises InputError if all have.
    """
    trials = [
        {name: record["parameters"][name] for name in SEARCHED}
        | {name: record["metrics"][name] for name in (CRITERION, "feature_std", "loss")}
        | {"collapsed": bool(record["metrics"]["collapsed"])}
        for record in records
    ]
    sound = [trial for trial in trials if not trial["collapsed"]]
    if not sound:
        raise InputError(
            f"search: all {len(trials)} trials have collapsed: their features hardly differ "
            "between crops; search lower learning rates or train each trial on more crops"
        )
    best = max(sound, key=lambda trial: trial[CRITERION])
    chosen = {name: best[name] for name in SEARCHED}
    return {"criterion": CRITERION, "trials": trials, "chosen": chosen}
