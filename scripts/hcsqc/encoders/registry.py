"""Published models by name: what an entry `model: morphem` of the config stands for.

Light enough to import while the DAG is built. Only rules and `fetch_weights.py` read it: a job gets
these values as flags and in the files of weights, so that one more model runs no job again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hcsqc.core.config import near
from hcsqc.core.errors import InputError

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
AS_IT_IS = (0.0,), (1.0,)
CELL_PAINTING = ("DNA", "RNA", "ER", "AGP", "Mito")


@dataclass(frozen=True)
class RegisteredModel:
    """A published model: its network, its input, its weights, and how much of it was checked."""

    name: str
    architecture: str  # timm name, with the tag of the hub's weights, or a name in `architectures`
    input_px: int
    channels: str  # composite, each, adapted or any
    normalisation: str  # fixed, per_image_zscore or per_image_minmax
    pool: str  # cls, mean, cls_mean, per_channel or last
    licence: str
    source: str  # project or repository that publishes the weights
    verified: str
    non_commercial: bool = False
    network_channels: int = 3  # of the first layer; of one that takes any number, 1
    options: Mapping[str, Any] = field(default_factory=dict)  # of timm.create_model
    mean: tuple[float, ...] = IMAGENET[0]  # per channel of the network, of pixels from 0 to 1
    std: tuple[float, ...] = IMAGENET[1]
    roles: tuple[str, ...] = ()  # what its channels show, in order; empty if any
    weights: str = ""  # name of the published file; empty if timm fetches them by their tag
    sha256: str = ""  # of that file, if it is known
    hub: str = ""  # repository of the model hub that holds the file; empty if it is elsewhere

    @property
    def network_options(self) -> dict[str, Any]:
        """Return the options of the network, the number of its channels among them."""
        if self.channels == "any" or self.network_channels == 3:
            return dict(self.options)
        return {**self.options, "in_chans": self.network_channels}

    @property
    def terms(self) -> str:
        """Return in one line what a person needs to know before the first use."""
        commerce = "; non-commercial use only" if self.non_commercial else ""
        return f"{self.licence}{commerce}; from {self.source}"


_DINO_BLOCKS = "forward pass with random weights equals that of the authors' code"
_MODELS = [
    RegisteredModel(
        "morphem",
        "vit_small_patch16_224",
        224,
        "each",
        "per_image_zscore",
        "cls",
        "MIT",
        "hub repository CaicedoLab/MorphEm (CHAMMI-75)",
        f"{_DINO_BLOCKS} (CHAMMI-75's network); names in the hub's file are assumed to be the same",
        network_channels=1,
        mean=AS_IT_IS[0],
        std=AS_IT_IS[1],
        weights="model.safetensors",
        hub="CaicedoLab/MorphEm",
    ),
    RegisteredModel(
        "cell_dino_cp",
        "vit_small_patch8_224",
        128,
        "composite",
        "per_image_zscore",
        "cls",
        "FAIR Non-Commercial Research License",
        "facebookresearch/dinov2 (Cell-DINO), behind a form",
        f"{_DINO_BLOCKS} (DINOv2's, with its 4 chunks of blocks); shapes as others report them of "
        "the file; the order of channels is that of a public issue on the same data",
        non_commercial=True,
        network_channels=5,
        options={"init_values": 1.0},
        mean=AS_IT_IS[0] * 5,
        std=AS_IT_IS[1] * 5,
        roles=CELL_PAINTING,
        weights="cell_dino_vits8_pretrain_cp-37d20e9c.pth",
        sha256="37d20e9cd48b3d610b5de15a4ea4e7e060a593b8d8358e928d079dc7b03ee66a",
    ),
    RegisteredModel(
        "channel_adaptive_dino",
        "vit_large_patch16_224",
        224,
        "each",
        "per_image_zscore",
        "cls",
        "FAIR Non-Commercial Research License",
        "facebookresearch/dinov2 (Channel-Adaptive DINO), behind a form",
        f"{_DINO_BLOCKS} (DINOv2's, with its 4 chunks of blocks); shapes as others report them of "
        "the file",
        non_commercial=True,
        network_channels=1,
        options={"init_values": 1.0},
        mean=AS_IT_IS[0],
        std=AS_IT_IS[1],
        weights="channel_adaptive_dino_vitl16_pretrain_cells-ef7c17ff.pth",
    ),
    RegisteredModel(
        "openphenom",
        "openphenom_vit_small_patch16",
        256,
        "any",
        "per_image_zscore",
        "mean",
        "non-commercial EULA of Recursion",
        "hub repository recursionpharma/OpenPhenom",
        f"{_DINO_BLOCKS} (maes_microscopy's network); names in the hub's file are those of that "
        "code",
        non_commercial=True,
        network_channels=1,
        mean=AS_IT_IS[0],
        std=AS_IT_IS[1],
        weights="model.safetensors",
        hub="recursionpharma/OpenPhenom",
    ),
    *(
        RegisteredModel(
            f"subcell_{letters}",
            "subcell_vit_base_patch16",
            448,
            "composite",
            "per_image_minmax",
            "last",
            "MIT (code)",
            "CellProfiling/SubCellPortable, mae_contrast_supcon_model",
            f"{_DINO_BLOCKS} (SubCellPortable's network, of transformers' layers)",
            network_channels=len(letters),
            mean=AS_IT_IS[0] * len(letters),
            std=AS_IT_IS[1] * len(letters),
            roles=tuple(
                {"r": "tubulin", "y": "ER", "b": "DNA", "g": "protein"}[one] for one in letters
            ),
            weights=f"subcell_{letters}_encoder.pth",
        )
        for letters in ("rybg", "rbg", "ybg", "bg")
    ),
    RegisteredModel(
        "scdino",
        "vit_small_patch16_224",
        224,
        "composite",
        "per_image_minmax",
        "cls",
        "Apache-2.0 (code)",
        "JacobHanimann/scDINO, full checkpoint of ViT-S/16",
        f"{_DINO_BLOCKS} (scDINO's network); the file itself was not to be had",
        network_channels=5,
        mean=(0.2981, 0.5047, 0.1918, 0.2809, 0.3800),
        std=(0.2232, 0.1659, 0.2403, 0.1938, 0.1956),
        roles=("APC", "brightfield", "DNA", "FITC", "PE"),
        weights="scdino_vits16_checkpoint.pth",
    ),
    RegisteredModel(
        "dinov2_small",
        "vit_small_patch14_dinov2.lvd142m",
        224,
        "composite",
        "fixed",
        "cls",
        "Apache-2.0",
        "timm, by its tag; or facebookresearch/dinov2, dinov2_vits14_pretrain.pth",
        f"{_DINO_BLOCKS} (DINOv2's)",
    ),
    RegisteredModel(
        "dinov3_small",
        "vit_small_patch16_dinov3.lvd1689m",
        224,
        "composite",
        "fixed",
        "cls",
        "DINOv3 License",
        "timm, by its tag; or facebookresearch/dinov3",
        "timm's network; names of the authors' file by timm's own conversion",
    ),
    RegisteredModel(
        "convnextv2_tiny",
        "convnextv2_tiny.fcmae_ft_in22k_in1k",
        224,
        "composite",
        "fixed",
        "last",
        "CC-BY-NC-4.0",
        "timm, by its tag; or facebookresearch/ConvNeXt-V2",
        "timm's network; names of the authors' file by timm's own conversion",
        non_commercial=True,
    ),
    RegisteredModel(
        "efficientnet_b0",
        "efficientnet_b0.ra_in1k",
        224,
        "composite",
        "fixed",
        "last",
        "Apache-2.0",
        "timm, by its tag",
        "timm's network and names",
    ),
]
REGISTRY = {model.name: model for model in _MODELS}
# What an entry inherits; licence, source, mean and std stay with the model.
INHERITED = ("architecture", "input_px", "channels", "normalisation", "pool")


def registered(name: str, where: str = "model") -> RegisteredModel:
    """Return a model of the registry; raise InputError with near names if it has none."""
    if name not in REGISTRY:
        raise InputError(f"config: {where}: unknown name '{name}'{near(name, REGISTRY)}")
    return REGISTRY[name]


def resolve_encoder(entry: Mapping[str, Any], where: str = "model") -> dict[str, Any]:
    """Return an encoder's entry with the values of its registered model below its own.

    Options are merged one by one. An entry without `model` is returned as it is.
    Raises InputError, with near names, for a model that the registry lacks, and for another network
    than the model's.
    """
    if not isinstance(entry.get("model"), str):
        return dict(entry)
    model = registered(entry["model"], where)
    if entry.get("architecture", model.architecture) != model.architecture:
        raise InputError(
            f"config: {where}: {model.name} is the network {model.architecture}, not "
            f"{entry['architecture']}; leave out one of model and architecture"
        )
    resolved = {key: getattr(model, key) for key in INHERITED} | dict(entry)
    if model.roles and "roles" not in entry:
        resolved["roles"] = list(model.roles)
    options = entry.get("options", {})
    if isinstance(options, Mapping) and (model.network_options or options):
        resolved["options"] = model.network_options | dict(options)
    return resolved


def resolve_models(config: Mapping[str, Any]) -> None:
    """Fill in, in place, what the encoders of a config inherit from registered models."""
    encoders = config.get("encoders")
    for name, entry in encoders.items() if isinstance(encoders, dict) else ():
        if isinstance(entry, Mapping) and "model" in entry:
            encoders[name] = resolve_encoder(entry, f"encoders.{name}.model")
