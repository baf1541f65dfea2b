"""Operators that only rearrange: reshape, transpose, expand, pixel shuffle.

Reshape makes products and takes them apart; everything else here is written with it.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphprune.dims import UNIT, Axis, Prod, find, is_free
from graphprune.rules.numbers import Entry, Number, Opaque, SizeOf, now
from graphprune.rules.trace import Operand, Trace, Typed
from graphprune.sizes import Extent, divide, product


def transpose(trace: Trace, x: Operand, order: Sequence[int]) -> Typed:
    """``permute the axes``: nothing is tied, nothing moves."""
    return Typed([x.axes[k] for k in order])


def reshape(
    trace: Trace,
    x: Operand,
    target: Sequence[Entry] | None,
    *,
    zero_copies: bool = True,
    rank: int | None = None,
    known: Sequence[Extent] | None = None,
) -> Typed:
    """Row-major reshape to a target of entries: -1 is what is left, 0 copies the axis of the same place. ``known`` are
    the sizes of the result, where the dialect has them.

    Law: where a run of axes and a run of target sizes have the same product, the run is one Prod, taken apart again by
    the target sizes; the numbers of the target are bound to the axes they made.
    """
    if target is None:
        for axis in x.axes:
            trace.pin(axis, "GP206", "the shape it is reshaped to is only known at run time")
        return Typed(None if rank is None else [trace.fixed(trace.unknown(), code="GP208") for _ in range(rank)])
    copies = {k for k, entry in enumerate(target) if zero_copies and now(entry) == 0 and k < x.rank}
    sizes = [x.axes[k].size if k in copies else now(entry) for k, entry in enumerate(target)]
    inferred = [k for k, size in enumerate(sizes) if size == -1]
    if inferred:
        rest = divide(product(a.size for a in x.axes), product(s for k, s in enumerate(sizes) if k != inferred[0]))
        if rest is None:
            rest = trace.unknown() if known is None else known[inferred[0]]
        sizes[inferred[0]] = rest
    axes = regroup(trace, x.axes, sizes)
    for k, entry in enumerate(target):
        if k in copies:
            trace.require(SizeOf(x.axes[k]), axes[k])  # what is copied must be the size of what comes out
        elif k not in inferred[:1]:
            trace.require(entry, axes[k])
    return Typed(axes)


def regroup(trace: Trace, axes: Sequence[Axis], sizes: Sequence[Extent]) -> list[Axis]:
    """The axes of a row-major reshape, segment by segment (the shortest runs with equal products)."""
    ends, targets = _prefixes([axis.size for axis in axes]), [1, *_prefixes(sizes)]
    out: list[Axis] = []
    at, done = 0, 0
    while done < len(sizes):
        stop, reach = _segment(ends, targets, at, done, len(sizes))
        out.extend(_segment_from_the_end(trace, list(axes[at:reach]), list(sizes[done:stop])))
        at, done = reach, stop
    return out


def _segment_from_the_end(trace: Trace, axes: list[Axis], sizes: list[Extent]) -> list[Axis]:
    """The axes of a segment in which products met only at its end: where a run-time size hides the others (a sequence
    padded to full chunks), runs of axes and sizes that meet when counted from the end are taken off first."""
    tail: list[Axis] = []
    while len(axes) > 1 and len(sizes) > 1:
        backward = _prefixes([axis.size for axis in axes[:0:-1]])
        found = next(
            (
                (i, j)
                for j, size in enumerate(_prefixes(sizes[:0:-1]), 1)
                for i, end in enumerate(backward, 1)
                if end == size
            ),
            None,
        )
        if found is None:
            break
        i, j = found
        tail = [*_segment_axes(trace, axes[-i:], sizes[-j:]), *tail]
        axes, sizes = axes[:-i], sizes[:-j]
    return [*_segment_axes(trace, axes, sizes), *tail]


def _prefixes(sizes: Sequence[Extent]) -> list[Extent]:
    found: list[Extent] = []
    total: Extent = 1
    for size in sizes:
        total = total * size
        found.append(total)
    return found


def _segment(ends: list[Extent], targets: list[Extent], at: int, done: int, count: int) -> tuple[int, int]:
    """The next place where input and target products meet: (sizes used, axes used)."""
    for stop in range(done + 1, count):
        total = targets[stop]
        reach = next((k + 1 for k in range(at, len(ends)) if ends[k] == total), None)
        if reach is None and at > 0 and ends[at - 1] == total:
            reach = at
        if reach is None and total == 1 and at == 0:
            reach = 0
        if reach is not None:
            return stop, reach
    return count, len(ends)


def _segment_axes(trace: Trace, axes: list[Axis], sizes: list[Extent]) -> list[Axis]:
    whole = find(Prod(axes))
    out: list[Axis] = []
    for place, size in enumerate(sizes):
        if size == 1:
            out.append(UNIT)
        elif place == len(sizes) - 1 or whole.size == size:
            if whole.size != size:
                trace.pin(whole, "GP205", f"an axis of size {whole.size} is reshaped to {size}")
                whole = trace.fixed(size, "the sizes of the reshape do not meet", "GP205")
            out.append(whole)
            whole = UNIT
        else:
            outer, whole = trace.factor(whole, size)
            out.append(outer)
    if whole.size != 1:
        trace.pin(whole, "GP205", "the sizes of the reshape do not meet")
    return out


def squeeze(trace: Trace, x: Operand, axes: Sequence[int] | None) -> Typed:
    """Drop axes of size 1: the named ones, or all."""
    if axes is None:
        gone = {k for k, axis in enumerate(x.axes) if axis.size == 1}
        for axis in x.axes:
            if isinstance(axis.size, int) and axis.size > 1 and is_free(axis):
                trace.whole(axis, "squeeze without axes would drop it at width 1")
    else:
        gone = {k % x.rank for k in axes}
    return Typed([axis for k, axis in enumerate(x.axes) if k not in gone])


def unsqueeze(trace: Trace, x: Operand, axes: Sequence[int]) -> Typed:
    """Insert axes of size 1 at the given places of the result."""
    rank = x.rank + len(axes)
    new = {k % rank for k in axes}
    old = iter(x.axes)
    return Typed([UNIT if k in new else next(old) for k in range(rank)])


def flatten(trace: Trace, x: Operand, axis: int) -> Typed:
    """Two axes: the product of those before ``axis`` and the product of the rest."""
    at = axis if axis >= 0 else axis + x.rank
    return Typed([find(Prod(x.axes[:at])), find(Prod(x.axes[at:]))])


def expand(trace: Trace, x: Operand, target: Sequence[Entry] | None, rank: int | None = None) -> Typed:
    """Stretch axes of size 1 to the target; a stretched axis is new and may be pruned by changing the target."""
    if target is None:
        for axis in x.axes:
            trace.pin(axis, "GP206", "the shape it is expanded to is only known at run time")
        return Typed(None if rank is None else [trace.fixed(trace.unknown(), code="GP208") for _ in range(rank)])
    out: list[Axis] = []
    padded = [UNIT] * (len(target) - x.rank) + list(x.axes)
    extra = len(padded) - len(target)
    for k, axis in enumerate(padded):
        entry: Entry = target[k - extra] if k >= extra else Number(1)
        size = now(entry)
        if size == 1:
            trace.require(entry, UNIT)
            out.append(axis)
        elif axis.size == 1:
            out.append(trace.axis_of(entry))
        elif isinstance(entry, Opaque):
            trace.pin(axis, "GP206", "the size it is expanded to is only known at run time")
            out.append(axis)
        else:
            trace.require(entry, axis)
            out.append(axis)
    return Typed(out)


def from_entries(trace: Trace, target: Sequence[Entry] | None, rank: int | None) -> Typed:
    """A constant tensor of a computed shape: its axes are those the shape was read from, or free ones bound to it."""
    if target is None:
        return Typed(None if rank is None else [trace.fixed(trace.unknown(), code="GP208") for _ in range(rank)])
    return Typed([trace.axis_of(entry) for entry in target])


def tile(trace: Trace, x: Operand, repeats: Sequence[Entry] | None) -> Typed:
    """``c -> (r c)``: the copies are the outer factor, so entries go in all copies alike."""
    if repeats is None:
        for axis in x.axes:
            trace.pin(axis, "GP206", "how often it is repeated is only known at run time")
        return Typed([trace.fixed(trace.unknown(), code="GP208") for _ in x.axes])
    out = []
    for axis, entry in zip(x.axes, repeats, strict=True):
        out.append(find(Prod([trace.axis_of(entry), axis])))
    return Typed(out)


def depth_to_space(trace: Trace, x: Operand, block: int, crd: bool) -> Typed:
    """``n (c r q) h w -> n c (h r) (w q)`` (CRD) or ``n (r q c) h w`` (DCR): r and q are the block and stay."""
    n, channels, height, width = x.axes
    rest = divide(channels.size, block * block)
    if rest is None:
        return Typed([n, *(trace.fixed(trace.unknown()) for _ in range(3))])
    order = [rest, block, block] if crd else [block, block, rest]
    parts = regroup(trace, [channels], order)
    c, r, q = parts if crd else (parts[2], parts[0], parts[1])
    for axis in (r, q):
        trace.structural(axis, "the block of a pixel shuffle")
    return Typed([n, c, find(Prod([height, r])), find(Prod([width, q]))])


def space_to_depth(trace: Trace, x: Operand, block: int, crd: bool) -> Typed:
    """``n c (h r) (w q) -> n (r q c) h w``, or ``n (c r q) h w`` (CRD): the inverse of the pixel shuffle."""
    n, channels, height, width = x.axes
    h, r = _blocks(trace, height, block)
    w, q = _blocks(trace, width, block)
    return Typed([n, find(Prod([channels, r, q] if crd else [r, q, channels])), h, w])


def _blocks(trace: Trace, axis: Axis, block: int) -> tuple[Axis, Axis]:
    outer = divide(axis.size, block)
    left, right = trace.factor(axis, trace.unknown() if outer is None else outer)
    trace.structural(right, "the block of a pixel shuffle")
    if outer is None:
        return left, trace.fixed(block)
    return left, right
