"""All groups together: entries with the lowest normalised scores go first, wherever they are."""

from __future__ import annotations

from graphprune.allocate.nested import cut
from graphprune.allocate.problem import Problem
from graphprune.dims import Dim


def allocate(problem: Problem) -> dict[Dim, int]:
    """One class for all groups."""
    return cut(problem, [0] * len(problem.groups))
