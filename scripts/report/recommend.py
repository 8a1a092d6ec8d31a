"""Say which encoder to use, with which classifier and how many labels, and what that costs."""

from pathlib import Path

import pandas as pd

from hcsqc.core import cli
from hcsqc.core.config import built_encoders
from hcsqc.core.files import read_checked_json, write_checked_json
from hcsqc.core.ids import encoder_of
from hcsqc.core.schema import read_table
from hcsqc.figures.ranking import plot_recommendation
from hcsqc.figures.words import study_words
from hcsqc.report.costs import encoder_costs
from hcsqc.report.recommendation import as_json, cautions, recommend, sentences


def main() -> None:
    """Read the flags and the study's results, write the recommendation and its figure."""
    parser = cli.parser(__doc__)
    parser.add_argument("--ranking", type=Path, required=True)
    parser.add_argument("--scores", type=Path, nargs="+", required=True)
    parser.add_argument("--replicates", type=Path, nargs="+", required=True)
    parser.add_argument(
        "--costs", type=Path, nargs="*", required=True, help="run.json of features and pretraining"
    )
    parser.add_argument("--encoders", type=Path, nargs="+", required=True, help="encoder.json")
    parser.add_argument("--config", type=Path, required=True, help="the resolved config.json")
    parser.add_argument("--output", type=Path, required=True, help="recommendation.json")
    parser.add_argument("--figure", type=Path, required=True)
    cli.run(advise, parser.parse_args())


def advise(args, record) -> None:
    """Weigh the encoders of the study that the arguments name."""
    config = read_checked_json(args.config)["config"]
    words = study_words(config)
    widths = {encoder_of(path): read_checked_json(path)["width"] for path in args.encoders}
    costs = encoder_costs(
        config["study"]["encoders"],
        widths,
        [read_checked_json(path) for path in args.costs],
        {name: made_of(config, name) for name in config["study"]["encoders"]},
    )
    found = recommend(
        config,
        pd.read_csv(args.ranking),
        costs,
        pd.concat([read_table(path, "scores") for path in args.scores]),
        pd.concat([read_table(path, "replicates") for path in args.replicates]),
    )
    said = {"sentences": sentences(found, words), "cautions": cautions(found, words)}
    write_checked_json(said | as_json(found), args.output)
    title = f"{words.probe(found.probe)}, {found.budget} labels" if found.probe else ""
    plot_recommendation(found.options, words.encoders, title, found.lost, args.figure)


def made_of(config: dict, name: str) -> list[str]:
    """Return an encoder and all that it is made of."""
    return built_encoders(config | {"study": {"encoders": [name]}})


if __name__ == "__main__":
    main()
