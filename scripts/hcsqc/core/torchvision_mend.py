"""timm and torchvision, also where torchvision is a CUDA build beside a CPU build of torch."""

import sys
from types import ModuleType

# What may be said of a network when it is made: the kind of value, and its limits. An encoder's
# file may be somebody else's, so the limits keep a network from filling the memory.
NETWORK_OPTIONS: dict[str, tuple[type, float, float]] = {
    "img_size": (int, 1, 4096),
    "patch_size": (int, 1, 256),
    "in_chans": (int, 1, 64),
    "num_classes": (int, 0, 100_000),
    "reg_tokens": (int, 0, 64),
    "init_values": (float, 0, 100),
    "dynamic_img_size": (bool, 0, 1),
    "class_token": (bool, 0, 1),
    "no_embed_class": (bool, 0, 1),
    "qkv_bias": (bool, 0, 1),
    "qk_norm": (bool, 0, 1),
}


def mend_torchvision() -> None:
    """Import torchvision, so that any library that needs it can.

    Beside a torch of another build it fails on import, because its compiled operators are missing;
    declaring the schemas of the two that it looks for is enough, since nothing here calls them.
    """
    try:
        import torchvision
    except (RuntimeError, ImportError) as error:
        if "torchvision::nms" not in str(error):
            raise
        from torch import library

        library.define(
            "torchvision::nms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        )
        library.define(
            "torchvision::qnms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        )
        for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        import torchvision  # noqa: F401


def import_timm() -> ModuleType:
    """Return timm, which imports torchvision."""
    mend_torchvision()
    import timm

    return timm
