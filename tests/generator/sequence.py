"""Blocks of sequence models on [N, S, C]: attention in many export styles, recurrence, products over any axis."""

from __future__ import annotations

import math

import numpy as np

from .blocks import block
from .builder import At, Builder, Tensor
from .layers import (
    activate,
    attend,
    convolve,
    layer_norm,
    linear,
    mask_future,
    rms_norm,
    rotary,
    rotary_tables,
)


def _heads_first(b: Builder, flat: Tensor, heads: int) -> Tensor:
    """[N, S, heads * D] --> [N, heads, S, D]."""
    width = int(flat.shape[2]) // heads
    if b.chance(0.2):
        target = b.op("Concat", b.size(flat, 0), b.size(flat, 1), b.integers(heads, -1), shape=[4], axis=0)
        apart = b.op("Reshape", flat, target, shape=[*flat.shape[:2], heads, width])
    else:
        apart = b.reshape(flat, At(0), At(1), heads, width)
    return b.transpose(apart, 0, 2, 1, 3)


def _joined(b: Builder, mixed: Tensor, like: Tensor) -> Tensor:
    """[N, heads, S, D] --> [N, S, heads * D]."""
    heads, width = int(mixed.shape[1]), int(mixed.shape[3])
    last = b.transpose(mixed, 0, 2, 1, 3)
    entry = -1 if b.chance(0.3) and last.static else heads * width
    return b.reshape(last, At(0), At(1), entry, shape=[*like.shape[:2], heads * width])


