"""From nodes to calls of kernels: where each value lies, which kernel makes it, what is fused into which.

The walk goes through the nodes once, in order. For each node the rules of its operator are asked from specific to
general; a rule emits calls, or says why the node is not its own (`NotMine`). The last rule of every operator is the
fallback: onnxruntime. A rule may take the elementwise nodes behind its own into its epilogue (`epilogue`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import onnx_ir as ir

from graphprune.targets.kernels.copy import Turn
from graphprune.targets.kernels.functions import Expression, Leaf
from graphprune.targets.kernels.tir import Kernel, Machine
from graphprune.targets.kernels.vector import Map
from graphprune.targets.kernels.zip import Unzip, Zip
from graphprune.targets.network.graph import Graph, Node, Value
from graphprune.targets.network.layout import (
    Axis,
    Digit,
    Loop,
    NotMine,
    Storage,
    View,
    dense,
    digits,
    extent,
    loops,
)
from graphprune.targets.network.tune import Times, Tuner
from graphprune.targets.network.window import pixel_rows, window_of

T = TypeVar("T")
MAPS = ("float32", "uint8", "int8")  # types whose maps are rows of pixels
LINE = 16  # numbers of a cache line: every pitch is a multiple, so that runs begin on a line


@dataclass(eq=False)
class Samples:
    """A loop that some calls stand in, one after the other for each of `count` samples: `moves` has, of the storages
    that hold all samples, how many numbers they lie apart. Other storages hold one at a time."""

    count: int
    moves: dict[Storage, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    """One step: a kernel on views, the last of which it writes; or (kernel None) the fallback for a node. Neighbours
    with the same `samples` share a loop; their views are of the first sample."""

    kernel: Kernel | None
    views: tuple[View, ...]
    node: Node
    what: str
    writes: int = 1
    samples: Samples | None = None

    @property
    def times(self) -> int:
        """How often it runs."""
        return 1 if self.samples is None else self.samples.count

    def move(self, view: View) -> int:
        """How many numbers its views of a storage move from one sample to the next."""
        return 0 if self.samples is None else self.samples.moves.get(view.storage, 0)


@dataclass(frozen=True)
class Refusal:
    """A node that no rule took, with each rule's reason."""

    node: Node
    reasons: tuple[str, ...]


