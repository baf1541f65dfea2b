"""One step at a time: the one that loses least for what it saves.

A step takes the least important entries of one group, as many as its alignment wants and as it takes to save anything,
and its price is their score over what the network saves, in its neighbours too. Times of layers are staircases: there a
step goes down as far as is cheapest. With several budgets the saving is the sum over those that are not met yet of
``saving / excess``, so that the one that is farthest off counts least per unit; these weights are renewed whenever an
excess has halved. Scores are added up, so they have to be in one unit for all groups: the criterion's own
(``normalize="none"``) or one that a normalisation makes. Entries with negative scores go first.

Removing entries only makes the savings of others smaller and their prices higher, so a heap of prices that were right
once has to look again only at what it is about to take. For ``n`` removed steps, ``g`` groups and ``t`` cost terms a
group the time is ``O(n (t + log g))``.
"""

from __future__ import annotations

import heapq

from graphprune.allocate import uniform
from graphprune.allocate.give_back import give_back
from graphprune.allocate.polynomial import Running, running
from graphprune.allocate.problem import Problem
from graphprune.cost import LATENCY
from graphprune.dims import Dim

_Entry = tuple[float, float, int, int]
"""The price of a step, its weighted saving (the larger first), the group and its width after it."""


def allocate(problem: Problem) -> dict[Dim, int]:
    """Take steps until all budgets are met, then give back what was too much. Where time is a budget, the same share of
    every group is taken if that loses less: where several have to leave a block of channels together, no step of one
    group saves anything.
    """
    widths = dict(problem.full)
    descend(problem, widths)
    give_back(problem, widths)
    return min(widths, uniform.allocate(problem), key=problem.loss) if LATENCY in problem.limits else widths


def descend(problem: Problem, widths: dict[Dim, int]) -> None:
    """Make groups narrower in place until all budgets are met, or nothing more may go."""
    now = [widths[group.dim] for group in problem.groups]
    costs = running(problem, now)
    while excess := _excess(problem, widths):
        if not _Round(problem, costs, excess, now).run():
            return
        widths.update((group.dim, width) for group, width in zip(problem.groups, now, strict=True))


def _excess(problem: Problem, widths: dict[Dim, int]) -> dict[str, int]:
    """What has to be saved yet, by measure, exactly; of those that are not met."""
    found = {name: problem.cost(name, widths) - limit for name, limit in problem.limits.items()}
    return {name: amount for name, amount in found.items() if amount > 0}


class _Round:
    """Steps at fixed weights of the budgets, until an excess has halved."""

    def __init__(self, problem: Problem, costs: dict[str, Running], excess: dict[str, int], widths: list[int]):
        self.widths = widths
        self.costs = costs
        self.excess: dict[str, float] = dict(excess)
        self.unmet = [(name, costs[name], 1 / amount) for name, amount in excess.items()]
        self.losses = problem.losses
        self.sizes = [group.size for group in problem.groups]
        self.bounds = [problem.bounds[group.dim] for group in problem.groups]
        self.stairs = LATENCY in excess

    def run(self) -> bool:
        """Take steps. False where none is left that saves anything."""
        heap = [entry for place in range(len(self.widths)) if (entry := self._entry(place))]
        heapq.heapify(heap)
        enough = {name: amount / 2 for name, amount in self.excess.items()}
        taken = False
        while heap and all(self.excess[name] > enough[name] for name in enough):
            entry = self._entry(heap[0][2])
            if entry is None:
                heapq.heappop(heap)
            elif entry > heap[0]:
                heapq.heapreplace(heap, entry)  # dearer by now: another may come first
            else:
                self._take(*entry[2:])
                taken = True
        return taken

    def _entry(self, place: int) -> _Entry | None:
        """The step of a group that loses least for what it saves; None where none saves anything."""
        width, losses, size = self.widths[place], self.losses[place], self.sizes[place]
        found, lower = None, self.bounds[place].below(width)
        while lower < width and (self.stairs or found is None):
            share, saving = (width - lower) / width, 0.0
            for _, cost, weight in self.unmet:
                saving += weight * cost.saving(place, share)
            if saving > 0:
                loss = float(losses[size - lower] - losses[size - width])
                entry = (loss / saving if loss > 0 else loss * saving, -saving, place, lower)
                found = entry if found is None else min(found, entry)
            below = self.bounds[place].below(lower)
            if below == lower:
                break
            lower = below
        return found

    def _take(self, place: int, lower: int) -> None:
        share = (self.widths[place] - lower) / self.widths[place]
        for name, cost, _ in self.unmet:
            self.excess[name] -= cost.saving(place, share)
        for cost in self.costs.values():
            cost.cut(place, share)
        self.widths[place] = lower
