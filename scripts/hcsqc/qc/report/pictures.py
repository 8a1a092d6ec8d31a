"""The pictures of a screen's report, each with the words that stand for it."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from hcsqc.core.errors import InputError
from hcsqc.core.ids import within_field
from hcsqc.core.parquet import read_footer
from hcsqc.features.tables import read_feature_table
from hcsqc.qc.phenotypes import MOCK
from hcsqc.qc.report.figures import (
    MARKERS,
    plain,
    plot_map,
    plot_rates,
    plot_scores,
    plot_shift,
    project,
    rates,
)
from hcsqc.qc.report.focus import FocusScale, draw_edges, edge_reach, focus_text
from hcsqc.qc.report.gallery import borderline, worst_of_each_artefact, worst_of_treatment
from hcsqc.qc.report.plate_maps import colour_limits, draw_plate_map, edge_distance
from hcsqc.qc.report.results import Results, cell_counts
from hcsqc.qc.report.words import counted, is_missing, number, percent

MOST_PLATES = 24  # with maps
MOST_ROWS = 50  # of a table
PER_ARTEFACT, PER_SIDE, PER_COMPOUND, MOST_COMPOUNDS = 8, 8, 6, 10  # crops
MOST_POINTS = 5000  # of the map of features
MOST_NAMED = len(MARKERS) - 3  # compounds on it, beside controls, no compound and the others
ROLE_NAMES = {MOCK: "mock (control)"}
NO_COMPOUND, OTHERS = "no compound", "other compounds"


def records(table: pd.DataFrame) -> list[dict]:
    """Return the rows of a table; None is what is missing."""
    return table.astype(object).where(table.notna(), None).to_dict("records")


def _picture(png: bytes, alt: str, title: str = "", text: str = "") -> dict:
    return {"png": _base64(png), "alt": alt, "title": title, "text": text}


def _base64(png: bytes) -> str:
    return base64.b64encode(png).decode()


def worst_plates(plates: pd.DataFrame) -> pd.DataFrame:
    """Return plates, those with most bad wells first."""
    keys = ["bad_wells", "flagged_share"]
    return plates.sort_values(keys, ascending=False, na_position="last", kind="stable")


def plate_maps(
    results: Results, plates: pd.DataFrame, shape: tuple[int, int], scale: FocusScale
) -> list[dict]:
    """Return the maps of the first MOST_PLATES of `plates`: flag rate, cells, focus, and edges."""
    wells = results.wells
    reach = edge_reach(results.fields["edge"], scale)
    measures = {
        "flagged cells (%)": (100 * wells["flagged_share"], True),
        "nuclei found": (wells["nuclei"], True),
        "focus (log sharpness)": (wells["focus"], False),
    }
    limits = {
        name: colour_limits(values, from_zero) for name, (values, from_zero) in measures.items()
    }
    drawn = []
    shown = plates[["Metadata_Plate", "flagged_share", "warning"]].head(MOST_PLATES)
    for plate, share, warning in shown.itertuples(index=False):
        own = wells["Metadata_Plate"] == plate
        names, bad = wells.loc[own, "Metadata_Well"], wells.loc[own, "bad"]
        listed = ", ".join(names[bad]) or "none"
        pictures = []
        for name, (values, _) in measures.items():
            values = values[own].astype(float)
            known = values.dropna()
            extremes = "no well has a value"
            if len(known):
                least, most = known.index[int(known.argmin())], known.index[int(known.argmax())]
                extremes = (
                    f"from {known.min():.3g} in {names[least]} to {known.max():.3g} in "
                    f"{names[most]}"
                )
            image = draw_plate_map(names, values, bad, shape, limits[name], name)
            alt = f"Plate {plate}, {name} by well: {extremes}; bad wells: {listed}"
            pictures.append(_picture(image, alt))
        drawn.append(
            {
                "plate": plate,
                "share": percent(share),
                "bad_wells": list(names[bad]),
                "warning": "" if is_missing(warning) else warning,
                "pictures": pictures,
                "edges": _edges(results, plate, scale, reach),
            }
        )
    return drawn


def _edges(results: Results, plate: str, scale: FocusScale, reach: float) -> dict:
    """Return the distribution of the edges of a plate, and the sentence of its numbers."""
    cells, fields = (
        table.loc[table["Metadata_Plate"] == plate, "edge"]
        for table in (results.cells, results.fields)
    )
    text = focus_text(fields, scale)
    return _picture(draw_edges(cells, fields, scale, reach), f"Plate {plate}. {text}", text=text)


def galleries(results: Results) -> list[dict]:
    """Return kind, title, text and rows of cells of every row of crops."""
    cells = results.cells
    flagged = cells["flagged"].astype("boolean").fillna(False).astype(bool)
    totals = cells.loc[flagged, "artefact"].fillna("of no known kind").astype(str).value_counts()
    found: list[dict] = [
        {"kind": "artefact", "title": kind, "rows": [rows], "total": int(totals[kind])}
        for kind, rows in worst_of_each_artefact(cells, PER_ARTEFACT).items()
    ]
    above, below = borderline(cells, PER_SIDE)
    found.append({"kind": "borderline", "title": "just flagged", "rows": [above]})
    found.append({"kind": "borderline", "title": "just passed", "rows": [below]})
    warned = results.compounds[results.compounds["warned"]].sort_values(
        "flagged_share", ascending=False, na_position="last", kind="stable"
    )
    for treatment, row in zip(records(warned)[:MOST_ROWS], warned.to_dict("records"), strict=False):
        shown = sum(gallery["kind"] == "compound" for gallery in found) < MOST_COMPOUNDS
        crops = (
            worst_of_treatment(cells, results.fields, pd.Series(row), PER_COMPOUND)
            if shown
            else cells.head(0)
        )
        found.append(
            {"kind": "compound", "title": treatment["compound"], "rows": [crops], "row": treatment}
        )
    return found


def shown_crops(rows: pd.DataFrame, pictures: Mapping[str, bytes]) -> list[dict]:
    """Return what the page says of each crop of a row, with its picture."""
    columns = ["crop_id", "Metadata_Plate", "Metadata_Well", "Metadata_Site", "score", "artefact"]
    return [
        {
            "crop_id": crop,
            "place": f"{plate} {well} s{site}",
            "cell": within_field(crop),
            "score": f"{score:.3f}",
            "artefact": "" if is_missing(artefact) else artefact,
            "png": _base64(pictures[crop]),
        }
        for crop, plate, well, site, score, artefact in rows[columns].itertuples(index=False)
    ]


def drift(results: Results) -> list[dict]:
    """Return the figures of drift: over plates in their order, and over sites."""
    counts = cell_counts(results.cells)
    if not counts["scored"]:
        return []
    overall = counts["flagged"] / counts["scored"]
    plates = results.plates
    names = [plain(name) for name in plates["Metadata_Plate"]]
    by_plate = plates.rename(columns={"flagged_share": "share"})
    warned = plates["warning"].fillna("").ne("")
    highest = plates["Metadata_Plate"].iloc[int(plates["flagged_share"].argmax())]
    figures = [
        _picture(
            plot_rates(
                by_plate,
                names,
                "plate, in order",
                overall,
                special=warned,
                special_name="plate with a warning",
                joined=True,
            ),
            f"Share of flagged cells of {counted(len(plates), 'plate')} in order, with intervals; "
            f"highest on plate {highest} ({percent(plates['flagged_share'].max())})",
            "Flag rate over plates",
        )
    ]
    if len(plates) > 1 and plates[["feature_shift", "score_shift"]].notna().any(axis=None):
        figures.append(
            _picture(
                plot_shift(plates, names),
                "Shift of features and of scores of each plate, in order; plates with a warning: "
                f"{', '.join(plates.loc[warned, 'Metadata_Plate']) or 'none'}",
                "Shift of features and scores over plates",
            )
        )
    sites = rates(results.fields, "Metadata_Site")
    figures.append(
        _picture(
            plot_rates(
                sites,
                [str(int(site)) for site in sites["Metadata_Site"]],
                "site: position of the field in the well",
                overall,
            ),
            "Share of flagged cells by site with 95% intervals: " + _rates_in_words(sites),
            "Flag rate over sites",
        )
    )
    return figures


def _rates_in_words(table: pd.DataFrame) -> str:
    first = table.head(16)
    shares = zip(first.iloc[:, 0], first["share"], strict=True)
    return ", ".join(f"{int(key)}: {percent(share)}" for key, share in shares)


def edge_effect(wells: pd.DataFrame, shape: tuple[int, int]) -> dict | None:
    """Return the figure of flag rate by distance from the plate's edge, and what it says."""
    distance = edge_distance(wells["Metadata_Well"], shape)
    placed = wells.assign(distance=distance)[distance >= 0]
    table = rates(placed, "distance")
    if not len(table):
        return None
    overall = table["flagged"].sum() / table["scored"].sum()
    ticks = [
        f"{apart}{' (edge)' if apart == 0 else ''}\n{counted(clusters, 'well')}"
        for apart, clusters in table[["distance", "clusters"]].itertuples(index=False)
    ]
    image = plot_rates(table, ticks, "wells between it and the plate's edge", overall)
    inner = rates(placed.assign(edge=placed["distance"] == 0), "edge")
    text = ""
    if len(inner) == 2:
        edge, rest = inner[inner["edge"]].iloc[0], inner[~inner["edge"]].iloc[0]
        differ = edge["low"] > rest["high"] or edge["high"] < rest["low"]
        text = (
            f"{percent(edge['share'])} of cells are flagged in wells at the edge, "
            f"{percent(rest['share'])} in the others: "
            + ("the two differ." if differ else "no clear difference.")
        )
    alt = "Share of flagged cells by distance from the edge, with 95% intervals: "
    return _picture(
        image, alt + _rates_in_words(table), "Flag rate by distance from the edge", text
    )


