"""The flags of a whole screen: what is planted is found, told, counted and written."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hcsqc.core.errors import InputError
from hcsqc.core.schema import read_table, write_csv, write_table
from hcsqc.qc.corrections import levels_of
from hcsqc.qc.flags import FIELD_COLUMNS, PLATE_COLUMNS, WELL_COLUMNS, FlagSettings
from hcsqc.qc.phenotypes import COLUMNS
from hcsqc.qc.screen_flags import (
    DriftSettings,
    ScoredScreen,
    ScreenFlags,
    compounds_told,
    counts,
    flag_plates,
    flag_screen,
    join_plates,
    plates_told,
    read_scored,
    write_plates,
)
from scripts.qc import flag_plate
from scripts.qc import flag_screen as command

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
DRIFT = DriftSettings(drift_features=0.5, drift_scores=0.2, drift_gain=1.5)
COMPOSITE = ["w2", "w1"]
# The detector's channels are called otherwise: they are compared in the order of the composite.
LEVELS = [
    {"channel": "ER", "background": 100.0, "cell": 500.0},
    {"channel": "DNA", "background": 150.0, "cell": 750.0},
]
DETECTOR = {"screen": "old", "levels": LEVELS}
THRESHOLD_OF_LABELS = {"threshold": 0.5, "training_share": 0.5}
THRESHOLD = {"threshold": 0.5, "assumed_prevalence": 0.1, "training_share": 0.5}
WELLS = [f"{row}{column:02d}" for row in "ABCD" for column in range(1, 7)]
CELLS = 20  # of a field
# A treatment of each plate's third and fourth columns; the others hold control wells.
TREATED = {"03": "toxin", "04": "sugar"}


def plate(name: str, bad_well: str | None = None) -> dict[str, pd.DataFrame]:
    """Return the tables of a plate of 24 wells with two fields each.

    Cells of the toxin are flagged for blur, of `bad_well` for debris, one of 20 elsewhere; the last
    nucleus of each field lies at the border. The second field of D06 has no nucleus.
    """
    places = [(well, site) for well in WELLS for site in (1, 2)]
    fields = pd.DataFrame(places, columns=["well", "site"]).assign(
        plate=name, concentration_um=1.0, image_page=None, problem=None
    )
    fields["field_id"] = [f"s/{name}/{well}/s{site}" for well, site in places]
    fields["compound"] = fields["well"].str[1:].map(TREATED)
    fields["role"] = np.where(fields["compound"].isna(), "mock", "compound")
    fields["image_path"] = [["a.tif"]] * len(fields)
    fields["image_page"] = [[None]] * len(fields)
    fields["image_bytes"] = [[1]] * len(fields)
    present = fields[(fields["well"] != "D06") | (fields["site"] == 1)]
    nuclei = present.loc[present.index.repeat(CELLS)].reset_index(drop=True)
    number = np.arange(len(nuclei)) % CELLS
    nuclei["x_px"], nuclei["y_px"], nuclei["area_px"] = number * 10, 7, 200
    nuclei["crop_id"] = [f"{row.field_id}/x{row.x_px:04d}y0007" for row in nuclei.itertuples()]
    nuclei["kept"] = number < CELLS - 1
    nuclei["reason"] = np.where(nuclei["kept"], None, "border")
    toxic, dirty = nuclei["compound"] == "toxin", nuclei["well"] == bad_well
    nuclei["score"] = np.where(toxic | dirty | (number == 0), 0.9, 0.1)
    nuclei["artefact"] = np.where(dirty, "debris", "blur")
    summary = fields[["field_id", "plate", "well", "site"]].assign(
        found=CELLS, kept=CELLS - 1, dropped=1, status="ok", reason=None
    )
    summary["image_digest"] = [["f"]] * len(fields)
    summary["image_bytes"] = summary["image_changed_ns"] = [[1]] * len(fields)
    scores = nuclei[nuclei["kept"]][["crop_id", "score", "artefact"]]
    return {
        "scores": scores.assign(focus=0.5, edge=0.2, saturated=0.0),
        "nuclei": nuclei[["crop_id", "field_id", "x_px", "y_px", "area_px", "kept", "reason"]],
        "summary": summary,
        "fields": fields,
    }


def scale(light: float = 1.0) -> pd.DataFrame:
    """Return the scale of a plate with so many times the light of the detector's."""
    low, cell = np.array([153.0, 99.0]), np.array([600.0, 400.0])
    return pd.DataFrame(
        {
            "channel": ["w1", "w2"],
            "low": low,
            "high": low + 2 * light * cell,
            "top": 4095.0,
            "bits": 12,
            "cell": low + light * cell,
            "nuclei": 900,
            "found": "cells",
            "read_noise": 4.0,
            "shot_noise": 0.4,
        }
    )


