"""A dense network and what a plan made of it, side by side, layer by layer: what every recovery works on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from graphprune.analysis import Analysis, analyze_program
from graphprune.calibrate import Calibration
from graphprune.dialects import tools_of
from graphprune.dialects.tools import Model
from graphprune.dims import Keep, is_cut
from graphprune.kept import indices
from graphprune.layers import Layer, gain, layers
from graphprune.program import Array, BatchNorm, Node, Stored, Use, Value
from graphprune.recover.grid import Grid, grid_of
from graphprune.workers import Each

HELD_OUT = 0.2
"""The share of the cases, the last ones, that fits are judged on."""


def held_cases(count: int, share: float = HELD_OUT) -> int:
    """How many of so many cases are held out: none of a lone one.

    >>> held_cases(1), held_cases(2), held_cases(10)
    (0, 1, 2)
    """
    return max(1, round(count * share)) if count > 1 else 0


@dataclass(frozen=True)
class Outcome:
    """What became of one layer: its relative squared error on held-out calibration data, before and after."""

    layer: str
    before: float
    after: float
    applied: bool
    note: str = ""

    def __str__(self) -> str:
        what = f"{self.before:.2e} -> {self.after:.2e}" if np.isfinite(self.before) else ""
        return f"{self.layer}: {what}{' ' if what and self.note else ''}{self.note}"


@dataclass(frozen=True)
class Recovered:
    """New numbers for stored tensors of the pruned network, by name, and what became of each layer."""

    arrays: Mapping[str, Array]
    outcomes: tuple[Outcome, ...]


@dataclass(eq=False)
class Pair:
    """The dense network, what is kept of it, and the pruned one with its weights as they were cut."""

    dense: Analysis
    keep: Keep
    small: Analysis
    calibration: Calibration
    seed: int = 0

    @classmethod
    def of(cls, dense: Analysis, keep: Keep, small: Model, calibration: Calibration, seed: int = 0) -> Pair:
        """The pair of an analysed model and the model that was written from it."""
        return cls(dense, keep, analyze_program(tools_of(small).read(small, dense.program.rules)), calibration, seed)

    @contextmanager
    def workers(self) -> Iterator[Each]:
        """Threads that run both networks: see :meth:`graphprune.dialects.tools.Tools.workers`."""
        with tools_of(self.small.program.native).workers(self.small.program) as each:
            yield each

    @cached_property
    def layers(self) -> list[tuple[Layer, Layer]]:
        """The same layer in the dense and in the pruned network, in running order. Writing keeps the names of values,
        and a value has one name."""
        small = {layer.result.name: layer for layer in layers(self.small)}
        return [(each, small[each.result.name]) for each in layers(self.dense) if each.result.name in small]

    # ------------------------------------------------------------------ what is kept
    def kept(self, layer: Layer, letters: tuple[str, ...]) -> Array:
        """The positions among some letters of a dense layer that the pruned one has, in its order."""
        found = np.zeros(1, np.int64)
        for letter in letters:
            axis, size = layer.terms.axes.get(letter), layer.sizes[letter]
            own = indices(axis, self.keep) if axis is not None and is_cut(axis, self.keep) else np.arange(size)
            found = (found[:, None] * size + own[None, :]).reshape(-1)
        return found

    # ------------------------------------------------------------------ what follows
    @cached_property
    def readers(self) -> dict[Value, list[Use]]:
        """Who reads each value of the pruned network."""
        found: dict[Value, list[Use]] = {}
        for node in self.small.program.nodes():
            for index, value in enumerate(node.inputs):
                if value is not None:
                    found.setdefault(value, []).append(Use(node, index))
        return found

    @cached_property
    def norms(self) -> dict[Node, BatchNorm]:
        """The BatchNorms of the pruned network."""
        return {norm.node: norm for norm in self.small.trace.batch_norms}

    @cached_property
    def sums(self) -> dict[Node, tuple[Use, Use]]:
        """The sums of two values in the pruned network."""
        return {each.node: each.operands for each in self.small.trace.additions}

    def follow(self, layer: Layer) -> Follow:
        """What becomes of the result of a pruned layer as long as that is affine, channel by channel."""
        outputs = {value for value in self.small.program.main.outputs if value is not None}
        follow, value = Follow(), layer.result
        bias = layer.contraction.bias
        if bias is not None:
            follow.shift = self._own(bias, layer)
            follow.grid = self._own_grid(bias, layer)
        while len(self.readers.get(value, ())) == 1 and value not in outputs:
            (use,) = self.readers[value]
            if use.node in self.norms and use.index == self.norms[use.node].data.index:
                norm = self.norms[use.node]
                factor = gain(self.small, norm)
                if follow.shift is None and follow.grid is None and follow.gain is None:
                    follow.mean = self._own(norm.mean, layer)
                follow.gain = factor if follow.gain is None else follow.gain * factor
            elif use.node in self.sums:
                other = next(each for each in self.sums[use.node] if each.index != use.index)
                beside = other.node.inputs[other.index]
                if beside is None or not self.small.trace.is_constant(beside):
                    follow.beside, follow.sum = beside, use.node
                    break
                if follow.shift is None and follow.mean is None and follow.gain is None:
                    follow.shift = self._own(other, layer)
            else:
                break
            value = use.node.outputs[0]
        return follow

    def home(self, layer: Layer) -> Stored | Grid | None:
        """Where the numbers of a pruned layer are stored, for it alone; None where none can be written."""
        if layer.stored is not None or len(self.readers.get(layer.weight, ())) != 1:
            return layer.stored
        return grid_of(self.small, layer.weight)

    def _own_grid(self, use: Use, layer: Layer) -> Grid | None:
        value, (groups, outputs, _) = use.node.inputs[use.index], layer.shape
        if value is None or value.stored is not None or len(self.readers.get(value, ())) != 1:
            return None
        found = grid_of(self.small, value)
        return found if found is not None and found.stored.elements == groups * outputs else None

    def _own(self, use: Use, layer: Layer) -> Stored | None:
        """The stored tensor at a use, if that alone reads it and it has a number for each output of the layer."""
        value, (groups, outputs, _) = use.node.inputs[use.index], layer.shape
        if value is None or value.stored is None or len(self.readers.get(value, ())) != 1:
            return None
        return value.stored if value.stored.elements == groups * outputs else None

    @cached_property
    def twins(self) -> dict[str, Value]:
        """The values of the dense network by name; those of the pruned one have the same names."""
        values = [*self.dense.program.main.inputs, *(v for n in self.dense.program.main.nodes for v in n.outputs)]
        names = Counter(value.name for value in values)
        return {value.name: value for value in values if names[value.name] == 1}


@dataclass(eq=False)
class Follow:
    """What comes after a layer, up to the first operator that is not affine.

    shift:  a stored tensor that is added to the result, one number for each output
    mean:   the stored mean that a BatchNorm subtracts from it, where there is no shift
    grid:   the same as `shift`, where it is dequantised from stored codes
    gain:   the factor of the BatchNorms, None for 1
    beside: the other operand of a residual connection; sum: the node that adds it
    """

    shift: Stored | None = None
    mean: Stored | None = None
    grid: Grid | None = None
    gain: Array | None = None
    beside: Value | None = None
    sum: Node | None = None
