"""Make the detector of a study: the best encoder and a logistic classifier made from all labels."""

from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from hcsqc.core import cli
from hcsqc.core.errors import InputError
from hcsqc.core.files import sha256
from hcsqc.core.schema import read_table, write_table
from hcsqc.crops.shards import Shards
from hcsqc.encoders.store import load_encoder
from hcsqc.features.extract import extract_features
from hcsqc.probes.logistic import LogisticSettings
from hcsqc.qc.detector import Detector, fit_detector, reference_of, save_detector
from hcsqc.qc.detector_files import ABOUT, HELD_OUT
from hcsqc.qc.model import PACKAGES, save_model

BEST = "best"
EXAMPLE_CROPS = 4
CROP_ID_SLASHES = 4  # screen/plate/well/s1/x0123y0456, and a copy's has one more


def main() -> None:
    """Read the flags, labels and crops; write the detector, its labels and its MLflow model."""
    parser = cli.parser(__doc__, threads=True)
    parser.add_argument("--study", required=True)
    parser.add_argument("--screen", required=True)
    parser.add_argument("--encoder", required=True, help="a name, or 'best' of the ranking")
    parser.add_argument("--encoders", type=Path, nargs="+", required=True, help=".safetensors")
    parser.add_argument("--ranking", type=Path, help="where the encoder is 'best'")
    parser.add_argument("--probe", help="that the ranking is looked up for")
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--random-labels", type=Path, required=True)
    parser.add_argument("--trained-on", required=True, help="labels, or what stands for them")
    parser.add_argument("--crops", type=Path, nargs="+", required=True)
    parser.add_argument("--composite", nargs="+", required=True)
    parser.add_argument("--shift-composites", nargs="*", required=True, help="a,b,c of each screen")
    parser.add_argument("--window-um", type=float, required=True, help="0: not resampled")
    parser.add_argument("--standardised", type=int, required=True, help="crops of the reference")
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--precision", required=True)
    parser.add_argument("--output", type=Path, required=True, help="folder of the detector")
    parser.add_argument("--model", type=Path, required=True, help="folder of the MLflow model")
    cli.add_settings(parser, LogisticSettings)
    cli.run(fit, parser.parse_args())


def fit(args, record) -> None:
    """Fit and save the detector that the arguments describe."""
    torch.set_num_threads(args.threads)
    name, why = chosen_encoder(args)
    (weights,) = [path for path in args.encoders if path.parent.parent.name == name][:1]
    encoder = load_encoder(weights)
    labels, random = all_labels(args.labels, args.random_labels)
    shards = Shards(args.crops)
    # Degraded copies of a derived screen are no crops of the screen that it will be used on.
    real = np.flatnonzero(shards.index["crop_id"].str.count("/") == CROP_ID_SLASHES)
    sample = np.random.default_rng(0).permutation(real)[: args.standardised]
    rows = np.concatenate([shards.rows_of(labels["crop_id"]), sample])
    features, precision = extract_features(
        encoder, shards, args.composite, rows, args.batch_size, args.precision, f"detector {name}"
    )
    of_labels, of_sample = features[: len(labels)], features[len(labels) :]
    settings = cli.settings_from(args, LogisticSettings)
    classifier, artefacts, held_out = fit_detector(labels, of_labels, settings)
    counts = labels["label"].value_counts()
    shifted = [tuple(composite.split(",")) for composite in args.shift_composites]
    about = {
        "study": args.study,
        "screen": args.screen,
        "encoder": name,
        "encoder_chosen": why,
        "encoder_sha256": sha256(weights),
        "classifier": "logistic",
        "penalty": classifier.penalty,
        "trained_on": args.trained_on,
        "labels_normal": int(counts["normal"]),
        "labels_abnormal": int(counts["abnormal"]),
        "labels_sha256": sha256(args.labels),
        "composites": sorted({tuple(args.composite), *shifted}),
        "window_px": shards.format.size_px,
        "window_um": args.window_um,
        "precision": precision,
        "code_digest": record.code_digest,
        "git_commit": record.git["commit"],
    }
    reference = reference_of(of_sample, classifier.scores(of_sample))
    save_detector(Detector(encoder, classifier, artefacts, reference, about), args.output)
    write_table(
        labels[["crop_id", "plate", "well", "label", "selection"]].assign(
            random=labels["crop_id"].isin(random), score=held_out
        ),
        args.output / HELD_OUT,
        "held_out",
    )
    example = rows[:EXAMPLE_CROPS]
    areas = shards.index["nucleus_area_px"].iloc[example].to_numpy(np.float32)
    pins = [f"{package}=={version(package).partition('+')[0]}" for package in PACKAGES]
    crops = shards.read_composite(example, args.composite).copy()
    save_model(args.output, crops, areas, args.model, pins)
    missed = int(np.isnan(held_out).sum())
    if missed == len(labels):
        told = "; too few wells are labelled to hold any out"
    else:
        told = f"; {missed} labels were not held out, the others are of one class" if missed else ""
    print(
        f"detector: {name} ({why}), {counts['normal']} normal and {counts['abnormal']} abnormal "
        f"labels, saved in {args.output}{told}"
    )
    record.metrics = {"labels": len(labels), "penalty": classifier.penalty}
    record.parameters |= {"chosen_encoder": name, "detector": str(args.output / ABOUT)}


def chosen_encoder(args) -> tuple[str, str]:
    """Return the detector's encoder and why it is that one."""
    names = [path.parent.parent.name for path in args.encoders]
    if args.encoder != BEST:
        return args.encoder, "named in the config"
    ranking = pd.read_csv(args.ranking)
    rows = ranking[
        (ranking["probe"] == args.probe)
        & (ranking["screen"] == args.screen)
        & (ranking["metric"] == "f1")
    ]
    rows = rows[rows["budget"] == rows["budget"].max()]
    rows = rows[rows["encoder"].isin(names)]
    if rows.empty:
        raise InputError(
            f"{args.ranking} ranks no encoder that can score crops under probe {args.probe}; name "
            "one in qc.encoder"
        )
    best = rows.sort_values("mean", ascending=False).iloc[0]
    return best["encoder"], (
        f"highest mean F1 under {args.probe} with {best['budget']} labels, "
        f"{100 * best['mean']:.1f}; verdict: {best['verdict']}"
    )


def all_labels(labels: Path, random_labels: Path) -> tuple[pd.DataFrame, set[str]]:
    """Return the study's labels and the random ones together, and the crop_ids of the latter."""
    random = read_table(random_labels, "labels")
    # The random ones first: a crop chosen in both ways was chosen at random.
    both = pd.concat([random, read_table(labels, "labels")], ignore_index=True)
    return both.drop_duplicates("crop_id", ignore_index=True), set(random["crop_id"])


if __name__ == "__main__":
    main()