def written(folder: Path, shifts=(0.1, 0.1), light: float = 1.0) -> dict[str, list[Path]]:
    """Write the tables of two plates; P2 has a bad well, and shifts and light of its own."""
    schemas = {"scores": "crop_scores", "nuclei": "nuclei", "summary": "summary"}
    paths: dict[str, list[Path]] = {}
    for name, bad_well, (features, scores) in (("P1", None, (0, 0)), ("P2", "B02", shifts)):
        for kind, table in plate(name, bad_well).items():
            path = folder / kind / f"{name}.parquet"
            about = {"feature_shift": features, "score_shift": scores} if kind == "scores" else {}
            write_table(table, path, schemas.get(kind, kind), about)
            paths.setdefault(kind, []).append(path)
        path = folder / f"{name}.scale.parquet"
        write_table(scale(light if name == "P2" else 1.0), path, "scale")
        paths.setdefault("scales", []).append(path)
    return paths


KINDS = ("scores", "nuclei", "summary", "fields", "scales")


def scored(folder: Path, shifts=(0.1, 0.1), light: float = 1.0) -> ScoredScreen:
    paths = written(folder, shifts, light)
    return read_scored(*(paths[kind] for kind in KINDS))


def flagged(screen: ScoredScreen, detector=DETECTOR) -> ScreenFlags:
    return flag_screen(screen, THRESHOLD, detector, COMPOSITE, SETTINGS, DRIFT)


def told(flags: ScreenFlags) -> list[str]:
    return [*plates_told("s", flags), *compounds_told("s", flags.wells, flags.compounds)]


def test_tables_of_all_plates_are_read_with_the_shifts_of_each(tmp_path):
    screen = scored(tmp_path, shifts=(0.4, 0.3))
    assert len(screen.fields) == len(screen.summary) == 96
    assert len(screen.nuclei) == 2 * 47 * CELLS and len(screen.scores) == 2 * 47 * (CELLS - 1)
    for table in (screen.scores, screen.nuclei, screen.summary, screen.fields):
        assert table.index.is_unique
    shifts = screen.shifts.set_index("Metadata_Plate")[["feature_shift", "score_shift"]]
    assert shifts.to_numpy().tolist() == [[0, 0], [0.4, 0.3]] and list(shifts.index) == ["P1", "P2"]


def test_what_was_planted_in_a_screen_is_bad_told_and_counted(tmp_path):
    flags = flagged(scored(tmp_path))
    assert (list(flags.fields), list(flags.wells), list(flags.plates), list(flags.compounds)) == (
        FIELD_COLUMNS,
        WELL_COLUMNS,
        PLATE_COLUMNS,
        COLUMNS,
    )
    bad = flags.fields[flags.fields["bad"]]
    empty = bad[bad["empty"]]
    assert empty[["Metadata_Well", "Metadata_Site"]].to_numpy().tolist() == [["D06", 2]] * 2
    dirty = flags.wells.set_index(["Metadata_Plate", "Metadata_Well"])
    assert dirty.loc[("P2", "B02"), "bad"] and not dirty.loc[("P1", "B02"), "bad"]
    warned = flags.compounds.set_index("compound")["warned"]
    assert warned.to_dict() == {"toxin": True, "sugar": False}
    assert counts(flags.plates) == {
        "nuclei": 2 * 47 * CELLS,
        "scored": 2 * 47 * (CELLS - 1),
        # 16 fields of the toxin and two of B02, and a cell of each other field.
        "flagged": 18 * (CELLS - 1) + (94 - 18),
        # These 18 fields and an empty one of each plate; their wells.
        "bad_fields": 18 + 2,
        "bad_wells": 8 + 1,
    }
    lines = told(flags)
    assert lines[-2:] == [
        "s: Compounds are compared with 32 control wells of the same plates.",
        "warning: s: cells of toxin are flagged far more often than those of control wells; is "
        "this an effect of the compound rather than an artefact?",
    ]


