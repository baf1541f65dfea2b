"""Products of a few rows with constant weights, dense or sparse: fully connected layers at batch one.

    y[m, n] = epilogue(bias[n] + sum over entries e of the group of n of weight[e, n] * x[m, offset[e]])

Vectors lie along the outputs. The weights of `lanes` outputs are one group, [group][entry][lanes]; which inputs the
entries of a group meet is a table as in contract.py, and a block of lanes x 1 that is not there is not in the table.
Where all of them are there the table is left out. Such products take as long as their weights take to read, so that
words of two bfloat16 numbers take half of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as tir

from .functions import RESULT, Expression, evaluate
from .loops import CHAINS, fetch, joined, put, registers, units
from .terms import TERMS, Terms
from .tir import INT32, Array, Machine, Register, const


@dataclass(frozen=True)
class Gemv:
    """The arrays are x, weights, offsets and groups (unless dense: then `inputs` is how many entries each group has),
    bias (where there is one), operands, y.

    `x_row` and `x_step` are the strides of x in m and k. With several rows `x_row` should be 1 and `x_step` the number
    of rows: x is then read as one stream (8 rows of 4096 took a quarter of the time that rows side by side took).
    Offsets are distances in x; entries of group g are groups[g] to groups[g + 1]. Outputs lie side by side in y, and
    `y_row` is the distance of its rows; `operands` are the strides of each in m and n (1 or 0). Weights behind the last
    output have to be there; bias, operands and y are not touched there.
    """

    outputs: int
    inputs: int
    rows: int = 1
    x_row: int = 0
    y_row: int = 0
    dense: bool = False
    bias: bool = True
    epilogue: Expression = RESULT
    operands: tuple[tuple[int, int], ...] = ()
    x_step: int = 1
    numbers: str = "float32"  # a row of TERMS whose sums are float32; entries and inputs are words of them

    @property
    def terms(self) -> Terms:
        return TERMS[self.numbers]

    @property
    def arrays(self) -> tuple[str, ...]:
        table = () if self.dense else (INT32, INT32)
        word = self.terms.word
        return (word, word, *table, *("float32",) * (self.bias + len(self.operands)), "float32")

    def body(self, machine: Machine, arrays: Sequence[Array]) -> None:
        with self.terms.instructions(machine):
            self.walk(machine, arrays)

    def walk(self, machine: Machine, arrays: Sequence[Array]) -> None:
        lanes = machine.lanes
        whole, rest = divmod(self.outputs, lanes)
        with units(whole + (rest > 0), self.inputs * lanes, machine) as group:
            sums = [joined(chains, lambda a, b: a + b) for chains in self.sums(lanes, arrays, group)]
            if not rest:
                self.finish(lanes, arrays, sums, group, lanes)
            elif not whole:
                self.finish(lanes, arrays, sums, group, rest)
            else:
                with tir.If(group < whole), tir.Then():
                    self.finish(lanes, arrays, sums, group, lanes)
                with tir.If(group == whole), tir.Then():
                    self.finish(lanes, arrays, sums, const(whole), rest)

    def sums(self, lanes: int, arrays: Sequence[Array], group: Any) -> list[list[Register]]:
        x, weights, *more = arrays
        chains = max(1, CHAINS // self.rows)
        sums = [registers(chains, lanes, 0.0) for _ in range(self.rows)]
        first: Any = group * self.inputs if self.dense else more[1][group]
        count: Any = const(self.inputs) if self.dense else more[1][group + 1] - first

        def entry(number: Any, chain: int) -> None:
            weight = Register(lanes, self.terms.word)
            weight.set(weights.load((first + number) * lanes, lanes))
            offset = number * self.x_step if self.dense else more[0][first + number]
            for m, registers_ in enumerate(sums):
                register = registers_[chain]
                factor = tirx.Broadcast(x[offset + m * self.x_row], lanes)
                register.set(self.terms.add(register.get(), factor, weight.get(), lanes))

        unrolled(count, chains, entry)
        return sums

    def finish(self, lanes: int, arrays: Sequence[Array], sums: list[Register], group: Any, left: int) -> None:
        more = list(arrays[2 if self.dense else 4 : -1])
        bias = more.pop(0) if self.bias else None
        at = group * lanes
        for m, register in enumerate(sums):
            value = register.get()
            if bias is not None:
                value = value + fetch(bias, at, lanes, 1, left)
            leaves = [value]
            for (row, step), array in zip(self.operands, more, strict=True):
                leaves.append(fetch(array, at * step + m * row, lanes, step, left))
            put(arrays[-1], at + m * self.y_row, evaluate(self.epilogue, leaves, lanes), lanes, 1, left)


def unrolled(count: Any, steps: int, entry: Callable[[Any, int], None]) -> None:
    """A loop whose extent the code does not know, `steps` entries at a time."""
    with tir.serial(0, count // steps) as index:
        for step in range(steps):
            entry(index * steps + step, step)
    if steps > 1:
        with tir.serial(0, count % steps) as index:
            entry(count // steps * steps + index, 0)
