"""The workflow on the eight real fields of BBBC022 that the project holds."""

from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import Project

pytestmark = [pytest.mark.dag, pytest.mark.long]
# The smoke study with less to train, so that a test can wait for it.
LESS = """
study: {encoders: [efficientnet_lite0, simclr]}
presets: {paper: {common: {input_px: 32, epochs: 1}}}
encoders: {efficientnet_lite0: {input_px: 32}}
probes: {finetune: {least_steps: 1, epochs: 1, milestones: [1]}}
"""


@pytest.fixture(scope="module")
def smoke(tmp_path_factory) -> Path:
    project = Project(tmp_path_factory.mktemp("smoke"))
    (project.folder / "less.yaml").write_text(LESS)
    done = project.run(
        "--profile", "profiles/smoke", "--configfile", "profiles/smoke/study.yaml", "less.yaml"
    )
    assert done.returncode == 0, done.stdout[-6000:]
    return project.folder / "results/smoke"


def test_fields_are_indexed_with_compound_and_role(smoke):
    fields = pd.read_parquet(smoke / "screens/fields/20585.fields.parquet").set_index("field_id")
    assert len(fields) == 8
    first = fields.loc["fields/20585/A01/s1"]
    assert (first["compound"], first["role"]) == ("NIFLUMIC ACID", "compound")
    assert first["concentration_um"] == pytest.approx(8.858401198)
    assert fields["problem"].isna().all()


def test_real_data_is_seen_as_12_bit_and_saturation_stays_visible(smoke):
    scale = pd.read_parquet(smoke / "screens/fields/20585.scale.parquet")
    assert (scale["bits"] == 12).all()
    assert (scale["top"] == 4095).all()


def test_about_700_nuclei_and_400_whole_crops_are_found(smoke):
    summary = pd.read_parquet(smoke / "crops/fields/20585.summary.parquet")
    assert 620 <= summary["found"].sum() <= 780
    assert 350 <= summary["kept"].sum() <= 450
    assert (summary["found"] == summary["kept"] + summary["dropped"]).all()


def test_a_crop_and_its_degraded_copy_are_on_one_side_of_every_split(smoke):
    splits = pd.read_parquet(smoke / "splits/degraded.parquet")
    well = splits["crop_id"].str.split("/").str[2]
    parts = splits["part"].groupby([splits["draw"], well]).nunique()
    assert (parts == 1).all()
    assert splits["crop_id"].str.contains("/blur$").any()


def test_the_report_calls_itself_a_smoke_test_and_ranks_nothing(smoke):
    page = (smoke / "report/index.html").read_text()
    assert "This is a smoke test" in page
    assert "Highest F1" not in page
    assert "fields is a real screen" in page


def test_tables_hold_scores_at_every_budget(smoke):
    table = pd.read_csv(smoke / "tables/table2.csv")
    knn = table[(table["probe"] == "knn") & (table["status"] == "run")]
    assert set(knn["budget"]) == {100, 50, 25, 10}
    assert set(knn["encoder"]) == {"efficientnet_lite0", "simclr"}
