"""Compressed images that were cut short are refused, whatever their decoder makes of them."""

import io
import logging
import struct

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from hcsqc.screens.images.compressed import _JPEG, _JPEG2000, _STRICT
from hcsqc.screens.images.read import UnreadableField, read_field

unhurried = settings(deadline=None, max_examples=80)
KINDS = sorted(
    compression.name for compression in (_STRICT | _JPEG | _JPEG2000) - {tifffile.COMPRESSION.NONE}
)
# Written by nobody that we know of as a whole file; decoded as JPEG is.
UNWRITTEN = {"ALT_JPEG"}


def smooth(dtype):
    pixels = cv2.GaussianBlur(np.random.default_rng(0).normal(0, 1, (48, 64)), (0, 0), 3)
    pixels = (pixels - pixels.min()) / np.ptp(pixels)
    return (pixels * np.iinfo(dtype).max).astype(dtype)


def compressed(kind, rows=16):
    """Return a TIFF of three strips, and what it holds."""
    content = io.BytesIO()
    pixels = smooth("uint8" if kind in ("JPEG", "PIXTIFF") else "uint16")
    compression = tifffile.COMPRESSION[kind]
    tifffile.imwrite(
        content, pixels, compression=compression, rowsperstrip=rows, photometric="minisblack",
        metadata=None,
    )  # fmt: skip
    return content.getvalue()


def strips(content):
    """Return a page, and where each strip's number of bytes is written."""
    page = tifffile.TiffFile(io.BytesIO(content)).pages[0]
    tag = page.tags["StripByteCounts"]
    width = {"SHORT": 2, "LONG": 4}[tag.dtype.name]
    return page, [(tag.valueoffset + width * index, width) for index in range(tag.count)]


def cut_short(content, strip, kept, filler=b""):
    """Shorten a strip, as a writer does that dies or is lied to; `filler` stands at its end."""
    page, counts = strips(content)
    start, size = page.dataoffsets[strip], page.databytecounts[strip]
    kept = min(int(size * kept), size - 1)
    cut = bytearray(content)
    cut[start + kept : start + size] = filler.ljust(size - kept, b"\0")[: size - kept]
    place, width = counts[strip]
    cut[place : place + width] = (kept + len(filler)).to_bytes(width, "little")
    return bytes(cut)


def read(folder, content):
    (folder / "a.tif").write_bytes(content)
    return read_field(folder, ["a.tif"]).planes[0]


WHOLE = {kind: compressed(kind) for kind in KINDS if kind not in UNWRITTEN}


@unhurried
@given(
    kind=st.sampled_from(sorted(WHOLE)),
    strip=st.integers(0, 2),
    kept=st.floats(0.01, 1, exclude_max=True),
)
def test_a_strip_cut_short_is_never_filled_up(tmp_path_factory, kind, strip, kept):
    folder = tmp_path_factory.mktemp("cut")
    whole = read(folder, WHOLE[kind])
    try:
        ours = read(folder, cut_short(WHOLE[kind], strip, kept))
    except UnreadableField as error:
        assert str(error).startswith("a.tif: ")
    else:
        np.testing.assert_array_equal(ours, whole)  # it was padding


@pytest.mark.parametrize("kind", ["JPEG", "JPEG2000", "JPEG_2000_LOSSY"])
@pytest.mark.parametrize("kept", [0.3, 0.5, 0.9])
def test_a_strip_that_ends_in_zeros_is_refused(tmp_path, kind, kept):
    """Room was made for it, and its end never written."""
    page, _ = strips(WHOLE[kind])
    content = bytearray(WHOLE[kind])
    start, size = page.dataoffsets[1], page.databytecounts[1]
    content[start + int(kept * size) : start + size] = bytes(size - int(kept * size))
    with pytest.raises(UnreadableField, match=f"truncated: strip 1 of {kind} has no end"):
        read(tmp_path, bytes(content))


@pytest.mark.parametrize("kept", [0.6, 0.8, 0.95])
def test_jpeg_that_lacks_data_before_its_end_is_refused(tmp_path, kept):
    """Decoders fill such images with grey, and warn nobody but their own library."""
    content = cut_short(WHOLE["JPEG"], 1, kept, filler=b"\xff\xd9")
    page, _ = strips(content)
    tables = page.jpegtables
    stored = content[page.dataoffsets[1] :][: page.databytecounts[1]]
    assert imagecodecs.jpeg_decode(stored, tables=tables).shape == (16, 64), "filled up"
    with pytest.raises(UnreadableField, match="truncated: strip 1 of JPEG ends before its last"):
        read(tmp_path, content)


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
def test_jpeg_2000_that_lacks_data_before_its_end_is_refused(tmp_path, kept):
    content = cut_short(WHOLE["JPEG2000"], 1, kept, filler=b"\xff\xd9")
    with pytest.raises(UnreadableField, match=r"^a.tif: "):
        read(tmp_path, content)


def test_a_whole_jpeg_of_any_make_is_read(tmp_path):
    """Progressive, with restarts, of 12 bits, lossless: none needs more than it has."""
    for encoded, dtype in [
        (cv2.imencode(".jpg", smooth("uint8"), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1], "uint8"),
        (cv2.imencode(".jpg", smooth("uint8"), [cv2.IMWRITE_JPEG_RST_INTERVAL, 4])[1], "uint8"),
        (imagecodecs.jpeg8_encode(smooth("uint16"), lossless=True), "uint16"),
    ]:
        content, data = io.BytesIO(), bytes(encoded)
        tifffile.imwrite(
            content, iter([data]), shape=(48, 64), dtype=dtype, compression="jpeg", metadata=None,
            rowsperstrip=48, photometric="minisblack",
        )  # fmt: skip
        ours = read(tmp_path, content.getvalue())
        np.testing.assert_array_equal(ours, imagecodecs.jpeg_decode(data))


@pytest.mark.parametrize("kind", ["JPEGXR", "WEBP"])
def test_kinds_whose_damage_cannot_be_seen_are_refused_by_name(tmp_path, kind):
    """A whole JPEG XR with its last two thirds cut off decodes without a word."""
    content = bytearray(WHOLE["LZW"])
    page, _ = strips(content)
    place = page.tags["Compression"].offset + 8
    content[place : place + 2] = struct.pack("<H", tifffile.COMPRESSION[kind])
    with pytest.raises(UnreadableField, match=f"compressed by {kind}, in which missing data"):
        read(tmp_path, bytes(content))


def test_what_tifffile_warns_of_while_it_decodes_is_an_error(tmp_path, monkeypatch):
    asarray = tifffile.TiffPage.asarray

    def warning(self, *args, **kwargs):
        logging.getLogger("tifffile").warning("a strip was %s", "made up")
        return asarray(self, *args, **kwargs)

    monkeypatch.setattr(tifffile.TiffPage, "asarray", warning)
    with pytest.raises(UnreadableField, match=r"a.tif: damaged: a strip was made up"):
        read(tmp_path, WHOLE["LZW"])
