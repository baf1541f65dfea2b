"""Layers that blocks are made of: activations, linear layers, convolutions, normalisations, attention.

May import onnx and numpy. Must never import graphprune.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .builder import At, Builder, Tensor

# Operators of one input: name, first opset, attributes.
ACTIVATIONS = [
    ("Relu", 13, {}),
    ("LeakyRelu", 13, {"alpha": 0.1}),
    ("Sigmoid", 13, {}),
    ("Tanh", 13, {}),
    ("Elu", 13, {"alpha": 0.8}),
    ("Selu", 13, {}),
    ("Celu", 13, {"alpha": 1.2}),
    ("Softplus", 13, {}),
    ("Softsign", 13, {}),
    ("HardSigmoid", 13, {"alpha": 0.3}),
    ("ThresholdedRelu", 13, {"alpha": 0.02}),
    ("Erf", 13, {}),
    ("Sin", 13, {}),
    ("Abs", 13, {}),
    ("HardSwish", 14, {}),
    ("Mish", 18, {}),
    ("Gelu", 20, {}),
]


def activate(b: Builder, x: Tensor) -> Tensor:
    """An activation: an operator of its own, or one written out as exporters do."""
    style = "operator" if b.chance(0.6) else b.choose(["silu", "gelu", "clip", "prelu", "squared"])
    if style == "silu":
        return b.op("Mul", x, b.op("Sigmoid", x))
    if style == "gelu":
        inner = b.op("Add", b.op("Erf", b.op("Div", x, b.scalar(1.4142135))), b.scalar(1.0))
        return b.op("Mul", b.op("Mul", x, inner), b.scalar(0.5))
    if style == "clip":
        return b.op("Clip", x, b.scalar(-0.5), b.scalar(2.0))
    if style == "squared":
        return b.op("Mul", b.op("Pow", b.op("Relu", x), b.scalar(2.0)), b.scalar(0.5))
    if style == "prelu" and x.rank == 4:
        slopes = b.choose([1, x.shape[1]]) if isinstance(x.shape[1], int) else 1
        return b.op("PRelu", x, b.weight(slopes, 1, 1, hint="slope"))
    name, _, attributes = b.choose([row for row in ACTIVATIONS if row[1] <= b.opset])
    return b.op(name, x, **attributes)


def add_bias(b: Builder, x: Tensor, bias: Tensor) -> Tensor:
    """Add with the operands in either order."""
    return b.op("Add", bias, x, shape=x.shape) if b.chance(0.4) else b.op("Add", x, bias)


def linear(b: Builder, x: Tensor, width: int, *, bias: bool | None = None) -> Tensor:
    """A Linear on the last axis of `x`, as MatMul, Gemm, Einsum, or MatMul with the weight on the left."""
    features = int(x.shape[-1])
    has_bias = b.chance(0.6) if bias is None else bias
    offset = b.weight(width, hint="bias") if has_bias else None
    shape = (*x.shape[:-1], width)
    style = b.choose(["matmul", "matmul", "gemm", "einsum", "left"])
    if style == "gemm" and x.rank in (2, 3):
        return _gemm(b, x, width, offset)
    if style == "left" and x.rank == 3:
        weight = b.weight(width, features, fan_in=features)
        columns = b.op("MatMul", weight, b.transpose(x, 0, 2, 1), shape=[x.shape[0], width, x.shape[1]])
        y = b.transpose(columns, 0, 2, 1)
    elif style == "einsum":
        order, shape_of_weight = b.choose([("io", (features, width)), ("oi", (width, features))])
        letters = "abcd"[: x.rank - 1]
        equation = b.choose([f"{letters}i,{order}->{letters}o", f"...i,{order}->...o"])
        y = b.op("Einsum", x, b.weight(*shape_of_weight, fan_in=features), shape=shape, equation=equation)
    else:
        y = b.op("MatMul", x, b.weight(features, width, fan_in=features), shape=shape)
    return add_bias(b, y, offset) if offset else y


def _gemm(b: Builder, x: Tensor, width: int, bias: Tensor | None) -> Tensor:
    """Gemm on the flattened rows of `x`."""
    features = int(x.shape[-1])
    turned = b.chance(0.5)
    weight = b.weight(*((width, features) if turned else (features, width)), fan_in=features)
    attributes: dict[str, float] = {"transB": int(turned)}
    if b.chance(0.2):
        attributes |= {"alpha": 0.9, "beta": 0.8}
    rows = x if x.rank == 2 else b.reshape(x, -1, features)
    y = b.op("Gemm", rows, weight, bias, shape=[rows.shape[0], width], **attributes)
    if x.rank == 2:
        return y
    if isinstance(x.shape[1], int):
        return b.reshape(y, -1, x.shape[1], width, shape=[*x.shape[:-1], width])
    target = b.op("Concat", b.size(x, 0), b.size(x, 1), b.integers(width), shape=[3], axis=0)
    return b.op("Reshape", y, target, shape=[*x.shape[:-1], width])


def convolve(b: Builder, x: Tensor, width: int, *, kernel: int = 1, groups: int = 1, dilation: int = 1) -> Tensor:
    """A convolution that keeps the places; `x` has one or two of them."""
    channels, places = int(x.shape[1]), x.rank - 2
    inner = channels // groups
    weight = b.weight(width, inner, *[kernel] * places, fan_in=inner * kernel**places, hint="kernel")
    bias = b.weight(width, hint="bias") if b.chance(0.5) else None
    attributes: dict[str, object] = {"group": groups} if groups > 1 or b.chance(0.3) else {}
    if dilation > 1:
        attributes["dilations"] = [dilation] * places
    if kernel > 1 and dilation == 1 and b.chance(0.2):
        attributes["auto_pad"] = "SAME_UPPER"
    elif kernel > 1:
        attributes["pads"] = [dilation * (kernel // 2)] * 2 * places
    return b.op("Conv", x, weight, bias, shape=[x.shape[0], width, *x.shape[2:]], **attributes)


def batch_norm(b: Builder, x: Tensor) -> Tensor:
    """BatchNormalization, or the frozen form of it: a stored product and sum."""
    channels = int(x.shape[1])
    if b.chance(0.25):
        places = [1] * (x.rank - 2)
        lead = b.choose([(), (1,)])
        scaled = b.op("Mul", x, b.factors(*lead, channels, *places))
        return add_bias(b, scaled, b.weight(*lead, channels, *places, hint="shift"))
    scale, variance = b.factors(channels), b.factors(channels, hint="variance")
    bias, mean = b.weight(channels, hint="bias"), b.weight(channels, hint="mean")
    return b.op("BatchNormalization", x, scale, bias, mean, variance, epsilon=1e-5)


def layer_norm(b: Builder, x: Tensor) -> Tensor:
    """LayerNormalization over the last axis, as an operator or written out."""
    features = int(x.shape[-1])
    scale, bias = b.factors(features), b.weight(features, hint="bias")
    if b.opset >= 17 and b.chance(0.6):
        return b.op("LayerNormalization", x, scale, bias if b.chance(0.8) else None, axis=b.choose([-1, x.rank - 1]))
    centred = b.op("Sub", x, b.reduce("ReduceMean", x, x.rank - 1))
    variance = b.reduce("ReduceMean", b.op("Pow", centred, b.scalar(2.0)), x.rank - 1)
    root = b.op("Sqrt", b.op("Add", variance, b.scalar(1e-5)))
    return add_bias(b, b.op("Mul", b.op("Div", centred, root), scale), bias)


def rms_norm(b: Builder, x: Tensor) -> Tensor:
    """RMSNormalization over the last axis, as an operator or written out."""
    scale = b.factors(int(x.shape[-1]))
    if b.opset >= 23 and b.chance(0.6):
        return b.op("RMSNormalization", x, scale, axis=-1, epsilon=1e-5)
    mean = b.reduce("ReduceMean", b.op("Mul", x, x), x.rank - 1)
    safe = b.op("Add", mean, b.scalar(1e-5))
    if b.chance(0.5):
        unit = b.op("Div", x, b.op("Sqrt", safe))
    else:
        unit = b.op("Mul", x, b.op("Reciprocal", b.op("Sqrt", safe)))
    return b.op("Mul", scale, unit, shape=x.shape)


def group_norm(b: Builder, x: Tensor) -> Tensor:
    """GroupNorm of [N, C, H, W]: the operator of opset 21, or reshape and InstanceNormalization."""
    channels = int(x.shape[1])
    groups = b.divisor(channels)
    if b.opset >= 21 and b.chance(0.5):
        scale, bias = b.factors(channels), b.weight(channels, hint="bias")
        return b.op("GroupNormalization", x, scale, bias, num_groups=groups)
    folded = b.reshape(x, At(0), groups, -1, shape=[x.shape[0], groups, "places"])
    normed = b.op("InstanceNormalization", folded, b.factors(groups), b.weight(groups, hint="bias"))
    if x.static and b.chance(0.5):
        unfolded = b.reshape(normed, *[int(size) for size in x.shape])
    else:
        unfolded = b.op("Reshape", normed, b.op("Shape", x, shape=[4]), shape=x.shape)
    scaled = b.op("Mul", unfolded, b.factors(channels, 1, 1))
    return add_bias(b, scaled, b.weight(channels, 1, 1, hint="shift"))


def rotary(b: Builder, x: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate [B, H, S, D] by stored tables [S, D]: the last axis in halves."""
    half = int(x.shape[-1]) // 2
    front, back = b.split(x, 3, [half, half])
    turned = b.concat(3, b.op("Neg", back), front)
    cosine, sine = tables
    return b.op("Add", b.op("Mul", x, cosine), b.op("Mul", turned, sine))


