"""A mixed-integer linear program: of each group one width, of all the least loss, a constraint for each budget.

Solved by HiGHS (Huangfu and Hall, Parallelizing the dual revised simplex method, 2018) through SciPy, which only this
module needs: the extra ``solve``. A group loses its least important entries first, so a variable stands for a width and
not for an entry. How the products of neighbouring widths are treated: :mod:`graphprune.allocate.levels`.

The linear program without integers is solved first. The reduced cost of a level is the least that choosing it adds to
that bound, so no level with more than a solution lies above the bound can make it better: nearly all are left out
(Dantzig, Fulkerson and Johnson, Solution of a large-scale traveling-salesman problem, 1954). The search is limited in
nodes and not in seconds, so that the same question has the same answer on every machine. Scores are added up: see
:mod:`graphprune.allocate.greedy`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphprune.allocate.levels import Levels, best
from graphprune.allocate.problem import Problem
from graphprune.allocate.silence import silence
from graphprune.dims import Dim
from graphprune.errors import GraphPruneError
from graphprune.program import Array

MOST_NODES = 50

# A solution that is above the bound by at most this share of it for each group is good enough: widths are whole, so the
# bound is off by about what one group loses.
_GAP = 1e-6

# Levels tried first: those whose reduced cost is at most this share of the bound.
_NEAR = 1e-4


def allocate(problem: Problem) -> dict[Dim, int]:
    """The best widths by HiGHS, repaired. Raises GraphPruneError GP108 without SciPy."""
    try:
        import scipy.optimize  # noqa: F401
    except ImportError as error:
        raise GraphPruneError("GP108", "milp needs SciPy", remedy="pip install 'graphprune[solve]'") from error
    return best(problem, choose)


def choose(levels: Levels) -> list[int] | None:
    """The level of each group, or None where HiGHS found none within its limit."""
    program = _Program(levels)
    relaxed = program.relaxed()
    if relaxed is None:
        return None
    bound, reduced = relaxed
    slack = max(_NEAR * abs(bound), 1e-9)
    while True:
        near = reduced <= slack
        found = program.solved(near)
        if near.all() or (found is not None and found[0] <= bound + max(slack, program.gap * abs(bound))):
            return None if found is None else program.levels(found[1])
        slack = 4 * slack if found is None else max(slack, found[0] - bound) * (1 + 1e-6)


class _Program:
    """A variable for each level of each group, all groups in a row; losses and costs scaled to at most 1."""

    def __init__(self, levels: Levels):
        counts = [len(losses) for losses in levels.losses]
        self.groups = np.repeat(np.arange(len(counts)), counts)
        self.starts = np.cumsum([0, *counts[:-1]])
        self.gap = _GAP * len(counts)
        losses = np.concatenate(levels.losses)
        self.losses = losses / (float(np.abs(losses).max()) or 1.0)
        costs = np.stack([np.concatenate(levels.costs[name]) for name in levels.room])
        scales = np.maximum(np.abs(costs).max(axis=1), 1e-300)
        self.costs: Array = costs / scales[:, None]
        self.room: Array = np.array(list(levels.room.values())) / scales

    def _one_each(self, groups: Array) -> Any:
        from scipy.sparse import csr_array

        return csr_array((np.ones(len(groups)), (groups, np.arange(len(groups)))))

    def relaxed(self) -> tuple[float, Array] | None:
        """The least loss with parts of levels, and the reduced cost of every level."""
        from scipy.optimize import linprog

        ones = np.ones(len(self.starts))
        found = linprog(self.losses, self.costs, self.room, self._one_each(self.groups), ones, method="highs")
        if found.status != 0:
            return None
        return found.fun, self.losses - found.eqlin.marginals[self.groups] - found.ineqlin.marginals @ self.costs

    def solved(self, near: Array) -> tuple[float, Array] | None:
        """The least loss among some levels, and how much of each is taken."""
        from scipy.optimize import Bounds, LinearConstraint, milp

        if len(np.unique(self.groups[near])) < len(self.starts):
            return None
        with silence():  # HiGHS 1.12 prints a line of its debugging, whatever it is told
            result = milp(
                self.losses[near],
                integrality=np.ones(int(near.sum())),
                bounds=Bounds(0, 1),
                constraints=[
                    LinearConstraint(self._one_each(self.groups[near]), 1, 1),
                    LinearConstraint(self.costs[:, near], -np.inf, self.room),
                ],
                # Presolve takes longer than the rest, and the program is as small as it can be.
                options={"mip_rel_gap": self.gap, "node_limit": MOST_NODES, "presolve": False},
            )
        if result.x is None:
            return None
        taken = np.zeros(len(near))
        taken[near] = result.x
        return result.fun, taken

    def levels(self, taken: Array) -> list[int]:
        """The level of each group of which most is taken."""
        return [int(np.argmax(part)) for part in np.split(taken, self.starts[1:])]
