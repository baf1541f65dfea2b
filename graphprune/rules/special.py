"""Operators of particular fields (signals, grids, caches, deformable and causal convolution, linear attention): what
they leave alone stays free."""

from __future__ import annotations

from collections.abc import Sequence

from graphprune.dims import UNIT, Axis, find
from graphprune.program import Contraction
from graphprune.rules.attention import Side, merged_heads, share_heads, write_out_scale
from graphprune.rules.linear import CONV, conv
from graphprune.rules.notation import Row
from graphprune.rules.numbers import Entry, Number, now
from graphprune.rules.trace import Operand, Trace, Typed
from graphprune.sizes import Extent, product

CAUSAL_CONV = Row("n c l, c 1 k, c?, n c s? -> n c l", whole="lk")


def along(trace: Trace, x: Operand, places: Sequence[int], sizes: Sequence[Extent | None], reason: str) -> Typed:
    """An operator that needs some axes whole and makes them anew, with the given sizes (``None``: known to the run)."""
    out = list(x.axes)
    for place, size in zip(places, sizes, strict=True):
        trace.whole(out[place], reason)
        out[place % x.rank] = trace.fixed(trace.unknown() if size is None else size)
    return Typed(out)


def grid_sample(trace: Trace, x: Operand, grid: Operand) -> Typed:
    """``n c *, n (positions) k -> n c (positions)``: channels pass through, space is read at k-D positions."""
    for axis in (*x.axes[2:], *grid.axes[1:]):
        trace.whole(axis, "it is sampled at positions of a grid")
    trace.tie(x.axes[0], grid.axes[0])
    return Typed([x.axes[0], x.axes[1], *grid.axes[1:-1]])


def affine_grid(trace: Trace, theta: Operand, sizes: Sequence[Entry] | None) -> Typed:
    """``n k (k + 1), [n c *] -> n * k``: a grid of k-dimensional positions, of the sizes given."""
    batch, rows, columns = theta.axes
    for axis in (rows, columns):
        trace.whole(axis, "a matrix of an affine map")
    if sizes is None:
        trace.pin(batch, "GP206", "the size of the grid is only known at run time")
        return Typed(None)
    trace.require(sizes[0], batch)
    return Typed([batch, *(trace.fixed(now(size), "the positions of a grid") for size in sizes[2:]), rows])


def columns_to_image(trace: Trace, x: Operand, image: Sequence[int], block: Sequence[int]) -> Typed:
    """``n (c b) l -> n c *``: blocks of ``b`` entries are put back at the ``l`` places of an image."""
    batch, packed, places = x.axes
    trace.whole(places, "the places of blocks in an image")
    count = packed.size // product(block)
    channels, inner = trace.factor(packed, count)
    trace.whole(inner, "the entries of a block")
    return Typed([batch, channels, *(trace.fixed(size, "the positions of an image") for size in image)])


def update(trace: Trace, cache: Operand, new: Operand, starts: Operand | None, axis: int) -> Typed:
    """A cache in which a run of positions along ``axis`` is replaced, from a start for each entry of the batch."""
    for place, (old, other) in enumerate(zip(cache.axes, new.axes, strict=True)):
        if place == axis % cache.rank:
            trace.pin(old, "GP207", "positions along it are written")
            trace.pin(other, "GP207", "positions along it are written")
        else:
            trace.tie(old, other)
    if starts is not None:
        trace.tie(starts.axes[0], cache.axes[0])
    return Typed(list(cache.axes))


def compress(trace: Trace, x: Operand, flags: Operand, axis: int | None) -> Typed:
    """The entries of an axis (or of the whole tensor) that are flagged."""
    trace.whole(flags.axes[0], "it flags entries by position")
    if axis is not None:
        return along(trace, x, [axis], [None], "entries of it are flagged by position")
    for each in x.axes:
        trace.whole(each, "entries of it are flagged by position")
    return Typed([trace.fixed(trace.unknown())])


def reverse_sequence(trace: Trace, x: Operand, lengths: Operand, time: int, batch: int) -> Typed:
    """Each entry of the batch is reversed along time up to its own length."""
    trace.whole(x.axes[time], "sequences are reversed along it")
    trace.tie(x.axes[batch], lengths.axes[0])
    return Typed(list(x.axes))


