"""Attention as onnxruntime fuses it (domain com.microsoft): with its projections, packed, with caches and rotation."""

from __future__ import annotations

from graphprune.dims import Axis, find
from graphprune.program import Node
from graphprune.rules import attention, quantised
from graphprune.rules.attention import Mask, Side
from graphprune.rules.numbers import Number
from graphprune.rules.operator import Operator
from graphprune.rules.trace import Operand, Trace, Typed


def _output(query: Side, value: Side) -> Typed:
    out = Side(query.batch, query.heads, query.positions, value.width)
    return Typed([out.batch, out.positions, out.merged])


def _scaled(node: Node) -> bool:
    """Whether the file gives the scale; zero stands for the default."""
    return bool(node.attributes.get("scale", 0))


def _multi_head(trace: Trace, node: Node) -> list[Typed]:
    """MultiHeadAttention: three tensors ``b s (h d)``, or packed within heads; keys and values may be in cache form."""
    count = trace.attribute("num_heads")
    query, key, value = _sides(trace, count, (trace.need(0), trace.operand(1), trace.operand(2)))
    attention.add_bias(trace, trace.operand(3), [query, key, value])
    shared = trace.operand(8) is not None
    key = attention.cached(trace, key, trace.operand(6), shared)
    value = attention.cached(trace, value, trace.operand(7), shared)
    scores = attention.attend(trace, query, key, value, scaled=_scaled(node), biases=[trace.operand(5)])
    return [_output(query, value), Typed(key.stored), Typed(value.stored), Typed(scores)]


def _sides(trace: Trace, count: Number, operands: tuple[Operand, Operand | None, Operand | None]) -> list[Side]:
    query, key, value = operands
    if key is None:
        sides = attention.packed_heads(trace, query, 3)
    else:
        first = attention.merged_heads(trace, query, count)
        if value is None:
            sides = [first, *attention.packed_heads(trace, key, 2)]
        else:
            sides = [first, *(_keys(trace, each, count) for each in (key, value))]
    trace.require(count, sides[0].heads)
    return sides


def _keys(trace: Trace, x: Operand, count: Number) -> Side:
    return attention.split_heads(x) if x.rank == 4 else attention.merged_heads(trace, x, count)


def _group_query(trace: Trace, node: Node) -> list[Typed]:
    """GroupQueryAttention: query heads share key heads, all of one width; rotation and caches inside."""
    x, key_operand, value_operand = trace.need(0), trace.operand(1), trace.operand(2)
    counts = (trace.attribute("num_heads"), trace.attribute("kv_num_heads"))
    if key_operand is None or value_operand is None:
        merged = x.axes[2]
        query, key, value = attention.merged_parts(trace, x.axes[0], x.axes[1], merged, counts, ((x.use, 2, merged),))
    else:
        query = attention.merged_heads(trace, x, counts[0])
        key, value = (attention.merged_heads(trace, each, counts[1]) for each in (key_operand, value_operand))
    trace.tie(key.width, value.width)
    trace.tie(query.width, key.width)
    trace.whole(query.width, "the operator takes heads of a multiple of 8 only")
    _rotation(trace, node)
    for index in (12, 13):
        if trace.operand(index) is not None:
            trace.whole(key.heads, "the cache is quantised")
    for index in (14, 15):
        weight = trace.operand(index)
        if weight is not None:
            trace.tie(weight.axes[0], query.width)
    key, value = (_buffered(trace, side, trace.operand(k)) for side, k in ((key, 3), (value, 4)))
    scores = attention.attend(trace, query, key, value, scaled=_scaled(node), biases=[trace.operand(10)])
    attention.sink(trace, trace.operand(11), query.heads)
    return [_output(query, value), Typed(key.stored), Typed(value.stored), Typed(scores)]


def _rotation(trace: Trace, node: Node) -> None:
    for index in (7, 8):
        cache = trace.operand(index) if node.attributes.get("do_rotary", 0) else None
        for axis in [] if cache is None else cache.axes:
            trace.whole(axis, "rotary embedding inside attention reads it by position")


