"""Zero-label and labelled detectors on real fields that people labelled, beside simple rules.

On examples/bbbc022 a cell counts if both annotators call it alike. Recall is that of aberrant cells
where 5% of the normal ones are lost. With labels, each well is scored by detectors that saw labels
of the other wells alone. `--defocused` is a folder of fields of which the wells `--blurred` are out
of focus, such as BBBC006's.
"""

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import yaml
from sklearn.metrics import roc_auc_score

from benchmarks import common
from hcsqc.crops.shards import Shards
from hcsqc.encoders.store import Encoder, load_encoder
from hcsqc.features.extract import extract_features
from hcsqc.probes.frozen.logistic import LogisticSettings
from hcsqc.qc.detector import fit_detector, reference_of, standardised
from hcsqc.qc.flags import robust_spread

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples/bbbc022"
COMPOSITE = ["w4", "w5", "w1"]
LOST = 0.05  # of the good cells
LABELS, DRAWS = (50, 100), 5
NEAR_PX = 20  # of the centre: the brightest pixel there
LOGISTIC = LogisticSettings((0.001, 0.01, 0.1, 1), folds=3)
SHOWN, GAP_PX, WIDTH_PX = 12, 4, 1100  # crops in a row of a picture


def main() -> None:
    """Read the flags, run quality control, print the tables, draw the pictures."""
    parser = common.parser(__doc__, rounds=False)
    parser.add_argument("--folder", type=Path, required=True, help="of the results, kept there")
    parser.add_argument("--names", type=int, default=1, help="of the screen, which seed artefacts")
    parser.add_argument("--defocused", type=Path, help="folder of fields, some out of focus")
    parser.add_argument("--blurred", nargs="*", default=[], help="their wells")
    parser.add_argument("--figures", type=Path, help="folder that pictures are written to")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    if not (args.folder / "examples").exists():
        (args.folder / "examples").symlink_to(ROOT / "examples")
    screens = [f"bbbc022_{number}" for number in range(args.names)]
    cells = {screen: labelled_cells(args.folder, screen) for screen in screens}
    first = cells[screens[0]]
    rows = [row("no label, cell", first, first["score"])]
    simple = simple_scores(args.folder, screens[0], first)
    rows += [row(name, first, scores) for name, scores in simple]
    rows += labelled_rows(args.folder, screens[0], first)
    print(pd.DataFrame(rows).round(3).to_string(index=False))
    aberrant = first["label"] == "abnormal"
    named = first[aberrant & first["flagged"].astype(bool)]
    print(
        f"own threshold: {first['flagged'][aberrant].mean():.2f} of the aberrant cells flagged, "
        f"{first['flagged'][~aberrant].mean():.3f} of the normal ones; "
        f"{(named['artefact'] == named['by_eye']).mean():.2f} of {len(named)} named as by eye"
    )
    if args.names > 1:
        found = pd.DataFrame([row(name, those, those["score"]) for name, those in cells.items()])
        told = found[["AUC", "recall"]].agg(["mean", "min", "max"]).round(3)
        print(f"{args.names} names:\n{told.to_string()}")
    if args.figures:
        args.figures.mkdir(parents=True, exist_ok=True)
        draw(args.folder, screens[0], first, args.figures)
    if args.defocused:
        tell_focus(args.defocused.resolve(), args.blurred, args.folder)


def snakemake(folder: Path, study: Path) -> None:
    """Run quality control of a study, with results in a folder."""
    command = ["snakemake", "qc", "--cores", "all", "--quiet", "all", "-s", str(ROOT / "Snakefile")]
    command += ["-d", str(folder), "--configfile", str(study.resolve())]
    subprocess.run(
        [sys.executable, "-m", *command],
        check=True,
        stdout=subprocess.DEVNULL,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
    )


def labelled_cells(folder: Path, screen: str) -> pd.DataFrame:
    """Run the example's study under another name; return its cells that annotators agree on.

    Columns of `cells`, and label and by_eye, the artefact by the first annotator.
    """
    text = yaml.safe_load((EXAMPLE / "study.yaml").read_text())
    real, derived = text["screens"].values()
    text["study"] |= {"name": screen, "train": f"{screen}_degraded"}
    text["screens"] = {screen: real, f"{screen}_degraded": derived | {"derived_from": screen}}
    text["qc"]["screens"] = [screen]
    study = folder / f"{screen}.yaml"
    study.write_text(yaml.safe_dump(text))
    snakemake(folder, study)
    cells = pd.read_parquet(folder / "results" / screen / "qc" / screen / "cells.parquet")
    cells = cells[cells["score"].notna()]
    cells = cells.assign(place=cells["crop_id"].str.partition("/")[2])
    return cells.merge(agreed_labels(), on="place", validate="one_to_one")


