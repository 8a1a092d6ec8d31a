"""Train a backbone on unlabelled crops by a self-supervised method."""

import copy
import json
import shutil
import sys
import time
from pathlib import Path

import torch
from torch import nn

import cli
from hcsqc.digest import code_digest
from hcsqc.encoders import Encoder, describe, save_encoder
from hcsqc.errors import InputError
from hcsqc.files import text_digest
from hcsqc.methods import METHODS
from hcsqc.models import InputSpec
from hcsqc.pretraining import OutOfTime, PretrainingSettings, pretrain
from hcsqc.shards import read_format
from hcsqc.training_crops import TrainingCrops, training_crops
from hcsqc.views import ViewSettings

# What is left of a job's time limit to save and stop in, as a share.
STOP_AT = 0.95


def main() -> None:
    """Read the flags, train, write the encoder."""
    method = cli.parser("", threads=True)
    method.add_argument("--method", choices=METHODS)
    chosen, _ = method.parse_known_args([flag for flag in sys.argv[1:] if flag != "-h"])
    parser = cli.parser(__doc__, threads=True)
    parser.add_argument("--crops", type=Path, nargs="+", required=True)
    parser.add_argument("--composite", nargs="+", required=True, help="channels, in order")
    parser.add_argument("--without-wells", nargs="*", required=True, help="never trained on")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--at-most-crops", type=int, help="train on a random share of the crops")
    parser.add_argument("--choice", type=Path, help="JSON whose `chosen` settings hold instead")
    parser.add_argument("--checkpoints", type=Path, required=True, help="folder to resume from")
    parser.add_argument("--limit-minutes", type=float, help="save and stop before this is over")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--snapshots-output", type=Path, help="folder of encoders along the epochs")
    cli.add_settings(parser, PretrainingSettings)
    cli.add_settings(parser, ViewSettings)
    if chosen.method:
        cli.add_settings(parser, METHODS[chosen.method].Settings)
    cli.run(train, parser.parse_args())


def train(args, record) -> None:
    """Pretrain the encoder that the arguments describe."""
    began = time.monotonic()
    torch.set_num_threads(args.threads)
    crops = training_crops(args.crops, args.composite, args.without_wells, args.at_most_crops)
    if args.choice:
        vars(args).update(json.loads(args.choice.read_text())["chosen"])
    settings = cli.settings_from(args, PretrainingSettings)
    record.parameters = {
        "kind": "ssl",
        "crops": len(crops),
        "crops_digest": text_digest("\n".join(crops.crop_ids)),
    }
    provenance = {"weights": "self-supervised", "method": args.method, "seed": args.seed}
    provenance |= record.parameters
    checkpoints = args.checkpoints / checkpoint_name(crops)
    snapshots = checkpoints / "epochs"

    def encoder_of(backbone: nn.Module, input_spec: InputSpec, **about) -> Encoder:
        return describe(backbone, "ssl", args.architecture, input_spec, provenance | about)

    def keep(epoch: int, backbone: nn.Module, input_spec: InputSpec) -> None:
        copied = copy.deepcopy(backbone).to("cpu", memory_format=torch.contiguous_format)
        save_encoder(
            encoder_of(copied, input_spec, epoch=epoch), snapshots / f"epoch{epoch:04d}.safetensors"
        )

    deadline = None
    if args.limit_minutes:
        deadline = STOP_AT * 60 * args.limit_minutes - (time.monotonic() - began)
    try:
        result = pretrain(
            crops,
            settings,
            cli.settings_from(args, ViewSettings),
            cli.settings_from(args, METHODS[args.method].Settings),
            args.seed,
            checkpoints,
            f"pretrain {args.output.parent.parent.name} {args.output.parent.name}",
            deadline_s=deadline,
            on_epoch=keep,
        )
    except OutOfTime as error:
        raise InputError(str(error)) from error
    encoder = encoder_of(result.backbone, result.input_spec, collapsed=result.collapsed)
    save_encoder(encoder, args.output)
    if args.snapshots_output:
        snapshots.mkdir(exist_ok=True)  # there may be none
        shutil.rmtree(args.snapshots_output, ignore_errors=True)
        # Copied: should this be killed before its end, the next start still has them.
        shutil.copytree(snapshots, args.snapshots_output)
    shutil.rmtree(args.checkpoints, ignore_errors=True)
    record.parameters |= {"precision": result.precision}
    record.curves = result.curves
    record.device = result.device
    record.gpu_memory_mb = result.gpu_memory_mb
    record.metrics = {
        "loss": result.curves[-1]["loss"],
        "feature_std": result.feature_std,
        "feature_rank": result.feature_rank,
        "pairs_per_s": result.steps * settings.batch_size / result.seconds,
        "stall_share": result.stall_share,
        "collapsed": float(result.collapsed),
    }


def checkpoint_name(crops: TrainingCrops) -> str:
    """Return a name that changes with crops, composite and code, so that nothing stale resumes."""
    formats = [read_format(path) for path in crops.shards.paths]
    words = formats, crops.chosen, crops.crop_ids, code_digest("pretrain.py")
    return text_digest(repr(words))[:16]


if __name__ == "__main__":
    main()
