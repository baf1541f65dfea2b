"""Contractions as matrices: the one form in which statistics, criteria and closed-form recovery see a network.

Every weight that is linear in an activation is ``y[s, g, o] = sum_r w[g, o, r] * x[s, g, r]``: samples (batch and
positions), groups, outputs and inputs. The inputs of a convolution are the entries under its window (im2col), the
groups those of a grouped convolution, or the matrices of a batched product. Knows no framework.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from graphprune.analysis import Analysis
from graphprune.dims import Dim, leaves
from graphprune.kept import labels
from graphprune.program import Array, BatchNorm, Contraction, Letters, Node, Stored, Sweep, Terms, Use, Value


@dataclass(frozen=True, eq=False)
class Layer:
    """One weight contraction. ``weight`` holds its numbers as they are used: dequantised, transposed.

    stored: the tensor that holds the numbers as they are, for this contraction alone; None where they are computed,
            quantised (recoveries can write some: `graphprune/recover/grid.py`) or shared
    """

    contraction: Contraction
    terms: Terms
    weight: Value
    stored: Stored | None

    @property
    def node(self) -> Node:
        return self.contraction.node

    @property
    def name(self) -> str:
        """How a user finds it: the name of its weight."""
        return self.weight.name

    @property
    def activation(self) -> Value:
        return _read(self.contraction.activation)

    @property
    def result(self) -> Value:
        return self.node.outputs[0]

    # ------------------------------------------------------------------ letters
    @cached_property
    def groups(self) -> tuple[str, ...]:
        """Letters that all three have."""
        return tuple(x for x in _letters(self.terms.weight) if x in self._data and x in self._result)

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """Letters of the weight and the result."""
        return tuple(x for x in _letters(self.terms.weight) if x not in self._data and x in self._result)

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """Letters of the weight and the data that are summed over; the axes of a kernel stand last."""
        return tuple(x for x in _letters(self.terms.weight) if x in self._data and x not in self._result)

    @cached_property
    def samples(self) -> tuple[str, ...]:
        """Letters of the result alone, in its order: batch and positions."""
        return tuple(x for x in _letters(self.terms.result) if x not in _letters(self.terms.weight))

    @cached_property
    def _data(self) -> set[str]:
        # Under a window, every position in the data becomes one in the result and one in the kernel.
        count = self.contraction.window
        unfolded = {f"{letter}{place}" for letter in "pk" for place in range(count)}
        return {x for x in _letters(self.terms.data) if not (count and x[0] == "s")} | (unfolded if count else set())

    @cached_property
    def _result(self) -> set[str]:
        return set(_letters(self.terms.result))

    @cached_property
    def sizes(self) -> Mapping[str, int]:
        """The sizes of the letters of the weight."""
        found = {}
        for letter, axis in self.terms.axes.items():
            assert isinstance(axis.size, int), "the axes of stored tensors have sizes"
            found[letter] = axis.size
        kernel = self.contraction.weight_axes[len(self.contraction.weight_axes) - self.contraction.window :]
        for place, axis in enumerate(kernel):
            assert isinstance(axis.size, int)
            found[f"k{place}"] = axis.size
        return found

    @property
    def shape(self) -> tuple[int, int, int]:
        """Groups, outputs, inputs."""
        return self._size(self.groups), self._size(self.outputs), self._size(self.inputs)

    def _size(self, letters: Sequence[str]) -> int:
        return math.prod(self.sizes[letter] for letter in letters)

    # ------------------------------------------------------------------ weights
    def matrices(self, weight: Array) -> Array:
        """A weight as ``[groups, outputs, inputs]``."""
        flat = _letters(self.terms.weight)
        order = [flat.index(letter) for letter in (*self.groups, *self.outputs, *self.inputs)]
        return weight.reshape([self.sizes[x] for x in flat]).transpose(order).reshape(self.shape)

    def weights(self, matrices: Array) -> Array:
        """The inverse of :meth:`matrices`: an array in the shape of the weight."""
        order = (*self.groups, *self.outputs, *self.inputs)
        back = [order.index(letter) for letter in _letters(self.terms.weight)]
        spread = matrices.reshape([self.sizes[x] for x in order]).transpose(back)
        return np.ascontiguousarray(spread.reshape([self._size(axis) for axis in self.terms.weight]))

    def cubes(self, weight: Array) -> Array:
        """A weight as ``[groups, outputs, taps, channels]``: for each group what `graphprune.formats` calls its matrix,
        with the taps of a kernel outside the channels; one tap where there is no kernel."""
        groups, outputs, inputs = self.shape
        return self.matrices(weight).reshape(groups, outputs, inputs // self.taps, self.taps).swapaxes(2, 3)

    def from_cubes(self, cubes: Array) -> Array:
        """The inverse of :meth:`cubes`: an array in the shape of the weight."""
        return self.weights(cubes.swapaxes(2, 3).reshape(self.shape))

    @property
    def taps(self) -> int:
        """Positions of the kernel; 1 where there is none."""
        return self._size([f"k{place}" for place in range(self.contraction.window)])

    # ------------------------------------------------------------------ activations
    def rows(self, data: Array) -> Rows:
        """The inputs of all samples of an activation."""
        letters, spread = _letters(self.terms.data), self._spread(data, self.terms.data)
        sweep, kernel = self.contraction.sweep, [f"k{place}" for place in range(self.contraction.window)]
        if kernel and sweep is not None:
            spread = _windows(spread, [self.sizes[letter] for letter in kernel], sweep)
            letters = [f"p{letter[1:]}" if letter[0] == "s" else letter for letter in letters] + kernel
        return replace(self._rows(spread, letters, self.inputs), maps=self._maps(data))

    def _maps(self, data: Array) -> Array:
        """An activation without windows, ``[images, groups, channels, *positions]``."""
        letters, spread = _letters(self.terms.data), self._spread(data, self.terms.data)
        channels = [letter for letter in self.inputs if letter in letters]
        others = [letter for letter in letters if letter not in (*self.groups, *channels)]
        images = [letter for letter in others if letter in self.samples[:1]]
        positions = [letter for letter in others if letter not in images]
        order = [letters.index(letter) for letter in (*images, *self.groups, *channels, *positions)]
        sizes = [spread.shape[letters.index(letter)] for letter in positions]
        return spread.transpose(order).reshape(-1, self._size(self.groups), self._size(channels), *sizes)

    def results(self, result: Array) -> Rows:
        """The results of all samples, bias and all."""
        return self._rows(self._spread(result, self.terms.result), _letters(self.terms.result), self.outputs)

    def _rows(self, spread: Array, letters: Sequence[str], width: Sequence[str]) -> Rows:
        order = [letters.index(letter) for letter in (*self.samples, *self.groups, *width)]
        view = spread.transpose(order)
        return Rows(view, len(self.samples), self._size(self.groups), self._size(width))

    def _spread(self, array: Array, term: Letters) -> Array:
        """An axis for each letter."""
        axes = zip(array.shape, term, strict=True)
        return array.reshape([each for size, axis in axes for each in self._split(size, axis)])

    def _split(self, size: int, axis: Sequence[str]) -> list[int]:
        """The sizes of the letters of one axis; at most one is not known from the weight."""
        known = [self.sizes.get(letter, 0) if len(axis) > 1 else size for letter in axis]
        rest = size // max(1, math.prod(each for each in known if each))
        return [each or rest for each in known]

    # ------------------------------------------------------------------ dimensions
    def entries(self, dim: Dim, letters: Sequence[str]) -> list[Array]:
        """For a dimension and some letters (those of :attr:`inputs`, say): which entry of the dimension each position
        belongs to, -1 for none; several vectors where the dimension stands in them more than once."""
        found = []
        for place, letter in enumerate(letters):
            axis = self.terms.axes.get(letter)
            if axis is None or dim not in leaves(axis):
                continue
            before = self._size(letters[:place])
            after = self._size(letters[place + 1 :])
            found += [np.tile(np.repeat(label, after), before) for label in labels(axis, dim)]
        return found

    @cached_property
    def read(self) -> tuple[Dim, ...]:
        """The dimensions of stored sizes among the inputs and the groups that could lose entries."""
        axes = [self.terms.axes[letter] for letter in (*self.inputs, *self.groups) if letter in self.terms.axes]
        found = dict.fromkeys(dim for axis in axes for dim in leaves(axis))
        return tuple(dim for dim in found if dim.pin is None and isinstance(dim.size, int))

    def labels(self, dim: Dim) -> Array:
        """Which entry of a dimension each input belongs to, ``[groups, inputs]``; -1 for none."""
        groups, _, inputs = self.shape
        found = np.full((groups, inputs), -1, np.int64)
        for label in self.entries(dim, self.inputs):
            found = np.where(label >= 0, label[None, :], found)
        for label in self.entries(dim, self.groups):
            found = np.where(label[:, None] >= 0, label[:, None], found)
        return found


# Samples that are laid out at a time: enough for matrix products at full speed, few enough to stay in a cache.
_CHUNK = 8192


@dataclass(frozen=True, eq=False)
class Rows:
    """Samples in row-major order of the result, ``[samples, groups, width]``: a view, laid out when it is taken.

    maps: the activation they are taken from, ``[images, groups, channels, *positions]``; None for results
    """

    view: Array
    lead: int
    groups: int
    width: int
    maps: Array | None = None

    def __len__(self) -> int:
        return math.prod(self.view.shape[: self.lead])

    def take(self, chosen: Array | None = None) -> Array:
        """The samples with these numbers, all where none are given; ``[samples, groups, width]``."""
        if chosen is None:
            return self.view.reshape(-1, self.groups, self.width)
        if not self.lead:
            return self.view.reshape(1, self.groups, self.width)[chosen]
        places = np.unravel_index(chosen, self.view.shape[: self.lead])
        return self.view[places].reshape(len(chosen), self.groups, self.width)

    def chunks(self, chosen: Array | None = None) -> Iterator[Array]:
        """The same, some at a time."""
        chosen = np.arange(len(self)) if chosen is None else chosen
        for begin in range(0, len(chosen), _CHUNK):
            yield self.take(chosen[begin : begin + _CHUNK])


def layers(analysis: Analysis) -> list[Layer]:
    """The weight contractions of the main graph that can be seen as matrices, in running order."""
    main = set(analysis.program.main.nodes)
    users = Counter(value for node in analysis.program.nodes() for value in node.inputs)
    users.update(analysis.program.main.outputs)
    found = []
    for contraction in analysis.contractions:
        if contraction.node not in main or contraction.weight is None or contraction.activation is None:
            continue
        terms, weight = contraction.terms, _read(contraction.weight)
        if terms is None or not analysis.trace.is_constant(weight) or not _followed(contraction):
            continue
        if weight.stored is not None and weight.dtype not in _FLOATS:
            continue  # a product of integers
        alone = users[weight] == 1 and weight.dtype in _FLOATS
        found.append(Layer(contraction, terms, weight, weight.stored if alone else None))
    order = {node: place for place, node in enumerate(analysis.program.main.nodes)}
    return sorted(found, key=lambda layer: order[layer.node])


def gains(analysis: Analysis) -> dict[Value, Array]:
    """What a BatchNorm multiplies each channel with, by the value that it normalises and nothing else reads."""
    readers = Counter(value for node in analysis.program.nodes() for value in node.inputs)
    readers.update(analysis.program.main.outputs)
    norms = {_read(norm.data): norm for norm in analysis.trace.batch_norms}
    return {value: gain(analysis, norm) for value, norm in norms.items() if readers[value] == 1}


def gain(analysis: Analysis, norm: BatchNorm) -> Array:
    """``scale / sqrt(variance + epsilon)`` of each channel."""
    constant = analysis.program.dialect.constant
    variance = np.asarray(constant(_read(norm.variance)), np.float64)
    scale = 1.0 if norm.scale is None else np.asarray(constant(_read(norm.scale)), np.float64)
    factor: Array = scale / np.sqrt(variance + norm.epsilon)
    return factor


_FLOATS = frozenset({"float", "double", "float16", "bfloat16"})


def _followed(contraction: Contraction) -> bool:
    """Whether its window, if it has one, can be laid out as columns."""
    return not contraction.window or (contraction.sweep is not None and not contraction.sweep.transposed)


def _read(use: Use | None) -> Value:
    value = None if use is None else use.node.inputs[use.index]
    assert value is not None, "the operands of a contraction are there"
    return value


def _letters(term: Sequence[Sequence[str]]) -> list[str]:
    return [letter for axis in term for letter in axis]


def _windows(data: Array, kernel: Sequence[int], sweep: Sweep) -> Array:
    """The entries under each position of a window, as further axes: a view, but for the border."""
    lead = data.ndim - len(kernel)
    spans = [step * (size - 1) + 1 for step, size in zip(sweep.dilations, kernel, strict=True)]
    before, after = _borders(data.shape[lead:], spans, sweep)
    if any(before) or any(after):
        data = np.pad(data, [(0, 0)] * lead + list(zip(before, after, strict=True)))
    view = np.lib.stride_tricks.sliding_window_view(data, spans, tuple(range(lead, data.ndim)))
    return view[(slice(None),) * lead + (*_every(sweep.strides), *_every(sweep.dilations))]


def _every(steps: Sequence[int]) -> Iterator[slice]:
    yield from (slice(None, None, step) for step in steps)


def _borders(sizes: Sequence[int], spans: Sequence[int], sweep: Sweep) -> tuple[list[int], list[int]]:
    count = len(spans)
    if not isinstance(sweep.pads, str):
        return list(sweep.pads[:count]), list(sweep.pads[count:])
    both = [
        max(0, (-(-size // step) - 1) * step + span - size)
        for size, span, step in zip(sizes, spans, sweep.strides, strict=True)
    ]
    less = [each // 2 for each in both]
    more = [each - half for each, half in zip(both, less, strict=True)]
    return (less, more) if sweep.pads == "same_upper" else (more, less)
