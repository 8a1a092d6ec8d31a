"""Compressed strips and tiles of TIFF, and that a decoder has not made up what is missing.

Decoders of JPEG fill up what was cut off and say so in a warning that nobody hears. So only kinds
of compression are read whose decoders refuse too little data, or that can be checked here.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import tifffile
from tifffile import COMPRESSION

from hcsqc.screens.images.planes import UnreadableField

# Their decoders fail on too little data: shown by tests/screens/test_compressed.py.
_STRICT = {
    COMPRESSION.NONE,
    COMPRESSION.LZW,
    COMPRESSION.ADOBE_DEFLATE,
    COMPRESSION.DEFLATE,
    COMPRESSION.PACKBITS,
    COMPRESSION.ZSTD,
    COMPRESSION.LZMA,
    COMPRESSION.PNG,
    COMPRESSION.LERC,
    COMPRESSION.JPEGXL,
    COMPRESSION.PIXTIFF,
}
_JPEG = {COMPRESSION.JPEG, COMPRESSION.ALT_JPEG}
_JPEG2000 = {COMPRESSION.JPEG2000, COMPRESSION.JPEG_2000_LOSSY}
# The last two bytes of an image by JPEG and by JPEG 2000.
_END = b"\xff\xd9"
# Without 255, so that it holds no marker.
_MORE = bytes((37 * index + 11) % 251 for index in range(64))


def decode_whole(page: tifffile.TiffPage, content: bytes) -> np.ndarray:
    """Return the pixels of a page; raises UnreadableField if a part of them is made up."""
    compression = page.compression
    if compression not in _STRICT | _JPEG | _JPEG2000:
        kind = getattr(compression, "name", compression)
        raise UnreadableField(
            f"compressed by {kind}, in which missing data are not noticed; write it "
            "uncompressed or with deflate, LZW or zstd"
        )
    with _warnings_are_errors():
        if compression in _JPEG | _JPEG2000:
            _check_ends(page, content)
        return page.asarray(maxworkers=1)  # fields are already read side by side


def _check_ends(page: tifffile.TiffPage, content: bytes) -> None:
    """Raise UnreadableField if a strip ends before its last pixel."""
    tables = page.jpegtables
    for index, (start, size) in enumerate(zip(page.dataoffsets, page.databytecounts, strict=True)):
        stored = content[start : start + size].rstrip(b"\0")
        if not stored.endswith(_END):
            raise UnreadableField(f"truncated: strip {index} of {page.compression.name} has no end")
        if page.compression in _JPEG2000:
            continue
        # What a decoder lacks it reads from whatever comes next; what is whole needs no more.
        longer = stored[: -len(_END)] + _MORE + _END
        as_stored, with_more = (
            page.decode(data, index, jpegtables=tables)[0] for data in (stored, longer)
        )
        if not np.array_equal(as_stored, with_more):
            raise UnreadableField(f"truncated: strip {index} of JPEG ends before its last pixel")


@contextmanager
def _warnings_are_errors() -> Iterator[None]:
    """Raise UnreadableField with what tifffile has logged in this thread."""
    heard = _Heard()
    logger = logging.getLogger("tifffile")
    logger.addHandler(heard)
    try:
        yield
    finally:
        logger.removeHandler(heard)
    if heard.messages:
        raise UnreadableField(f"damaged: {heard.messages[0]}")


class _Heard(logging.Handler):
    """The warnings of one thread."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.thread, self.messages = threading.get_ident(), list[str]()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self.thread:
            self.messages.append(record.getMessage())