def _buffered(trace: Trace, new: Side, past: Operand | None) -> Side:
    """A cache that may or may not be a buffer with room for the new entries: only the run knows how long it gets."""
    side = attention.cached(trace, new, past)
    if past is not None:
        side.positions = trace.fixed(trace.unknown(), "the length of the cache", "GP208")
    return side


def _attention(trace: Trace, node: Node) -> list[Typed]:
    """Attention: one projection makes queries, keys and values."""
    x, weight, bias = trace.need(0), trace.need(1), trace.operand(2)
    merged = attention.projection(trace, x, weight, bias)
    return _fused(trace, node, _projected(trace, x, weight, bias, merged), trace.operand(4), trace.operand(5))


def _quantised_attention(trace: Trace, node: Node) -> list[Typed]:
    """QAttention: the same with a quantised projection, whose scale is per column or one for all."""
    x, weight, bias = trace.need(0), trace.need(1), trace.operand(2)
    merged = attention.projection(trace, x, weight, bias)
    for index in (4, 7):
        quantised.per_column(trace, trace.operand(index), merged)
    contraction = trace.contractions[-1]
    scale, zero_point = trace.operand(4), trace.operand(7)
    contraction.scale = None if scale is None else scale.use
    contraction.zero_point = None if zero_point is None else zero_point.use
    return _fused(trace, node, _projected(trace, x, weight, bias, merged), trace.operand(8), None)


def _projected(trace: Trace, x: Operand, weight: Operand, bias: Operand | None, merged: Axis) -> list[Side]:
    masks: tuple[Mask, ...] = ((weight.use, 1, merged),)
    if bias is not None:
        masks = (*masks, (bias.use, 0, merged))
    sizes = [size for size in trace.attributes("qkv_hidden_sizes") if isinstance(size, Number)]
    return attention.fused_sides(trace, x, merged, trace.attribute("num_heads"), sizes, masks)


def _fused(trace: Trace, node: Node, sides: list[Side], past: Operand | None, added: Operand | None) -> list[Typed]:
    """Attention after the projection; keys and values of the steps before come stacked, ``2 b h p d``."""
    query, key, value = sides
    if node.attributes.get("do_rotary", 0):
        trace.whole(query.width, "rotary embedding inside attention turns pairs of it")
    if past is not None or len(node.outputs) > 1:
        trace.tie(key.width, value.width)
    if past is not None:
        pair, batch, heads, positions, width = past.axes
        trace.whole(pair, "keys and values stacked")
        trace.whole(positions, "attention runs over its positions")
        for axis, other in ((key.batch, batch), (key.heads, heads), (key.width, width)):
            trace.tie(axis, other)
        total = trace.fixed(trace.unknown(), "the length of the cache", "GP208")
        key, value = (Side(s.batch, s.heads, total, s.width, s.masks) for s in (key, value))
    attention.attend(trace, query, key, value, scaled=_scaled(node), biases=[added])
    present = [trace.fixed(2, "keys and values stacked"), *key.stored]
    return [_output(query, value), Typed([find(axis) for axis in present])]


def _rotary(trace: Trace, node: Node) -> list[Typed]:
    return [
        attention.rotary(
            trace,
            trace.need(0),
            [trace.need(2), trace.need(3)],
            _positions(trace.need(1)),
            heads=trace.attribute("num_heads"),
            rotated=trace.attribute("rotary_embedding_dim"),
            interleaved=bool(node.attributes.get("interleaved", 0)),
        )
    ]


def _positions(operand: Operand) -> Operand | None:
    """Position ids per token; a single number is where the first one starts."""
    return operand if operand.rank == 2 else None


FUSED_ATTENTION: dict[str, Operator] = {
    "MultiHeadAttention": Operator(_multi_head),
    "GroupQueryAttention": Operator(_group_query),
    "Attention": Operator(_attention),
    "QAttention": Operator(_quantised_attention),
    "RotaryEmbedding": Operator(_rotary),
}
