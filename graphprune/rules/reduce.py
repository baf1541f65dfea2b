"""Reductions, pooling, softmax and ranking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphprune.dims import UNIT, Axis
from graphprune.rules.trace import Operand, Trace, Typed
from graphprune.rules.windows import window
from graphprune.sizes import Extent


def reduce(trace: Trace, x: Operand, axes: Sequence[int] | None, keepdims: bool) -> Typed:
    """Statistics over axes: the result is computed from the survivors, so the axes are inexact."""
    gone = set(range(x.rank)) if axes is None else {k % x.rank for k in axes}
    for k in gone:
        trace.inexact(x.axes[k])
    return Typed([UNIT if k in gone else axis for k, axis in enumerate(x.axes) if keepdims or k not in gone])


def reduce_unknown_axes(trace: Trace, x: Operand, keepdims: bool) -> Typed:
    """The axes are computed at run time: nothing may move."""
    for axis in x.axes:
        trace.pin(axis, "GP206", "which axes are reduced is only known at run time")
    return Typed([trace.fixed(trace.unknown()) for _ in x.axes] if keepdims else None)


def softmax(trace: Trace, x: Operand, axes: Sequence[int]) -> Typed:
    """Softmax and its kin normalise over an axis: removing entries would change all others."""
    for k in axes:
        trace.whole(x.axes[k], f"{trace.node.op} normalises over it")
    return Typed(list(x.axes))


def along(trace: Trace, x: Operand, axes: Sequence[int], reason: str) -> Typed:
    """An operator whose result at one entry depends on the others of some axes, which therefore stay whole."""
    for k in axes:
        trace.whole(x.axes[k], reason)
    return Typed(list(x.axes))


def arg(trace: Trace, x: Operand, axis: int, keepdims: bool) -> Typed:
    """Positions of the extreme along an axis."""
    at = axis % x.rank
    trace.pin(x.axes[at], "GP207", "positions along it are computed")
    return Typed([UNIT if k == at else each for k, each in enumerate(x.axes) if keepdims or k != at])


def top_k(trace: Trace, x: Operand, axis: int, count: Extent) -> list[Typed]:
    """The largest entries along an axis and their positions."""
    at = axis % x.rank
    trace.pin(x.axes[at], "GP207", "positions along it are computed")
    picked = trace.fixed(count)
    out: list[Axis] = [picked if k == at else each for k, each in enumerate(x.axes)]
    return [Typed(list(out)), Typed(list(out))]


def pool(
    trace: Trace, x: Operand, kernel: Sequence[int], attributes: Mapping[str, Any], outputs: int = 1
) -> list[Typed]:
    """``n c * -> n c *``: a window slides over space, channels pass through. Positions (a second output) count through
    the whole tensor, so they pin the channels."""
    for axis in x.axes[2:]:
        trace.whole(axis, "a pooling window slides over it")
    if outputs > 1:
        for axis in x.axes[:2]:
            trace.pin(axis, "GP207", "pooling positions count through the whole tensor")
    sizes = window(trace, [axis.size for axis in x.axes[2:]], kernel, attributes)
    out = [*x.axes[:2], *(trace.fixed(size, "the positions of a window") for size in sizes)]
    return [Typed(list(out)) for _ in range(outputs)]


def pool_all(trace: Trace, x: Operand) -> Typed:
    """``n c * -> n c 1``: statistics over all of space."""
    for axis in x.axes[2:]:
        trace.inexact(axis)
    return Typed([*x.axes[:2], *(UNIT for _ in x.axes[2:])])


def resize(trace: Trace, x: Operand, sizes: Sequence[Extent | None]) -> Typed:
    """New sizes per axis, ``None`` where an axis keeps its own; an axis that is resampled stays whole."""
    out = []
    for axis, size in zip(x.axes, sizes, strict=True):
        if size is None or size == axis.size:
            out.append(axis)
        else:
            trace.whole(axis, "it is resampled")
            out.append(trace.inherited(size, axis))
    return Typed(out)
