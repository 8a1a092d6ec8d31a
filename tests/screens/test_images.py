"""Reading the images of a field: what other libraries read is read alike, damage never half."""

import builtins
import io
import json
import shutil
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import pandas as pd
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from xxhash import xxh3_128

from hcsqc.core.schema import read_table, write_table
from hcsqc.screens.images import tiff
from hcsqc.screens.images.read import UnreadableField, read_field
from tests.conftest import EXAMPLE
from tests.screens.ngff import write_group, write_image

unhurried = settings(deadline=None, max_examples=200)  # a busy machine is no failure


def plane(height=20, width=30, dtype="uint16", seed=0, top=4096):
    top = min(top, np.iinfo(dtype).max)
    return np.random.default_rng(seed).integers(0, top, (height, width)).astype(dtype)


def stack(count=3, **options):
    return np.stack([plane(seed=seed, **options) for seed in range(count)])


def read(path, page=None, z_projection=None):
    """Read one channel of one file."""
    return read_field(path.parent, [path.name], [page], z_projection).planes[0]


def refusal(path, page=None, z_projection=None):
    """Return why an image is refused; the message must name the file."""
    with pytest.raises(UnreadableField) as caught:
        read(path, page, z_projection)
    assert str(caught.value).startswith(f"{path.name}: ")
    return str(caught.value).removeprefix(f"{path.name}: ")


def tiff_bytes(pixels, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, **options)
    return file.getvalue()


