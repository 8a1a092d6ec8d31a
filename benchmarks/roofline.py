"""What the hardware could do at its peaks: the least time that the operations of a step take."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import flop_registry


class Roofline(TorchDispatchMode):
    """Add up the least time that operations take; a mere view of a tensor takes none."""

    def __init__(self, rates: dict[torch.dtype, float], bandwidth: float):
        super().__init__()
        self.rates, self.bandwidth, self.seconds = rates, bandwidth, 0.0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        read = tensors([args, kwargs])
        known = {tensor.untyped_storage()._cdata for tensor in read}
        written = [made for made in tensors(result) if made.untyped_storage()._cdata not in known]
        for argument, value in zip(function._schema.arguments, args, strict=False):
            if argument.is_write:
                written += tensors(value)
        seconds = sum(map(filled_bytes, read + written)) / self.bandwidth if written else 0.0
        if count := flop_registry.get(function.overloadpacket):
            flops = count(*args, **kwargs, out_val=result)
            seconds = max(seconds, flops / self.rates[read[0].dtype])
        self.seconds += seconds
        return result


def tensors(tree: object) -> list[Tensor]:
    """Return the tensors in nested arguments or results."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def filled_bytes(tensor: Tensor) -> int:
    """Return the bytes that a tensor takes; what is repeated by expansion counts once."""
    sides = zip(tensor.shape, tensor.stride(), strict=True)
    return math.prod(side for side, stride in sides if stride) * tensor.element_size()


def peaks(place: torch.device, kinds: set[torch.dtype]) -> tuple[dict[torch.dtype, float], float]:
    """Return the FLOP/s of a large matrix product of each type, and the bytes/s of a large copy."""
    side = 8192 if place.type == "cuda" else 2048
    rates = {}
    for kind in kinds:
        a, b = torch.randn(2, side, side, device=place).to(kind)
        rates[kind] = 2 * side**3 / fastest(lambda a=a, b=b: a @ b)
    source, target = torch.ones(2, 2**28, dtype=torch.uint8, device=place)
    return rates, 2 * source.nbytes / fastest(lambda: target.copy_(source))


def fastest(work: Callable[[], object]) -> float:
    """Return the shortest time of some repetitions, in seconds, waiting for a GPU."""
    timer = Timer("work()", globals={"work": work}, num_threads=torch.get_num_threads())
    return min(timer.blocked_autorange(min_run_time=1).times)
