"""The parts of solo-learn 1.0.2 used here: its losses, its Sinkhorn and its average of weights.

`solo/__init__.py` imports Lightning modules that no longer load, so bare packages take the place
of `solo` and its folders; their modules then import one by one.
"""

import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType


def _bare_packages() -> None:
    spec = find_spec("solo")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("solo-learn is missing: pip install --no-deps solo-learn==1.0.2")
    root = Path(spec.submodule_search_locations[0])
    for name in ("solo", "solo.losses", "solo.utils"):
        package = ModuleType(name)
        package.__path__ = [str(root.joinpath(*name.split(".")[1:]))]
        sys.modules[name] = package


if "solo" not in sys.modules:
    _bare_packages()

from solo.losses.byol import byol_loss_func
from solo.losses.deepclusterv2 import deepclusterv2_loss_func
from solo.losses.dino import DINOLoss
from solo.losses.moco import moco_loss_func
from solo.losses.simclr import simclr_loss_func
from solo.losses.simsiam import simsiam_loss_func
from solo.losses.swav import swav_loss_func
from solo.utils.momentum import MomentumUpdater
from solo.utils.sinkhorn_knopp import SinkhornKnopp

__all__ = [
    "DINOLoss",
    "MomentumUpdater",
    "SinkhornKnopp",
    "byol_loss_func",
    "deepclusterv2_loss_func",
    "moco_loss_func",
    "simclr_loss_func",
    "simsiam_loss_func",
    "swav_loss_func",
]
