"""A plate without a single nucleus among good ones: the others go on, and it is listed."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
import yaml

from tests.conftest import EXAMPLE, Project

pytestmark = [pytest.mark.dag, pytest.mark.long, pytest.mark.faults]

BLANK = "20586"


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """Return the results of the eight real fields and a plate of the camera's noise alone."""
    project = Project(tmp_path_factory.mktemp("blank"))
    images = project.folder / "images"
    rng = np.random.default_rng(0)
    for path in (EXAMPLE / "images").rglob("*.tif"):
        pixels = tifffile.imread(path)
        good = images / path.relative_to(EXAMPLE / "images")
        blank = Path(str(good).replace("20585", BLANK))
        for target in (good, blank):
            target.parent.mkdir(parents=True, exist_ok=True)
        good.symlink_to(path)
        noise = rng.normal(110, 4, pixels.shape).round()
        tifffile.imwrite(blank, noise.astype(np.uint16))
    header, *rows = (EXAMPLE / "image.csv").read_text().splitlines()
    rows += [row.replace("20585", BLANK) for row in rows]
    (project.folder / "image.csv").write_text("\n".join([header, *rows]) + "\n")
    config = yaml.safe_load((EXAMPLE / "study.yaml").read_text())
    own, derived = config["screens"].values()
    own |= {"images": "images", "image_csv": "image.csv"}
    for entry in (own, derived):
        entry["plates"] = entry["pretrain_plates"] = ["20585", BLANK]
    # The encoder does not matter here, and this one takes no network.
    config["study"]["encoders"], config["qc"]["encoder"] = (
        ["image_quality_cell"],
        "image_quality_cell",
    )
    (project.folder / "study.yaml").write_text(yaml.safe_dump(config))
    done = project.run("qc", "label_pages", "--cores", "2", "--configfile", "study.yaml")
    assert done.returncode == 0, done.stdout[-6000:]
    return project.folder / "results/bbbc022"


def test_the_empty_plate_is_listed_with_a_warning(study):
    plates = pd.read_csv(study / "qc/bbbc022/plates.csv", dtype={"Metadata_Plate": str})
    empty = plates.set_index("Metadata_Plate").loc[BLANK]
    assert empty[["nuclei", "scored", "flagged"]].tolist() == [0, 0, 0]
    assert empty["fields"] == empty["bad_fields"] == 8
    assert "no cell was scored" in empty["warning"]
    assert BLANK in (study / "qc/bbbc022/report.html").read_text(encoding="utf-8")


def test_the_others_go_on(study):
    cells = pd.read_parquet(study / "qc/bbbc022/cells.parquet")
    assert set(cells["Metadata_Plate"]) == {"20585"}
    assert cells["score"].notna().sum() > 300 and cells["flagged"].any()
    fields = pd.read_csv(study / "qc/bbbc022/fields.csv", dtype={"Metadata_Plate": str})
    assert not fields[fields["Metadata_Plate"] == "20585"]["bad"].any()
