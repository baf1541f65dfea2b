"""What an allocation took too much of is given back: a cut made of whole steps seldom ends right at the budget."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from graphprune.allocate.problem import Problem
from graphprune.dims import Dim


def give_back(problem: Problem, widths: dict[Dim, int], worth: Callable[[int, int], float] | None = None) -> None:
    """Raise widths in place, step by step, as long as all budgets hold: a group that no longer fits is done.

    worth: what the last entry is worth that a group (by place) of this width has lost; the most valuable comes back
           first. Its score, if not given.
    Afterwards no group could be one step wider.
    """
    worth = worth or (lambda place, width: _last_lost(problem, place, width))
    room = {name: limit - problem.cost(name, widths) for name, limit in problem.limits.items()}
    waiting = [
        (-worth(place, widths[group.dim]), place)
        for place, group in enumerate(problem.groups)
        if widths[group.dim] < group.size
    ]
    heapq.heapify(waiting)
    while waiting:
        _, place = heapq.heappop(waiting)
        group = problem.groups[place]
        wider = min(group.size, widths[group.dim] + problem.bounds[group.dim].step)
        changes = {name: problem.change(name, group.dim, wider, widths) for name in room}
        if all(changes[name] <= room[name] for name in room):
            widths[group.dim] = wider
            room = {name: room[name] - changes[name] for name in room}
            if wider < group.size:
                heapq.heappush(waiting, (-worth(place, wider), place))


def _last_lost(problem: Problem, place: int, width: int) -> float:
    removed = problem.groups[place].size - width
    return float(problem.losses[place][removed] - problem.losses[place][removed - 1])
