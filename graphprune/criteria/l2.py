"""The Euclidean norm (Han et al. 2015; group form as in Fang et al. 2023, "DepGraph")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphprune.program import Array


@dataclass(frozen=True)
class L2:
    """``s_i = sqrt(sum w^2)`` over the elements of entry i."""

    name: ClassVar[str] = "l2"

    def elements(self, weight: Array) -> Array:
        """``w^2``"""
        return np.square(weight)

    def entry(self, sums: Array) -> Array:
        """The square root of the sum of squares."""
        return np.sqrt(sums)

    def scores(self, group: str, size: int, seed: int) -> Array:
        """Entries without weights weigh nothing."""
        return np.zeros(size)
