import itertools

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hcsqc.core.errors import InputError
from hcsqc.encoders.models import IMAGENET_MEAN, IMAGENET_STD, InputSpec, imagenet_input
from hcsqc.encoders.views import (
    ViewSettings,
    _grouped,
    _joined,
    _warp,
    normalise,
    random_matrices,
    two_views,
    warp_by_torch,
)

ALL = ViewSettings(0.5, 0.5, 0.5, 0.1, 0.8, 1.25)
DIHEDRAL = ViewSettings(0.5, 0.5, 0.5, 0, 1, 1)
NONE = ViewSettings(0, 0, 0, 0, 1, 1)


def crops_of(n, side, channels=3):
    return np.random.default_rng(0).integers(0, 256, (n, channels, side, side), dtype=np.uint8)


def spec_of(size):
    return InputSpec(size, IMAGENET_MEAN, IMAGENET_STD)


def spec_of_channels(size, channels):
    """Return an input that normalises each channel otherwise."""
    return InputSpec(
        size,
        tuple(0.3 + 0.05 * channel for channel in channels),
        tuple(0.2 + 0.01 * channel for channel in channels),
    )


def formula(crops):
    """(pixel / 255 - mean) / std, in float64."""
    mean, std = (np.array(v).reshape(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (crops / 255 - mean) / std


def dihedral(image):
    """The eight turns and mirror images of 3 x H x H."""
    turned = [np.rot90(image, k, axes=(1, 2)) for k in range(4)]
    return turned + [t.transpose(0, 2, 1) for t in turned]


@pytest.mark.parametrize("side", [31, 32])
def test_ssl_views_without_shift_and_scale_are_exactly_the_eight_symmetries(side):
    crops = crops_of(64, side)
    seen = set()
    for view in two_views(crops, DIHEDRAL, spec_of(side), np.random.default_rng(1)):
        for crop, seen_as in zip(crops, view.numpy(), strict=True):
            match = [
                i
                for i, d in enumerate(dihedral(crop))
                if np.allclose(formula(d), seen_as, atol=1e-5)
            ]
            assert len(match) == 1
            seen.update(match)
    assert seen == set(range(8))


def test_ssl_views_with_nothing_to_vary_equal_the_evaluation_input():
    crops = crops_of(4, 32)
    first, second = two_views(crops, NONE, spec_of(32), np.random.default_rng(0))
    assert torch.equal(first, normalise(crops, spec_of(32)))
    assert torch.equal(first, second)


def test_ssl_views_at_half_size_unvaried_equal_the_area_average():
    crops = crops_of(4, 64)
    first, _ = two_views(crops, NONE, spec_of(32), np.random.default_rng(0))
    grey_level = 1 / 255 / min(IMAGENET_STD)
    assert torch.allclose(first, normalise(crops, spec_of(32)), atol=1.01 * grey_level)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (ViewSettings(1, 0, 0, 0, 1, 1), {1, 2, 3}),
        (ViewSettings(0, 1, 0, 0, 1, 1), {2}),  # both flips are half a turn
        (ViewSettings(0, 0, 1, 0, 1, 1), {4}),
    ],
)
def test_ssl_views_of_probability_one_always_happen_and_others_never(settings, expected):
    crops = crops_of(30, 16)
    first, _ = two_views(crops, settings, spec_of(16), np.random.default_rng(0))
    seen = {
        next(i for i, d in enumerate(dihedral(crop)) if np.allclose(formula(d), view, atol=1e-5))
        for crop, view in zip(crops, first.numpy(), strict=True)
    }
    assert seen == expected


def test_ssl_views_shift_and_scale_stay_within_their_limits_and_use_them():
    side, size = 128, 64
    matrices = random_matrices(2000, side, size, ALL, np.random.default_rng(0))
    magnification = (side / size) / np.sqrt(np.abs(np.linalg.det(matrices[:, :, :2])))
    centre = np.array([(size - 1) / 2, (size - 1) / 2, 1])
    shift = (matrices @ centre - (side - 1) / 2) / side
    assert 0.8 <= magnification.min() < 0.81 and 1.24 < magnification.max() <= 1.25
    assert -0.1 <= shift.min() < -0.099 and 0.099 < shift.max() <= 0.1


