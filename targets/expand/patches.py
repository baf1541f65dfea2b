"""Convolutions whose windows lie side by side (patches of a transformer, layers that halve a map) without a window.

Conv(x [n, c, h k, w k], stride k) = Conv1x1(x as [n, c k k, h, w])
"""

from __future__ import annotations

from math import prod

import numpy as np
import onnx_ir as ir

from graphprune.targets.expand.maker import Maker, array, is_float, number, sizes

LEAST = 2  # pixels of a patch
SAME = {"SAME_UPPER", "SAME_LOWER"}


def convolution(make: Maker, node: ir.Node) -> list[ir.Value] | None:
    """Pixels of a patch are channels; what the last window does not reach is left out."""
    x, w, *bias = node.inputs
    weights, shape, result = array(w), sizes(x), sizes(node.outputs[0])
    if weights is None or weights.ndim != 4 or shape is None or result is None or x is None or not is_float(x):
        return None
    kernel, ones = weights.shape[2:], (1, 1)
    alone = tuple(number(node, "strides", ones)) == kernel and tuple(number(node, "dilations", ones)) == ones
    if not alone or prod(kernel) < LEAST or any(number(node, "pads", ())) or number(node, "auto_pad", "NOTSET") in SAME:
        return None
    (n, c, h, w_), (tall, wide) = shape, result[2:]
    (down, right), reached = kernel, (tall * kernel[0], wide * kernel[1])
    if reached != (h, w_):
        ends = make.constant(np.array(reached, np.int64))
        starts, axes = (make.constant(np.array(each, np.int64)) for each in ((0, 0), (2, 3)))
        x = make.op("Slice", x, starts, ends, axes, shape=(n, c, *reached))
    x = make.reshape(x, (n, c, tall, down, wide, right))
    x = make.op("Transpose", x, shape=(n, c, down, right, tall, wide), perm=(0, 1, 3, 5, 2, 4))
    x = make.reshape(x, (n, c * down * right, tall, wide))
    flat = make.constant(weights.reshape(len(weights), -1, 1, 1))
    return [make.op("Conv", x, flat, *bias, shape=result, group=number(node, "group", 1))]
