"""Blocks of convolutional networks on [N, C, H, W]: sums, concatenations, groups, gates and rearrangements."""

from __future__ import annotations

import math

import numpy as np

from .blocks import block
from .builder import At, Builder, Tensor
from .layers import activate, attend, batch_norm, convolve, group_norm, layer_norm, linear

MOST_PLACES = 100
MOST_FEATURES = 700


def _places(x: Tensor) -> float:
    """The number of places of an image, infinite where it is only known at run time."""
    return math.prod(size if isinstance(size, int) else math.inf for size in x.shape[2:])


@block("image")
def plain_convolution(b: Builder, x: Tensor) -> Tensor:
    """Convolution, normalisation, activation."""
    y = convolve(b, x, b.channels(), kernel=b.choose([1, 3]), dilation=b.choose([1, 1, 2]))
    return activate(b, b.choose([batch_norm, group_norm, lambda _, t: t])(b, y))


@block("image")
def normalised_groups(b: Builder, x: Tensor) -> Tensor:
    """A residual sum of values normalised in groups and channel by channel."""
    channels = int(x.shape[1])
    y = activate(b, group_norm(b, convolve(b, x, b.channels(), kernel=3)))
    z = b.op("InstanceNormalization", convolve(b, y, channels), b.factors(channels), b.weight(channels, hint="bias"))
    return b.op("Add", x, group_norm(b, z) if b.chance(0.5) else z)


@block("image")
def residual_bottleneck(b: Builder, x: Tensor) -> Tensor:
    """x + f(x), perhaps with a projected shortcut."""
    width = int(x.shape[1]) if b.chance(0.7) else b.channels()
    inner = activate(b, batch_norm(b, convolve(b, x, b.channels(most=12))))
    inner = activate(b, convolve(b, inner, b.channels(most=12), kernel=3))
    y = convolve(b, inner, width)
    shortcut = x if width == x.shape[1] else convolve(b, x, width)
    return activate(b, b.op("Add", shortcut, y) if b.chance(0.5) else b.op("Add", y, shortcut))


@block("image")
def depthwise_separable(b: Builder, x: Tensor) -> Tensor:
    """Depthwise convolution, perhaps with several outputs per channel, then a 1x1 convolution."""
    channels = int(x.shape[1])
    deep = convolve(b, x, channels * b.choose([1, 1, 2, 3]), kernel=3, groups=channels)
    return activate(b, convolve(b, batch_norm(b, deep), b.channels()))


@block("image")
def grouped_convolution(b: Builder, x: Tensor) -> Tensor:
    """A convolution in groups, from a number of channels to another."""
    groups = b.divisor(int(x.shape[1]))
    return activate(b, convolve(b, x, b.channels(groups), kernel=3, groups=groups))


@block("image")
def grouped_residual(b: Builder, x: Tensor) -> Tensor:
    """ResNeXt: the grouped convolution is between two plain ones, and everything is added to the input."""
    groups = b.choose([2, 3, 4])
    inner = activate(b, convolve(b, x, groups * b.choose([2, 3, 4])))
    inner = activate(b, convolve(b, inner, groups * b.choose([2, 3, 4]), kernel=3, groups=groups))
    return b.op("Add", x, convolve(b, inner, int(x.shape[1])))


