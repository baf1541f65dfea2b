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
    """Pixels of a patch, over any number of axes, are channels; what the last window does not reach is left out."""
    x, w, *bias = node.inputs
    weights, shape, result = array(w), sizes(x), sizes(node.outputs[0])
    if weights is None or weights.ndim < 4 or shape is None or result is None or x is None or not is_float(x):
        return None
    kernel, (n, c, *extents), counts = weights.shape[2:], shape, result[2:]
    ones = (1,) * len(kernel)
    alone = tuple(number(node, "strides", ones)) == kernel and tuple(number(node, "dilations", ones)) == ones
    if not alone or prod(kernel) < LEAST or any(number(node, "pads", ())) or number(node, "auto_pad", "NOTSET") in SAME:
        return None
    reached = [count * size for count, size in zip(counts, kernel, strict=True)]
    if reached != extents:
        axes = np.arange(2, len(shape))
        starts, ends = (make.constant(np.array(each, np.int64)) for each in (np.zeros(len(axes)), reached))
        x = make.op("Slice", x, starts, ends, make.constant(axes), shape=(n, c, *reached))
    x = make.reshape(x, (n, c, *(size for pair in zip(counts, kernel, strict=True) for size in pair)))
    order = (0, 1, *range(3, 2 + 2 * len(kernel), 2), *range(2, 2 + 2 * len(kernel), 2))
    x = make.op("Transpose", x, shape=(n, c, *kernel, *counts), perm=order)
    pixels = (prod(counts[:-1]), counts[-1])
    x = make.reshape(x, (n, c * prod(kernel), *pixels))
    flat = make.constant(weights.reshape(len(weights), -1, 1, 1))
    y = make.op("Conv", x, flat, *bias, shape=(n, len(weights), *pixels), group=number(node, "group", 1))
    return [y if pixels == counts else make.reshape(y, result)]
