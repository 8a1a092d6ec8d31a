"""Where networks run: the device, what it computes in, its memory, and its name for records."""

import platform
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from hcsqc.core.errors import InputError


def choose_device(name: str) -> torch.device:
    """Return the device for auto (a GPU if there is one), cpu or cuda.

    Raises InputError for another name, or for cuda where torch finds no GPU.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name not in ("cpu", "cuda"):
        raise InputError(f"device is '{name}', expected auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("device is cuda, but torch finds no GPU; use auto or cpu")
    return torch.device(name)


def device_name(place: torch.device) -> str:
    """Return what the device is called, with the threads in use if it is a CPU."""
    if place.type == "cuda":
        return torch.cuda.get_device_name(place)
    name = torch.cpu.get_capabilities().get("cpu_name") or platform.machine()
    return f"{name} CPU, {torch.get_num_threads()} threads"


def precision_on(place: torch.device, wanted: str) -> str:
    """Return float32 or bfloat16; `auto` is bfloat16 where the hardware computes in it."""
    if wanted != "auto":
        return wanted
    if place.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        able = torch.cpu.get_capabilities()
        native = able.get("amx_bf16", False) or able.get("avx512_bf16", False)
    return "bfloat16" if native else "float32"


def peak_memory_gb(place: torch.device) -> float:
    """Return the most memory in use so far, in GiB: of the GPU, or else of the process."""
    if place.type == "cuda":
        return torch.cuda.max_memory_allocated(place) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


@contextmanager
def deterministic_on_cpu(place: torch.device) -> Iterator[None]:
    """Let torch use only algorithms that repeat to the bit, if it runs on the CPU."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(place.type == "cpu" or before)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
