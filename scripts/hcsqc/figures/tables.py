"""What makes the tables of a page sort, filter and download: DataTables, and its use here."""

from pathlib import Path

from markupsafe import Markup

DATA_FILES = ("tables.css", "datatables.min.js", "tables.js")
STYLE, LIBRARY, SCRIPT = (Path(__file__).with_name(name) for name in DATA_FILES)


def table_parts() -> dict[str, Markup]:
    """Return the values of a page's template: `tables_css`, `datatables` and `tables_script`.

    Both scripts, in this order, enhance each `<table class="data" data-name="...">` inside of an
    element of class `scroll`; `<body data-file="...">` begins the names of downloads. A `<td>` may
    have `data-order` to sort by, and `data-value` and `data-interval` for the download, whose
    column a `<th>` may name by `data-title`.
    """
    names = ("tables_css", "datatables", "tables_script")
    files = (STYLE, LIBRARY, SCRIPT)
    return {
        name: Markup(path.read_text(encoding="utf-8"))
        for name, path in zip(names, files, strict=True)
    }
