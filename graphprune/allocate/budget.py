"""The smallest cut of a ranking that meets a budget, by bisection on exact costs.

The cost of the whole candidate is counted at each step, so that what a cut saves in its neighbours counts too. The
share is then raised to the first entry that is enough, and entries are given back, the most important first, as long as
the budget still holds.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from graphprune.allocate.bounds import Bound
from graphprune.analysis import Group
from graphprune.cost import Costing
from graphprune.dims import Dim
from graphprune.program import Array

# Shares are compared with a tolerance: 3 of 10 entries are removed at a ratio of 0.3, whatever 0.3 * 10 rounds to.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Allocation:
    """What to keep: sorted indices for every group that loses something, and whether the budget is met."""

    keep: dict[Dim, Array]
    met: bool


class Family:
    """The nested cuts of a ranking: for a share, the number of entries that each group loses.

    Ties are broken by the order of groups and the index of the entry.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        scores: Mapping[Dim, Array],
        bounds: Mapping[Dim, Bound],
        classes: Sequence[Hashable],
    ):
        self.groups = groups
        self.bounds = bounds
        self.order = [np.argsort(scores[group.dim], kind="stable") for group in groups]
        self.shares = self._shares(scores, classes)
        """For each group, ascending: the shares at which its entries go, for those that may."""
        self.steps: list[float] = np.unique(np.concatenate([*self.shares, np.zeros(1)])).tolist()

    def _shares(self, scores: Mapping[Dim, Array], classes: Sequence[Hashable]) -> list[Array]:
        members: dict[Hashable, list[int]] = {}
        for place, each in enumerate(classes):
            members.setdefault(each, []).append(place)
        shares: list[Array] = [np.zeros(0)] * len(self.groups)
        for places in members.values():
            spare = [self.groups[k].size - self.bounds[self.groups[k].dim].least for k in places]
            values = [scores[self.groups[k].dim][self.order[k][:n]] for k, n in zip(places, spare, strict=True)]
            # A stable sort keeps the order of groups, and inside a group that of its entries, among equal scores.
            order = np.argsort(np.concatenate(values), kind="stable")
            total = sum(self.groups[k].size for k in places)
            share = np.empty(len(order))
            share[order] = np.arange(1, len(order) + 1) / total
            for k, part in zip(places, np.split(share, np.cumsum(spare)[:-1]), strict=True):
                shares[k] = part
        return shares

    def widths(self, share: float) -> dict[Dim, int]:
        """The width of every group at a share."""
        found = {}
        for group, shares in zip(self.groups, self.shares, strict=True):
            removed = int(np.searchsorted(shares, share + _ROUNDING, side="right"))
            found[group.dim] = self.bounds[group.dim].width(group.size, removed)
        return found

    def keep(self, widths: Mapping[Dim, int]) -> dict[Dim, Array]:
        """The entries with the highest scores, in their old order, for every group that is cut."""
        return {
            group.dim: np.sort(order[group.size - widths[group.dim] :])
            for group, order in zip(self.groups, self.order, strict=True)
            if widths[group.dim] < group.size
        }

    def regret(self, place: int, width: int) -> float:
        """How late the last entry went that a group of this width has lost: the later, the more it is worth."""
        removed = self.groups[place].size - width
        return float(self.shares[place][removed - 1])


def at_ratio(family: Family, ratio: float) -> Allocation:
    """The cut at a given share, as far as bounds allow."""
    return Allocation(family.keep(family.widths(ratio)), True)


def meet(family: Family, costing: Costing, fractions: Mapping[str, float]) -> Allocation:
    """The smallest cut that leaves at most these fractions of the dense costs (measures of
    :data:`graphprune.cost.MEASURES`); the largest cut, with ``met`` false, where none is enough."""
    limits = {name: math.floor(costing.cost(name, {}) * fraction + _ROUNDING) for name, fraction in fractions.items()}

    def holds(widths: Mapping[Dim, int]) -> bool:
        return all(costing.cost(name, widths) <= limit for name, limit in limits.items())

    low, high = 0, len(family.steps) - 1
    if not holds(family.widths(family.steps[high])):
        return Allocation(family.keep(family.widths(family.steps[high])), False)
    while low < high:
        middle = (low + high) // 2
        if holds(family.widths(family.steps[middle])):
            high = middle
        else:
            low = middle + 1
    widths = family.widths(family.steps[low])
    _give_back(family, costing, limits, widths)
    return Allocation(family.keep(widths), True)


def _give_back(family: Family, costing: Costing, limits: Mapping[str, int], widths: dict[Dim, int]) -> None:
    """Raise widths in place, step by step, the entries that went last first; a group that no longer fits is done."""
    room = {name: limit - costing.cost(name, widths) for name, limit in limits.items()}
    waiting = [
        (-family.regret(place, widths[group.dim]), place)
        for place, group in enumerate(family.groups)
        if widths[group.dim] < group.size
    ]
    heapq.heapify(waiting)
    while waiting:
        _, place = heapq.heappop(waiting)
        group = family.groups[place]
        width = widths[group.dim]
        wider = min(group.size, width + family.bounds[group.dim].step)
        changes = {name: costing.change(name, group.dim, wider, widths) for name in limits}
        if all(changes[name] <= room[name] for name in limits):
            widths[group.dim] = wider
            room = {name: room[name] - changes[name] for name in limits}
            if wider < group.size:
                heapq.heappush(waiting, (-family.regret(place, wider), place))
