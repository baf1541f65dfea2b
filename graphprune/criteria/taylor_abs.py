"""The first order of the Taylor series of the loss without its square (Molchanov et al., Pruning Convolutional Neural
Networks for Resource Efficient Inference, ICLR 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphprune.program import Array


@dataclass(frozen=True)
class TaylorAbs:
    """``|sum g w|`` over the weights of an entry, averaged over batches.

    >>> TaylorAbs().finish(TaylorAbs().products(np.array([2.0, 1.0]), np.array([-3.0, 1.0])).sum()).item()
    5.0
    """

    name: ClassVar[str] = "taylor_abs"
    derivative: ClassVar[str] = "gradient of each batch"

    def products(self, weight: Array, derivative: Array) -> Array:
        """``g w``."""
        return weight * derivative

    def finish(self, sums: Array) -> Array:
        """The absolute sums."""
        found: Array = np.abs(sums)
        return found
