import itertools

import cv2
import numpy as np
import pytest
import torch

from hcsqc.errors import InputError
from hcsqc.models import IMAGENET_MEAN, IMAGENET_STD, InputSpec
from hcsqc.views import ViewSettings, normalise, random_matrices, two_views

ALL = ViewSettings(0.5, 0.5, 0.5, 0.1, 0.8, 1.25)
DIHEDRAL = ViewSettings(0.5, 0.5, 0.5, 0, 1, 1)
NONE = ViewSettings(0, 0, 0, 0, 1, 1)


def crops_of(n, side, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 3, side, side), dtype=np.uint8)


def spec_of(size):
    return InputSpec(size, IMAGENET_MEAN, IMAGENET_STD)


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