def deformable_conv(
    trace: Trace,
    operands: Sequence[Operand | None],
    offsets: Sequence[Operand | None],
    groups: Number,
    offset_groups: int,
    window: Sequence[Extent],
) -> Typed:
    """:data:`CONV`, each entry of the kernel read at its own offset, ``n (d k) *`` for ``d`` groups of channels."""
    x = operands[0]
    assert x is not None
    if offset_groups > 1:
        shares, _ = trace.factor(x.axes[1], offset_groups)
        trace.whole(shares, "channels share the offsets of their group")
    out = conv(CONV, trace, operands, groups, window)
    for operand in offsets:
        if operand is not None:
            trace.tie(operand.axes[0], x.axes[0])
            for axis in operand.axes[1:]:
                trace.whole(axis, "offsets of the positions of a window")
    return out


def causal_conv(trace: Trace, operands: Sequence[Operand | None]) -> list[Typed]:
    """``n c l, c 1 k, c?, n c (k - 1)? -> n c l, n c (k - 1)``: every channel has a kernel of its own, so none is
    summed over."""
    kernel, past = operands[1], operands[3]
    assert kernel is not None
    if past is not None:
        trace.whole(past.axes[2], "the steps that a causal kernel looks back")
    out = CAUSAL_CONV(trace, operands)
    axes = out.axes or []
    trace.contract(
        Contraction(
            trace.node,
            kernel.use,
            tuple(kernel.axes),
            out=(),
            reduced=(UNIT,),
            stationary=(axes[1],),
            macs=(*axes, kernel.axes[2]),
            masks=(),
            activation=None if operands[0] is None else operands[0].use,
            bias=None if operands[2] is None else operands[2].use,
        )
    )
    return [out, Typed([*axes[:2], trace.fixed(kernel.axes[2].size - 1)])]


def linear_attention(
    trace: Trace, operands: Sequence[Operand | None], heads: Sequence[Number], scaled: bool
) -> list[Typed]:
    """``b t (h d), b t (v d), b t (v e), b v d e?, b t (v d)?, b t v? -> b t (h e), b v d e`` with ``h = (v r)``: a
    state of ``d e`` per key head, written by keys and values and read by queries; decay per entry or per head."""
    x, keys, values, past, decay, rate = (*operands, None, None, None)[:6]
    assert x is not None and keys is not None and values is not None
    query, key, value = (
        merged_heads(trace, each, n) for each, n in zip((x, keys, values), (heads[0], heads[1], heads[1]), strict=True)
    )
    for axis, other in ((query.batch, key.batch), (key.batch, value.batch), (key.heads, value.heads)):
        trace.tie(axis, other)
    for axis in (query.positions, key.positions, value.positions):
        trace.whole(axis, "the steps of a recurrence")
    trace.tie(query.width, key.width)
    share_heads(trace, query.heads, key.heads)
    if not scaled:
        write_out_scale(trace, query.width)
    state: list[Axis] = [key.batch, key.heads, key.width, value.width]
    if past is not None:
        for axis, other in zip(past.axes, state, strict=True):
            trace.tie(axis, other)
    for gate in (decay, rate):
        if gate is not None:
            trace.tie(gate.axes[0], key.batch)
            trace.tie(gate.axes[1], key.positions)
            _gated(trace, gate.axes[2], key)
    _declare(trace, query, key, value)
    out = Side(query.batch, query.heads, query.positions, value.width)
    return [Typed([out.batch, out.positions, out.merged]), Typed([find(axis) for axis in state])]


def _gated(trace: Trace, axis: Axis, key: Side) -> None:
    """One gate for all, per head, or per entry of the keys."""
    if axis.size != 1:
        trace.tie(axis, key.heads if axis.size == key.heads.size else key.merged)


def _declare(trace: Trace, query: Side, key: Side, value: Side) -> None:
    """Reading the state reduces the width of the keys; an entry is out of it when query and key are zero there."""
    trace.contract(
        Contraction(
            trace.node,
            None,
            tuple(key.stored),
            out=(find(value.width),),
            reduced=(find(key.width),),
            stationary=(find(query.heads), query.batch),
            macs=(query.batch, find(query.heads), query.positions, find(key.width), find(value.width)),
            masks=(*query.masks, *key.masks),
            activation=query.use,
        )
    )
