"""Sums of all entries up to each one along an axis, as ONNX CumSum.

y[o, i] = sum over j <= i of x[o, j],      j < i where it is exclusive, j >= i where it is reversed
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvm.script.ir_builder import tirx as tir

from .loops import Loops, extent, placed, units
from .tir import Array, Machine, Register, const, loop


@dataclass(frozen=True)
class Scan:
    """The arrays are x and y; `outer` are loops with the strides of both, `steps` those of the axis. Numbers are added
    one after another, as every runtime does: another order would round in another way."""

    count: int
    steps: tuple[int, int]
    outer: Loops = ()
    exclusive: bool = False
    reverse: bool = False
    dtype: str = "float32"

    @property
    def arrays(self) -> tuple[str, ...]:
        return (self.dtype, self.dtype)

    def body(self, machine: Machine, arrays: Sequence[Array]) -> None:
        x, y = arrays
        with units(extent(self.outer), self.count, machine) as unit:
            here, there = placed(unit, self.outer, [const(0), const(0)])
            total = Register(1, self.dtype)

            def put(value: Any) -> None:
                tir.buffer_store(total.buffer, value, [const(0)])

            put(const(0, self.dtype))
            with loop(self.count) as step:
                place = self.count - 1 - step if self.reverse else step
                if self.exclusive:
                    y[there + place * self.steps[1]] = total.lane(const(0))
                put(total.lane(const(0)) + x[here + place * self.steps[0]])
                if not self.exclusive:
                    y[there + place * self.steps[1]] = total.lane(const(0))
