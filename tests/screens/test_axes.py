"""Files that say what their planes are are taken at their word, or refused by name."""

import itertools
import re

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from hcsqc.screens.images.read import UnreadableField, read_field
from hcsqc.screens.layouts import Source, index_plate, list_channels
from tests.screens.ngff import write_group, write_image

NAMES = ["ER", "DNA", "AGP"]
unhurried = settings(deadline=None, max_examples=60)


def planes(*shape):
    return np.random.default_rng(0).integers(0, 4096, (*shape, 8, 9)).astype(np.uint16)


def write_ome(path, pixels, axes, names=None, change=lambda text: text, **options):
    """Write an OME-TIFF; `change` is done to its XML."""
    metadata = {"axes": axes} | ({"Channel": {"Name": names}} if names else {})
    tifffile.imwrite(path, pixels, ome=True, metadata=metadata, photometric="minisblack", **options)
    text = tifffile.tiffcomment(path)
    tifffile.tiffcomment(path, change(text).encode())
    return path


def read(path, channels, z_projection="max"):
    """Read all channels of a screen from one file."""
    count = len(channels)
    field = read_field(path.parent, [path.name] * count, [None] * count, z_projection, channels)
    return np.stack(field.planes)


def refusal(path, channels, z_projection="max"):
    with pytest.raises(UnreadableField) as caught:
        read(path, channels, z_projection)
    assert str(caught.value).startswith(f"{path.name}: ")
    return str(caught.value)


@unhurried
@given(
    order=st.permutations("CZ"),
    count=st.integers(1, 3),
    deep=st.integers(1, 3),
    data=st.data(),
)
def test_channels_of_ome_tiff_are_found_by_name(tmp_path_factory, order, count, deep, data):
    """However the planes lie, whichever channels are wanted: z never mixes them."""
    sizes = {"C": count, "Z": deep}
    pixels = planes(*(sizes[axis] for axis in order))
    names = NAMES[:count]
    path = tmp_path_factory.mktemp("ome") / "a.ome.tif"
    write_ome(path, pixels, "".join(order) + "YX", names)
    wanted = data.draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    by_channel = np.moveaxis(pixels, order.index("C"), 0)
    expected = [by_channel[names.index(name)].max(axis=0) for name in wanted]
    np.testing.assert_array_equal(read(path, [name.lower() for name in wanted]), expected)


def test_channels_without_known_names_are_those_of_the_screen_in_order(tmp_path):
    pixels = planes(2, 3)
    for names in (None, ["Hoechst", "ConA"]):
        path = write_ome(tmp_path / "a.tif", pixels, "CZYX", names)
        np.testing.assert_array_equal(read(path, ["DNA", "ER"]), pixels.max(axis=1))
        np.testing.assert_array_equal(read(path, ["DNA", "ER"], "middle"), pixels[:, 1])
    assert "has 3 planes; set z_projection" in refusal(path, ["DNA", "ER"], None)


def test_names_that_do_not_fit_are_refused_with_those_of_the_file(tmp_path):
    path = write_ome(tmp_path / "a.tif", planes(2, 3), "CZYX", ["ER", "DNA"])
    text = refusal(path, ["DNA", "AGP"])
    assert "has 2 channels (ER, DNA), but 2 of the screen lie in it (not once by name: AGP)" in text
    assert "has 2 channels (ER, DNA), but 1 of the screen lie in it" in refusal(path, ["AGP"])
    assert "but 3 of the screen lie in it" in refusal(path, ["a", "b", "c"])
    doubled = write_ome(tmp_path / "b.tif", planes(3), "CYX", ["DNA", "DNA", "ER"])
    assert "(not once by name: DNA)" in refusal(doubled, ["DNA", "ER"])
    np.testing.assert_array_equal(read(doubled, ["ER"]), planes(3)[2:])


