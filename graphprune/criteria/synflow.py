"""Synaptic flow (Tanaka et al., Pruning neural networks without any data by iteratively conserving synaptic flow,
NeurIPS 2020); see `graphprune.dialects.aten.synaptic_flow`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphprune.program import Array


@dataclass(frozen=True)
class SynFlow:
    """``sum |w| dR/d|w|`` over the weights of an entry. It needs no data; what flows into an entry flows out of it, so
    that all weights that it runs through agree.

    >>> SynFlow().products(np.array([-2.0, 1.0]), np.array([3.0, 1.0])).tolist()
    [6.0, 1.0]
    """

    name: ClassVar[str] = "synflow"
    derivative: ClassVar[str] = "synaptic flow"

    def products(self, weight: Array, derivative: Array) -> Array:
        """``|w| dR/d|w|``."""
        found: Array = np.abs(weight) * derivative
        return found

    def finish(self, sums: Array) -> Array:
        """The sums themselves."""
        return sums
