"""Where a person looks when a run has ended."""

from pathlib import Path

# Below a study's results; `*` is a screen.
_PLACES = {
    "report/index.html": "the study's report",
    "qc/*/report.html": "quality control of {screen}, its tables beside it",
    "qc/*/fields.csv": "flags of fields of {screen}, of wells and plates beside it",
    "qc/*/label_page.html": "crops of {screen}, to label",
    "qc/*/suspicious_labels/page.html": "labels of {screen}, to check",
}
# More screens than these are named by their pattern.
_MOST_SCREENS = 4


def where_to_look(study: Path | None) -> list[str]:
    """Return a line for each page and table that there is below a study's results."""
    if study is None:
        return []
    found: list[tuple[str, str]] = []
    for pattern, words in _PLACES.items():
        paths = sorted(study.glob(pattern))
        if len(paths) > _MOST_SCREENS:
            found.append((str(study / pattern), words.format(screen=f"{len(paths)} screens")))
        else:
            found += [
                (str(path), words.format(screen=path.relative_to(study).parts[1])) for path in paths
            ]
    if not found:
        return []
    width = max(len(path) for path, _ in found)
    return ["Look at", *(f"  {path:<{width}}  {words}" for path, words in found)]
