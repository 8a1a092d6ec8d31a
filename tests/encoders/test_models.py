"""Networks: widths that the paper's encoders have, initial weights, names that timm knows."""

from importlib import import_module

import pytest
import torch
from torch import nn

from hcsqc.core.errors import InputError
from hcsqc.core.torchvision_mend import import_timm
from hcsqc.encoders.models import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    InputSpec,
    PooledFeatures,
    build_backbone,
    feature_width,
    imagenet_input,
)

timm = import_timm()

adapt_to_chs = import_module("timm.data.loader").adapt_to_chs  # once torchvision is mended


@pytest.mark.parametrize(
    ("architecture", "width"),
    [
        ("vgg16.tv_in1k", 512),
        ("resnet18.tv_in1k", 512),
        ("resnet18", 512),
        ("convnext_tiny.fb_in1k", 768),
        ("tf_efficientnet_lite0.in1k", 1280),
    ],
)
def test_an_encoder_of_the_paper_is_as_wide_as_its_last_layer(architecture, width):
    assert feature_width(build_backbone(architecture, 3), imagenet_input(32, 3)) == width


@pytest.mark.parametrize(
    ("architecture", "channels", "width"),
    [
        ("vgg16", 5, 512),
        ("resnet18", 5, 512),
        ("convnext_tiny", 2, 768),
        ("tf_efficientnet_lite0", 1, 1280),
    ],
)
def test_a_network_takes_composites_of_any_number_of_channels(architecture, channels, width):
    network = build_backbone(architecture, channels)
    assert next(network.parameters()).shape[1] == channels
    assert feature_width(network, imagenet_input(32, channels)) == width


def test_vgg_features_are_the_mean_of_its_convolutions(monkeypatch):
    torch.manual_seed(0)
    convolutions = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU())
    images = torch.rand(2, 3, 8, 10)
    pooled = PooledFeatures(convolutions)(images)
    maps = convolutions(images)
    assert pooled.shape == (2, 5)
    assert pooled[1, 4].item() == pytest.approx(maps[1, 4].mean().item(), rel=1e-6)


def test_the_backbone_has_no_classifier_and_a_tag_changes_nothing():
    torch.manual_seed(0)
    plain = build_backbone("resnet18", 3).state_dict()
    torch.manual_seed(0)
    tagged = build_backbone("resnet18.tv_in1k", 3).state_dict()
    assert not [name for name in plain if name.startswith("fc.")]
    assert all(torch.equal(plain[name], tagged[name]) for name in plain)


def test_the_last_batch_norm_of_a_residual_block_is_not_zeroed():
    def last_scales(network):
        return [m.bn2.weight for m in network.modules() if hasattr(m, "bn2")]

    ours = last_scales(build_backbone("resnet18", 3))
    assert len(ours) == 8
    assert all((scale == 1).all() for scale in ours)
    assert all((scale == 0).all() for scale in last_scales(timm.create_model("resnet18")))


@pytest.mark.parametrize(
    ("wrong", "meant"), [("resnet81", "resnet18"), ("convnext_tinny.fb_in1k", "convnext_tiny")]
)
def test_an_unknown_network_is_named_with_near_ones(wrong, meant):
    with pytest.raises(InputError) as caught:
        build_backbone(wrong, 3)
    name, near = str(caught.value).split("; near names: ")
    assert name == f"timm knows no network '{wrong.split('.')[0]}'"
    assert meant in near.split(", ")


def test_a_name_like_no_other_says_so():
    with pytest.raises(InputError, match="'qqqqqqqqqqqq'; near names: none"):
        build_backbone("qqqqqqqqqqqq", 3)


@pytest.mark.parametrize("training", [True, False])
def test_measuring_the_width_leaves_the_network_as_it_was(training):
    network = build_backbone("test_resnet", 3).train(training)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert feature_width(network, imagenet_input(32, 3)) == 96
    assert network.training is training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_the_input_is_plain_json():
    spec = InputSpec(64, IMAGENET_MEAN, IMAGENET_STD)
    assert spec.as_json() == {
        "size_px": 64,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "each_channel": False,
    }
    assert InputSpec.from_json(spec.as_json()) == spec


def test_three_channels_are_normalised_as_the_colours_of_imagenet():
    assert imagenet_input(64, 3) == InputSpec(64, IMAGENET_MEAN, IMAGENET_STD)
    assert imagenet_input(64, 3).channels == 3


@pytest.mark.parametrize("channels", [1, 2, 4, 5])
def test_another_number_of_channels_is_normalised_alike_as_in_timm(channels):
    spec = imagenet_input(64, channels)
    assert (spec.size_px, spec.channels) == (64, channels)
    assert spec.mean == pytest.approx(adapt_to_chs(IMAGENET_MEAN, channels))
    assert spec.std == pytest.approx(adapt_to_chs(IMAGENET_STD, channels))
    assert spec.mean == pytest.approx((0.449,) * channels)
