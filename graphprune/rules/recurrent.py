"""Recurrent cells: every gate, every state and every output of a cell carries one and the same hidden axis."""

from __future__ import annotations

from dataclasses import dataclass

from graphprune.dims import Axis
from graphprune.program import Contraction
from graphprune.rules.numbers import Number
from graphprune.rules.trace import Operand, Trace, Typed


@dataclass(eq=False)
class Weights:
    """The parameters of a cell, with d directions, g gates, i inputs and h hidden units. ``bias`` and ``peephole`` hold
    blocks of h, scales and zero points of quantised cells are per direction or per row of their weight."""

    inputs: Operand  # d (g h) i
    recurrent: Operand  # d (g h) h
    bias: Operand | None = None  # d (2 g h), input biases first
    peephole: Operand | None = None  # d (3 h)
    input_scales: tuple[Operand | None, ...] = ()  # scale and zero point: d, or d (g h)
    recurrent_scales: tuple[Operand | None, ...] = ()
    swapped: bool = False  # the last two axes of both weights are exchanged


@dataclass(frozen=True)
class _Sizes:
    """The axes that all parts of a cell share."""

    directions: Axis
    inputs: Axis
    hidden: Axis
    steps: Axis
    batch: Axis


def cell(
    trace: Trace,
    x: Operand,
    weights: Weights,
    states: tuple[Operand | None, ...],
    gates: int,
    *,
    hidden: Number | None = None,
    lengths: Operand | None = None,
    batch_first: bool = False,
) -> list[Typed]:
    """``s b i, d (g h) i, d (g h) h, d (2 g h)?, d b h? -> s d b h, d b h, d b h``: an LSTM, GRU or plain RNN.

    ``states`` are the initial hidden and cell state; ``batch_first`` is the layout ``b s i, b d h -> b s d h, b d h``.
    Law: gather the hidden axis of all weights, biases (block by block) and states, and outputs and final states are
    gathered. A hidden unit whose recurrent column is zero reaches nothing but the outputs, so cutting one is exact.
    """
    batch, steps = (x.axes[0], x.axes[1]) if batch_first else (x.axes[1], x.axes[0])
    sizes = _tied(trace, x, weights, gates, steps, batch)
    if hidden is not None:
        trace.require(hidden, sizes.hidden)
    if lengths is not None:
        trace.tie(lengths.axes[0], batch)
    state = [batch, sizes.directions] if batch_first else [sizes.directions, batch]
    for operand in states:
        if operand is not None:
            for axis, other in zip(operand.axes, [*state, sizes.hidden], strict=True):
                trace.tie(axis, other)
    _declare(trace, x, weights, sizes)
    first = [batch, steps, sizes.directions] if batch_first else [steps, sizes.directions, batch]
    return [Typed([*first, sizes.hidden]), *(Typed([*state, sizes.hidden]) for _ in range(2))]


def _tied(trace: Trace, x: Operand, weights: Weights, gates: int, steps: Axis, batch: Axis) -> _Sizes:
    """Tie all parameters to one hidden axis, one input axis and one number of directions."""
    directions, _, _ = weights.recurrent.axes
    hidden = weights.recurrent.axes[1 if weights.swapped else 2]
    inputs = weights.inputs.axes[1 if weights.swapped else 2]
    trace.structural(directions, "the number of directions of a recurrent cell")
    trace.whole(steps, "the steps of a recurrence")
    trace.tie(directions, weights.inputs.axes[0])
    trace.tie(x.axes[2], inputs)
    for weight, quantised in ((weights.inputs, weights.input_scales), (weights.recurrent, weights.recurrent_scales)):
        rows = weight.axes[2 if weights.swapped else 1]
        _blocks_of(trace, rows, gates, hidden)
        for scale in quantised:
            if scale is not None:
                trace.broadcast([[directions, rows][: scale.rank], scale.axes])
    if weights.bias is not None:
        trace.tie(directions, weights.bias.axes[0])
        _blocks_of(trace, weights.bias.axes[1], 2 * gates, hidden)
    if weights.peephole is not None:
        trace.tie(directions, weights.peephole.axes[0])
        _blocks_of(trace, weights.peephole.axes[1], 3, hidden)
    return _Sizes(directions, inputs, hidden, steps, batch)


def _blocks_of(trace: Trace, axis: Axis, count: int, hidden: Axis) -> None:
    """The axis is ``count`` blocks, one for each gate, of one row per hidden unit."""
    outer, inner = trace.factor(axis, count)
    trace.structural(outer, "one block for each gate of the cell")
    trace.tie(inner, hidden)


def _declare(trace: Trace, x: Operand, weights: Weights, sizes: _Sizes) -> None:
    """One contraction for the inputs, one for the hidden state of the step before."""
    place, rows = (1, 2) if weights.swapped else (2, 1)
    for weight, reduced in ((weights.inputs, sizes.inputs), (weights.recurrent, sizes.hidden)):
        from_x = weight is weights.inputs
        scales = [None if each is None else each.use for each in _scales(weights, from_x)]
        trace.contract(
            Contraction(
                trace.node,
                weight.use,
                tuple(weight.axes),
                # Both directions read the same input, but each its own hidden state.
                out=(weight.axes[0], weight.axes[rows]) if from_x else (weight.axes[rows],),
                reduced=(reduced,),
                stationary=() if from_x else (weight.axes[0],),
                macs=(*weight.axes, sizes.steps, sizes.batch),
                masks=((weight.use, place, reduced),),
                activation=x.use if from_x else None,
                scale=scales[0],
                zero_point=scales[1],
            )
        )


def _scales(weights: Weights, from_x: bool) -> tuple[Operand | None, Operand | None]:
    scale, zero_point = (*(weights.input_scales if from_x else weights.recurrent_scales), None, None)[:2]
    return scale, zero_point
