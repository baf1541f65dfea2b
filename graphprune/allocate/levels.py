"""The choice of one of a few widths for every group at once, as long as that makes the cut better.

Costs are products of the widths of neighbouring groups. Around a point where all budgets hold they are separable: what
a group adds at another width while all others stay. So one chooses a level for every group as if costs were separable,
counts the outcome exactly, takes further steps (:mod:`graphprune.allocate.greedy`) or gives back until it is right, and
begins again there, if less is lost, else with levels that are closer to where one was: successive linear programming
with a trust region. It starts at the greedy cut, so it is never worse. Where costs are separable indeed and all widths
of a group are among its levels, the first choice is the best there is, if the chooser's is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from graphprune.allocate import greedy
from graphprune.allocate.bounds import Bound
from graphprune.allocate.give_back import give_back
from graphprune.allocate.polynomial import running
from graphprune.allocate.problem import Problem
from graphprune.dims import Dim
from graphprune.program import Array

MOST_LEVELS = 16
"""Widths that a group may choose from, beside the one that it has."""

MOST_ROUNDS = 6

# A round that gains less than this share of the loss looks closer in the next.
_WORTHWHILE = 1e-3


@dataclass(frozen=True)
class Levels:
    """What can be chosen. Everything is by place, and there by level, the narrowest first.

    widths: of a group at each level
    losses: the scores that a group has lost at each level
    costs:  by measure: what a group adds to the cost at each level, against where all are now
    room:   by measure: what may be added in all, at least 0
    """

    widths: list[Array]
    losses: list[Array]
    costs: dict[str, list[Array]]
    room: dict[str, float]


Chooser = Callable[[Levels], list[int] | None]
"""Levels to the level of each group with the least loss in all, within the room; None where it finds none."""


def best(problem: Problem, choose: Chooser) -> dict[Dim, int]:
    """The cut with the least loss that was found."""
    found = greedy.allocate(problem)
    loss, radius = problem.loss(found), 1.0
    for _ in range(MOST_ROUNDS):
        levels = levels_around(problem, found, radius)
        if all(len(choice) == 1 for choice in levels.widths):
            break
        chosen = choose(levels)
        gained = 0.0
        if chosen is not None:
            widths = _repaired(problem, levels, chosen)
            gained = loss - problem.loss(widths)
            if gained > 0:
                found, loss = widths, loss - gained
        if gained <= _WORTHWHILE * abs(loss):
            radius /= 4
    return found


def _repaired(problem: Problem, levels: Levels, chosen: list[int]) -> dict[Dim, int]:
    widths = {group.dim: int(of[level]) for group, of, level in zip(problem.groups, levels.widths, chosen, strict=True)}
    greedy.descend(problem, widths)
    give_back(problem, widths)
    return widths


def levels_around(problem: Problem, widths: dict[Dim, int], radius: float) -> Levels:
    """The levels within a share of each group's size from its width, and what they cost while all others stay."""
    now = [widths[group.dim] for group in problem.groups]
    costs = running(problem, now)
    choices = [
        _choices(problem.bounds[group.dim], group.size, width, radius)
        for group, width in zip(problem.groups, now, strict=True)
    ]
    shares = [1 - choice / width for choice, width in zip(choices, now, strict=True)]
    return Levels(
        widths=choices,
        losses=[
            losses[group.size - choice]
            for group, losses, choice in zip(problem.groups, problem.losses, choices, strict=True)
        ],
        costs={
            name: [-cost.saving(place, share) for place, share in enumerate(shares)] for name, cost in costs.items()
        },
        room={name: float(limit - problem.cost(name, widths)) for name, limit in problem.limits.items()},
    )


def _choices(bound: Bound, size: int, width: int, radius: float) -> Array:
    """Widths that a bound allows, at most so far away, evenly spread where they are too many."""
    allowed = np.append(np.arange(bound.least, size, bound.step), size)
    near = allowed[np.abs(allowed - width) <= radius * size]
    if len(near) > MOST_LEVELS:
        near = near[np.linspace(0, len(near) - 1, MOST_LEVELS).round().astype(int)]
    return np.union1d(near, [width])