def _positions(b: Builder, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """Queries and keys with a norm over the width or rotary positions, or as they are."""
    style = b.choose(["none", "none", "norm", "rotary"])
    if style == "norm":
        return rms_norm(b, q), rms_norm(b, k)
    width, length = int(q.shape[3]), q.shape[2]
    if style == "rotary" and width % 2 == 0 and isinstance(length, int):
        tables = rotary_tables(b, length, width)
        return rotary(b, q, tables), rotary(b, k, tables)
    return q, k


def _residual(b: Builder, x: Tensor, y: Tensor) -> Tensor:
    """x + y, where y is brought to the width of x."""
    return b.op("Add", x, linear(b, y, int(x.shape[2])))


@block("sequence")
def attention(b: Builder, x: Tensor) -> Tensor:
    """Separate projections with heads, whose values may be wider than queries and keys."""
    heads = b.choose([1, 2, 3, 4])
    width, value_width = b.choose([2, 4, 6]), b.choose([2, 3, 4])
    source = b.choose([layer_norm, rms_norm, lambda _, t: t])(b, x)
    q, k = (_heads_first(b, linear(b, source, heads * width), heads) for _ in range(2))
    v = _heads_first(b, linear(b, source, heads * value_width), heads)
    mixed = attend(b, *_positions(b, q, k), v, last=mask_future)
    return _residual(b, x, _joined(b, mixed, x))


@block("sequence")
def fused_attention(b: Builder, x: Tensor) -> Tensor:
    """One projection for queries, keys and values, taken apart before or after the heads are."""
    heads, width = b.choose([2, 3, 4]), b.choose([2, 4, 6])
    each = heads * width
    qkv = linear(b, layer_norm(b, x), 3 * each)
    style = b.choose(["split", "interleaved", "gathered", "unbound"])
    if style == "split":
        q, k, v = (_heads_first(b, part, heads) for part in b.split(qkv, 2, [each] * 3))
    elif style == "interleaved":
        apart = b.transpose(b.reshape(qkv, At(0), At(1), heads, 3 * width), 0, 2, 1, 3)
        q, k, v = b.split(apart, 3, [width] * 3)
    else:
        apart = b.transpose(b.reshape(qkv, At(0), At(1), 3, heads, width), 2, 0, 3, 1, 4)
        shape = apart.shape[1:]
        if style == "gathered":
            q, k, v = (
                b.op("Gather", apart, b.store(np.array(place, np.int64)), shape=shape, axis=0) for place in range(3)
            )
        else:
            parts = b.split(apart, 0, [1, 1, 1])
            q, k, v = (b.op("Squeeze", part, b.integers(0), shape=shape) for part in parts)
    mixed = attend(b, *_positions(b, q, k), v, last=mask_future)
    return _residual(b, x, _joined(b, mixed, x))


@block("sequence")
def grouped_query_attention(b: Builder, x: Tensor) -> Tensor:
    """Fewer key and value heads than query heads, repeated by Expand, by broadcast, or a single one."""
    few, each, width = b.choose([1, 2, 3]), b.choose([2, 3]), b.choose([2, 4])
    q = _heads_first(b, linear(b, x, few * each * width), few * each)
    k = _heads_first(b, linear(b, x, few * width), few)
    v = _heads_first(b, linear(b, x, few * width), few)
    q, k = _positions(b, q, k)
    if few > 1 and b.chance(0.5):
        q5 = b.reshape(q, At(0), few, each, -1, width, shape=[x.shape[0], few, each, x.shape[1], width])
        k5, v5 = (b.op("Unsqueeze", t, b.integers(2), shape=[*t.shape[:2], 1, *t.shape[2:]]) for t in (k, v))
        mixed5 = attend(b, q5, k5, v5, last=lambda _, scores: scores)
        mixed = b.reshape(mixed5, At(0), few * each, -1, width, shape=[x.shape[0], few * each, x.shape[1], width])
    else:
        if few > 1:
            k, v = _repeated(b, k, each), _repeated(b, v, each)
        mixed = attend(b, q, k, v, last=mask_future)
    return _residual(b, x, _joined(b, mixed, x))


def _repeated(b: Builder, heads: Tensor, times: int) -> Tensor:
    """repeat_kv: [N, H, S, D] --> [N, H * times, S, D]."""
    batch, count, length, width = heads.shape
    single = b.op("Unsqueeze", heads, b.integers(2), shape=[batch, count, 1, length, width])
    if b.chance(0.5):
        target = b.integers(1, 1, times, 1, 1)
    else:
        pieces = [b.size(heads, 0), b.integers(int(count), times), b.size(heads, 2), b.integers(int(width))]
        target = b.op("Concat", *pieces, shape=[5], axis=0)
    many = b.op("Expand", single, target, shape=[batch, count, times, length, width])
    shape = [batch, int(count) * times, length, width]
    return b.reshape(many, At(0), int(count) * times, At(3), int(width), shape=shape)


@block("sequence")
def attention_operator(b: Builder, x: Tensor) -> Tensor:
    """The Attention operator of opset 23 on 3-D or 4-D inputs, with grouped heads; written out before that."""
    if b.opset < 23:
        return attention(b, x)
    few, each, width, value_width = b.choose([1, 2]), b.choose([1, 2, 3]), b.choose([2, 4]), b.choose([2, 4])
    many = few * each
    # The operator's shape inference takes unknown widths for 0, so the projections are products of known widths.
    q, k, v = (
        b.op("MatMul", x, b.weight(int(x.shape[2]), size, fan_in=int(x.shape[2])), shape=[*x.shape[:2], size])
        for size in (many * width, few * width, few * value_width)
    )
    options = {"is_causal": 1} if b.chance(0.4) else {}
    if b.chance(0.5):
        shape = [*x.shape[:2], many * value_width]
        y = b.op("Attention", q, k, v, shape=shape, q_num_heads=many, kv_num_heads=few, **options)
        return _residual(b, x, y)
    q, k, v = _heads_first(b, q, many), _heads_first(b, k, few), _heads_first(b, v, few)
    mixed = b.op("Attention", q, k, v, shape=[*q.shape[:3], value_width], scale=0.5, **options)
    return _residual(b, x, _joined(b, mixed, x))


@block("sequence")
def einsum_attention(b: Builder, x: Tensor) -> Tensor:
    """All products as Einsum, with weights of rank 3."""
    features, heads, width, other = int(x.shape[2]), b.choose([2, 3]), b.choose([2, 4]), b.choose([3, 5])
    n, s = x.shape[:2]
    sizes = (width, width, other)
    weights = [b.weight(features, heads, size, fan_in=features) for size in sizes]
    q, k, v = (
        b.op("Einsum", x, w, shape=[n, s, heads, size], equation="bsc,chd->bshd")
        for w, size in zip(weights, sizes, strict=True)
    )
    scores = b.op("Einsum", q, k, shape=[n, heads, s, s], equation="bshd,bthd->bhst")
    shares = b.op("Softmax", b.op("Mul", scores, b.scalar(width**-0.5)), axis=-1)
    mixed = b.op("Einsum", shares, v, shape=[n, s, heads, other], equation="bhst,bthe->bshe")
    out = b.weight(heads, other, features, fan_in=heads * other)
    return b.op("Add", x, b.op("Einsum", mixed, out, shape=x.shape, equation="bshe,hec->bsc"))


@block("sequence")
def linear_attention(b: Builder, x: Tensor) -> Tensor:
    """Attention without softmax: keys and values are multiplied first."""
    width, other = b.channels(most=8), b.channels(most=8)
    q, k = (b.op("Sigmoid", linear(b, x, width)) for _ in range(2))
    v = linear(b, x, other)
    memory = b.op("MatMul", b.transpose(k, 0, 2, 1), v, shape=[x.shape[0], width, other])
    total = b.op("MatMul", q, memory, shape=[*x.shape[:2], other])
    weights = b.op("MatMul", q, b.transpose(b.reduce("ReduceSum", k, 1), 0, 2, 1), shape=[*x.shape[:2], 1])
    return _residual(b, x, b.op("Div", total, weights))


@block("sequence")
def feed_forward(b: Builder, x: Tensor) -> Tensor:
    """A Transformer MLP, plain or gated; the gate is a layer of its own or half of one."""
    hidden, source = b.channels(), layer_norm(b, x) if b.chance(0.5) else rms_norm(b, x)
    style = b.choose(["plain", "gated", "halves"])
    if style == "plain":
        inner = activate(b, linear(b, source, hidden))
    elif style == "gated":
        inner = b.op("Mul", activate(b, linear(b, source, hidden)), linear(b, source, hidden))
    else:
        value, gate = b.split(linear(b, source, 2 * hidden), 2, [hidden, hidden])
        inner = b.op("Mul", value, b.op("Sigmoid", gate))
    return _residual(b, x, inner)


@block("sequence")
def plain_linear(b: Builder, x: Tensor) -> Tensor:
    """A Linear to another width with an activation."""
    return activate(b, linear(b, x, b.channels()))


@block("sequence")
def token_mixer(b: Builder, x: Tensor) -> Tensor:
    """MLP-Mixer: Linear layers over the tokens, whose hidden axis is prunable too."""
    if not isinstance(x.shape[1], int):
        return x
    columns = b.transpose(layer_norm(b, x), 0, 2, 1)
    mixed = linear(b, activate(b, linear(b, columns, b.channels(most=10))), x.shape[1])
    return b.op("Add", x, b.transpose(mixed, 0, 2, 1))


@block("sequence")
def convolution_over_time(b: Builder, x: Tensor) -> Tensor:
    """A 1-D convolution, in groups or not, between two transpositions, gated like WaveNet or not."""
    columns = b.transpose(x, 0, 2, 1)
    width = b.channels(most=12)
    if b.chance(0.5):
        value, gate = b.split(convolve(b, columns, 2 * width, kernel=3), 1, [width, width])
        y = b.op("Mul", b.op("Tanh", value), b.op("Sigmoid", gate))
    else:
        groups = b.divisor(int(x.shape[2]))
        y = activate(b, convolve(b, columns, b.channels(groups), kernel=3, groups=groups))
    return b.transpose(y, 0, 2, 1)


@block("sequence")
def recurrent(b: Builder, x: Tensor) -> Tensor:
    """LSTM, GRU or RNN, in one direction or both, with biases, peepholes and a stored initial state or without."""
    kind, hidden = b.choose(["LSTM", "GRU", "RNN"]), b.channels(most=8)
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]
    direction = b.choose(["forward", "reverse", "bidirectional"])
    count = 2 if direction == "bidirectional" else 1
    features, (n, s, _) = int(x.shape[2]), x.shape
    weight = b.weight(count, gates * hidden, features, fan_in=features)
    recurrence = b.weight(count, gates * hidden, hidden, fan_in=hidden)
    bias = b.weight(count, 2 * gates * hidden, hint="bias") if b.chance(0.7) else None
    state = b.weight(count, n, hidden, hint="state") if isinstance(n, int) and b.chance(0.3) else None
    inputs: list[Tensor | None] = [b.transpose(x, 1, 0, 2), weight, recurrence, bias, None, state]
    if kind == "LSTM" and b.chance(0.3):
        inputs += [None, b.weight(count, 3 * hidden, hint="peephole")]
    options = {"linear_before_reset": 1} if kind == "GRU" and b.chance(0.5) else {}
    shapes = [[s, count, n, hidden], [count, n, hidden]]
    every, last = b.ops(kind, *inputs, shapes=shapes, hidden_size=hidden, direction=direction, **options)
    if b.chance(0.2):
        rows = b.reshape(b.transpose(last, 1, 0, 2), At(0), 1, count * hidden)
        return b.op("Add", linear(b, rows, features), x, shape=x.shape)
    if count == 1:
        return b.transpose(b.op("Squeeze", every, b.integers(1), shape=[s, n, hidden]), 1, 0, 2)
    if b.chance(0.3):
        return b.transpose(b.reduce("ReduceSum", every, 1, keepdims=False), 1, 0, 2)
    together = b.transpose(every, 2, 0, 1, 3)
    return b.reshape(together, At(0), At(1), 2 * hidden, shape=[n, s, 2 * hidden])


