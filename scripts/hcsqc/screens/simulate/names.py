"""Names of plates, wells and files, and rows of the image CSV, as in BBBC022 and BBBC021."""

import re
import uuid
from pathlib import Path

from hcsqc.screens.simulate.cell_lines import CELL_LINES
from hcsqc.screens.simulate.model import SimulationSettings
from hcsqc.screens.simulate.seeds import place_digest

WELL_NAMES = {
    "u2os": re.compile(r"[A-P](0[1-9]|1\d|2[0-4])"),
    "mcf7": re.compile(r"[A-H](0[1-9]|1[0-2])"),
}
WELL_RANGE = "u2os has A01 to P24, mcf7 has A01 to H12"
PLATE_NAMES = {"u2os": re.compile(r"[A-Za-z0-9_-]+"), "mcf7": re.compile(r"(Week\d+)_\d+")}
MCF7_DATE = "150607"  # as in the names of BBBC021's first week
BBBC022_CHANNELS = {"ER": 2, "Hoechst": 1, "Mito": 5, "Ph_golgi": 4, "Syto": 3}  # the CSV's order
CONCENTRATIONS_UM = (0.3, 1.0, 3.0, 10.0)


def _names_bbbc022(settings: SimulationSettings, plate: str, well: str, site: int) -> list[str]:
    return [
        f"BBBC022_v1_images_{plate}w{channel}/IXMtest_{well}_s{site}_w{channel}"
        f"{_uuid(settings, plate, well, site, channel)}.tif"
        for channel in CELL_LINES["u2os"].channels
    ]


def _names_bbbc021(settings: SimulationSettings, plate: str, well: str, site: int) -> list[str]:
    week = plate.split("_")[0]
    return [
        f"{week}/{plate}/{week}_{MCF7_DATE}_{well}_s{site}_w{channel}"
        f"{_uuid(settings, plate, well, site, channel)}.tif"
        for channel in CELL_LINES["mcf7"].channels
    ]


def _row_bbbc022(
    plate: str, well: str, site: int, number: int, names: list[str]
) -> dict[str, str | int | float]:
    """Return a field's row of BBBC022_v1_image.csv."""
    control = _is_control(well)
    compound, concentration = ("", "") if control else _treatment(well)
    name_of = dict(zip(CELL_LINES["u2os"].channels, names, strict=True))
    return {
        "ImageNumber": number,
        **{
            f"Image_FileName_Orig{stain}": Path(name_of[channel]).name
            for stain, channel in BBBC022_CHANNELS.items()
        },
        "Image_Metadata_ASSAY_WELL_ROLE": "mock" if control else "compound",
        "Image_Metadata_BROAD_ID": "" if control else f"SIM-{well}",
        "Image_Metadata_CPD_MMOL_CONC": concentration,
        "Image_Metadata_CPD_PLATE_MAP_NAME": "SIMULATED",
        "Image_Metadata_CPD_WELL_POSITION": well,
        "Image_Metadata_PlateID": plate,
        "Image_Metadata_SOURCE_COMPOUND_NAME": compound,
        "Image_Metadata_SOURCE_NAME": "" if control else "simulated",
        "Image_Metadata_Site": site,
    }


def _row_bbbc021(
    plate: str, well: str, site: int, number: int, names: list[str]
) -> dict[str, str | int | float]:
    """Return a field's row of BBBC021_v1_image.csv."""
    compound, concentration = ("DMSO", 0.0) if _is_control(well) else _treatment(well)
    stained = {}
    for stain, name in zip(("DAPI", "Tubulin", "Actin"), names, strict=True):
        stained[f"Image_FileName_{stain}"] = Path(name).name
        stained[f"Image_PathName_{stain}"] = str(Path(name).parent)
    return {
        "TableNumber": 0,
        "ImageNumber": number,
        **stained,
        "Image_Metadata_Plate_DAPI": plate,
        "Image_Metadata_Well_DAPI": well,
        "Replicate": 1,
        "Image_Metadata_Compound": compound,
        "Image_Metadata_Concentration": concentration,
    }


def _uuid(settings: SimulationSettings, *place: str | int) -> str:
    digest = place_digest(settings.seed, *place)
    return str(uuid.UUID(hex=digest[:32], version=4)).upper()


def _is_control(well: str) -> bool:
    """Return whether a well has no compound: every fourth, along the diagonals of the plate."""
    return (ord(well[0]) - ord("A") + int(well[1:])) % 4 == 3


def _treatment(well: str) -> tuple[str, float]:
    """Return the made-up compound of a well and its concentration, micromolar."""
    number = (ord(well[0]) - ord("A")) * 24 + int(well[1:])
    return f"SIMULATED COMPOUND {number:02d}", CONCENTRATIONS_UM[number % len(CONCENTRATIONS_UM)]


# By cell line: the names of a field's files, in the order of its channels, and its CSV row.
LAYOUTS = {
    "u2os": (_names_bbbc022, _row_bbbc022),
    "mcf7": (_names_bbbc021, _row_bbbc021),
}
