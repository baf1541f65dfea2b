"""Nested cuts: classes of groups compete, and all classes lose the same share at the same time.

Within a class entries go in the order of their scores. So a division into classes is a family of nested cuts with one
parameter, the share. The smallest share that meets a budget is found by bisection; the cost of the whole candidate is
counted at each step, so that what a cut saves in its neighbours counts too. The share is then raised to the first entry
that is enough, and entries are given back, the most important first, as long as the budget still holds.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from graphprune.allocate.give_back import give_back
from graphprune.allocate.problem import ROUNDING, Problem
from graphprune.dims import Dim
from graphprune.program import Array


class Family:
    """The nested cuts of a division into classes: for a share, the number of entries that each group loses.

    Ties are broken by the order of groups and the index of the entry.
    """

    def __init__(self, problem: Problem, classes: Sequence[Hashable]):
        self.problem = problem
        self.shares = self._shares(classes)
        """For each group, ascending: the shares at which its entries go, for those that may."""
        self.steps: list[float] = np.unique(np.concatenate([*self.shares, np.zeros(1)])).tolist()

    def _shares(self, classes: Sequence[Hashable]) -> list[Array]:
        groups, problem = self.problem.groups, self.problem
        members: dict[Hashable, list[int]] = {}
        for place, each in enumerate(classes):
            members.setdefault(each, []).append(place)
        shares: list[Array] = [np.zeros(0)] * len(groups)
        for places in members.values():
            spare = [groups[k].size - problem.bounds[groups[k].dim].least for k in places]
            values = [problem.scores[groups[k].dim][problem.order[k][:n]] for k, n in zip(places, spare, strict=True)]
            # A stable sort keeps the order of groups, and inside a group that of its entries, among equal scores.
            order = np.argsort(np.concatenate(values), kind="stable")
            total = sum(groups[k].size for k in places)
            share = np.empty(len(order))
            share[order] = np.arange(1, len(order) + 1) / total
            for k, part in zip(places, np.split(share, np.cumsum(spare)[:-1]), strict=True):
                shares[k] = part
        return shares

    def widths(self, share: float) -> dict[Dim, int]:
        """The width of every group at a share."""
        found = {}
        for group, shares in zip(self.problem.groups, self.shares, strict=True):
            removed = int(np.searchsorted(shares, share + ROUNDING, side="right"))
            found[group.dim] = self.problem.bounds[group.dim].width(group.size, removed)
        return found

    def regret(self, place: int, width: int) -> float:
        """How late the last entry went that a group of this width has lost: the later, the more it is worth."""
        removed = self.problem.groups[place].size - width
        return float(self.shares[place][removed - 1])


def cut(problem: Problem, classes: Sequence[Hashable]) -> dict[Dim, int]:
    """The smallest cut that meets the budgets; where a ratio was asked for, the cut at that share of each class.

    classes: for each group by place, what it competes in
    """
    family = Family(problem, classes)
    if problem.ratio is not None:
        return family.widths(problem.ratio)
    low, high = 0, len(family.steps) - 1
    while low < high:
        middle = (low + high) // 2
        if problem.holds(family.widths(family.steps[middle])):
            high = middle
        else:
            low = middle + 1
    widths = family.widths(family.steps[low])
    give_back(problem, widths, family.regret)
    return widths
