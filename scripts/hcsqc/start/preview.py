"""What a person should look at before a study: crops of its nuclei, or all of its channels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hcsqc.core.errors import InputError
from hcsqc.crops.cut import cut_windows, window_inside
from hcsqc.crops.nuclei import NucleusSettings, find_nuclei
from hcsqc.crops.shards import composite
from hcsqc.figures.style import plt, save_figure
from hcsqc.screens.scale import apply_scale, lookup_tables
from hcsqc.start.outlines import round_outlines
from hcsqc.start.survey import Survey

SHOWN_CROPS, GAP_PX, CROP_SEED = 8, 6, 0
# Of each channel so many fields are shown, of each its middle, at most so wide.
SHOWN_FIELDS, SHOWN_MIDDLE_PX, SHOWN_PERCENTILES = 4, 400, (1, 99.8)
# Outlines of nuclei of BBBC022 are 30 px wide, where the fast method expects 25.
OUTLINE_EXCESS = 1.2
# Beyond this factor from the config's diameter the screen gets one of its own.
USUAL_FACTOR = 1.5
# Fewer nuclei per field, or fields with any, are in doubt.
FEW_NUCLEI, FEW_FIELDS = 5, 0.5


@dataclass(frozen=True)
class Examples:
    """Nuclei of the sampled fields: some crops to show, and what all of them are like."""

    crops: np.ndarray  # n x C x window x window of uint8
    names: list[str]  # of their fields
    nuclei_per_field: float
    crops_per_field: float  # those whose window lies inside the field
    nucleus: NucleusSettings
    fields: int
    fields_with_nuclei: int


class NoNuclei(InputError):
    """A channel without a nucleus: another one may show them."""


def find_examples(seen: Survey, nucleus: str, crops: Mapping) -> Examples:
    """Find nuclei in the sampled fields with the fast method, and cut a few crops.

    `crops` is that section of the config. Raises NoNuclei if there is none, and InputError if none
    has a whole window.
    """
    place, side = seen.channels.index(nucleus), crops["window_px"]
    read = seen.planes()
    settings = _nucleus_settings([planes[place] for _, planes in read], crops)
    tables = lookup_tables(seen.scale, crops["scale_knee"], "uint8")
    rng, found, kept, cut = np.random.default_rng(CROP_SEED), [], 0, []
    for field, (name, planes) in enumerate(read):
        nuclei = find_nuclei(planes[place], settings)
        whole = np.flatnonzero(window_inside(nuclei.x_px, nuclei.y_px, seen.shape, side))
        found.append(len(nuclei))
        kept += len(whole)
        chosen = rng.permutation(whole)[:SHOWN_CROPS]
        pixels = apply_scale(planes, tables)
        windows = cut_windows(pixels, nuclei.x_px[chosen], nuclei.y_px[chosen], side)
        cut += [(turn, field, name, window) for turn, window in enumerate(windows)]
    size = f"{len(read)} fields of {seen.shape[1]} x {seen.shape[0]} px"
    if not any(found):
        raise NoNuclei(
            f"no nuclei found in channel {nucleus} of {size}; if the nuclei are in another "
            "channel, set --nucleus-channel"
        )
    if not cut:
        raise InputError(
            f"{sum(found)} nuclei found in channel {nucleus} of {size}, and none has a whole "
            f"window of {side} px around it; use larger images"
        )
    # Fields take turns, so that each is seen.
    shown = sorted(cut, key=lambda entry: entry[:2])[:SHOWN_CROPS]
    shown.sort(key=lambda entry: entry[1])
    return Examples(
        np.stack([window for *_, window in shown]),
        [name for _, _, name, _ in shown],
        sum(found) / len(read),
        kept / len(read),
        settings,
        len(read),
        sum(count > 0 for count in found),
    )


def few_nuclei(examples: Examples, nucleus: str) -> str | None:
    """Return a warning of too few nuclei in channel `nucleus`, with what to try; None of enough."""
    fields = f"{examples.fields_with_nuclei} of {examples.fields} fields"
    if (
        examples.nuclei_per_field >= FEW_NUCLEI
        and examples.fields_with_nuclei >= FEW_FIELDS * examples.fields
    ):
        return None
    return (
        f"few nuclei: {examples.nuclei_per_field:.1f} per field, in {fields}. Are the nuclei in "
        f"another channel than {nucleus} (--nucleus-channel)? Are they about "
        f"{examples.nucleus.nucleus_diameter_px:g} px wide (nucleus_diameter_px in the study)? "
        "Are the images an export to 8 bits without stretching?"
    )


def _nucleus_settings(planes: Sequence[np.ndarray], crops: Mapping) -> NucleusSettings:
    """Return the size of nuclei: the config's where it is about right, else as outlines tell."""
    usual, smallest = crops["nucleus_diameter_px"], crops["nucleus_smallest_px"]
    measured = [diameter for _, diameter in map(round_outlines, planes) if diameter]
    diameter = float(np.median(measured)) / OUTLINE_EXCESS if measured else usual
    if usual / USUAL_FACTOR <= diameter <= usual * USUAL_FACTOR:
        return NucleusSettings("fast", usual, smallest)
    rounded = max(3, round(diameter))
    return NucleusSettings("fast", rounded, max(1, round(smallest * (rounded / usual) ** 2)))


