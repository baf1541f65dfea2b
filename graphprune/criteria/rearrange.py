"""Which entries go, when how many is settled: swaps that lower what the entries lose together.

The second step of Kwon et al., A Fast Post-Training Pruning Framework for Transformers, NeurIPS 2022. The first takes
each entry of a group for itself, with the diagonal of the Fisher information F of the masks; entries that lower and
raise the loss on the same samples are worth less, or more, together. With ``s`` 1 for what goes and 0 for what stays,
``s' F s`` with the whole block of a group says so, and pairs are swapped for as long as it falls. The number of
entries stays, and so does every budget.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from graphprune.analysis import Analysis, Group
from graphprune.calibrate import Calibration
from graphprune.criteria import GradientCriterion
from graphprune.criteria.transfer import Place, gradient_sums
from graphprune.dims import Dim
from graphprune.program import Array


def rearranged(
    analysis: Analysis,
    groups: Sequence[Group],
    keep: Mapping[Dim, Array],
    criterion: GradientCriterion,
    calibration: Calibration | None,
    seed: int,
) -> dict[Dim, Array]:
    """As many entries of each group (ascending, as in ``keep``), after swaps. One pass through the data."""
    cut = [group for group in groups if 0 < len(keep.get(group.dim, ())) < group.size]
    return {
        **keep,
        **{dim: swapped(keep[dim], block) for dim, block in blocks(analysis, cut, criterion, calibration, seed)},
    }


def blocks(
    analysis: Analysis,
    groups: Sequence[Group],
    criterion: GradientCriterion,
    calibration: Calibration | None,
    seed: int,
) -> list[tuple[Dim, Array]]:
    """The block F ``[size, size]`` of each group: the mean over samples of ``d d'`` for the derivatives d by the masks
    of its entries, averaged over the weights that read it. Its diagonal is the score of ``kwon``."""
    by_place: dict[Place, list[Array]] = {}
    for sums in gradient_sums(analysis, groups, criterion, calibration, seed) if groups else ():
        for place, each in sums.items():
            by_place.setdefault(place, []).append(each)
    found: dict[Dim, list[Array]] = {}
    for (_, _, dim), samples in by_place.items():
        derivatives = np.stack(samples)
        found.setdefault(dim, []).append(derivatives.T @ derivatives / len(derivatives))
    return [(dim, np.mean(each, axis=0)) for dim, each in found.items()]


def swapped(keep: Array, block: Array) -> Array:
    """What is kept (ascending) after swapping what stays for what goes, the pair first that lowers ``s' F s`` most, at
    most as many times as there are entries that go.

    >>> swapped(np.array([2]), np.array([[1.0, 1, -1], [1, 1, -1], [-1, -1, 1.5]])).tolist()
    [0]
    """
    gone = np.ones(len(block), bool)
    gone[keep] = False
    diagonal = np.diagonal(block)
    least = 1e-12 * float(np.abs(diagonal).sum())  # what rounding makes of nothing
    for _ in range(int(gone.sum())):
        with_gone = block @ gone
        out, back = np.flatnonzero(~gone), np.flatnonzero(gone)
        falls = (2 * with_gone[back] - diagonal[back])[:, None] - (2 * with_gone[out] + diagonal[out])
        falls += 2 * block[np.ix_(back, out)]
        first, second = np.unravel_index(np.argmax(falls), falls.shape)
        if falls[first, second] <= least:
            break
        gone[back[first]], gone[out[second]] = False, True
    return np.flatnonzero(~gone)
