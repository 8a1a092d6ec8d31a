"""Names of encoders and probes in pages: words, and the machine's name for who points at them."""

from collections.abc import Callable, Mapping

from markupsafe import Markup

from hcsqc.figures.words import Words


def name_filters(words: Words, config: Mapping) -> dict[str, Callable[[str], str]]:
    """Return filters `encoder` and `probe` for a template: names in words, escaped."""
    return {
        "encoder": _named(words.encoder, config["encoders"]),
        "probe": _named(words.probe, config["probes"]),
    }


def _named(of: Callable[[str], str], catalogue: Mapping) -> Callable[[str], str]:
    def filtered(name: str) -> str:
        text = of(name)
        if text == name or name not in catalogue:
            return text
        return Markup('<span title="{}">{}</span>').format(name, text)

    return filtered
