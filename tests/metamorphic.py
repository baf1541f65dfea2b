"""Transformations of a model that change how it is written and not what it computes, nor which weights may be cut.

Each takes a model and returns a new one; the model given is not changed. May import onnx and numpy, and the shapes
that onnx infers. Must never import graphprune.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, helper, numpy_helper, version_converter

from tests.execution import graphs

Transformation = Callable[[ModelProto, int], ModelProto]


def copied(model: ModelProto) -> ModelProto:
    """A model of its own."""
    copy = ModelProto()
    copy.CopyFrom(model)
    return copy


def names(model: ModelProto) -> set[str]:
    """Every name of a value or a node, and the empty one, which stands for a missing input."""
    found = {""}
    for graph in graphs(model):
        found.update(value.name for value in (*graph.input, *graph.output, *graph.initializer))
        for node in graph.node:
            found.update((node.name, *node.input, *node.output))
    return found


def _fresh(taken: set[str], hint: str) -> str:
    """A name that is not taken, and is from now on."""
    name = next(name for count in range(10**9) if (name := f"{hint}_{count}") not in taken)
    taken.add(name)
    return name


def inferred(model: ModelProto) -> dict[str, list[int | str | None]]:
    """Shapes of the values of the main graph, as far as onnx infers them."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    shapes = {}
    for value in (*graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        if tensor.elem_type == onnx.TensorProto.FLOAT and tensor.HasField("shape"):
            shapes[value.name] = [
                d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in tensor.shape.dim
            ]
    return shapes


def insert_identities(model: ModelProto, seed: int) -> ModelProto:
    """Put pairs that undo each other behind some computed values.

    The pairs are Transpose and its inverse, Unsqueeze and Squeeze, a Reshape that merges the last two axes and one that
    takes them apart, and Identity twice.

    before: y = f(x); z = g(y)
    after:  y_ = f(x); t = Transpose(y_); y = Transpose(t); z = g(y)
    """
    generator = np.random.default_rng(seed)
    result, shapes = copied(model), inferred(model)
    taken = names(result)
    nodes: list[NodeProto] = []
    for node in result.graph.node:
        nodes.append(node)
        for place, name in enumerate(node.output):
            shape = shapes.get(name)
            if not name or shape is None or node.op_type == "Constant" or generator.random() > 0.4:
                continue
            node.output[place] = before = _fresh(taken, "before")
            nodes.extend(_pair(result.graph, taken, before, name, shape, generator))
    result.graph.ClearField("node")
    result.graph.node.extend(nodes)
    return result


def _pair(
    graph: GraphProto,
    taken: set[str],
    source: str,
    target: str,
    shape: list[int | str | None],
    generator: np.random.Generator,
) -> list[NodeProto]:
    """Two nodes from `source` to `target` that do nothing together."""
    middle, rank = _fresh(taken, "middle"), len(shape)
    style = str(generator.choice(["identity", "transpose", "unsqueeze", "reshape"]))
    last = shape[-2:]
    if style == "reshape" and rank >= 2 and all(isinstance(size, int) and size > 0 for size in last):
        merged = _vector(graph, taken, [*[0] * (rank - 2), int(np.prod(last))])  # type: ignore[arg-type]
        apart = _vector(graph, taken, [*[0] * (rank - 2), *last])  # type: ignore[list-item]
        return [_node(taken, "Reshape", [source, merged], middle), _node(taken, "Reshape", [middle, apart], target)]
    if style == "transpose" and rank >= 2:
        order = [int(axis) for axis in generator.permutation(rank)]
        back = [int(axis) for axis in np.argsort(order)]
        return [
            _node(taken, "Transpose", [source], middle, perm=order),
            _node(taken, "Transpose", [middle], target, perm=back),
        ]
    if style == "unsqueeze":
        axes = _vector(graph, taken, [int(generator.integers(rank + 1))])
        return [_node(taken, "Unsqueeze", [source, axes], middle), _node(taken, "Squeeze", [middle, axes], target)]
    return [_node(taken, "Identity", [source], middle), _node(taken, "Identity", [middle], target)]


def _node(taken: set[str], kind: str, inputs: list[str], output: str, **attributes: object) -> NodeProto:
    return helper.make_node(kind, inputs, [output], _fresh(taken, "node"), **attributes)


def _vector(graph: GraphProto, taken: set[str], values: list[int]) -> str:
    """Store an int64 vector; its name."""
    name = _fresh(taken, "vector")
    graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), name))
    return name