def agreed_labels() -> pd.DataFrame:
    """Return place, label and by_eye of the crops that both annotators call alike."""
    first, second = (
        pd.read_csv(EXAMPLE / "labels" / f"annotator_{one}.csv", dtype={"plate": str})
        for one in "ab"
    )
    keys = ["plate", "well", "site", "x_px", "y_px"]
    both = first.merge(second[[*keys, "label"]], on=keys, suffixes=("", "_second"))
    both = both[both["label"] == both["label_second"]]
    place = [
        f"{row.plate}/{row.well}/s{row.site}/x{row.x_px:04d}y{row.y_px:04d}"
        for row in both.itertuples()
    ]
    return pd.DataFrame({"place": place, "label": both["label"], "by_eye": both["artefact"]})


def row(name: str, cells: pd.DataFrame, scores: np.ndarray) -> dict:
    """Return AUC, recall, and recall of each artefact by eye, of scores of the cells."""
    aberrant, scores = (cells["label"] == "abnormal").to_numpy(), np.asarray(scores)
    found = scores > np.quantile(scores[~aberrant], 1 - LOST, method="higher")
    kinds = cells["by_eye"][aberrant].value_counts()
    recalls = {f"{kind} ({n})": found[cells["by_eye"] == kind].mean() for kind, n in kinds.items()}
    auc = roc_auc_score(aberrant, scores)
    return {"scores": name, "AUC": auc, "recall": found[aberrant].mean()} | recalls


def study_files(folder: Path, screen: str) -> tuple[Shards, Path]:
    """Return the crops of a study's screen, and the folder of its encoders."""
    results = folder / "results" / screen
    shards = [
        path for path in (results / "crops" / screen).glob("*.parquet") if path.name.count(".") == 1
    ]
    return Shards(sorted(shards)), results / "encoders"


def simple_scores(folder: Path, screen: str, cells: pd.DataFrame) -> list[tuple[str, np.ndarray]]:
    """Return what needs neither labels nor artefacts: the brightest pixel, and z-scores."""
    shards, encoders = study_files(folder, screen)
    rows = shards.rows_of(cells["crop_id"])
    return [
        ("brightest pixel near the centre", brightest(shards)[rows]),
        ("CellProfiler's measures, largest z-score", z_scores(encoders, shards)[rows]),
    ]


def brightest(shards: Shards) -> np.ndarray:
    """Return each crop's highest grey level within `NEAR_PX` of its centre, mean over channels."""
    side = shards.format.size_px
    y, x = np.indices((side, side)) - (side - 1) / 2
    near = np.hypot(y, x) <= NEAR_PX
    return shards.read(np.arange(len(shards)))[:, :, near].max(axis=2).mean(axis=1)


def z_scores(encoders: Path, shards: Shards) -> np.ndarray:
    """Return the largest robust z-score of CellProfiler's measures of the cell in each crop."""
    encoder = load_encoder(encoders / "image_quality_cell/seed0/encoder.safetensors")
    measures = embedded(encoder, shards, np.arange(len(shards)))
    spread = np.array([robust_spread(column) for column in measures.T])
    varies = spread > 0
    away = np.abs(measures - np.median(measures, axis=0))[:, varies] / spread[varies]
    return away.max(axis=1)


def embedded(encoder: Encoder, shards: Shards, rows: np.ndarray) -> np.ndarray:
    """Return the features of crops, of the composite that the example's study states."""
    return extract_features(encoder, shards, COMPOSITE, rows, 256, "auto", "features")[0]


def labelled_rows(folder: Path, screen: str, cells: pd.DataFrame) -> list[dict]:
    """Return a row of detectors of each of `LABELS`, half of them aberrant if there are so many.

    Each well is scored by detectors of labels of the other wells; scores are means over draws.
    """
    shards, encoders = study_files(folder, screen)
    encoder = load_encoder(encoders / "cell/seed0/encoder.safetensors")
    features = embedded(encoder, shards, np.arange(len(shards)))
    seen = standardised(features, reference_of(features))[shards.rows_of(cells["crop_id"])]
    labels = cells.assign(plate=cells["Metadata_Plate"], well=cells["Metadata_Well"])
    labels = labels.assign(artefact=labels["by_eye"], group=labels["plate"] + "/" + labels["well"])
    return [
        row(f"{count} labels, cell", cells, labelled_scores(labels, seen, count))
        for count in LABELS
    ]


