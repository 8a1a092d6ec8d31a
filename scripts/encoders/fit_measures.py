"""Write an encoder that measures crops instead of learning from them."""

from pathlib import Path

from hcsqc.core import cli
from hcsqc.crops.training_crops import training_crops
from hcsqc.encoders.measures import MEASURES, measured_encoder
from hcsqc.encoders.store import save_encoder


def main() -> None:
    """Read the flags and crops, write the encoder."""
    parser = cli.parser(__doc__)
    parser.add_argument("--measures", choices=MEASURES, required=True)
    parser.add_argument("--kind", choices=("control", "classical"), required=True)
    parser.add_argument("--region", choices=("window", "cell"), default="window")
    parser.add_argument("--crops", type=Path, nargs="+", required=True)
    parser.add_argument("--composite", nargs="+", required=True, help="channels, in order")
    parser.add_argument("--without-wells", nargs="*", required=True, help="never looked at")
    parser.add_argument("--at-most-crops", type=int, required=True, help="to standardise over")
    parser.add_argument("--output", type=Path, required=True)
    cli.run(fit, parser.parse_args())


def fit(args, record) -> None:
    """Fit the measures that the arguments name."""
    crops = training_crops(args.crops, args.composite, args.without_wells, args.at_most_crops)
    encoder = measured_encoder(args.measures, args.kind, crops, args.region)
    save_encoder(encoder, args.output)
    record.parameters = {"crops": len(crops)}
    record.metrics = {"width": encoder.width}


if __name__ == "__main__":
    main()
