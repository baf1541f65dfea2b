"""The L2 norm of the weights of an entry: the length of the filter as a vector, as in Torch-Pruning's GroupMagnitude
(Fang et al., DepGraph, CVPR 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphprune.program import Array


@dataclass(frozen=True)
class L2:
    """``sqrt(sum w**2)`` over the weights of an entry.

    >>> L2().finish(L2().elements(np.array([3.0, -4.0])).sum()).item()
    5.0
    """

    name: ClassVar[str] = "l2"

    def elements(self, weight: Array) -> Array:
        """``w**2``."""
        return np.square(weight)

    def finish(self, sums: Array) -> Array:
        """The square root of the sums."""
        root: Array = np.sqrt(sums)
        return root
