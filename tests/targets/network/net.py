"""ONNX models in a few lines: `net.op("Conv", x, net.weight(8, 3, 3, 3), pads=[1, 1, 1, 1])`.

May import onnx and numpy. Must never import graphprune.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference

OPSET = 17


class Net:
    """Collects nodes and stored tensors; values are their names. Weights come from the seed."""

    def __init__(self, opset: int = OPSET, seed: int = 0) -> None:
        self.opset = opset
        self.generator = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.stored: list[onnx.TensorProto] = []
        self.count = 0

    def name(self, hint: str) -> str:
        self.count += 1
        return f"{hint}{self.count}"

    def input(self, *shape: int, dtype: str = "float32") -> str:
        name = self.name("input")
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def constant(self, array: Any, dtype: str | None = None) -> str:
        name = self.name("constant")
        self.stored.append(numpy_helper.from_array(np.asarray(array, dtype), name))
        return name

    def numbers(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def weight(self, *shape: int, density: float = 1.0) -> str:
        """Normal numbers that keep the variance of what is summed over all axes but the first, some of them zero."""
        scale = max(1.0, float(np.prod(shape[1:]))) ** -0.5
        array = self.generator.standard_normal(shape) * scale * (self.generator.random(shape) < density)
        return self.constant(array, "float32")

    def op(self, kind: str, *inputs: str | None, domain: str = "", **attributes: Any) -> str:
        return self.ops(kind, *inputs, outputs=1, domain=domain, **attributes)[0]

    def ops(self, kind: str, *inputs: str | None, outputs: int, domain: str = "", **attributes: Any) -> list[str]:
        made = [self.name(kind.lower()) for _ in range(outputs)]
        given = [name or "" for name in inputs]
        self.nodes.append(helper.make_node(kind, given, made, self.name(kind), domain=domain, **attributes))
        return made

    def model(self, *outputs: str) -> onnx.ModelProto:
        """The model with these outputs, whose types and sizes are inferred."""
        untyped = [onnx.ValueInfoProto(name=name) for name in outputs]
        graph = helper.make_graph(self.nodes, "net", self.inputs, untyped, self.stored)
        opsets = [helper.make_opsetid("", self.opset)]
        if any(node.domain for node in self.nodes):
            opsets.append(helper.make_opsetid("com.microsoft", 1))
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8 if self.opset < 19 else 10)
        found = shape_inference.infer_shapes(model, data_prop=True)
        known: Sequence[onnx.ValueInfoProto] = [*found.graph.value_info, *found.graph.output, *found.graph.input]
        types = {value.name: value for value in known if value.type.WhichOneof("value")}
        del model.graph.output[:]
        model.graph.output.extend(types.get(name, onnx.ValueInfoProto(name=name)) for name in outputs)
        return model
