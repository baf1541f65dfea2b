"""What an ONNX model says of numbers of 8 bits: whether there are any, and how far apart those of its outputs are."""

from __future__ import annotations

from typing import Any

MOVES = {"Concat", "Flatten", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"}
MARKS = ("Quantize", "QLinear", "Integer", "QGemm")


def is_quantised(model: Any) -> bool:
    """Whether any operator of a model works on quantised numbers."""
    return any(mark in node.op_type for node in model.graph for mark in MARKS)


def steps(model: Any) -> dict[str, float]:
    """The distance of neighbouring numbers, for each output that is quantised with one scale."""
    found = {value.name: step(value) for value in model.graph.outputs}
    return {name: size for name, size in found.items() if size is not None}


def step(value: Any) -> float | None:
    """How far neighbouring numbers of a value are apart, where it is known to lie on a grid of 8 bits."""
    node = value.producer()
    if node is None:
        return None
    if node.op_type == "QuantizeLinear" or (node.op_type.startswith("QLinear") and node.op_type != "QLinearSoftmax"):
        return 1.0  # of integers
    if node.op_type == "DequantizeLinear":
        scale = node.inputs[1].const_value
        numbers = None if scale is None else scale.numpy().reshape(-1)
        return float(numbers[0]) if numbers is not None and numbers.size == 1 else None
    return step(node.inputs[0]) if node.op_type in MOVES and not node.domain else None
