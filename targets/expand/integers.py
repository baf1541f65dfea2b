"""Operators on quantised numbers, said as the operator itself between DequantizeLinear and QuantizeLinear.

That is how ONNX defines them, and the form in which rules find quantised products, whichever way a file says it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from graphprune.targets.expand.maker import Maker, array, is_float, number, sizes


def numbers(make: Maker, entries: Sequence[ir.Value | None], axis: int | None = None) -> ir.Value | None:
    """What integers, their scale and zero point stand for; one scale for each place of `axis`, where there are many."""
    x, scale, zero = entries
    shape, factors = sizes(x), array(scale)
    if x is None or shape is None or factors is None or (zero is not None and array(zero) is None):
        return None
    offsets = array(zero)
    if offsets is not None and offsets.size not in {1, factors.size}:
        return None
    if factors.size == 1:
        scale = make.constant(factors.reshape(()))
        zero = None if offsets is None else make.constant(offsets.reshape(-1)[0])
        return make.op("DequantizeLinear", x, scale, zero, shape=shape)
    if axis is None:
        return None
    scale = make.constant(factors.reshape(-1))
    if offsets is not None:
        zero = make.constant(np.broadcast_to(offsets.reshape(-1), factors.size))
    return make.op("DequantizeLinear", x, scale, zero, shape=shape, axis=axis)


def integers(make: Maker, x: ir.Value, ends: Sequence[ir.Value | None]) -> list[ir.Value] | None:
    """The result as it is stored: `ends` are its scale and zero point."""
    scale, zero = ends
    factors, offsets, output = array(scale), array(zero), make.node.outputs[0]
    if factors is None or factors.size != 1 or offsets is None or output.dtype is None:
        return None
    parameters = make.constant(factors.reshape(())), make.constant(offsets.reshape(-1)[0])
    result = make.op("QuantizeLinear", x, *parameters, shape=sizes(output))
    result.type = ir.TensorType(output.dtype)
    return [result]


def attributes(node: ir.Node, leave: Sequence[str] = ()) -> dict[str, object]:
    """The attributes of a node by name, without some."""
    return {name: attribute.value for name, attribute in node.attributes.items() if name not in leave}


def bias(make: Maker, stored: ir.Value | None, x_scale: ir.Value | None, scale: ir.Value | None) -> ir.Value | None:
    """Integers in units of what is multiplied; float32 rounds their scale as onnxruntime does."""
    one, many, kept = array(x_scale), array(scale), array(stored)
    if one is None or many is None or kept is None:
        return None
    factors = (one.reshape(()) * many.reshape(-1)).astype(np.float32)
    parameters: tuple[ir.Value, ir.Value | None] = make.constant(kept.reshape(-1)), make.constant(factors)
    return numbers(make, (*parameters, None), axis=0)


def convolution(make: Maker, node: ir.Node) -> list[ir.Value] | None:
    """QLinearConv: x, its scale and zero point, w, its scale and zero point, those of y, and a bias in int32."""
    x, w = numbers(make, node.inputs[0:3]), numbers(make, node.inputs[3:6], axis=0)
    if x is None or w is None or sizes(node.outputs[0]) is None:
        return None
    given = [x, w]
    if len(node.inputs) > 8 and node.inputs[8] is not None:
        added = bias(make, node.inputs[8], node.inputs[1], node.inputs[4])
        if added is None:
            return None
        given.append(added)
    y = make.op("Conv", *given, shape=sizes(node.outputs[0]), **attributes(node))
    return integers(make, y, node.inputs[6:8])


def matmul(make: Maker, node: ir.Node) -> list[ir.Value] | None:
    """QLinearMatMul: a and b with their scales and zero points, and those of y."""
    b = sizes(node.inputs[3])
    a, b_numbers = numbers(make, node.inputs[0:3]), numbers(make, node.inputs[3:6], axis=len(b or ()) - 1)
    if a is None or b_numbers is None or sizes(node.outputs[0]) is None:
        return None
    return integers(make, make.op("MatMul", a, b_numbers, shape=sizes(node.outputs[0])), node.inputs[6:8])


def gemm(make: Maker, node: ir.Node) -> list[ir.Value] | None:
    """QGemm of onnxruntime: a and b with their scales and zero points, a bias in int32, and those of y, if any."""
    column = 0 if number(node, "transB", 0) else 1
    a, b = numbers(make, node.inputs[0:3]), numbers(make, node.inputs[3:6], axis=column)
    if a is None or b is None or sizes(node.outputs[0]) is None or len(node.inputs) < 9:
        return None
    given = [a, b]
    if node.inputs[6] is not None:
        added = bias(make, node.inputs[6], node.inputs[1], node.inputs[4])
        if added is None or number(node, "alpha", 1.0) != 1.0:
            return None
        given.append(added)
    y = make.op("Gemm", *given, shape=sizes(node.outputs[0]), **attributes(node))
    return integers(make, y, node.inputs[7:9])


def unary(make: Maker, node: ir.Node) -> list[ir.Value] | None:
    """QLinear operators of onnxruntime with one operand: x and y with their scales and zero points."""
    x = numbers(make, node.inputs[0:3])
    if x is None or sizes(node.outputs[0]) is None or number(node, "channels_last", 0) or len(node.inputs) < 5:
        return None
    kind = node.op_type.removeprefix("QLinear")
    y = make.op(kind, x, shape=sizes(node.outputs[0]), **attributes(node, ("channels_last",)))
    return integers(make, y, node.inputs[3:5])


def binary(make: Maker, node: ir.Node) -> list[ir.Value] | None:
    """QLinearAdd and QLinearMul of onnxruntime: a, b and y with their scales and zero points."""
    a, b = numbers(make, node.inputs[0:3]), numbers(make, node.inputs[3:6])
    if a is None or b is None or sizes(node.outputs[0]) is None or len(node.inputs) < 8:
        return None
    y = make.op(node.op_type.removeprefix("QLinear"), a, b, shape=sizes(node.outputs[0]))
    return integers(make, y, node.inputs[6:8])


def concat(make: Maker, node: ir.Node) -> list[ir.Value] | None:
    """QLinearConcat of onnxruntime: scale and zero point of y, then three inputs for each part."""
    if len(node.inputs) % 3 != 2:
        return None
    entries = [numbers(make, node.inputs[start : start + 3]) for start in range(2, len(node.inputs), 3)]
    if any(entry is None for entry in entries) or sizes(node.outputs[0]) is None:
        return None
    y = make.op("Concat", *entries, shape=sizes(node.outputs[0]), **attributes(node))
    return integers(make, y, node.inputs[0:2])


def dynamic(make: Maker, node: ir.Node) -> list[ir.Value] | None:
    """All numbers from the least to the largest, and zero, in 255 steps."""
    x, shape = node.inputs[0], sizes(node.inputs[0])
    if shape is None or not is_float(x):
        return None
    assert x is not None
    flat = make.reshape(x, (int(np.prod(shape)),))
    zero = make.constant(np.zeros((), np.float32))
    low = make.op("Min", make.op("ReduceMin", flat, shape=(), keepdims=0), zero, shape=())
    high = make.op("Max", make.op("ReduceMax", flat, shape=(), keepdims=0), zero, shape=())
    steps = make.constant(np.array(255, np.float32))
    scale = make.op("Div", make.op("Sub", high, low, shape=()), steps, shape=())
    point = make.op("QuantizeLinear", make.op("Neg", low, shape=()), scale, make.constant(np.zeros((), np.uint8)))
    result = make.op("QuantizeLinear", x, scale, point)
    for value, size in ((point, ()), (result, shape)):
        value.shape, value.type = ir.Shape(size), ir.TensorType(ir.DataType.UINT8)
    return [result, scale, point]


def standard(make: Maker, node: ir.Node) -> list[ir.Value] | None:
    """The operators of onnxruntime that ONNX has too, in its types and with one scale."""
    factors, shape = array(node.inputs[1]), sizes(node.outputs[0])
    kinds = {ir.DataType.FLOAT, ir.DataType.UINT8, ir.DataType.INT8, ir.DataType.INT32}
    used = {node.inputs[0].dtype if node.inputs[0] is not None else None, node.outputs[0].dtype}
    if factors is None or factors.size != 1 or shape is None or not used <= kinds:
        return None
    result = make.op(node.op_type, *node.inputs, shape=shape)
    result.type = node.outputs[0].type
    return [result]
