"""How many labels of the wrong class are among the first that held-out models contradict.

    python -m benchmarks.flipped_labels results/demo sim022 w4,w5,w1 \\
        results/bbbc022_labelled bbbc022 w4,w5,w1

Each screen is given by its study's folder, its name and its composite.

Of the labels of a finished study's screen, on the features that its detector sees, a share is put
into the other class, by seed. The models are fitted to these labels, and the labels are ranked as
`snakemake suspicious_labels` ranks them.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from hcsqc.core.errors import InputError
from hcsqc.crops.shards import Shards
from hcsqc.features.extract import extract_features
from hcsqc.labels.groups import WELL
from hcsqc.probes.frozen.logistic import LogisticSettings
from hcsqc.qc.detector import load_detector, standardised
from hcsqc.qc.fitting import study_labels
from hcsqc.qc.label_page.suspicious import SHARE, held_out_scores, ranked

FLIPPED = 0.05  # of the labels
SETTINGS = LogisticSettings(penalties=(0.001, 0.01, 0.1), folds=3)
LOST = 0.05


def main() -> None:
    """Read the flags, flip labels, and print a row per seed and the means of each screen."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "screens", nargs="+", help="folder of a study's results, screen, composite; ..."
    )
    parser.add_argument("--seeds", type=int, default=10)
    args = parser.parse_args()
    if len(args.screens) % 3:
        parser.error("give a folder, a screen and its composite (w4,w5,w1) for each screen")
    torch.set_num_threads(1)
    for study, screen, composite in zip(*(args.screens[i::3] for i in range(3)), strict=True):
        labels, features = labels_and_features(Path(study), screen, composite.split(","))
        rows = pd.DataFrame([found(labels, features, seed) for seed in range(args.seeds)])
        print(screen, f"{len(labels)} labels")
        print(rows.to_string())
        total = rows.sum()
        print(
            f"first {SHARE:.0%} hold {rows['share'].mean():.1%} of the flipped labels "
            f"({rows['share'].min():.1%} to {rows['share'].max():.1%}); "
            f"{total['abnormal_found']:.0f} of {total['abnormal']:.0f} that were abnormal, "
            f"{total['normal_found']:.0f} of {total['normal']:.0f} that were normal",
            flush=True,
        )


def labels_and_features(
    study: Path, screen: str, composite: list[str]
) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the labels of a screen, and their features as the study's detector sees them.

    Raises InputError if the detector has not learned from that composite.
    """
    tables = [study / f"labels/{screen}{ending}.parquet" for ending in ("", ".random")]
    labels = study_labels(*tables, WELL)
    shards = Shards(
        sorted(p for p in (study / "crops" / screen).glob("*.parquet") if p.name.count(".") == 1)
    )
    detector = load_detector(study / "qc/detector")
    if composite not in detector.about["composites"]:
        known = "; ".join(",".join(one) for one in detector.about["composites"])
        raise InputError(f"{study}: its detector has no composite {','.join(composite)}: {known}")
    rows = shards.rows_of(labels["crop_id"])
    how = composite, rows, 64, "float32", screen
    features, _ = extract_features(detector.encoder, shards, *how)
    return labels, standardised(features, detector.reference)


def found(labels: pd.DataFrame, features: np.ndarray, seed: int) -> dict[str, float]:
    """Return which share of labels that a seed flips is among the first, and how many by class."""
    count = round(FLIPPED * len(labels))
    rows = np.random.default_rng(seed).choice(len(labels), count, replace=False)
    label, artefact = labels["label"].to_numpy(object), labels["artefact"].to_numpy(object)
    was_abnormal = label[rows] == "abnormal"
    label[rows] = np.where(was_abnormal, "normal", "abnormal")
    artefact[rows] = None
    wrong = labels.assign(label=label, artefact=artefact)
    table = ranked(wrong, held_out_scores(wrong, features, SETTINGS, LOST))
    first = table["crop_id"].head(int(np.ceil(SHARE * len(table))))
    seen = labels["crop_id"].iloc[rows].isin(first).to_numpy()
    return {
        "share": seen.mean(),
        "abnormal": was_abnormal.sum(),
        "abnormal_found": seen[was_abnormal].sum(),
        "normal": (~was_abnormal).sum(),
        "normal_found": seen[~was_abnormal].sum(),
    }


if __name__ == "__main__":
    main()
