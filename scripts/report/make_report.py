"""Write the study's report: one HTML file with everything in it."""

from pathlib import Path

import pandas as pd

from hcsqc.core import cli
from hcsqc.core.files import atomic, read_checked_json
from hcsqc.core.ids import encoder_of, screen_and_plate
from hcsqc.core.schema import read_metadata, read_table
from hcsqc.labels.splits import largest_budget
from hcsqc.report.page import Evidence, render_report


def main() -> None:
    """Read the flags and the study's results, write the page."""
    parser = cli.parser(__doc__)
    parser.add_argument("--tables", type=Path, nargs=3, required=True, help="tables 1, 2, 3")
    parser.add_argument("--metrics", type=Path, required=True)
    parser.add_argument("--recommendation", type=Path, required=True)
    parser.add_argument("--curves", type=Path, required=True)
    parser.add_argument("--detection", type=Path, required=True, help="dose_response.csv")
    parser.add_argument("--causes", type=Path, nargs="*", required=True)
    parser.add_argument("--unseen", type=Path, nargs="+", required=True)
    parser.add_argument("--selections", type=Path, nargs="+", required=True)
    parser.add_argument("--splits", type=Path, required=True)
    parser.add_argument("--figures", type=Path, nargs="+", required=True)
    parser.add_argument("--labels", type=Path, nargs="+", required=True)
    parser.add_argument("--summaries", type=Path, nargs="+", required=True)
    parser.add_argument("--encoders", type=Path, nargs="+", required=True, help="encoder.json")
    parser.add_argument("--config", type=Path, required=True, help="the resolved config.json")
    parser.add_argument("--output", type=Path, required=True)
    cli.run(report, parser.parse_args())


def report(args, record) -> None:
    """Render the study that the arguments describe."""
    saved = read_checked_json(args.config)
    summaries: dict[str, list] = {}
    for path in args.summaries:
        summaries.setdefault(screen_and_plate(path)[0], []).append(read_table(path, "summary"))
    evidence = Evidence(
        tables={number: pd.read_csv(path) for number, path in enumerate(args.tables, start=1)},
        metrics=pd.read_csv(args.metrics),
        advice=read_checked_json(args.recommendation),
        curves=pd.read_csv(args.curves),
        detection=pd.read_csv(args.detection, dtype={"threshold": str}),
        causes=[text for path in args.causes for text in pd.read_csv(path)["finding"]],
        unseen=_by_encoder(args.unseen),
        selections=_by_encoder(args.selections),
        protocol=read_metadata(args.splits)["protocol"],
        largest_budget=largest_budget(read_table(args.splits, "splits")),
    )
    encoders = [(encoder_of(path), read_checked_json(path)) for path in args.encoders]
    page = render_report(
        saved["config"],
        saved["changed"],
        evidence,
        args.figures,
        {path.stem: read_table(path, "labels") for path in args.labels},
        {name: pd.concat(tables) for name, tables in summaries.items()},
        dict(encoders),
        sorted(set().union(*(_devices(about) for _, about in encoders))),
    )
    with atomic(args.output) as temporary:
        temporary.write_text(page, encoding="utf-8")
    print(f"report: {args.output}")


def _devices(about: dict) -> set[str]:
    """Return on what an encoder, or parts of it, were trained."""
    parts = about.get("parts", [about])
    return {part["provenance"]["device"] for part in parts if "device" in part["provenance"]}


def _by_encoder(paths: list[Path]) -> pd.DataFrame:
    """Return tables of the form {encoder}/seed{n}.csv in one, with the encoder's name."""
    return pd.concat([pd.read_csv(path).assign(encoder=encoder_of(path)) for path in paths])


if __name__ == "__main__":
    main()
