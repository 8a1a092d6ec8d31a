"""Train a backbone on unlabelled crops by a self-supervised method."""

import argparse
import sys
import time
from pathlib import Path

import torch
from torch import nn

from hcsqc.core import cli
from hcsqc.core.errors import InputError
from hcsqc.core.files import read_checked_json
from hcsqc.core.ids import job_key
from hcsqc.crops.training_crops import training_crops
from hcsqc.encoders.models import InputSpec
from hcsqc.encoders.store import Encoder, describe, save_encoder
from hcsqc.encoders.views import ViewSettings
from hcsqc.pretraining import checkpoint_folder
from hcsqc.pretraining.digest import pretraining_digest
from hcsqc.pretraining.loop import Callbacks, OutOfTime, pretrain
from hcsqc.pretraining.methods import METHODS
from hcsqc.pretraining.monitor import Diverged
from hcsqc.pretraining.scratch import on_scratch
from hcsqc.pretraining.settings import PretrainingSettings, Recipe
from hcsqc.pretraining.snapshots import Snapshots
from hcsqc.tracking.live_curves import live_curves

# What is left of a job's time limit to save and stop in, as a share.
STOP_AT = 0.95


def main() -> None:
    """Read the flags, train, write the encoder."""
    # The method decides which further flags there are, so it is looked up first.
    method = argparse.ArgumentParser(add_help=False)
    method.add_argument("--method", choices=METHODS)
    chosen, _ = method.parse_known_args()
    parser = cli.parser(__doc__, threads=True)
    parser.add_argument("--crops", type=Path, nargs="+", required=True)
    parser.add_argument("--composite", nargs="+", required=True, help="channels, in order")
    parser.add_argument("--without-wells", nargs="*", required=True, help="never trained on")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--at-most-crops", type=int, help="train on a random share of the crops")
    parser.add_argument("--choice", type=Path, help="JSON whose `chosen` settings replace these")
    parser.add_argument("--checkpoints", type=Path, required=True, help="folder to resume from")
    parser.add_argument("--scratch", default="", help="folder on the node for a copy of the crops")
    parser.add_argument("--tracking-uri", default="", help="MLflow server for live curves")
    parser.add_argument("--study", default="", help="in the MLflow server")
    parser.add_argument("--limit-minutes", type=float, help="save and stop before this time limit")
    parser.add_argument("--output", type=Path, help="folder of the encoder; none for a trial")
    parser.add_argument(
        "--snapshots-output", type=Path, help="folder for encoders along the epochs"
    )
    cli.add_settings(parser, PretrainingSettings)
    cli.add_settings(parser, ViewSettings)
    if chosen.method:
        cli.add_settings(parser, METHODS[chosen.method].Settings)
    cli.run(train, parser.parse_args())


def train(args, record) -> None:
    """Pretrain the encoder that the arguments describe.

    The checkpoints stay: should Snakemake delete the outputs, the next start has them in seconds.
    """
    began = time.monotonic()
    torch.set_num_threads(args.threads)
    live = live_curves(args.tracking_uri, args.study, job_key(args.record), record.arguments)
    held = checkpoint_folder.held(args.checkpoints)
    with held, on_scratch(args.crops, args.scratch) as paths, live as on_point:
        train_on(paths, args, record, began, on_point)


def train_on(paths: list[Path], args, record, began: float, on_point) -> None:
    """Pretrain on the shards at `paths`; the job began at that time of the monotonic clock."""
    crops = training_crops(paths, args.composite, args.without_wells, args.at_most_crops)
    if args.choice:
        vars(args).update(read_checked_json(args.choice)["chosen"])
    record.parameters = {"kind": "ssl", "crops": len(crops), "crops_digest": crops.digest}
    provenance = {"weights": "self-supervised", "method": args.method, "seed": args.seed}
    provenance |= record.parameters

    def describe_encoder(backbone: nn.Module, input_spec: InputSpec, **about) -> Encoder:
        return describe(backbone, "ssl", args.architecture, input_spec, provenance | about)

    snapshots = Snapshots(args.checkpoints / "epochs", describe_encoder)
    try:
        result = pretrain(
            crops,
            recipe_of(args),
            args.checkpoints,
            label=" ".join(["pretrain", *args.record.parent.parts[-2:]]),
            deadline_s=seconds_left(args.limit_minutes, began),
            callbacks=Callbacks(on_epoch=snapshots.keep, on_point=on_point),
            trained_on=crops.state | {"code": pretraining_digest(args.method)},
        )
    except OutOfTime as error:
        raise InputError(str(error)) from error
    except Diverged as error:
        if args.output:
            raise
        # A trial that diverges is a result: not this learning rate.
        print(f"WARNING {error}", file=sys.stderr)
        record.metrics = {"diverged": 1.0, "collapsed": 1.0}
        return
    if args.output:
        about = {"collapsed": result.collapsed, "device": f"{result.device}, {result.precision}"}
        save_encoder(describe_encoder(result.backbone, result.input_spec, **about), args.output)
    if args.snapshots_output:
        snapshots.copy_to(args.snapshots_output)
    record.parameters |= {"precision": result.precision}
    record.curves, record.metrics = result.curves, result.metrics | {"diverged": 0.0}
    record.device, record.gpu_memory_mb = result.device, result.gpu_memory_mb


def recipe_of(args) -> Recipe:
    """Return what to train and how."""
    return Recipe(
        cli.settings_from(args, PretrainingSettings),
        cli.settings_from(args, ViewSettings),
        cli.settings_from(args, METHODS[args.method].Settings),
        args.seed,
    )


def seconds_left(limit_minutes: float | None, began: float) -> float | None:
    """Return the seconds until the job must stop, None without a limit."""
    if not limit_minutes:
        return None
    return STOP_AT * 60 * limit_minutes - (time.monotonic() - began)


if __name__ == "__main__":
    main()
