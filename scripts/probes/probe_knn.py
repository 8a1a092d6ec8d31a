"""Classify frozen features by the nearest neighbours among the training labels."""

from hcsqc.core import cli
from hcsqc.core.schema import write_table
from hcsqc.probes.knn import KnnSettings, knn_draws, knn_scores_by_draw
from hcsqc.probes.task import all_predictions, read_features, tasks


def main() -> None:
    """Read the flags and features, write the predictions of all draws."""
    cli.run(probe, cli.probe_parser(__doc__, KnnSettings).parse_args())


def probe(args, record) -> None:
    """Run the probe that the arguments describe."""
    settings = cli.settings_from(args, KnnSettings)
    crops, features = read_features(args.features)
    draws = list(
        tasks(args.splits, args.shift_labels, args.draws, args.budget, args.shuffle_labels)
    )
    scores = knn_scores_by_draw(features, knn_draws(crops, draws), settings)
    predictions = [task.predictions(values) for task, values in zip(draws, scores, strict=True)]
    write_table(all_predictions(predictions), args.output, "predictions")


if __name__ == "__main__":
    main()
