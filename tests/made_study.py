"""A study with figures made up: its scores, tables and costs, for tests."""

import copy
import json
from collections.abc import Collection
from functools import cache
from itertools import product
from pathlib import Path

import pandas as pd
import yaml

from hcsqc.analyses.contrasts import PairedScores
from hcsqc.core.config import probe_budgets, probe_draws
from hcsqc.probes.metrics import TABLE_METRICS
from hcsqc.report.audit import COST_COLUMNS
from hcsqc.report.tables import make_tables

ROOT = Path(__file__).resolve().parent.parent
CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text())
CONFIG["study"]["probes"].remove("finetune")  # ours, of the same kind as the paper's
# Clearly apart in the order of the paper's claims: transfer, then the methods.
MEANS = {
    "vgg16": 0.97,
    "resnet18": 0.96,
    "convnext": 0.95,
    "simclr": 0.88,
    "deepcluster_v2": 0.90,
    "swav": 0.85,
    "barlow_twins": 0.80,
    "vicreg": 0.70,
    "random_resnet18": 0.60,
}


def study(**changes) -> dict:
    config = copy.deepcopy(CONFIG)
    config["study"] |= {"encoders": list(MEANS), "draws": 5, "name": "mine"} | changes
    return config


def scores(config: dict) -> pd.DataFrame:
    """Return scores of a study, of all probes: each encoder's mean, spread over draws."""
    rows = []
    for encoder in config["study"]["encoders"]:
        for probe in config["study"]["probes"]:
            for budget in probe_budgets(config, probe):
                for screen in [config["study"]["train"], *config["study"]["test"]]:
                    for metric in TABLE_METRICS:
                        for draw in range(5):
                            value = MEANS[encoder] + (draw - 2) / 100
                            row = (encoder, 0, probe, budget, draw, screen, metric, value, 130)
                            rows.append(row)
    names = ["encoder", "seed", "probe", "budget", "draw", "screen", "metric", "value", "n_test"]
    return pd.DataFrame(rows, columns=names)


def tables(config: dict, enough_draws: bool = True) -> dict[int, pd.DataFrame]:
    """Return a study's tables; every figure's interval reaches 2 points to either side or so."""
    return _tables(json.dumps(config), enough_draws)


@cache
def _tables(saved: str, enough_draws: bool) -> dict[int, pd.DataFrame]:
    config = json.loads(saved)
    scored = scores(config) if enough_draws else scores(config).query("draw < 2")
    keys = ["encoder", "seed", "probe", "budget", "screen", "metric"]
    means = scored.groupby(keys, as_index=False)["value"].mean()
    parts = [
        means.assign(value=means["value"] + offset / 1000, replicate=replicate, n_groups=32)
        for replicate, offset in enumerate(range(-20, 21))
    ]
    return make_tables(scored, pd.concat(parts, ignore_index=True), config)


def paired_tables(
    config: dict,
    means=lambda encoder, **cell: MEANS[encoder],
    drop=lambda encoder: 0.1,
    unsure: Collection[str] = (),
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return F1 scores and those without a group, in six groups and at most five draws.

    An encoder loses `drop` from the largest budget to the smallest; the draws of those that are
    `unsure` lie 40 points to either side.
    """
    rows = []
    for probe, encoder in product(config["study"]["probes"], config["study"]["encoders"]):
        budgets = probe_budgets(config, probe)
        for budget in budgets:
            lost = drop(encoder) * (max(budgets) - budget) / max(max(budgets) - min(budgets), 1)
            for screen in [config["study"]["train"], *config["study"]["test"]]:
                mean = means(encoder, probe=probe, budget=budget, screen=screen) - lost
                for draw in range(min(5, probe_draws(config, probe))):
                    value = mean + (0.4 * (-1) ** draw if encoder in unsure else 0)
                    row = (encoder, 0, probe, budget, draw, screen, "f1", value, 130)
                    rows.append(row)
    names = ["encoder", "seed", "probe", "budget", "draw", "screen", "metric", "value", "n_test"]
    made = pd.DataFrame(rows, columns=names)
    groups = pd.DataFrame({"group": [f"p/B{place:02d}" for place in range(2, 8)]})
    return made, made.drop(columns="n_test").merge(groups, how="cross")


def paired(config: dict, *given, **changes) -> PairedScores:
    """Return `paired_tables` as `PairedScores`, of draws that share no training labels."""
    return PairedScores(*paired_tables(config, *given, **changes), {})


def costs(config: dict) -> pd.DataFrame:
    rows = [
        (encoder, probe, budget, 12.34, "cpu")
        for encoder in config["study"]["encoders"]
        for probe in config["study"]["probes"]
        for budget in probe_budgets(config, probe)
    ]
    return pd.DataFrame(rows, columns=COST_COLUMNS)
