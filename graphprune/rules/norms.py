"""Normalisations. Scale, shift and running statistics follow the channels; statistics computed over an axis make its
removal *inexact*: the pruned operator is right, but its statistics are those of the survivors."""

from __future__ import annotations

from collections.abc import Sequence

from graphprune.program import BatchNorm
from graphprune.rules.notation import Row
from graphprune.rules.numbers import Number
from graphprune.rules.trace import Operand, Trace, Typed

BATCH_NORM = Row("n c ..., c, c, c, c -> n c ...")
INSTANCE_NORM = Row("n c ..., c, c -> n c ...")


def batch_norm(
    trace: Trace, operands: Sequence[Operand | None], outputs: int, training: bool, epsilon: float = 1e-5
) -> list[Typed]:
    """Scale, shift, mean and variance per channel; in training form also the running statistics come out, and all
    statistics are those of the batch."""
    x, *parts = operands
    scale, shift, mean, variance = (None if part is None else part.use for part in parts)
    if x is not None and mean is not None and variance is not None and not training:
        trace.batch_norms.append(BatchNorm(trace.node, x.use, scale, shift, mean, variance, epsilon))
    for place, axis in enumerate(x.axes if x is not None and training else []):
        if place != 1:
            trace.inexact(axis)
    if x is not None and x.rank == 1:
        return [Typed(list(x.axes))] * outputs
    out = BATCH_NORM(trace, operands)
    return [out, *(Typed([out.axes[1]]) for _ in range(outputs - 1) if out.axes)]


def instance_norm(trace: Trace, operands: Sequence[Operand | None]) -> Typed:
    """Statistics over space, per sample and channel: channels are independent, the spatial axes are averaged over."""
    x = operands[0]
    if x is None:
        raise ValueError("its input is missing")
    for axis in x.axes[2:]:
        trace.inexact(axis)
    return INSTANCE_NORM(trace, operands)


def layer_norm(trace: Trace, operands: Sequence[Operand | None], axis: int, outputs: int = 1) -> list[Typed]:
    """``... c, c, c -> ... c`` over the axes from ``axis`` on, with scale and shift where given (also RMS norm)."""
    x = operands[0]
    if x is None:
        raise ValueError("its input is missing")
    first = axis % x.rank
    for each in x.axes[first:]:
        trace.inexact(each)
    for operand in operands[1:]:
        if operand is not None:
            trace.broadcast([x.axes, operand.axes])
    reduced = [each if k < first else trace.fixed(1) for k, each in enumerate(x.axes)]
    return [Typed(list(x.axes)), *(Typed(reduced) for _ in range(outputs - 1))]


def group_norm(trace: Trace, operands: Sequence[Operand | None], groups: Number, per_group: bool) -> Typed:
    """``n (g c) ...``: statistics over each group, so channels go in equal shares from all groups or whole groups go.
    Scale and shift are per channel, or per group up to opset 20 (``per_group``)."""
    x, scale, shift = operands[0], operands[1], operands[2]
    if x is None:
        raise ValueError("its input is missing")
    count, inner = trace.factor(x.axes[1], groups.value)
    trace.require(groups, count)
    trace.inexact(inner)
    for each in x.axes[2:]:
        trace.inexact(each)
    for operand in (scale, shift):
        if operand is not None:
            trace.tie(count if per_group else x.axes[1], operand.axes[0])
    return Typed(list(x.axes))


def over_axes(trace: Trace, x: Operand, axes: Sequence[int]) -> Typed:
    """Statistics over the given axes, no parameters (LpNormalization, MeanVarianceNormalization)."""
    for axis in axes:
        trace.inexact(x.axes[axis])
    return Typed(list(x.axes))


def local_response(trace: Trace, x: Operand) -> Typed:
    """Every channel is divided by its neighbours: their order and number must stay."""
    trace.whole(x.axes[1], "each channel is normalised by its neighbours")
    return Typed(list(x.axes))
