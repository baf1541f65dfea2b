"""How far the output moves when an input is replaced by its mean (An et al., Fluctuation-based Adaptive Structured
Pruning for Large Language Models, AAAI 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphprune.calibrate import Moments
from graphprune.criteria import Part
from graphprune.layers import Layer
from graphprune.program import Array


@dataclass(frozen=True)
class FLAP:
    """``Var(x_j) * sum_i w_ij**2`` over the inputs j of an entry: what is lost when the bias takes over their means.

    The paper compares layers by z-scores: ``normalize="standard"``. Of a group of two the lower one is at -1 whatever
    it is worth, so that means, the default, are better where there are few heads (measured: benchmarks/README.md).

    >>> worth(np.array([[[3.0, 1.0], [4.0, 1.0]]]), np.array([[0.0, 2.0]])).tolist()
    [[0.0, 4.0]]
    """

    name: ClassVar[str] = "flap"

    def statistic(self, layer: Layer) -> Moments:
        """Means and second moments."""
        return Moments()

    def entries(self, part: Part) -> Array:
        """The worth of the inputs of an entry, summed."""
        moments: Moments = part.statistic
        return part.summed(worth(part.matrices, moments.variance))


def worth(matrices: Array, variance: Array) -> Array:
    """For weights ``[groups, outputs, inputs]`` and variances: that of each input, ``[groups, inputs]``."""
    found: Array = np.square(matrices).sum(axis=1) * variance
    return found
