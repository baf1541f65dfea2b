"""What the loss of entries does to the outputs of the network, measured: so that groups can be compared.

A score tells how wrong a layer becomes. How much of that reaches the outputs differs by orders of magnitude between
layers, and no weight tells it. So half of each group is taken away, one group at a time, the layers that read it are
refitted in closed form, and the network is run from there on: a layer-wise sensitivity (Li et al., Pruning Filters for
Efficient ConvNets, ICLR 2017) in units that add up. No layer is written; only weights are, for one run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from graphprune.analysis import Analysis
from graphprune.calibrate import Calibration, Gram
from graphprune.criteria import Part
from graphprune.dialects import tools_of
from graphprune.dialects.tools import Staged, finished
from graphprune.dims import Dim
from graphprune.layers import Layer
from graphprune.program import Array
from graphprune.workers import Each

# Samples are precious where each costs a run of the network for every group: no more cases than this, and none once
# there are so many along the first axes of the outputs.
_MOST_CASES = 4
_ENOUGH = 256
_RIDGE = 1e-3


def by_effect(
    analysis: Analysis, scores: Mapping[Dim, Array], parts: Mapping[Dim, Sequence[Part]], calibration: Calibration
) -> dict[Dim, Array]:
    """The scores of each group times a factor, so that those of its less important half add up to the relative mean
    squared error of the outputs without that half.

    Groups whose readers have no weights of their own get the median factor of the others.
    """
    removed = {dim: np.argsort(score, kind="stable")[: max(1, len(score) // 2)] for dim, score in scores.items()}
    with tools_of(analysis.program.native).workers(analysis.program) as each:
        measured = _Measuring(analysis, parts, calibration).run(removed, each)
    factors = {
        dim: error / total
        for dim, error in measured.items()
        if (total := float(scores[dim][removed[dim]].sum())) > 0 and np.isfinite(error)
    }
    usual = float(np.median(list(factors.values()))) if factors else 1.0
    return {dim: score * factors.get(dim, usual) for dim, score in scores.items()}


class _Measuring:
    """The network, stopped at every layer that reads a group; forks of it go on to the end with other weights."""

    def __init__(self, analysis: Analysis, parts: Mapping[Dim, Sequence[Part]], calibration: Calibration):
        self.parts = parts
        order = {node: place for place, node in enumerate(analysis.program.main.nodes)}
        self.readers: list[Layer] = sorted(
            {part.layer for each in parts.values() for part in each}, key=lambda layer: order[layer.node]
        )
        tools = tools_of(analysis.program.native)
        self.staged: Staged = tools.staged(analysis.program, [layer.node for layer in self.readers])
        self.states: list[Any] = []
        self.expected: list[list[Array]] = []
        for case in list(calibration.cases)[:_MOST_CASES]:
            if sum(max((len(each) for each in outputs if each.ndim), default=1) for outputs in self.expected) < _ENOUGH:
                self.states.append(self.staged.begin(case))
                self.expected.append(finished(self.staged, self.staged.fork(self.states[-1])))

    def run(self, removed: Mapping[Dim, Array], each: Each) -> dict[Dim, float]:
        """For every group that can be measured: the error of the outputs without these entries."""
        return dict(each(lambda one: (one[0], self._without(one[0], removed[one[0]], one[1])), self._starts(removed)))

    def _starts(self, removed: Mapping[Dim, Array]) -> Iterator[tuple[Dim, list[Any]]]:
        """Every group that can be measured, and the states in front of the first layer that reads it."""
        begun: set[Dim] = set()
        for layer in self.readers:
            for state in self.states:
                self.staged.step(state)
            first = [dim for dim in self.parts if dim not in begun and any(p.layer is layer for p in self.parts[dim])]
            begun.update(first)
            for dim in first:
                if dim in removed and all(part.layer.stored is not None for part in self.parts[dim]):
                    yield dim, [self.staged.fork(state) for state in self.states]

    def _without(self, dim: Dim, gone: Array, states: Sequence[Any]) -> float:
        stored = [(part.layer.stored, part.layer.weights(refitted(part, gone))) for part in self.parts[dim]]
        staged = self.staged.other({home: weights for home, weights in stored if home is not None})
        errors = []
        for state, expected in zip(states, self.expected, strict=True):
            for a, b in zip(expected, finished(staged, state), strict=True):
                if a.dtype.kind == "f" and a.shape == b.shape and a.size:
                    spread = float(np.var(a, dtype=np.float64))
                    errors.append(float(np.square(a - b, dtype=np.float64).mean()) / max(spread, 1e-30))
        return float(np.mean(errors)) if errors else float("nan")


def refitted(part: Part, gone: Array) -> Array:
    """The matrices of a layer without some entries of a group: zero there, and where the Gram matrix of its inputs is
    known, refitted by least squares everywhere else. ``[groups, outputs, inputs]``."""
    found = np.where(np.isin(part.labels, gone)[:, None, :], 0.0, part.matrices)
    if not isinstance(part.statistic, Gram):
        return found
    for group, (matrix, gram, labels) in enumerate(zip(part.matrices, part.statistic.matrix, part.labels, strict=True)):
        kept = np.flatnonzero(~np.isin(labels, gone))
        if len(kept) in {0, len(labels)}:
            continue
        left = gram[np.ix_(kept, kept)] + _RIDGE * np.diag(gram).mean() * np.eye(len(kept))
        found[group][:, kept] = np.linalg.solve(left, gram[kept] @ matrix.T).T
    return found
