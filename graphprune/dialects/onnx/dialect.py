"""What the analysis asks of ONNX: the rule of an operator, and the numbers behind a constant value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from graphprune.dialects.onnx import functions
from graphprune.dialects.onnx.cells import ATTENTION_AND_RNN
from graphprune.dialects.onnx.channels import on_channels
from graphprune.dialects.onnx.compute import COMPUTE
from graphprune.dialects.onnx.contrib import CONTRIB
from graphprune.dialects.onnx.elementwise import ELEMENTWISE
from graphprune.dialects.onnx.flow import CALL, FLOW
from graphprune.dialects.onnx.fold import can_fold
from graphprune.dialects.onnx.pinned import PINNED
from graphprune.dialects.onnx.special import SPECIAL
from graphprune.dialects.onnx.structure import STRUCTURE
from graphprune.functions import Function
from graphprune.program import Array, Contraction, Node, Value
from graphprune.rules.notation import checked_row
from graphprune.rules.operator import Operator
from graphprune.rules.trace import Trace, Typed

TABLE: dict[str, Operator] = {
    **PINNED,
    **ELEMENTWISE,
    **STRUCTURE,
    **COMPUTE,
    **FLOW,
    **ATTENTION_AND_RNN,
    **CONTRIB,
    **SPECIAL,
}

# What may stand between a stored tensor and the contraction that reads it; folded when its numbers matter.
_DEQUANTISES = frozenset({"DequantizeLinear", "com.microsoft:DequantizeLinear"})
FOLDABLE = _DEQUANTISES | {"Identity", "Transpose", "Cast", "Reshape", "Squeeze", "Unsqueeze", "Flatten"}
MOST_FOLDED = 64
"""Operators in a row that are folded; what comes out of more is taken for computed."""


def rows(rules: Mapping[str, str]) -> dict[str, Operator]:
    """Rows of the user in axis notation. Raises ``GP107`` where one cannot be read.

    >>> sorted(rows({"my.domain:Scale": "n c ..., c -> n c ..."}))
    ['my.domain:Scale']
    """
    return {name: Operator(_row_rule(name, text)) for name, text in rules.items()}


def _row_rule(name: str, text: str) -> Callable[[Trace, Node], list[Typed]]:
    row = checked_row(name, text)
    return lambda trace, node: [row(trace, trace.operands())]


class OnnxDialect:
    """The ONNX operator table and constants. ``extra`` are rows of the user, by operator name."""

    name = "onnx"

    def __init__(self, extra: dict[str, Operator] | None = None):
        self.table = TABLE | (extra or {})

    def row(self, node: Node) -> Operator | None:
        """The row of the node's operator; a function defined in the model is walked through its body."""
        if "call" in node.blocks:
            return CALL
        return self.table.get(node.op)

    def is_affine(self, node: Node) -> bool:
        """Whether an output entry whose weights are all zero is the bias as it is stored."""
        return node.op in {"Conv", "ConvTranspose", "MatMul", "Einsum"} or (
            node.op == "Gemm" and node.attributes.get("beta", 1.0) == 1.0
        )

    def can_fold(self, contraction: Contraction) -> bool:
        """Whether what a constant channel adds to this sum can be moved into its bias (see :mod:`graphprune.dead`)."""
        return can_fold(contraction)

    def on_channels(self, node: Node, vectors: list[Array | None]) -> Array | None:
        """What a node makes of operands known channel by channel (see :mod:`graphprune.dead`)."""
        return on_channels(node, vectors, evaluate)

    def function(self, node: Node) -> Function | None:
        """What a node computes entry by entry (see :mod:`graphprune.functions`); ``None`` for all others."""
        return functions.function(node, self.constant)

    def writes(self, node: Node) -> bool:
        """Whether a node writes to memory that it reads: none does."""
        return False

    def is_constant(self, value: Value) -> bool:
        """Whether a value is computed from stored tensors alone, through operators that are folded here."""
        steps = 0
        while value.stored is None:
            node, steps = value.producer, steps + 1
            if (
                steps > MOST_FOLDED
                or node is None
                or node.op not in FOLDABLE
                or not node.inputs
                or node.inputs[0] is None
            ):
                return False
            if any(other is not None and other.stored is None for other in node.inputs[1:]):
                return False
            value = node.inputs[0]
        return True

    def constant(self, value: Value) -> Array | None:
        """The numbers of a constant value, ``None`` where it is not constant."""
        if value.stored is not None:
            return value.stored.read()
        if not self.is_constant(value) or value.producer is None:
            return None
        node = value.producer
        inputs = [None if other is None else self.constant(other) for other in node.inputs]
        return _fold(node, inputs)


def _fold(node: Node, inputs: list[Array | None]) -> Array:
    x = inputs[0]
    assert x is not None
    if node.op == "Transpose":
        return x.transpose(node.attributes.get("perm"))
    if node.op in _DEQUANTISES:
        return _dequantized(node, x, inputs)
    if node.op in {"Identity", "Cast"}:
        return x
    return evaluate(node, inputs)


def evaluate(node: Node, inputs: list[Array | None]) -> Array:
    """The first output of one node, by the reference implementation of its operator."""
    import onnx
    from onnx.helper import make_tensor_value_info, np_dtype_to_tensor_dtype
    from onnx.reference import ReferenceEvaluator
    from onnx_ir import serde

    given = {f"x{k}": array for k, array in enumerate(inputs) if array is not None}
    proto = serde.serialize_node(node.native)
    del proto.input[:], proto.output[:]
    proto.input.extend(f"x{k}" if array is not None else "" for k, array in enumerate(inputs))
    proto.output.append("y")
    kinds = {name: np_dtype_to_tensor_dtype(array.dtype) for name, array in given.items()}
    formal = [make_tensor_value_info(name, kinds[name], array.shape) for name, array in given.items()]
    result = make_tensor_value_info("y", next(iter(kinds.values())), None)
    graph = onnx.helper.make_graph([proto], "node", formal, [result])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid(node.native.domain, node.version)])
    outcome: Array = ReferenceEvaluator(model).run(None, given)[0]  # type: ignore[index]  # a list unless profiling
    return outcome


def _dequantized(node: Node, x: Array, inputs: list[Array | None]) -> Array:
    """``(x - zero_point) * scale``, per tensor, per axis or per block of ``block_size`` along the axis."""
    scale = inputs[1]
    zero = inputs[2] if len(inputs) > 2 else None
    assert scale is not None
    axis, block = int(node.attributes.get("axis", 1)) % max(1, x.ndim), int(node.attributes.get("block_size", 0))
    spread: list[Any] = []
    for part in (scale, zero):
        if part is None:
            spread.append(np.float32(0))
        elif part.size == 1:
            spread.append(part.reshape(()).astype(np.float32))
        elif block:
            spread.append(np.repeat(part, block, axis)[tuple(slice(n) for n in x.shape)].astype(np.float32))
        else:
            spread.append(part.astype(np.float32).reshape([-1 if k == axis else 1 for k in range(x.ndim)]))
    result: Array = (x.astype(np.float32) - spread[1]) * spread[0]
    return result