def test_drift_is_told_beside_what_else_is_wrong_with_a_plate(tmp_path):
    near = flagged(scored(tmp_path / "a"))
    far = flagged(scored(tmp_path / "b", (0.6, 0.1)))
    before, after = near.plates["warning"].tolist(), far.plates["warning"].tolist()
    assert before[0] == after[0]
    drifted = "its cells look different (features lie 0.60 standard deviations from those of old"
    assert drifted not in before[1] and drifted in after[1]
    assert after[1].startswith(f"{before[1]}; its cells" if before[1] else "its cells")
    assert f"warning: s, plate P2: {after[1]}" in told(far)


def test_correction_of_light_is_kept_by_plate_and_warned_of_beyond_the_range(tmp_path):
    near = flagged(scored(tmp_path / "near", light=0.8))
    found = near.corrections.set_index(["Metadata_Plate", "channel"])
    assert list(found.index) == [("P1", "w2"), ("P1", "w1"), ("P2", "w2"), ("P2", "w1")]
    np.testing.assert_allclose(found["gain"], [1, 1, 1.25, 1.25])
    np.testing.assert_allclose(found["offset"], [-1, 3, -1, 3])
    assert not near.plates["warning"].str.contains("light").any()
    for light, gain in ((0.5, "2.00"), (2.0, "0.50")):
        far = flagged(scored(tmp_path / str(light), light=light)).plates["warning"].tolist()
        assert "light" not in far[0]
        assert far[1].endswith(
            f"its light was corrected by more than x1.5 to look like old (w2 x{gain}, w1 x{gain}), "
            "which cannot correct noise and saturation: the threshold may not hold here"
        )


def test_plates_whose_light_no_nuclei_tell_are_warned_of(tmp_path):
    screen = scored(tmp_path)
    screen.scales["P2"].loc[1, ["cell", "found"]] = np.nan, "percentile"
    flags = flagged(screen)
    before, after = flags.plates["warning"].tolist()
    assert "light" not in before
    why = "too few nuclei to measure the light of w2, so artefacts may shift its grey levels"
    assert f"there are {why}" in after
    unknown = DETECTOR | {"levels": [LEVELS[0] | {"cell": None}, LEVELS[1]]}
    before = flagged(scored(tmp_path), unknown).plates["warning"].tolist()[0]
    assert "the light of old is not known in w2: it had too few nuclei" in before


def test_a_detector_keeps_the_median_levels_of_its_plates_in_the_composites_order():
    dim, usual, bright = scale(0.8), scale(), scale(1.5)
    bright.loc[1, "cell"] = np.nan
    levels = levels_of([dim, usual, bright], COMPOSITE)
    assert levels == [
        {"channel": "w2", "background": 99.0, "cell": pytest.approx(99 + 0.9 * 400)},
        {"channel": "w1", "background": 153.0, "cell": pytest.approx(153 + 600)},
    ]
    assert levels_of([usual.assign(cell=np.nan)], ["w1"])[0]["cell"] is None


def test_plates_without_a_warning_are_not_told(tmp_path):
    flags = flagged(scored(tmp_path))
    quiet = flags.plates.assign(warning=["", "something"])
    flags = replace(flags, plates=quiet, compounds=flags.compounds.iloc[:0])
    assert told(flags) == [
        "warning: s, plate P2: something",
        "s: Compounds are compared with 32 control wells of the same plates.",
    ]


