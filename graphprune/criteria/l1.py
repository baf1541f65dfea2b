"""The L1 norm of the weights of an entry (Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphprune.program import Array


@dataclass(frozen=True)
class L1:
    """``sum |w|`` over the weights of an entry.

    >>> L1().finish(L1().elements(np.array([3.0, -4.0])).sum()).item()
    7.0
    """

    name: ClassVar[str] = "l1"

    def elements(self, weight: Array) -> Array:
        """``|w|``."""
        return np.abs(weight)

    def finish(self, sums: Array) -> Array:
        """The sums themselves."""
        return sums
