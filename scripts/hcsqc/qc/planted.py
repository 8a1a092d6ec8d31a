"""What was planted into a simulated screen beside what was found in it."""

import numpy as np
import pandas as pd

from hcsqc.labels import match_truth

BAD_WELL = 0.5  # planted share of cells from which on a well is a bad one


def planted_and_found(
    truth: pd.DataFrame,
    cells: pd.DataFrame,
    wells: pd.DataFrame,
    threshold: dict,
    match_px: float,
    window_px: float,
) -> pd.DataFrame:
    """Return rows of what, planted, found, and the interval low to high of what was found.

    `truth` has the cells that were made, `cells` the nuclei found. Nuclei are matched to cells, and
    doubtful ones left out, as `labels.match_truth` does for labels. A bad well has artefacts in at
    least half of its scored cells.
    """
    artefact = _artefact_of(cells, truth, match_px, window_px)
    scored, flagged = cells["score"].notna().to_numpy(), (cells["flagged"] == True).to_numpy()  # noqa: E712
    known = scored & (artefact != "")
    planted = artefact != "none"
    share = float(planted[known].mean()) if known.any() else np.nan
    estimate = threshold["prevalence"] or [threshold["assumed_prevalence"], None, None]
    rows = [
        ("nuclei", len(truth), len(cells), None, None),
        ("share of scored cells with an artefact", share, *estimate),
        ("share of these that is flagged", 1, _mean(flagged[known & planted]), None, None),
        ("share of good cells flagged", 0, _mean(flagged[known & ~planted]), None, None),
    ]
    by_well = pd.DataFrame({"planted": planted[known]}).groupby(
        [cells["Metadata_Plate"].to_numpy()[known], cells["Metadata_Well"].to_numpy()[known]]
    )
    shares = by_well["planted"].mean()
    bad = set(shares.index[shares >= BAD_WELL])
    marked = wells[wells["bad"]]
    named = set(zip(marked["Metadata_Plate"], marked["Metadata_Well"], strict=True))
    rows.append(("bad wells", len(bad), len(bad & named), None, None))
    rows.append(("wells flagged that are not", 0, len(named - bad), None, None))
    return pd.DataFrame(rows, columns=["what", "planted", "found", "low", "high"])


def _artefact_of(
    cells: pd.DataFrame, truth: pd.DataFrame, match_px: float, window_px: float
) -> np.ndarray:
    """Return each nucleus' planted artefact; empty where it is doubtful, as in labels."""
    names = {
        "Metadata_Plate": "plate",
        "Metadata_Well": "well",
        "Metadata_Site": "site",
        "Nuclei_Location_Center_X": "x_px",
        "Nuclei_Location_Center_Y": "y_px",
    }
    nuclei = cells[["crop_id", *names]].rename(columns=names)
    matched = match_truth(nuclei, truth, match_px, window_px).set_index("crop_id")["artefact"]
    return matched.reindex(cells["crop_id"]).fillna("").to_numpy()


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else np.nan
