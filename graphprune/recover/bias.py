"""What removed inputs added on average goes into the bias (An et al., FLAP, AAAI 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphprune.calibrate import Moments, collect
from graphprune.program import Array
from graphprune.recover.pair import Outcome, Pair, Recovered

_NONE = "GP705 it has no bias that could be written (give the dense layer one of zeros first)"


@dataclass(frozen=True)
class BiasCompensation:
    """``b' = b + W_removed mean(x_removed)`` for every layer that lost inputs and has a bias, or a BatchNorm behind it.

    The mean of every output stays what it was in the dense network, as far as this layer decides it.
    """

    name: ClassVar[str] = "bias"

    def run(self, pair: Pair) -> Recovered:
        """Raises GraphPruneError GP402, GP701 and GP703."""
        cut = [(dense, small) for dense, small in pair.layers if dense.shape[2] != small.shape[2]]
        calibration = pair.calibration
        found = collect(
            pair.dense, [dense for dense, _ in cut], calibration.cases, lambda _: Moments(), rows=calibration.rows,
            seed=pair.seed,
        )  # fmt: skip
        arrays: dict[str, Array] = {}
        outcomes = []
        for dense, small in cut:
            follow = pair.follow(small)
            stored = follow.shift or follow.mean
            if stored is None:
                outcomes.append(Outcome(small.name, np.nan, np.nan, False, _NONE))
                continue
            moments = found[dense]
            assert isinstance(moments, Moments)
            mean = moments.mean.copy()
            mean[:, pair.kept(dense, dense.inputs)] = 0
            weight = dense.matrices(np.asarray(pair.dense.program.dialect.constant(dense.weight))).astype(np.float64)
            added = np.einsum("gor,gr->go", weight, mean)
            added = added[np.ix_(pair.kept(dense, dense.groups), pair.kept(dense, dense.outputs))].reshape(-1)
            old = arrays.get(stored.name, stored.read())
            sign = 1 if follow.shift is not None else -1
            arrays[stored.name] = (old + sign * added.reshape(old.shape)).astype(old.dtype)
            outcomes.append(Outcome(small.name, np.nan, np.nan, True))
        return Recovered(arrays, tuple(outcomes))
