"""Blocks whose weights are computed from stored tensors at run time: packed, concatenated, normalised, reshaped."""

from __future__ import annotations

import numpy as np

from .blocks import block
from .builder import Builder, Tensor
from .layers import activate, add_bias, attend, convolve, linear


@block("sequence")
def packed_projections(b: Builder, x: Tensor) -> Tensor:
    """torch.nn.MultiheadAttention: one stored [3C, C] cut into three weights, each transposed for its product."""
    features, width = int(x.shape[2]), 2 * b.choose([2, 3, 4])
    packed, bias = b.weight(3 * width, features, fan_in=features), b.weight(3 * width, hint="bias")
    weights, biases = b.split(packed, 0, [width] * 3), b.split(bias, 0, [width] * 3)
    q, k, v = (
        add_bias(b, b.op("MatMul", x, b.transpose(weight, 1, 0), shape=[*x.shape[:2], width]), offset)
        for weight, offset in zip(weights, biases, strict=True)
    )
    apart = [*x.shape[:2], 2, width // 2]
    by_head = (b.op("Reshape", flat, b.integers(0, 0, 2, width // 2), shape=apart) for flat in (q, k, v))
    heads = [b.transpose(split, 0, 2, 1, 3) for split in by_head]
    mixed = b.transpose(attend(b, *heads, last=lambda _, scores: scores), 0, 2, 1, 3)
    joined = b.op("Reshape", mixed, b.integers(0, 0, width), shape=[*x.shape[:2], width])
    return b.op("Add", x, linear(b, joined, features))


@block("image")
def normalised_weight(b: Builder, x: Tensor) -> Tensor:
    """Weight normalisation left in the graph: g * v / |v|, the norm over everything but the output channels."""
    channels, width = int(x.shape[1]), b.channels()
    direction = b.weight(width, channels, 3, 3, fan_in=1)
    length = b.reduce("ReduceL2", direction, 1, 2, 3)
    kernel = b.op("Mul", b.op("Div", direction, length), b.factors(width, 1, 1, 1))
    return activate(b, b.op("Conv", x, kernel, shape=[x.shape[0], width, *x.shape[2:]], pads=[1, 1, 1, 1]))


@block("sequence")
def concatenated_weight(b: Builder, x: Tensor) -> Tensor:
    """Two stored weights side by side, on the input or the output axis, or a scaled sum of two."""
    features, width = int(x.shape[2]), b.channels(most=10)
    style = b.choose(["outputs", "inputs", "sum"])
    if style == "outputs":
        other = b.channels(most=8)
        parts = [b.weight(features, size, fan_in=features) for size in (width, other)]
        return b.op("MatMul", x, b.concat(1, *parts), shape=[*x.shape[:2], width + other])
    if style == "inputs" and features >= 4:
        cut = int(b.generator.integers(2, features - 1))
        parts = [b.weight(size, width, fan_in=features) for size in (cut, features - cut)]
        return b.op("MatMul", x, b.concat(0, *parts), shape=[*x.shape[:2], width])
    low_rank = b.op(
        "MatMul", b.weight(features, 2, fan_in=features), b.weight(2, width, fan_in=2), shape=[features, width]
    )
    weight = b.op("Add", b.weight(features, width, fan_in=features), b.op("Mul", low_rank, b.scalar(0.5)))
    return b.op("MatMul", x, weight, shape=[*x.shape[:2], width])


@block("image")
def reshaped_weight(b: Builder, x: Tensor) -> Tensor:
    """A kernel stored as a matrix [O, I * 9], a vector of factors stored as [C], both reshaped before they are used."""
    channels, width = int(x.shape[1]), b.channels()
    stored = b.weight(width, channels * 9, fan_in=channels * 9)
    kernel = b.op("Reshape", stored, b.integers(width, channels, 3, 3), shape=[width, channels, 3, 3])
    y = b.op("Conv", x, kernel, shape=[x.shape[0], width, *x.shape[2:]], pads=[1, 1, 1, 1])
    factors = b.op("Unsqueeze", b.factors(width), b.integers(1, 2), shape=[width, 1, 1])
    return activate(b, b.op("Mul", y, factors))


@block("image")
def film(b: Builder, x: Tensor) -> Tensor:
    """Channels scaled and shifted by a Linear of their own average: 2C outputs, cut in halves."""
    channels = int(x.shape[1])
    pooled = b.reduce("ReduceMean", x, 2, 3, keepdims=False)
    both = linear(b, activate(b, linear(b, pooled, b.channels(most=8))), 2 * channels)
    scale, shift = (
        b.op("Unsqueeze", part, b.integers(2, 3), shape=[x.shape[0], channels, 1, 1])
        for part in b.split(both, 1, [channels] * 2)
    )
    return b.op("Add", b.op("Mul", x, b.op("Add", b.scalar(1.0), scale, shape=scale.shape)), shift)


@block("sequence")
def vector_score(b: Builder, x: Tensor) -> Tensor:
    """Tokens weighted by their product with a stored vector [C], and an outer product with another one."""
    features, width = int(x.shape[2]), b.channels()
    score = b.op("MatMul", x, b.weight(features, fan_in=features), shape=x.shape[:2])
    column = b.op("Unsqueeze", score, b.integers(2), shape=[*x.shape[:2], 1])
    gated = b.op("Mul", x, b.op("Sigmoid", column))
    spread = b.op("MatMul", column, b.weight(1, width, fan_in=1), shape=[*x.shape[:2], width])
    return b.op("Add", linear(b, gated, width), spread)


@block("sequence")
def hard_choice(b: Builder, x: Tensor) -> Tensor:
    """A code book: the best of several logits picks a row of a stored table."""
    features, rows = int(x.shape[2]), b.channels(most=8)
    logits = linear(b, x, rows)
    best = b.op("ArgMax", logits, shape=x.shape[:2], axis=2, keepdims=0)
    row = b.op("Gather", b.weight(rows, features, fan_in=1, hint="codes"), best, shape=x.shape, axis=0)
    return b.op("Add", x, row)


@block("sequence")
def written_places(b: Builder, x: Tensor) -> Tensor:
    """The first token is replaced by one computed from the last, through ScatterElements or ScatterND."""
    if not isinstance(x.shape[1], int) or not isinstance(x.shape[0], int) or x.shape[1] < 2:
        return x
    batch, length, features = (int(size) for size in x.shape)
    new = activate(b, linear(b, b.slice(x, 1, length - 1, length), features))
    if b.chance(0.5):
        indices = b.store(np.zeros((batch, 1, features), np.int64), "places")
        return b.op("ScatterElements", x, indices, new, axis=1)
    places = b.store(np.array([[[row, 0]] for row in range(batch)], np.int64), "places")
    return b.op("ScatterND", x, places, new)


@block("image")
def quantised(b: Builder, x: Tensor) -> Tensor:
    """Activations rounded to 8 bits on the way into a convolution, as quantisation-aware training leaves them."""
    scale, zero = b.store(np.array(0.05, np.float32)), b.store(np.array(128, np.uint8))
    rounded = b.op("DequantizeLinear", b.op("QuantizeLinear", x, scale, zero), scale, zero)
    return convolve(b, rounded, b.channels(), kernel=b.choose([1, 3]))


@block("image")
def half_precision(b: Builder, x: Tensor) -> Tensor:
    """A convolution in float16 between two casts."""
    channels, width = int(x.shape[1]), b.channels()
    kernel = (b.generator.standard_normal((width, channels, 1, 1)) * channels**-0.5).astype(np.float16)
    y = b.op("Conv", b.op("Cast", x, to=10), b.store(kernel, "kernel"), shape=[x.shape[0], width, *x.shape[2:]])
    return b.op("Cast", activate_half(b, y), to=1)


def activate_half(b: Builder, x: Tensor) -> Tensor:
    """An activation that needs no float32 constants."""
    return b.op(b.choose(["Relu", "Sigmoid", "Tanh"]), x)


@block("sequence")
def listed_parts(b: Builder, x: Tensor) -> Tensor:
    """Parts of the features in a list: SplitToSequence, SequenceAt, SequenceConstruct, ConcatFromSequence."""
    width = b.channels(most=8)
    y = linear(b, x, 2 * width)
    parts = b.op("SplitToSequence", y, b.integers(width, width), shape=[], axis=2)
    shape = [*x.shape[:2], width]
    first, second = (b.op("SequenceAt", parts, b.store(np.array(place, np.int64)), shape=shape) for place in range(2))
    again = b.op("SequenceConstruct", b.op("Mul", first, b.op("Sigmoid", second)), second, shape=[])
    return b.op("ConcatFromSequence", again, shape=[*x.shape[:2], 2 * width], axis=2)


@block("image")
def log_sum(b: Builder, x: Tensor) -> Tensor:
    """Statistics over channels or places: log-sum-exp, sum of squares, sum of magnitudes, variance written out."""
    kind = b.choose(["ReduceLogSumExp", "ReduceSumSquare", "ReduceL1", "variance"])
    y = convolve(b, x, b.channels())
    if kind == "variance":
        axes = b.choose([(2, 3), (1,), (1, 2, 3)])
        centred = b.op("Sub", y, b.reduce("ReduceMean", y, *axes))
        spread = b.reduce("ReduceMean", b.op("Mul", centred, centred), *axes)
        return b.op("Div", centred, b.op("Sqrt", b.op("Add", spread, b.scalar(0.1))))
    total = b.reduce(kind, b.op("Tanh", y), 1)
    return b.op("Div", y, b.op("Add", b.op("Abs", total), b.scalar(1.0)))
