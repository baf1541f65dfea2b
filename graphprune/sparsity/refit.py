"""Weights that stay make up for those that are zero: layer after layer, on the activations of the sparse network as it
is by then, towards what the dense one computes.

What is minimised is ``|X W' + c - T|^2 + ridge |W' - W|^2`` with the zeros of the mask: by the sweep of SparseGPT
(Frantar & Alistarh, ICML 2023), which may choose the zeros as it goes, or exactly, by least squares. Each is judged on
data that it was not computed from, and not applied where it does not help there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from graphprune.criteria.obs import inverse
from graphprune.layers import Layer
from graphprune.program import Array
from graphprune.recover.least_squares import Sums, Walk, free, ridges
from graphprune.recover.pair import HELD_OUT, Outcome, Pair
from graphprune.sparsity.choose import Choice, LayerMask
from graphprune.sparsity.columns import Columns
from graphprune.sparsity.surgeon import constrained, factor, sweep

Step = tuple[str, float]
"""A way to fit, and its ridge."""


@dataclass(frozen=True, eq=False)
class Fit:
    """The quadratic problem of one layer.

    old:   the dense weights, ``[groups, inputs + 1, outputs]``; the last row, what is added to results, is zero
    loose: whether something can be added to the results
    search: whether the sweep chooses the zeros as it goes
    """

    mask: LayerMask
    old: Array
    loose: bool
    search: bool

    @property
    def columns(self) -> Columns:
        """The columns of each group."""
        _, _, taps, channels = self.mask.kept.shape
        return Columns(taps, channels, self.mask.format.needs.inputs)

    def step(self, name: str, sums: Sums, ridge: float, kept: Array) -> tuple[Array, Array]:
        """New weights, of the shape of ``old``, and which are kept, ``[groups, outputs, columns]``."""
        new, masks = np.zeros_like(self.old), []
        for group in range(len(self.old)):
            hessian, start, places = self._quadratic(sums, ridge, group)
            held = np.ones(start.shape, bool)
            held[:, : kept.shape[2]] = kept[group]
            if name == "sparsegpt":
                found, held = self._swept(start, hessian, held, group)
            else:
                found = constrained(start, hessian, held)
            new[group, places] = found.T
            masks.append(held[:, : kept.shape[2]])
        return new, np.stack(masks)

    def _quadratic(self, sums: Sums, ridge: float, group: int) -> tuple[Array, Array, Array]:
        """The damped Gram matrix, the minimum without zeros, and where their columns belong: those of the format in its
        order, and behind them what is added."""
        gram, old = sums.gram[group], self.old[group]
        inputs = len(gram) - 1
        places = np.append(self.columns.order, inputs) if self.loose else self.columns.order
        pull = np.full(len(places), ridge * np.diag(gram)[:-1].mean() + 1e-12)
        if self.loose:
            pull[-1] = 1e-9 * max(1, sums.count)  # what is added is not held back
        hessian = gram[np.ix_(places, places)] + np.diag(pull)
        start = np.linalg.solve(hessian, sums.cross[group][places] + pull[:, None] * old[places])
        return hessian, start.T, places

    def _swept(self, start: Array, hessian: Array, held: Array, group: int) -> tuple[Array, Array]:
        columns, form, share = self.columns, self.mask.format, self.mask.shares[group] if self.search else None
        total = columns.taps * columns.channels
        if self.search:
            costs = columns.losses(start[:, :total], inverse(hessian)[:total, :total])
            held = held.copy()
            held[:, :total] = form.project(columns.cube(costs), share).reshape(costs.shape)
        spans = columns.spans(form)

        def choose(number: int, block: Array, own: Array) -> Array:
            first = held[:, slice(*spans[number])]
            if not self.search or len(spans) == 1 or first.all() or not first.any():
                return first
            costs = columns.losses(block, own.T @ own)
            # As many as the costs at the beginning say, where the format leaves that open.
            part = share if form.needs.fixed else 1 - float(first.mean())
            return form.project(columns.cube(costs), part).reshape(first.shape)

        return sweep(start, factor(hessian), spans, choose)


class SparseWalk(Walk):
    """The dense and the sparse network, stopped before the same layer, for all cases.

    names: the ways to fit a layer with zeros, in this order. With ``least_squares``, layers that stay dense are fitted
           as well where they see other inputs, but for those that are left alone on request
    """

    def __init__(
        self, pair: Pair, choice: Choice, names: Sequence[str], ridge: float = 1e-4, held_out: float = HELD_OUT
    ):
        super().__init__(pair, ridge, held_out)
        self.choice, self.names = choice, names
        self.masks = {each.tensor: each for each in choice.layers}
        self.alone = {each.name for each in choice.left if each.code == "GP211"}
        self.found: dict[str, Array] = {}
        self.scarce: list[str] = []

    def rewritten(self, dense: Layer, small: Layer) -> bool:
        """Whether the layer computes something else for the same inputs."""
        return small.stored is not None and small.stored.name in self.masks

    def fit(self, place: int, start: Array | None = None) -> Outcome | None:
        """Fit the layer at which the networks stand."""
        dense, small = self.pair.layers[place]
        mask = None if small.stored is None else self.masks.get(small.stored.name)
        if mask is not None:
            return self._masked(place, dense, small, mask)
        if "least_squares" not in self.names or small.stored is None or small.name in self.alone:
            return None
        return super().fit(place, start)

    def _masked(self, place: int, dense: Layer, small: Layer, mask: LayerMask) -> Outcome:
        follow = self.pair.follow(small)
        old = dense.matrices(np.asarray(self.pair.dense.program.dialect.constant(dense.weight))).astype(np.float64)
        old = np.concatenate([old, np.zeros((*old.shape[:2], 1))], axis=2).transpose(0, 2, 1)
        problem = Fit(mask, old, free(follow), self.choice.search)
        fit, judge = self._sums(place, small)
        if fit.count + judge.count < old.shape[1]:
            self.scarce.append(small.name)
        whole = kept = mask.kept.reshape(*mask.kept.shape[:2], -1)
        before = error = judge.error(self.weights(small))
        steps: list[Step] = []
        for name in self.names:
            tried = [(ridge, *problem.step(name, fit, ridge, kept)) for ridge in ridges(self.ridge)]
            errors = [judge.error(new) for _, new, _ in tried]
            best = int(np.argmin(errors))
            if errors[best] < error:
                error, kept = errors[best], tried[best][2]
                steps.append((name, tried[best][0]))
        refused = [name for name in self.names if name not in dict(steps)]
        note = f"GP705 {' and '.join(refused)} would not lower its error on held-out data" if refused else ""
        if not steps:
            return Outcome(small.name, before, error, False, note)
        new, kept = old, whole
        for name, ridge in steps:
            new, kept = problem.step(name, fit + judge, ridge, kept)
        self.write(small, follow, new)
        self.found[mask.tensor] = kept
        return Outcome(small.name, before, error, True, note)

    def result(self) -> Choice:
        """The choice with the masks and numbers that were found."""
        layers = tuple(
            replace(
                each,
                kept=self.found[each.tensor].reshape(each.kept.shape) if each.tensor in self.found else each.kept,
                numbers=self.arrays.get(each.tensor),
            )
            for each in self.choice.layers
        )
        others = {name: array for name, array in self.arrays.items() if name not in self.masks}
        return replace(self.choice, layers=layers, others={**self.choice.others, **others})
