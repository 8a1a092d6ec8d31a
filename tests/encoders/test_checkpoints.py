"""Checkpoints as they are published: their names become timm's, and nothing is lost silently.

They are made here, by the names and shapes that the authors' code gives. Running that code with
the same random weights is described in docs/encoders.md.
"""

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from hcsqc.core.errors import InputError
from hcsqc.encoders.checkpoints import FORMS, named_as, read_tensors
from hcsqc.encoders.given import transfer_encoder
from hcsqc.encoders.models import build_backbone
from hcsqc.encoders.store import load_encoder, save_encoder
from hcsqc.encoders.weights import find_weights

VIT = "test_vit"  # six blocks, 64 wide
ONE = torch.ones(2)


def made(architecture: str, channels: int, input_px: int, options: dict) -> dict[str, Tensor]:
    """Return the tensors of a network, all random."""
    generator = torch.Generator().manual_seed(3)
    own = build_backbone(architecture, channels, input_px, options).state_dict()
    return {
        name: torch.rand(value.shape, generator=generator) - 0.3
        if value.is_floating_point()
        else value
        for name, value in own.items()
    }


def below(prefix: str, tensors: dict[str, Tensor], by: float = 1) -> dict[str, Tensor]:
    return {f"{prefix}{name}": value * by for name, value in tensors.items()}


