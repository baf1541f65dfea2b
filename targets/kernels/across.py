"""Products with constant weights where vectors lie across the outputs: maps too small to fill vectors of pixels.

The same product from the same table as `contract.py`, with `rows` a multiple of the vector: a weight is a vector of
outputs, a number of x is repeated in all lanes. Sums of `pixels` neighbours and `rows` outputs stay in registers, and
are turned over there before the epilogue, so that y lies as it does everywhere.

    y[row, p] = epilogue(bias[row] + sum over entries e of the row's group of weight[e, row] * x[offset[e] + p])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as tir

from .contract import Operand, either
from .functions import RESULT, Expression, evaluate
from .loops import Loops, extent, fetch, fetch_early, placed, put, units
from .terms import TERMS, Terms
from .tir import INT32, Array, Machine, Register, const, loop, splat, wide
from .transpose import turn

NEAR = 1 << 17  # numbers of x that stay in a second-level cache beside weights


@dataclass(frozen=True)
class Across:
    """The arrays are x, weights, offsets, groups, bias and scale (each where there is one), operands, y.

    `outer` are loops around the run with the strides of x and y; `length` is the run, of which nothing behind the end
    is read or written; `row` is the stride of output rows.
    """

    outputs: int
    length: int
    row: int
    rows: int
    pixels: int
    outer: tuple[tuple[int, int, int], ...] = ()
    bias: bool = True
    epilogue: Expression = RESULT
    operands: tuple[Operand, ...] = ()
    numbers: str = "float32"  # a row of TERMS
    scaled: bool = False
    result: str = "float32"

    @property
    def terms(self) -> Terms:
        return TERMS[self.numbers]

    @property
    def arrays(self) -> tuple[str, ...]:
        extra = (*(self.terms.total,) * self.bias, *("float32",) * self.scaled)
        others = (operand.dtype for operand in self.operands)
        return (self.terms.word, self.terms.word, INT32, INT32, *extra, *others, self.result)

    def body(self, machine: Machine, arrays: Sequence[Array]) -> None:
        with self.terms.instructions(machine):
            self.walk(machine, arrays)

    def walk(self, machine: Machine, arrays: Sequence[Array]) -> None:
        groups = -(-self.outputs // self.rows)
        full, rest = divmod(self.length, self.pixels)
        walked = tuple(
            (size, (*strides, *(operand.outer[index] for operand in self.operands)))
            for index, (size, *strides) in enumerate(self.outer)
        )
        around = extent(walked[-together(walked) :])
        with units(groups * extent(walked), self.length * self.rows * 64, machine) as unit:
            place = unit // (groups * around) * around + unit % around
            bases = placed(place, walked, [const(0)] * (2 + len(self.operands)))
            group = unit // around % groups
            number = unit % around * (full + (rest > 0))
            if full:
                with loop(full) as tile:
                    self.tile(machine, arrays, bases, group, number + tile, tile * self.pixels, self.pixels)
            if rest:
                self.tile(machine, arrays, bases, group, number + full, const(full * self.pixels), rest)

    def tile(
        self,
        machine: Machine,
        arrays: Sequence[Array],
        bases: Sequence[Any],
        group: Any,
        number: Any,
        start: Any,
        pixels: int,
    ) -> None:
        lanes = machine.lanes
        x, weights, offsets, pointers, *_ = arrays
        vectors = self.rows // lanes
        total = self.terms.total
        sums = [[Register(lanes, total) for _ in range(pixels)] for _ in range(vectors)]
        for register in (register for row in sums for register in row):
            register.set(splat(0, lanes, total))
        first = pointers[group]
        ahead = (pointers[group + 1]) * self.rows + tirx.Min(number, const(vectors - 1)) * lanes
        with tir.serial(0, pointers[group + 1] - first) as entry:
            fetch_early(weights, ahead + entry * self.rows)
            here = bases[0] + start + offsets[first + entry]
            loaded = []
            for vector in range(vectors):
                loaded.append(Register(lanes, weights.dtype))
                loaded[-1].set(weights.load((first + entry) * self.rows + vector * lanes, lanes))
            for pixel in range(pixels):
                number = Register(lanes, x.dtype)
                number.set(tirx.Broadcast(x[here + pixel], lanes))
                for vector in range(vectors):
                    register = sums[vector][pixel]
                    register.set(self.terms.add(register.get(), number.get(), loaded[vector].get(), lanes))
        for vector in range(vectors):
            for begin in range(0, pixels, lanes):
                part = sums[vector][begin : begin + lanes]
                row = group * self.rows + vector * lanes
                self.finish(lanes, arrays, bases, part, row, start + begin)

    def finish(
        self, lanes: int, arrays: Sequence[Array], bases: Sequence[Any], sums: Sequence[Register], row: Any, at: Any
    ) -> None:
        """Turns over the sums of one vector of outputs from `row` and of neighbours from `at`, and writes them."""
        count = len(sums)
        others = arrays[4 + self.bias + self.scaled : -1]

        def write(lane: int, value: Any) -> None:
            here = row + lane

            def put_row() -> None:
                total = value if not self.bias else value + tirx.Broadcast(arrays[4][here], lanes)
                if self.scaled:
                    scale = tirx.Broadcast(arrays[4 + self.bias][here], lanes)
                    total = tirx.Cast(wide("float32", lanes), total) * scale
                leaves = [total]
                for operand, array, base in zip(self.operands, others, bases[2:], strict=True):
                    place = base + here * operand.row + at * operand.step
                    leaves.append(fetch(array, place, lanes, operand.step, count))
                put(
                    arrays[-1], bases[1] + here * self.row + at, evaluate(self.epilogue, leaves, lanes), lanes, 1, count
                )

            either(bool(self.outputs % self.rows), here < self.outputs, put_row)

        turn(lanes, count, lanes, lambda pixel: sums[pixel].get(), write, self.terms.total)


def together(walked: Loops) -> int:
    """How many of the fastest loops one group of outputs goes through before the next does: images whose inputs would
    not stay close come one after the other."""
    far = (number for number, (size, strides) in enumerate(reversed(walked)) if size * strides[0] > NEAR)
    return max(1, next(far, len(walked)))
