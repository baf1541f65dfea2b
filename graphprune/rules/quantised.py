"""Quantised operators: integers with scales and zero points, per tensor, per entry of an axis, or per block.

A scale per tensor ties nothing; scales computed from the data (dynamic quantisation) make every axis of that data
inexact. The contraction that a quantised operator performs is declared as that of its plain counterpart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphprune.dims import Axis, Prod, find
from graphprune.program import Contraction, Dequantised
from graphprune.rules.linear import CONV_QUANTISED, conv, matmul
from graphprune.rules.numbers import Number
from graphprune.rules.trace import Operand, Trace, Typed
from graphprune.sizes import Extent, divide, product

_CODES = frozenset({"int8", "uint8", "int16", "uint16", "int32"})


@dataclass(eq=False)
class Quantised:
    """One factor of a product with its scale and zero point, as far as they are given."""

    data: Operand
    scale: Operand | None = None
    zero_point: Operand | None = None


def linear_quantisation(trace: Trace, x: Operand, scales: Sequence[Operand | None], axis: int, block: int) -> Typed:
    """``... c ..., c -> ... c ...`` along ``axis``; with blocks of ``b`` entries that share a scale,
    ``... (k b) ..., ... k ... -> ... (k b) ...``. Scales of one entry are per tensor."""
    for scale in scales:
        if scale is None or product(each.size for each in scale.axes) == 1:
            continue
        if block > 0:
            _blockwise(trace, x, scale, axis if axis >= 0 else axis + x.rank, block)
        elif scale.rank == 1:
            trace.tie(x.axes[axis], scale.axes[0])
        else:
            trace.broadcast([x.axes, scale.axes])
    factor, zero = (*scales, None)[:2]
    if not block and factor is not None and x.value.dtype in _CODES:
        trace.dequantised.append(Dequantised(trace.node, x.use, factor.use, None if zero is None else zero.use, axis))
    return Typed(list(x.axes))


def _blockwise(trace: Trace, x: Operand, scale: Operand, at: int, block: int) -> None:
    for k, (axis, other) in enumerate(zip(x.axes, scale.axes, strict=True)):
        if k != at:
            trace.tie(axis, other)
    blocked(trace, x.axes[at], scale.axes[at], block)


def blocked(trace: Trace, axis: Axis, blocks: Axis, block: int) -> None:
    """``axis = (blocks b)`` with whole blocks of ``b``; where the last block is a part of one, both stay whole."""
    if divide(axis.size, block) != blocks.size:
        trace.whole(axis, f"its last block of {block} is not full")
        trace.whole(blocks, f"its last block of {block} is not full")
        return
    outer, inner = trace.factor(axis, blocks.size)
    trace.structural(inner, "the entries of a block share a scale")
    trace.tie(outer, blocks)


def measured(trace: Trace, x: Operand) -> None:
    """The scale is computed from the smallest and largest entry of the whole tensor."""
    for axis in x.axes:
        trace.inexact(axis)


def dynamic_quantisation(trace: Trace, x: Operand) -> list[Typed]:
    """``... -> ..., scalar, scalar``: the scale comes from the data."""
    measured(trace, x)
    return [Typed(list(x.axes)), Typed([]), Typed([])]


def per_column(trace: Trace, operand: Operand | None, axis: Axis) -> None:
    """A scale or zero point that is one for all, or one per entry of the axis."""
    if operand is None or operand.rank == 0:
        return
    if operand.rank != 1:
        raise ValueError(f"{operand.value.name} has {operand.rank} axes")
    if operand.axes[0].size != 1:
        trace.tie(operand.axes[0], axis)


def product_of(
    trace: Trace,
    a: Quantised,
    b: Quantised,
    *,
    swap_a: bool = False,
    swap_b: bool = False,
    bias: Operand | None = None,
    result: Sequence[Operand | None] = (),
) -> Typed:
    """``... m k, ... k n -> ... m n`` with scales and zero points per row of ``a`` and of the ``result``, per column of
    ``b``, or of the rank of their tensor."""
    out = matmul(trace, a.data, b.data, swap_a=swap_a, swap_b=swap_b, bias=bias)
    rows = a.data.axes[-1 if swap_a or a.data.rank == 1 else -2]
    columns = b.data.axes[-2 if swap_b and b.data.rank > 1 else -1]
    for operand in (a.scale, a.zero_point):
        _scaled(trace, operand, rows, a.data.axes)
    for operand in (b.scale, b.zero_point):
        _scaled(trace, operand, columns, b.data.axes)
    for operand in result:
        _scaled(trace, operand, rows, out.axes or [])
    contraction = trace.contractions[-1]
    weight = a if contraction.weight == a.data.use else b  # between two activations masks are put on the second
    contraction.scale = None if weight.scale is None else weight.scale.use
    contraction.zero_point = None if weight.zero_point is None else weight.zero_point.use
    return out


def _scaled(trace: Trace, operand: Operand | None, axis: Axis, axes: Sequence[Axis]) -> None:
    if operand is not None and operand.rank > 1:
        trace.broadcast([axes, operand.axes])
    else:
        per_column(trace, operand, axis)


def convolution(
    trace: Trace, x: Operand, kernel: Quantised, bias: Operand | None, groups: Number, window: Sequence[Extent]
) -> Typed:
    """:data:`CONV_QUANTISED`: scale and zero point of the kernel are per output channel or one for all."""
    if x.rank < 2 or x.rank != kernel.data.rank:
        raise ValueError(f"a kernel of {kernel.data.rank} axes slides over {x.rank}")
    out = conv(CONV_QUANTISED, trace, [x, kernel.data, None, None, bias], groups, window)
    for operand in (kernel.scale, kernel.zero_point):
        per_column(trace, operand, kernel.data.axes[0])
    contraction = trace.contractions[-1]
    contraction.scale = None if kernel.scale is None else kernel.scale.use
    contraction.zero_point = None if kernel.zero_point is None else kernel.zero_point.use
    return out


@dataclass(eq=False)
class Packed:
    """A weight ``o k p`` of ``k`` blocks, each packed into ``p`` bytes, ``bits`` for a number, with a scale per block
    (``o k`` or ``(o k)``) and zero points likewise; ``packed_zeros`` says that several zero points share a byte."""

    data: Operand
    scales: Operand
    zero_points: Operand | None
    order: Operand | None
    bias: Operand | None
    inputs: Number
    outputs: Number
    block: int
    bits: int
    packed_zeros: bool


def packed_linear(trace: Trace, x: Operand, weight: Packed) -> Typed:
    """``... (k b), o k p, (o k), (o k)?, o? -> ... o``: whole blocks of inputs may go. Where zero points of several
    blocks share a byte, or inputs are reordered, the inputs stay."""
    columns, (rows, blocks, packed) = x.axes[-1], weight.data.axes
    trace.require(weight.inputs, columns)
    trace.require(weight.outputs, rows)
    trace.structural(packed, "the bits of a block")
    blocked(trace, columns, blocks, weight.block)
    if weight.packed_zeros:
        trace.whole(columns, "zero points of several blocks share a byte")
    if weight.order is not None:
        trace.whole(columns, "inputs are assigned to blocks by number")
        trace.whole(weight.order.axes[0], "inputs are assigned to blocks by number")
    _per_block(trace, weight.scales, rows, blocks, False)
    if weight.zero_points is not None:
        _per_block(trace, weight.zero_points, rows, blocks, weight.packed_zeros)
    if weight.bias is not None:
        trace.tie(weight.bias.axes[0], rows)
    # A block whose scale is zero counts for nothing, whatever its packed bits say.
    place = 1 if weight.scales.rank == 2 else 0
    trace.contract(
        Contraction(
            trace.node,
            weight.data.use,
            tuple(weight.data.axes),
            out=(rows,),
            reduced=(blocks, packed),
            stationary=(),
            macs=(*x.axes, rows),
            masks=((weight.scales.use, place, weight.scales.axes[place]),),
            activation=x.use,
            bias=None if weight.bias is None else weight.bias.use,
            scale=weight.scales.use,
            zero_point=None if weight.zero_points is None else weight.zero_points.use,
            bits=weight.bits,
        )
    )
    return Typed([*x.axes[:-1], rows])


def _per_block(trace: Trace, operand: Operand, rows: Axis, blocks: Axis, shared: bool) -> None:
    if operand.rank == 2:
        outer, inner = operand.axes
    elif shared:
        outer, inner = trace.factor(operand.axes[0], rows.size)
    else:
        trace.tie(operand.axes[0], find(Prod([rows, blocks])))
        return
    trace.tie(outer, rows)
    if shared:
        trace.whole(inner, "zero points of several blocks share a byte")
    else:
        trace.tie(inner, blocks)
