"""Checkpoints of a training run: whole states in a folder, the last two of them.

A file is what `torch.save` writes, then the digest of that (XXH3, 128 bits), which `torch.load` has
no use for: it does not compare the checksums of its own archive.
"""

import json
import sys
from io import BytesIO
from pathlib import Path

import torch
import xxhash
from torch import Tensor

from hcsqc.core.errors import InputError
from hcsqc.core.files import atomic

DIGEST_BYTES = 16
CHUNK_BYTES = 2**22


class Checkpoints:
    """The last two checkpoints of a run, in a folder of their own.

    `identity` tells what run they belong to; those of another run are removed, not resumed.
    """

    def __init__(self, folder: Path, identity: dict[str, object], label: str):
        self.folder, self.identity, self.label = folder, identity, label

    def save(self, state: dict[str, object]) -> None:
        """Write the state under its step, and remove all but the last two.

        Raises OSError if it cannot be written, as on a full disk; those before it are kept then.
        """
        with atomic(self._path(state["step"])) as temporary:
            try:
                torch.save({**state, "identity": json.dumps(self.identity)}, temporary)
            except RuntimeError as error:  # how torch says that a write has failed
                raise OSError(str(error).splitlines()[0]) from error
            with open(temporary, "r+b") as file:
                digest = xxhash.xxh3_128()
                while content := file.read(CHUNK_BYTES):
                    digest.update(content)
                file.write(digest.digest())
        for old in self._paths()[:-2]:
            old.unlink()

    def keep_last(self, step: int) -> None:
        """Remove all but that of the last step, if it could be written."""
        if self._path(step).exists():
            for path in self._paths():
                if path != self._path(step):
                    path.unlink()

    def load(self) -> dict[str, object] | None:
        """Return the newest readable state of this run, with its tensors on the CPU, or None.

        One that is damaged is set aside, with the ending .bad. Raises InputError if one cannot be
        read for another reason: the disk's, or a lack of memory.
        """
        for path in reversed(self._paths()):
            try:
                content = path.read_bytes()
            except (OSError, MemoryError) as error:
                raise InputError(
                    f"{self.label}: checkpoint {path} cannot be read ({error}); start again"
                ) from error
            try:
                content, digest = content[:-DIGEST_BYTES], content[-DIGEST_BYTES:]
                if xxhash.xxh3_128_digest(content) != digest:
                    raise ValueError("its content does not match its digest")
                state = torch.load(BytesIO(content), map_location="cpu", weights_only=True)
                identity = json.loads(state.pop("identity"))
            except Exception as error:  # zip, pickle and JSON errors alike
                self._warn(f"{path} cannot be read ({error}); trying the previous one")
                path.rename(path.with_suffix(".bad"))
                continue
            differing = [key for key in self.identity if identity.get(key) != self.identity[key]]
            if not differing:
                return state
            self._warn(
                f"{path} is of another run ({', '.join(differing)} differ); training starts again"
            )
            for other in self._paths():
                other.unlink()
            return None
        return None

    def _path(self, step: int) -> Path:
        return self.folder / f"step{step:09d}.pt"

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("step*.pt"))

    def _warn(self, text: str) -> None:
        print(f"WARNING {self.label}: checkpoint {text}", file=sys.stderr, flush=True)


def random_state(place: torch.device) -> dict[str, Tensor]:
    """Return the state of torch's random numbers on the CPU and, if it is in use, the GPU."""
    state = {"cpu": torch.get_rng_state()}
    if place.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(place)
    return state


def set_random_state(state: dict[str, Tensor], place: torch.device) -> None:
    """Go on with random numbers where `random_state` was taken."""
    torch.set_rng_state(state["cpu"].cpu())
    if place.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].cpu(), place)