def score_histogram(
    cells: pd.DataFrame, threshold: Mapping, labels: pd.DataFrame | None
) -> dict | None:
    """Return the histogram of scores, with that of labelled crops where there are labels."""
    scores = cells["score"].dropna().astype(float)
    if not len(scores):
        return None
    labelled = None
    if labels is not None:
        labelled = labels[["crop_id", "label"]].merge(
            cells[["crop_id", "score"]].dropna(), on="crop_id", validate="one_to_one"
        )
    level = threshold.get("threshold")
    drawn = None if level is None or is_missing(level) else float(level)
    image = plot_scores(scores, drawn, labelled)
    quantiles = scores.quantile([0.05, 0.5, 0.95])
    alt = (
        f"Histogram of {len(scores):,} scores: median {quantiles[0.5]:.2f}, 90% between "
        f"{quantiles[0.05]:.2f} and {quantiles[0.95]:.2f}; threshold {number(level)}"
    )
    return _picture(image, alt)


def map_of_features(paths: Sequence[Path], results: Results) -> dict | None:
    """Return the features of a sample of crops on a plane, by flag, plate, role and compound.

    Raises InputError if a table is none of features, or they are of other crops.
    """
    if not paths:
        return None
    crops, vectors = _read_features(paths)
    sample = pd.DataFrame({"crop_id": crops, "row": np.arange(len(crops))})
    keys = ["Metadata_Plate", "Metadata_Well", "Metadata_Site"]
    cells = results.cells[["crop_id", "flagged", *keys]]
    sample = sample.merge(cells, on="crop_id", how="inner", validate="one_to_one")
    if len(crops) and not len(sample):
        raise InputError(f"{paths[0]}: none of its crops is in cells.parquet; give this screen's")
    finite = np.isfinite(vectors[sample["row"]]).all(axis=1)
    left_out = int((~finite).sum())
    sample = sample[finite]
    if len(sample) > MOST_POINTS:
        sample = sample.sample(MOST_POINTS, random_state=0)
    if len(sample) < 3:
        return {"pictures": [], "shown": len(sample), "left_out": left_out}
    points, shares = project(vectors[sample["row"]].astype(np.float64))
    treatment = sample.merge(
        results.fields[[*keys, "role", "compound"]], on=keys, how="left", validate="many_to_one"
    )
    flags = sample["flagged"].astype("boolean").map({True: "flagged", False: "not flagged"})
    plates = list(dict.fromkeys(results.plates["Metadata_Plate"]))
    groups = {
        "by flag": pd.Categorical(
            flags.astype(object).fillna("not scored"), ["not flagged", "flagged", "not scored"]
        ).remove_unused_categories(),
        "by plate": pd.Categorical(
            sample["Metadata_Plate"].astype(object), plates
        ).remove_unused_categories(),
        "by role": pd.Categorical(
            treatment["role"]
            .astype(object)
            .map(lambda role: ROLE_NAMES.get(role, role))
            .fillna("not known")
        ),
        "by compound": compound_groups(treatment, results.compounds),
    }
    pictures = [
        _picture(
            plot_map(
                points,
                shares,
                group,
                name.capitalize(),
                stands_out="flagged" if name == "by flag" else None,
                backdrop=(OTHERS,),
            ),
            f"Principal components of {len(sample):,} crops {name}: "
            f"{counted(len(group.categories), 'group')}",
        )
        for name, group in groups.items()
    ]
    return {"pictures": pictures, "shown": len(sample), "left_out": left_out}


