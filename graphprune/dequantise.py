"""The numbers that stored quantised weights stand for: ``(w - zero) * scale``, unpacked where several share a byte."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphprune.analysis import Analysis
from graphprune.dims import Axis, leaves
from graphprune.program import Array, Contraction, Use, Value


def factors(analysis: Analysis, contraction: Contraction) -> tuple[Array | None, Array | None]:
    """Scale and zero point of the weight of a contraction, shaped to be broadcast against it (against the unpacked one
    where it is packed); None where there is none, or where it does not lie along the axes of the weight."""
    if contraction.bits:
        return _of_blocks(analysis, contraction)
    return _spread(analysis, contraction, contraction.scale), _spread(analysis, contraction, contraction.zero_point)


def unpacked(packed: Array, bits: int) -> Array:
    """The numbers of ``bits`` bits each along the last axis of an array of bytes, the lowest bits first.

    >>> unpacked(np.array([0x21, 0x43], np.uint8), 4)
    array([1, 2, 3, 4], dtype=uint8)
    """
    if bits == 8:
        return packed
    single = np.unpackbits(packed.view(np.uint8), axis=-1, bitorder="little")
    whole = single[..., : single.shape[-1] // bits * bits]
    numbers: Array = whole.reshape(*packed.shape[:-1], -1, bits) @ (1 << np.arange(bits)).astype(np.uint8)
    return numbers


def _of_blocks(analysis: Analysis, contraction: Contraction) -> tuple[Array | None, Array | None]:
    """For a weight ``o k p``: a number for each row and block; the zero points may be packed, too."""
    rows, blocks = (axis.size for axis in contraction.weight_axes[:2])
    assert isinstance(rows, int) and isinstance(blocks, int)
    scale, zero = _stored(analysis, contraction.scale), _stored(analysis, contraction.zero_point)
    if zero is None:
        zero = np.full((rows, blocks), 1 << (contraction.bits - 1))
    elif zero.dtype == np.uint8:
        zero = unpacked(zero.reshape(rows, -1), contraction.bits)[:, :blocks]
    shape = (rows, blocks, 1)
    return None if scale is None else scale.astype(np.float32).reshape(shape), zero.astype(np.float32).reshape(shape)


def _stored(analysis: Analysis, use: Use | None) -> Array | None:
    value = _operand(use)
    found: Array | None = None if value is None else analysis.program.dialect.constant(value)
    return found


def _operand(use: Use | None) -> Value | None:
    return None if use is None else use.node.inputs[use.index]


def _spread(analysis: Analysis, contraction: Contraction, use: Use | None) -> Array | None:
    value, array = _operand(use), _stored(analysis, use)
    if array is None or use is None or value is None:
        return None
    shape = [1] * len(contraction.weight_axes)
    for axis in analysis.trace.typed(value, use).axes or []:
        if axis.size == 1:
            continue
        place = _match(axis, contraction.weight_axes)
        if place is None or not isinstance(axis.size, int):
            return None
        shape[place] = axis.size
    return array.astype(np.float32).reshape(shape) if array.size == np.prod(shape) else None


def _match(axis: Axis, axes: Sequence[Axis]) -> int | None:
    """Which of the axes is this one: by its dimensions, else by its size."""
    same = [k for k, other in enumerate(axes) if list(leaves(other)) == list(leaves(axis))]
    same = same or [k for k, other in enumerate(axes) if other.size == axis.size]
    return same[0] if same else None
