"""Open a field with its nuclei, their flags and their crops in napari.

Run this yourself, after `snakemake qc`, in an environment that has napari beside this project.
"""

import argparse
import sys
from pathlib import Path

from hcsqc.core.errors import InputError
from hcsqc.qc.field_view.find import find_field, read_study
from hcsqc.qc.field_view.layers import field_layers, show

DEFAULTS = Path(__file__).resolve().parents[2] / "config.yaml"


def main() -> None:
    """Read the flags, find the field, open it until its window is closed."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="example: python scripts/qc/open_field.py results/demo --plate 30101 --well B02 "
        "--site 1",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("study", type=Path, help="its YAML file, or the folder of its results")
    parser.add_argument("--plate", required=True)
    parser.add_argument("--well", required=True, help="such as B02")
    parser.add_argument("--site", type=int, required=True, help="field of the well, from 1")
    parser.add_argument("--screen", help="where several screens have the plate")
    parser.add_argument("--screenshot", type=Path, help="write a picture there and close")
    args = parser.parse_args()
    try:
        config, results = read_study(args.study, DEFAULTS)
        found = find_field(config, results, args.plate, args.well, args.site, args.screen)
        viewer = show(field_layers(found), found.field["field_id"])
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    if args.screenshot:
        viewer.screenshot(str(args.screenshot), canvas_only=False)
        viewer.close()
        return
    import napari

    napari.run()


if __name__ == "__main__":
    main()
