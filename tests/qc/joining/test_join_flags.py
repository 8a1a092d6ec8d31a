"""Flags written into the tables of other programs by a command: cells, wells, what is said."""

import gzip
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycytominer import aggregate

from hcsqc.core.errors import InputError
from hcsqc.core.schema import TABLES, write_csv, write_table
from hcsqc.qc.joining.join import is_of_cells, join_cells, join_wells, key_columns, read_wells
from hcsqc.qc.profiles import CENTRE, PLACE
from scripts.qc import join_flags as command

PLATE = "0042"
COUNTS = ["hcsqc_nuclei", "hcsqc_scored", "hcsqc_flagged_cells", "hcsqc_flagged_share", "hcsqc_bad"]


def made_cells(plate: str = PLATE) -> pd.DataFrame:
    """Return two wells of one field with 10 cells each: every fifth flagged, the last not scored.

    In B03 three more are flagged.
    """
    rows = []
    for well in ("B02", "B03"):
        for i in range(10):
            scored, flagged = i < 9, i % 5 == 0 or (well == "B03" and i > 4)
            centre = dict(zip(CENTRE, (40.0 * (i % 5) + 9, 40.0 * (i // 5) + 9), strict=True))
            rows.append(
                {
                    "crop_id": f"s/{plate}/{well}/s1/x{i:04d}y0000",
                    **dict(zip(PLACE, (plate, well, 1), strict=True)),
                    **centre,
                    "Nuclei_AreaShape_Area": 200.0,
                    "score": i / 10 if scored else None,
                    "probability": i / 10 if scored else None,
                    "threshold": 0.5,
                    "flagged": flagged if scored else None,
                    "artefact": "blur" if scored and flagged else None,
                    "focus": 1.0,
                    "edge": 0.2,
                    "saturated": 0.0,
                    "reason": None if scored else "border",
                }
            )
    table = pd.DataFrame(rows)[TABLES["cells"].columns.names]
    return table.astype({"Metadata_Site": "int32", "flagged": "boolean"})


def made_wells(cells: pd.DataFrame) -> pd.DataFrame:
    """Return what wells.csv holds of them; B03 is bad."""
    flags = cells.assign(scored=cells["score"].notna(), flagged=cells["flagged"] == True)  # noqa: E712
    wells = flags.groupby(PLACE[:2]).agg(
        nuclei=("crop_id", "size"), scored=("scored", "sum"), flagged=("flagged", "sum")
    )
    wells["flagged_share"] = wells["flagged"] / wells["scored"]
    wells["bad"] = wells.index.get_level_values(1) == "B03"
    return wells.assign(reason="").reset_index()


@pytest.fixture
def flags(tmp_path):
    """The folder of a screen's flags."""
    folder = tmp_path / "flags"
    folder.mkdir()
    write_table(made_cells(), folder / "cells.parquet", "cells")
    write_csv(made_wells(made_cells()), folder / "wells.csv")
    return folder


def run(*words) -> None:
    old = sys.argv
    sys.argv = [command.__file__, *map(str, words)]
    try:
        command.main()
    finally:
        sys.argv = old


def refusal(*words) -> str:
    with pytest.raises(SystemExit) as ended:
        run(*words)
    text = str(ended.value.code)
    assert text.startswith("error: ") and "\n" not in text
    return text


def profiles_of(cells: pd.DataFrame) -> pd.DataFrame:
    """Return CellProfiler's table of the same cells, up to a pixel away, in another order."""
    away = np.random.default_rng(0).uniform(-0.7, 0.7, (len(cells), 2))
    places = cells[PLACE].assign(Metadata_Well=cells["Metadata_Well"].replace("B02", "b2"))
    table = pd.DataFrame({"ImageNumber": 1, "ObjectNumber": range(1, len(cells) + 1)})
    table = table.join(places).join((cells[CENTRE] + away).set_axis(CENTRE, axis=1))
    table["Cells_Intensity_Mean_DNA"] = "-inf"
    return table.sample(frac=1, random_state=0).reset_index(drop=True)


def expected_of(profiles: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    own = cells.iloc[profiles["ObjectNumber"].astype(int) - 1].reset_index(drop=True)
    return own[["score", "flagged", "artefact"]]


# Single cells


@pytest.mark.parametrize("ending", [".csv", ".csv.gz"])
def test_cellprofilers_csv_is_kept_to_the_letter_with_the_flags_of_its_cells(
    flags, tmp_path, capsys, ending
):
    profiles = profiles_of(made_cells()).rename(
        columns={CENTRE[0]: "Location_Center_X", CENTRE[1]: "Location_Center_Y"}
    )
    path = tmp_path / f"Nuclei{ending}"
    profiles.to_csv(path)  # with pandas' index, a column without a name
    run(path, "--flags", flags / "cells.parquet")
    output = tmp_path / f"Nuclei_flagged{ending}"
    opened = gzip.open if ending.endswith(".gz") else open
    with opened(output, "rt") as new, opened(path, "rt") as old:
        for line, before in zip(new, old, strict=True):
            assert line.startswith(before.rstrip("\n") + ",")
    found = pd.read_csv(output)
    expected = expected_of(profiles, made_cells())
    np.testing.assert_allclose(found["hcsqc_score"], expected["score"])
    assert found["hcsqc_flagged"].astype("boolean").equals(expected["flagged"])
    assert found["hcsqc_artefact"].fillna("").tolist() == expected["artefact"].fillna("").tolist()
    told = capsys.readouterr().out
    assert "single cells: 20 of 20 rows joined, 0 not" in told
    assert "spelling: plate, well, site '0042 b2 1' of the profiles is '0042 B02 1'" in told or (
        "spelling: plate, well, site '0042 B03 1' of the profiles is '0042 B03 1'" in told
    )
    assert (
        "joined, but not scored (cells.parquet says why): 2" in told and "flagged: 7 of 18" in told
    )


def test_cytotables_parquet_keeps_its_types_and_metadata(tmp_path, capsys):
    cells = made_cells("30001")
    write_table(cells, tmp_path / "cells.parquet", "cells")
    profiles = profiles_of(cells).astype({"Metadata_Plate": "int64"})
    profiles = profiles.rename(
        columns={
            "Metadata_Site": "Image_Metadata_Site",
            CENTRE[0]: f"Metadata_{CENTRE[0]}",
            CENTRE[1]: f"Metadata_{CENTRE[1]}",
        }
    ).drop(columns="ImageNumber")
    table = pa.Table.from_pandas(profiles, preserve_index=False)
    kind = pa.array(["a"] * len(profiles)).dictionary_encode()
    table = table.append_column("kind", kind).replace_schema_metadata({"made": "by CytoTable"})
    path = tmp_path / "profiles.parquet"
    pq.write_table(table, path)
    run(path, "--flags", tmp_path / "cells.parquet", "--out", tmp_path / "out.parquet")
    found = pq.read_table(tmp_path / "out.parquet")
    assert found.select(table.column_names).equals(table)
    assert found.schema.metadata[b"made"] == b"by CytoTable"
    assert found.schema.field("hcsqc_flagged").type == pa.bool_()
    expected = expected_of(profiles, cells)
    assert found["hcsqc_flagged"].to_pandas().astype("boolean").equals(expected["flagged"])
    assert "20 of 20 rows joined" in capsys.readouterr().out


def test_pycytominers_single_cells_are_joined_by_id_where_they_have_one(flags, tmp_path, capsys):
    cells = made_cells()
    profiles = cells[["crop_id", *PLACE]].rename(columns={"crop_id": "Metadata_crop_id"})
    profiles = profiles.assign(Cells_AreaShape_Area=1.0).iloc[::-1].reset_index(drop=True)
    profiles.loc[0, "Metadata_crop_id"] = "of another screen"
    profiles.to_parquet(tmp_path / "p.parquet")
    run(tmp_path / "p.parquet", "--flags", flags)
    found = pd.read_parquet(tmp_path / "p_flagged.parquet")
    np.testing.assert_array_equal(found["hcsqc_score"][1:], cells["score"][::-1][1:])
    told = capsys.readouterr().out
    assert "19 of 20 rows joined, 1 not" in told
    assert "not joined, whose id is not in cells.parquet: 1, first row 1, '0042 B03'" in told


def test_rows_that_are_not_joined_are_counted_by_reason_with_an_example(flags, tmp_path, capsys):
    profiles = profiles_of(made_cells())
    profiles.loc[3, "Metadata_Plate"] = "42"
    profiles.loc[[5, 6], CENTRE[0]] += 19
    profiles.loc[8, CENTRE[1]] = np.nan
    profiles = pd.concat([profiles, profiles.iloc[[0]]])
    profiles.to_csv(tmp_path / "p.csv", index=False)
    run(tmp_path / "p.csv", "--flags", flags)
    told = capsys.readouterr().out
    assert "single cells: 17 of 21 rows joined, 4 not" in told
    assert "not joined, of a field that is not in cells.parquet: 1, first row 4, '42 " in told
    assert "not joined, without a centre: 1, first row 9, " in told
    assert "not joined, without a nucleus within 5 px: 2, first row 6, " in told
    assert "rows that share their cell with another: 2; they may be repeated" in told
    found = pd.read_csv(tmp_path / "p_flagged.csv")
    assert found.loc[[3, 5, 6, 8], "hcsqc_score"].isna().all()
    assert found["hcsqc_score"].iloc[-1] == found["hcsqc_score"].iloc[0]


def test_the_distance_is_that_of_the_flag(flags, tmp_path):
    profiles = profiles_of(made_cells())
    profiles[CENTRE] += 6
    profiles.to_csv(tmp_path / "p.csv", index=False)
    given = (tmp_path / "p.csv", "--flags", flags)
    told = refusal(*given)
    assert "no row has a nucleus of cells.parquet within 5 px; the first, '0042 " in told
    assert " px away: give centres in pixels of the source image, or a larger --match-px" in told
    assert not (tmp_path / "p_flagged.csv").exists()
    run(*given, "--match-px", "12")
    expected = expected_of(profiles, made_cells())
    found = pd.read_csv(tmp_path / "p_flagged.csv")
    np.testing.assert_allclose(found["hcsqc_score"], expected["score"])


def test_another_screens_cells_are_an_error_that_shows_both_spellings(flags, tmp_path):
    profiles = profiles_of(made_cells()).assign(Metadata_Plate="42", Metadata_Well="b2")
    profiles.to_csv(tmp_path / "p.csv", index=False)
    told = refusal(tmp_path / "p.csv", "--flags", flags)
    assert "the first row is of plate, well, site 42 b2 1, the first cell is of 0042 B02 1" in told
    assert "'42' is '0042' without its leading zeros" in told


spaces = st.sampled_from(["", " ", "  "])


@settings(deadline=None, max_examples=12)
@given(
    row=st.sampled_from("bB"),
    zeros=st.sampled_from(["", "0", "00"]),
    before=spaces,
    after=spaces,
    site=st.sampled_from(["1", "01", "1.0", " 1", 1, 1.0]),
    plate=st.sampled_from(["30001", "30001.0", 30001, 30001.0, " 30001 "]),
)
def test_every_spelling_of_a_place_is_understood(row, zeros, before, after, site, plate):
    cells = made_cells("30001")
    well = cells["Metadata_Well"].str[2:]
    profiles = cells[CENTRE].assign(
        Metadata_Plate=plate, Metadata_Well=before + row + zeros + well + after, Metadata_Site=site
    )
    found = join_cells(profiles, cells, 5, 1)
    np.testing.assert_array_equal(found.flags["score"], cells["score"])
    per_well = profiles[["Metadata_Plate", "Metadata_Well"]].drop_duplicates()
    found = join_wells(per_well, made_wells(cells), 3)
    assert found.flags["flagged_cells"].tolist() == [2, 5]
    assert found.flags["few_cells"].tolist() == [False, False]


# Wells


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_pycytominers_wells_get_counts_share_and_whether_they_are_bad(
    flags, tmp_path, capsys, ending
):
    cells = profiles_of(made_cells()).assign(Cells_AreaShape_Area=1.0, Metadata_Well="B03")
    wells = aggregate(cells, strata=PLACE[:2], features=["Cells_AreaShape_Area"])
    wells = pd.concat([wells, wells.assign(Metadata_Well="b2"), wells.assign(Metadata_Well="C1")])
    path = tmp_path / f"wells.{ending}"
    (wells.to_csv if ending == "csv" else wells.to_parquet)(path, index=False)
    run(path, "--flags", flags / "cells.parquet")
    output = tmp_path / f"wells_flagged.{ending}"
    dtypes = {"dtype": {"Metadata_Plate": str}} if ending == "csv" else {}
    found = (pd.read_csv if ending == "csv" else pd.read_parquet)(output, **dtypes)
    assert found["Metadata_Well"].tolist() == ["B03", "b2", "C1"]
    assert found["Metadata_Plate"].tolist() == [PLATE] * 3
    assert found[COUNTS].iloc[0].tolist() == pytest.approx([10, 9, 5, 5 / 9, True])
    assert found[COUNTS].iloc[1].tolist() == pytest.approx([10, 9, 2, 2 / 9, False])
    assert found[COUNTS].iloc[2].isna().all()
    told = capsys.readouterr().out
    assert "wells: 2 of 3 rows joined, 1 not" in told and "rows of bad wells: 1 of 2" in told
    assert "not joined, of a well that is not in wells.csv: 1, first row 3, '0042 C1'" in told
    assert "spelling: plate, well '0042 B03' of the profiles is '0042 B03' of wells.csv" in told


def test_wells_of_another_screen_are_an_error_that_shows_both_spellings(flags, tmp_path):
    wells = pd.DataFrame({"Metadata_Plate": [42], "Metadata_Well": ["B02"], "Cells_A": [1]})
    wells.to_parquet(tmp_path / "w.parquet")
    told = refusal(tmp_path / "w.parquet", "--flags", flags)
    assert "the first row is of plate, well '42 B02', the first well is '0042 B02'" in told
    assert "without its leading zeros" in told


def test_repeated_wells_are_told(capsys):
    wells = made_wells(made_cells())
    twice = wells[PLACE[:2]].iloc[[0, 0, 1]]
    told = join_wells(twice, wells, None).told
    assert "rows that share their well with another: 2; they may be repeated" in told


def test_plates_that_look_like_formulas_or_nothing_are_read(tmp_path):
    wells = made_wells(made_cells("@1"))
    wells.loc[1, "Metadata_Plate"] = "NA"
    write_csv(wells, tmp_path / "wells.csv")
    assert read_wells(tmp_path / "wells.csv")["Metadata_Plate"].tolist() == ["@1", "NA"]


# Too few cells


def test_wells_with_too_few_good_cells_are_marked_and_counted(flags, tmp_path, capsys):
    cells = made_cells()
    profiles_of(cells).to_csv(tmp_path / "p.csv", index=False)
    run(tmp_path / "p.csv", "--flags", flags, "--min-cells", 5)
    found = pd.read_csv(tmp_path / "p_flagged.csv")
    # Of B02 nine are scored and two flagged, of B03 five.
    few = found.groupby("Metadata_Well")["hcsqc_few_cells"].unique()
    assert few["b2"].tolist() == [False] and few["B03"].tolist() == [True]
    assert "wells with fewer than 5 cells left: 1 of 2, 0042 B03 (4)" in capsys.readouterr().out
    wells = pd.DataFrame({"Metadata_Plate": PLATE, "Metadata_Well": ["B02", "B03", "C01"]})
    wells.to_csv(tmp_path / "w.csv", index=False)
    run(tmp_path / "w.csv", "--flags", flags, "--min-cells", 5)
    found = pd.read_csv(tmp_path / "w_flagged.csv")["hcsqc_few_cells"].astype("boolean")
    assert found.tolist()[:2] == [False, True] and found.isna()[2]
    assert "wells with fewer than 5 cells left: 1 of 2, 0042 B03 (4)" in capsys.readouterr().out


def test_wells_of_profiles_are_one_well_however_they_are_spelt():
    cells = made_cells()
    profiles = profiles_of(cells)
    profiles.loc[profiles.index[::2], "Metadata_Well"] = (
        profiles["Metadata_Well"][::2].str.replace("B03", "b3").str.replace("b2", " B002")
    )
    found = join_cells(profiles, cells, 5, 7)
    assert found.told[-1].startswith("wells with fewer than 7 cells left: 1 of 2")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--min-cells", "0"], "--min-cells is 0; give at least 1"),
        (["--match-px", "0"], "--match-px is 0; give a distance above 0"),
        (["--out", "p.parquet"], "p.parquet: the profiles are CSV (.csv or .csv.gz)"),
    ],
)
def test_flags_that_mean_nothing_are_refused(flags, tmp_path, words, told):
    profiles_of(made_cells()).to_csv(tmp_path / "p.csv", index=False)
    assert told in refusal(tmp_path / "p.csv", "--flags", flags, *words)


# What is there stays


def test_nothing_is_overwritten_unless_it_is_forced(flags, tmp_path):
    profiles_of(made_cells()).to_csv(tmp_path / "p.csv", index=False)
    (tmp_path / "p_flagged.csv").write_text("mine")
    given = (tmp_path / "p.csv", "--flags", flags)
    assert "p_flagged.csv: exists; name another file with --out, or add --force" in refusal(*given)
    assert (tmp_path / "p_flagged.csv").read_text() == "mine"
    run(*given, "--force")
    first = (tmp_path / "p_flagged.csv").read_text()
    assert "hcsqc_score" in first
    # A table that has flags gets the new ones, in place if that is asked for.
    again = (tmp_path / "p_flagged.csv", "--flags", flags, "--out", tmp_path / "p_flagged.csv")
    assert "exists" in refusal(*again)
    other = (*again[:-1], tmp_path / "x.csv")
    assert "has a column hcsqc_score already" in refusal(*other)
    run(*again, "--force")
    assert (tmp_path / "p_flagged.csv").read_text() == first


def test_a_failure_leaves_nothing_behind(flags, tmp_path, monkeypatch):
    profiles_of(made_cells()).to_parquet(tmp_path / "p.parquet")
    before = sorted(tmp_path.rglob("*"))

    def full(*args, **more):
        raise OSError("no space left")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(OSError, match="no space left"):
        run(tmp_path / "p.parquet", "--flags", flags)
    assert sorted(tmp_path.rglob("*")) == before


def test_wells_whose_profiles_hold_mean_centres_are_wells():
    cells = profiles_of(made_cells()).assign(Nuclei_Number_Object_Number=1)
    features = [*CENTRE, "Nuclei_Number_Object_Number"]
    wells = aggregate(cells, strata=PLACE[:2], features=features)
    assert set(features) < set(wells)
    assert not is_of_cells(list(wells)) and is_of_cells([*PLACE, *CENTRE])


# What cannot be joined


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["ObjectNumber", *PLACE], "there is a row per cell (ObjectNumber), but no centre"),
        (["Metadata_Cells_Number_Object_Number", *PLACE], "but no centre of its nucleus; keep"),
        ([*PLACE[1:], *CENTRE], "'Metadata_Plate' is missing; a table of cells needs"),
        (["ObjectNumber", *PLACE[:2], *CENTRE], "'Metadata_Site' is missing"),
        (["Metadata_Plate"], "'Metadata_Well' is missing; a table of wells needs Metadata_Plate"),
    ],
)
def test_a_missing_column_is_named(names, told):
    with pytest.raises(InputError) as error:
        key_columns(names, is_of_cells(names))
    assert told in str(error.value)


