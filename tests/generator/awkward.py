"""Blocks that must not be cut, or only with care: odd slices, permutations, padding, competition between channels."""

from __future__ import annotations

import numpy as np

from .blocks import block
from .builder import At, Builder, Tensor
from .layers import activate, convolve


@block("image")
def padded_shortcut(b: Builder, x: Tensor) -> Tensor:
    """Channels added by zero padding on both sides before a residual sum."""
    channels = int(x.shape[1])
    before, after = int(b.generator.integers(0, 4)), int(b.generator.integers(1, 5))
    if b.opset >= 18 and b.chance(0.4):
        padded_inputs = [b.integers(before, after), None, b.integers(1)]
    else:
        padded_inputs = [b.integers(0, before, 0, 0, 0, after, 0, 0)]
    shape = [x.shape[0], channels + before + after, *x.shape[2:]]
    padded = b.op("Pad", x, *padded_inputs, shape=shape)
    return activate(b, b.op("Add", padded, convolve(b, x, int(padded.shape[1]), kernel=3)))


@block("image")
def odd_slices(b: Builder, x: Tensor) -> Tensor:
    """A window of the channels at any offset; what is left over may be concatenated again elsewhere."""
    y = convolve(b, x, b.channels())
    channels = int(y.shape[1])
    start = int(b.generator.integers(0, channels - 1))
    stop = int(b.generator.integers(start + 1, channels + 1))
    taken = b.slice(y, 1, start, stop)
    parts = [taken] if start == 0 else [taken, b.slice(y, 1, 0, start)]
    joined = b.concat(1, *parts) if len(parts) > 1 else taken
    return convolve(b, activate(b, joined), b.channels())


@block("image")
def strided_slices(b: Builder, x: Tensor) -> Tensor:
    """Every second channel, or the channels in reverse."""
    y = convolve(b, x, 2 * b.channels(most=10))
    channels, step = int(y.shape[1]), b.choose([2, -1])
    start, stop, count = (0, channels, channels // 2) if step == 2 else (channels - 1, -channels - 1, channels)
    bounds = [b.integers(start), b.integers(stop), b.integers(1), b.integers(step)]
    return convolve(b, b.op("Slice", y, *bounds, shape=[x.shape[0], count, *x.shape[2:]]), b.channels())


@block("image")
def gathered_channels(b: Builder, x: Tensor) -> Tensor:
    """Channels picked by stored indices: in any order, some of them, or some of them twice."""
    y = convolve(b, x, b.channels())
    channels = int(y.shape[1])
    style = b.choose(["permutation", "part", "repeated"])
    order = b.generator.permutation(channels)
    if style == "part":
        order = order[: max(1, channels // 2)]
    elif style == "repeated":
        order = b.generator.integers(0, channels, channels)
    shape = [x.shape[0], len(order), *x.shape[2:]]
    return convolve(b, b.op("Gather", y, b.store(order.astype(np.int64), "order"), shape=shape, axis=1), b.channels())


@block("image")
def repeated_channels(b: Builder, x: Tensor) -> Tensor:
    """Channels repeated by Tile, by Expand and Reshape, or concatenated with themselves."""
    y = convolve(b, x, b.channels(most=8))
    channels = int(y.shape[1])
    style = b.choose(["tile", "expand", "concat"])
    if style == "tile":
        z = b.op("Tile", y, b.integers(1, 2, 1, 1), shape=[x.shape[0], 2 * channels, *x.shape[2:]])
    elif style == "concat":
        z = b.concat(1, y, activate(b, y))
    else:
        axis = b.choose([1, 2])
        single = b.op("Unsqueeze", y, b.integers(axis), shape=[*y.shape[:axis], 1, *y.shape[axis:]])
        copies = [1, 1, 1, 1, 1]
        copies[axis] = 3
        shape = [3 if place == axis else size for place, size in enumerate(single.shape)]
        many = b.op("Expand", single, b.integers(*copies), shape=shape)
        z = b.reshape(many, At(0), 3 * channels, At(3), At(4))
    return convolve(b, z, b.channels())


@block("image")
def competing_channels(b: Builder, x: Tensor) -> Tensor:
    """Channels that compete: softmax, the largest ones, a running sum, normalisation by neighbours."""
    y = convolve(b, x, b.channels())
    channels = int(y.shape[1])
    style = b.choose(["softmax", "topk", "cumsum", "lrn", "norm", "argmax"])
    if style == "softmax":
        z = b.op("Mul", y, b.op("Softmax", y, axis=1))
    elif style == "topk":
        shape = [x.shape[0], channels // 2, *x.shape[2:]]
        z = b.ops("TopK", y, b.integers(channels // 2), shapes=[shape, shape], axis=1)[0]
    elif style == "cumsum":
        z = b.op("CumSum", y, b.store(np.array(1, np.int64)))
        z = b.op("Mul", z, b.scalar(channels**-0.5))
    elif style == "lrn":
        z = b.op("LRN", y, size=3)
    elif style == "norm":
        z = b.op("LpNormalization", y, axis=1, p=2)
    else:
        best = b.op("ArgMax", y, shape=[x.shape[0], 1, *x.shape[2:]], axis=1)
        z = b.op("Add", y, b.op("Mul", b.op("Cast", best, to=1), b.scalar(1.0 / channels)))
    return convolve(b, z, b.channels())


@block("image")
def masked_channels(b: Builder, x: Tensor) -> Tensor:
    """A stored mask over channels, applied by Where."""
    channels = int(x.shape[1])
    mask = b.store(b.generator.random((1, channels, 1, 1)) < 0.7, "mask")
    other = b.choose([b.scalar(0.1), b.weight(channels, 1, 1, hint="other")])
    return _blended(b, x, b.op("Where", mask, x, other, shape=x.shape))


@block("image")
def maximum_of_pairs(b: Builder, x: Tensor) -> Tensor:
    """Maxout: the larger of every k channels, through a reshape."""
    width, each = b.channels(most=10), b.choose([2, 3])
    y = convolve(b, x, width * each)
    apart = b.reshape(y, At(0), width, each, At(2), At(3))
    return b.reduce(b.choose(["ReduceMax", "ReduceSum"]), apart, 2, keepdims=False)


@block("sequence")
def scattered_features(b: Builder, x: Tensor) -> Tensor:
    """Features rolled by Slice and Concat, or some of them replaced by stored numbers."""
    features = int(x.shape[2])
    if b.chance(0.5):
        cut = int(b.generator.integers(1, features))
        return b.concat(2, b.slice(x, 2, cut, features), b.slice(x, 2, 0, cut))
    mask = b.store(np.append(b.generator.random(features - 1) < 0.5, True), "mask")
    return _blended(b, x, b.op("Where", mask, x, b.weight(features, hint="other"), shape=x.shape))


def _blended(b: Builder, x: Tensor, y: Tensor) -> Tensor:
    """0.3 x + y: whatever y has lost of x, the output still depends on all of it."""
    return b.op("Add", b.op("Mul", x, b.scalar(0.3)), y)
