"""Choose crops of a screen and write the page on which people label them in a browser."""

from pathlib import Path

from hcsqc.core import cli
from hcsqc.core.files import atomic
from hcsqc.crops.shards import Shards
from hcsqc.qc.field_view.images import field_source
from hcsqc.qc.label_page.inputs import (
    check_places,
    context_source,
    contexts,
    labelled_crops,
    random_labels,
    read_scores,
)
from hcsqc.qc.label_page.page import (
    Counts,
    choose_crops,
    page_crops,
    render_label_page,
)
from hcsqc.qc.label_page.promise import Asked, wells_of_promise


def main() -> None:
    """Read the flags, the crops and what is known of them; write the page."""
    parser = cli.parser(__doc__)
    parser.add_argument("--screen", required=True)
    parser.add_argument("--crops", type=Path, nargs="+", required=True)
    parser.add_argument("--composite", nargs="+", required=True, help="channels, in order")
    parser.add_argument(
        "--labels", type=Path, nargs="*", default=[], help="all, not to be chosen again; random"
    )
    parser.add_argument("--features", type=Path, nargs="*", default=[], help="for diverse crops")
    parser.add_argument("--scores", type=Path, nargs="*", default=[], help="for uncertain crops")
    parser.add_argument("--fields", type=Path, nargs="*", default=[], help="for the context")
    parser.add_argument("--images", help="folder or URL, may hold {plate}")
    parser.add_argument("--window-px", type=float, help="side of a crop, source pixels")
    parser.add_argument("--z-projection", help="max, mean or middle of a stack's planes")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--output", type=Path, required=True, help="HTML")
    cli.add_settings(parser, Counts)
    cli.add_settings(parser, Asked)
    cli.run(write_page, parser.parse_args())


def write_page(args, record) -> None:
    """Write the page that the arguments describe."""
    shards = Shards(args.crops)
    crops = shards.index
    check_places(crops, args.screen)
    labelled, random = [], None
    if args.labels:
        of_all, of_random = args.labels
        labelled = labelled_crops(of_all, args.screen, len(crops))
        random = random_labels(of_random)
    chosen = choose_crops(
        crops["crop_id"][~crops["crop_id"].isin(labelled)],
        cli.settings_from(args, Counts),
        args.seed,
        read_scores(args.scores) if args.scores else None,
        args.features,
        [] if random is None else random["crop_id"].tolist(),
    )
    promise = wells_of_promise(
        cli.settings_from(args, Asked), crops["crop_id"].tolist(), random, chosen
    )
    fields = field_source(args.fields, args.images, args.z_projection)
    source = context_source(fields, args.window_px)
    pictures = contexts(shards, chosen, args.composite, source)
    page = render_label_page(
        args.screen,
        shards.format.channels,
        args.composite,
        shards.format.size_px,
        list(page_crops(shards, chosen, pictures)),
        promise=promise,
    )
    with atomic(args.output) as temporary:
        temporary.write_text(page, encoding="utf-8")
    counts = chosen["selection"].value_counts()
    record.metrics = {f"crops_{way}": int(count) for way, count in counts.items()}
    record.metrics |= {"contexts": sum(picture is not None for picture in pictures)}
    record.metrics |= {"page_mb": len(page) / 1e6}
    record.metrics |= {"wells_labelled": len(promise.labelled), "wells_needed": promise.needed}
    told = ", ".join(f"{count} {way}" for way, count in counts.items())
    print(f"{args.output}: {len(chosen)} crops ({told}), {len(page) / 1e6:.1f} MB. {promise.text}")


if __name__ == "__main__":
    main()