@block("image")
def transposed_convolution(b: Builder, x: Tensor) -> Tensor:
    """ConvTranspose, in groups or not, that keeps the places or doubles them where there are few."""
    channels = int(x.shape[1])
    groups = b.choose([1, 1, b.divisor(channels), channels])
    each = max(1, b.channels(groups) // groups)
    bias = b.weight(groups * each, hint="bias") if b.chance(0.5) else None
    if _places(x) * 4 <= MOST_PLACES:
        weight = b.weight(channels, each, 2, 2, fan_in=channels // groups)
        shape = [x.shape[0], groups * each, 2 * int(x.shape[2]), 2 * int(x.shape[3])]
        y = b.op("ConvTranspose", x, weight, bias, shape=shape, group=groups, strides=[2, 2])
    else:
        weight = b.weight(channels, each, 3, 3, fan_in=channels // groups * 9)
        shape = [x.shape[0], groups * each, *x.shape[2:]]
        y = b.op("ConvTranspose", x, weight, bias, shape=shape, group=groups, pads=[1, 1, 1, 1])
    return activate(b, y)


@block("image")
def squeeze_excite(b: Builder, x: Tensor) -> Tensor:
    """A gate over channels, by 1x1 convolutions, by Linear layers, or from an average over a flattened view."""
    channels, hidden = int(x.shape[1]), b.channels(most=8)
    style = b.choose(["convolution", "linear", "flattened"])
    if style == "flattened":
        rows = b.reshape(x, At(0), channels, -1, shape=[x.shape[0], channels, "places"])
        vector = b.reduce("ReduceMean", rows, 2, keepdims=False)
    else:
        pooled = b.op("GlobalAveragePool", x, shape=[x.shape[0], channels, 1, 1])
        if style == "convolution":
            gate = convolve(b, activate(b, convolve(b, pooled, hidden)), channels)
            return b.op("Mul", x, b.op(b.choose(["Sigmoid", "HardSigmoid"]), gate))
        vector = b.op("Flatten", pooled, shape=[x.shape[0], channels], axis=1)
    gate = b.op("Sigmoid", linear(b, activate(b, linear(b, vector, hidden)), channels))
    spread = b.reshape(gate, At(0), channels, 1, 1)
    return b.op("Mul", spread, x, shape=x.shape)


@block("image")
def attention_gates(b: Builder, x: Tensor) -> Tensor:
    """CBAM: shared layers gate the channels, statistics over channels gate the places."""
    channels, hidden = int(x.shape[1]), b.channels(most=8)
    down = b.weight(hidden, channels, 1, 1, fan_in=channels)
    up = b.weight(channels, hidden, 1, 1, fan_in=hidden)
    gates = []
    for kind in ("GlobalAveragePool", "GlobalMaxPool"):
        pooled = b.op(kind, x, shape=[x.shape[0], channels, 1, 1])
        inner = b.op("Relu", b.op("Conv", pooled, down, shape=[x.shape[0], hidden, 1, 1]))
        gates.append(b.op("Conv", inner, up, shape=pooled.shape))
    gated = b.op("Mul", x, b.op("Sigmoid", b.op("Add", *gates)))
    kinds = [b.choose(["ReduceMean", "ReduceL2"]), b.choose(["ReduceMax", "ReduceMin"])]
    statistics = b.concat(1, *(b.reduce(kind, gated, 1) for kind in kinds))
    return b.op("Mul", gated, b.op("Sigmoid", convolve(b, statistics, 1, kernel=3)))


@block("image")
def inception(b: Builder, x: Tensor) -> Tensor:
    """Branches of different widths, concatenated, perhaps in two steps."""
    branches = [activate(b, convolve(b, x, b.channels(most=10), kernel=b.choose([1, 3]))) for _ in range(3)]
    if b.chance(0.3):
        branches[0] = batch_norm(b, x)
    if b.chance(0.5):
        return b.concat(1, b.concat(1, *branches[:2]), branches[2])
    return b.concat(1, *branches)


@block("image")
def dense_block(b: Builder, x: Tensor) -> Tensor:
    """DenseNet: each layer reads the concatenation of all before it."""
    for _ in range(2):
        grown = convolve(b, activate(b, batch_norm(b, x)), b.channels(most=8), kernel=3)
        x = b.concat(1, x, grown)
    return x


@block("image")
def split_and_merge(b: Builder, x: Tensor) -> Tensor:
    """C2f and CSP: cut the channels, transform a part with or without residual, concatenate several stages."""
    first = b.channels(most=10)
    second = first if b.chance(0.4) else b.channels(most=10)
    passed, taken = b.split(convolve(b, x, first + second), 1, [first, second])
    stages = [passed, taken]
    for _ in range(b.choose([1, 2])):
        inner = activate(b, convolve(b, stages[-1], b.channels(most=8), kernel=3))
        y = convolve(b, inner, second)
        stages.append(b.op("Add", stages[-1], y) if b.chance(0.6) else y)
    if b.chance(0.3):
        stages.reverse()
    return activate(b, convolve(b, b.concat(1, *stages), b.channels()))


@block("image")
def channel_shuffle(b: Builder, x: Tensor) -> Tensor:
    """Grouped convolution and shuffle, by reshape-transpose-reshape or by one Gather."""
    groups = b.choose([2, 3, 4])
    y = convolve(b, x, groups * b.choose([2, 4, 6]))
    y = convolve(b, y, int(y.shape[1]), groups=groups) if b.chance(0.6) else y
    channels = int(y.shape[1])
    if b.chance(0.3):
        order = np.arange(channels).reshape(groups, -1).T.reshape(-1)
        return b.op("Gather", y, b.store(order, "order"), axis=1)
    apart = b.reshape(y, At(0), groups, channels // groups, At(2), At(3))
    swapped = b.transpose(apart, 0, 2, 1, 3, 4)
    shuffled = b.reshape(swapped, At(0), channels, At(3), At(4))
    if b.chance(0.5):
        return activate(b, convolve(b, shuffled, b.channels(groups), groups=groups))
    return shuffled


@block("image")
def shuffle_unit(b: Builder, x: Tensor) -> Tensor:
    """ShuffleNet v2: halve, transform a half, concatenate, shuffle."""
    half = b.choose([4, 6, 8])
    y = x if x.shape[1] == 2 * half else convolve(b, x, 2 * half)
    passed, taken = b.split(y, 1, [half, half])
    inner = activate(b, convolve(b, taken, b.channels(most=8)))
    inner = convolve(b, inner, int(inner.shape[1]), kernel=3, groups=int(inner.shape[1]))
    joined = b.concat(1, passed, activate(b, convolve(b, inner, half)))
    apart = b.reshape(joined, At(0), 2, half, At(2), At(3))
    return b.reshape(b.transpose(apart, 0, 2, 1, 3, 4), At(0), 2 * half, At(3), At(4))


@block("image")
def pixel_shuffle(b: Builder, x: Tensor) -> Tensor:
    """Depth to space in both orders and written out, in rooms that are small enough."""
    if _places(x) * 4 > MOST_PLACES:
        return x
    channels = b.channels(most=6)
    y = convolve(b, x, 4 * channels, kernel=b.choose([1, 3]))
    height, width = int(x.shape[2]), int(x.shape[3])
    shape = [x.shape[0], channels, 2 * height, 2 * width]
    style = b.choose(["CRD", "DCR", "reshape"])
    if style == "reshape":
        apart = b.reshape(y, At(0), channels, 2, 2, height, width)
        swapped = b.transpose(apart, 0, 1, 4, 2, 5, 3)
        return convolve(b, b.reshape(swapped, At(0), channels, 2 * height, 2 * width), b.channels(), kernel=3)
    mode = {} if style == "DCR" and b.chance(0.5) else {"mode": style}
    return activate(b, b.op("DepthToSpace", y, shape=shape, blocksize=2, **mode))


@block("image")
def space_to_depth(b: Builder, x: Tensor) -> Tensor:
    """SpaceToDepth, or YOLO's focus: four strided slices, concatenated."""
    if _places(x) == math.inf or any(int(size) % 2 for size in x.shape[2:]):
        return x
    x = convolve(b, x, b.channels(most=8))
    channels, half = int(x.shape[1]), [int(size) // 2 for size in x.shape[2:]]
    if b.chance(0.5):
        y = b.op("SpaceToDepth", x, shape=[x.shape[0], 4 * channels, *half], blocksize=2)
    else:
        corners = []
        for row, column in ((0, 0), (1, 0), (0, 1), (1, 1)):
            bounds = [b.integers(row, column), b.integers(*map(int, x.shape[2:])), b.integers(2, 3), b.integers(2, 2)]
            corners.append(b.op("Slice", x, *bounds, shape=[x.shape[0], channels, *half]))
        y = b.concat(1, *corners)
    return activate(b, convolve(b, y, b.channels()))


@block("image")
def pooling(b: Builder, x: Tensor) -> Tensor:
    """Pooling over places that keeps their number."""
    kind = b.choose(["MaxPool", "AveragePool", "LpPool"])
    return b.op(kind, x, kernel_shape=[3, 3], pads=[1, 1, 1, 1])


@block("image")
def resizing(b: Builder, x: Tensor) -> Tensor:
    """Resize by factors or to sizes; the sizes name the channels too."""
    if x.static and b.chance(0.5):
        return b.op("Resize", x, None, None, b.op("Shape", x, shape=[4]) if b.chance(0.3) else b.integers(*x.shape))  # type: ignore[arg-type]
    factors = b.store(np.array([1, 1, 1, 1], np.float32), "factors")
    if _places(x) * 2 <= MOST_PLACES:
        factors = b.store(np.array([1, 1, 1, 2], np.float32), "factors")
        return b.op("Resize", x, None, factors, shape=[*x.shape[:3], 2 * int(x.shape[3])], mode="nearest")
    return b.op("Resize", x, None, factors, mode=b.choose(["nearest", "linear"]))


@block("image")
def pooled_context(b: Builder, x: Tensor) -> Tensor:
    """ASPP: the average over places, transformed, expanded back to all places and concatenated."""
    channels = b.channels(most=8)
    pooled = b.reduce("ReduceMean", x, 2, 3)
    context = activate(b, convolve(b, pooled, channels))
    if b.chance(0.5):
        target = b.op("Concat", b.size(x, 0), b.integers(channels), b.size(x, 2), b.size(x, 3), shape=[4], axis=0)
    else:
        target = b.op("Concat", b.integers(1, 1), b.size(x, 2), b.size(x, 3), shape=[4], axis=0)
    spread = b.op("Expand", context, target, shape=[x.shape[0], channels, *x.shape[2:]])
    return convolve(b, b.concat(1, x, spread), b.channels())


@block("image")
def non_local(b: Builder, x: Tensor) -> Tensor:
    """Self-attention over places in the channels-first order of convolutional networks."""
    inner, width = b.channels(most=8), b.channels(most=8)
    flat = [
        b.reshape(convolve(b, x, size), At(0), size, -1, shape=[x.shape[0], size, "places"])
        for size in (inner, inner, width)
    ]
    q, k, v = (b.transpose(part, 0, 2, 1) for part in flat)
    mixed = b.transpose(attend(b, q, k, v, last=lambda _, scores: scores), 0, 2, 1)
    return b.op("Add", x, convolve(b, _unflatten(b, mixed, x), int(x.shape[1])))


def _unflatten(b: Builder, flat: Tensor, like: Tensor) -> Tensor:
    """View [N, C, places] as [N, C, H, W] with the height and width of `like`."""
    channels = int(flat.shape[1])
    shape = [like.shape[0], channels, *like.shape[2:]]
    dynamic = sum(isinstance(size, str) for size in like.shape[2:])
    if dynamic == 2 or b.chance(0.3):
        sizes = [b.size(like, 0), b.integers(channels), b.size(like, 2), b.size(like, 3)]
        return b.op("Reshape", flat, b.op("Concat", *sizes, shape=[4], axis=0), shape=shape)
    places = [size if isinstance(size, int) else -1 for size in like.shape[2:]]
    return b.reshape(flat, At(0), channels, *places, shape=shape)


@block("image")
def convolution_as_product(b: Builder, x: Tensor) -> Tensor:
    """A 1x1 convolution as a product with the weight on the left, over flattened places."""
    channels, width = int(x.shape[1]), b.channels()
    flat = b.reshape(x, At(0), channels, -1, shape=[x.shape[0], channels, "places"])
    if b.chance(0.5):
        y = b.op("MatMul", b.weight(width, channels, fan_in=channels), flat, shape=[x.shape[0], width, "places"])
    else:
        weight = b.weight(width, channels, fan_in=channels)
        y = b.op("Einsum", weight, flat, shape=[x.shape[0], width, "places"], equation="oc,ncp->nop")
    return activate(b, _unflatten(b, y, x))


@block("image")
def channels_last_block(b: Builder, x: Tensor) -> Tensor:
    """ConvNeXt: depthwise convolution, then a norm and an MLP with the channels last, layer scale, residual."""
    channels = int(x.shape[1])
    deep = convolve(b, x, channels, kernel=3, groups=channels)
    hidden = activate(b, linear(b, layer_norm(b, b.transpose(deep, 0, 2, 3, 1)), b.channels()))
    y = b.transpose(linear(b, hidden, channels), 0, 3, 1, 2)
    return b.op("Add", x, b.op("Mul", b.factors(channels, 1, 1), y, shape=x.shape))


@block("image")
def through_a_vector(b: Builder, x: Tensor) -> Tensor:
    """Flatten everything, two Linear layers, and back to an image: channel * place axes in the weights."""
    if _places(x) * int(x.shape[1]) > MOST_FEATURES:
        return x
    channels, height, width = b.channels(most=6), int(x.shape[2]), int(x.shape[3])
    if b.chance(0.5):
        flat = b.op("Flatten", x, shape=[x.shape[0], math.prod(int(size) for size in x.shape[1:])])
    else:
        flat = b.reshape(x, At(0), math.prod(int(size) for size in x.shape[1:]))
    hidden = activate(b, linear(b, flat, b.channels()))
    y = b.reshape(linear(b, hidden, channels * height * width), At(0), channels, height, width)
    return convolve(b, activate(b, y), b.channels(), kernel=3)


@block("image")
def shared_convolution(b: Builder, x: Tensor) -> Tensor:
    """One stored kernel used twice, in a row or side by side."""
    channels = int(x.shape[1])
    kernel = b.weight(channels, channels, 3, 3, fan_in=3 * channels)  # small maps see the middle of it only
    first = activate(b, b.op("Conv", x, kernel, pads=[1, 1, 1, 1]))
    if b.chance(0.5):
        return b.op("Conv", first, kernel, pads=[1, 1, 1, 1])
    other = convolve(b, x, channels)
    return b.op("Add", first, b.op("Conv", other, kernel, pads=[1, 1, 1, 1]))


@block("image")
def outer_product(b: Builder, x: Tensor) -> Tensor:
    """Broadcasts in both directions: a profile over channels times a profile over places, and constants."""
    profile = b.reduce(b.choose(["ReduceMean", "ReduceMax"]), convolve(b, x, b.channels()), 2, 3)
    shares = b.op("Sigmoid", convolve(b, x, 1))
    y = b.op("Mul", shares, profile, shape=[x.shape[0], profile.shape[1], *x.shape[2:]])
    return b.op("Sub", y, b.weight(1, int(y.shape[1]), 1, 1, hint="offset"))


@block("image")
def variadic(b: Builder, x: Tensor) -> Tensor:
    """Sum, Mean, Max or Min over several branches of the same width."""
    width = b.channels()
    kind = b.choose(["Sum", "Mean", "Max", "Min"])
    return b.op(kind, *(convolve(b, x, width, kernel=k) for k in (1, 3, 1)))
