"""Shards on a node's own disk, for as long as they are read again and again."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hcsqc.core.errors import InputError
from hcsqc.core.progress import Progress

GB = 1e9
# Of the disk's free space, so that other jobs of the node still have some.
MOST = 0.9


@contextmanager
def on_scratch(paths: Sequence[Path], folder: str) -> Iterator[list[Path]]:
    """Yield copies of `{screen}/{plate}.parquet` files in `folder`, gone when the block ends.

    `folder` may name variables of the environment, such as $TMPDIR, which SLURM sets on the node.
    Times of the files are kept. Without a folder the paths themselves are yielded. Raises
    InputError if the folder is not there or has no room.
    """
    if not folder:
        yield list(paths)
        return
    root = Path(os.path.expandvars(folder))
    if not root.is_dir():
        raise InputError(f"scratch {folder}: no such folder on this node ({root})")
    size = sum(path.stat().st_size for path in paths)
    free = shutil.disk_usage(root).free
    if size > MOST * free:
        raise InputError(
            f"scratch {root}: {size / GB:.1f} GB of crops do not fit into {free / GB:.1f} GB of "
            "free space; choose another folder, or none to read from the shared file system"
        )
    with tempfile.TemporaryDirectory(prefix="hcsqc-", dir=root) as made:
        progress = Progress(size // 10**6, "MB", f"copy to {root}")
        copies = []
        for path in paths:
            copies.append(Path(made) / path.parent.name / path.name)
            copies[-1].parent.mkdir(exist_ok=True)
            shutil.copy2(path, copies[-1])
            progress.update(path.stat().st_size // 10**6)
        progress.close()
        yield copies
