"""Every group alone: all lose the same share of their entries."""

from __future__ import annotations

from graphprune.allocate.nested import cut
from graphprune.allocate.problem import Problem
from graphprune.dims import Dim


def allocate(problem: Problem) -> dict[Dim, int]:
    """A class for each group."""
    return cut(problem, range(len(problem.groups)))
