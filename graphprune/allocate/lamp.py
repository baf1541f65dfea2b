"""One ranking of LAMP scores: the ratios of layers follow from what each entry is of all that is left in its group.

Lee et al., Layer-adaptive Sparsity for the Magnitude-based Pruning, ICLR 2021. The same as the allocator ``global``
with scores normalised by ``lamp``, whatever normalisation they come with.
"""

from __future__ import annotations

from dataclasses import replace

from graphprune.allocate.nested import cut
from graphprune.allocate.problem import Problem
from graphprune.criteria.transfer import lamp
from graphprune.dims import Dim


def allocate(problem: Problem) -> dict[Dim, int]:
    """One class for all groups, by LAMP scores."""
    scores = {dim: lamp(score) for dim, score in problem.scores.items()}
    return cut(replace(problem, scores=scores), [0] * len(problem.groups))