def compound_groups(crops: pd.DataFrame, compounds: pd.DataFrame) -> pd.Categorical:
    """Return the group of each crop for a map on which few can be told apart.

    `crops` has role and compound, `compounds` is the table of that name. Controls are one group.
    Places go to compounds that are warned of, then to those with most crops, all concentrations
    together; the others share a group.
    """
    mock = crops["role"] == MOCK
    names = crops["compound"].astype(object).fillna(NO_COMPOUND).mask(mock, ROLE_NAMES[MOCK])
    warned = set(compounds.loc[compounds["warned"], "compound"])
    by_crops = names[~mock & (names != NO_COMPOUND)].value_counts().index
    named = sorted(by_crops, key=lambda name: name not in warned)[:MOST_NAMED]
    groups = [*named, ROLE_NAMES[MOCK], NO_COMPOUND]
    return pd.Categorical(
        names.where(names.isin(groups), OTHERS), [*groups, OTHERS]
    ).remove_unused_categories()


def _read_features(paths: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    # A plate without a crop has a table without rows.
    paths = [path for path in paths if read_footer(path).num_rows]
    if not paths:
        return np.empty(0, object), np.empty((0, 0), np.float32)
    tables = [read_feature_table(path) for path in paths]
    widths = [vectors.shape[1] for _, vectors in tables]
    for path, width in zip(paths, widths, strict=True):
        if width != widths[0]:
            raise InputError(
                f"{path}: features of {width} values, but {paths[0]} has {widths[0]}; give tables "
                "of one encoder"
            )
    crops = np.concatenate([np.asarray(crops, object) for crops, _ in tables])
    repeated = pd.Series(crops).duplicated()
    if repeated.any():
        raise InputError(f"crop {crops[repeated.argmax()]} is in more than one table of features")
    return crops, np.concatenate([vectors for _, vectors in tables])
