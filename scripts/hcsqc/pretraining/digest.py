"""The digest of the code of a pretraining, which other methods than its own have no part in."""

from pathlib import Path

from hcsqc.core.digest import code_digest

METHOD_FOLDER = Path("hcsqc/pretraining/methods")
# Which shows the course of a training, and has no part in it.
SHOWN = Path("hcsqc/tracking/live_curves.py")


def pretraining_digest(method: str) -> str:
    """Return the digest of the training loop and of one method, a key of the config."""
    plugin = METHOD_FOLDER / f"{method}.py"
    return code_digest("pretraining/pretrain.py", plugin=plugin, without=[SHOWN])
