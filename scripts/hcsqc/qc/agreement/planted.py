"""What was planted into a simulated screen beside what was found in it."""

import numpy as np
import pandas as pd

from hcsqc.labels.match import match_truth

MOSTLY = 0.5  # share of cells with an artefact
TRUTH = ["plate", "well", "site"]
FIELD = ["Metadata_Plate", "Metadata_Well", "Metadata_Site"]


def planted_and_found(
    truth: pd.DataFrame,
    cells: pd.DataFrame,
    fields: pd.DataFrame,
    wells: pd.DataFrame,
    threshold: dict,
    match_px: float,
    window_px: float,
) -> pd.DataFrame:
    """Return rows of what, planted, found, and the interval low to high of what was found.

    `truth` has the cells that were made, `cells` the nuclei found, which are matched to cells as
    `labels.match.match_truth` does for labels. A good cell has no artefact of its own, though one
    of a neighbour's may reach into its window, `window_px`. A field is degraded by an
    artefact of the whole field that at least half of its cells have, a well if all of its fields
    are, and they are mostly good if less than half of their cells have any artefact; `fields` and
    `wells` are the tables of flags.
    """
    matched = _matched(cells, truth, match_px, window_px)
    artefact, nearby = matched["artefact"].fillna("").to_numpy(), (matched["nearby"] == True)  # noqa: E712
    scored, flagged = cells["score"].notna().to_numpy(), (cells["flagged"] == True).to_numpy()  # noqa: E712
    known = scored & (artefact != "")
    planted = artefact != "none"
    share = float(planted[known].mean()) if known.any() else np.nan
    alone = known & ~planted & ~nearby.to_numpy()
    estimate = threshold["prevalence"]
    if not estimate:
        values = [*threshold["prevalence_by_method"], {}][0]
        estimate = [values.get(name) for name in ("estimate", "low", "high")]
    rows = [
        ("nuclei", len(truth), len(cells), None, None),
        ("share of scored cells with an artefact", share, *estimate),
        ("share of these that is flagged", 1, _mean(flagged[known & planted]), None, None),
        ("share of good cells flagged", 0, _mean(flagged[known & ~planted]), None, None),
        ("share of good cells near no artefact flagged", 0, _mean(flagged[alone]), None, None),
    ]
    made = truth.assign(whole=truth["scope"] == "field", spoilt=truth["artefact"] != "none")
    fields_whole = made.groupby(TRUTH)["whole"].mean() >= MOSTLY
    whole_of = {"fields": fields_whole, "wells": fields_whole.groupby(TRUTH[:2]).all()}
    for name, table, place in (("fields", fields, FIELD), ("wells", wells, FIELD[:2])):
        whole = _names(whole_of[name])
        mostly = _names(made.groupby(TRUTH[: len(place)])["spoilt"].mean() >= MOSTLY)
        bad = set(table[table["bad"]][place].itertuples(index=False, name=None))
        rows.append((f"degraded {name} that are bad", len(whole), len(bad & whole), None, None))
        rows.append((f"mostly good {name} that are bad", 0, len(bad - mostly), None, None))
    return pd.DataFrame(rows, columns=["what", "planted", "found", "low", "high"])


def _names(chosen: pd.Series) -> set[tuple]:
    return set(chosen.index[chosen])


def _matched(
    cells: pd.DataFrame, truth: pd.DataFrame, match_px: float, window_px: float
) -> pd.DataFrame:
    """Return what was planted at each nucleus, in their order; missing where no cell was made."""
    names = {
        "Metadata_Plate": "plate",
        "Metadata_Well": "well",
        "Metadata_Site": "site",
        "Nuclei_Location_Center_X": "x_px",
        "Nuclei_Location_Center_Y": "y_px",
    }
    nuclei = cells[["crop_id", *names]].rename(columns=names)
    matched = match_truth(nuclei, truth, match_px, window_px).set_index("crop_id")
    return matched[["artefact", "nearby"]].reindex(cells["crop_id"])


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else np.nan
