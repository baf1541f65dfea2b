"""Convolutions and pools over one axis: the same over two, the first of which has one place.

Conv(x [N, C, W], w [O, I, K]) = Conv(x [N, C, 1, W], w [O, I, 1, K])
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphprune.targets.expand.maker import Maker, array, is_float, number, sizes

PAIRS = {"kernel_shape": 1, "strides": 1, "dilations": 1, "output_padding": 0, "output_shape": 1}
ELEMENTWISE = {
    "Clip", "Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "QuantizeLinear", "Relu", "Sigmoid", "Silu",
    "Softplus", "Tanh",
}  # fmt: skip
WINDOWS = {"AveragePool", "Conv", "ConvTranspose", "MaxPool"}
SAME = ("auto_pad", "group", "ceil_mode", "count_include_pad", "storage_order")


def window(make: Maker, node: ir.Node) -> list[ir.Value] | None:
    """A convolution or pool over one axis as one over two, of which the first has size 1."""
    x, *rest = node.inputs
    shape, result = sizes(x), sizes(node.outputs[0])
    if shape is None or len(shape) != 3 or result is None or len(node.outputs) > 1 or not is_float(x):
        return None
    assert x is not None
    attributes = {name: node.attributes[name].value for name in SAME if name in node.attributes}
    for name, one in PAIRS.items():
        if name in node.attributes:
            attributes[name] = [one, *node.attributes[name].value]
    if "pads" in node.attributes:
        before, after = node.attributes["pads"].value
        attributes["pads"] = [0, before, 0, after]
    inputs = [make.reshape(x, (*shape[:2], 1, shape[2]))]
    if rest:
        weights = widened(make, rest[0])
        if weights is None:
            return None
        inputs += [weights, *(each for each in rest[1:] if each is not None)]
    wide = make.op(node.op_type, *inputs, shape=(*result[:2], 1, result[2]), **attributes)
    return [make.reshape(wide, result)]


def widened(make: Maker, value: ir.Value | None) -> ir.Value | None:
    """Constant weights over two axes; those that are quantised stay as they are stored."""
    kept = array(value)
    if kept is not None:
        return make.constant(kept[:, :, None, :])
    source = None if value is None else value.producer()
    if source is None or source.op_type != "DequantizeLinear" or number(source, "block_size", 0):
        return None
    stored = array(source.inputs[0])
    axis = number(source, "axis", 1) % 3
    if stored is None or stored.ndim != 3 or axis == 2:
        return None
    shape = (*stored.shape[:2], 1, stored.shape[2])
    return make.op("DequantizeLinear", make.constant(stored[:, :, None, :]), *source.inputs[1:], shape=shape, axis=axis)


def before(graph: ir.Graph) -> bool:
    """Elementwise steps behind a window over one axis come before its result loses the axis, so that they can join it:
    in place; whether anything changed."""
    found = False
    for node in list(graph):
        while node.op_type == "Reshape" and not node.domain and (step := following(graph, node)) is not None:
            source, old = node.inputs[0], step.outputs[0]
            assert source is not None
            moved = ir.Node("", step.op_type, [source, *step.inputs[1:]], step.attributes.values(), name=step.name)
            again = ir.Node("", "Reshape", [moved.outputs[0], *node.inputs[1:]], name=node.name)
            for value, shape, name in ((moved.outputs[0], source.shape, "wide"), (again.outputs[0], old.shape, "")):
                value.name, value.shape, value.type = f"{old.name}/{name}" if name else old.name, shape, old.type
            ir.convenience.replace_nodes_and_values(graph, step, [node, step], [moved, again], [old], again.outputs)
            node, found = again, True
    return found


def following(graph: ir.Graph, node: ir.Node) -> ir.Node | None:
    """The one step that reads what a window over one axis gave, where it is elementwise with one operand."""
    source, result = node.inputs[0], node.outputs[0]
    if source is None or result.is_graph_output() or source.shape is None or len(source.shape) != 4:
        return None
    users = list(result.uses())
    if len(users) != 1 or users[0][1] != 0 or not made_by_window(source):
        return None
    step = users[0][0]
    if step.op_type not in ELEMENTWISE or step.domain or step.graph is not graph:
        return None
    others = [array(entry) for entry in step.inputs[1:] if entry is not None]
    return step if all(other is not None and np.size(other) == 1 for other in others) else None


def made_by_window(value: ir.Value) -> bool:
    """Whether a value [N, C, 1, W] comes from a window, and steps that joined it."""
    node = value.producer()
    while node is not None and node.op_type in ELEMENTWISE and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node is not None and node.op_type in WINDOWS and value.shape is not None and value.shape[2] == 1