@dataclass
class Lowering:
    """What is known while a network is turned into calls of kernels: places of values, calls, refusals."""

    graph: Graph
    machine: Machine
    rules: Callable[[Node], Sequence[Callable[[Lowering, Node], None]]]
    views: dict[Value, View] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    constants: dict[Storage, np.ndarray] = field(default_factory=dict)
    refusals: list[Refusal] = field(default_factory=list)
    done: set[Node] = field(default_factory=set)
    gaps: dict[tuple[int, int], int] = field(default_factory=dict)
    borders: dict[Value, int] = field(default_factory=dict)
    whole: dict[Value, View] = field(default_factory=dict)
    tuner: Tuner | None = None
    times: dict[Node, Times] = field(default_factory=dict)
    copies: dict[Any, View] = field(default_factory=dict)  # what is there in another order (see `copied_once`)
    words: dict[Any, Any] = field(default_factory=dict)  # what is there as words of bfloat16 (see rules/words.py)
    later: dict[Value, Callable[[], View]] = field(default_factory=dict)  # what is made when somebody asks for it
    asked: list[Value] = field(default_factory=list)  # of these, what was made
    weights: dict[Node, int] = field(default_factory=dict)  # numbers of the weights of a contraction, zeros too

    def run(self) -> None:
        for value in self.graph.inputs:
            storage = Storage(int(np.prod(value.shape)), value.dtype, "input", value.name)
            self.views[value] = View(storage, dense(value.shape))
        self.walk()
        for value in self.graph.outputs:
            storage = Storage(int(np.prod(value.shape)), value.dtype, "output", value.name)
            view = View(storage, dense(value.shape))
            self.copy(self.of(value), view, value.maker or handed_on(value))

    def walk(self) -> None:
        """The calls of all nodes, from inputs that have their places."""
        self.plan_borders()
        for node in self.graph.nodes:
            if node in self.done:
                continue
            self.done.add(node)
            reasons = []
            for rule in self.rules(node):
                mark, known, asked = len(self.calls), len(self.copies), len(self.asked)
                try:
                    rule(self, node)
                    break
                except NotMine as reason:
                    del self.calls[mark:]
                    self.copies = dict(list(self.copies.items())[:known])
                    for value in self.asked[asked:]:
                        del self.views[value]
                    del self.asked[asked:]
                    if str(reason):
                        reasons.append(f"{rule.__name__}: {reason}")
            else:
                self.refusals.append(Refusal(node, tuple(reasons)))
                self.fall_back(node)

    # values and storage

    def of(self, value: Value) -> View:
        """Where a value lies; constants get their place when somebody asks."""
        if value not in self.views and value in self.later:
            self.views[value] = self.later[value]()
            self.asked.append(value)
        if value not in self.views:
            if value.constant is None:
                raise NotMine(f"{value.name} is not there yet")
            self.views[value] = self.constant(value.constant)
        return self.views[value]

    def ready(self, value: Value | None) -> bool:
        return value is not None and (value.constant is not None or value in self.views or value in self.later)

    def constant(self, array: np.ndarray) -> View:
        array = np.asarray(array, order="C")
        storage = Storage(array.size, array.dtype.name, "constant")
        self.constants[storage] = array
        return View(storage, dense(array.shape))

    def scratch(self, shape: Sequence[int], order: Sequence[int], dtype: str = "float32") -> View:
        """Scratch whose axes lie in `order`, slowest first; the fastest is padded to whole lines, an odd number of them
        (rows whose distance is a power of two would share the sets of the cache)."""
        axes: list[Axis] = [()] * len(shape)
        stride = 1
        for position, index in enumerate(reversed(order)):
            axes[index] = digits(shape[index], stride)
            stride = pitch(shape[index]) if position == 0 and shape[index] > 1 else stride * shape[index]
        return View(Storage(max(stride, 1), dtype), tuple(axes))

    def like(self, view: View, shape: Sequence[int], dtype: str = "float32") -> View:
        """Scratch for `shape` with the digits of `view` in the same order."""
        order = sorted(
            (
                (digit.stride or 1 << 60, -axis, -place, digit.extent)
                for axis, row in enumerate(view.axes)
                for place, digit in enumerate(row)
            ),
        )
        strides: dict[tuple[int, int], int] = {}
        stride = 1
        for number, (_, axis, place, size) in enumerate(order):
            strides[-axis, -place] = stride
            stride = pitch(size) if number == 0 else stride * size
        axes = tuple(
            tuple(Digit(digit.extent, strides[axis, place]) for place, digit in enumerate(row))
            for axis, row in enumerate(view.axes)
        )
        assert tuple(extent(row) for row in axes) == tuple(shape)
        return View(Storage(max(stride, 1), dtype), axes)

    def map_of(self, shape: Sequence[int], border: int = 0, dtype: str = "float32") -> View:
        """Scratch for [N, C, H, W]: pixels of a map in rows with a gap that maps of one size share; with a border of
        zeros around it where a convolution will read it."""
        n, c, h, w = shape
        gap = max(self.gaps.get((h, w), 0), border)
        row = w + gap
        start = border * row + (gap if border else 0)
        run = (h - 1) * row + w
        plane = pitch(start + max(lines(run), run + border * row + gap))
        zeros = (plane, h, row, border, w) if border else None
        storage = Storage(n * c * plane, dtype, zeros=zeros)
        axes = (digits(n, c * plane), digits(c, plane), digits(h, row), digits(w, 1))
        return View(storage, axes, start)

    def place(self, value: Value, like: View | None = None) -> View:
        """A new place for a value: inside the place of a Concat where one joins it along its rows, a map, or digits in
        the order of `like`."""
        joined = self.inside(value)
        if joined is not None:
            return joined
        if is_map(value, like) and value.dtype in MAPS:
            return self.map_of(value.shape, self.borders.get(value, 0), value.dtype)
        if like is not None and like.shape == value.shape:
            return self.like(like, value.shape, value.dtype)
        return self.scratch(value.shape, tuple(range(len(value.shape))), value.dtype)

    def inside(self, value: Value) -> View | None:
        """A part of the Concat of channels that will read this value, so that the Concat copies nothing."""
        for user in value.users:
            if user.op != "Concat" or len(value.shape) != 4 or value.dtype not in MAPS or user in self.done:
                continue
            axis = user.attributes["axis"] % 4
            result = user.outputs[0]
            if axis != 1 or sum(entry is value for entry in user.inputs) != 1 or self.inside_refused(result, value):
                continue
            if result not in self.whole:
                self.whole[result] = self.map_of(result.shape, self.borders.get(result, 0), result.dtype)
            start = 0
            for entry in user.inputs:
                if entry is value:
                    break
                assert entry is not None
                start += entry.shape[1]
            return self.whole[result].slice(1, start, value.shape[1])
        return None

    def inside_refused(self, result: Value, value: Value) -> bool:
        return self.borders.get(value, 0) > self.borders.get(result, 0)

    def plan_borders(self) -> None:
        """Which maps want a border of zeros: those that a convolution of stride 1 pads."""
        for node in self.graph.nodes:
            border = border_of(node)
            if border and node.inputs[0] is not None and node.inputs[0].constant is None:
                value = node.inputs[0]
                self.borders[value] = max(border, self.borders.get(value, 0))
        for node in reversed(self.graph.nodes):
            if node.op == "Concat" and len(node.outputs[0].shape) == 4 and node.attributes["axis"] % 4 == 1:
                for entry in node.inputs:
                    if entry is not None and entry in self.borders:
                        self.borders[node.outputs[0]] = max(self.borders[entry], self.borders.get(node.outputs[0], 0))
        widest: dict[tuple[int, int], int] = {}
        for value, border in self.borders.items():
            size = value.shape[2], value.shape[3]
            widest[size] = max(border, widest.get(size, 0))
        self.gaps = pixel_rows(self.graph.nodes, widest)

    # calls

    def call(self, kernel: Kernel, views: Sequence[View], node: Node, what: str) -> None:
        self.calls.append(Call(kernel, tuple(views), node, what))

    def choose(
        self,
        node: Node,
        signature: tuple[int, ...],
        tiles: Sequence[T],
        kernel_of: Callable[[T], Kernel],
        views_of: Callable[[T], list[View]],
    ) -> tuple[T, Kernel, list[View]]:
        """The form of a step that is fastest as measured; where nothing is measured the first."""
        number, known = 0, len(self.constants)
        if self.tuner is not None:
            kernels = [kernel_of(tile) for tile in tiles]
            full = [bool(getattr(tile, "full", False)) for tile in tiles]
            number, times = self.tuner.best(
                signature, kernels, full, lambda: [views_of(tile) for tile in tiles], self.constants
            )
            self.times[node] = times
            for storage in list(self.constants)[known:]:
                del self.constants[storage]  # packed weights of all forms: a network has room for one of each
        return tiles[number], kernel_of(tiles[number]), views_of(tiles[number])

    def map(
        self, expression: Expression, operands: Sequence[View], result: View, node: Node, what: str = "map"
    ) -> None:
        """One elementwise step; operands are broadcast to the shape of the result."""
        wide = [operand.expand(result.shape) for operand in operands]
        try:
            walked = loops([*(view.axes for view in wide), result.axes])
        except NotMine:  # an axis is 3 by 4 in one operand and 4 by 3 in another
            rows = [self.copied_once(each, range(len(each.shape)), node, "copy") for each in operands]
            wide = [each.expand(result.shape) for each in rows]
            walked = loops([*(view.axes for view in wide), result.axes])
        walked.sort(key=lambda loop: (-loop.strides[-1], -max(loop.strides)))
        if expression == Leaf(0) and (moved := turn(walked, wide[0], result) or by_two(walked, wide[0], result)):
            self.call(moved, [wide[0], result], node, what)
            return
        outer, run = self.fastest(walked, len(wide) + 1)
        dtypes = (*(view.dtype for view in wide), result.dtype)
        kernel = Map(expression, dtypes, outer, run)
        self.call(kernel, [*wide, result], node, what)

    @staticmethod
    def fastest(walked: Sequence[Loop], arrays: int) -> tuple[tuple[tuple[int, ...], ...], tuple[int, ...]]:
        """The loops with the run taken out: the loop over which the result has stride 1, else the longest."""
        if not walked:
            return (), (1, *(0,) * (arrays - 1), 1)
        rest = list(walked)
        ones = [loop for loop in rest if loop.strides[-1] == 1]
        # A run of two or three is no run: the numbers are then written one by one, in the longest loop.
        run = ones[0] if ones and ones[0].extent >= 4 else max(rest, key=lambda loop: (loop.extent, -max(loop.strides)))
        rest.remove(run)
        return tuple((loop.extent, *loop.strides) for loop in rest), (run.extent, *run.strides)

    def copy(self, source: View, target: View, node: Node, what: str = "copy") -> None:
        expression: Expression = Leaf(0)
        self.map(expression, [source], target, node, what)

    def copied_once(self, source: View, order: Sequence[int], node: Node, what: str) -> View:
        """A copy whose axes lie in `order`, one for all that read the same numbers in it."""
        key = source.storage, source.offset, source.axes, tuple(order)
        if key not in self.copies:
            target = self.scratch(source.shape, order, source.dtype)
            self.copy(source, target, node, what)
            self.copies[key] = target
        return self.copies[key]

    def plain(self, value: Value, node: Node) -> View:
        """The value as ONNX knows it: row-major, without gaps."""
        view = self.of(value)
        if view.axes == dense(value.shape) and view.offset == 0 and view.storage.size == int(np.prod(value.shape)):
            return view
        target = View(Storage(int(np.prod(value.shape)), value.dtype), dense(value.shape))
        self.copy(view, target, node)
        return target

    def fall_back(self, node: Node) -> None:
        given = dict.fromkeys(value for value in node.inputs if value is not None and value.constant is None)
        inputs = [self.plain(value, node) for value in given]
        outputs = []
        for value in node.outputs:
            view = View(Storage(int(np.prod(value.shape)), value.dtype), dense(value.shape))
            self.views[value] = view
            outputs.append(view)
        self.calls.append(Call(None, (*inputs, *outputs), node, "fallback", len(outputs)))


