"""Groups of the same structure together (Fang et al., Isomorphic Pruning for Vision Models, ECCV 2024).

Scores of heads and of hidden channels, or of depthwise and of dense convolutions, follow different distributions, and
are not compared with each other.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from graphprune.allocate.nested import cut
from graphprune.allocate.problem import Problem
from graphprune.analysis import Analysis, Group
from graphprune.dims import Dim


def allocate(problem: Problem) -> dict[Dim, int]:
    """A class for each structure."""
    return cut(problem, structures(problem.analysis, problem.groups))


def structures(analysis: Analysis, groups: Sequence[Group]) -> list[Hashable]:
    """The structure of each group: its kind, and of all its members the role, the axis, whether the group is all or a
    part of it, and the rank of the tensor."""
    ranks = {stored.name: len(stored.shape) for stored in analysis.program.stored}
    return [
        (
            group.kind,
            tuple(sorted((m.role, m.axis, bool(m.path), ranks.get(m.tensor, 0)) for m in group.members)),
        )
        for group in groups
    ]
