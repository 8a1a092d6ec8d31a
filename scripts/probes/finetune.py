"""Train encoder and linear layer together, draw by draw."""

import dataclasses
from pathlib import Path

import torch

from hcsqc.core import cli
from hcsqc.core.devices import choose_device, device_name
from hcsqc.core.errors import InputError
from hcsqc.core.ids import encoder_label
from hcsqc.core.progress import Progress
from hcsqc.core.schema import write_table
from hcsqc.encoders.roles import channels_for, read_roles
from hcsqc.encoders.store import Encoder, load_encoder
from hcsqc.labels.groups import GROUPINGS, read_labels
from hcsqc.probes.finetune import FinetuneSettings
from hcsqc.probes.finetune_draws import (
    CompositeCrops,
    check_trainable,
    chosen_settings,
    finetuned_predictions,
)
from hcsqc.probes.task import tasks


def main() -> None:
    """Read the flags, encoder and crops; write the predictions of all draws."""
    parser = cli.parser(__doc__, threads=True)
    parser.add_argument("--encoder", type=Path, required=True)
    parser.add_argument("--splits", type=Path, required=True)
    parser.add_argument("--shift-labels", type=Path, nargs="*", required=True)
    parser.add_argument("--crops", type=Path, nargs="+", required=True)
    parser.add_argument(
        "--composites", nargs="+", required=True, help="SCREEN:CHANNEL,... in order"
    )
    parser.add_argument("--channel-roles", nargs="*", default=[], help="SCREEN:CHANNEL:ROLE")
    parser.add_argument(
        "--group-by", choices=GROUPINGS, required=True, help="crops of --shift-labels"
    )
    parser.add_argument("--budget", type=int, required=True)
    parser.add_argument("--draws", type=int, required=True)
    parser.add_argument("--shuffle-labels", action="store_true", help="table of the training crops")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument(
        "--choice", type=Path, help="choice of a search, whose settings replace these"
    )
    parser.add_argument("--output", type=Path, required=True)
    cli.add_settings(parser, FinetuneSettings, required=False)
    cli.run(probe, parser.parse_args())


def probe(args, record) -> None:
    """Run the probe that the arguments describe."""
    torch.set_num_threads(args.threads)
    torch.use_deterministic_algorithms(not torch.cuda.is_available())
    settings = chosen_settings(args.choice) if args.choice else given_settings(args)
    record.parameters |= dataclasses.asdict(settings)
    encoder = load_encoder(args.encoder)
    check_trainable(encoder, args.encoder)
    pixels = CompositeCrops(args.crops, channels_by_screen(args, encoder))
    pixels.check(encoder)
    shift_labels = [read_labels(path, args.group_by) for path in args.shift_labels]
    label = f"finetune {encoder_label(args.encoder)} at {args.budget} labels"
    epochs = settings.lasting(args.budget).epochs
    progress = Progress(args.draws * epochs * args.budget, "crops", label)
    predictions = finetuned_predictions(
        encoder,
        pixels,
        tasks(args.splits, shift_labels, args.draws, args.budget, args.shuffle_labels),
        settings,
        args.seed,
        lambda count, loss: progress.update(count, loss=loss),
    )
    progress.close()
    write_table(predictions, args.output, "predictions")
    record.device = device_name(choose_device("auto"))


def channels_by_screen(args, encoder: Encoder) -> dict[str, list[str]]:
    """Return the channels that the encoder sees of each screen, in its order."""
    found = {}
    for screen, names in (text.split(":") for text in args.composites):
        own = [text for text in args.channel_roles if text.startswith(f"{screen}:")]
        roles = read_roles(text.removeprefix(f"{screen}:") for text in own)
        found[screen] = channels_for(encoder, names.split(","), roles, f"finetune {screen}")
    return found


def given_settings(args) -> FinetuneSettings:
    """Return the settings that the flags give; raise InputError if one is missing."""
    given = cli.settings_from(args, FinetuneSettings)
    missing = [name for name, value in dataclasses.asdict(given).items() if value is None]
    if missing:
        raise InputError(f"neither --choice nor --{missing[0].replace('_', '-')} is given")
    return given


if __name__ == "__main__":
    main()
