"""Scaled dot-product attention as one operator, and the rotary embeddings in front of it.

::

    b h q d, b h t d, b h t e -> b h q e        h = (kv r): r query heads share one key and value head

However the heads are laid out (an axis of their own, or ``b q (h d)`` with the number of heads as an attribute), a
:class:`Side` names the axes, and :func:`attend` says what attention does to them. The positions stay whole: softmax
runs over those of the keys, and masks count from those of the queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphprune.dims import UNIT, Axis, Misfit, Prod, find
from graphprune.program import Contraction, Use
from graphprune.rules.indexing import cut
from graphprune.rules.numbers import Number
from graphprune.rules.trace import Default, Operand, Trace, Typed, concatenated
from graphprune.sizes import divide

Mask = tuple[Use, int, Axis]


@dataclass(eq=False)
class Side:
    """Queries, keys or values by axis. ``masks`` are the operand positions where zeroing an entry of the width makes
    that entry zero (the operand, and its bias where there is one)."""

    batch: Axis
    heads: Axis
    positions: Axis
    width: Axis
    masks: tuple[Mask, ...] = ()
    use: Use | None = None

    @property
    def merged(self) -> Axis:
        """Heads and width as one axis, heads outermost."""
        return find(Prod([self.heads, self.width]))

    @property
    def stored(self) -> list[Axis]:
        """``b h t d``: the layout of caches and of the four-dimensional form."""
        return [self.batch, self.heads, self.positions, self.width]


def split_heads(x: Operand) -> Side:
    """``b h s d``."""
    batch, heads, positions, width = x.axes
    return Side(batch, heads, positions, width, ((x.use, 3, width),), x.use)


def merged_heads(trace: Trace, x: Operand, count: Number) -> Side:
    """``b s (h d)``; the attribute that counts the heads follows them."""
    batch, positions, merged = x.axes
    heads, width = trace.factor(merged, _positive(count))
    trace.require(count, heads)
    return Side(batch, heads, positions, width, ((x.use, 2, merged),), x.use)


def packed_heads(trace: Trace, x: Operand, parts: int) -> list[Side]:
    """``b s h parts d``: queries, keys and values interleaved within every head."""
    batch, positions, heads, pack, width = x.axes
    if pack.size != parts:
        raise ValueError(f"{x.value.name} packs {pack.size} tensors, not {parts}")
    trace.structural(pack, "queries, keys and values packed together")
    return [Side(batch, heads, positions, width, ((x.use, 4, width),), x.use) for _ in range(parts)]


def merged_parts(
    trace: Trace,
    batch: Axis,
    positions: Axis,
    merged: Axis,
    counts: tuple[Number, Number],
    masks: tuple[Mask, ...] = (),
) -> list[Side]:
    """``b s ((kv r d) + (kv d) + (kv d))``: queries, keys and values side by side, all of one width; ``counts`` are the
    numbers of query heads and of key heads."""
    queries, keys = _positive(counts[0]), _positive(counts[1])
    width = divide(merged.size, queries + 2 * keys)
    shared = divide(queries, keys)
    if not isinstance(width, int) or not isinstance(shared, int):
        raise ValueError(f"{merged.size} is not {queries} + 2 * {keys} heads of one width")
    heads, each, width_axis = trace.free(keys), trace.free(shared), trace.free(width)
    query = Side(batch, find(Prod([heads, each])), positions, width_axis, masks)
    sides = [query, *(Side(batch, heads, positions, width_axis, masks) for _ in range(2))]
    trace.tie(merged, concatenated([side.merged for side in sides]))
    trace.require(counts[0], query.heads)
    trace.require(counts[1], heads)
    return sides


def _positive(count: Number) -> int:
    if count.value < 1:
        raise ValueError("the number of heads is not given")
    return count.value


def add_bias(trace: Trace, bias: Operand | None, sides: Sequence[Side]) -> None:
    """``(h d) + (h d) + (h e)``: one bias for queries, keys and values, side by side."""
    if bias is None:
        return
    trace.tie(bias.axes[0], concatenated([side.merged for side in sides]))
    for side in sides:
        side.masks = (*side.masks, (bias.use, 0, bias.axes[0]))


def cached(trace: Trace, new: Side, past: Operand | None, shared: bool = False) -> Side:
    """Keys or values after those of the steps before, ``b h p d``; a ``shared`` buffer already has room for both."""
    if past is None:
        return new
    batch, heads, positions, width = past.axes
    for axis, other in ((new.batch, batch), (new.heads, heads), (new.width, width)):
        trace.tie(axis, other)
    trace.whole(positions, "attention runs over its positions")
    trace.whole(new.positions, "attention runs over its positions")
    total = positions if shared else concatenated([positions, new.positions])
    return Side(new.batch, new.heads, total, new.width, (*new.masks, (past.use, 3, width)), new.use)


def attend(
    trace: Trace,
    query: Side,
    key: Side,
    value: Side,
    *,
    scaled: bool,
    biases: Sequence[Operand | None] = (),
) -> list[Axis]:
    """Tie the three sides and the ``biases`` added to the scores (broadcast to ``b h q t``), declare both contractions.
    Returns the axes of the scores.

    ``scaled`` says that the file gives the scale; else it is 1/sqrt(width), and is written out when the width is cut.
    Law: gather heads (with the query heads that share them) and the widths of queries and keys alike; the width of the
    values is that of the output.
    """
    for axis, other in ((query.batch, key.batch), (key.batch, value.batch), (key.heads, value.heads)):
        trace.tie(axis, other)
    trace.tie(key.positions, value.positions)
    trace.tie(query.width, key.width)
    for positions in (query.positions, key.positions):
        trace.whole(positions, "attention runs over its positions")
    share_heads(trace, query.heads, key.heads)
    if not scaled:
        write_out_scale(trace, query.width)
    scores = [query.batch, query.heads, query.positions, key.positions]
    for bias in biases:
        if bias is not None:
            trace.broadcast([scores, bias.axes])
    _declare(trace, query, key, value)
    return scores


def write_out_scale(trace: Trace, width: Axis) -> None:
    """The scale of the dense width stays when the width is cut: it is given instead of left to its default."""
    if isinstance(width.size, int) and width.size and not trace.node.frozen:
        trace.defaults.append(Default(trace.node, "scale", width.size**-0.5, width))
    else:
        trace.whole(width, "the scale of attention is taken from its width")


def share_heads(trace: Trace, query: Axis, key: Axis) -> None:
    """``h = (kv r)``: consecutive query heads share one key and value head (all have their own where r is 1)."""
    if query.size == key.size:
        trace.tie(query, key)
        return
    if divide(query.size, key.size) is None:
        raise Misfit(f"{query.size} query heads do not share {key.size} key heads")
    groups, _ = trace.factor(query, key.size)
    trace.tie(groups, key)


def _declare(trace: Trace, query: Side, key: Side, value: Side) -> None:
    """Scores reduce the width, mixing the values reduces the positions; heads run through both."""
    common = (find(query.heads), query.batch)
    sizes = (query.batch, find(query.heads), query.positions, key.positions)
    for side, out, reduced, masks, width in (
        (key, key.positions, key.width, key.masks, key.width),
        (value, value.width, value.positions, (), value.width),
    ):
        trace.contract(
            Contraction(
                trace.node,
                None,
                tuple(side.stored),
                out=(find(out),),
                reduced=(find(reduced),),
                stationary=common,
                macs=(*sizes, find(width)),
                masks=masks,
                activation=query.use if side is key else None,
            )
        )


def projection(trace: Trace, x: Operand, weight: Operand, bias: Operand | None) -> Axis:
    """``b s i, i n, n? -> b s n`` inside a fused attention: declares the contraction, returns ``n``."""
    batch, positions, inputs = x.axes
    reduced, out = weight.axes
    trace.tie(inputs, reduced)
    if bias is not None:
        trace.tie(out, bias.axes[0])
    trace.contract(
        Contraction(
            trace.node,
            weight.use,
            tuple(weight.axes),
            out=(out,),
            reduced=(reduced,),
            stationary=(),
            macs=(batch, positions, reduced, out),
            masks=((weight.use, 0, reduced),),
            activation=x.use,
            bias=None if bias is None else bias.use,
        )
    )
    return out


def fused_sides(
    trace: Trace, x: Operand, merged: Axis, heads: Number, sizes: Sequence[Number], masks: tuple[Mask, ...]
) -> list[Side]:
    """``b s ((h d) + (h d) + (h e))`` from one projection; ``sizes`` are the numbers that give the three parts, none
    where the operator takes equal thirds (and with them one width)."""
    batch, positions, _ = x.axes
    if not sizes:
        return merged_parts(trace, batch, positions, merged, (heads, heads), masks)
    count = _positive(heads)
    widths = [divide(size.value, count) for size in sizes]
    if len(widths) != 3 or widths[0] != widths[1] or not all(isinstance(width, int) for width in widths):
        raise ValueError(f"{[size.value for size in sizes]} are not three times {count} heads")
    shared, keys, values = trace.free(count), trace.free(widths[0] or 1), trace.free(widths[2] or 1)
    sides = [Side(batch, shared, positions, width, masks) for width in (keys, keys, values)]
    trace.tie(merged, concatenated([side.merged for side in sides]))
    trace.require(heads, shared)
    for size, side in zip(sizes, sides, strict=True):
        trace.require(size, side.merged)
    return sides


def rotary(
    trace: Trace,
    x: Operand,
    caches: Sequence[Operand],
    positions: Operand | None,
    *,
    heads: Number,
    rotated: Number,
    interleaved: bool,
) -> Typed:
    """``b h s (2 f)`` or ``b s (h 2 f)``, with ``f`` rotation frequencies as in the caches ``s f`` or ``b s f``: entry
    f of one half turns with entry f of the other (interleaved: ``(f 2)``), so both go together with the column of the
    caches. Where only the first ``rotated`` entries turn, the rest of the width is free."""
    frequencies = caches[0].axes[-1]
    for cache in caches[1:]:
        trace.tie(frequencies, cache.axes[-1])
    side = split_heads(x) if x.rank == 4 else _rotary_side(trace, x, heads, rotated, frequencies)
    if heads.value and heads.value == side.heads.size:
        trace.require(heads, side.heads)
    if positions is not None:
        trace.broadcast([[side.batch, side.positions], positions.axes])
    for cache in caches:
        if cache.rank == 3:
            trace.broadcast([[side.batch, side.positions], cache.axes[:2]])
        else:
            trace.pin(cache.axes[0], "GP207", "its entries are addressed by position")
    turned = side.width
    if rotated.value and rotated.value != turned.size:
        _, turned, _ = cut(trace, side.width, 0, rotated.value)
    if rotated.value:
        trace.require(rotated, turned)
    _pair(trace, turned, frequencies, interleaved)
    return Typed(list(x.axes))


def _rotary_side(trace: Trace, x: Operand, heads: Number, rotated: Number, frequencies: Axis) -> Side:
    """``b s (h d)``: without a number of heads the width is that of the caches."""
    if heads.value or rotated.value:
        return merged_heads(trace, x, heads)
    batch, positions, merged = x.axes
    count = divide(merged.size, 2 * frequencies.size)
    if count is None:
        raise Misfit(f"{merged.size} is not a number of heads of 2 * {frequencies.size} entries")
    outer, width = trace.factor(merged, count)
    return Side(batch, outer, positions, width)


def _pair(trace: Trace, turned: Axis, frequencies: Axis, interleaved: bool) -> None:
    outer, inner = trace.factor(turned, frequencies.size if interleaved else 2)
    paired, halves = (outer, inner) if interleaved else (inner, outer)
    trace.structural(halves, "rotary embedding turns pairs")
    trace.tie(paired, frequencies)


def sink(trace: Trace, operand: Operand | None, heads: Axis) -> None:
    """One number per head (attention sinks)."""
    if operand is not None and operand.axes[0] is not UNIT:
        trace.tie(operand.axes[0], heads)
