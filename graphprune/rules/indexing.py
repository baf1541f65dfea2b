"""Operators that put together and take apart along an axis, and those that read or write at positions."""

from __future__ import annotations

from collections.abc import Sequence

from graphprune.dims import NOTHING, Axis, Misfit, Prod, find, is_free, split
from graphprune.program import Node, Slot
from graphprune.rules.numbers import Arith, Entry, Number, axes_in, now, slots_in
from graphprune.rules.trace import Operand, Trace, Typed, concatenated
from graphprune.sizes import Extent, divide

INDEXED = "its entries are addressed by position"


def concat(trace: Trace, operands: Sequence[Operand], axis: int) -> Typed:
    """``Sum`` along one axis, ties along all others."""
    at = axis % operands[0].rank
    out = list(operands[0].axes)
    for operand in operands[1:]:
        for k, other in enumerate(operand.axes):
            if k != at:
                out[k] = trace.tie(out[k], other) if out[k].size != 1 or other.size == 1 else other
    out[at] = concatenated([operand.axes[at] for operand in operands])
    return Typed(out)


def stack(trace: Trace, operands: Sequence[Operand], axis: int) -> Typed:
    """A new axis that counts the operands; all others are tied."""
    out = list(operands[0].axes)
    for operand in operands[1:]:
        out = [trace.tie(a, b) for a, b in zip(out, operand.axes, strict=True)]
    out.insert(axis % (len(out) + 1), trace.fixed(len(operands)))
    return Typed(out)


def cut(trace: Trace, axis: Axis, start: Extent, size: Extent) -> tuple[Axis, Axis, Axis]:
    """The axis as what lies before, in and after a range; pinned where it cannot be cut there."""
    try:
        before, rest = split(axis, start)
        middle, after = split(rest, size)
    except Misfit as misfit:
        trace.pin(axis, "GP205", str(misfit))
        return trace.fixed(start, str(misfit), "GP205"), trace.fixed(size, str(misfit), "GP205"), NOTHING
    return before, middle, after


def split_into(trace: Trace, x: Operand, axis: int, sizes: Sequence[Entry]) -> list[Typed]:
    """Consecutive pieces of the given sizes: the axis becomes their Sum."""
    at = axis % x.rank
    rest, pieces = x.axes[at], []
    for entry in sizes:
        _, piece, rest = cut(trace, rest, 0, now(entry))
        trace.require(entry, piece)
        pieces.append(piece)
    return [Typed([piece if k == at else each for k, each in enumerate(x.axes)]) for piece in pieces]


