"""Runs of steps that go through one sample after the other, so that what a step writes is close when the next reads it.

What a step makes of eight samples fills a second-level cache many times, and the next would read it from memory. So a
run is lowered as a network of one sample, and its calls stand in a loop over all of them. That is right where no step
mixes samples, which the operator tells (`APART`). What is made in a run and read behind it lies there for all samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import prod

import numpy as np

from graphprune.targets.network.graph import RESHAPES, Graph, Node, Value
from graphprune.targets.network.layout import NotMine, View, digits, merged
from graphprune.targets.network.lowering import Lowering, Samples, lines
from graphprune.targets.rules import pointwise
from graphprune.targets.rules.estimate import CACHE, CLOSE
from graphprune.targets.rules.reductions import OPERATIONS, axes_of
from graphprune.targets.rules.shape import constant

FAR = 1 << 31  # numbers that an offset can tell


def one_by_one(at: Lowering, node: Node) -> None:
    """A node and those behind it that keep samples apart, up to the last whose result does not stay close. Raises
    NotMine where there are none, without a reason: it is none why a node has no kernel."""
    count = node.outputs[0].shape[0] if node.outputs[0].shape else 1
    if count < 2 or not far(node):
        raise NotMine  # one sample, or what it makes of all of them stays close
    nodes = run_from(at, node, count)
    graph, copies = single(nodes, at.graph)
    ends = (copies[value].maker for value in (*graph.inputs, *graph.outputs))
    if any(maker is not None and maker.op == "DequantizeLinear" for maker in ends):
        raise NotMine  # what is stored in 8 bits would be cut off from its numbers
    inner, samples = lowered(at, graph, copies, count)
    for value in graph.outputs:
        view = inner.of(value)
        row = digits(count, samples.moves[view.storage])
        at.views[copies[value]] = View(view.storage, (row, *view.axes[1:]), view.offset)
    at.calls += [replace(call, samples=samples) for call in inner.calls]
    at.constants.update(inner.constants)
    at.times.update(inner.times)
    at.weights.update(inner.weights)
    at.done.update(nodes)


def lowered(at: Lowering, graph: Graph, copies: Mapping[Value, Value], count: int) -> tuple[Lowering, Samples]:
    """The calls of one sample, and how far the samples lie apart in what is read or made for all of them; storage of
    results gets room for all. Raises NotMine where a step has no kernel, and where there are too many numbers."""
    inner = Lowering(graph, at.machine, at.rules, tuner=at.tuner)
    samples = Samples(count)
    for value in graph.inputs:
        view = at.of(copies[value])
        row = merged(view.axes[0])
        if len(row) != 1 or samples.moves.setdefault(view.storage, row[0].stride) != row[0].stride:
            raise NotMine  # its samples lie in pieces
        inner.views[value] = View(view.storage, ((), *view.axes[1:]), view.offset)
    inner.walk()
    if inner.refusals:
        raise NotMine
    made = {inner.of(value).storage for value in graph.outputs} - set(samples.moves)
    samples.moves.update((storage, lines(storage.size)) for storage in made)
    if any(storage.kind == "constant" for storage in made) or max(samples.moves.values(), default=0) * count >= FAR:
        raise NotMine
    for storage in made:
        storage.size = samples.moves[storage] * count
    return inner, samples


def far(node: Node) -> bool:
    """Whether what a node makes of all samples does not stay close, while one sample is still worth a step."""
    value = node.outputs[0]
    size = prod(value.shape) * np.dtype(value.dtype).itemsize
    return size > CACHE and size > CLOSE * value.shape[0]


def run_from(at: Lowering, first: Node, count: int) -> list[Node]:
    """The nodes from this one on, before one that mixes samples, whose last result does not stay close. Raises NotMine
    for fewer than two."""
    found: list[Node] = []
    for node in at.graph.nodes[at.graph.nodes.index(first) :]:
        if (node in at.done and node is not first) or all(entry.constant is not None for entry in node.outputs):
            continue
        if not apart(node, count):
            break
        found.append(node)
    while found and not far(found[-1]):
        found.pop()
    if len(found) < 2:
        raise NotMine
    return found


def apart(node: Node, count: int) -> bool:
    """Whether a node computes each of `count` samples, along the first axis, from that sample alone."""
    values = [entry for entry in (*node.inputs, *node.outputs) if entry is not None and entry.constant is None]
    alike = all(entry.shape[:1] == (count,) for entry in values)
    return alike and node.op in APART and APART[node.op](node)


def single(nodes: list[Node], graph: Graph) -> tuple[Graph, dict[Value, Value]]:
    """The nodes as a network of one sample, and the value that each of its inputs and outputs stands for."""
    copies: dict[Value, Value] = {}

    def of(value: Value) -> Value:
        if value.constant is not None:
            return value
        return copies.setdefault(value, Value(value.name, (1, *value.shape[1:]), value.dtype))

    made = []
    for node in nodes:
        inputs = [None if entry is None else of(entry) for entry in node.inputs]
        one = replace(node, inputs=inputs, outputs=[of(entry) for entry in node.outputs])
        for entry in inputs:
            if entry is not None and entry.constant is None:
                entry.users.append(one)
        for entry in one.outputs:
            entry.maker = one
        made.append(one)
    inside = set(nodes)
    given = [one for one in copies.values() if one.maker is None]
    asked = [value for value in copies if value in graph.outputs or not inside.issuperset(value.users)]
    results = [copies[value] for value in asked if copies[value].maker is not None]
    return Graph(made, given, results, graph.opset), {one: value for value, one in copies.items()}


def always(node: Node) -> bool:
    return True


def elementwise(node: Node) -> bool:
    """Operands have the samples on the same axis, or none."""
    rank = len(node.outputs[0].shape)
    given = [entry for entry in node.inputs if entry is not None]
    return all(
        len(entry.shape) == rank if entry.constant is None else len(entry.shape) < rank or entry.shape[0] == 1
        for entry in given
    )


def multiplied(node: Node) -> bool:
    """Matrices of the samples, by each other or by one for all; a sample is no row of a matrix."""
    return len(node.outputs[0].shape) > 2 and elementwise(node)


def joined(node: Node) -> bool:
    rank = len(node.outputs[0].shape)
    return node.attributes["axis"] % rank != 0 and all(entry and entry.constant is None for entry in node.inputs)


def turned(node: Node) -> bool:
    order = node.attributes.get("perm")
    return order is not None and order[0] == 0


def along(default: int) -> Callable[[Node], bool]:
    """The axis of the node, `default` where it says none, is another than that of the samples."""
    return lambda node: node.attributes.get("axis", default) % len(node.outputs[0].shape) != 0


def looked_up(node: Node) -> bool:
    """Constant entries of the samples, or in a constant."""
    data, where = node.inputs
    assert data is not None and where is not None
    axis = node.attributes.get("axis", 0) % len(data.shape)
    return axis == 0 if data.constant is not None else axis != 0 and where.constant is not None


def cut(node: Node) -> bool:
    axes = constant(node, 3, "axes")
    return axes is not None and all(axis % len(node.outputs[0].shape) for axis in axes)


def reduced(node: Node) -> bool:
    assert node.inputs[0] is not None
    return 0 not in axes_of(node, len(node.inputs[0].shape))


APART: dict[str, Callable[[Node], bool]] = {
    **dict.fromkeys(pointwise.POINTWISE, elementwise),
    **dict.fromkeys(RESHAPES, always),  # the first axis is as long as it was, and numbers keep their order
    **dict.fromkeys(OPERATIONS, reduced),
    **dict.fromkeys(("AveragePool", "BatchNormalization", "Conv", "Dropout", "Identity", "MaxPool"), always),
    "Concat": joined,
    "Gather": looked_up,
    "LayerNormalization": along(-1),
    "MatMul": multiplied,
    "RMSNormalization": along(-1),
    "Slice": cut,
    "Softmax": along(-1),
    "Split": along(0),
    "Transpose": turned,
}
"""Of each operator, whether samples stay apart in a node whose operands all have them on the first axis."""