@pytest.mark.parametrize("compression", [None, "deflate"])
@pytest.mark.parametrize(("deep", "files"), [(1, 1), (1, 2), (3, 1)])
def test_a_file_of_one_channel_that_calls_itself_another_is_refused(
    tmp_path, compression, deep, files
):
    """By the same rule as a file of several: what it calls itself counts, if the screen has it."""

    def several(text):
        """As writers of a file per channel do: each describes all of them, and says which it is."""
        if files == 1:
            return text
        other = '<Channel ID="Channel:0:8" Name="DNA"/><Channel ID="Channel:0:9" Name="ER"/>'
        data = "".join(
            f'<TiffData FirstC="{c}" IFD="0" PlaneCount="1"><UUID FileName="{c}">urn:{c}</UUID>'
            "</TiffData>"
            for c in range(2)
        )
        text = re.sub(r"<Channel .*?</Channel>", other, text, flags=re.DOTALL)
        text = re.sub(r"<TiffData .*?/>", data, text).replace('SizeC="1"', 'SizeC="2"')
        return re.sub(r'UUID="[^"]*"', 'UUID="urn:1"', text)

    pixels = planes(deep)
    path = tmp_path / "place_of_DNA.tif"
    axes, stored = ("ZYX", pixels) if deep > 1 else ("YX", pixels[0])
    write_ome(path, stored, axes, ["ER"], several, compression=compression)

    def read_as(channel, *others):
        paths = [path.name, *("other.tif" for _ in others)]
        channels = [channel, *others]
        return read_field(tmp_path, paths, None, "max", channels, only=[0]).planes[0]

    with pytest.raises(UnreadableField) as caught:
        read_as("DNA", "er")
    assert str(caught.value) == (
        "place_of_DNA.tif: calls itself channel ER, but stands for DNA; correct its place or its "
        "description, or give the screen's channels other names"
    )
    # Its own name, and names that the screen does not know, say nothing else than the place.
    for channels in (("er", "DNA"), ("w1", "w2")):
        np.testing.assert_array_equal(read_as(*channels), pixels.max(axis=0))


def test_several_channels_none_of_which_is_wanted_are_refused_if_the_screen_has_them(tmp_path):
    path = write_ome(tmp_path / "a.tif", planes(2), "CYX", ["ER", "Hoechst"])
    paths, channels = [path.name, path.name, "b.tif"], ["DNA", "AGP", "ER"]
    with pytest.raises(UnreadableField, match="calls itself channel ER, but stands for DNA, AGP;"):
        read_field(tmp_path, paths, None, None, channels, only=[0])


@pytest.mark.parametrize("cut", [lambda text: text[:-20], lambda text: text.replace("XYZCT", "X")])
def test_what_is_damaged_about_the_only_plane_does_not_matter(tmp_path, cut):
    path = write_ome(tmp_path / "a.tif", planes(1)[0], "YX", ["ER"], cut)
    np.testing.assert_array_equal(read(path, ["DNA"])[0], planes(1)[0])


def test_a_page_that_is_named_is_that_page(tmp_path):
    """As LoadData's frames name them."""
    path = write_ome(tmp_path / "a.tif", planes(2, 3), "CZYX", ["ER", "DNA"])
    field = read_field(tmp_path, [path.name] * 2, [1, 4])
    np.testing.assert_array_equal(field.planes, planes(2, 3).reshape(6, 8, 9)[[1, 4]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:-20], "its OME-XML is damaged"),
        (lambda text: text.replace('SizeZ="3"', 'SizeZ="2"'), "its OME-XML is damaged (planes"),
        (lambda text: text.replace('SizeZ="3"', 'SizeZ="deep"'), "its OME-XML is damaged"),
        (
            lambda text: text.replace('SizeZ="3"', 'SizeZ="999999999"').replace(
                ' PlaneCount="6"', ' PlaneCount="999999999"'
            ),
            "its OME-XML describes 999999999 planes, but it has 6",
        ),
        (lambda text: text.replace("XYZCT", "XYZZT"), "its OME-XML is damaged (DimensionOrder"),
        (lambda text: text.replace('PlaneCount="6"', 'PlaneCount="5"'), "describes 5 planes, but"),
        (
            lambda text: text.replace('SizeZ="3"', 'SizeZ="1"').replace('SizeT="1"', 'SizeT="3"'),
            "has 3 time points, expected one",
        ),
        (
            lambda text: text.replace(
                '<TiffData IFD="0" PlaneCount="6"/>',
                '<TiffData IFD="0"/><TiffData IFD="1" FirstC="1" PlaneCount="3"/>'
                '<TiffData IFD="4" FirstZ="1"/><TiffData IFD="5" FirstZ="1"/>',
            ),
            "its OME-XML describes a plane twice",
        ),
        (
            lambda text: text.replace(
                "</OME>", text[text.index("<Image") :].replace("Image0", "second")
            ),
            "holds 2 images (Image0, second), expected those of one site",
        ),
        (
            lambda text: text[: text.index("<Image")] + "<BinaryOnly MetadataFile='a'/></OME>",
            "its OME-XML does not describe its planes",
        ),
    ],
)
def test_ome_xml_that_does_not_fit_is_refused(tmp_path, change, message):
    path = write_ome(tmp_path / "a.tif", planes(2, 3), "CZYX", ["ER", "DNA"], change)
    assert message in refusal(path, ["ER", "DNA"])