def rename(model: ModelProto, seed: int) -> ModelProto:
    """Give every value and node but the inputs and outputs another name, in other letters and another order."""
    generator = np.random.default_rng(seed)
    result = copied(model)
    kept = {value.name for value in (*result.graph.input, *result.graph.output)} | {""}
    old = sorted(names(result) - kept)
    numbers = generator.permutation(len(old))
    new = {name: f"~/blöck.{number}/x:{number}" for name, number in zip(old, numbers, strict=True)}
    for graph in graphs(result):
        for value in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
            value.name = new.get(value.name, value.name)
        for node in graph.node:
            node.name = new.get(node.name, node.name)
            node.input[:] = [new.get(name, name) for name in node.input]
            node.output[:] = [new.get(name, name) for name in node.output]
    return result


def renaming(before: ModelProto, after: ModelProto) -> dict[str, str]:
    """The names of stored tensors before, by those after; both models list them in the same order."""
    return {
        new.name: old.name
        for one, other in zip(graphs(before), graphs(after), strict=True)
        for old, new in zip(one.initializer, other.initializer, strict=True)
    } | {
        new.output[0]: old.output[0]
        for one, other in zip(graphs(before), graphs(after), strict=True)
        for old, new in zip(one.node, other.node, strict=True)
        if old.op_type == "Constant"
    }


def reorder(model: ModelProto, seed: int) -> ModelProto:
    """List the nodes in another topological order, and the initializers in any."""
    generator = np.random.default_rng(seed)
    result = copied(model)
    for graph in graphs(result):
        nodes, made = list(graph.node), {name for node in graph.node for name in node.output}
        waiting = [set(_reads(node)) & made for node in nodes]
        order: list[NodeProto] = []
        left = set(range(len(nodes)))
        done: set[str] = set()
        while left:
            ready = sorted(place for place in left if waiting[place] <= done)
            place = ready[int(generator.integers(len(ready)))]
            left.remove(place)
            order.append(nodes[place])
            done.update(nodes[place].output)
        tensors = [graph.initializer[int(place)] for place in generator.permutation(len(graph.initializer))]
        shuffled = [*map(_copy_node, order)], [*map(_copy_tensor, tensors)]
        graph.ClearField("node")
        graph.ClearField("initializer")
        graph.node.extend(shuffled[0])
        graph.initializer.extend(shuffled[1])
    return result


def _copy_node(node: NodeProto) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    return copy


def _copy_tensor(tensor: onnx.TensorProto) -> onnx.TensorProto:
    copy = onnx.TensorProto()
    copy.CopyFrom(tensor)
    return copy


def _reads(node: NodeProto) -> Iterator[str]:
    """Names that a node reads, in its inner graphs too."""
    yield from node.input
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            for inner in attribute.g.node:
                yield from _reads(inner)
            yield from (output.name for output in attribute.g.output)


