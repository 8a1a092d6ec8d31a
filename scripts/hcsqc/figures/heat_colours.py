"""Colours of a heat map of shares found: the more is missed, the darker.

One hue whose lightness falls evenly, so that the map reads in grey and without telling red from
green.
"""

from collections.abc import Iterable

# Of a share found, nothing to all: red, green and blue.
NOTHING_FOUND, ALL_FOUND = (127, 39, 4), (255, 255, 255)
# Where black and white text contrast alike, 4.6 to 1 (WCAG 2.1).
DARKEST_FOR_BLACK = 0.179
# Beside a number: fewer than half are found, for certain.
MISSED_MARK = "\N{BLACK DOWN-POINTING SMALL TRIANGLE}"


def colours(share: float) -> tuple[str, str]:
    """Return the colours of a cell and of its text, as `#rrggbb`, for a share found of 0 to 1."""
    channels = [
        round(dark + (light - dark) * share)
        for dark, light in zip(NOTHING_FOUND, ALL_FOUND, strict=True)
    ]
    text = "#000000" if luminance(channels) > DARKEST_FOR_BLACK else "#ffffff"
    return "#{:02x}{:02x}{:02x}".format(*channels), text


def luminance(channels: Iterable[float]) -> float:
    """Return the relative luminance of red, green and blue of 0 to 255 (WCAG 2.1)."""
    linear = [
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
        for value in (channel / 255 for channel in channels)
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
