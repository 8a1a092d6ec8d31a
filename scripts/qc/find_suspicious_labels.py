"""Rank the labels of a screen that held-out models contradict, and write the page to check them."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from hcsqc.core import cli
from hcsqc.core.files import atomic
from hcsqc.core.ids import split_field_id
from hcsqc.core.schema import read_table, write_csv
from hcsqc.crops.shards import Shards
from hcsqc.encoders.roles import channels_for, read_roles
from hcsqc.features.extract import extract_features
from hcsqc.labels.groups import GROUPINGS
from hcsqc.labels.screen_labels import read_nuclei
from hcsqc.probes.frozen.logistic import LogisticSettings
from hcsqc.qc.detector import Scaling, check_screen, load_detector, standardised
from hcsqc.qc.field_view.images import FieldSource
from hcsqc.qc.fitting import study_labels
from hcsqc.qc.label_page.duplicates import duplicates
from hcsqc.qc.label_page.inputs import check_places, context_source, contexts
from hcsqc.qc.label_page.page import page_crops, render_label_page
from hcsqc.qc.label_page.review import (
    review_of,
    reviewed_crops,
    rows_of_files,
    rows_of_labels,
)
from hcsqc.qc.label_page.suspicious import held_out_scores, ranked, to_review


def main() -> None:
    """Read the flags, the labels and what is known of their crops; write page and tables."""
    parser = cli.parser(__doc__, threads=True)
    parser.add_argument("--screen", required=True)
    parser.add_argument("--detector", type=Path, required=True, help="folder of the detector")
    parser.add_argument("--crops", type=Path, nargs="+", required=True)
    parser.add_argument("--nuclei", type=Path, nargs="+", required=True)
    parser.add_argument("--summaries", type=Path, nargs="+", required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--random-labels", type=Path, required=True)
    parser.add_argument("--group-by", choices=GROUPINGS, required=True)
    parser.add_argument("--label-files", type=Path, nargs="*", required=True, help="CSV")
    parser.add_argument("--match-px", type=float, required=True)
    parser.add_argument("--composite", nargs="+", required=True, help="channels, in order")
    parser.add_argument("--channel-roles", nargs="*", default=[], help="CHANNEL:ROLE")
    parser.add_argument("--window-um", type=float, required=True, help="0: not resampled")
    parser.add_argument("--judged-at", type=float, required=True, help="good cells lost")
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--precision", required=True)
    parser.add_argument("--fields", type=Path, nargs="+", required=True)
    parser.add_argument("--images", help="folder or URL, may hold {plate}")
    parser.add_argument("--window-px", type=float, help="side of a crop, source pixels")
    parser.add_argument("--z-projection", help="max, mean or middle of a stack's planes")
    parser.add_argument("--output", type=Path, required=True, help="HTML")
    parser.add_argument("--ranking", type=Path, required=True, help="CSV of all labels")
    parser.add_argument("--duplicates", type=Path, required=True, help="CSV")
    cli.add_settings(parser, LogisticSettings)
    cli.add_settings(parser, Scaling)
    cli.run(find, parser.parse_args())


def find(args, record) -> None:
    """Find the labels to check that the arguments describe."""
    torch.set_num_threads(args.threads)
    shards = Shards(args.crops)
    check_places(shards.index, args.screen)
    labels = study_labels(args.labels, args.random_labels, args.group_by)
    table = ranked(labels, _scores(args, shards, labels))
    rows = (
        rows_of_files(args.label_files, read_nuclei(args.nuclei), args.match_px)
        if args.label_files
        else rows_of_labels(labels, shards)
    )
    reviewed = reviewed_crops(rows)
    chosen = to_review(table, reviewed)
    fields = pd.concat([read_table(path, "fields") for path in args.fields], ignore_index=True)
    summaries = pd.concat([read_table(path, "summary") for path in args.summaries])
    again = duplicates(shards, labels, summaries, fields, args.composite)
    images = FieldSource(fields, args.images, args.z_projection) if args.images else None
    source = context_source(images, args.window_px)
    pictures = contexts(shards, chosen, args.composite, source)
    page = render_label_page(
        args.screen,
        shards.format.channels,
        args.composite,
        shards.format.size_px,
        list(page_crops(shards, chosen, pictures)),
        review_of(chosen, rows, again),
    )
    write_csv(_told(table, shards, reviewed), args.ranking, digits="%.6g")
    write_csv(again, args.duplicates, digits="%.4f")
    with atomic(args.output) as temporary:
        temporary.write_text(page, encoding="utf-8")
    kinds = again["kind"].value_counts()
    record.metrics = {
        "labels": len(labels),
        "labels_shown": len(chosen),
        "labels_reviewed": len(reviewed),
        "page_mb": len(page) / 1e6,
    } | {f"duplicates_{kind.replace(' ', '_')}": int(n) for kind, n in kinds.items()}
    told = ", ".join(f"{n} of kind {kind}" for kind, n in kinds.items()) or "none"
    print(
        f"{args.output}: {len(chosen)} of {len(labels)} labels to check, {len(reviewed)} checked "
        f"before; duplicates: {told}"
    )


def _scores(args, shards: Shards, labels: pd.DataFrame) -> np.ndarray:
    """Return the held-out scores of labels, on the features that the detector sees."""
    detector = load_detector(args.detector)
    size, scaling = shards.format.size_px, cli.settings_from(args, Scaling)
    roles = read_roles(args.channel_roles)
    check_screen(detector.about, args.screen, args.composite, size, args.window_um, scaling, roles)
    rows = shards.rows_of(labels["crop_id"])
    where = f"labels of {args.screen}"
    how = args.batch_size, args.precision, where
    chosen = channels_for(detector.encoder, args.composite, roles, where)
    features, _ = extract_features(detector.encoder, shards, chosen, rows, *how)
    features = standardised(features, detector.reference)
    settings = cli.settings_from(args, LogisticSettings)
    return held_out_scores(labels, features, settings, args.judged_at)


def _told(table: pd.DataFrame, shards: Shards, reviewed: set[str]) -> pd.DataFrame:
    """Return the ranked labels with their places, for people."""
    about = shards.index.iloc[shards.rows_of(table["crop_id"])].reset_index(drop=True)
    place = split_field_id(about["field_id"])
    told = table.assign(site=place["site"], x_px=about["x_px"], y_px=about["y_px"])
    told["reviewed"] = told["crop_id"].isin(reviewed)
    names = ["rank", "plate", "well", "site", "x_px", "y_px", "label", "artefact", "annotator"]
    return told[[*names, "source", "selection", "score", "self_confidence", "reviewed"]]


if __name__ == "__main__":
    main()
