"""BatchNorm statistics of the network as it is, taken anew from calibration data (as in EagleEye, Li et al., 2020).

Norms are taken in running order, each on the activations that those before it already made with their new statistics.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphprune.dialects import tools_of
from graphprune.errors import GraphPruneError
from graphprune.program import Array, Stored, Use
from graphprune.recover.pair import Outcome, Pair, Recovered


@dataclass(frozen=True)
class BatchNormRecalibration:
    """Mean and variance of every channel over all samples and positions of the calibration data."""

    name: ClassVar[str] = "batch_norm"

    def run(self, pair: Pair) -> Recovered:
        """Recalibrate every BatchNorm of the main graph. Raises GraphPruneError GP402 and GP701."""
        program = pair.small.program
        order = {node: place for place, node in enumerate(program.main.nodes)}
        norms = sorted((n for n in pair.small.trace.batch_norms if n.node in order), key=lambda n: order[n.node])
        if not norms:
            return Recovered({}, ())
        staged = tools_of(program.native).staged(program, [norm.node for norm in norms])
        states = [staged.begin(case) for case in pair.calibration.cases]
        if not states:
            raise GraphPruneError("GP701", "there is not one batch of calibration data")
        arrays: dict[str, Array] = {}
        outcomes = []
        for norm in norms:
            for state in states:
                staged.step(state)
            data = norm.data.node.inputs[norm.data.index]
            assert data is not None
            mean, variance = _moments([staged.read(state, data) for state in states])
            for use, array in ((norm.mean, mean), (norm.variance, variance)):
                stored = _stored(use)
                if stored is not None:
                    arrays[stored.name] = array.astype(stored.read().dtype)
                    staged.write(stored, arrays[stored.name])
            outcomes.append(Outcome(norm.node.place, np.nan, np.nan, _stored(norm.mean) is not None))
        return Recovered(arrays, tuple(outcomes))


def _moments(batches: list[Array]) -> tuple[Array, Array]:
    """Mean and variance along axis 1, in two passes over float64 sums."""
    others = tuple(k for k in range(batches[0].ndim) if k != 1)
    count = sum(batch.size // batch.shape[1] for batch in batches)
    mean = sum(batch.sum(axis=others, dtype=np.float64) for batch in batches) / count
    shape = [-1 if k == 1 else 1 for k in range(batches[0].ndim)]
    centred = (np.square(batch - mean.reshape(shape), dtype=np.float64) for batch in batches)
    variance = sum(each.sum(axis=others) for each in centred) / count
    return mean, variance


def _stored(use: Use) -> Stored | None:
    value = use.node.inputs[use.index]
    return None if value is None else value.stored
