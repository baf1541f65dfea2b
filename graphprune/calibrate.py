"""Statistics of activations, collected in one pass: what criteria and recovery know about data.

A :class:`Statistic` takes the inputs of one layer batch by batch and keeps what is sufficient, never the data. The
model runs in stages, so that the activations of one layer are in memory at a time; sums are float64, so that it does
not matter how the data is split into batches. Knows no framework.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event
from typing import Any, Protocol

import numpy as np

from graphprune.analysis import Analysis
from graphprune.dialects import tools_of
from graphprune.dialects.tools import Case
from graphprune.errors import GraphPruneError
from graphprune.layers import Layer, Rows
from graphprune.program import Array


@dataclass(frozen=True, eq=False)
class Calibration:
    """Inputs of a model to compute statistics from, and what is known about them.

    cases:   inputs in the form that the dialect runs, one batch each; can be read more than once
    labels:  what a loss compares the outputs with, one for each case; None where there are none
    loss:    for criteria that need gradients: the name of a loss (see `graphprune.torch.losses`), a function of outputs
             and labels that returns a scalar, or where it is (``"module:function"``)
    rows:    the most samples of one case that count for one layer: positions of an image, tokens
    source:  where the data comes from, as a report says it
    data_free: whether it is noise
    """

    cases: Sequence[Case]
    labels: Sequence[Any] | None = None
    loss: str | Callable[[Any, Any], Any] = "cross_entropy"
    rows: int | None = 65536
    source: str = ""
    data_free: bool = False


class Statistic(Protocol):
    """What is kept of the inputs of one layer."""

    def update(self, rows: Rows, chosen: Array | None) -> None:
        """Take one more batch, of which only the ``chosen`` samples count where given."""


@dataclass(eq=False)
class Moments:
    """Mean and second moment of every input of a layer, over all samples.

    >>> moments = Moments()
    >>> moments.add(np.array([[[1.0, 3.0]], [[3.0, 3.0]]]))
    >>> moments.mean.tolist(), moments.variance.tolist()
    ([[2.0, 3.0]], [[1.0, 0.0]])
    """

    count: int = 0
    total: Array = field(default_factory=lambda: np.zeros(()))
    squares: Array = field(default_factory=lambda: np.zeros(()))

    def update(self, rows: Rows, chosen: Array | None) -> None:
        """See :class:`Statistic`."""
        for chunk in rows.chunks(chosen):
            self.add(chunk)

    def add(self, rows: Array) -> None:
        """Take samples ``[samples, groups, inputs]``."""
        self.count += len(rows)
        self.total = self.total + rows.sum(axis=0, dtype=np.float64)
        self.squares = self.squares + np.einsum("sgr,sgr->gr", rows, rows, dtype=np.float64)

    @property
    def mean(self) -> Array:
        """``E[x]``, ``[groups, inputs]``."""
        return self.total / max(1, self.count)

    @property
    def second(self) -> Array:
        """``E[x**2]``, ``[groups, inputs]``."""
        return self.squares / max(1, self.count)

    @property
    def variance(self) -> Array:
        """``E[(x - E[x])**2]``, ``[groups, inputs]``."""
        variance: Array = np.maximum(self.second - np.square(self.mean), 0)
        return variance


@dataclass(eq=False)
class Gram:
    """``sum x x'`` and ``sum x`` of the inputs of a layer: all that least squares needs to know about them.

    >>> gram = Gram()
    >>> gram.add(np.array([[[1.0, 2.0]]]))
    >>> gram.matrix.tolist(), gram.count
    ([[[1.0, 2.0], [2.0, 4.0]]], 1)
    """

    count: int = 0
    matrix: Array = field(default_factory=lambda: np.zeros(()))
    total: Array = field(default_factory=lambda: np.zeros(()))

    def update(self, rows: Rows, chosen: Array | None) -> None:
        """See :class:`Statistic`."""
        for chunk in rows.chunks(chosen):
            self.add(chunk)

    def add(self, rows: Array) -> None:
        """Take samples ``[samples, groups, inputs]``."""
        self.count += len(rows)
        self.matrix = self.matrix + product(rows, rows)
        self.total = self.total + rows.sum(axis=0, dtype=np.float64)


def product(a: Array, b: Array) -> Array:
    """``sum over samples of a b'`` for every group, as ``[groups, inputs of a, inputs of b]`` in float64. Products are
    in the precision of the data, which is exact to about six digits over the samples of one call."""
    if a is b and a.shape[1] == 1:  # of one matrix with itself BLAS computes half
        lone = a[:, 0]
        square: Array = np.dot(lone.T, lone).astype(np.float64)[None]
        return square
    left, right = a.transpose(1, 2, 0), b.transpose(1, 0, 2)
    sums: Array = np.matmul(left, right).astype(np.float64)
    return sums


def collect(
    analysis: Analysis,
    layers: Sequence[Layer],
    cases: Iterable[Case],
    make: Callable[[Layer], Statistic],
    *,
    rows: int | None = None,
    seed: int = 0,
) -> dict[Layer, Statistic]:
    """Run the model over all cases and hand the inputs of every layer to its own statistic.

    rows: the most samples of a case that count for a layer, drawn with the seed; all where not given
    Raises GraphPruneError: GP402 where the model cannot be run, GP701 for no cases, GP703 for activations that are not
    finite.
    """
    found = {layer: make(layer) for layer in layers}
    tools = tools_of(analysis.program.native)
    staged = tools.staged(analysis.program, [layer.node for layer in layers])

    def taken(turn: _Turn) -> None:
        state = staged.begin(turn.case)
        for place, layer in enumerate(layers):
            staged.step(state)
            data = staged.read(state, layer.activation)
            if not np.isfinite(data).all():
                what = f"batch {turn.number} of the calibration data makes activations that are not finite"
                raise GraphPruneError("GP703", what, layer.name)
            samples = layer.rows(data)
            with turn.at(place):
                found[layer].update(samples, draw(len(samples), rows, (seed, turn.number, place)))
        staged.step(state)

    with tools.workers(analysis.program) as each:
        count = sum(1 for _ in each(lambda turn: turn.run(taken), _turns(cases, len(layers))))
    if not count:
        raise GraphPruneError("GP701", "there is not one batch of calibration data")
    return found


@dataclass(eq=False)
class _Turn:
    """One case among several that run at a time: at each place it comes after the case before it.

    passed: set once a place is behind this case; before: those of the case before, None for the first
    """

    number: int
    case: Case
    passed: list[Event]
    before: list[Event] | None

    def run(self, function: Callable[[_Turn], None]) -> None:
        """Whatever happens, the cases after this one go on: the first that fails is told."""
        try:
            function(self)
        finally:
            for each in self.passed:
                each.set()

    @contextmanager
    def at(self, place: int) -> Iterator[None]:
        """Within this the case before has passed the place; after it this one has."""
        if self.before is not None:
            self.before[place].wait()
        yield
        self.passed[place].set()


def _turns(cases: Iterable[Case], places: int) -> Iterator[_Turn]:
    before: list[Event] | None = None
    for number, case in enumerate(cases, 1):
        passed = [Event() for _ in range(places)]
        yield _Turn(number, case, passed, before)
        before = passed


def draw(count: int, most: int | None, seed: Sequence[int]) -> Array | None:
    """Which of ``count`` samples to take: ``most`` of them at random, ascending; None for all."""
    if most is None or count <= most:
        return None
    drawn: Array = np.sort(np.random.default_rng(list(seed)).choice(count, most, replace=False))
    return drawn