def with_an_empty_plate(folder: Path) -> dict[str, list[Path]]:
    """Write the tables of the two plates, and of P3, whose fields show no nucleus."""
    paths = written(folder)
    empty = plate("P3")
    empty["summary"] = empty["summary"].assign(found=0, kept=0, dropped=0)
    for kind in ("scores", "nuclei"):
        empty[kind] = empty[kind].head(0)
    empty["scales"] = scale().assign(cell=np.nan, nuclei=0, found="percentile")
    schemas = {"scores": "crop_scores", "scales": "scale"}
    for kind in KINDS:
        ending = ".scale.parquet" if kind == "scales" else ".parquet"
        path = folder / kind / f"P3{ending}"
        about = {"feature_shift": 0.0, "score_shift": 0.0} if kind == "scores" else {}
        write_table(empty[kind], path, schemas.get(kind, kind), about)
        paths[kind].append(path)
    return paths


def test_a_plate_without_a_nucleus_is_listed_and_the_others_are_as_without_it(tmp_path):
    alone = flagged(scored(tmp_path / "alone"))
    paths = with_an_empty_plate(tmp_path / "three")
    flags = flagged(read_scored(*(paths[kind] for kind in KINDS)))
    pd.testing.assert_frame_equal(flags.cells, alone.cells)
    for name in ("fields", "wells", "compounds"):
        found, before = getattr(flags, name), getattr(alone, name)
        if name != "compounds":
            found = found[found["Metadata_Plate"] != "P3"]
        pd.testing.assert_frame_equal(found[found.columns], before, check_dtype=False)
    empty = flags.plates.set_index("Metadata_Plate").loc["P3"]
    assert empty[["wells", "fields", "bad_fields", "nuclei", "scored", "flagged"]].tolist() == [
        24, 48, 48, 0, 0, 0,
    ]  # fmt: skip
    assert empty["warning"].startswith("no cell was scored; 24 of its 24 wells are bad; 48 of its")
    write_plates(flags, tmp_path / "flags")
    assert len(read_table(tmp_path / "flags" / "cells.parquet", "cells")) == len(alone.cells)
    assert any(line.startswith("warning: s, plate P3: no cell was scored") for line in told(flags))


def test_scores_of_another_screen_are_an_error(tmp_path):
    paths = written(tmp_path)
    screen = read_scored(paths["scores"][:1], *(paths[kind] for kind in KINDS[1:]))
    with pytest.raises(
        InputError, match="893 cropped nuclei have no score, .* score the plates ag"
    ):
        flagged(screen)


def test_scores_that_are_none_are_named(tmp_path):
    paths = written(tmp_path)
    (tmp_path / "bad.parquet").write_text("no table")
    with pytest.raises(InputError, match="bad.parquet: cannot be read as Parquet"):
        read_scored([tmp_path / "bad.parquet"], *(paths[kind] for kind in KINDS[1:]))


SETTING_WORDS = [
    word
    for name, value in (vars(SETTINGS) | vars(DRIFT)).items()
    for word in ("--" + name.replace("_", "-"), value)
]
PLATES = ("P1", "P2")


def run(module, monkeypatch, *words) -> None:
    monkeypatch.setattr(sys, "argv", [str(word) for word in (module.__file__, *words)])
    module.main()


def joined(folder: Path, paths, monkeypatch, flagged_now=PLATES, plates=PLATES) -> Path:
    """Run the commands: flag some plates, then join all; return the folder of the screen."""
    output = folder / "screen"
    output.mkdir(parents=True, exist_ok=True)
    (folder / "detector.json").write_text(json.dumps(DETECTOR | {"trained_on": "labels"}))
    known = {"prevalence": [0.1, 0.05, 0.2], "prevalence_labels": 100}
    (output / "threshold.json").write_text(json.dumps(THRESHOLD_OF_LABELS | known))
    for plate in flagged_now:
        place = PLATES.index(plate)
        words = ["--screen", "s", "--detector", folder, "--threshold", output / "threshold.json"]
        words += ["--composite", *COMPOSITE, *SETTING_WORDS]
        for kind in KINDS:
            words += ["--scale" if kind == "scales" else f"--{kind}", paths[kind][place]]
        words += ["--output", output / "plates" / plate, "--record", folder / "plate.json"]
        run(flag_plate, monkeypatch, *words)
    words = ["--study", "mine", "--screen", "s", "--detector", folder, "--plates", *plates]
    words += ["--summaries", *(paths["summary"][PLATES.index(plate)] for plate in plates)]
    words += ["--confidence", 0.95, "--well-share", 0.2, "--trend-plates", 3, "--trend-sds", 3]
    run(command, monkeypatch, *words, "--output", output, "--record", folder / "run.json")
    return output