def labelled_scores(labels: pd.DataFrame, seen: np.ndarray, count: int) -> np.ndarray:
    """Return each cell's mean score by detectors of `count` labels of other wells."""
    aberrant, scores = (labels["label"] == "abnormal").to_numpy(), np.zeros(len(labels))
    for draw in range(DRAWS):
        rng = np.random.default_rng(draw)
        for well in sorted(set(labels["well"])):
            own = (labels["well"] == well).to_numpy()
            some = rng.permutation(np.flatnonzero(aberrant & ~own))[: count // 2]
            others = rng.permutation(np.flatnonzero(~aberrant & ~own))[: count - len(some)]
            drawn = np.concatenate([some, others])
            made = fit_detector(labels.iloc[drawn], seen[drawn], LOGISTIC, LOST)
            scores[own] += made.classifier.scores(seen[own]) / DRAWS
    return scores


def tell_focus(images: Path, blurred: list[str], folder: Path) -> None:
    """Print what the guided start's first flags say of fields that are partly out of focus."""
    study, work = folder / "defocused.yaml", folder / "defocused"
    study.unlink(missing_ok=True)
    start = [sys.executable, str(ROOT / "scripts/start/new_study.py"), str(images), "--yes"]
    command = [*start, "--name", "defocused", "--output", str(study)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    work.mkdir(exist_ok=True)
    snakemake(work, study)
    found = work / "results/defocused/qc/defocused"
    cells = pd.read_parquet(found / "cells.parquet")
    cells = cells[cells["score"].notna()]
    bad = cells["Metadata_Well"].isin(blurred).to_numpy()
    fields = cells.groupby(["Metadata_Well", "Metadata_Site"])[["score", "edge"]].median()
    bad_fields = fields.index.get_level_values(0).isin(blurred)
    edge = cells["edge"].fillna(0)
    shards, _ = study_files(work, "defocused")
    light = pd.Series(brightest(shards)[shards.rows_of(cells["crop_id"])], cells.index)
    by_field = light.groupby([cells["Metadata_Well"], cells["Metadata_Site"]]).median()
    for name, of_cells, of_fields in (
        ("no label, cell", cells["score"], fields["score"]),
        ("width of the nucleus' edge", edge, fields["edge"]),
        ("brightest pixel near the centre", light, by_field),
    ):
        limit = np.quantile(of_cells[~bad], 1 - LOST, method="higher")
        print(
            f"{name}: cell AUC {roc_auc_score(bad, of_cells):.3f}, "
            f"recall {(of_cells[bad] > limit).mean():.2f}, "
            f"field AUC {roc_auc_score(bad_fields, of_fields):.3f}"
        )
    table = pd.read_csv(found / "fields.csv")
    wrong = table["bad"] != table["Metadata_Well"].isin(blurred)
    named = cells[bad & cells["flagged"].astype(bool)]["artefact"]
    print(
        f"{table['bad'].sum()} of {len(table)} fields bad, {wrong.sum()} of them wrongly or not; "
        f"{(named == 'blur').mean():.2f} of the {len(named)} flagged cells named blur"
    )


def draw(folder: Path, screen: str, cells: pd.DataFrame, figures: Path) -> None:
    """Write what was found and missed, and real beside simulated artefacts, as PNG."""
    shards, _ = study_files(folder, screen)
    aberrant = cells["label"] == "abnormal"
    limit = np.quantile(cells["score"][~aberrant], 1 - LOST, method="higher")
    above = cells["score"] > limit
    parts = [aberrant & above, aberrant & ~above, ~aberrant & above]
    chosen = [cells[part].sort_values("score", ascending=False)["crop_id"] for part in parts]
    write_rows([strips(shards, crops) for crops in chosen], figures / "real_found.png")
    results = folder / "results" / screen / "crops" / f"{screen}_degraded"
    truth = pd.concat(map(pd.read_parquet, sorted(results.glob("*.truth.parquet"))))
    plates = [path for path in results.glob("*.parquet") if path.name.count(".") == 1]
    degraded = Shards(sorted(plates))
    rows = []
    for kind in ("dead", "debris", "saturation", "autofluorescence"):
        rows.append(strips(shards, cells["crop_id"][aberrant & (cells["by_eye"] == kind)]))
        made = truth[truth["artefact"] == kind].sort_values("strength")
        every = np.linspace(0, len(made) - 1, SHOWN).round().astype(int)
        rows.append(strips(degraded, made["crop_id"].iloc[every]))
    write_rows(rows, figures / "real_and_simulated.png")


def strips(shards: Shards, crops: pd.Series) -> np.ndarray:
    """Return a row of at most `SHOWN` crops as a picture, white where there are fewer."""
    side = shards.format.size_px + GAP_PX
    picture = np.full((side, SHOWN * side, 3), 255, np.uint8)
    pixels = shards.read_composite(shards.rows_of(crops.iloc[:SHOWN]), COMPOSITE)
    for number, crop in enumerate(pixels):
        left = number * side
        picture[: side - GAP_PX, left : left + side - GAP_PX] = crop.transpose(1, 2, 0)
    return picture


def write_rows(rows: list[np.ndarray], path: Path) -> None:
    """Write pictures below each other, `WIDTH_PX` wide."""
    picture = np.concatenate(rows)[:-GAP_PX, :-GAP_PX, ::-1]
    height = round(len(picture) * WIDTH_PX / picture.shape[1])
    smaller = cv2.resize(picture, (WIDTH_PX, height), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(path), smaller)


if __name__ == "__main__":
    main()
