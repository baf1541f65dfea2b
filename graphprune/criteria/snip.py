"""Connection sensitivity (Lee et al., SNIP: Single-shot Network Pruning, ICLR 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphprune.program import Array


@dataclass(frozen=True)
class SNIP:
    """``sum |g w|`` over the weights of an entry: how much the loss changes with a gate on each.

    >>> SNIP().products(np.array([2.0, 1.0]), np.array([3.0, -1.0])).tolist()
    [6.0, 1.0]
    """

    name: ClassVar[str] = "snip"
    derivative: ClassVar[str] = "gradient"

    def products(self, weight: Array, derivative: Array) -> Array:
        """``|g w|``."""
        found: Array = np.abs(weight * derivative)
        return found

    def finish(self, sums: Array) -> Array:
        """The sums themselves."""
        return sums
