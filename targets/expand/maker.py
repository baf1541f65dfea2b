"""Makes the nodes that stand for another one, with shapes and types, and puts them in its place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir import tape


class Maker:
    """Operators as calls, on values whose shapes are known."""

    def __init__(self, graph: ir.Graph, node: ir.Node) -> None:
        self.graph = graph
        self.node = node
        self.tape = tape.Tape()
        self.count = 0

    def op(
        self, kind: str, *inputs: ir.Value | None, shape: Sequence[int] | None = None, **attributes: Any
    ) -> ir.Value:
        """One node with one output, of float32, and of this shape where shape inference is not to find it."""
        self.count += 1
        value = self.tape.op(kind, inputs, attributes, name=f"{self.node.name or self.node.op_type}/{kind}{self.count}")
        value.name = f"{self.node.outputs[0].name}/{kind}{self.count}"
        if shape is not None:
            value.shape = ir.Shape(shape)
            value.dtype = ir.DataType.FLOAT
        return value

    def constant(self, array: np.ndarray) -> ir.Value:
        self.count += 1
        name = f"{self.node.outputs[0].name}/constant{self.count}"
        value = ir.Value(name=name, const_value=ir.tensor(np.asarray(array, order="C"), name=name))
        value.shape = ir.Shape(array.shape)
        value.dtype = ir.DataType.from_numpy(array.dtype)
        self.graph.register_initializer(value)
        return value

    def reshape(self, value: ir.Value, shape: Sequence[int]) -> ir.Value:
        """The value, of any type, in this shape."""
        found = self.op("Reshape", value, self.constant(np.array(shape, np.int64)), shape=shape)
        found.type = value.type
        return found

    def replace(self, results: Sequence[ir.Value]) -> list[ir.Node]:
        """Puts what was made in the place of the node, and returns it."""
        made = list(self.tape.nodes)
        old = self.node
        ir.convenience.replace_nodes_and_values(self.graph, old, [old], made, list(old.outputs), list(results))
        return made


def array(value: ir.Value | None) -> np.ndarray | None:
    """The numbers of a constant."""
    return None if value is None or value.const_value is None else value.const_value.numpy()


def sizes(value: ir.Value | None) -> tuple[int, ...] | None:
    """The shape, where every size is known."""
    if value is None or value.shape is None or not all(isinstance(size, int) for size in value.shape):
        return None
    return tuple(int(size) for size in value.shape)  # type: ignore[arg-type]


def is_float(value: ir.Value | None) -> bool:
    """Whether it is known to hold float32."""
    return value is not None and value.dtype == ir.DataType.FLOAT


def number(node: ir.Node, name: str, default: Any) -> Any:
    """An attribute, or what ONNX says it is where it is left out."""
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.value