def test_missing_files_are_named(flags, tmp_path):
    given = tmp_path / "p.csv", "--flags", flags
    assert "p.csv: no such table of profiles" in refusal(*given)
    profiles_of(made_cells()).to_csv(tmp_path / "p.csv", index=False)
    (flags / "cells.parquet").unlink()
    assert "cells.parquet: no such file; run snakemake qc" in refusal(*given)
    (flags / "wells.csv").unlink()
    pd.DataFrame({"Metadata_Plate": ["1"], "Metadata_Well": ["A1"]}).to_csv(given[0], index=False)
    assert "wells.csv: no such file; flags of wells lie beside cells.parquet" in refusal(*given)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_table_without_rows_is_refused(flags, tmp_path, ending):
    path, none = tmp_path / f"p.{ending}", profiles_of(made_cells()).iloc[:0]
    (none.to_csv if ending == "csv" else none.to_parquet)(path, index=False)
    assert "has no row with Metadata_Plate, Metadata_Well" in refusal(path, "--flags", flags)


def test_the_command_runs_by_itself(flags, tmp_path):
    profiles_of(made_cells()).to_csv(tmp_path / "p.csv", index=False)
    words = [sys.executable, command.__file__, tmp_path / "p.csv", "--flags", flags]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"written: {tmp_path / 'p_flagged.csv'}"
