"""The tables of quality control in pycytominer: read, joined, filtered and aggregated."""

import numpy as np
import pandas as pd
import pytest
from pycytominer import aggregate
from pycytominer.cyto_utils import load_profiles

from hcsqc.core.errors import InputError
from hcsqc.core.schema import TABLES, write_table
from hcsqc.qc.profiles import CENTRE, PLACE, with_flags

STRATA = ["Metadata_Plate", "Metadata_Well"]


@pytest.fixture
def cells() -> pd.DataFrame:
    """Four fields of 25 cells on a grid, every fifth flagged, the last of each not scored."""
    rows = []
    for well in ("B02", "B03"):
        for site in (1, 2):
            for i in range(25):
                place = {"Metadata_Plate": "p1", "Metadata_Well": well, "Metadata_Site": site}
                place |= dict(zip(CENTRE, (40.0 * (i % 5), 40.0 * (i // 5)), strict=True))
                scored = i < 24
                rows.append(
                    {
                        "crop_id": f"sim/p1/{well}/s{site}/x{i:04d}y0000",
                        **place,
                        "Nuclei_AreaShape_Area": 200.0,
                        "score": i / 25 if scored else None,
                        "probability": i / 25 if scored else None,
                        "threshold": 0.5,
                        "flagged": i % 5 == 0 if scored else None,
                        "artefact": "blur" if scored and i % 5 == 0 else None,
                        "focus": 1.0,
                        "edge": 0.2,
                        "saturated": 0.0,
                        "reason": None if scored else "border",
                    }
                )
    return pd.DataFrame(rows)[TABLES["cells"].columns.names].astype(
        {"Metadata_Site": "int32", "flagged": "boolean"}
    )


def profiles_of(cells: pd.DataFrame) -> pd.DataFrame:
    """Return a table like CellProfiler's of the same cells, elsewhere by a pixel, in another order.

    Flagged cells have a thousand times the intensity of the others.
    """
    rng = np.random.default_rng(0)
    found = cells[[*PLACE, *CENTRE]].copy()
    found[CENTRE] += rng.uniform(-1, 1, (len(found), 2))
    flagged = cells["flagged"].fillna(False).to_numpy(bool)
    found["Cells_Intensity_MeanIntensity_DNA"] = np.where(flagged, 1000.0, 1.0) * rng.uniform(
        0.9, 1.1, len(found)
    )
    found["source_row"] = cells.index
    return found.sample(frac=1, random_state=0).reset_index(drop=True)


def test_each_profile_gets_the_flag_of_its_own_cell(cells):
    profiles = profiles_of(cells)
    joined = with_flags(profiles, cells, 5)
    pd.testing.assert_frame_equal(joined[profiles.columns], profiles)
    expected = cells.loc[profiles["source_row"]]
    assert joined["flagged"].equals(expected["flagged"].reset_index(drop=True))
    np.testing.assert_array_equal(joined["score"], expected["score"])


def test_a_profile_without_a_near_nucleus_or_of_another_field_has_no_flag(cells):
    profiles = profiles_of(cells)
    profiles.loc[0, CENTRE[0]] += 15
    profiles.loc[1, "Metadata_Well"] = "C05"
    joined = with_flags(profiles, cells, 5)
    assert joined["flagged"][:2].isna().all() and joined["score"][:2].isna().all()
    assert joined["score"][2:].notna().sum() >= len(profiles) - 2 - 4


@pytest.mark.parametrize("table", ["Image", "Nuclei", "Cytoplasm"])
def test_names_and_types_of_cytotable_are_understood(table, cells):
    """As CytoTable 1.2.6 writes CellProfiler's CSV files: plates that look so become numbers."""
    cells["Metadata_Plate"] = "30001"
    profiles = profiles_of(cells)
    expected = with_flags(profiles, cells, 5)[["score", "flagged"]]
    converted = profiles.astype({"Metadata_Plate": "int64", "Metadata_Site": "int64"}).rename(
        columns={"Metadata_Site": f"{table}_Metadata_Site"}
    )
    pd.testing.assert_frame_equal(with_flags(converted, cells, 5)[["score", "flagged"]], expected)
    assert expected["score"].notna().any()


def test_profiles_without_a_place_have_no_flag_and_change_no_other(cells):
    cells["Metadata_Plate"] = "30001"
    profiles = profiles_of(cells).astype({"Metadata_Plate": float, "Metadata_Site": object})
    expected = with_flags(profiles, cells, 5)["score"].to_numpy(float)
    profiles.loc[0, "Metadata_Plate"] = np.nan
    profiles.loc[1, "Metadata_Site"] = None
    profiles.loc[2, "Metadata_Site"] = "s1"
    profiles.loc[3, "Metadata_Site"] = 1.7
    profiles.loc[4, "Metadata_Plate"] = 30001.5
    found = with_flags(profiles, cells, 5)["score"].to_numpy(float)
    assert np.isnan(found[:5]).all() and not np.isnan(expected[:5]).all()
    np.testing.assert_array_equal(found[5:], expected[5:])


def test_profiles_of_other_fields_alone_are_an_error(cells):
    profiles = profiles_of(cells).assign(Metadata_Well="B2", Metadata_Site=0)
    with pytest.raises(
        InputError, match="the first row is of .* p1 B2 0, the first cell is of p1 B02 1: "
    ):
        with_flags(profiles, cells, 5)


def test_a_table_without_centres_is_an_error(cells):
    with pytest.raises(InputError, match="profiles: column 'Nuclei_Location_Center_X' is missing"):
        with_flags(profiles_of(cells).drop(columns=CENTRE), cells, 5)


def test_pycytominer_aggregates_what_is_left_after_the_flags(cells, tmp_path):
    write_table(cells, tmp_path / "cells.parquet", "cells")
    read = pd.read_parquet(tmp_path / "cells.parquet")
    joined = with_flags(profiles_of(cells), read, 5)
    good = joined[~joined["flagged"].astype("boolean").fillna(False)]
    feature = "Cells_Intensity_MeanIntensity_DNA"
    wells = aggregate(good, strata=STRATA, features=[feature], operation="mean")
    assert wells["Metadata_Well"].tolist() == ["B02", "B03"]
    assert wells[feature].between(0.9, 1.1).all()
    spoilt = aggregate(joined, strata=STRATA, features=[feature], operation="mean")
    assert (spoilt[feature] > 100).all()


def test_pycytominer_reads_the_table_of_cells_itself(cells, tmp_path):
    path = tmp_path / "cells.parquet"
    write_table(cells, path, "cells")
    wells = aggregate(load_profiles(path), strata=STRATA, features=["score"], operation="mean")
    np.testing.assert_allclose(
        wells["score"], cells.groupby("Metadata_Well")["score"].mean(), rtol=1e-12
    )