def split_equally(trace: Trace, x: Operand, axis: int, count: int, node: Node | None) -> list[Typed]:
    """``count`` pieces of one size, worked out from the axis at run time. Where they come out even, the sizes can be
    written out (in slots that the file does not have yet), so the pieces are independent."""
    whole = x.axes[axis % x.rank]
    size = divide(whole.size, count)
    if isinstance(size, int) and node is not None:
        return split_into(trace, x, axis, [Number(size, Slot(node, "split", place)) for place in range(count)])
    trace.whole(whole, f"it is split into {count} pieces by its size")
    step = -(-whole.size // count) if isinstance(whole.size, int) else trace.unknown()
    pieces = [trace.inherited(step, whole) for _ in range(count - 1)]
    pieces.append(trace.inherited(whole.size - step * (count - 1), whole))
    at = axis % x.rank
    return [Typed([piece if k == at else each for k, each in enumerate(x.axes)]) for piece in pieces]


def slice_axis(trace: Trace, axis: Axis, start: Entry, end: Entry, step: int) -> Axis:
    """``axis[start:end:step]`` with Python's meaning of negative and overlong bounds."""
    size = axis.size
    first, last = _bound(now(start), size, step), _bound(now(end), size, step)
    if step == 1 and first == 0 and (last == size or _at_least(now(end), size)):
        _at_border(trace, start, NOTHING)
        _at_border(trace, end, axis)
        return axis
    if step > 1 and is_free(axis) and (blocks := _blocks(axis, now(start), first, last, step)) is not None:
        outer, inner = trace.factor(axis, blocks)
        trace.whole(inner, "a strided slice takes one entry of each block")
        trace.hold(start, "a strided slice starts at it")
        _at_border(trace, end, axis)
        return outer
    if not is_free(axis) or step != 1 or not isinstance(first, int):
        for entry in (start, end):
            trace.hold(entry, "a slice of an axis that stays begins or ends at it")
        return _pinned_slice(trace, axis, first, last, step)
    before, middle, after = cut(trace, axis, first, last - first)
    if first == 0:
        _at_border(trace, start, NOTHING)
    else:
        _position(trace, start, before, concatenated([middle, after]))
    if _at_least(now(end), size):
        _at_border(trace, end, axis)
    else:
        _position(trace, end, concatenated([before, middle]), after)
    return middle


def _at_border(trace: Trace, bound: Entry, reached: Axis) -> None:
    """A bound at the very start or end of an axis, or beyond it, needs no rewriting: but if it is computed, or serves
    other readers too, it must not come to lie inside. A computed one stays as far beyond as it is."""
    beyond = now(bound) - reached.size
    computed = any(True for _ in axes_in(bound))
    if isinstance(beyond, int) and beyond >= 0 and (computed or not beyond):
        if computed or any(True for _ in slots_in(bound)):
            trace.require(Arith("-", bound, Number(beyond)) if beyond else bound, reached)
    else:
        trace.hold(bound, "a slice runs over the border of an axis")


def _bound(value: Extent, size: Extent, step: int) -> Extent:
    if not isinstance(value, int):
        return value
    if value < 0:
        moved = size + value
        return max(moved, 0 if step > 0 else -1) if isinstance(moved, int) else 0 if value < -(2**30) else moved
    if isinstance(size, int):
        return min(value, size if step > 0 else size - 1)
    return size if value >= 2**30 else value


def _at_least(end: Extent, size: Extent) -> bool:
    """Whether an end bound reaches the end of the axis whatever the axis is cut to (so it needs no rewriting)."""
    return end == size or (isinstance(end, int) and (end >= 2**30 or (isinstance(size, int) and end >= size)))


def _position(trace: Trace, entry: Entry, before: Axis, after: Axis) -> None:
    """A position is the extent of what lies before it; counted from the end, minus the extent of what lies after."""
    value = now(entry)
    if isinstance(value, int) and value < 0:
        trace.require(entry, after, -1)
    else:
        trace.require(entry, before)


def _pinned_slice(trace: Trace, axis: Axis, first: Extent, last: Extent, step: int) -> Axis:
    trace.pin(axis, "GP205", "a slice with a negative step or a run-time start")
    span = last - first if step > 0 else first - last
    if isinstance(span, int):
        return trace.inherited(max(0, -(-span // abs(step))), axis)
    return trace.inherited(span if step == 1 else trace.unknown(), axis)


def _blocks(axis: Axis, start: Extent, first: Extent, last: Extent, step: int) -> Extent | None:
    """How many blocks of ``step`` entries an axis has, where a strided slice takes the same entry of each."""
    if (
        last != axis.size
        or not isinstance(first, int)
        or first >= step
        or (isinstance(start, int) and start < 0 < first)
    ):
        return None  # the last: counted from the end, it would lie elsewhere in the block after a cut
    return divide(axis.size, step)


def gather(trace: Trace, x: Operand, positions: Operand, axis: int) -> Typed:
    """Rows at positions. Constant positions that run through the axis in blocks (a range, a stride, a shuffle) are
    followed: the result is made of the same dimensions, and the positions are worked out anew; others need it whole."""
    at = axis % x.rank
    stored = positions.value.stored
    picked = None
    if stored is not None and positions.rank == 1 and is_free(x.axes[at]) and not positions.use.node.frozen:
        picked = _picked(trace, x.axes[at], [int(k) for k in stored.read().reshape(-1)])
    if picked is None:
        trace.pin(x.axes[at], "GP207", INDEXED)
        new = list(positions.axes)
    else:
        trace.whole(positions.axes[0], "its entries are positions")
        trace.positions[positions.use] = (x.axes[at], picked)
        new = [picked]
    return Typed([*x.axes[:at], *new, *x.axes[at + 1 :]])


def _picked(trace: Trace, axis: Axis, numbers: list[int]) -> Axis | None:
    """The axis that constant positions make of an axis, ``None`` where they follow no pattern.

    Patterns: a range, one entry; every n-th entry; and a transposition, ``outer * inner -> inner * outer``, which is
    what a channel shuffle does.
    """
    size = axis.size
    if not isinstance(size, int) or not numbers or not all(-size <= k < size for k in numbers):
        return None
    places = [k % size for k in numbers]
    if len(places) == 1:
        return cut(trace, axis, places[0], 1)[1]
    step = places[1] - places[0]
    if step == 1 and places == list(range(places[0], places[0] + len(places))):
        return cut(trace, axis, places[0], len(places))[1]
    if step < 2 or size % step:
        return None
    if len(places) == size // step and places[0] < step and places == list(range(places[0], size, step)):
        outer, inner = trace.factor(axis, size // step)
        trace.whole(inner, "every block gives one entry")
        return outer
    if len(places) == size and places == [k + step * row for k in range(step) for row in range(size // step)]:
        outer, inner = trace.factor(axis, size // step)
        return find(Prod([inner, outer]))
    return None


def at_positions(trace: Trace, x: Operand, axes: Sequence[int]) -> None:
    """The operator addresses these axes by position: they stay whole."""
    for axis in axes:
        trace.pin(x.axes[axis], "GP207", INDEXED)


def gather_nd(trace: Trace, x: Operand, positions: Operand, batch: int) -> Typed:
    """Positions are tuples along the first axes of ``x`` after the batch; the rest of ``x`` passes through."""
    last = positions.axes[-1].size
    if not isinstance(last, int):
        at_positions(trace, x, range(x.rank))
        return Typed(None)
    trace.whole(positions.axes[-1], INDEXED)
    at_positions(trace, x, range(batch, batch + last))
    for a, b in zip(x.axes[:batch], positions.axes[:batch], strict=True):
        trace.tie(a, b)
    return Typed([*positions.axes[:-1], *x.axes[batch + last :]])


def scatter_nd(trace: Trace, x: Operand, positions: Operand, updates: Operand) -> Typed:
    """The converse of :func:`gather_nd`: updates carry the position axes and the untouched rest of ``x``."""
    last = positions.axes[-1].size
    if not isinstance(last, int):
        at_positions(trace, x, range(x.rank))
        at_positions(trace, updates, range(updates.rank))
        return Typed(list(x.axes))
    trace.whole(positions.axes[-1], INDEXED)
    at_positions(trace, x, range(last))
    for a, b in zip(updates.axes, [*positions.axes[:-1], *x.axes[last:]], strict=False):
        trace.tie(a, b)
    return Typed(list(x.axes))


def elements(trace: Trace, x: Operand, positions: Operand, axis: int, updates: Operand | None = None) -> Typed:
    """GatherElements and ScatterElements: every axis but ``axis`` may be shorter in the positions, so axes of equal
    size are tied and others stay whole."""
    at = axis % x.rank
    trace.pin(x.axes[at], "GP207", INDEXED)
    trace.pin(positions.axes[at], "GP207", INDEXED)
    for k, (a, b) in enumerate(zip(x.axes, positions.axes, strict=True)):
        if k != at and a.size == b.size:
            trace.tie(a, b)
        elif k != at:
            trace.pin(a, "GP207", "positions cover only a part of it")
            trace.pin(b, "GP207", "positions cover only a part of it")
    if updates is None:
        return Typed(list(positions.axes))
    for a, b in zip(positions.axes, updates.axes, strict=True):
        trace.tie(a, b)
    return Typed(list(x.axes))


def pad(trace: Trace, x: Operand, amounts: Sequence[Entry] | None, axes: Sequence[int], constant: bool) -> Typed:
    """``c -> before + c + after``; ``amounts`` are all begins, then all ends. Padded-in entries may be pruned by
    padding less; other modes than constant copy entries, so the axis stays."""
    out = list(x.axes)
    if amounts is None:
        for k in axes:
            trace.pin(x.axes[k], "GP206", "how much it is padded is only known at run time")
            out[k] = trace.fixed(trace.unknown(), code="GP208")
        return Typed(out)
    for place, k in enumerate(axes):
        begin, end = amounts[place], amounts[place + len(axes)]
        if now(begin) == 0 and now(end) == 0:
            for amount in (begin, end):
                trace.require(amount, NOTHING)
            continue
        negative = any(not isinstance(n, int) or n < 0 for n in (now(begin), now(end)))
        if negative or not constant or not is_free(out[k]):
            trace.whole(out[k], "it is padded with copies of its entries, or cropped")
            for amount in (begin, end):
                trace.hold(amount, "an axis that stays is padded by it")
            out[k] = trace.inherited(out[k].size + now(begin) + now(end), out[k])
        else:
            out[k] = concatenated([trace.axis_of(begin), out[k], trace.axis_of(end)])
    return Typed(out)
