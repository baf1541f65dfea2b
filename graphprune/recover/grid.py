"""Weights that are stored as whole numbers: what can be written is the nearest number that they can stand for.

A weight behind a DequantizeLinear is ``(codes - zero) * scale``, per tensor or per entry of one axis. New numbers are
rounded to that grid: scale and zero point stay, and no code goes beyond the largest that the layer had, since files may
keep to fewer bits than the type has (Jacob et al., CVPR 2018; onnxruntime's `reduce_range`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphprune.analysis import Analysis
from graphprune.program import Array, Dequantised, Stored, Use, Value


@dataclass(frozen=True, eq=False)
class Grid:
    """The numbers that a tensor of codes can stand for.

    stored: the codes; scale, zero: broadcast against them
    most:   the largest ``|code - zero|`` that is written; of sums in 32 bits, which biases are, all that there is
    """

    stored: Stored
    scale: Array
    zero: Array
    most: int

    def floats(self, codes: Array) -> Array:
        """What codes stand for, float32."""
        found: Array = ((codes.astype(np.float64) - self.zero) * self.scale).astype(np.float32)
        return found

    def codes(self, numbers: Array) -> Array:
        """The nearest codes, in the type of the stored ones."""
        info = np.iinfo(self.stored.dtype)
        steps = np.rint(numbers.reshape(self.stored.shape).astype(np.float64) / self.scale)
        held = np.clip(np.clip(steps, -self.most, self.most) + self.zero, info.min, info.max)
        found: Array = held.astype(self.stored.dtype)
        return found


def grid_of(analysis: Analysis, value: Value) -> Grid | None:
    """The grid of a value that is dequantised from stored codes, which nothing else reads; None where it is none."""
    step = next((each for each in analysis.trace.dequantised if each.node.outputs[0] is value), None)
    if step is None:
        return None
    codes = _operand(step.codes)
    if codes is None or codes.stored is None or codes.stored.empty or codes.stored.elements == 0:
        return None
    if sum(codes in node.inputs for node in analysis.program.nodes()) > 1 or codes in analysis.program.main.outputs:
        return None
    scale, zero = _spread(analysis, step, step.scale), _spread(analysis, step, step.zero_point)
    if scale is None or zero is None or not (np.isfinite(scale) & (scale > 0)).all():
        return None
    most = int(np.abs(codes.stored.read().astype(np.float64) - zero).max())
    return Grid(codes.stored, scale, zero, most if codes.stored.dtype != "int32" else np.iinfo(np.int32).max)


def _operand(use: Use | None) -> Value | None:
    return None if use is None else use.node.inputs[use.index]


def _spread(analysis: Analysis, step: Dequantised, use: Use | None) -> Array | None:
    """A scale or zero point, broadcast against the codes; zero where it is left out, None where it is not constant."""
    value, codes = _operand(use), _operand(step.codes)
    assert codes is not None and codes.stored is not None
    shape = codes.stored.shape
    if value is None:
        return np.zeros([1] * len(shape))
    found = analysis.program.dialect.constant(value)
    if found is None:
        return None
    array = np.asarray(found, np.float64)
    if array.size == 1:
        return array.reshape([1] * len(shape))
    axis = step.axis if step.axis >= 0 else step.axis + len(shape)
    if array.ndim != 1 or array.size != shape[axis]:
        return None
    return array.reshape([-1 if each == axis else 1 for each in range(len(shape))])
