"""Transposed convolutions: a convolution that computes all phases of the output as channels, then interleaves them.

Output o = q s + p of phase p gets x[i] w[k] wherever o + before = i s + k d, with stride s and dilation d: i is q and
(p + before - k d) / s, for the taps where that is whole. For every phase that is a convolution of stride 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import onnx_ir as ir

from graphprune.targets.expand.maker import Maker, array, is_float, number, sizes


def conv_transpose(make: Maker, node: ir.Node) -> list[ir.Value] | None:
    """One convolution whose channels are the phases of the result, which are interleaved behind it."""
    x, w, *rest = node.inputs
    weights, shape, result = array(w), sizes(x), sizes(node.outputs[0])
    if weights is None or weights.ndim != 4 or shape is None or result is None or not is_float(x):
        return None
    assert x is not None
    strides, group = tuple(number(node, "strides", (1, 1))), number(node, "group", 1)
    axes = []
    for axis, dilation in enumerate(number(node, "dilations", (1, 1))):
        taps, stride, end = weights.shape[2 + axis], strides[axis], result[2 + axis]
        before = begins(node, axis, shape[2 + axis], (taps - 1) * dilation + 1, stride, end)
        axes.append(Phases(taps, stride, dilation, before, end))
    x = begun(make, x, [max(0, each.first) for each in axes])
    held = sizes(x)
    assert held is not None
    inputs = [x, make.constant(phased(weights, axes, group))]
    bias = array(rest[0]) if rest else None
    if rest and rest[0] is not None:
        if bias is None:
            return None
        per = strides[0] * strides[1]
        inputs.append(make.constant(np.repeat(bias.reshape(group, 1, -1), per, 1).reshape(-1)))
    pads = [each.padding(length) for each, length in zip(axes, held[2:], strict=True)]
    tall, wide = (
        length + before + after - each.taps + 1
        for length, (before, after), each in zip(held[2:], pads, axes, strict=True)
    )
    channels = result[1] * strides[0] * strides[1]
    y = make.op(
        "Conv",
        *inputs,
        shape=(shape[0], channels, tall, wide),
        group=group,
        kernel_shape=[each.taps for each in axes],
        pads=[pad for side in zip(*pads, strict=True) for pad in side],
    )
    if strides != (1, 1):
        down, right = strides
        y = make.reshape(y, (shape[0], group, down, right, result[1] // group, tall, wide))
        turned = (shape[0], group, result[1] // group, tall, down, wide, right)
        y = make.op("Transpose", y, shape=turned, perm=(0, 1, 4, 5, 2, 6, 3))
        y = make.reshape(y, (shape[0], result[1], tall * down, wide * right))
    if (tall * strides[0], wide * strides[1]) != result[2:]:
        y = cut(make, y, [0, 0], result)
    return [y]


class Phases:
    """The phases of one axis: every one has taps at input places q + first ... q + last for its output number q."""

    def __init__(self, kernel: int, stride: int, dilation: int, before: int, size: int) -> None:
        self.kernel, self.stride, self.dilation, self.before = kernel, stride, dilation, before
        self.count = -(-size // stride)
        places = [place for phase in range(stride) for place, _ in self.of(phase)]
        self.first, self.last = min(places), max(places)
        self.taps = self.last - self.first + 1

    def padding(self, size: int) -> tuple[int, int]:
        """Zeros around `size` numbers, of which the first is number `first` of the input where that is positive. More
        of them may be there than the outputs read: no zeros are less than none."""
        before = max(0, -self.first)
        return before, max(0, self.count - 1 + self.taps - before - size)

    def of(self, phase: int) -> list[tuple[int, int]]:
        """Input place from the output's own, and tap, of one phase."""
        apart = [(phase + self.before - tap * self.dilation, tap) for tap in range(self.kernel)]
        return [(distance // self.stride, tap) for distance, tap in apart if distance % self.stride == 0]


def phased(weights: np.ndarray, axes: list[Phases], group: int) -> np.ndarray:
    """Weights [inputs, outputs of a group, ...] as [groups x phases x outputs of a group, inputs of a group, ...]."""
    inputs, per, _, _ = weights.shape
    rows, columns = axes
    inner = inputs // group
    made = np.zeros((group, rows.stride, columns.stride, per, inner, rows.taps, columns.taps), weights.dtype)
    source = weights.reshape(group, inner, per, rows.kernel, columns.kernel).transpose(0, 2, 1, 3, 4)
    for a, b in product(range(rows.stride), range(columns.stride)):
        for (i, k), (j, m) in product(rows.of(a), columns.of(b)):
            made[:, a, b, :, :, i - rows.first, j - columns.first] = source[..., k, m]
    return made.reshape(-1, inner, rows.taps, columns.taps)


def begins(node: ir.Node, axis: int, size: int, kernel: int, stride: int, result: int) -> int:
    """What is cut off before the first output, as ONNX defines it from padding, or from the size of the output."""
    auto = number(node, "auto_pad", "NOTSET")
    extra = int(number(node, "output_padding", (0, 0))[axis])
    if auto in {"SAME_UPPER", "SAME_LOWER"} or "output_shape" in node.attributes:
        total = stride * (size - 1) + extra + kernel - result
        upper = auto == "SAME_UPPER"
        return max(0, total) // 2 if upper else max(0, total) - max(0, total) // 2
    pads: Sequence[int] = number(node, "pads", (0, 0, 0, 0))
    return 0 if auto == "VALID" else int(pads[axis])


def begun(make: Maker, x: ir.Value, starts: list[int]) -> ir.Value:
    """What of a map begins at these rows and columns."""
    shape = sizes(x)
    assert shape is not None
    if not any(starts):
        return x
    return cut(make, x, starts, (*shape[:2], *(size - start for size, start in zip(shape[2:], starts, strict=True))))


def cut(make: Maker, x: ir.Value, starts: list[int], shape: tuple[int, ...]) -> ir.Value:
    """The part of a map with this shape that begins at these rows and columns."""
    version = make.graph.opset_imports.get("", 1)
    ends, axes = [start + size for start, size in zip(starts, shape[2:], strict=True)], [2, 3]
    if version < 10:
        return make.op("Slice", x, shape=shape, starts=starts, ends=ends, axes=axes)
    given = [make.constant(np.array(numbers, np.int64)) for numbers in (starts, ends, axes)]
    return make.op("Slice", x, *given, shape=shape)
