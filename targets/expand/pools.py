"""Large windows: over the rows of a window first, then over its columns; over all of the map, without a window.

max over (i, j) of x[i, j] = max over j of (max over i of x[i, j])
"""

from __future__ import annotations

import onnx_ir as ir

from graphprune.targets.expand.maker import Maker, is_float, number, sizes

TAPS = 16  # a window of this many is quicker in one go


def whole(make: Maker, node: ir.Node) -> list[ir.Value] | None:
    """A window that holds all of the map is a global pool, however much larger it is; a border must not count."""
    x, y = sizes(node.inputs[0]), sizes(node.outputs[0])
    kernel = number(node, "kernel_shape", ())
    if x is None or y is None or len(node.outputs) > 1 or not is_float(node.inputs[0]):
        return None
    ones = (1,) * len(kernel)
    pads = number(node, "pads", (0,) * (2 * len(kernel)))
    covered = all(size <= reach - pad for size, reach, pad in zip(x[2:], kernel, pads, strict=False))
    counted = node.op_type == "AveragePool" and number(node, "count_include_pad", 0) and any(pads)
    plain = number(node, "auto_pad", "NOTSET") == "NOTSET" and tuple(number(node, "dilations", ones)) == ones
    if y[2:] != ones or not covered or counted or not plain:
        return None
    return [make.op(f"Global{node.op_type}", node.inputs[0], shape=y)]


def max_pool(make: Maker, node: ir.Node) -> list[ir.Value] | None:
    """A large window as one along each axis: a + b comparisons in place of a x b."""
    x, y = sizes(node.inputs[0]), sizes(node.outputs[0])
    kernel = number(node, "kernel_shape", ())
    if x is None or y is None or len(kernel) != 2 or len(node.outputs) > 1 or not is_float(node.inputs[0]):
        return None
    if kernel[0] * kernel[1] <= TAPS or 1 in kernel or number(node, "auto_pad", "NOTSET") != "NOTSET":
        return None
    strides, dilations = number(node, "strides", (1, 1)), number(node, "dilations", (1, 1))
    pads, ceil = number(node, "pads", (0, 0, 0, 0)), number(node, "ceil_mode", 0)
    value = node.inputs[0]
    for axis, shape in ((0, (*x[:2], y[2], x[3])), (1, y)):
        along = [[each[axis] if place == axis else 1 for place in (0, 1)] for each in (kernel, strides, dilations)]
        padding = [pad if place % 2 == axis else 0 for place, pad in enumerate(pads)]
        value = make.op(
            "MaxPool", value, shape=shape,
            kernel_shape=along[0], strides=along[1], dilations=along[2], pads=padding, ceil_mode=ceil,
        )  # fmt: skip
    assert value is not None
    return [value]
