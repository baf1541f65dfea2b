"""Weights that stay take over, layer by layer, what the removed inputs did, as the layer saw them in the dense network
(Wang et al., Structurally Prune Anything, 2024: OBSPA; Hassibi & Stork, NIPS 1992).

Unlike :mod:`graphprune.recover.least_squares` it never runs the pruned network: inputs are those of the dense one, and
layers do not make up for what is wrong before them. It writes no biases; ``batch_norm`` after it, on data that is
not noise, is the paper's way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from graphprune.calibrate import Gram, collect
from graphprune.criteria.obs import damped
from graphprune.errors import GraphPruneError
from graphprune.layers import Layer
from graphprune.program import Array
from graphprune.recover.pair import HELD_OUT, Outcome, Pair, Recovered, held_cases


@dataclass(frozen=True)
class OBSPA:
    """``W_K' = W_K - W_P [(H^-1)_PP]^-1 (H^-1)_PK`` for removed inputs P and kept ones K, ``H = E[x x']`` of the dense
    network; that is ``W H_:K (H_KK)^-1``, the minimum of ``E|W' x_K - W x|^2``.

    dampening: added to the diagonal of H, as a share of its mean
    held_out: the share of cases that an update is judged on
    """

    name: ClassVar[str] = "obspa"

    dampening: float = 1e-3
    held_out: float = HELD_OUT

    def run(self, pair: Pair) -> Recovered:
        """Raises GraphPruneError GP402, GP701 and GP703."""
        cut = [(dense, small) for dense, small in pair.layers if dense.shape[2] != small.shape[2]]
        cases = list(pair.calibration.cases)
        last = held_cases(len(cases), self.held_out)
        if not cases:
            raise GraphPruneError("GP701", "there is not one batch of calibration data")
        layers = [dense for dense, _ in cut]
        fit = _grams(pair, layers, cases[: len(cases) - last])
        judge = _grams(pair, layers, cases[len(cases) - last :]) if last else fit
        arrays: dict[str, Array] = {}
        outcomes = []
        for dense, small in cut:
            if small.stored is None:
                outcomes.append(Outcome(small.name, np.nan, np.nan, False, "GP705 it has no weight of its own"))
                continue
            kept = pair.kept(dense, dense.inputs)
            weight = _weight(pair, dense)
            new, old = updated(weight, fit[dense].matrix, kept, self.dampening), weight[:, :, kept]
            second = judge[dense].matrix
            before, after = (error(weight, each, second, kept) for each in (old, new))
            applied = after < before
            note = "" if applied else "GP705 its error on held-out data would not be lower"
            outcomes.append(Outcome(small.name, before, after, applied, note))
            if applied:
                stored = small.stored
                arrays[stored.name] = small.weights(new).astype(stored.read().dtype).reshape(stored.shape)
        return Recovered(arrays, tuple(outcomes))


def _grams(pair: Pair, layers: Sequence[Layer], cases: Sequence[Any]) -> dict[Layer, Gram]:
    """``sum x x'`` of what the dense layers read, of the groups that are kept."""
    found = collect(pair.dense, layers, cases, lambda _: Gram(), rows=pair.calibration.rows, seed=pair.seed)
    grams = {}
    for layer, gram in found.items():
        assert isinstance(gram, Gram)
        gram.matrix = gram.matrix[pair.kept(layer, layer.groups)]
        grams[layer] = gram
    return grams


def _weight(pair: Pair, dense: Layer) -> Array:
    """The weight of a dense layer without the groups and outputs that are gone, ``[groups, outputs, inputs]``."""
    weight = dense.matrices(np.asarray(pair.dense.program.dialect.constant(dense.weight))).astype(np.float64)
    kept: Array = weight[np.ix_(pair.kept(dense, dense.groups), pair.kept(dense, dense.outputs))]
    return kept


def updated(weight: Array, second: Array, kept: Array, dampening: float) -> Array:
    """``W H_:K (H_KK)^-1`` for every group: ``[groups, outputs, kept]`` from ``[groups, outputs, inputs]``.

    >>> updated(np.array([[[1.0, 1.0]]]), np.array([[[1.0, 1.0], [1.0, 1.0]]]), np.array([0]), 0.0).round(6).tolist()
    [[[2.0]]]
    """
    found = []
    for matrix, each in zip(weight, second, strict=True):
        moment = damped(each, dampening)
        found.append(np.linalg.solve(moment[np.ix_(kept, kept)], moment[kept] @ matrix.T).T)
    return np.stack(found)


def error(weight: Array, new: Array, second: Array, kept: Array) -> float:
    """``sum |W' x_K - W x|^2`` as a share of ``sum |W x|^2``.

    >>> error(np.array([[[1.0, 1.0]]]), np.array([[[1.0]]]), np.eye(2)[None], np.array([0]))
    0.5
    """
    gap = -weight.copy()
    gap[:, :, kept] += new
    lost, whole = (float(np.einsum("goi,gij,goj->", each, second, each, optimize=True)) for each in (gap, weight))
    return max(0.0, lost) / max(whole, 1e-30)
