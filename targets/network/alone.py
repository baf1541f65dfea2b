"""The ONNX model of one node, for steps without a kernel: onnxruntime runs it on what the calls pass.

Nodes that run graphs of their own (If, Loop, Scan) read values from around them. Those are inputs of the node like any
other (`captured`), and the model has them under the names by which the inner graphs know them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from onnx_ir import serde

if TYPE_CHECKING:
    from graphprune.targets.network.graph import Graph, Node


def alone(node: Node, graph: Graph) -> bytes:
    """The model: inputs that are not constant, each once, ordered as by `Lowering.fall_back`; constants are stored."""
    import onnx
    from onnx import helper, numpy_helper

    given = {entry.name: entry for entry in node.inputs if entry is not None}
    inner = serde.serialize_node(node.source)
    inner.name = node.name
    body = onnx.GraphProto(name="fallback", node=[inner])
    for name, entry in given.items():
        if entry.constant is None:
            body.input.append(info(name, entry.dtype, entry.shape))
        else:
            body.initializer.append(numpy_helper.from_array(np.asarray(entry.constant, order="C"), name))
    body.output.extend(info(entry.name, entry.dtype, entry.shape) for entry in node.outputs)
    others = sorted({each.domain for each in nodes_in(node.source) if each.domain not in {"", "ai.onnx"}})
    opsets = [helper.make_opsetid("", graph.opset), *(helper.make_opsetid(domain, 1) for domain in others)]
    data: bytes = helper.make_model(body, opset_imports=opsets, ir_version=8).SerializeToString()
    return data


def info(name: str, dtype: str, shape: Sequence[int]) -> object:
    """Name, type and shape of a value, as onnx declares inputs and outputs."""
    from onnx import helper

    return helper.make_tensor_value_info(name, int(ir.DataType.from_numpy(np.dtype(dtype))), shape)


def bodies(node: ir.Node) -> Iterator[ir.Graph]:
    """The graphs that a control-flow node holds."""
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def nodes_in(node: ir.Node) -> Iterator[ir.Node]:
    """The node and all nodes of its graphs."""
    yield node
    for body in bodies(node):
        for each in body:
            yield from nodes_in(each)


def captured(node: ir.Node) -> list[ir.Value]:
    """The values from around a node that its graphs read, each once."""
    inside: set[ir.Value] = set()
    read: dict[ir.Value, None] = {}
    for each in nodes_in(node):
        if each is not node:
            inside.update(each.outputs)
            read.update((entry, None) for entry in each.inputs if entry is not None)
        for body in bodies(each):
            inside.update((*body.inputs, *body.initializers.values()))
            read.update((entry, None) for entry in body.outputs)
    return [entry for entry in read if entry not in inside]
