"""Pooling: the largest, the sum or the mean of some neighbours of each place.

    y[o, p] = epilogue(op over taps t of x[o, offset[t] + p])          divided by count[p], where there is one

Sums of 8-bit integers are exact, and a mean of them is rounded once: `taken` is what their zero points add to a sum.

Taps are constant distances, as in contract.py: a border around the map makes the neighbours of the outermost places
exist. Where the border holds something else than the operator wants (zeros, under a maximum), `borders` tells for each
place which taps there are: bit t of an int32. A NaN in a window gives NaN, in a maximum too (as torch does).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx

from .functions import RESULT, Expression, evaluate
from .loops import Loops, Strip, registers, sweep
from .spans import LARGEST, SMALLEST, SUM, Operation, Place, Span
from .tir import INT32, Array, Machine, splat, wide

STEPS = Operation(0, lambda a, b: tirx.Select(a < b, b, a))  # the largest of numbers from 0
OPERATIONS = {"max": LARGEST, "min": SMALLEST, "sum": SUM, "mean": SUM}


@dataclass(frozen=True)
class Window:
    """The arrays are x, borders (int32, where there are), counts, mask (where there are), operands, y; every loop has a
    stride for each of them.

    `outer` are loops (channels, batch); the run is `length` places with strides `steps`. A mean is over all taps, there
    or not; `counted` divides by a number for each place instead. `masked` and `guarded` are as for `Contract`.
    """

    operation: str
    offsets: tuple[int, ...]
    length: int
    steps: tuple[int, ...]
    outer: Loops = ()
    bordered: bool = False
    counted: bool = False
    masked: bool = False
    guarded: bool = False
    epilogue: Expression = RESULT
    operands: int = 0
    vectors: int = 4
    dtype: str = "float32"  # of x; maxima of uint8 have no border but zeros
    result: str = ""  # of y, where it is another
    taken: int = 0  # from the sum

    def __post_init__(self) -> None:
        if self.bordered and len(self.offsets) > 32:
            raise ValueError(f"{len(self.offsets)} taps do not fit into the bits of an int32")

    @property
    def arrays(self) -> tuple[str, ...]:
        integers = (INT32,) * self.bordered
        others = ("float32",) * (self.counted + self.masked + self.operands)
        return (self.dtype, *integers, *others, self.result or self.dtype)

    @property
    def summed(self) -> bool:
        """Whether 8-bit integers are added, as float32: all numbers are small enough to be exact."""
        return self.dtype != "float32" and self.operation in {"sum", "mean"}

    def body(self, machine: Machine, arrays: Sequence[Array]) -> None:
        mask = 1 + self.bordered + self.counted if self.masked else None
        span = Span(arrays, (), self.length, self.steps, True, machine.lanes, self.guarded, mask)

        def emit(bases: list[Any], start: Any, strip: Strip) -> None:
            self.strip(span, bases, strip)

        sweep(machine, self.outer, span.run, self.vectors, len(self.offsets), emit)

    def strip(self, span: Span, bases: list[Any], strip: Strip) -> None:
        lanes = span.lanes
        operation = OPERATIONS[self.operation] if self.dtype == "float32" or self.summed else STEPS
        found = registers(strip.vectors, lanes, operation.identity, "float32" if self.summed else self.dtype)
        places: list[Place] = []
        span.visit(bases, strip, 1, places.append)
        for tap, offset in enumerate(self.offsets):
            for register, place in zip(found, places, strict=True):
                there = Place([place.at[0] + offset, *place.at[1:]], 0, place.vector, place.left)
                value = span.read(0, there)
                if self.summed:
                    value = tirx.Cast(wide("float32", lanes), value)
                if self.bordered:
                    bit = tirx.bitwise_and(span.read(1, place), splat(bit_of(tap), lanes, INT32))
                    exists = tirx.NE(bit, splat(0, lanes, INT32))
                    value = tirx.Select(exists, value, splat(operation.identity, lanes))
                register.set(operation.combine(register.get(), value))
        for register, place in zip(found, places, strict=True):
            value = register.get()
            if self.taken:
                value = value - splat(float(self.taken), lanes)
            if self.counted:
                value = value / span.read(1 + self.bordered, place)
            elif self.operation == "mean" and self.summed:
                value = value / splat(float(len(self.offsets)), lanes)
            elif self.operation == "mean":
                value = value * splat(1.0 / len(self.offsets), lanes)
            others = range(1 + self.bordered + self.counted + self.masked, len(span.arrays) - 1)
            leaves = [value, *(span.read(index, place) for index in others)]
            span.write(evaluate(self.epilogue, leaves, lanes), place)


def bit_of(tap: int) -> int:
    """Bit `tap` of an int32, the last of which is its sign."""
    return 1 << tap if tap < 31 else -(1 << 31)
