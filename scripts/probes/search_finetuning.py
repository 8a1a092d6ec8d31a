"""Choose the settings of fine-tuning at one budget, on the training labels of the first draw."""

import dataclasses
from pathlib import Path

import torch

from hcsqc.core import cli
from hcsqc.core.files import write_checked_json
from hcsqc.core.ids import encoder_label
from hcsqc.core.progress import Progress
from hcsqc.crops.shards import Shards
from hcsqc.encoders.roles import channels_for, read_roles
from hcsqc.encoders.store import check_composite, load_encoder
from hcsqc.probes.finetune_search import FinetuneSearchSettings, search_finetuning
from hcsqc.probes.task import tasks


def main() -> None:
    """Read the flags, encoder and crops; write the choice and every trial."""
    parser = cli.parser(__doc__, threads=True)
    parser.add_argument("--encoder", type=Path, required=True)
    parser.add_argument("--splits", type=Path, required=True)
    parser.add_argument("--crops", type=Path, nargs="+", required=True)
    parser.add_argument("--composite", nargs="+", required=True, help="channels, in order")
    parser.add_argument("--channel-roles", nargs="*", default=[], help="CHANNEL:ROLE")
    parser.add_argument("--budget", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--output", type=Path, required=True)
    cli.add_settings(parser, FinetuneSearchSettings)
    cli.run(search, parser.parse_args())


def search(args, record) -> None:
    """Search as the arguments describe; without labels for the budget nothing is chosen."""
    torch.set_num_threads(args.threads)
    torch.use_deterministic_algorithms(not torch.cuda.is_available())
    settings = cli.settings_from(args, FinetuneSearchSettings)
    encoder = load_encoder(args.encoder)
    where, roles = "fine-tuning search", read_roles(args.channel_roles)
    chosen_channels = channels_for(encoder, args.composite, roles, where)
    check_composite(encoder, chosen_channels, where)
    found = {"chosen": None, "trials": []}
    task = next(tasks(args.splits, [], 1, args.budget), None)
    if task:
        shards = Shards(args.crops)
        crops = shards.read_composite(shards.rows_of(task.train_crops), chosen_channels)
        name = encoder_label(args.encoder)
        progress = Progress(
            settings.searched_crops(args.budget),
            "crops",
            f"search {name} at {args.budget} labels",
        )
        chosen, trials = search_finetuning(
            encoder,
            crops,
            task.train_targets,
            task.train_groups,
            settings,
            args.seed,
            lambda count, loss: progress.update(count, loss=loss),
        )
        progress.close()
        found = {"chosen": dataclasses.asdict(chosen), "trials": trials}
    write_checked_json(found, args.output)
    record.parameters |= found


if __name__ == "__main__":
    main()