def split_convolution(model: ModelProto, seed: int) -> ModelProto:
    """Write one convolution without groups as two, concatenated on their output channels.

    before: y = Conv(x, w, b)
    after:  y = Concat(Conv(x, w[:k], b[:k]), Conv(x, w[k:], b[k:]))

    Models without such a convolution come back as they are. The weight is split in the stored tensor, so the halves
    have names of their own: see `halves`.
    """
    generator = np.random.default_rng(seed)
    result = copied(model)
    stored = {tensor.name: tensor for tensor in result.graph.initializer}
    places = [place for place, node in enumerate(result.graph.node) if _can_split(model, node, stored)]
    if not places:
        return result
    place = places[int(generator.integers(len(places)))]
    node, taken = result.graph.node[place], names(result)
    width = stored[node.input[1]].dims[0]
    cut = int(generator.integers(1, width))
    nodes = list(result.graph.node)
    pieces = []
    for side, part in enumerate((slice(0, cut), slice(cut, width))):
        piece = _copy_node(node)
        piece.name, piece.output[0] = _fresh(taken, "node"), _fresh(taken, "half")
        for index in range(1, len(node.input)):
            if node.input[index]:
                piece.input[index] = f"{node.input[index]}|{side}"
                array = numpy_helper.to_array(stored[node.input[index]])[part]
                result.graph.initializer.append(numpy_helper.from_array(array, piece.input[index]))
        pieces.append(piece)
    joined = helper.make_node(
        "Concat", [piece.output[0] for piece in pieces], [node.output[0]], _fresh(taken, "node"), axis=1
    )
    nodes[place : place + 1] = [*pieces, joined]
    fresh_nodes = [*map(_copy_node, nodes)]
    gone = {name for name in node.input[1:] if name}
    tensors = [_copy_tensor(tensor) for tensor in result.graph.initializer if tensor.name not in gone]
    result.graph.ClearField("node")
    result.graph.ClearField("initializer")
    result.graph.node.extend(fresh_nodes)
    result.graph.initializer.extend(tensors)
    return result


def _can_split(model: ModelProto, node: NodeProto, stored: dict[str, onnx.TensorProto]) -> bool:
    """A Conv without groups whose weight and bias are initializers that nothing else reads."""
    weights = [name for name in node.input[1:] if name]
    group = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
    if node.op_type != "Conv" or group != 1 or any(name not in stored for name in weights):
        return False
    readers = [name for graph in graphs(model) for other in graph.node for name in other.input]
    return stored[weights[0]].dims[0] > 1 and all(readers.count(name) == 1 for name in weights)


def convert_opset(model: ModelProto, seed: int) -> ModelProto:
    """Convert to a newer opset, chosen at random, with onnx's own converter.

    Models that it refuses, and those with functions, which it does not convert, come back as they are.
    """
    generator = np.random.default_rng(seed)
    now = next(imported.version for imported in model.opset_import if imported.domain == "")
    target = int(generator.integers(now, 24)) if now < 24 else now
    if target == now or model.functions:
        return copied(model)
    try:
        return version_converter.convert_version(model, target)
    except (RuntimeError, onnx.onnx_cpp2py_export.version_converter.ConvertError):
        return copied(model)


def duplicate_constants(model: ModelProto, seed: int) -> ModelProto:
    """Give every reader of a stored integer tensor or of a scalar a copy of its own."""
    result = copied(model)
    taken = names(result)
    stored = {tensor.name: tensor for tensor in result.graph.initializer}
    shared = {name for name, tensor in stored.items() if _is_plain(tensor)}
    for graph in graphs(result):
        for node in graph.node:
            for place, name in enumerate(node.input):
                if name in shared:
                    node.input[place] = _fresh(taken, "copy")
                    copy = _copy_tensor(stored[name])
                    copy.name = node.input[place]
                    result.graph.initializer.append(copy)
    return result


def _is_plain(tensor: onnx.TensorProto) -> bool:
    """Sizes, indices and scalars; weights are not copied, since sharing them is a coupling."""
    return not tensor.dims or tensor.data_type == onnx.TensorProto.INT64


TRANSFORMATIONS: dict[str, Transformation] = {
    function.__name__: function
    for function in (insert_identities, rename, reorder, split_convolution, convert_opset, duplicate_constants)
}