def handed_on(value: Value) -> Node:
    """What makes an output that is an input or a constant."""
    return Node("Identity", [value], [value], {}, value.name, ir.Node("", "Identity", []))


def turn(walked: Sequence[Loop], source: View, target: View) -> Turn | None:
    """A copy where one axis lies side by side in the source and another in the target: blocks turned in registers."""
    if source.dtype != "float32" or target.dtype != "float32":
        return None
    column = next((loop for loop in walked if loop.strides[0] == 1 and loop.strides[1] > 1), None)
    row = next((loop for loop in walked if loop.strides[1] == 1 and loop.strides[0] > 1), None)
    if column is None or row is None or min(column.extent, row.extent) < 8:
        return None
    outer = tuple((loop.extent, loop.strides) for loop in walked if loop is not row and loop is not column)
    return Turn(row.extent, column.extent, row.strides[0], column.strides[1], outer, guarded=True)


def by_two(walked: Sequence[Loop], source: View, target: View) -> Zip | Unzip | None:
    """A copy that interleaves two rows, or takes every second number."""
    if source.dtype != "float32" or target.dtype != "float32":
        return None

    def around(*used: Loop) -> tuple[tuple[int, tuple[int, ...]], ...]:
        return tuple((loop.extent, loop.strides) for loop in walked if loop not in used)

    pair = next((loop for loop in walked if loop.extent == 2 and loop.strides[1] == 1), None)
    spread = next((loop for loop in walked if loop.extent >= 4 and loop.strides == (1, 2)), None)
    if pair is not None and spread is not None:
        return Zip(spread.extent, pair.strides[0], around(pair, spread))
    second = next((loop for loop in walked if loop.extent >= 4 and loop.strides == (2, 1)), None)
    return None if second is None else Unzip(second.extent, around(second))


def lines(size: int) -> int:
    """Up to whole cache lines."""
    return -(-size // LINE) * LINE


def pitch(size: int) -> int:
    """Distance of rows: whole lines, an odd number of them once there is more than one."""
    count = -(-size // LINE)
    return (count + 1 - count % 2 if count > 1 else count) * LINE


def is_map(value: Value, like: View | None) -> bool:
    """Whether a value is a map of pixels: four axes, and the rows of what it is made from are rows of pixels."""
    return len(value.shape) == 4 and (
        like is None or like.shape != value.shape or fast_axis(like) == 3 or value.shape[3] == 1
    )


def fast_axis(view: View) -> int | None:
    """The axis whose neighbours lie side by side."""
    for index, axis in enumerate(view.axes):
        if axis and axis[-1].stride == 1:
            return index
    return None


def border_of(node: Node) -> int:
    """Width of the border that a convolution of stride 1 reads around its input."""
    window = window_of(node) if node.op == "Conv" else None
    return max(*window.before, *window.after) if window is not None and window.strides == (1, 1) else 0
