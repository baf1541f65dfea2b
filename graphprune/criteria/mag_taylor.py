"""Magnitude and first order together (Lubana & Dick, A Gradient Flow Framework for Analyzing Network Pruning, ICLR
2021): the norm of the model goes down quickly while the loss stays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphprune.program import Array


@dataclass(frozen=True)
class MagnitudeTaylor:
    """``sum |w| |g w|`` over the weights of an entry.

    >>> MagnitudeTaylor().products(np.array([2.0, 1.0]), np.array([3.0, -1.0])).tolist()
    [12.0, 1.0]
    """

    name: ClassVar[str] = "mag_taylor"
    derivative: ClassVar[str] = "gradient"

    def products(self, weight: Array, derivative: Array) -> Array:
        """``|w| |g w|``."""
        found: Array = np.square(weight) * np.abs(derivative)
        return found

    def finish(self, sums: Array) -> Array:
        """The sums themselves."""
        return sums
