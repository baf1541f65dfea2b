"""Random scores: the control every other criterion must beat."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphprune.program import Array


@dataclass(frozen=True)
class Random:
    """Uniform in [0, 1), drawn from the seed and the name of the group, so that the order of groups does not matter."""

    name: ClassVar[str] = "random"

    def elements(self, weight: Array) -> None:
        """Weights do not matter."""
        return

    def entry(self, sums: Array) -> Array:
        """Unused: there are no elements."""
        return sums

    def scores(self, group: str, size: int, seed: int) -> Array:
        """The draw of one group; the same in every process."""
        digest = hashlib.sha256(f"{seed}:{group}".encode()).digest()
        return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:8], "little"))).random(size)
