"""Optimal Brain Damage (LeCun, Denker & Solla, NIPS 1989), with the diagonal of the Hessian itself, estimated from
products with random signs (Hutchinson 1990; Yu et al., Hessian-Aware Pruning, WACV 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphprune.program import Array


@dataclass(frozen=True)
class Hutchinson:
    """``sum h w**2 / 2`` over the weights of an entry, where h is the diagonal of the Hessian; negative where the loss
    curves down.

    >>> Hutchinson().products(np.array([2.0, 1.0]), np.array([3.0, -1.0])).tolist()
    [6.0, -0.5]
    """

    name: ClassVar[str] = "hutchinson"
    derivative: ClassVar[str] = "hessian diagonal"

    def products(self, weight: Array, derivative: Array) -> Array:
        """``h w**2 / 2``."""
        found: Array = derivative * np.square(weight) / 2
        return found

    def finish(self, sums: Array) -> Array:
        """The sums themselves."""
        return sums