def plain_tiff(pixels, rows=None, gap=0, **tags):
    """Write a little-endian TIFF by hand; `tags` change or add tags (`t259=5`), None leaves out.

    Strips lie `gap` bytes apart.
    """
    height, width = pixels.shape
    rows = rows or height
    strips = [pixels[top : top + rows].tobytes() for top in range(0, height, rows)]
    lengths = [len(strip) for strip in strips]
    starts = [8 + sum(lengths[:index]) + index * gap for index in range(len(strips))]
    values = {256: width, 257: height, 258: pixels.itemsize * 8, 259: 1, 262: 1, 273: starts}
    values |= {277: 1, 278: rows, 279: lengths} | {int(k[1:]): v for k, v in tags.items()}
    data = b"".join(strip + b"\0" * gap for strip in strips)
    lists, entries, place = b"", b"", 8 + len(data)
    for code, value in sorted(values.items()):
        if value is None:
            continue
        numbers = value if isinstance(value, list) else [value]
        content = struct.pack(f"<{len(numbers)}I", *numbers)
        if len(content) > 4:
            lists, content = lists + content, struct.pack("<I", place + len(lists))
        entries += struct.pack("<HHI", code, 4, len(numbers)) + content
    count = struct.pack("<H", len(entries) // 12)
    header = b"II*\0" + struct.pack("<I", place + len(lists))
    return header + data + lists + count + entries + b"\0\0\0\0"


def put(folder, content, name="a.tif"):
    (folder / name).write_bytes(content)
    return folder / name


@pytest.fixture
def no_tifffile(monkeypatch):
    """Make tifffile fail, so that only what is read without it is read at all."""

    def refuse(*_, **__):
        raise AssertionError("read by tifffile")

    monkeypatch.setattr(tiff.tifffile, "TiffFile", refuse)


# TIFF: as tifffile reads it.


@st.composite
def written_tiffs(draw):
    """Draw a plane and the way tifffile writes it."""
    dtype = draw(st.sampled_from(["uint8", "uint16"]))
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    pixels = plane(height, width, dtype, draw(st.integers(0, 99)))
    compression = draw(st.sampled_from([None, None, "lzw", "deflate", "zstd", "packbits"]))
    options = {
        "byteorder": draw(st.sampled_from("<>")),
        "rowsperstrip": draw(st.one_of(st.none(), st.integers(1, height))),
        "photometric": "minisblack",
        "metadata": draw(st.sampled_from([None, {}])),
        "bigtiff": draw(st.sampled_from([False, False, True])),
        "compression": compression,
        "predictor": draw(st.booleans()) if compression else None,
    }
    if draw(st.integers(0, 4)) == 0:
        options |= {"tile": (16, 16), "rowsperstrip": None}
    return pixels, options


@unhurried
@given(written=written_tiffs())
def test_tiff_is_read_as_tifffile_reads_it(tmp_path_factory, written):
    pixels, options = written
    path = put(tmp_path_factory.mktemp("tiff"), tiff_bytes(pixels, **options))
    ours = read(path)
    assert ours.dtype == pixels.dtype and ours.flags.c_contiguous and ours.flags.aligned
    np.testing.assert_array_equal(ours, tifffile.imread(path))
    np.testing.assert_array_equal(ours, pixels)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("rows", [1, 3, 5, 20])
@pytest.mark.parametrize("metadata", [None, {}])
def test_plain_tiff_is_read_without_tifffile(tmp_path, no_tifffile, dtype, rows, metadata):
    pixels = plane(dtype=dtype)
    path = put(tmp_path, tiff_bytes(pixels, rowsperstrip=rows, metadata=metadata))
    np.testing.assert_array_equal(read(path), pixels)


def test_real_fields_are_read_as_tifffile_reads_them():
    paths = sorted((EXAMPLE / "images").glob("*/*.tif"))
    assert len(paths) == 24
    for path in paths:
        ours, expected = read(path), tifffile.imread(path)
        assert ours.shape == (520, 696) and ours.dtype == np.uint16
        np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize(
    "change",
    [
        {"t259": 5},
        {"t262": 0},
        {"t266": 2},
        {"t274": 3},
        {"t277": 3},
        {"t317": 2},
        {"t339": 2},
        {"t258": 32},
        {"t254": 1},
        {"t322": 16, "t323": 16},
        {"t330": 8},
        {"t33629": 1},
        {"t278": 7},
        {"t273": [8, 8, 8, 8]},
        {"t279": [300, 300, 300, 299]},
        {"t279": None},
        {"t262": None},
    ],
    ids=str,
)
def test_tiff_that_is_not_plain_in_one_way_is_left_to_tifffile(tmp_path, no_tifffile, change):
    path = put(tmp_path, plain_tiff(plane(), rows=5, **change))
    assert "read by tifffile" in refusal(path)


def test_hand_written_tiff_is_plain_without_changes(tmp_path, no_tifffile):
    for options in ({}, {"t278": None}, {"t277": None, "t259": None}, {"t278": 2**32 - 1}):
        path = put(tmp_path, plain_tiff(plane(), **options))
        np.testing.assert_array_equal(read(path), plane())


def test_strips_that_lie_apart_or_start_at_an_odd_byte_are_read(tmp_path):
    path = put(tmp_path, plain_tiff(plane(), rows=5, gap=6))
    np.testing.assert_array_equal(read(path), plane())
    content = plain_tiff(plane(), t273=9)
    shifted = content[:8] + b"\0" + content[8:]
    (directory,) = struct.unpack("<I", content[4:8])
    path = put(tmp_path, shifted[:4] + struct.pack("<I", directory + 1) + shifted[8:])
    ours = read(path)
    np.testing.assert_array_equal(ours, plane())
    assert ours.flags.aligned


def test_12_bit_packed_pixels_are_read(tmp_path):
    pixels = plane(21, 33)
    path = put(tmp_path, tiff_bytes(pixels, bitspersample=12))
    assert path.stat().st_size < pixels.nbytes
    np.testing.assert_array_equal(read(path), pixels)


@pytest.mark.parametrize("compression", ["jpeg", "jpeg2000", "png"])
def test_other_codecs_are_read_as_tifffile_reads_them(tmp_path, compression):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, plane(dtype="uint8"), compression=compression)
    np.testing.assert_array_equal(read(path), tifffile.imread(path))


@pytest.mark.parametrize(
    ("pixels", "options", "message"),
    [
        (plane().astype("float32"), {}, "float32 image of shape"),
        (plane().astype("int16"), {}, "int16 image of shape"),
        (plane().astype("uint32"), {}, "uint32 image of shape"),
        (plane() > 99, {}, "bool image of shape"),
        (stack(3, dtype="uint8").transpose(1, 2, 0), {"photometric": "rgb"}, "colour image"),
        (stack(3), {"photometric": "rgb", "planarconfig": "separate"}, "colour image"),
        (stack(1)[0], {"photometric": "miniswhite"}, "0 is white"),
        (
            plane(dtype="uint8"),
            {"photometric": "palette", "colormap": np.zeros((3, 256), "uint16")},
            "colour image .PALETTE",
        ),
        (
            stack(2).transpose(1, 2, 0),
            {"photometric": "minisblack", "planarconfig": "contig", "extrasamples": [0]},
            "2 samples per pixel",
        ),
    ],
)
def test_other_kinds_of_pixels_are_refused(tmp_path, pixels, options, message):
    path = put(tmp_path, tiff_bytes(np.ascontiguousarray(pixels), **options))
    text = refusal(path)
    assert message.replace(".", "(") in text or message in text
    assert "expected one grey-level plane of unsigned 8 or 16 bit" in text