def test_ssl_views_magnify_about_the_centre_like_a_plain_resize():
    side, size = 96, 96
    smooth = cv2.GaussianBlur(crops_of(1, side)[0].transpose(1, 2, 0), (0, 0), 6)
    crop = smooth.transpose(2, 0, 1)[None]
    doubled = ViewSettings(0, 0, 0, 0, 2, 2)
    first, _ = two_views(crop, doubled, spec_of(size), np.random.default_rng(0))
    middle = np.ascontiguousarray(crop[:, :, side // 4 : -side // 4, side // 4 : -side // 4])
    inner = np.s_[:, :, 2:-2, 2:-2]  # where neither has met a border
    assert torch.allclose(first[inner], normalise(middle, spec_of(size))[inner], atol=0.04)


def test_ssl_views_are_one_interpolation_with_reflected_border():
    crops = crops_of(1, 32)
    half = ViewSettings(0, 0, 0, 0.5, 1, 1)
    first, _ = two_views(crops, half, spec_of(32), np.random.default_rng(3))
    low, high = formula(np.zeros((3, 1, 1))), formula(np.full((3, 1, 1), 255))
    assert ((first.numpy() >= low - 1e-5) & (first.numpy() <= high + 1e-5)).all()
    assert (first.std(dim=(2, 3)) > 0.5).all()  # noise everywhere, no constant border


def test_ssl_views_repeat_with_the_seed_and_differ_otherwise():
    crops = crops_of(16, 32)
    a, b, c = (two_views(crops, ALL, spec_of(24), np.random.default_rng(s)) for s in (5, 5, 6))
    assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])
    assert not torch.equal(a[0], c[0]) and not torch.equal(a[0], a[1])
    assert a[0].dtype == torch.float32 and a[0].shape == (16, 3, 24, 24)
    assert a[0].is_contiguous(memory_format=torch.channels_last)


def test_ssl_normalise_is_the_published_formula():
    crops = crops_of(5, 20)
    assert np.allclose(normalise(crops, spec_of(20)).numpy(), formula(crops), atol=1e-5)


def test_ssl_normalise_shrinks_by_area_averages():
    crops = np.repeat(np.repeat(crops_of(2, 8), 4, axis=2), 4, axis=3)
    assert np.allclose(normalise(crops, spec_of(8)).numpy(), formula(crops_of(2, 8)), atol=1e-5)


def test_ssl_normalise_takes_read_only_crops():
    crops = crops_of(2, 8)
    crops.flags.writeable = False
    assert normalise(crops, spec_of(8)).shape == (2, 3, 8, 8)


@pytest.mark.parametrize(("side", "size"), [(32, 32), (32, 24), (24, 32), (64, 32)])
@pytest.mark.parametrize("channels", [2, 3, 4, 5, 8])
def test_ssl_views_show_a_channel_as_if_it_were_alone(channels, side, size):
    crops = crops_of(6, side, channels)
    whole = spec_of_channels(size, range(channels))
    views = two_views(crops, ALL, whole, np.random.default_rng(3))
    assert views[0].shape == (6, channels, size, size)
    assert views[0].is_contiguous(memory_format=torch.channels_last)
    for channel in range(channels):
        own = spec_of_channels(size, [channel])
        alone = two_views(crops[:, [channel]], ALL, own, np.random.default_rng(3))
        for view, expected in zip(views, alone, strict=True):
            assert torch.equal(view[:, [channel]], expected)


@pytest.mark.parametrize(("side", "size"), [(32, 32), (32, 24), (24, 32), (64, 32)])
@pytest.mark.parametrize("channels", [2, 3, 4, 5, 8])
def test_ssl_normalise_shows_a_channel_as_if_it_were_alone(channels, side, size):
    crops = crops_of(3, side, channels)
    images = normalise(crops, spec_of_channels(size, range(channels)))
    assert images.shape == (3, channels, size, size)
    for channel in range(channels):
        alone = normalise(crops[:, [channel]], spec_of_channels(size, [channel]))
        assert torch.equal(images[:, [channel]], alone)


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_ssl_normalise_of_other_than_three_channels_is_the_same_formula(channels):
    crops = crops_of(2, 8, channels)
    spec = spec_of_channels(8, range(channels))
    mean, std = (np.array(v).reshape(-1, 1, 1) for v in (spec.mean, spec.std))
    expected = (crops / 255 - mean) / std
    assert np.allclose(normalise(crops, spec).numpy(), expected, atol=1e-5)
    large = np.repeat(np.repeat(crops, 4, axis=2), 4, axis=3)  # shrinks by area averages
    assert np.allclose(normalise(large, spec).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(("given", "wanted"), [(3, 5), (5, 3), (1, 3), (3, 1)])
def test_ssl_views_refuse_composites_of_another_number_of_channels(given, wanted):
    crops, spec = crops_of(2, 8, given), imagenet_input(8, wanted)
    expected = rf"uint8 \(2, {given}, 8, 8\), expected uint8 n x {wanted} x H x H composites"
    with pytest.raises(InputError, match=expected):
        two_views(crops, ALL, spec, np.random.default_rng(0))
    with pytest.raises(InputError, match=expected):
        normalise(crops, spec)


@pytest.mark.parametrize(
    "crops",
    [crops_of(2, 8).astype(np.float32), crops_of(2, 8)[:, :2], crops_of(2, 8)[:, :, :4]],
)
def test_ssl_views_refuse_what_is_no_square_uint8_composite(crops):
    with pytest.raises(InputError, match="expected uint8 n x 3 x H x H"):
        two_views(crops, ALL, spec_of(8), np.random.default_rng(0))
    with pytest.raises(InputError, match="expected uint8 n x 3 x H x H"):
        normalise(crops, spec_of(8))


@pytest.mark.parametrize(
    ("position", "value"), list(itertools.product(range(4), [-0.1, 1.1])) + [(4, 0), (4, 2)]
)
def test_ssl_view_settings_out_of_range_are_refused_by_name(position, value):
    values = [0.5, 0.5, 0.5, 0.1, 0.9, 1.1]
    names = list(ViewSettings.__dataclass_fields__)
    values[position] = value
    with pytest.raises(InputError, match=names[position]):
        ViewSettings(*values)


@pytest.mark.parametrize(("side", "size"), [(32, 32), (31, 31), (32, 20), (24, 40)])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_ssl_views_by_torch_are_opencvs_but_for_its_rounding(side, size, channels):
    crops = crops_of(20, side, channels)
    settings = ViewSettings(0.75, 0.5, 0.5, 0.3, 0.6, 1.4)  # far beyond the border
    matrices = random_matrices(20, side, size, settings, np.random.default_rng(2))
    expected = _joined([_warp(images, matrices, size) for images in _grouped(crops)])
    found = warp_by_torch(torch.from_numpy(crops), matrices, size)
    assert found.shape == (20, size, size, channels) and found.is_contiguous()
    assert np.abs(found.numpy() - expected).max() < 0.51


def test_shrinking_is_an_area_average():
    crops = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32)).astype(np.uint8)
    plain = InputSpec(8, (0.0,) * 3, (1.0,) * 3)
    wanted = crops.reshape(2, 3, 8, 4, 8, 4).mean(axis=(3, 5))
    assert np.abs(normalise(crops, plain).numpy() * 255 - wanted).max() <= 1


