"""Weights times the size of what they are multiplied by (Sun et al., A Simple and Effective Pruning Approach for Large
Language Models, ICLR 2024), summed over structures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphprune.calibrate import Moments
from graphprune.criteria import Part
from graphprune.layers import Layer
from graphprune.program import Array


@dataclass(frozen=True)
class Wanda:
    """``sum_i |w_ij| * sqrt(E[x_j**2])`` over the inputs j of an entry. The root mean square is the paper's norm over
    all samples, up to a factor that the layer's entries share.

    >>> worth(np.array([[[3.0, -1.0], [1.0, 1.0]]]), np.array([[1.0, 16.0]])).tolist()
    [[4.0, 8.0]]
    """

    name: ClassVar[str] = "wanda"

    def statistic(self, layer: Layer) -> Moments:
        """Second moments."""
        return Moments()

    def entries(self, part: Part) -> Array:
        """The worth of the inputs of an entry, summed."""
        moments: Moments = part.statistic
        return part.summed(worth(part.matrices, moments.second))


def worth(matrices: Array, second: Array) -> Array:
    """For weights ``[groups, outputs, inputs]`` and ``E[x**2]``: that of each input, ``[groups, inputs]``."""
    found: Array = np.abs(matrices).sum(axis=1) * np.sqrt(second)
    return found
