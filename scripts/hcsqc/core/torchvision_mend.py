"""timm and torchvision, also where torchvision is a CUDA build beside a CPU build of torch."""

import sys
from types import ModuleType


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
