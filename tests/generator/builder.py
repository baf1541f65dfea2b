"""A small graph builder that writes one and the same thing in one of many export styles, chosen at random.

May import onnx and numpy. Must never import graphprune.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Size = int | str
# What named sizes are when a generated network is run.
NAMED = {"batch": 2, "length": 5, "height": 4, "width": 6}


@dataclass(frozen=True)
class Tensor:
    """A value of the graph with its shape; sizes only known at run time are names."""

    name: str
    shape: tuple[Size, ...]

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def static(self) -> bool:
        return all(isinstance(size, int) for size in self.shape)


@dataclass(frozen=True)
class At:
    """An entry of a reshape target: the size that the reshaped tensor has on `axis`."""

    axis: int


@dataclass
class Names:
    """Fresh names, in the manner of one exporter or another, shared by a graph and its subgraphs."""

    pattern: str = "{hint}_{count}"
    count: int = 0

    def new(self, hint: str) -> str:
        self.count += 1
        return self.pattern.format(hint=hint, count=self.count)


class Builder:
    """Collects nodes and stored tensors of one graph; `generator` decides styles and makes the weights."""

    def __init__(self, opset: int, generator: np.random.Generator, names: Names | None = None, *, plain: bool = False):
        self.opset = opset
        self.generator = generator
        self.names = names or Names()
        self.plain = plain
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._stored: dict[tuple[Any, ...], list[Tensor]] = {}

    # Choices ---------------------------------------------------------------------------------------------------------

    def chance(self, share: float) -> bool:
        """True in `share` of the cases."""
        return bool(self.generator.random() < share)

    def choose(self, options: Sequence[Any]) -> Any:
        """One of the options."""
        return options[int(self.generator.integers(len(options)))]

    def channels(self, multiple: int = 1, most: int = 24) -> int:
        """A small number of channels, a multiple of `multiple`."""
        return multiple * int(self.generator.integers(max(1, math.ceil(4 / multiple)), max(2, most // multiple + 1)))

    def divisor(self, number: int, *, least: int = 2) -> int:
        """A divisor of `number` that is at least `least`, or 1 if there is none but `number` itself."""
        options = [d for d in range(least, number) if number % d == 0]
        return self.choose(options) if options else 1

    # Nodes -----------------------------------------------------------------------------------------------------------

    def op(
        self,
        kind: str,
        *inputs: Tensor | None,
        shape: Sequence[Size] | None = None,
        domain: str = "",
        **attributes: Any,
    ) -> Tensor:
        """A node with one output; without a shape the output has that of the first input."""
        given = tuple(shape) if shape is not None else next(i for i in inputs if i is not None).shape
        return self.ops(kind, *inputs, shapes=[given], domain=domain, **attributes)[0]

    def ops(
        self, kind: str, *inputs: Tensor | None, shapes: Sequence[Sequence[Size]], domain: str = "", **attributes: Any
    ) -> list[Tensor]:
        """A node with an output for every shape."""
        outputs = [Tensor(self.names.new(kind.lower()), tuple(shape)) for shape in shapes]
        names = [i.name if i is not None else "" for i in inputs]
        while names and not names[-1]:
            names.pop()
        node = helper.make_node(
            kind, names, [o.name for o in outputs], self.names.new(kind), domain=domain, **attributes
        )
        self.nodes.append(node)
        return outputs

    def subgraph(self) -> Builder:
        """A builder of an inner graph, which may read every value made so far."""
        return Builder(self.opset, self.generator, self.names, plain=self.plain)

    def graph(self, name: str, inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[Tensor]) -> onnx.GraphProto:
        """The graph collected so far; its outputs are float32."""
        infos = [helper.make_tensor_value_info(o.name, TensorProto.FLOAT, o.shape) for o in outputs]
        return helper.make_graph(self.nodes, name, list(inputs), infos, self.initializers)

    # Stored tensors --------------------------------------------------------------------------------------------------

    def store(self, array: np.ndarray, hint: str = "constant") -> Tensor:
        """A stored tensor as an initializer or, now and then, as a Constant node."""
        tensor = Tensor(self.names.new(hint), array.shape)
        if not self.plain and self.chance(0.2):
            value = numpy_helper.from_array(array)
            self.nodes.append(helper.make_node("Constant", [], [tensor.name], value=value))
        else:
            self.initializers.append(numpy_helper.from_array(array, tensor.name))
        return tensor

    def integers(self, *values: int) -> Tensor:
        """A stored int64 vector; equal vectors are sometimes one tensor, as exporters deduplicate them."""
        return self._shared(("integers", values), lambda: self.store(np.array(values, np.int64), "sizes"), 0.5)

    def scalar(self, value: float) -> Tensor:
        """A stored float32 scalar."""
        return self._shared(("scalar", value), lambda: self.store(np.array(value, np.float32), "number"), 0.5)

    def weight(self, *shape: int, fan_in: int = 0, hint: str = "weight") -> Tensor:
        """A random weight, scaled to keep unit variance over `fan_in` terms; rarely one that is already in use."""
        deviation = 1.1 / math.sqrt(fan_in) if fan_in else 0.3
        return self._shared(
            ("weight", shape, fan_in),
            lambda: self.keep((deviation * self.generator.standard_normal(shape)).astype(np.float32), hint),
            0.0 if self.plain else 0.06,
        )

    def factors(self, *shape: int, hint: str = "scale") -> Tensor:
        """Random positive numbers around 1."""
        return self.keep(self.generator.uniform(0.6, 1.4, shape).astype(np.float32), hint)

    def keep(self, array: np.ndarray, hint: str) -> Tensor:
        """A stored weight, read directly or through Identity, Transpose, Cast or DequantizeLinear."""
        style = "plain" if self.plain else self.choose(["plain"] * 16 + ["identity", "transpose", "cast", "dequantize"])
        if style == "identity":
            return self.op("Identity", self.store(array, hint))
        if style == "transpose" and array.ndim >= 2:
            order = [int(axis) for axis in self.generator.permutation(array.ndim)]
            stored = self.store(np.ascontiguousarray(array.transpose(order)), hint)
            back = [int(axis) for axis in np.argsort(order)]
            return self.op("Transpose", stored, shape=array.shape, perm=back)
        if style == "cast":
            wide = self.choose([np.float16, np.float64])
            return self.op("Cast", self.store(array.astype(wide), hint), to=TensorProto.FLOAT)
        if style == "dequantize" and array.ndim >= 2 and array.shape[0] > 1:
            scale = np.abs(array).max(axis=tuple(range(1, array.ndim))) / 127 + 1e-6
            rounded = np.rint(array / scale.reshape(-1, *[1] * (array.ndim - 1))).astype(np.int8)
            stored, scales = self.store(rounded, hint), self.store(scale.astype(np.float32), "scale")
            return self.op("DequantizeLinear", stored, scales, self.store(np.zeros_like(scale, np.int8)), axis=0)
        return self.store(array, hint)

    def _shared(self, key: tuple[Any, ...], make: Callable[[], Tensor], share: float) -> Tensor:
        """A tensor that this graph made before under this key, in `share` of the cases; a new one otherwise."""
        known = self._stored.setdefault(key, [])
        if known and self.chance(share):
            return self.choose(known)
        known.append(make())
        return known[-1]

    # Shapes ----------------------------------------------------------------------------------------------------------

    def size(self, x: Tensor, axis: int) -> Tensor:
        """The run-time size of one axis as an int64 vector [1]."""
        styles = ["gather", "slice"] + (["attributes"] if self.opset >= 15 else [])
        style = self.choose(styles)
        if style == "attributes":
            return self.op("Shape", x, shape=[1], start=axis, end=axis + 1)
        sizes = self.op("Shape", x, shape=[x.rank])
        if style == "slice":
            return self.op("Slice", sizes, self.integers(axis), self.integers(axis + 1), self.integers(0), shape=[1])
        index = self.store(np.array(axis, np.int64), "index")
        picked = self.op("Gather", sizes, index, shape=[], axis=0)
        return self.op("Unsqueeze", picked, self.integers(0), shape=[1])

    def target(self, x: Tensor, entries: Sequence[int | At]) -> Tensor:
        """A reshape target for `x` put together at run time: int64 [len(entries)]."""
        pieces = [self.size(x, e.axis) if isinstance(e, At) else self.integers(e) for e in entries]
        return self.op("Concat", *pieces, shape=[len(entries)], axis=0)

    def reshape(self, x: Tensor, *entries: int | At, shape: Sequence[Size] | None = None) -> Tensor:
        """Reshape with a stored or computed target; `shape` names a size that -1 leaves open."""
        result = tuple(shape) if shape is not None else self._reshaped(x, entries)
        numbers: list[int] = []
        for place, entry in enumerate(entries):
            size = x.shape[entry.axis] if isinstance(entry, At) else entry
            same = isinstance(entry, At) and entry.axis == place
            if same and (isinstance(size, str) or self.chance(0.5)):
                numbers.append(0)
            else:
                numbers.append(size if isinstance(size, int) else -1)
        if numbers.count(-1) == 0 and x.static and self.chance(0.3):
            numbers[int(self.generator.integers(len(numbers)))] = -1
        if numbers.count(-1) > 1 or (any(isinstance(e, At) for e in entries) and self.chance(0.3)):
            return self.op("Reshape", x, self.target(x, entries), shape=result)
        return self.op("Reshape", x, self.integers(*numbers), shape=result)

    def _reshaped(self, x: Tensor, entries: Sequence[int | At]) -> tuple[Size, ...]:
        sizes: list[Size] = [x.shape[e.axis] if isinstance(e, At) else e for e in entries]
        if -1 in sizes:
            known = [size for size in sizes if isinstance(size, int) and size != -1]
            complete = x.static and len(known) == len(sizes) - 1
            rest = math.prod(s for s in x.shape if isinstance(s, int)) // math.prod(known) if complete else None
            sizes[sizes.index(-1)] = rest if rest is not None else self.names.new("open")
        return tuple(sizes)

    def transpose(self, x: Tensor, *order: int) -> Tensor:
        """Permute the axes."""
        return self.op("Transpose", x, shape=[x.shape[axis] for axis in order], perm=list(order))

    def concat(self, axis: int, *parts: Tensor) -> Tensor:
        """Concatenate along an axis whose sizes are known, given by a positive or negative number."""
        first = parts[0]
        shape = list(first.shape)
        shape[axis] = sum(int(part.shape[axis]) for part in parts)
        written = axis - first.rank if self.chance(0.3) else axis
        return self.op("Concat", *parts, shape=shape, axis=written)

    def slice(self, x: Tensor, axis: int, start: int, stop: int) -> Tensor:
        """Take entries start..stop of an axis of known size."""
        size = int(x.shape[axis])
        shape = [*x.shape[:axis], stop - start, *x.shape[axis + 1 :]]
        first = start - size if start and self.chance(0.3) else start
        last = np.iinfo(np.int64).max if stop == size and self.chance(0.5) else stop
        return self.op("Slice", x, self.integers(first), self.integers(int(last)), self.integers(axis), shape=shape)

    def split(self, x: Tensor, axis: int, sizes: Sequence[int]) -> list[Tensor]:
        """Cut an axis into consecutive parts, by Split with or without sizes, or by Slices."""
        shapes = [[*x.shape[:axis], size, *x.shape[axis + 1 :]] for size in sizes]
        style = self.choose(["split", "count", "slices"])
        if style == "slices":
            starts = np.cumsum([0, *sizes])
            return [self.slice(x, axis, int(a), int(b)) for a, b in itertools.pairwise(starts)]
        if style == "count" and len(set(sizes)) == 1:
            count = {"num_outputs": len(sizes)} if self.opset >= 18 else {}
            return self.ops("Split", x, shapes=shapes, axis=axis, **count)
        return self.ops("Split", x, self.integers(*sizes), shapes=shapes, axis=axis)

    def reduce(self, kind: str, x: Tensor, *axes: int, keepdims: bool = True) -> Tensor:
        """A reduction, whose axes became an input with opset 18 (13 for ReduceSum)."""
        if keepdims:
            shape: list[Size] = [1 if axis in axes else size for axis, size in enumerate(x.shape)]
        else:
            shape = [size for axis, size in enumerate(x.shape) if axis not in axes]
        if self.opset >= 18 or kind == "ReduceSum":
            return self.op(kind, x, self.integers(*axes), shape=shape, keepdims=int(keepdims))
        return self.op(kind, x, shape=shape, axes=list(axes), keepdims=int(keepdims))
