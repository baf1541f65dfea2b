"""Random scores: the baseline that every other criterion must beat."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphprune.program import Array


@dataclass(frozen=True)
class Random:
    """Uniform numbers in [0, 1), a function of the seed and the name of the group: the order of groups, the process and
    the machine do not matter.

    >>> bool((Random().group("a:0", 4, 0) == Random().group("a:0", 4, 0)).all())
    True
    """

    name: ClassVar[str] = "random"

    def group(self, name: str, size: int, seed: int) -> Array:
        """Scores for the entries of a group (shape ``[size]``, float64)."""
        digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
        # Python's hash() of a text differs between processes; the sha256 of it does not.
        return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big"))).random(size)