def draw_preview(
    examples: Examples, channels: Sequence[str], chosen: Sequence[str], nucleus: str, path: Path
) -> None:
    """Draw the examples as PNG: a row of composites, and below each its nucleus channel."""
    count, _, side, _ = examples.crops.shape
    figure, axes = plt.subplots(2, 1, figsize=(1.6 * count, 3.7), layout="constrained")
    colours = composite(examples.crops, channels, chosen)
    grey = composite(examples.crops, channels, [nucleus])
    for axis, crops in zip(axes, (colours, grey), strict=True):
        axis.imshow(_strip([_picture(crop) for crop in crops]))
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    middles = np.arange(count) * (side + GAP_PX) + side / 2
    axes[0].set_xticks(middles, examples.names, fontsize=7)
    axes[0].tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
    shown = zip(("red", "green", "blue"), chosen, strict=False)
    named = [f"{colour}: {name}" for colour, name in shown]
    axes[0].set_ylabel("\n".join(named) if len(chosen) > 1 else f"grey: {chosen[0]}", fontsize=7)
    axes[1].set_ylabel(f"nuclei: {nucleus}", fontsize=7)
    save_figure(figure, path)


def draw_channels(seen: Survey, shares: Mapping[str, float], path: Path) -> None:
    """Draw the middle of a few fields as PNG, a row per channel with its share of outlines."""
    fields = seen.planes()[:SHOWN_FIELDS]
    rows = len(seen.channels)
    figure, axes = plt.subplots(
        rows, 1, figsize=(1.9 * len(fields), 2.0 * rows), squeeze=False, layout="constrained"
    )
    for place, (name, axis) in enumerate(zip(seen.channels, axes.flat, strict=True)):
        middles = [_middle(planes[place]) for _, planes in fields]
        low, high = np.percentile(middles, SHOWN_PERCENTILES)
        grey = np.clip((np.stack(middles) - low) / max(1.0, high - low), 0, 1)
        pictures = [np.repeat(np.uint8(255 * field)[..., None], 3, axis=2) for field in grey]
        axis.imshow(_strip(pictures))
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
        axis.set_ylabel(f"{name}\nround: {shares[name]:.2f}", fontsize=8)
    save_figure(figure, path)


def _middle(plane: np.ndarray) -> np.ndarray:
    """Return the middle of a field, at most SHOWN_MIDDLE_PX along each side."""
    top, left = (max(0, (side - SHOWN_MIDDLE_PX) // 2) for side in plane.shape)
    return plane[top : top + SHOWN_MIDDLE_PX, left : left + SHOWN_MIDDLE_PX]


def _strip(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Return H x W x 3 pictures side by side, with white between them."""
    gap = np.full((len(pictures[0]), GAP_PX, 3), 255, np.uint8)
    return np.hstack([part for picture in pictures for part in (picture, gap)][:-1])


def _picture(crop: np.ndarray) -> np.ndarray:
    """Return C x H x W as H x W x 3: red, green, blue; of two channels red and green."""
    if len(crop) == 1:
        crop = np.repeat(crop, 3, axis=0)
    elif len(crop) == 2:
        crop = np.concatenate([crop, np.zeros_like(crop[:1])])
    return crop[:3].transpose(1, 2, 0)
