"""What the loss would change by, squared, if an entry were multiplied by a gate that closes: the first order of its
Taylor series (Molchanov et al., Importance Estimation for Neural Network Pruning, CVPR 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphprune.program import Array


@dataclass(frozen=True)
class Taylor:
    """``(sum g w)**2`` over the weights of an entry: the square of the derivative of the loss by a gate on all of them,
    averaged over batches, since at a minimum the mean of the derivatives themselves is zero.

    >>> Taylor().finish(Taylor().products(np.array([2.0, 1.0]), np.array([3.0, -1.0])).sum()).item()
    25.0
    """

    name: ClassVar[str] = "taylor"
    derivative: ClassVar[str] = "gradient of each batch"

    def products(self, weight: Array, derivative: Array) -> Array:
        """``g w``."""
        return weight * derivative

    def finish(self, sums: Array) -> Array:
        """The squares of the sums."""
        found: Array = np.square(sums)
        return found
