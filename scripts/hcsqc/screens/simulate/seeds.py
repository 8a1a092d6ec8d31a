"""Random generators and digests of places on a screen, such as a plate or a field."""

import numpy as np

from hcsqc.core.files import text_digest


def random_generator(seed: int, *place: str | int) -> np.random.Generator:
    """Return a generator that depends on nothing but the seed and the place, such as a field."""
    return np.random.default_rng(int(place_digest(seed, *place)[:32], 16))


def place_digest(seed: int, *place: str | int) -> str:
    """Return a digest of the seed and the place: 64 hexadecimal digits."""
    return text_digest("/".join(str(part) for part in (seed, *place)))
