"""Erdős–Rényi–Kernel ratios: small layers stay denser than large ones.

The density of a layer is proportional to ``(n_in + n_out + kernel) / (n_in * n_out * kernel)``, at most 1 (Mocanu et
al., Scalable training of artificial neural networks with adaptive sparse connectivity, Nature Communications 2018; with
kernels: Evci et al., Rigging the Lottery, ICML 2020). A group takes the mean over the weights that make it, or, where
none does, over those that read it. Scores decide inside a group only.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from graphprune.allocate.nested import cut
from graphprune.allocate.problem import Problem
from graphprune.analysis import Analysis
from graphprune.dims import Dim, leaves


def allocate(problem: Problem) -> dict[Dim, int]:
    """Densities of at most ``scale * ratio`` in every group, with the largest scale that meets the budgets."""
    found = ratios(problem.analysis)
    scores = {}
    for group, order in zip(problem.groups, problem.order, strict=True):
        # An entry goes when the scale falls below the one at which the density still had room for it.
        scales = np.arange(group.size - 1, -1, -1) / group.size / found.get(group.dim, 1.0)
        scores[group.dim] = np.empty(group.size)
        scores[group.dim][order] = -scales
    return cut(replace(problem, scores=scores), [0] * len(problem.groups))


def ratios(analysis: Analysis) -> dict[Dim, float]:
    """What the density of each dimension is proportional to; none for one without a weight of known shape."""
    made: dict[Dim, list[float]] = {}
    read: dict[Dim, list[float]] = {}
    for contraction in analysis.contractions:
        shape = [axis.size for axis in contraction.weight_axes if isinstance(axis.size, int)]
        if contraction.weight is None or len(shape) < len(contraction.weight_axes):
            continue
        ratio = sum(shape) / max(1, math.prod(shape))
        out = {leaf for axis in (*contraction.out, *contraction.stationary) for leaf in leaves(axis)}
        for dim in dict.fromkeys(leaf for axis in contraction.weight_axes for leaf in leaves(axis)):
            (made if dim in out else read).setdefault(dim, []).append(ratio)
    return {dim: float(np.mean(made.get(dim) or read[dim])) for dim in {**read, **made}}