def test_of_several_files_that_the_xml_describes_the_own_planes_count(tmp_path):
    """A file per channel, each with the whole XML, as Bio-Formats writes them."""

    def change(text):
        own = text[text.index('UUID="') + 6 :].partition('"')[0]
        text = text.replace('SizeC="1"', 'SizeC="2"').replace("XYCZT", "XYZCT")
        return text.replace(
            '<TiffData IFD="0" PlaneCount="3"/>',
            '<Channel ID="Channel:0:1" Name="ER"/>'
            '<TiffData PlaneCount="3"><UUID FileName="other.tif">urn:uuid:1</UUID></TiffData>'
            f'<TiffData IFD="0" FirstC="1" PlaneCount="3"><UUID FileName="a.tif">{own}</UUID>'
            "</TiffData>",
        )

    path = write_ome(tmp_path / "a.tif", planes(3), "ZYX", ["DNA"], change)
    np.testing.assert_array_equal(read(path, ["ER"]), [planes(3).max(axis=0)])
    torn = tifffile.tiffcomment(path)
    own = torn[torn.index('UUID="') : torn.index('"', torn.index('UUID="') + 6) + 1]
    tifffile.tiffcomment(path, torn.replace(own, "").encode())
    assert "describes several files and does not say which one this is" in refusal(path, ["ER"])


@pytest.mark.parametrize("kind", ["imagej", "tifffile"])
def test_imagej_and_tifffile_are_taken_at_their_word_too(tmp_path, kind):
    path, pixels = tmp_path / "a.tif", planes(3, 2)  # ImageJ has z before c
    options = {"imagej": True} if kind == "imagej" else {"photometric": "minisblack"}
    for truncate in (False, True):
        more = {"metadata": {"axes": "ZCYX"}, "truncate": truncate}
        tifffile.imwrite(path, pixels, **options, **more)
        np.testing.assert_array_equal(read(path, ["DNA", "ER"]), pixels.max(axis=0))
        assert "has 2 channels, but 1 of the screen lie in it" in refusal(path, ["DNA"])
    tifffile.imwrite(path, pixels, **options, metadata={"axes": "TCYX"})
    assert "has 3 time points, expected one" in refusal(path, ["DNA", "ER"])


def test_pages_of_which_nothing_is_said_must_be_as_many_as_the_channels(tmp_path):
    path, pixels = tmp_path / "a.tif", planes(6)
    tifffile.imwrite(path, pixels, photometric="minisblack", metadata=None)
    np.testing.assert_array_equal(read(path, list("abcdef"), None), pixels)
    message = "has 6 pages without a description, but 2 channels of the screen lie in it"
    assert message in refusal(path, ["DNA", "ER"])
    np.testing.assert_array_equal(read(path, ["DNA"]), [pixels.max(axis=0)])


def test_levels_of_a_pyramid_are_no_planes(tmp_path):
    path, pixels = tmp_path / "a.tif", planes(2, 3)
    with tifffile.TiffWriter(path, ome=True) as writer:
        metadata = {"axes": "CZYX", "Channel": {"Name": ["ER", "DNA"]}}
        writer.write(pixels, subifds=1, metadata=metadata, photometric="minisblack")
        writer.write(pixels[..., ::2, ::2], subfiletype=1, photometric="minisblack")
    np.testing.assert_array_equal(read(path, ["DNA", "ER"]), pixels.max(axis=1)[::-1])


