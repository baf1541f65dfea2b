"""One factor for each channel that stays, fitted to the dense network: masks that are not 0 and 1 but the best numbers,
folded into the weights (Kwon et al., A Fast Post-Training Pruning Framework for Transformers, NeurIPS 2022).

Where :mod:`graphprune.recover.least_squares` fits every weight of a layer, this fits a number for each of its input
channels (the taps of a kernel share one), so that zeros stay where they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphprune.layers import Layer
from graphprune.program import Array
from graphprune.recover.least_squares import Sums, Walk, free
from graphprune.recover.pair import HELD_OUT, Pair, Recovered


@dataclass(frozen=True)
class MaskTuning:
    """``min |X diag(m) W + c - T|^2 + ridge |m - 1|^2`` for every layer whose inputs changed, T from the dense network.

    ridge: as a share of the mean of what stands on the diagonal; this, ten and a hundred times as much are tried
    held_out: the share of cases that an update is judged on
    """

    name: ClassVar[str] = "mask_tuning"

    ridge: float = 1e-4
    held_out: float = HELD_OUT

    def run(self, pair: Pair) -> Recovered:
        """Tune all layers. Raises GraphPruneError as `least_squares` does."""
        with pair.workers() as each:
            walk = _Tuning(pair, self.ridge, self.held_out, each)
            outcomes = [outcome for place in range(len(pair.layers)) if (outcome := walk.layer(place)) is not None]
        return Recovered(walk.arrays, tuple(outcomes))


class _Tuning(Walk):
    """A walk that scales weights."""

    def minimum(self, small: Layer, sums: Sums, old: Array, ridge: float) -> Array:
        return np.stack(
            [
                scaled(gram, cross, weight, ridge, small.taps, free(self.pair.follow(small)))
                for gram, cross, weight in zip(sums.gram, sums.cross, old, strict=True)
            ]
        )


def scaled(gram: Array, cross: Array, old: Array, ridge: float, taps: int, loose: bool) -> Array:
    """Weights ``[inputs + 1, outputs]`` times the best factor of each channel; the last row is what is added, zero
    unless it is ``loose``.

    gram, cross: ``X'X`` and ``X'T`` with a column of ones behind the inputs; taps: inputs of a channel, side by side

    >>> x, target, old = np.eye(2, 3) + np.array([0, 0, 1]), np.array([[4.0], [3.0]]), np.array([[2.0], [2.0], [0.0]])
    >>> scaled(x.T @ x, x.T @ target, old, ridge=0.0, taps=1, loose=False).round(6).tolist()
    [[4.0], [3.0], [0.0]]
    """
    weight, count = old[:-1], gram[-1, -1]
    inner, outer = gram[:-1, :-1], cross[:-1]
    if loose:  # what is added takes the means: the rest is fitted without them
        inner = inner - np.outer(gram[-1, :-1], gram[-1, :-1]) / count
        outer = outer - np.outer(gram[-1, :-1], cross[-1]) / count
    channels = len(weight) // taps
    # Half the slope by m_e: the sum over inputs i of e, j of f, and outputs o, of w_io G_ij w_jo m_f - w_io C_io.
    both = (inner * (weight @ weight.T)).reshape(channels, taps, channels, taps).sum(axis=(1, 3))
    right = (outer * weight).sum(axis=1).reshape(channels, taps).sum(axis=1)
    pull = ridge * np.diag(both).mean() + 1e-12
    factors = np.linalg.solve(both + pull * np.eye(channels), right + pull)
    new = np.zeros_like(old)
    new[:-1] = weight * np.repeat(factors, taps)[:, None]
    if loose:
        new[-1] = (cross[-1] - gram[-1, :-1] @ new[:-1]) / count
    return new
