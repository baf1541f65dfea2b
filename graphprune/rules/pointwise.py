"""Operators that compute every output entry from the entries at the same place."""

from __future__ import annotations

from collections.abc import Sequence

from graphprune.dims import UNIT, is_free
from graphprune.program import Addition
from graphprune.rules.trace import Operand, Trace, Typed


def same(trace: Trace, x: Operand) -> Typed:
    """``... -> ...``: a unary operator keeps every axis. Law: f(x)[keep] == f(x[keep])."""
    return Typed(list(x.axes))


def broadcast(trace: Trace, operands: Sequence[Operand | None]) -> Typed:
    """``..., ... -> ...``: multidirectional broadcasting ties axes of equal place, axes of size 1 stretch."""
    return Typed(trace.broadcast([x.axes for x in operands if x is not None]))


def add(trace: Trace, operands: Sequence[Operand | None]) -> Typed:
    """The same for a sum of two tensors, which is declared."""
    typed = broadcast(trace, operands)
    uses = [x.use for x in operands if x is not None]
    if len(uses) == 2:
        trace.additions.append(Addition(trace.node, (uses[0], uses[1])))
    return typed


def broadcast_from(trace: Trace, x: Operand, y: Operand, place: int) -> Typed:
    """``... c ..., c -> ... c ...``: the axes of the second operand are those of the first from ``place`` on."""
    missing = x.rank - place % x.rank - y.rank
    return Typed(trace.broadcast([x.axes, [*y.axes, *[UNIT] * missing]]))


def per_element_random(trace: Trace, x: Operand) -> Typed:
    """Random draws depend on the position in the tensor: nothing may move."""
    for axis in x.axes:
        trace.whole(axis, "the random numbers drawn depend on the shape")
    return Typed(list(x.axes))


def opaque(
    trace: Trace, operands: Sequence[Operand | None], ranks: Sequence[int | None], code: str, why: str
) -> list[Typed]:
    """An operator that nothing is known about: its inputs are pinned, its outputs are new, pinned axes."""
    for operand in operands:
        for axis in [] if operand is None else operand.typed.axes or []:
            if is_free(axis):
                trace.pin(axis, code, why)
    return [
        Typed(None if rank is None else [trace.fixed(trace.unknown(), why, code) for _ in range(rank)])
        for rank in ranks
    ]
