"""Label files, nuclei and truths made up in a few words, for tests of what joins them."""

import numpy as np
import pandas as pd

from hcsqc.labels.match import FILE_COLUMNS

HEADER = ",".join(FILE_COLUMNS)


def label_file(path, *lines, header=HEADER):
    """Write a label file of some lines."""
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def label_rows(*places, label="normal", source="a.csv", **columns):
    """Return rows of label files at (well, x, y)."""
    rows = pd.DataFrame(places, columns=["well", "x_px", "y_px"])
    values = {"plate": "p", "site": 1, "label": label, "artefact": "", "annotator": "alice"}
    return rows.assign(**(values | {"selection": "random", "source": source} | columns))


def placed(*rows):
    """Return placed labels from (crop, annotator, label[, artefact])."""
    rows = [(*row, "")[:4] for row in rows]
    table = pd.DataFrame(rows, columns=["crop_id", "annotator", "label", "artefact"])
    return table.assign(source=table["annotator"] + ".csv")


def nuclei_at(*places, plate="p", site=1):
    """Return nuclei at (well, x, y, kept)."""
    rows = pd.DataFrame(places, columns=["well", "x_px", "y_px", "kept"])
    rows["field_id"] = f"s/{plate}/" + rows["well"] + f"/s{site}"
    rows["crop_id"] = [
        f"{row.field_id}/x{row.x_px:04d}y{row.y_px:04d}" for row in rows.itertuples()
    ]
    reason = rows["kept"].map({True: None, False: "border"})
    return rows.assign(plate=plate, site=site, area_px=300, reason=reason)


def truth_at(*cells, plate="p", site=1):
    """Return truth of cells at (well, x, y, artefact[, distance of the nearest changed pixel])."""
    columns = ["well", "x_px", "y_px", "artefact", "artefact_px"]
    rows = pd.DataFrame([(*cell, None)[:5] for cell in cells], columns=columns)
    rows = rows.astype({"artefact_px": "Int32"})
    strength = np.where(rows["artefact"] == "none", 0.0, 0.7)
    return rows.assign(plate=plate, site=site, strength=strength, scope="cell")