def per_image(crops, how):
    """Normalise each channel of each crop by numpy, in float64; constant ones are 0."""
    flat = crops.reshape(*crops.shape[:2], -1).astype(np.float64)
    low = flat.min(2, keepdims=True)
    if how == "per_image_minmax":
        offset, scale = low, np.ptp(flat, axis=2, keepdims=True)
    else:
        offset, scale = flat.mean(2, keepdims=True), flat.std(2, keepdims=True)
    varies = np.ptp(flat, axis=2, keepdims=True) > 0
    return np.where(varies, (flat - offset) / np.where(varies, scale, 1), 0).reshape(crops.shape)


PER_IMAGE = ("per_image_zscore", "per_image_minmax")


@pytest.mark.parametrize("how", PER_IMAGE)
@settings(max_examples=60, deadline=None)
@given(crops=arrays(np.uint8, (2, 2, 5, 5), elements=st.sampled_from([0, 1, 7, 128, 254, 255])))
def test_each_channel_of_each_crop_is_normalised_as_numpy_does(how, crops):
    spec = InputSpec(5, (0.0, 0.25), (1.0, 0.5), normalisation=how)
    expected = (per_image(crops, how) - np.reshape(spec.mean, (2, 1, 1))) / np.reshape(
        spec.std, (2, 1, 1)
    )
    np.testing.assert_allclose(normalise(crops, spec).numpy(), expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("how", PER_IMAGE)
@pytest.mark.parametrize("level", [0, 77, 255])
@pytest.mark.parametrize("size", [5, 32, 64])
def test_a_constant_channel_is_exactly_0_at_any_size(how, level, size):
    crops = np.full((3, 2, 33, 33), level, np.uint8)
    found = normalise(crops, InputSpec(size, (0.0,) * 2, (1.0,) * 2, normalisation=how))
    assert not found.any()


@pytest.mark.parametrize("how", PER_IMAGE)
def test_what_the_network_sees_is_normalised_whatever_size_the_crop_had(how):
    """That is, after resizing, so that mean and deviation or range are exact."""
    spec = InputSpec(24, (0.0,) * 3, (1.0,) * 3, normalisation=how)
    found = normalise(crops_of(4, 64), spec).flatten(2)
    if how == "per_image_minmax":
        torch.testing.assert_close(found.amin(2), torch.zeros(4, 3))
        torch.testing.assert_close(found.amax(2), torch.ones(4, 3))
    else:
        torch.testing.assert_close(found.mean(2), torch.zeros(4, 3), rtol=0, atol=1e-5)
        torch.testing.assert_close(found.std(2, correction=0), torch.ones(4, 3))


@pytest.mark.parametrize("how", PER_IMAGE)
def test_normalised_per_image_a_crop_hides_its_brightness_and_fixed_it_shows_it(how):
    crops = crops_of(2, 16) // 4
    brighter = crops * 2 + 60
    spec = InputSpec(16, (0.0,) * 3, (1.0,) * 3, normalisation=how)
    torch.testing.assert_close(
        normalise(brighter, spec), normalise(crops, spec), rtol=1e-4, atol=1e-5
    )
    fixed = spec_of(16)
    assert (normalise(brighter, fixed) - normalise(crops, fixed)).min() > 1


@pytest.mark.parametrize("how", PER_IMAGE)
def test_a_crop_is_normalised_alone_whatever_others_are_beside_it(how):
    spec = InputSpec(16, (0.0,) * 3, (1.0,) * 3, normalisation=how)
    crops = crops_of(5, 16)
    together = normalise(crops, spec)
    alone = torch.cat([normalise(crops[[place]], spec) for place in range(5)])
    torch.testing.assert_close(together, alone, rtol=1e-6, atol=1e-6)
    assert together.is_contiguous(memory_format=torch.channels_last)
