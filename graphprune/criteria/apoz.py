"""How often an activation is not zero (Hu et al., Network Trimming, 2016): channels that a ReLU silences go first."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from graphprune.criteria import Part
from graphprune.layers import Layer, Rows
from graphprune.program import Array


@dataclass(eq=False)
class Activity:
    """How many samples of every input of a layer are not zero.

    >>> activity = Activity()
    >>> activity.add(np.array([[[0.0, 2.0]], [[0.0, 0.0]]]))
    >>> activity.share.tolist()
    [[0.0, 0.5]]
    """

    count: int = 0
    active: Array = field(default_factory=lambda: np.zeros((), np.int64))

    def update(self, rows: Rows, chosen: Array | None) -> None:
        """See :class:`graphprune.calibrate.Statistic`."""
        for chunk in rows.chunks(chosen):
            self.add(chunk)

    def add(self, rows: Array) -> None:
        """Take samples ``[samples, groups, inputs]``."""
        self.count += len(rows)
        self.active = self.active + np.count_nonzero(rows, axis=0)

    @property
    def share(self) -> Array:
        """The share of samples that are not zero, ``[groups, inputs]``."""
        return self.active / max(1, self.count)


@dataclass(frozen=True)
class APoZ:
    """``1 - APoZ``: the share of samples of an entry that are not zero, the mean over its inputs j. Zeros that pad the
    border of a convolution count as what they are."""

    name: ClassVar[str] = "apoz"

    def statistic(self, layer: Layer) -> Activity:
        """Counts of what is not zero."""
        return Activity()

    def entries(self, part: Part) -> Array:
        """The share of the inputs of an entry."""
        activity: Activity = part.statistic
        shares, inputs = part.summed(activity.share), part.summed(np.ones_like(activity.share))
        found: Array = shares / np.maximum(inputs, 1)
        return found
