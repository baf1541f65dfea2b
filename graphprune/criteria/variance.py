"""How much an activation varies: a channel that is the same for all data says nothing about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from graphprune.calibrate import Moments
from graphprune.criteria import Part
from graphprune.layers import Layer
from graphprune.program import Array


@dataclass(frozen=True)
class Variance:
    """``Var(x_j)``, summed over the inputs j of an entry."""

    name: ClassVar[str] = "variance"

    def statistic(self, layer: Layer) -> Moments:
        """Means and second moments."""
        return Moments()

    def entries(self, part: Part) -> Array:
        """The variances of the inputs of an entry, summed."""
        moments: Moments = part.statistic
        return part.summed(moments.variance)
