"""Which channel shows the nuclei: the one whose outlines are round and of one size."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

NUCLEUS_NAME = re.compile(r"(?i)dna|hoechst|dapi|h33342|nucle|draq")
# By custom the first wavelength of ImageXpress, and so of BBBC022 and BBBC021; not of BBBC013.
NUCLEUS_BY_CUSTOM = "w1"
# An outline is a nucleus' if it fills its convex hull and is this round; 1 is a circle.
LEAST_SOLIDITY, LEAST_ROUNDNESS, LEAST_AREA_PX = 0.9, 0.65, 30
OUTLINE_SIGMA_PX = 1.5
# Nuclei before and after the doubling of their DNA are of one size: within this factor of the area.
ONE_SIZE = 2.0
# The nucleus channel's share must be so large, and so many times the next channel's. On eight
# fields of BBBC022: DNA 0.77, RNA 0.24, the others below 0.18; on simulated U2OS: 0.87 and 0.50.
CLEAR_SHARE, CLEAR_LEAD = 0.4, 1.25
# Below this share nothing is round.
POOR_SHARE = 0.1


@dataclass(frozen=True)
class Guess:
    """The channel of the nuclei, None if it is in doubt; why; and what speaks against it."""

    channel: str | None
    why: str
    warning: str | None = None


def round_outlines(plane: np.ndarray) -> tuple[float, float]:
    """Return which share of a plane's bright area is round and of one size, and the size.

    `plane` is H x W. The size, in pixels, is the diameter of a circle of the median area of these
    outlines; 0 if nothing is round.
    """
    low, high = np.percentile(plane, [1, 99.8])
    grey = np.clip((plane.astype(np.float32) - low) / max(1.0, high - low), 0, 1)
    # Roots bring dim nuclei near to bright ones.
    grey = cv2.GaussianBlur(np.sqrt(grey), (0, 0), OUTLINE_SIGMA_PX)
    levels = np.rint(255 * grey).astype(np.uint8)
    _, mask = cv2.threshold(levels, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    areas = np.array([cv2.contourArea(outline) for outline in outlines])
    is_round = np.array([_is_round(*pair) for pair in zip(outlines, areas, strict=True)], bool)
    if not is_round.any():
        return 0.0, 0.0
    found = np.sort(areas[is_round])
    # Half of the round area lies in outlines up to this one, so that specks do not set the size.
    usual = found[np.searchsorted(np.cumsum(found), found.sum() / 2)]
    alike = found[(found >= usual / ONE_SIZE) & (found <= usual * ONE_SIZE)]
    diameter = 2 * np.sqrt(np.median(alike) / np.pi)
    return float(alike.sum() / areas.sum()), float(diameter)


def _is_round(outline: np.ndarray, area: float) -> bool:
    if area < LEAST_AREA_PX:
        return False
    solidity = area / cv2.contourArea(cv2.convexHull(outline))
    roundness = 4 * np.pi * area / cv2.arcLength(outline, True) ** 2
    return solidity > LEAST_SOLIDITY and roundness > LEAST_ROUNDNESS


def share_by_channel(
    channels: Sequence[str], fields: Sequence[Sequence[np.ndarray]]
) -> dict[str, float]:
    """Return the median over fields, each a plane per channel, of the share of `round_outlines`."""
    return {
        name: float(np.median([round_outlines(planes[place])[0] for planes in fields]))
        for place, name in enumerate(channels)
    }


def guess_nucleus_channel(shares: Mapping[str, float]) -> Guess:
    """Return the channel whose `shares` are clearly the largest; where none is, what names say.

    A name alone decides only if its outlines are not clearly worse than another channel's.
    """
    best, *others = sorted(shares, key=lambda name: -shares[name])
    if not others:
        return Guess(best, "the only channel")
    named = [name for name in shares if NUCLEUS_NAME.search(name)]
    customary = named or [name for name in shares if name == NUCLEUS_BY_CUSTOM]
    if shares[best] >= max(CLEAR_SHARE, CLEAR_LEAD * shares[others[0]]):
        if best in customary:
            return Guess(best, "by its outlines, round and of one size, and by its name")
        why = "by its outlines, round and of one size"
        if not customary:
            return Guess(best, why)
        return Guess(
            best,
            why,
            f"{customary[0]} has a usual name of the nucleus channel, but its outlines are "
            "less round or of many sizes; is it the nucleus channel? --nucleus-channel "
            f"{customary[0]}",
        )
    likely = max(customary, key=lambda name: shares[name], default=None)
    in_doubt = likely is None or any(
        CLEAR_LEAD * shares[name] >= shares[likely] for name in customary if name != likely
    )
    if named and not in_doubt and shares[best] < max(POOR_SHARE, CLEAR_LEAD * shares[likely]):
        return Guess(likely, "by its name; no channel's outlines are clearly rounder")
    if shares[best] < POOR_SHARE:
        return Guess(None, "no channel shows round outlines")
    if in_doubt:
        return Guess(None, "no channel's outlines are clearly the roundest")
    if likely == best:
        return Guess(likely, "by convention; its outlines are the roundest, but not clearly")
    return Guess(None, f"{likely} has the usual name, but other outlines are rounder")