# Damage.

KINDS = {
    "plain": tiff_bytes(plane(), rowsperstrip=4, metadata=None),
    "directory_last": plain_tiff(plane(), rows=4),
    "big_endian": tiff_bytes(plane(), byteorder=">"),
    "lzw": tiff_bytes(plane(), compression="lzw", rowsperstrip=4),
    "deflate": tiff_bytes(plane(), compression="deflate", predictor=True),
    "tiles": tiff_bytes(plane(), tile=(16, 16), compression="zstd"),
    "bigtiff": tiff_bytes(plane(), bigtiff=True),
    "stack": tiff_bytes(stack(), photometric="minisblack"),
    "imagej": tiff_bytes(stack(), imagej=True, truncate=True, metadata={"axes": "ZYX"}),
    "one_page": tiff_bytes(stack(), photometric="minisblack", truncate=True),
    "png": imagecodecs.png_encode(plane()),
}


@unhurried
@given(kind=st.sampled_from(sorted(KINDS)), kept=st.floats(0, 1, exclude_max=True))
def test_truncated_file_is_never_half_read(tmp_path_factory, kind, kept):
    """Whatever is cut off: refused, or (a trailing byte or two) read whole."""
    content = KINDS[kind]
    cut = put(tmp_path_factory.mktemp("cut"), content[: int(len(content) * kept)])
    whole = np.max(stack(), axis=0) if kind in ("stack", "imagej", "one_page") else plane()
    try:
        ours = read(cut, z_projection="max")
    except UnreadableField as error:
        assert str(error).startswith("a.tif: ")
    else:
        assert len(content) - cut.stat().st_size < 16, "so much is not padding"
        np.testing.assert_array_equal(ours, whole)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_file_cut_in_its_middle_is_refused(tmp_path, kind):
    content = KINDS[kind]
    for share in (0.1, 0.5, 0.9):
        refusal(put(tmp_path, content[: int(len(content) * share)]), z_projection="max")


@unhurried
@given(kind=st.sampled_from(sorted(KINDS)), place=st.floats(0, 1), flipped=st.integers(1, 255))
def test_flipped_byte_is_read_or_refused_but_never_another_error(
    tmp_path_factory, kind, place, flipped
):
    content = bytearray(KINDS[kind])
    content[min(int(place * len(content)), len(content) - 1)] ^= flipped
    path = put(tmp_path_factory.mktemp("flip"), bytes(content))
    try:
        ours = read(path, z_projection="max")
    except UnreadableField as error:
        assert str(error).startswith("a.tif: ")
    else:
        assert ours.ndim == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"hello", "is neither TIFF nor PNG"),
        (imagecodecs.jpeg_encode(plane(dtype="uint8")), "is neither TIFF nor PNG"),
        (b"II*\0" + b"\0" * 4, "holds no image: its list of pages is empty"),
        (b"II*\0\xff\xff\xff\xff", "truncated: page 0 lies beyond its end"),
        (b"II*\0\x08\0\0\0\0\0\x08\0\0\0", "damaged: its list of pages is circular"),
        (plain_tiff(plane())[:900], "truncated: page 0 lies beyond its end"),
        (plain_tiff(plane(), t273=500), "truncated: "),
        (plain_tiff(plane(), rows=5, t279=[300, 0, 300, 300]), "damaged: has an empty strip"),
        (plain_tiff(plane(), rows=5, t273=[8], t279=[300]), "damaged: has 1 of 4 strips"),
        (plain_tiff(plane(), t259=8, t256=637534238), "damaged: says that it has 637534238 x "),
    ],
)
def test_damaged_file_is_refused_with_its_reason(tmp_path, content, message):
    assert refusal(put(tmp_path, content)).startswith(message)


