"""A study with figures made up: its scores, tables, comparisons, drops and costs, for tests."""

import copy
import json
from functools import cache
from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from hcsqc.core.config import probe_budgets
from hcsqc.probes.metrics import TABLE_METRICS
from hcsqc.report.audit import COST_COLUMNS
from hcsqc.report.paper_claims import DROP_COLUMNS, RANKING_COLUMNS
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
        means.assign(value=means["value"] + offset / 1000, replicate=replicate, n_wells=32)
        for replicate, offset in enumerate(range(-20, 21))
    ]
    return make_tables(scored, pd.concat(parts, ignore_index=True), config)


def ranking(config: dict, means=lambda encoder, **cell: MEANS[encoder], p=0.001) -> pd.DataFrame:
    """Return all comparisons of a study, each with the same p."""
    rows = []
    for probe in config["study"]["probes"]:
        for budget in probe_budgets(config, probe):
            for screen in [config["study"]["train"], *config["study"]["test"]]:
                cell = {"probe": probe, "budget": budget, "screen": screen}
                for encoder, other in permutations(config["study"]["encoders"], 2):
                    difference = means(encoder, **cell) - means(other, **cell)
                    rows.append(
                        {
                            **cell,
                            "metric": "f1",
                            "encoder": encoder,
                            "other": other,
                            "difference": difference,
                            "low": difference - 0.001,
                            "high": difference + 0.001,
                            "p": p,
                        }
                    )
    return pd.DataFrame(rows, columns=RANKING_COLUMNS)


def drops(config: dict, low: float = 0.05, high: float = 0.15, **own) -> pd.DataFrame:
    """Return the drop of each encoder and probe, with one interval but for those named."""
    rows = []
    for probe in config["study"]["probes"]:
        budgets = probe_budgets(config, probe)
        if len(budgets) < 2:
            continue
        for encoder in config["study"]["encoders"]:
            bounds = own.get(encoder, (low, high))
            rows.append(
                (encoder, probe, min(budgets), max(budgets), float(np.mean(bounds)), *bounds)
            )
    return pd.DataFrame(rows, columns=DROP_COLUMNS)


def costs(config: dict) -> pd.DataFrame:
    rows = [
        (encoder, probe, budget, 12.34, "cpu")
        for encoder in config["study"]["encoders"]
        for probe in config["study"]["probes"]
        for budget in probe_budgets(config, probe)
    ]
    return pd.DataFrame(rows, columns=COST_COLUMNS)
