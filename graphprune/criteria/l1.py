"""The sum of magnitudes (Li et al. 2017, "Pruning Filters for Efficient ConvNets")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphprune.program import Array


@dataclass(frozen=True)
class L1:
    """``s_i = sum |w|`` over the elements of entry i."""

    name: ClassVar[str] = "l1"

    def elements(self, weight: Array) -> Array:
        """``|w|``"""
        return np.abs(weight)

    def entry(self, sums: Array) -> Array:
        """The sum itself."""
        return sums

    def scores(self, group: str, size: int, seed: int) -> Array:
        """Entries without weights weigh nothing."""
        return np.zeros(size)
