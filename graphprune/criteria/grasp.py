"""Gradient signal preservation (Wang, Zhang & Grosse, Picking Winning Tickets Before Training by Preserving Gradient
Flow, ICLR 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from graphprune.program import Array


@dataclass(frozen=True)
class GraSP:
    """``sum w Hg`` over the weights of an entry. The paper removes the highest of ``S = -w Hg`` first, which reduce the
    norm of the gradient least or raise it; as an importance, of which the lowest go first, that is ``-S``.

    >>> import numpy as np
    >>> GraSP().products(np.array([2.0, 1.0]), np.array([3.0, -1.0])).tolist()
    [6.0, -1.0]
    """

    name: ClassVar[str] = "grasp"
    derivative: ClassVar[str] = "hessian-gradient product"

    def products(self, weight: Array, derivative: Array) -> Array:
        """``w Hg``."""
        return weight * derivative

    def finish(self, sums: Array) -> Array:
        """The sums themselves."""
        return sums
