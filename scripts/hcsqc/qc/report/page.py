"""The quality-control page of a screen or a plate: one file to walk through, everything inside."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from markupsafe import Markup

from hcsqc.core.html import render
from hcsqc.core.ids import within_field
from hcsqc.core.schema import ARTEFACTS
from hcsqc.crops.shards import Shards
from hcsqc.figures.tables import table_parts
from hcsqc.qc.cells import is_flagged
from hcsqc.qc.field_view.images import FieldSource
from hcsqc.qc.report import statements
from hcsqc.qc.report.answers import (
    CHECKS,
    Limits,
    answer,
    drops,
    drops_csv,
    flagged_elsewhere,
    lights,
)
from hcsqc.qc.report.crop_sheets import CropSheets, choose_crops, crop_sheets
from hcsqc.qc.report.focus import FocusScale, edge_chart, edge_reach
from hcsqc.qc.report.gallery import galleries
from hcsqc.qc.report.links import has_plate_pages, plate_page, records, with_links
from hcsqc.qc.report.page_data import (
    KEYS,
    as_script,
    brightness_of_wells,
    fields_data,
    map_of_features,
    measures,
    score_data,
    wells_data,
)
from hcsqc.qc.report.plate_maps import plate_shape, shown_part
from hcsqc.qc.report.published import Agreement, shown
from hcsqc.qc.report.rates import charts
from hcsqc.qc.report.results import Results, of_plate
from hcsqc.qc.report.thumbnails import FieldPictures, field_pictures, pack_outlines
from hcsqc.qc.report.trend_charts import dated_text, outside_rows, trend_charts
from hcsqc.qc.report.words import counted, is_missing, number, percent

DATA_FILES = ("page.html", "page.css", "page.js")
TEMPLATE, STYLE, SCRIPT = (Path(__file__).with_name(name) for name in DATA_FILES)

SIMULATED = "simulated artefacts"  # what detector.json says it was trained on without labels
# Pictures of a page, in bytes of it; all else takes well below a megabyte.
FIELD_BYTES, CROP_BYTES = 7_000_000, 2_300_000
FLAGGED_CROPS, BORDERLINE_CROPS, PASSED_CROPS, WITH_CHANNELS = 2500, 40, 800, 500
TILE_SHOWN_PX = 96
MOST_ROWS = 2000  # of a table; its CSV has all
MOST_EDGE_CHARTS = 24
SEED = 0


@dataclass(frozen=True)
class Screen:
    """What the pages of a screen are made from.

    `shards` hold the crops of all scored cells, of which `composite` are shown; `detector` is what
    detector.json says; `features` are tables of vectors of some crops; `truth` is what was planted,
    `published` the agreement with published flags and `labels` a table of labels, if there are
    any; `source` says where the images are.
    """

    name: str
    results: Results
    shards: Shards
    composite: Sequence[str]
    detector: Mapping
    focus: FocusScale
    limits: Limits
    features: Sequence[Path] = ()
    truth: pd.DataFrame | None = None
    published: Agreement | None = None
    labels: pd.DataFrame | None = None
    source: FieldSource | None = None
    threads: int = 1


@dataclass(frozen=True)
class Pictures:
    """Field thumbnails and crop sheets of a page."""

    fields: FieldPictures = field(default_factory=FieldPictures)
    crops: CropSheets = field(default_factory=lambda: CropSheets(48, [], {}, (), [], {}))


def render_report(screen: Screen, plate: str | None = None) -> str:
    """Return the page of a screen, or of one of its plates, as HTML with everything inside.

    All text is escaped. A screen of one plate has its fields and crops in its page; the page of one
    of several plates has those of the plate, and that of the screen leads to them.
    Raises InputError for an unknown plate, and for crops or channels that are not in the shards.
    """
    results = screen.results if plate is None else of_plate(screen.results, plate)
    own = plate is not None or not has_plate_pages(results)
    chosen = galleries(results)
    features = map_of_features(screen.features, results)
    pictures = _pictures(screen, results, chosen, features, own)
    has_picture = results.cells["crop_id"].isin(list(pictures.crops.positions))
    cells = results.cells[has_picture].set_index("crop_id")
    for gallery in chosen:
        gallery["crops"] = _shown_crops(gallery["rows"], pictures.crops)
    threshold = screen.results.threshold
    simulated = str(screen.detector.get("trained_on", "")).strip().lower() == SIMULATED
    of_plates = lights(results, screen.limits, screen.focus.focus_edge)
    dropped = drops(results)
    kinds = [kind for kind in ARTEFACTS if (results.cells["artefact"] == kind).any()]
    shape = plate_shape(results.wells["Metadata_Well"])
    part = shown_part(results.wells["Metadata_Well"], shape)
    followed = plate is None and has_plate_pages(results)
    edges = results.fields.groupby("Metadata_Plate")["edge"].median()
    plates = _worst_plates(results.plates, of_plates)
    plates = plates.assign(edge=plates["Metadata_Plate"].map(edges))
    brightness = None
    if own and results.cells["score"].notna().any():
        brightness = brightness_of_wells(screen.shards, results.cells, screen.composite)
    scores = score_data(results.cells, threshold, screen.labels)
    data = {
        "drops": drops_csv(dropped),
        "channels": pictures.crops.channels,
        "part": part,
        "plates": [
            {"name": name, "page": None if own else plate_page(name)}
            for name in results.plates["Metadata_Plate"]
        ],
        "first": _position(results.plates, plates),
        "measures": measures(results, brightness),
        "wells": wells_data(results),
        "fields": fields_data(results) if own else {"at": []},
        "kinds": kinds,
        "crops": _crops_data(pictures.crops, cells, results),
        "pictures": _pictures_data(pictures, results, kinds) if own else [],
        "pictures_note": pictures.fields.note,
        "scores": scores,
        "features": features,
    }
    return render(
        TEMPLATE,
        filters={
            "percent": percent,
            "number": number,
            "count": counted,
            "treatment": statements.treatment,
        },
        css=Markup(STYLE.read_text(encoding="utf-8")),
        script=Markup(SCRIPT.read_text(encoding="utf-8")),
        **table_parts(),
        sheets_css=_sheets_css(pictures.crops),
        data=as_script(data),
        screen=screen.name,
        plate=plate,
        whole=plate is None,
        own=own,
        is_missing=is_missing,
        composite=screen.composite,
        channels=pictures.crops.channels,
        tile_px=pictures.crops.tile_px,
        zoom=TILE_SHOWN_PX / pictures.crops.tile_px,
        answer=answer(results, of_plates, dropped),
        checks=CHECKS,
        lights=[
            {
                "plate": name,
                "page": None if own else plate_page(name),
                "lights": of_plates[name],
            }
            for name in plates["Metadata_Plate"]
        ],
        simulated=simulated,
        hidden=str(screen.detector.get("warning") or ""),
        headline=statements.headline(results),
        promise=statements.promise(threshold),
        shortfall=statements.shortfall(threshold),
        threshold=threshold,
        estimates=statements.estimates(threshold),
        truth=[] if screen.truth is None or plate else screen.truth.to_dict("records"),
        detector=statements.definition_list(
            {key: value for key, value in screen.detector.items() if key != "candidates"}
        ),
        candidates=screen.detector.get("candidates") or [],
        warnings=records(results.plates[results.plates["warning"].fillna("").ne("")]),
        drops=_drop_rows(dropped.head(MOST_ROWS), results, own),
        drops_total=len(dropped),
        published=shown(screen.published, results, own) if screen.published and not plate else None,
        drops_text=_drops_text(results, dropped),
        has_wells=len(results.wells) > 0,
        shape=shape,
        whole_map=part == (0, shape[0], 0, shape[1]),
        pictures_note=pictures.fields.note,
        scored=scores["scored"],
        not_scored=statements.not_scored(results.cells),
        features=features,
        plates=records(plates),
        wells_table=records(results.wells) if own else [],
        trend=trend_charts(results, plate_page) if followed else [],
        trend_outside=outside_rows(results, plate_page) if followed else [],
        trend_dated=dated_text(results) if followed else "",
        charts=charts(results, shape),
        edge_charts=_edge_charts(results, plates, screen.focus),
        worst=[gallery for gallery in chosen if gallery["kind"] == "artefact"],
        border=[gallery for gallery in chosen if gallery["kind"] == "borderline"],
        compounds=[gallery for gallery in chosen if gallery["kind"] == "compound"],
        compounds_total=int(results.compounds["warned"].sum()),
        compounds_tested=len(results.compounds),
        corrected=statements.corrected_plates(results.corrections),
        drift_known=str(screen.detector.get("screen", "the detector")),
        steps=statements.next_steps(results, simulated),
    )


def _pictures(
    screen: Screen, results: Results, chosen: Sequence[dict], features: dict | None, own: bool
) -> Pictures:
    """Return the pictures of a page: crops of its galleries and map, and those of its fields."""
    of_galleries = [crop for gallery in chosen for crop in gallery["rows"]["crop_id"]]
    of_map = list(features["points"]["crop"]) if features and features["points"] else []
    walked = (
        choose_crops(results.cells, FLAGGED_CROPS, BORDERLINE_CROPS, PASSED_CROPS, SEED)
        if own
        else []
    )
    names = [*of_galleries, *of_map, *walked]
    several = len(screen.shards.format.channels) > 1
    detailed = [*of_galleries, *walked][:WITH_CHANNELS] if several else []
    crops = crop_sheets(screen.shards, names, screen.composite, CROP_BYTES, detailed)
    fields = FieldPictures()
    if own:
        # The outlines of the other cells would take more bytes than small pictures do.
        outlined = is_flagged(results.cells) | results.cells["crop_id"].isin(crops.positions)
        fields = field_pictures(
            results.fields,
            results.cells[outlined],
            screen.source,
            screen.shards,
            screen.composite,
            FIELD_BYTES,
            SEED,
            screen.threads,
        )
    return Pictures(fields, crops)


def _sheets_css(sheets: CropSheets) -> Markup:
    side = sheets.tile_px
    rules = [f".tile {{ width: {side}px; height: {side}px; }}"]
    for letter, uris in (("s", sheets.sheets), ("c", sheets.channel_sheets)):
        rules += [
            f".{letter}{place} {{ background-image: url({uri}); }}"
            for place, uri in enumerate(uris)
        ]
    return Markup("\n".join(rules))


def _crops_data(sheets: CropSheets, cells: pd.DataFrame, results: Results) -> dict:
    """Return the columns of the crops that have a tile; `well` is the row in `wells_data`."""
    rows = cells.loc[list(sheets.positions)]
    at = pd.MultiIndex.from_frame(results.wells[KEYS]).get_indexer(
        pd.MultiIndex.from_frame(rows[KEYS])
    )
    return {
        "tile": sheets.tile_px,
        "id": list(sheets.positions),
        "at": list(sheets.positions.values()),
        "channels": [sheets.channel_positions.get(name) for name in sheets.positions],
        "well": at,
        "site": rows["Metadata_Site"].astype(int),
        "score": rows["score"],
        "flagged": is_flagged(rows),
        "artefact": rows["artefact"].astype(object).where(rows["artefact"].notna(), None),
    }


def _pictures_data(pictures: Pictures, results: Results, kinds: Sequence[str]) -> list:
    """Return for each row of fields its thumbnail, outlines and crops; None where it has none."""
    numbers = {name: place for place, name in enumerate(pictures.crops.positions)}
    places = results.fields[[*KEYS, "Metadata_Site"]].itertuples(index=False)
    found: list[dict | None] = []
    for plate, well, site in places:
        picture = pictures.fields.pictures.get((plate, well, int(site)))
        if picture is None:
            found.append(None)
            continue
        crops = picture.outlines["crop_id"]
        found.append(
            {
                "src": picture.uri,
                "width": picture.width,
                "height": picture.height,
                "nuclei": pack_outlines(picture, kinds),
                "crops": {
                    place: numbers[crop] for place, crop in enumerate(crops) if crop in numbers
                },
            }
        )
    return found


def _shown_crops(rows: pd.DataFrame, sheets: CropSheets) -> list[dict]:
    """Return what the page says of each crop of a gallery, and where its tile lies."""
    columns = ["crop_id", "Metadata_Plate", "Metadata_Well", "Metadata_Site", "score", "artefact"]
    found = []
    for crop, plate, well, site, score, artefact in rows[columns].itertuples(index=False):
        kind = "" if is_missing(artefact) else artefact
        found.append(
            {
                "crop_id": crop,
                "name": f"Crop {crop}, score {score:.3f}" + (f", {kind}" if kind else ""),
                "at": sheets.positions.get(crop),
                "channels": sheets.channel_positions.get(crop),
                "place": f"{plate} {well} s{site}",
                "cell": within_field(crop),
                "score": f"{score:.3f}",
                "artefact": kind,
            }
        )
    return found


def _drop_rows(dropped: pd.DataFrame, results: Results, own: bool) -> list[dict]:
    """Return the rows of the table of drops, each with a link to its well."""
    rows = with_links(dropped, results, own)
    wells = results.wells.set_index(KEYS)
    for row in rows:
        row["treatment"] = statements.treatment(
            wells.loc[tuple(row[key] for key in KEYS)].to_dict()
        )
    return rows


def _drops_text(results: Results, dropped: pd.DataFrame) -> str:
    cells = flagged_elsewhere(results, dropped)
    where = "outside of these wells and fields" if len(dropped) else "in total"
    told = f"{counted(cells, 'cell is', 'cells are')} flagged {where}."
    if not len(dropped):
        return told
    wells, fields = (int((dropped["drop"] == what).sum()) for what in ("well", "field"))
    listed = [counted(wells, "bad well")] if wells else []
    if fields:
        listed.append(counted(fields, "bad field") + (" of other wells" if wells else ""))
    return f"The list has {' and '.join(listed)}. {told[0].upper()}{told[1:]}"


def _edge_charts(results: Results, plates: pd.DataFrame, focus: FocusScale) -> list[dict]:
    reach = edge_reach(results.fields["edge"], focus)
    of_cells = dict(iter(results.cells.groupby("Metadata_Plate")["edge"]))
    none = results.cells["edge"].head(0)
    return [
        {
            "name": plate,
            "edges": edge_chart(
                of_cells.get(plate, none),
                results.fields.loc[results.fields["Metadata_Plate"] == plate, "edge"],
                focus,
                reach,
            ),
        }
        for plate in plates["Metadata_Plate"].head(MOST_EDGE_CHARTS)
    ]


def _worst_plates(plates: pd.DataFrame, of_plates: Mapping) -> pd.DataFrame:
    """Return plates: those that fail most checks first, then those with most bad wells."""
    ranks = plates["Metadata_Plate"].map(
        lambda plate: sorted((light.rank for light in of_plates[plate]), reverse=True)
    )
    keyed = plates.assign(rank=ranks.map(tuple))
    keys = ["rank", "bad_wells", "flagged_share"]
    keyed = keyed.sort_values(keys, ascending=False, na_position="last", kind="stable")
    return keyed.drop(columns="rank")


def _position(plates: pd.DataFrame, ordered: pd.DataFrame) -> int:
    """Return the place of the first of `ordered` plates among `plates`."""
    if not len(plates):
        return 0
    return list(plates["Metadata_Plate"]).index(ordered["Metadata_Plate"].iloc[0])
