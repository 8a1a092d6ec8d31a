"""Bad fields, wells and plates: planted ones are found, others hardly ever, and counts add up."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from scipy.stats import binomtest

from hcsqc.core.errors import InputError
from hcsqc.qc.flags import (
    FIELD_COLUMNS,
    PLATE_COLUMNS,
    WELL_COLUMNS,
    FlagSettings,
    _raised,
    field_flags,
    focus_warning,
    plate_flags,
    well_flags,
    without_bad_wells,
)

SETTINGS = FlagSettings(
    empty_share=0.1,
    focus_sds=4,
    focus_drop=0.3,
    focus_edge=0.5,
    saturated_share=0.05,
    well_share=0.2,
    well_sds=4,
    well_majority=0.5,
    confidence=0.95,
)
WELLS = [f"{row}{column:02d}" for row in "ABCD" for column in range(1, 7)]
KEYS = ["Metadata_Plate", "Metadata_Well"]


def made_plate(plate: str = "P1", nuclei: int = 30, share: float = 0.08, seed: int = 0):
    """Return cells and fields of 24 wells with four fields each."""
    rng = np.random.default_rng(seed)
    places = [(well, site) for well in WELLS for site in range(1, 5)]
    fields = pd.DataFrame(places, columns=["well", "site"]).assign(
        plate=plate, role="compound", compound=None, concentration_um=np.nan, problem=None
    )
    fields["field_id"] = [f"s/{plate}/{well}/s{site}" for well, site in places]
    cells = fields.loc[fields.index.repeat(nuclei), ["plate", "well", "site"]]
    cells = cells.set_axis(["Metadata_Plate", "Metadata_Well", "Metadata_Site"], axis=1)
    cells = cells.reset_index(drop=True)
    chance = dict(zip(WELLS, expit(logit(share) + 0.3 * rng.normal(size=24)), strict=True))
    cells["score"] = 0.5
    cells["flagged"] = rng.random(len(cells)) < cells["Metadata_Well"].map(chance)
    cells["flagged"] = cells["flagged"].astype("boolean")
    cells["artefact"] = np.where(cells["flagged"], "debris", None)
    cells["focus"] = rng.normal(0, 0.02, len(cells))
    cells["edge"] = 0.2
    cells["saturated"] = 0.0
    return cells, fields


def of_field(cells: pd.DataFrame, well: str, site: int | None = None) -> pd.Series:
    """Return which cells lie in a well, or in one of its fields."""
    inside = cells["Metadata_Well"] == well
    return inside if site is None else inside & (cells["Metadata_Site"] == site)


def summary_of(fields: pd.DataFrame, failed: dict[str, str] | None = None) -> pd.DataFrame:
    """Return a summary in which fields are ok but for those that failed for a reason."""
    reason = fields["field_id"].map(failed or {})
    status = np.where(reason.notna(), "failed", "ok")
    return fields[["field_id"]].assign(found=0, kept=0, status=status, reason=reason)


def tables(cells, fields, failed=None, settings=SETTINGS):
    """Return the tables of fields, wells and plates."""
    of_fields = field_flags(cells, fields, summary_of(fields, failed), settings)
    of_wells = well_flags(cells, of_fields, settings)
    return of_fields, of_wells, plate_flags(of_wells, of_fields, cells, settings)


def row(table: pd.DataFrame, well: str, site: int | None = None) -> pd.Series:
    """Return the row of a well or of a field."""
    return table[of_field(table, well, site)].iloc[0]


def test_a_plate_without_anything_bad_has_nothing_bad_and_counts_add_up():
    cells, fields = made_plate()
    cells.loc[::7, ["score", "flagged", "artefact"]] = [None, pd.NA, None]
    of_fields, of_wells, of_plates = tables(cells, fields)
    assert (list(of_fields), list(of_wells), list(of_plates)) == (
        FIELD_COLUMNS,
        WELL_COLUMNS,
        PLATE_COLUMNS,
    )
    for table in (of_fields, of_wells, of_plates):
        assert table["nuclei"].sum() == len(cells)
        assert table["scored"].sum() == cells["flagged"].notna().sum()
        assert table["flagged"].sum() == cells["flagged"].sum()
    assert not of_fields["bad"].any()
    assert not of_wells["bad"].any()
    assert set(of_fields["reason"]) | set(of_plates["warning"]) == {""}
    one = row(of_wells, "B03")
    oracle = binomtest(int(one["flagged"]), int(one["scored"])).proportion_ci(0.95)
    assert (one["low"], one["high"]) == pytest.approx((oracle.low, oracle.high))
    assert (one["fields"], one["artefact"]) == (4, "debris")


def test_a_plate_that_is_blurred_altogether_is_out_of_focus_by_the_width_of_its_edges():
    cells, fields = made_plate()
    cells["edge"] = 0.9
    cells.loc[of_field(cells, "A03", 3), "edge"] = np.nan
    found, _, plates = tables(cells, fields)
    unknown = (found["Metadata_Well"] == "A03") & (found["Metadata_Site"] == 3)
    assert (found["out_of_focus"] == ~unknown).all()
    told = "out of focus: edges of nuclei are 0.9 nuclei wide"
    assert set(found.loc[~unknown, "reason"]) == {told}
    assert f"{len(found) - 1} of its {len(found)} fields are bad" in plates["warning"][0]


@pytest.mark.parametrize(
    ("edges", "told"),
    [
        ([0.25, 0.27, 0.29, 0.30], ""),
        ([0.1] * 18 + [0.22] * 6, ""),  # twice as wide, and still sharp
        ([0.27, 0.28, 0.29, 0.31, 1.4, 1.5, 1.6], "3 of its 7 fields are blurred: "),
        ([0.9] * 6, "6 of its 6 fields are blurred: "),
        ([0.2] * 30 + [1.4], ""),  # one field is bad, not the plate
        ([0.2] * 30 + [1.4] * 3, ""),  # nor for less than a tenth
        ([0.15] * 8 + [0.45] * 8, "its focus varies: "),
        ([np.nan] * 4, ""),
        ([np.nan] * 40 + [0.2, 1.2, 1.3], "2 of its 3 fields are blurred: "),
    ],
)
def test_a_plate_is_warned_of_when_its_focus_is_of_two_kinds_or_wide(edges, told):
    found = focus_warning(pd.Series(edges, dtype=float), SETTINGS.focus_edge)
    assert found.startswith(told) and bool(found) == bool(told)


def test_the_edge_of_a_field_is_that_of_its_median_cell_and_reaches_the_plates_warning():
    cells, fields = made_plate()
    inside = cells["Metadata_Well"].isin(WELLS[:4])  # 16 of 96 fields
    cells.loc[inside, "edge"] = 1.2
    cells.loc[of_field(cells, "A05", 1) & (cells.groupby(KEYS).cumcount() < 10), "edge"] = 3.0
    found, _, plates = tables(cells, fields)
    assert row(found, "A01", 2)["edge"] == 1.2 and row(found, "A05", 1)["edge"] == 0.2
    assert plates["warning"].tolist() == [
        "16 of its 96 fields are blurred: edges of nuclei are usually 1.20 nuclei wide there "
        "(limit 0.5), in the others 0.20"
    ]


def test_fields_are_bad_for_what_was_planted():
    cells, fields = made_plate()
    cells = cells[~of_field(cells, "A01", 1) | (cells.groupby(KEYS).cumcount() < 2)]
    cells = cells[~of_field(cells, "A02", 2) & ~of_field(cells, "D06", 4)]
    cells.loc[of_field(cells, "A03", 3), "focus"] -= 0.5
    cells.loc[of_field(cells, "A04", 1), "focus"] -= 0.2  # many deviations, but little
    cells.loc[of_field(cells, "A05", 1), "saturated"] = 0.2
    cells.loc[of_field(cells, "A06", 1), "flagged"] = True
    found, wells, _ = tables(cells, fields, {"s/P1/D06/s4": "channel w1: no such file"})
    bad = found[found["bad"]].set_index(["Metadata_Well", "Metadata_Site"])
    assert sorted(bad.index) == [
        ("A01", 1), ("A02", 2), ("A03", 3), ("A05", 1), ("A06", 1), ("D06", 4),
    ]  # fmt: skip
    assert bad["reason"].tolist() == [
        "2 nuclei, the plate's fields usually 30",
        "0 nuclei, the plate's fields usually 30",
        "out of focus: log sharpness -0.5, the plate's fields usually 0.0",
        "20% of a usual cell is saturated",
        "100% of its 30 cells are flagged, the plate's fields usually 7%",
        "channel w1: no such file",
    ]
    assert bad["empty"].tolist() == [True, True, False, False, False, False]
    assert bad["out_of_focus"].sum() == bad["saturated"].sum() == 1
    # One bad field of four, and in A06 a third of all cells.
    assert wells.loc[wells["bad"], "Metadata_Well"].tolist() == ["A06"]


def test_a_well_is_bad_for_its_cells_or_for_most_of_its_fields():
    cells, fields = made_plate()
    inside = of_field(cells, "B02")
    cells.loc[inside, "flagged"] = np.arange(120) % 5 < 3
    cells.loc[inside, "artefact"] = np.where(np.arange(120) % 5 < 2, "blur", "debris")
    cells = cells[~(of_field(cells, "C03") & (cells["Metadata_Site"] < 4))]
    cells = cells[~(of_field(cells, "C04") & (cells["Metadata_Site"] < 3))]
    _, wells, plates = tables(cells, fields)
    assert wells.loc[wells["bad"], "Metadata_Well"].tolist() == ["B02", "C03"]
    assert row(wells, "B02")["reason"].startswith(
        "60% of its 120 cells are flagged, the plate's wells usually 8%"
    )
    assert row(wells, "B02")["artefact"] == "blur"
    assert row(wells, "C03")["reason"] == "3 of its 4 fields are bad"
    assert plates.iloc[0][["wells", "bad_wells", "fields"]].tolist() == [24, 2, 96]


def test_a_well_in_which_nothing_was_scored_has_no_share():
    cells, fields = made_plate()
    cells.loc[of_field(cells, "B02"), ["flagged", "artefact"]] = [pd.NA, None]
    lost = cells[~of_field(cells, "B03")]
    _, wells, _ = tables(lost, fields)
    for well, bad in (("B02", False), ("B03", True)):
        assert row(wells, well)[["flagged_share", "low", "high"]].isna().all()
        assert row(wells, well)["bad"] == bad
        assert row(wells, well)["scored"] == 0


def test_a_plate_unlike_the_others_is_warned_of():
    parts = [made_plate(f"P{i}", share=0.6 if i == 3 else 0.08, seed=i) for i in range(4)]
    cells, fields = (pd.concat(tables, ignore_index=True) for tables in zip(*parts, strict=True))
    _, wells, plates = tables(cells, fields)
    assert not wells["bad"].any()
    warned = plates.set_index("Metadata_Plate")["warning"]
    assert warned["P3"].endswith("% of its cells are flagged")
    assert set(warned.drop("P3")) == {""}
    assert (plates["low"] < plates["flagged_share"]).all()
    assert plates["feature_shift"].isna().all()
    shifts = pd.DataFrame({"Metadata_Plate": ["P3"], "feature_shift": [2.0], "score_shift": [0.4]})
    of_fields = field_flags(cells, fields, summary_of(fields), SETTINGS)
    shifted = plate_flags(wells, of_fields, cells, SETTINGS, shifts)
    assert shifted["feature_shift"].tolist()[3] == 2
    assert shifted["score_shift"].isna().tolist() == [True, True, True, False]


def test_plates_that_are_all_mostly_flagged_are_all_warned_of():
    parts = [made_plate(f"P{i}", share=0.5, seed=i) for i in range(3)]
    cells, fields = (pd.concat(tables, ignore_index=True) for tables in zip(*parts, strict=True))
    warned = tables(cells, fields)[2]["warning"]
    assert warned.str.fullmatch(r"\d\d% of its cells are flagged").all()


def test_a_screen_without_cells_has_tables_too():
    cells, fields = made_plate()
    _, wells, plates = tables(cells.iloc[:0], fields)
    assert wells["bad"].all()  # all fields are empty
    assert plates["warning"].tolist() == [
        "no cell was scored; 24 of its 24 wells are bad; 96 of its 96 fields are bad"
    ]


def simulated(wells, cells, spread, planted, plates=200, seed=0):
    """Return wells of many plates whose shares vary around 10%, and which have 60% instead."""
    rng = np.random.default_rng(seed)
    plate = np.repeat(np.arange(plates), wells)
    share = expit(logit(0.1) + spread * rng.normal(size=len(plate)))
    bad = np.tile(np.arange(wells) < planted, plates)
    share[bad] = 0.6
    scored = rng.poisson(cells, len(plate))
    flagged = rng.binomial(scored, share)
    table = pd.DataFrame({"Metadata_Plate": plate, "scored": scored, "flagged": flagged})
    return table.assign(flagged_share=flagged / scored), bad


@pytest.mark.parametrize(("wells", "cells"), [(4, 120), (24, 120), (96, 120), (96, 500)])
@pytest.mark.parametrize("spread", [0, 0.3, 0.5])
def test_plates_without_bad_wells_hardly_ever_have_one(wells, cells, spread):
    table, _ = simulated(wells, cells, spread, 0)
    raised, _ = _raised(table, SETTINGS)
    assert raised.groupby(table["Metadata_Plate"]).any().mean() < 0.05


@pytest.mark.parametrize("wells", [24, 96])
def test_planted_wells_are_found(wells):
    table, bad = simulated(wells, 120, 0.3, 2)
    raised, expected = _raised(table, SETTINGS)
    assert raised[bad].mean() > 0.9
    assert expected.mean() == pytest.approx(0.1, abs=0.01)


def test_a_share_too_small_to_matter_is_not_bad():
    cells, fields = made_plate(nuclei=60)
    cells["flagged"] = False
    cells.loc[of_field(cells, "B02"), "flagged"] = np.arange(240) % 10 < 1
    _, wells, _ = tables(cells, fields)
    assert not wells["bad"].any()
    _, wells, _ = tables(cells, fields, settings=replace(SETTINGS, well_share=0.05))
    assert wells.loc[wells["bad"], "Metadata_Well"].tolist() == ["B02"]


def test_cells_of_an_unknown_field_are_refused():
    cells, fields = made_plate()
    with pytest.raises(InputError, match="there is no field P1/A01/1 in the table of fields"):
        field_flags(cells, fields.iloc[1:], summary_of(fields.iloc[1:]), SETTINGS)


def load_data() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "FileName_DNA": list("abcdef"),
            "Metadata_Plate": [7, 7, 7, 7, 8, 9],
            "Metadata_Well": ["b2", "A1", "A01", "B02", "A1", "A1"],
            "Metadata_Site": ["1", "1", "02", "2", "1", "1"],
        },
        index=[5, 4, 3, 2, 1, 0],
    )


def test_bad_wells_and_fields_leave_a_table_that_is_as_it_was():
    table = load_data()
    wells = pd.DataFrame(
        {"Metadata_Plate": ["7", "8"], "Metadata_Well": ["A01", "A01"], "bad": [True, False]}
    )
    kept = without_bad_wells(table, wells)
    pd.testing.assert_frame_equal(kept, table.loc[[5, 2, 1, 0]])
    fields = wells.assign(Metadata_Site=[2, 1])
    pd.testing.assert_frame_equal(without_bad_wells(table, fields), table.loc[[5, 4, 2, 1, 0]])
    assert without_bad_wells(table.iloc[:0], wells).columns.tolist() == table.columns.tolist()


def test_a_table_that_names_no_wells_or_sites_is_refused():
    table, wells = load_data(), pd.DataFrame(columns=["Metadata_Plate", "Metadata_Well", "bad"])
    with pytest.raises(InputError, match="LoadData table: column 'Metadata_Well' is missing"):
        without_bad_wells(table.drop(columns="Metadata_Well"), wells)
    with pytest.raises(
        InputError, match="LoadData table: XY in Metadata_Well: not a well name such as"
    ):
        without_bad_wells(table.iloc[:1].assign(Metadata_Well="XY"), wells)
    fields = wells.assign(Metadata_Site=[])
    with pytest.raises(InputError, match="LoadData table: x in Metadata_Site: not a whole number"):
        without_bad_wells(table.assign(Metadata_Site="x"), fields)


def raised_of(shares: np.ndarray) -> list[bool]:
    """Return which wells of a plate are raised, of 120 cells each."""
    flagged = np.round(120 * shares)
    table = pd.DataFrame({"Metadata_Plate": "p", "scored": 120, "flagged": flagged})
    return _raised(table.assign(flagged_share=flagged / 120), SETTINGS)[0].tolist()


def test_a_mostly_flagged_well_is_bad_however_much_the_plates_wells_vary():
    shares = np.tile([0.02, 0.1, 0.3, 0.45], 6)
    shares[[3, 7]] = 0.95
    assert raised_of(shares) == (shares == 0.95).tolist()
    # Where the usual well is as bad, the plate is at fault, not the well.
    assert not any(raised_of(np.tile([0.9, 0.7, 0.55, 0.2], 6)))