@block("sequence")
def experts(b: Builder, x: Tensor) -> Tensor:
    """A soft mixture of experts: stacked weights [E, C, H], mixed by a softmax over experts."""
    count, features, hidden = b.choose([2, 3]), int(x.shape[2]), b.channels(most=8)
    n, s = x.shape[:2]
    shares = b.op("Softmax", linear(b, x, count), axis=-1)
    single = b.op("Unsqueeze", x, b.integers(1), shape=[n, 1, s, features])
    first = b.weight(count, features, hidden, fan_in=features)
    inner = activate(b, b.op("MatMul", single, first, shape=[n, count, s, hidden]))
    second = b.weight(count, hidden, features, fan_in=hidden)
    outs = b.op("MatMul", inner, second, shape=[n, count, s, features])
    columns = b.op("Unsqueeze", b.transpose(shares, 0, 2, 1), b.integers(3), shape=[n, count, s, 1])
    return b.op("Add", x, b.reduce("ReduceSum", b.op("Mul", outs, columns), 1, keepdims=False))


@block("sequence")
def low_rank(b: Builder, x: Tensor) -> Tensor:
    """Three operands in one Einsum, and a weight that is itself a product of two."""
    features, rank, width = int(x.shape[2]), b.channels(most=6), b.channels()
    first, second = b.weight(features, rank, fan_in=features), b.weight(rank, width, fan_in=rank)
    shape = [*x.shape[:2], width]
    if b.chance(0.5):
        return b.op("Einsum", x, first, second, shape=shape, equation="bsc,cr,rd->bsd")
    return b.op("MatMul", x, b.op("MatMul", first, second, shape=[features, width]), shape=shape)