def test_flags_of_plates_that_came_one_by_one_are_those_of_all_at_once(tmp_path, monkeypatch):
    paths = written(tmp_path)
    at_once = flagged(read_scored(*(paths[kind] for kind in KINDS)))
    grown = tmp_path / "grown"
    first = joined(grown, paths, monkeypatch, ["P1"], ["P1"])
    before = {path: path.read_bytes() for path in (first / "plates/P1").iterdir()}
    assert read_table(first / "cells.parquet", "cells")["Metadata_Plate"].unique() == ["P1"]
    grown = joined(grown, paths, monkeypatch, ["P2"])
    assert len(before) == 5
    assert {path: path.read_bytes() for path in (grown / "plates/P1").iterdir()} == before
    fresh = joined(tmp_path / "fresh", paths, monkeypatch)
    for path in fresh.glob("*.*"):
        assert path.read_bytes() == (grown / path.name).read_bytes(), path.name
    cells = read_table(grown / "cells.parquet", "cells").astype({"flagged": "boolean"})
    own = cells["probability"]  # of the prevalence of 100 random labels
    pd.testing.assert_frame_equal(cells.assign(probability=at_once.cells["probability"]),
                                  at_once.cells)  # fmt: skip
    assert own.notna().equals(cells["score"].notna())
    for name in ("fields", "wells", "plates", "compounds", "corrections"):
        write_csv(getattr(at_once, name), tmp_path / "whole.csv", "%.6g")
        assert (grown / f"{name}.csv").read_text() == (tmp_path / "whole.csv").read_text(), name


def test_the_flags_of_a_plate_are_the_same_with_any_other_plate(tmp_path):
    paths = written(tmp_path)
    both = flagged(read_scored(*(paths[kind] for kind in KINDS)))
    rest = (THRESHOLD, DETECTOR, COMPOSITE, SETTINGS, DRIFT)
    alone = flag_plates(read_scored(*(paths[kind][1:] for kind in KINDS)), *rest)
    for name, table in vars(alone).items():
        of_both = getattr(both, name)
        own = of_both[of_both["Metadata_Plate"] == "P2"].reset_index(drop=True)
        pd.testing.assert_frame_equal(table, own, check_dtype=False)


def test_commands_tell_of_each_plate_once_and_of_the_screen(tmp_path, monkeypatch, capsys):
    paths = written(tmp_path, shifts=(0.6, 0.1))
    flags = flagged(read_scored(*(paths[kind] for kind in KINDS)))
    folder = joined(tmp_path / "mine", paths, monkeypatch)
    found = counts(flags.plates) | {"warned_compounds": 1, "plates_outside": 0}
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        *told(flags),
        "flags of s: " + ", ".join(f"{n:g} {name}" for name, n in found.items()),
    ]
    record = json.loads((tmp_path / "mine/run.json").read_text())
    share = found["flagged"] / found["scored"]
    assert record["metrics"] == found | {"flagged_share": pytest.approx(share)}
    assert (folder / "prevalence.csv").read_text().splitlines()[1].startswith("random labels,0.1")
    joined(tmp_path / "mine", paths, monkeypatch, flagged_now=[])
    assert not any("plate P2" in line for line in capsys.readouterr().out.splitlines())


def test_tables_of_plates_with_other_columns_are_not_joined(tmp_path, monkeypatch):
    paths = written(tmp_path)
    folder = joined(tmp_path / "mine", paths, monkeypatch)
    (folder / "plates/P2/wells.csv").write_text("other,columns\n1,2\n")
    with pytest.raises(InputError, match=r"P2/wells.csv: its columns are not those of .*P1"):
        join_plates([folder / "plates" / name for name in PLATES], THRESHOLD, folder)
