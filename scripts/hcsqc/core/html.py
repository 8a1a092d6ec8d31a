"""Pages: one Jinja environment for all of them, in which all text is escaped."""

from collections.abc import Callable, Mapping
from pathlib import Path

import jinja2


def render(template: Path, filters: Mapping[str, Callable] | None = None, **values: object) -> str:
    """Return the page that a template makes of `values`; a name that they lack is an error."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= filters or {}
    return environment.from_string(template.read_text(encoding="utf-8")).render(values)
