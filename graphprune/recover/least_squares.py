"""Weights that stay take over what the removed ones did: each layer is fitted to what it computed in the dense network.

Layers are taken in running order, and each is fitted on the activations of the network as it is by then, so that it
also repairs what the layers before it still get wrong; in front of a residual connection the target is what the *sum*
was, which repairs the other branch, too. In closed form, with the Gram matrix of the inputs: the reconstruction of
ThiNet (Luo et al., ICCV 2017) and of channel pruning (He et al., ICCV 2017), in sequence as in OBC (Frantar & Alistarh,
NeurIPS 2022).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from graphprune.calibrate import draw, product
from graphprune.dialects import tools_of
from graphprune.dialects.tools import Staged
from graphprune.errors import GraphPruneError
from graphprune.layers import Layer
from graphprune.program import Array
from graphprune.recover.pair import Follow, Outcome, Pair, Recovered

# Differences of activations below this share of their size are rounding: the layer sees what it saw before.
_ROUNDING = 1e-5


@dataclass(frozen=True)
class LeastSquares:
    """``min |X W' + c - T|^2 + ridge |W' - W|^2`` for every layer whose inputs changed, T from the dense network.

    ridge: as a share of the mean of the diagonal of ``X'X``; pulls towards the weights that were cut
    held_out: the share of cases that an update is judged on and not computed from
    """

    name: ClassVar[str] = "least_squares"

    ridge: float = 1e-4
    held_out: float = 0.2

    def run(self, pair: Pair) -> Recovered:
        """Fit all layers. Raises GraphPruneError GP402 where a model cannot be run, GP701 where there is no data, and
        GP703 for activations that are not finite."""
        walk = _Walk(pair, self)
        outcomes = [outcome for place in range(len(pair.layers)) if (outcome := walk.layer(place)) is not None]
        return Recovered(walk.arrays, tuple(outcomes))


@dataclass(eq=False)
class _Sums:
    """``X'X``, ``X'T`` and ``T'T`` with a column of ones behind the inputs of X."""

    gram: Array
    cross: Array
    square: float = 0.0
    count: int = 0

    @classmethod
    def empty(cls, groups: int, inputs: int, outputs: int) -> _Sums:
        return cls(np.zeros((groups, inputs + 1, inputs + 1)), np.zeros((groups, inputs + 1, outputs)))

    def add(self, rows: Array, target: Array) -> None:
        ones = np.ones((*rows.shape[:2], 1), rows.dtype)
        rows = np.concatenate([rows, ones], axis=2)
        self.gram += product(rows, rows)
        self.cross += product(rows, target)
        self.square += float(np.square(target, dtype=np.float64).sum())
        self.count += len(rows)

    def error(self, solution: Array) -> float:
        """The squared error of ``[groups, inputs + 1, outputs]`` as a share of the target's second moment."""
        fit = np.einsum("gro,grs,gso->", solution, self.gram, solution, optimize=True)
        both = np.einsum("gro,gro->", solution, self.cross)
        return float(max(0.0, fit - 2 * both + self.square) / max(self.square, 1e-30))