@block("sequence")
def tied_code(b: Builder, x: Tensor) -> Tensor:
    """One weight as encoder and, transposed, as decoder, or applied twice."""
    features = int(x.shape[2])
    if b.chance(0.5):
        weight = b.weight(features, features, fan_in=features)
        once = b.op("Tanh", b.op("MatMul", x, weight))
        return b.op("Add", x, b.op("MatMul", once, weight))
    code = b.channels(most=10)
    weight = b.weight(features, code, fan_in=features)
    inner = activate(b, b.op("MatMul", x, weight, shape=[*x.shape[:2], code]))
    return b.op("Add", x, b.op("MatMul", inner, b.transpose(weight, 1, 0), shape=x.shape))


@block("sequence")
def extra_token(b: Builder, x: Tensor) -> Tensor:
    """A stored token before the sequence, and stored positions where the length is known."""
    features = int(x.shape[2])
    token = b.weight(1, 1, features, hint="token")
    target = b.op("Concat", b.size(x, 0), b.integers(1, features), shape=[3], axis=0)
    expanded = b.op("Expand", token, target, shape=[x.shape[0], 1, features])
    if isinstance(x.shape[1], int):
        y = b.concat(1, expanded, x)
        return b.op("Add", y, b.weight(1, int(y.shape[1]), features, hint="position"))
    return b.op("Add", x, expanded)


@block("sequence")
def best_tokens(b: Builder, x: Tensor) -> Tensor:
    """A stream that picks a few tokens by score and adds their mean back."""
    if not isinstance(x.shape[1], int) or x.shape[1] < 3:
        return x
    n, _, features = x.shape
    scores = b.op("Squeeze", linear(b, x, 1), b.integers(2), shape=x.shape[:2])
    best = b.ops("TopK", scores, b.integers(2), shapes=[[n, 2], [n, 2]], axis=1)[1]
    column = b.op("Unsqueeze", best, b.integers(2), shape=[n, 2, 1])
    if b.chance(0.5):
        picked = b.op("GatherND", x, column, shape=[n, 2, features], batch_dims=1)
    else:
        target = b.op("Concat", b.size(x, 0), b.integers(2, int(features)), shape=[3], axis=0)
        wide = b.op("Expand", column, target, shape=[n, 2, features])
        picked = b.op("GatherElements", x, wide, shape=[n, 2, features], axis=1)
    return b.op("Add", x, b.reduce("ReduceMean", picked, 1), shape=x.shape)


@block("sequence")
def folded_features(b: Builder, x: Tensor) -> Tensor:
    """Features viewed as (a, b), swapped or reduced, and viewed back."""
    features = int(x.shape[2])
    outer = b.divisor(features)
    apart = b.reshape(x, At(0), At(1), outer, features // outer)
    if b.chance(0.5):
        return b.reshape(b.transpose(apart, 0, 1, 3, 2), At(0), At(1), features)
    reduced = b.reduce(b.choose(["ReduceMax", "ReduceMean", "ReduceSum"]), apart, b.choose([2, 3]))
    centred = b.op("Sub", apart, b.op("Mul", reduced, b.scalar(0.5)))
    return b.reshape(centred, At(0), At(1), features)


@block("sequence")
def running_mean(b: Builder, x: Tensor) -> Tensor:
    """A running sum over time, brought to scale."""
    total = b.op("CumSum", x, b.store(np.array(1, np.int64)))
    return b.op("Mul", total, b.scalar(1 / math.sqrt(5)))
