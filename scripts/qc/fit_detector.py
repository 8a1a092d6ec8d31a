"""Make the detector of a study: the best encoder and a logistic classifier made from all labels."""

import sys
from dataclasses import asdict, replace
from pathlib import Path

import torch

from hcsqc.core import cli
from hcsqc.core.files import sha256
from hcsqc.core.ids import encoder_of
from hcsqc.core.schema import read_table
from hcsqc.crops.shards import Shards
from hcsqc.encoders.roles import channels_for, hidden_from, read_roles
from hcsqc.encoders.store import load_encoder
from hcsqc.labels.groups import GROUPINGS
from hcsqc.probes.frozen.logistic import LogisticSettings
from hcsqc.qc.choice import Choice, choose_encoder
from hcsqc.qc.corrections import levels_of
from hcsqc.qc.detector import Scaling
from hcsqc.qc.detector_files import ABOUT
from hcsqc.qc.fitting import (
    Embedding,
    fit_to_crops,
    fitted_text,
    save_fitted,
    study_labels,
)

BEST = "best"


def main() -> None:
    """Read the flags, labels and crops; write the detector and its labels."""
    parser = cli.parser(__doc__, threads=True)
    parser.add_argument("--study", required=True)
    parser.add_argument("--screen", required=True)
    parser.add_argument("--encoder", required=True, help="a name, or 'best' of the ranking")
    parser.add_argument("--encoders", type=Path, nargs="+", required=True, help=".safetensors")
    parser.add_argument("--ranking", type=Path, help="where the encoder is 'best'")
    parser.add_argument("--probe", help="that the ranking is looked up for")
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--random-labels", type=Path, required=True)
    parser.add_argument("--group-by", choices=GROUPINGS, required=True)
    parser.add_argument("--trained-on", required=True, help="labels, or what stands for them")
    parser.add_argument("--crops", type=Path, nargs="+", required=True)
    parser.add_argument("--scales", type=Path, nargs="+", required=True, help="of their plates")
    parser.add_argument("--composite", nargs="+", required=True)
    parser.add_argument("--channel-roles", nargs="*", default=[], help="CHANNEL:ROLE")
    parser.add_argument("--shift-composites", nargs="*", required=True, help="a,b,c of each screen")
    parser.add_argument("--window-um", type=float, required=True, help="0: not resampled")
    parser.add_argument("--judged-at", type=float, required=True, help="good cells lost")
    parser.add_argument("--standardised", type=int, required=True, help="crops of the reference")
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--precision", required=True)
    parser.add_argument("--output", type=Path, required=True, help="folder of the detector")
    cli.add_settings(parser, LogisticSettings)
    cli.add_settings(parser, Scaling)
    cli.run(fit, parser.parse_args())


def fit(args, record) -> None:
    """Fit and save the detector that the arguments describe."""
    torch.set_num_threads(args.threads)
    weights = {encoder_of(path): path for path in args.encoders}
    choice = Choice(args.encoder, "named in the config", [])
    if args.encoder == BEST:
        sizes = {name: path.stat().st_size for name, path in weights.items()}
        lost = args.judged_at
        choice = choose_encoder(args.ranking, args.probe, args.screen, sizes, lost)
    name = choice.encoder
    encoder = load_encoder(weights[name])
    labels = study_labels(args.labels, args.random_labels, args.group_by)
    shifted = [tuple(composite.split(",")) for composite in args.shift_composites]
    roles = read_roles(args.channel_roles)
    about = {
        "study": args.study,
        "screen": args.screen,
        "encoder": name,
        "encoder_chosen": choice.why,
        "candidates": choice.candidates,
        "encoder_sha256": sha256(weights[name]),
        "trained_on": args.trained_on,
        "labels_sha256": sha256(args.labels),
        "composites": sorted({tuple(args.composite), *shifted}),
        "composite_roles": [roles.get(channel, "other") for channel in args.composite],
        "window_um": args.window_um,
        "scaling": asdict(cli.settings_from(args, Scaling)),
        "levels": levels_of([read_table(path, "scale") for path in args.scales], args.composite),
        "code_digest": record.code_digest,
        "git_commit": record.git["commit"],
    }
    settings = cli.settings_from(args, LogisticSettings)
    chosen = channels_for(encoder, args.composite, roles, f"detector of {args.screen}")
    embedding = replace(cli.settings_from(args, Embedding), composite=tuple(chosen))
    hidden = hidden_from(encoder)
    if hidden:
        about["warning"] = f"{name}: {hidden}"
        print(f"warning: {about['warning']}", file=sys.stderr)
    crops = Shards(args.crops)
    lost = args.judged_at
    fitted = fit_to_crops(encoder, crops, labels, embedding, settings, lost, about)
    save_fitted(fitted, args.output)
    print(fitted_text(fitted, args.output))
    record.metrics = {"labels": len(labels), "penalty": fitted.detector.about["penalty"]}
    record.parameters |= {"chosen_encoder": name, "detector": str(args.output / ABOUT)}


if __name__ == "__main__":
    main()