class _Walk:
    """Both networks, stopped before the same layer, for all cases."""

    def __init__(self, pair: Pair, options: LeastSquares):
        self.pair, self.options = pair, options
        cases = list(pair.calibration.cases)
        if not cases:
            raise GraphPruneError("GP701", "there is not one batch of calibration data")
        self.dense = _staged(pair, 0)
        self.small = _staged(pair, 1)
        self.states = [(self.dense.begin(case), self.small.begin(case)) for case in cases]
        # With a single case there is nothing to hold out but rows of it.
        self.held = max(1, round(len(cases) * options.held_out)) if len(cases) > 1 else 0
        self.arrays: dict[str, Array] = {}

    def layer(self, place: int) -> Outcome | None:
        """Go on to a layer and fit it; None where nothing changed for it."""
        dense, small = self.pair.layers[place]
        for before, after in self.states:
            self.dense.step(before)
            self.small.step(after)
        if small.stored is None:
            return Outcome(small.name, np.nan, np.nan, False, "GP705 it has no weight of its own that could be written")
        follow = self.pair.follow(small)
        fit, judge, changed = self._sums(place, dense, small, follow)
        if not changed:
            return None
        old = self._old(small)
        free = follow.shift is not None or follow.mean is not None
        new = _solved(fit, old, self.options.ridge, free)
        before, after = judge.error(old), judge.error(new)
        if not after < before:
            return Outcome(small.name, before, after, False, "GP705 its error on held-out data would not be lower")
        self._write(small, follow, new)
        return Outcome(small.name, before, after, True)

    def _old(self, small: Layer) -> Array:
        """The weights as they were cut, with nothing added: ``[groups, inputs + 1, outputs]``."""
        assert small.stored is not None
        matrices = small.matrices(small.stored.read()).astype(np.float64)
        zeros = np.zeros((*matrices.shape[:2], 1))
        return np.concatenate([matrices, zeros], axis=2).transpose(0, 2, 1)

    def _sums(self, place: int, dense: Layer, small: Layer, follow: Follow) -> tuple[_Sums, _Sums, bool]:
        groups, outputs, inputs = small.shape
        fit, judge = _Sums.empty(groups, inputs, outputs), _Sums.empty(groups, inputs, outputs)
        changed = dense.shape[2] != small.shape[2]  # without some outputs the others are what they were
        for number, (rows, target, differs) in enumerate(self._rows(place, dense, small, follow)):
            changed |= differs
            if not changed and number == 0:
                return fit, judge, False  # the same inputs for the first case: nothing before it was cut
            if self.held:
                (judge if number >= len(self.states) - self.held else fit).add(rows, target)
            else:
                fit.add(rows[::2], target[::2])
                judge.add(rows[1::2], target[1::2])
        return fit, judge, changed

    def _rows(self, place: int, dense: Layer, small: Layer, follow: Follow) -> Iterator[tuple[Array, Array, bool]]:
        """For every case: the inputs of the pruned layer, what it should compute, and whether anything changed."""
        pair = self.pair
        weight = dense.matrices(np.asarray(pair.dense.program.dialect.constant(dense.weight)))
        kept_groups, kept = pair.kept(dense, dense.groups), pair.kept(dense, dense.outputs)
        weight = weight[np.ix_(kept_groups, kept)].astype(np.float32)
        for number, (before, after) in enumerate(self.states):
            data, was = self.small.read(after, small.activation), self.dense.read(before, dense.activation)
            rows = small.rows(data)
            chosen = draw(len(rows), pair.calibration.rows, (pair.seed, number, place))
            taken, inputs = rows.take(chosen), dense.rows(was).take(chosen)[:, kept_groups]
            if not np.isfinite(taken.sum() + inputs.sum()):
                raise GraphPruneError("GP703", f"batch {number + 1} makes activations that are not finite", small.name)
            target = np.matmul(inputs.transpose(1, 0, 2), weight.transpose(0, 2, 1)).transpose(1, 0, 2)
            target = target + self._correction(dense, small, follow, before, after, chosen)
            yield taken, target, _differs(taken, inputs)

    def _correction(
        self, dense: Layer, small: Layer, follow: Follow, before: Any, after: Any, chosen: Array | None
    ) -> Array | float:
        """What the other branch of a residual connection lacks, as this layer would have to compute it."""
        if follow.beside is None or follow.beside.name not in self.pair.twins:
            return 0.0
        twin = self.pair.twins[follow.beside.name]
        try:
            is_now, was = self.small.read(after, follow.beside), self.dense.read(before, twin)
            lacking = dense.results(was).take(chosen)
            lacking = lacking[:, self.pair.kept(dense, dense.groups)][:, :, self.pair.kept(dense, dense.outputs)]
            lacking = lacking - small.results(is_now).take(chosen)
        except (GraphPruneError, ValueError, IndexError):
            return 0.0  # it is computed later, or of another shape that is broadcast
        if follow.gain is None:
            return lacking
        gain = follow.gain.reshape(1, *lacking.shape[1:])
        usable = np.abs(gain) > 1e-3 * np.abs(gain).max()
        corrected: Array = np.where(usable, lacking / np.where(usable, gain, 1.0), 0.0).astype(np.float32)
        return corrected

    def _write(self, small: Layer, follow: Follow, new: Array) -> None:
        assert small.stored is not None
        self._put(small.stored, small.weights(new[:, :-1].transpose(0, 2, 1)))
        added = new[:, -1].reshape(-1)
        if follow.shift is not None:
            old = self.arrays.get(follow.shift.name, follow.shift.read())
            self._put(follow.shift, old + added.reshape(old.shape))
        elif follow.mean is not None:
            old = self.arrays.get(follow.mean.name, follow.mean.read())
            self._put(follow.mean, old - added.reshape(old.shape))

    def _put(self, stored: Any, array: Array) -> None:
        array = array.astype(stored.read().dtype)
        self.arrays[stored.name] = array
        self.small.write(stored, array)


def _differs(rows: Array, others: Array) -> bool:
    """Whether two sets of inputs are not the same but for rounding."""
    if rows.shape != others.shape:
        return True
    return bool(np.abs(rows - others).max(initial=0) > _ROUNDING * np.abs(others).max(initial=1e-30))


def _staged(pair: Pair, which: int) -> Staged:
    analysis = (pair.dense, pair.small)[which]
    return tools_of(analysis.program.native).staged(analysis.program, [each[which].node for each in pair.layers])


def _solved(sums: _Sums, old: Array, ridge: float, free: bool) -> Array:
    """The minimum, ``[groups, inputs + 1, outputs]``; the last row is zero unless it is ``free``."""
    found = np.zeros_like(old)
    size = old.shape[1] - (0 if free else 1)
    for group, (gram, cross) in enumerate(zip(sums.gram, sums.cross, strict=True)):
        weight = ridge * np.diag(gram)[:-1].mean() + 1e-12
        pull = np.full(size, weight)
        if free:
            pull[-1] = 1e-9 * max(1, sums.count)  # what is added is not held back
        left = gram[:size, :size] + np.diag(pull)
        found[group, :size] = np.linalg.solve(left, cross[:size] + pull[:, None] * old[group, :size])
    return found