def chunked(own: dict[str, Tensor], per_chunk: int = 1) -> dict[str, Tensor]:
    """Return names as DINOv2 has them in chunks, with the token of its pretraining."""
    named = {"mask_token": torch.zeros(1, own["cls_token"].shape[-1])}
    for name, value in own.items():
        parts = name.split(".")
        if parts[0] == "blocks":
            parts.insert(1, str(int(parts[1]) // per_chunk))
        named[".".join(parts)] = value
    return named


def with_registers(own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return names as DINOv2 with registers has them: a position for the class token, too."""
    named = {"mask_token": torch.zeros(1, own["cls_token"].shape[-1])} | own
    named["register_tokens"] = named.pop("reg_token")
    place = torch.full((1, 1, own["pos_embed"].shape[-1]), 0.25)
    named["pos_embed"] = torch.cat([place, own["pos_embed"]], 1)
    named["cls_token"] = own["cls_token"] - place
    return named


def dinov3(own: dict[str, Tensor]) -> dict[str, Tensor]:
    named = {"storage_tokens" if n == "reg_token" else n: v for n, v in own.items()}
    for number in ("1", "2"):
        named = {n.replace(f"gamma_{number}", f"ls{number}.gamma"): v for n, v in named.items()}
    return named | {
        "mask_token": torch.zeros(1, 384),
        "rope_embed.periods": torch.ones(16),
        **{f"blocks.{n}.attn.qkv.bias": torch.zeros(3 * 384) for n in range(12)},
        **{f"blocks.{n}.attn.qkv.bias_mask": torch.ones(3 * 384) for n in range(12)},
    }


TRANSFORMERS = {
    "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj": "embeddings.patch_embeddings.projection",
    "blocks.": "encoder.layer.",
    ".norm1.": ".layernorm_before.",
    ".norm2.": ".layernorm_after.",
    ".attn.proj.": ".attention.output.dense.",
    ".mlp.fc1.": ".intermediate.dense.",
    ".mlp.fc2.": ".output.dense.",
}


def transformers(own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return names as transformers has them, with queries, keys and values apart."""
    named = {}
    for name, value in own.items():
        if name.startswith("norm."):
            name = f"layernorm.{name.removeprefix('norm.')}"
        for ours, theirs in TRANSFORMERS.items():
            name = name.replace(ours, theirs)
        if ".attn.qkv." in name:
            for part, one in zip(("query", "key", "value"), value.chunk(3), strict=True):
                named[name.replace(".attn.qkv.", f".attention.attention.{part}.")] = one
        else:
            named[name] = value
    return named


def subcell(own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return SubCell's names: its pooling was trained with dropout before each layer."""
    network = {n.removeprefix("encoder."): v for n, v in own.items() if n.startswith("encoder.")}
    pool = {n: v for n, v in own.items() if n.startswith("pool_model.")}
    for letter in "uv":
        pool = {n.replace(f"_{letter}.", f"_{letter}.1."): v for n, v in pool.items()}
    return below("encoder.", transformers(network)) | pool


def convnextv2(own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the authors' names of a ConvNeXt V2, with their head."""
    named = {}
    for name, value in own.items():
        for ours, theirs in (
            ("stem.", "downsample_layers.0."),
            ("head.norm.", "norm."),
            (".conv_dw.", ".dwconv."),
            (".mlp.fc1.", ".pwconv1."),
            (".mlp.fc2.", ".pwconv2."),
            (".mlp.grn.weight", ".grn.gamma"),
            (".mlp.grn.bias", ".grn.beta"),
            (".blocks.", "."),
        ):
            name = name.replace(ours, theirs)
        if ".downsample." in name:
            stage, _, rest = name.removeprefix("stages.").partition(".downsample.")
            name = f"downsample_layers.{stage}.{rest}"
        if ".grn." in name:
            value = value.reshape(1, 1, 1, -1)
        named[name] = value
    return named | {"head.weight": torch.ones(10, 320), "head.bias": torch.ones(10)}


# Form: architecture, channels, input, options, and how its authors name it.
SIDE = {"patch_size": 16, "init_values": 1.0}
PUBLISHED = {
    "DINOv2": (VIT, 3, 32, SIDE, lambda own: {"mask_token": torch.zeros(1, 64)} | own),
    "DINOv2 with registers": (
        VIT,
        3,
        32,
        SIDE | {"reg_tokens": 4, "no_embed_class": True},
        with_registers,
    ),
    "DINOv2 in chunks": (VIT, 3, 32, SIDE, chunked),
    "Cell-DINO": (VIT, 5, 32, {"init_values": 1.0, "patch_size": 8}, chunked),
    "Cell-DINO's training": (
        VIT,
        5,
        32,
        {"init_values": 1.0, "patch_size": 8},
        lambda own: {
            "teacher": below("backbone.", chunked(own, 2))
            | {"dino_head.mlp.0.weight": ONE, "ibot_head.mlp.0.weight": ONE}
        },
    ),
    "channel-adaptive DINO": (VIT, 1, 32, SIDE, chunked),
    "DINOv2 of transformers": (
        VIT,
        3,
        32,
        SIDE,
        lambda own: (
            {
                name.replace(".ls1.gamma", ".layer_scale1.lambda1")
                .replace(".ls2.gamma", ".layer_scale2.lambda1")
                .replace(".layernorm_before.", ".norm1.")
                .replace(".layernorm_after.", ".norm2.")
                .replace(".intermediate.dense.", ".mlp.fc1.")
                .replace("attention.output.dense", "ATTENTION")
                .replace(".output.dense.", ".mlp.fc2.")
                .replace("ATTENTION", "attention.output.dense"): value
                for name, value in transformers(own).items()
            }
            | {"embeddings.mask_token": torch.zeros(1, 64)}
        ),
    ),
    "DINOv3": ("vit_small_patch16_dinov3", 3, 32, {}, dinov3),
    "scDINO": (
        VIT,
        5,
        32,
        {},
        lambda own: {
            "student": below("module.backbone.", own, 3) | {"module.head.mlp.0.weight": ONE},
            "teacher": below("backbone.", own)
            | {"head.mlp.0.weight": ONE, "head.last_layer.weight_g": ONE},
            "epoch": 100,
        },
    ),
    "MorphEm": (VIT, 1, 32, {}, lambda own: own),
    "MorphEm in its wrapper": (VIT, 1, 32, {}, lambda own: below("model.backbone.", own)),
    "OpenPhenom": (
        "openphenom_vit_small_patch16",
        5,
        256,
        {},
        lambda own: (
            below("encoder.", own)
            | {
                "decoder.mask_token": torch.zeros(1, 1, 8),
                "decoder.blocks.0.norm1.weight": ONE,
                "encoder_decoder_proj.weight": ONE,
                "decoder_pred.weight": ONE,
            }
        ),
    ),
    "SubCell": ("subcell_vit_base_patch16", 4, 448, {}, subcell),
    "ConvNeXt V2": ("convnextv2_atto", 3, 32, {}, lambda own: {"model": convnextv2(own)}),
    "EfficientNet": (
        "efficientnet_b0",
        3,
        32,
        {},
        lambda own: (
            below("module.", own)
            | {"module.classifier.weight": torch.ones(10, 1280), "module.classifier.bias": ONE}
        ),
    ),
}
LARGE = {"SubCell", "DINOv3", "OpenPhenom", "EfficientNet"}


# As a .safetensors file, too, for forms that hold tensors alone.
FILES = [(form, ".pth") for form in PUBLISHED]
FILES += [(form, ".safetensors") for form in ("DINOv2 with registers", "MorphEm in its wrapper")]


@pytest.mark.parametrize(
    ("form", "ending"),
    [pytest.param(*file, marks=[pytest.mark.long] if file[0] in LARGE else []) for file in FILES],
)
def test_a_published_form_gives_the_network_that_it_holds(form, ending, tmp_path):
    architecture, channels, side, options, as_published = PUBLISHED[form]
    own, path = made(architecture, channels, side, options), tmp_path / f"published{ending}"
    content = as_published(own)
    if ending == ".pth":
        torch.save(content, path)
    else:
        save_file({name: value.clone().contiguous() for name, value in content.items()}, path)
    weights = find_weights(architecture, path, options=options | {"in_chans": channels})
    mode = "any" if architecture.startswith("openphenom") else "composite"
    encoder = transfer_encoder(weights, side, channels, mode)
    found = encoder.backbone.state_dict()
    assert found.keys() == own.keys()
    for name, value in own.items():
        torch.testing.assert_close(found[name], value, msg=name)


def test_the_form_is_written_into_the_encoder_and_read_back(tmp_path):
    architecture, channels, side, options, as_published = PUBLISHED["Cell-DINO"]
    torch.save(as_published(made(architecture, channels, side, options)), tmp_path / "c.pth")
    options = options | {"in_chans": channels}
    encoder = transfer_encoder(find_weights(VIT, tmp_path / "c.pth", None, options), side, channels)
    save_encoder(encoder, tmp_path / "encoder.safetensors")
    read = load_encoder(tmp_path / "encoder.safetensors")
    assert read.options == options
    crops = torch.rand(2, channels, side, side)
    with torch.inference_mode():
        torch.testing.assert_close(read.backbone(crops), encoder.backbone(crops))


def test_a_network_of_one_channel_sees_each_by_itself(tmp_path):
    own = made(VIT, 1, 32, {})
    torch.save(own, tmp_path / "one.pth")
    weights = find_weights(VIT, tmp_path / "one.pth", options={"in_chans": 1})
    alone = transfer_encoder(weights, 32, 1)
    each = transfer_encoder(weights, 32, 5, "each")
    crops = torch.rand(2, 5, 32, 32)
    with torch.inference_mode():
        expected = [alone.backbone(crops[:, [channel]]) for channel in range(5)]
        torch.testing.assert_close(each.backbone(crops), torch.cat(expected, 1))
    assert (each.width, each.input_spec.channels) == (5 * alone.width, 5)


def test_tokens_of_any_channels_are_averaged_over_patches_and_channels():
    torch.manual_seed(0)
    network = build_backbone("openphenom_vit_small_patch16", 2, 256).eval()
    vit = network.vit_backbone
    vit.pos_embed.data.normal_()
    vit.blocks = vit.blocks[:1]
    vit.blocks[0].ls.gamma.data.fill_(1)
    crops = torch.rand(1, 3, 256, 256)
    with torch.inference_mode():
        own = network.forward_channels(crops)
        assert own.shape == (1, 3, 384)
        torch.testing.assert_close(network(crops), own.mean(1))
        # A channel's features depend on the others: they attend to each other.
        changed = network.forward_channels(torch.cat([crops[:, :2], crops[:, :1]], 1))
    assert (changed[:, 0] - own[:, 0]).abs().max() > 1e-3


# What does not fit.


def lacking(own, names):
    return {name: value for name, value in own.items() if name not in names}


def test_blocks_that_are_missing_are_listed_by_name_and_shape_and_counted(tmp_path):
    own = made(VIT, 3, 32, {})
    lost = [name for name in own if name.startswith("blocks.1.")]
    torch.save(chunked(lacking(own, lost)), tmp_path / "short.pth")
    weights = find_weights(VIT, tmp_path / "short.pth")
    with pytest.raises(InputError) as caught:
        transfer_encoder(weights, 32)
    assert str(caught.value).startswith(
        "short.pth: has no tensor 'blocks.1.norm1.weight' (64), 'blocks.1.norm1.bias' (64), "
        f"'blocks.1.attn.qkv.weight' (192 x 64) and {len(lost) - 3} more; is it another "
    )


def test_tensors_left_over_are_listed_by_name_and_shape_and_counted(tmp_path):
    own = made(VIT, 3, 32, {})
    more = {f"blocks.6.{name[9:]}": v for name, v in own.items() if name.startswith("blocks.5.")}
    torch.save(chunked(own | more), tmp_path / "long.pth")
    weights = find_weights(VIT, tmp_path / "long.pth")
    with pytest.raises(InputError) as caught:
        transfer_encoder(weights, 32)
    assert str(caught.value) == (
        "long.pth: tensor 'blocks.6.norm1.weight' (64), 'blocks.6.norm1.bias' (64), "
        f"'blocks.6.attn.qkv.weight' (192 x 64) and {len(more) - 3} more are not part of the "
        "network"
    )


def test_a_first_layer_for_other_channels_names_the_shapes(tmp_path):
    torch.save(made(VIT, 5, 32, {}), tmp_path / "five.pth")
    weights = find_weights(VIT, tmp_path / "five.pth")
    with pytest.raises(InputError, match=r"'patch_embed.proj.weight' \(64 x 5 x 16 x 16\) has ano"):
        transfer_encoder(weights, 32)


@pytest.mark.long
def test_biases_that_a_network_has_not_are_not_dropped(tmp_path):
    architecture, channels, side, options, as_published = PUBLISHED["DINOv3"]
    content = as_published(made(architecture, channels, side, options))
    content["blocks.3.attn.qkv.bias"][5] = 0.1
    torch.save(content, tmp_path / "b.pth")
    weights = find_weights(architecture, tmp_path / "b.pth")
    with pytest.raises(InputError, match="'blocks.3.attn.qkv.bias'.*use the architecture .*_qkvb"):
        transfer_encoder(weights, side)


def test_blocks_with_two_numbers_of_their_own_are_no_chunks():
    names = [f"blocks.{stage}.{block}.conv.weight" for stage in (0, 1) for block in (0, 1)]
    tensors = dict.fromkeys(names, ONE)
    assert FORMS["blocks in chunks"].renamed(tensors) == {}
    assert named_as(names, tensors, "f.pth") == tensors


def test_a_torch_file_under_the_other_name_is_read_as_what_it_is(tmp_path):
    own = made(VIT, 3, 32, {})
    torch.save({"state_dict": own}, tmp_path / "model.safetensors")
    found = read_tensors(tmp_path / "model.safetensors", "x", list(own))
    assert found.keys() == own.keys()