def rotary_tables(b: Builder, length: int, width: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines of position times frequency: float32 [length, width]."""
    angles = np.outer(np.arange(length), 10.0 ** -np.arange(width // 2))
    both = np.concatenate([angles, angles], axis=1).astype(np.float32)
    return b.store(np.cos(both), "cosine"), b.store(np.sin(both), "sine")


def mask_future(b: Builder, scores: Tensor) -> Tensor:
    """A causal mask on [..., S, S], made at run time from the length, or nothing."""
    style = b.choose(["none", "range", "trilu"])
    if style == "range":
        length = b.op("Squeeze", b.size(scores, scores.rank - 1), b.integers(0), shape=[])
        zero, one = b.store(np.array(0, np.int64)), b.store(np.array(1, np.int64))
        places = b.op("Range", zero, length, one, shape=["places"])
        allowed = b.op("Less", b.op("Unsqueeze", places, b.integers(1), shape=["places", 1]), places)
        return b.op("Where", allowed, b.scalar(-1000.0), scores, shape=scores.shape)
    if style == "trilu" and b.opset >= 14:
        length = b.op("Concat", b.size(scores, scores.rank - 2), b.size(scores, scores.rank - 1), shape=[2], axis=0)
        low = b.op("ConstantOfShape", length, shape=["s", "s"], value=_single(-1000.0))
        upper = b.op("Trilu", low, b.store(np.array(1, np.int64)), upper=1)
        return b.op("Add", scores, upper)
    return scores


def _single(value: float) -> object:
    from onnx import numpy_helper

    return numpy_helper.from_array(np.array([value], np.float32))


def attend(b: Builder, q: Tensor, k: Tensor, v: Tensor, *, last: Callable[[Builder, Tensor], Tensor]) -> Tensor:
    """softmax(q k^T) v on [..., S, D]; `last` masks the scores. The scale is stored or applied to both operands."""
    width = int(q.shape[-1])
    order = [*range(k.rank - 2), k.rank - 1, k.rank - 2]
    keys = b.transpose(k, *order)
    batch = [a if a != 1 else c for a, c in zip(q.shape[:-2], k.shape[:-2], strict=True)]
    shape = [*batch, q.shape[-2], k.shape[-2]]
    style = b.choose(["after", "before", "root"])
    if style == "before":
        q = b.op("Mul", q, b.scalar(width**-0.5))
    elif style == "root":
        q, keys = b.op("Mul", q, b.scalar(width**-0.25)), b.op("Mul", keys, b.scalar(width**-0.25))
    scores = b.op("MatMul", q, keys, shape=shape)
    if style == "after":
        scores = b.op("Div", scores, b.scalar(width**0.5))
    shares = b.op("Softmax", last(b, scores), axis=-1)
    return b.op("MatMul", shares, v, shape=[*shape[:-1], v.shape[-1]])