def test_a_screen_of_ome_tiffs_has_its_channels_by_name(tmp_path):
    write_ome(tmp_path / "B02.ome.tif", planes(2, 3), "CZYX", ["ER", "DNA"])
    write_ome(tmp_path / "B03.ome.tif", planes(2, 3)[::-1], "CZYX", ["DNA", "ER"])
    source = Source("files", tmp_path, ("DNA", "ER"), pattern=r"(?P<well>[A-H]\d\d)\.ome\.tif")
    fields, _ = index_plate(source, "own", "P1")
    for row in fields.itertuples():
        field = read_field(tmp_path, row.image_path, row.image_page, "max", source.channels)
        np.testing.assert_array_equal(field.planes, planes(2, 3).max(axis=1)[::-1])


# Acquisitions of an OME-Zarr plate.


def zarr_plate(folder, acquisitions, described=None):
    """Write a plate whose wells hold an image of each of these acquisitions, None for unnamed."""
    plate = {"wells": [{"path": "A/1"}, {"path": "B/2"}]}
    if described:
        plate["acquisitions"] = described
    write_group(folder, {"plate": plate})
    for well in ("A/1", "B/2"):
        images = [
            {"path": str(number)} | ({} if one is None else {"acquisition": one})
            for number, one in enumerate(acquisitions)
        ]
        write_group(folder / well, {"well": {"images": images}})
        for number, _ in enumerate(acquisitions):
            write_image(folder / well / str(number), planes(1)[0] + number, "yx", ("DNA",))


def zarr_source(folder, acquisition=None):
    return Source("ome_zarr", folder, ("DNA",), acquisition=acquisition)


def test_several_acquisitions_are_no_sites(tmp_path):
    described = [{"id": 0, "name": "round 1"}, {"id": 3}]
    zarr_plate(tmp_path / "P1.zarr", [0, 3, 0], described)
    with pytest.raises(Exception) as caught:
        index_plate(zarr_source(tmp_path), "own", "P1")
    assert str(caught.value) == (
        f"screen own: {tmp_path}/P1.zarr: its wells have the acquisitions 0 (round 1), 3; choose "
        "one by acquisition in the screen's entry"
    )
    with pytest.raises(Exception, match=r"acquisitions 0 \(round 1\), 3, but not 1; choose one"):
        index_plate(zarr_source(tmp_path, 1), "own", "P1")
    assert list_channels(zarr_source(tmp_path)) == ["DNA"]


def test_the_acquisition_that_is_chosen_has_its_own_sites(tmp_path):
    zarr_plate(tmp_path / "P1.zarr", [0, 3, 0])
    for chosen, expected in ((0, ["0", "2"]), (3, ["1"])):
        fields, _ = index_plate(zarr_source(tmp_path, chosen), "own", "P1")
        places = itertools.product(("A/1", "B/2"), expected)
        assert [path for [path] in fields["image_path"]] == [
            f"P1.zarr/{well}/{image}" for well, image in places
        ]
        assert fields["site"].tolist() == [*range(1, len(expected) + 1)] * 2


@pytest.mark.parametrize("acquisitions", [["0", "1"], [0.0, 1.0], [0, " 1"]])
def test_acquisitions_written_otherwise_are_the_same(tmp_path, acquisitions):
    zarr_plate(tmp_path / "P1.zarr", acquisitions)
    fields, _ = index_plate(zarr_source(tmp_path, 1), "own", "P1")
    assert [path for [path] in fields["image_path"]] == ["P1.zarr/A/1/1", "P1.zarr/B/2/1"]


@pytest.mark.parametrize("acquisitions", [[None, None], [5, 5]])
def test_one_acquisition_needs_no_choice(tmp_path, acquisitions):
    zarr_plate(tmp_path / "P1.zarr", acquisitions)
    fields, _ = index_plate(zarr_source(tmp_path), "own", "P1")
    assert fields["site"].tolist() == [1, 2, 1, 2]