def test_strip_that_decodes_to_too_few_rows_is_refused(tmp_path):
    short = imagecodecs.zlib_encode(plane()[:7].tobytes())
    content = plain_tiff(plane(), t259=8, t279=len(short))
    path = put(tmp_path, content[:8] + short + content[8 + len(short) :])
    assert "cannot be read as an image" in refusal(path)


def test_missing_file_and_missing_channel_are_named(tmp_path):
    assert refusal(tmp_path / "gone.tif") == "no such file"
    path = put(tmp_path, tiff_bytes(plane()))
    with pytest.raises(UnreadableField, match="no image of channel 2"):
        read_field(tmp_path, [path.name, None])


# Several planes in one file.


@pytest.mark.parametrize("options", [{}, {"compression": "lzw"}, {"byteorder": ">"}])
def test_pages_are_counted_from_0(tmp_path, options):
    pixels = stack(4)
    path = put(tmp_path, tiff_bytes(pixels, photometric="minisblack", **options))
    for page in range(4):
        np.testing.assert_array_equal(read(path, page), pixels[page])
    assert refusal(path, 4) == "has no page 4; its 4 are counted from 0"
    assert refusal(path, -1) == "has no page -1; its 4 are counted from 0"


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_stack_is_flattened_as_the_screen_says(tmp_path, count, dtype):
    pixels = stack(count, dtype=dtype, top=65536)
    path = put(tmp_path, tiff_bytes(pixels, photometric="minisblack"))
    assert refusal(path) == (
        f"has {count} planes; set z_projection of the screen to max, mean or middle, or name pages"
    )
    np.testing.assert_array_equal(read(path, None, "max"), pixels.max(axis=0))
    np.testing.assert_array_equal(read(path, None, "middle"), pixels[count // 2])
    mean = read(path, None, "mean")
    assert mean.dtype == pixels.dtype
    assert np.abs(mean - pixels.mean(axis=0)).max() <= 0.5
    np.testing.assert_array_equal(read(path, 1, "max"), pixels[1])


def test_projection_of_one_plane_is_that_plane(tmp_path):
    path = put(tmp_path, tiff_bytes(plane()))
    for projection in ("max", "mean", "middle"):
        np.testing.assert_array_equal(read(path, None, projection), plane())


def test_planes_of_different_sizes_are_refused(tmp_path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(plane(20, 30), metadata=None)
        writer.write(plane(10, 30), metadata=None)
    assert refusal(path, None, "max") == "its planes differ in size: (20, 30) and (10, 30)"
    np.testing.assert_array_equal(read(path, 1), plane(10, 30))


def test_thumbnails_and_levels_of_a_pyramid_are_no_planes(tmp_path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(plane(), subifds=1, metadata=None)
        writer.write(plane()[::2, ::2], subfiletype=1, metadata=None)
        writer.write(plane()[::4, ::4], subfiletype=1, metadata=None)
    np.testing.assert_array_equal(read(path), plane())


@pytest.mark.parametrize("kind", ["imagej", "tifffile", "metamorph"])
def test_stack_in_one_page_is_read_as_a_stack(tmp_path, kind):
    pixels = stack(3)
    if kind == "imagej":
        content = tiff_bytes(pixels, imagej=True, truncate=True, metadata={"axes": "ZYX"})
    elif kind == "tifffile":
        content = tiff_bytes(pixels, photometric="minisblack", truncate=True)
    else:
        # UIC1 and UIC2 as MetaMorph has them: as many planes as UIC2 has values.
        content = plain_tiff(pixels.reshape(60, 30), t257=20, t278=20, t279=1200)
        content = with_uic_tags(content, planes=3)
    path = put(tmp_path, content)
    with tifffile.TiffFile(path) as file:
        assert len(file.pages) == 1
        np.testing.assert_array_equal(file.asarray(), pixels)
    np.testing.assert_array_equal(read(path, None, "max"), pixels.max(axis=0))
    np.testing.assert_array_equal(read(path, 2), pixels[2])
    assert refusal(path).startswith("has 3 planes")


def with_uic_tags(content: bytes, planes: int) -> bytes:
    """Add MetaMorph's tags to a file that `plain_tiff` has written."""
    (directory,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, directory)
    entries = content[directory + 2 : directory + 2 + 12 * count]
    values = struct.pack(f"<{6 * planes}I", *range(1, 6 * planes + 1))
    place = len(content)
    entries += struct.pack("<HHII", 33628, 4, 1, place)
    entries += struct.pack("<HHII", 33629, 5, planes, place)
    header = struct.pack("<I", place + len(values))
    listed = struct.pack("<H", count + 2) + entries + b"\0\0\0\0"
    return content[:4] + header + content[8:] + values + listed


def test_ome_tiff_that_names_other_files_is_read_by_its_own_pages(tmp_path):
    written = tmp_path / "a.ome.tif"
    tifffile.imwrite(written, stack(2), metadata={"axes": "CYX"}, photometric="minisblack")
    for page in (0, 1):
        np.testing.assert_array_equal(read(written, page), stack(2)[page])


# A field.


def test_file_of_several_channels_is_read_once(tmp_path, monkeypatch):
    put(tmp_path, tiff_bytes(stack(3), photometric="minisblack"))
    put(tmp_path, tiff_bytes(plane(seed=7)), "b.tif")
    opened, real = [], builtins.open

    def counting(path, *args, **kwargs):
        opened.append(Path(path).name)
        return real(path, *args, **kwargs)

    monkeypatch.setattr(builtins, "open", counting)
    field = read_field(tmp_path, ["a.tif", "b.tif", "a.tif", "a.tif"], [2, None, 0, 1])
    assert sorted(opened) == ["a.tif", "b.tif"]
    for ours, expected in zip(field.planes, [2, 7, 0, 1], strict=True):
        np.testing.assert_array_equal(ours, plane(seed=expected))


def test_digests_are_those_of_the_files(tmp_path):
    contents = [tiff_bytes(stack(2), photometric="minisblack"), imagecodecs.png_encode(plane())]
    for name, content in zip(("a.tif", "b.png"), contents, strict=True):
        put(tmp_path, content, name)
    field = read_field(tmp_path, ["a.tif", "b.png", "a.tif"], [0, None, 1])
    a, b = (xxh3_128(content).hexdigest() for content in contents)
    assert field.digests == [a, b, a]


def test_paths_and_pages_come_from_the_table_of_fields(tmp_path):
    """Parquet's nulls come back as NaN beside numbers."""
    put(tmp_path, tiff_bytes(stack(2), photometric="minisblack"))
    put(tmp_path, tiff_bytes(plane(seed=5)), "b.tif")
    row = {"field_id": "s/p/A01/s1", "plate": "p", "well": "A01", "site": 1, "role": None}
    row |= {"compound": None, "concentration_um": None, "problem": None}
    row |= {"image_path": ["a.tif", "b.tif"], "image_page": [1, None], "image_bytes": [1, 1]}
    write_table(pd.DataFrame([row]), tmp_path / "fields.parquet", "fields")
    back = read_table(tmp_path / "fields.parquet", "fields").iloc[0]
    field = read_field(tmp_path, back["image_path"], back["image_page"])
    np.testing.assert_array_equal(field.planes, [plane(seed=1), plane(seed=5)])


def test_fields_are_read_from_many_threads(tmp_path):
    expected = {}
    for index in range(8):
        options = [{}, {"compression": "lzw"}, {"byteorder": ">"}][index % 3]
        expected[put(tmp_path, tiff_bytes(plane(seed=index), **options), f"{index}.tif")] = index
    for zarr_format in (2, 3):
        folder = write_image(tmp_path / f"z{zarr_format}", plane(seed=9), "yx", None, zarr_format)
        expected[folder] = 9
    jobs = [*expected] * 6
    with ThreadPoolExecutor(8) as pool:
        for path, ours in zip(jobs, pool.map(read, jobs), strict=True):
            np.testing.assert_array_equal(ours, plane(seed=expected[path]))


# PNG.


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_png_is_read_as_opencv_reads_it(tmp_path, dtype):
    pixels = plane(dtype=dtype, top=65536)
    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    ours = read(tmp_path / "a.png")
    assert ours.dtype == dtype
    np.testing.assert_array_equal(ours, cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED))
    np.testing.assert_array_equal(ours, pixels)
    assert refusal(tmp_path / "a.png", 1) == "has no page 1; its 1 are counted from 0"


@pytest.mark.parametrize(
    ("depth", "colour"), [(8, 2), (8, 3), (8, 4), (8, 6), (16, 2), (1, 0), (4, 0)]
)
def test_png_of_colours_or_few_bits_is_refused(tmp_path, depth, colour):
    header = struct.pack(">IIBBBBB", 30, 20, depth, colour, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + header
    text = refusal(put(tmp_path, content, "a.png"))
    assert text.startswith(f"PNG of colour type {colour} and {depth} bit, expected grey levels")


def test_colour_png_of_another_library_is_refused(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), stack(3, dtype="uint8").transpose(1, 2, 0))
    assert refusal(tmp_path / "a.png").startswith("PNG of colour type 2")


# OME-Zarr.


def zarr_pixels(shape=(1, 2, 3, 20, 30), dtype="uint16"):
    return np.random.default_rng(1).integers(1, 250, shape).astype(dtype)


@pytest.mark.parametrize(
    ("zarr_format", "codec", "shard"),
    [(2, "blosc", None), (2, "zstd", None), (2, None, None), (3, "blosc", None), (3, "zstd", 32),
     (3, "gzip", None)],
)  # fmt: skip
def test_ome_zarr_is_read_at_full_resolution(tmp_path, zarr_format, codec, shard):
    pixels = zarr_pixels((1, 2, 1, 20, 30))
    options = {"zarr_format": zarr_format, "codec": codec, "shard": shard}
    path = write_image(tmp_path / "P.zarr/A/1/0", pixels, **options)
    field = read_field(tmp_path, ["P.zarr/A/1/0"] * 2, [1, 0])
    for ours, channel in zip(field.planes, [1, 0], strict=True):
        assert ours.dtype == np.uint16 and ours.flags.c_contiguous
        np.testing.assert_array_equal(ours, pixels[0, channel, 0])
        np.testing.assert_array_equal(ours, zarr.open_array(path / "0", mode="r")[0, channel, 0])
    expected = [xxh3_128(pixels[0, c].astype("<u2").tobytes()).hexdigest() for c in (1, 0)]
    assert field.digests == expected


@pytest.mark.parametrize(
    ("axes", "shape"), [("yx", (20, 30)), ("cyx", (2, 20, 30)), ("zcyx", (3, 2, 20, 30))]
)
def test_ome_zarr_of_any_axes_is_read(tmp_path, axes, shape):
    pixels = zarr_pixels(shape, "uint8")
    path = write_image(tmp_path / "i", pixels, axes)
    for channel in range(2 if "c" in axes else 1):
        of_channel = pixels if "c" not in axes else np.take(pixels, channel, axes.index("c"))
        expected = of_channel.max(axis=0) if "z" in axes else of_channel
        np.testing.assert_array_equal(read(path, channel, "max"), expected)


def test_z_of_ome_zarr_is_flattened_and_its_digest_is_of_all_planes(tmp_path):
    pixels = zarr_pixels()
    path = write_image(tmp_path / "i", pixels)
    np.testing.assert_array_equal(read(path, 1, "max"), pixels[0, 1].max(axis=0))
    np.testing.assert_array_equal(read(path, 1, "middle"), pixels[0, 1, 1])
    assert "has 3 planes; set z_projection" in refusal(path, 1)
    digest = xxh3_128(pixels[0, 1].tobytes()).hexdigest()
    assert read_field(tmp_path, ["i"], [1], "middle").digests == [digest]


def test_channels_of_ome_zarr_are_named_by_the_page(tmp_path):
    path = write_image(tmp_path / "i", zarr_pixels((2, 20, 30)), "cyx")
    assert refusal(path) == "has 2 channels; name one of them"
    assert refusal(path, 2) == "has no channel 2; its 2 are counted from 0"
    alone = write_image(tmp_path / "j", zarr_pixels((1, 20, 30)), "cyx")
    np.testing.assert_array_equal(read(alone), zarr_pixels((1, 20, 30))[0])


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("codec", ["blosc", None])
def test_truncated_chunk_is_never_filled(tmp_path, zarr_format, codec):
    pixels = zarr_pixels((2, 20, 30))
    path = write_image(tmp_path / "i", pixels, "cyx", None, zarr_format, codec)
    key = "1/0/1" if zarr_format == 2 else "c/1/0/1"
    chunk = path / "0" / key
    chunk.write_bytes(chunk.read_bytes()[:-3])
    assert refusal(path, 1).startswith(
        ("cannot be read as an image", f"chunk 0/{key} is truncated")
    )
    np.testing.assert_array_equal(read(path, 0), pixels[0])


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("codec", ["blosc", None])
def test_chunks_of_the_fill_value_need_not_be_stored(tmp_path, zarr_format, codec):
    """Zarr leaves them out, and so does every writer that follows it; but it is said."""
    pixels = zarr_pixels((2, 20, 30))
    pixels[1, :16, 16:] = 0
    path = write_image(tmp_path / "i", pixels, "cyx", None, zarr_format, codec)
    assert not (path / "0" / ("1/0/1" if zarr_format == 2 else "c/1/0/1")).exists()
    field = read_field(tmp_path, ["i", "i"], [0, 1])
    np.testing.assert_array_equal(field.planes, pixels)
    assert field.odd == [None, "1 chunks are not stored and hold 0"]
    dark = write_image(tmp_path / "j", pixels * np.uint16([[[1]], [[0]]]), "cyx")
    np.testing.assert_array_equal(read(dark, 1), np.zeros((20, 30)))


def test_ome_zarr_without_a_chunk_or_a_fill_value_is_refused(tmp_path):
    path = write_image(tmp_path / "i", zarr_pixels((2, 20, 30)), "cyx")
    metadata = json.loads((path / "0/.zarray").read_text())
    (path / "0/1/0/1").unlink()
    (path / "0/.zarray").write_text(json.dumps(metadata | {"fill_value": None}))
    assert refusal(path, 1) == "chunk 0/1/0/1 is missing; copy the image again"
    (path / "0/.zarray").write_text(json.dumps(metadata))
    for channel in "01":
        shutil.rmtree(path / "0" / channel)
    assert refusal(path, 1) == "none of its chunks exists; copy the image again"


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda path: (path / ".zattrs").unlink(), "has no OME-Zarr metadata"),
        (lambda path: (path / ".zattrs").write_text("{"), ".zattrs is damaged"),
        (lambda path: (path / ".zattrs").write_text("[]"), ".zattrs is damaged: expected names"),
        (lambda path: (path / ".zattrs").write_text("{}"), "its multiscales metadata are missing"),
        (lambda path: (path / "0/.zarray").unlink(), "cannot be read as an image"),
        (lambda path: (path / "0/.zarray").write_text("{"), "cannot be read as an image"),
    ],
)
def test_damaged_ome_zarr_is_refused_with_its_reason(tmp_path, break_it, message):
    path = write_image(tmp_path / "i", zarr_pixels((1, 20, 30)), "cyx")
    break_it(path)
    assert refusal(path, 0).startswith(message)


@pytest.mark.parametrize(
    ("axes", "dtype", "message"),
    [
        ("tyx", "uint16", "has 2 time points, expected one"),
        ("cyx", "float32", "float32 image of shape"),
        ("cyx", "int16", "int16 image of shape"),
        ("pyx", "uint16", "has axes p, y, x, expected y, x and perhaps t, c, z"),
    ],
)
def test_other_ome_zarr_is_refused(tmp_path, axes, dtype, message):
    path = write_image(tmp_path / "i", zarr_pixels((2, 20, 30), dtype), axes)
    assert refusal(path, 0).startswith(message)


def test_folder_that_is_no_ome_zarr_is_refused(tmp_path):
    (tmp_path / "folder").mkdir()
    assert refusal(tmp_path / "folder").startswith("has no OME-Zarr metadata")
    write_group(tmp_path / "group", {})
    assert refusal(tmp_path / "group").startswith("its multiscales metadata are missing")


def test_a_lack_of_memory_is_not_taken_for_a_bad_image(tmp_path, monkeypatch):
    def no_room(path):
        raise MemoryError

    monkeypatch.setattr("hcsqc.screens.images.read._open", no_room)
    with pytest.raises(MemoryError):
        read_field(tmp_path, ["a.tif"])
