"""A knapsack by dynamic programming: of each group one width, of all the least loss that fits.

As HALP does for latency (Shen et al., Structural Pruning via Latency-Saliency Knapsack, NeurIPS 2022), with exact costs
in place of measured ones; a group loses its least important entries first. Costs are counted in up to 4,096 cells:
whole numbers that fit are exact, others are rounded to the nearest cell. A knapsack has one capacity. Of several
budgets those that bind are added up, each in units of its span, and what that misses is repaired, as
:mod:`graphprune.allocate.levels` says; ``milp`` keeps them apart. The time is groups * levels * cells a round. Scores
are added up: see :mod:`graphprune.allocate.greedy`.
"""

from __future__ import annotations

import numpy as np

from graphprune.allocate.levels import Levels, best
from graphprune.allocate.problem import Problem
from graphprune.dims import Dim
from graphprune.program import Array

CELLS = 1 << 12

# A budget binds where what may be added is less than this share of what the groups could add.
_BINDING = 1e-3


def allocate(problem: Problem) -> dict[Dim, int]:
    """The best widths by dynamic programming, repaired."""
    return best(problem, choose)


def choose(levels: Levels) -> list[int] | None:
    """The level of each group; exact for one budget of whole numbers that fit into the cells."""
    costs, cells = _in_cells(*_one_budget(levels))
    least = np.zeros(cells)  # by the cells that may be used: the least loss of the groups so far
    taken = []
    for used, losses in zip(costs, levels.losses, strict=True):
        better = np.full(cells, np.inf)
        level_of = np.zeros(cells, np.int8)
        for level, (cost, loss) in enumerate(zip(used.tolist(), losses.tolist(), strict=True)):
            if cost < cells:
                candidate = least[: cells - cost] + loss
                wins = candidate < better[cost:]
                np.copyto(better[cost:], candidate, where=wins)
                np.copyto(level_of[cost:], level, where=wins)
        least = better
        taken.append(level_of)
    return _read_back(taken, costs, cells - 1)


def _read_back(taken: list[Array], costs: list[Array], cell: int) -> list[int]:
    found = []
    for level_of, used in zip(reversed(taken), reversed(costs), strict=True):
        level = int(level_of[cell])
        cell -= int(used[level])
        found.append(level)
    return found[::-1]


def _one_budget(levels: Levels) -> tuple[list[Array], float]:
    """The costs of the budget that binds and its room; the sum over those that do, as shares of their spans."""
    spans = {name: sum(float(np.ptp(cost)) for cost in costs) or 1.0 for name, costs in levels.costs.items()}
    tightest = min(levels.room[name] / spans[name] for name in spans)
    binding = [name for name in spans if levels.room[name] / spans[name] <= max(tightest, _BINDING)]
    if len(binding) == 1:
        return levels.costs[binding[0]], levels.room[binding[0]]
    added = [
        sum((cost / spans[name] for name, cost in zip(binding, of, strict=True)), np.zeros(1))
        for of in zip(*(levels.costs[name] for name in binding), strict=True)
    ]
    return added, sum(levels.room[name] / spans[name] for name in binding)


def _in_cells(costs: list[Array], room: float) -> tuple[list[Array], int]:
    """What each level costs above the cheapest of its group, in cells, and the number of cells: from 0 to the room."""
    room += sum(float(-cost.min()) for cost in costs)
    above = [cost - cost.min() for cost in costs]
    unit = _common(above)
    if unit is None or room / unit >= CELLS:
        unit = max(room, 1e-300) / (CELLS - 1)
    return [np.rint(cost / unit).astype(np.int64) for cost in above], int(room / unit + 1e-6) + 1


def _common(costs: list[Array]) -> float | None:
    """The largest whole number that divides all costs; None where they are not whole."""
    numbers = np.concatenate(costs)
    whole = np.rint(numbers)
    if np.abs(numbers - whole).max() > 1e-6 * max(1.0, float(np.abs(numbers).max())):
        return None
    return float(max(1, int(np.gcd.reduce(whole.astype(np.int64)))))
