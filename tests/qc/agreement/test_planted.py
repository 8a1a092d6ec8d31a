"""What was planted into a simulated screen beside what was found in it."""

import numpy as np
import pandas as pd
import pytest

from hcsqc.qc.agreement.planted import planted_and_found
from hcsqc.qc.cells import cells_of
from tests.qc.test_cells import THRESHOLD, nuclei, scores_of


def test_planted_artefacts_and_wells_stand_beside_what_was_found():
    rows = nuclei(7)
    cells = cells_of(rows, scores_of(rows, [0.1, 0.9, 0.1, 0.9, 0.9, 0.1]), THRESHOLD)
    truth = pd.DataFrame(
        {
            "plate": "p1",
            "well": ["B02", "B03"] * 3,
            "site": 1,
            "x_px": rows["x_px"][:6] + 2,
            "y_px": 7,
            "artefact": ["none", "blur", "none", "blur", "none", "blur"],
            "strength": 0.5,
            "scope": ["cell", "field"] * 3,
            "artefact_px": [np.nan, 0, 9, 0, 2, 0],
        }
    )
    wells = pd.DataFrame(
        {"Metadata_Plate": "p1", "Metadata_Well": ["B02", "B03"], "bad": [True, True]}
    )
    fields = wells.assign(Metadata_Site=1, bad=[False, True])
    threshold = {"prevalence": [0.4, 0.3, 0.6]}
    table = planted_and_found(truth, cells, fields, wells, threshold, 5, 6).set_index("what")
    assert table.loc["nuclei", ["planted", "found"]].tolist() == [6, 7]
    share = table.loc["share of scored cells with an artefact"]
    assert share[["planted", "found", "low", "high"]].tolist() == [0.5, 0.4, 0.3, 0.6]
    rows = [{"method": "DyS", "estimate": 0.2, "low": 0.1, "high": 0.3}]
    threshold = {"prevalence": None, "prevalence_by_method": rows}
    without = planted_and_found(truth, cells, fields, wells, threshold, 5, 6).set_index("what")
    share = without.loc["share of scored cells with an artefact"]
    assert share[["found", "low", "high"]].tolist() == [0.2, 0.1, 0.3]
    assert table.loc["share of these that is flagged", "found"] == pytest.approx(2 / 3)
    assert table.loc["share of good cells flagged", "found"] == pytest.approx(1 / 3)
    assert table.loc["share of good cells near no artefact flagged", "found"] == 0
    assert table.loc["degraded fields that are bad", ["planted", "found"]].tolist() == [1, 1]
    assert table.loc["mostly good fields that are bad", "found"] == 0
    assert table.loc["degraded wells that are bad", ["planted", "found"]].tolist() == [1, 1]
    assert table.loc["mostly good wells that are bad", "found"] == 1
    # Dirt of a field that only one of three cells of B03 has in reach spoils neither.
    sparse = truth.assign(
        artefact=["none", "debris", *["none"] * 4], scope=["cell", "field", *["cell"] * 4]
    )
    table = planted_and_found(sparse, cells, fields, wells, threshold, 5, 6).set_index("what")
    for name in ("fields", "wells"):
        assert table.loc[f"degraded {name} that are bad", ["planted", "found"]].tolist() == [0, 0]
    assert table.loc["mostly good fields that are bad", "found"] == 1
