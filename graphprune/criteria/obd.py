"""Optimal Brain Damage (LeCun, Denker & Solla, NIPS 1989), with the empirical Fisher information for the Hessian."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphprune.program import Array


@dataclass(frozen=True)
class OBD:
    """``sum h w**2 / 2`` over the weights of an entry, where h is the mean of ``g**2`` over batches; batches of one
    sample make it the Fisher information of samples.

    >>> OBD().products(np.array([2.0, 1.0]), np.array([3.0, 1.0])).tolist()
    [6.0, 0.5]
    """

    name: ClassVar[str] = "obd"
    derivative: ClassVar[str] = "squared gradient"

    def products(self, weight: Array, derivative: Array) -> Array:
        """``h w**2 / 2``."""
        found: Array = derivative * np.square(weight) / 2
        return found

    def finish(self, sums: Array) -> Array:
        """The sums themselves."""
        return sums
