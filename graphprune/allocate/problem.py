"""What an allocator is asked: which groups there are, what their entries are worth, what widths cost and may cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from graphprune.allocate.bounds import Bound
from graphprune.analysis import Analysis, Group
from graphprune.cost import Costing
from graphprune.dims import Dim
from graphprune.errors import GraphPruneError
from graphprune.program import Array

CHANNELS = "channels"
"""Beside :data:`graphprune.cost.MEASURES`, a cost for allocation: the entries of all groups together."""

# Shares are compared with a tolerance: 3 of 10 entries are removed at a ratio of 0.3, whatever 0.3 * 10 rounds to.
ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class Problem:
    """Find the widths that lose least and cost no more than ``limits``.

    groups: what may be cut; a group is called by its place in this list
    scores: what each entry is worth (shape ``[size]``), in one unit for all groups where an allocator adds them up
    bounds: the widths that each group may have
    limits: the most that may remain, by measure: :data:`graphprune.cost.MEASURES` and :data:`CHANNELS`
    ratio:  where no budget was given but a share of all channels to remove: that share; ``limits`` say the same
    """

    analysis: Analysis
    groups: Sequence[Group]
    scores: Mapping[Dim, Array]
    bounds: Mapping[Dim, Bound]
    costing: Costing
    limits: Mapping[str, int]
    ratio: float | None = None

    # ---------------------------------------------------------------- what it costs
    def cost(self, measure: str, widths: Mapping[Dim, int]) -> int:
        """A measure at these widths, exactly."""
        if measure == CHANNELS:
            return sum(widths[group.dim] for group in self.groups)
        return self.costing.cost(measure, widths)

    def change(self, measure: str, dim: Dim, width: int, widths: Mapping[Dim, int]) -> int:
        """What a measure changes by when one group goes from its width in ``widths`` to ``width``, exactly."""
        if measure == CHANNELS:
            return width - widths[dim]
        return self.costing.change(measure, dim, width, widths)

    def holds(self, widths: Mapping[Dim, int]) -> bool:
        """Whether all budgets are met."""
        return all(self.cost(name, widths) <= limit for name, limit in self.limits.items())

    @cached_property
    def full(self) -> dict[Dim, int]:
        """The widths before any cut."""
        return {group.dim: group.size for group in self.groups}

    @cached_property
    def least(self) -> dict[Dim, int]:
        """The smallest widths that bounds allow."""
        return {group.dim: self.bounds[group.dim].least for group in self.groups}

    # ---------------------------------------------------------------- what it loses
    @cached_property
    def order(self) -> list[Array]:
        """By place: the entries of a group, the least important first; equal ones in their own order."""
        return [np.argsort(self.scores[group.dim], kind="stable") for group in self.groups]

    @cached_property
    def losses(self) -> list[Array]:
        """By place: what is lost with the first ``n`` entries in that order, for every ``n`` from 0 to the size."""
        return [
            np.concatenate([np.zeros(1), np.cumsum(self.scores[group.dim][order])])
            for group, order in zip(self.groups, self.order, strict=True)
        ]

    def loss(self, widths: Mapping[Dim, int]) -> float:
        """The scores of all entries that are lost at these widths, added up."""
        return math.fsum(
            losses[group.size - widths[group.dim]] for group, losses in zip(self.groups, self.losses, strict=True)
        )

    def keep(self, widths: Mapping[Dim, int]) -> dict[Dim, Array]:
        """The entries with the highest scores, in their old order, for every group that is cut."""
        return {
            group.dim: np.sort(order[group.size - widths[group.dim] :])
            for group, order in zip(self.groups, self.order, strict=True)
            if widths[group.dim] < group.size
        }

    def check(self, widths: Mapping[Dim, int], allocator: str) -> None:
        """Raises GraphPruneError GP111 where an answer is none: a group is missing, or has a width that its bound
        does not allow, or a budget is not met."""
        for group in self.groups:
            width = widths.get(group.dim)
            if not isinstance(width, int) or not self.bounds[group.dim].allows(group.size, width):
                what = f"the allocator {allocator!r} gave a width that the bounds do not allow: {width!r}"
                raise GraphPruneError("GP111", what, group.name)
        if self.ratio is None and not self.holds(widths):  # shares of groups are rounded, and so is their sum
            raise GraphPruneError("GP111", f"the allocator {allocator!r} did not meet a budget that can be met")


def limits_of(
    costing: Costing, groups: Sequence[Group], bounds: Mapping[Dim, Bound], fractions: Mapping[str, float], ratio: float
) -> dict[str, int]:
    """The most that may remain: of each measure a fraction of its dense cost, and of all channels what a ratio leaves,
    as far as bounds allow."""
    limits = {name: math.floor(costing.cost(name, {}) * fraction + ROUNDING) for name, fraction in fractions.items()}
    if not fractions:
        channels = sum(group.size for group in groups)
        least = sum(bounds[group.dim].least for group in groups)
        limits[CHANNELS] = max(least, channels - math.floor(channels * ratio + ROUNDING))
    return limits
