"""Products with constant weights, dense or sparse: fully connected layers and convolutions of every kind.

The activations of one run (tokens, or pixels of a map) lie side by side; inputs are rows of such runs, and an output
row is the sum of some input rows, each shifted by a constant and multiplied by one weight. Which rows, and how far, is
a table: rows of a matrix, taps of a kernel, phases of a strided one and the channels of a group differ only in it, and a
weight that is not there is not in the table. `rows` output rows share one list of entries (a block of rows x 1), their
sums stay in registers for `vectors` vectors of the run, and the epilogue (bias, activation, residual, border) is
applied to them there.

    y[row, p] = epilogue(bias[row] + sum over entries e of the row's group of weight[e, row] * x[offset[e] + p])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as tir

from .functions import RESULT, Expression, evaluate
from .tir import INT32, Array, Machine, Register, const, splat, tail, tasks


@dataclass(frozen=True)
class Operand:
    """Another array of the epilogue: strides of its rows and of the run (1, or 0 for one number a row)."""

    row: int
    step: int
    outer: tuple[int, ...]


@dataclass(frozen=True)
class Contract:
    """The arrays are x, weights, offsets, groups, bias (where there is one), mask (where there is one), operands, y.

    `outer` are loops around the run (batch, panels) with the strides of x and y; `length` is the run; `row` the stride
    of output rows. `masked` says that a mask of `length` numbers tells which places of the run may be written.
    """

    outputs: int
    length: int
    row: int
    rows: int
    vectors: int
    outer: tuple[tuple[int, int, int], ...] = ()
    bias: bool = True
    masked: bool = False
    guarded: bool = False  # numbers behind the run belong to somebody else
    epilogue: Expression = RESULT
    operands: tuple[Operand, ...] = ()
    block: int = 1  # tiles of the run that one group of rows walks before the next group: what of x stays in the cache
    chunks: int = 1  # pieces that the output rows are cut into, as tasks of their own

    @property
    def arrays(self) -> tuple[str, ...]:
        extra = ("float32",) * (self.bias + self.masked + len(self.operands))
        return ("float32", "float32", INT32, INT32, *extra, "float32")

    def body(self, machine: Machine, arrays: Sequence[Array]) -> None:
        lanes = machine.lanes
        tile = self.vectors * lanes
        full, rest = divmod(self.length, tile)
        groups = -(-self.outputs // self.rows)
        blocks = -(-(full + (rest > 0)) // self.block)
        chunk = -(-groups // self.chunks)
        with tasks(prod(extent for extent, _, _ in self.outer) * blocks * self.chunks, machine) as task:
            part = task % self.chunks
            block = task // self.chunks % blocks
            place = task // (self.chunks * blocks)
            bases = [const(0)] * (2 + len(self.operands))
            for index in range(len(self.outer) - 1, -1, -1):
                extent, *strides = self.outer[index]
                strides += [operand.outer[index] for operand in self.operands]
                bases = [base + place % extent * stride for base, stride in zip(bases, strides, strict=True)]
                place = place // extent
            with tir.serial(part * chunk, tirx.Min(part * chunk + chunk, const(groups))) as group:
                first = block * self.block
                if full:
                    with tir.serial(0, tirx.Min(const(self.block), const(full) - first)) as column:
                        self.tile(machine, arrays, bases, group, (first + column) * tile, self.vectors)
                if rest:
                    with tir.If(block == blocks - 1), tir.Then():
                        self.tile(machine, arrays, bases, group, const(full * tile), -(-rest // lanes))

    def tile(
        self, machine: Machine, arrays: Sequence[Array], bases: list[Any], group: Any, start: Any, vectors: int
    ) -> None:
        lanes, rows = machine.lanes, self.rows
        x, weights, offsets, pointers, *more, y = arrays
        bias = more.pop(0) if self.bias else None
        mask = more.pop(0) if self.masked else None
        sums = [[Register(lanes) for _ in range(vectors)] for _ in range(rows)]
        for r, registers in enumerate(sums):
            row = group * rows + r
            if self.outputs % rows:  # the last group has rows that do not exist: any bias will do
                row = tirx.Min(row, tirx.const(self.outputs - 1, INT32))
            for register in registers:
                register.set(splat(0.0, lanes) if bias is None else tirx.Broadcast(bias[row], lanes))
        first = pointers[group]
        with tir.serial(0, pointers[group + 1] - first) as entry:
            here = bases[0] + start + offsets[first + entry]
            for r, registers in enumerate(sums):
                weight = tirx.Broadcast(weights[(first + entry) * rows + r], lanes)
                for v, register in enumerate(registers):
                    register.set(register.get() + weight * x.load(here + v * lanes, lanes))
        for r in range(rows):

            def write(r: int = r) -> None:
                row = group * rows + r
                for v in range(vectors):
                    at = start + v * lanes
                    leaves = [sums[r][v].get()]
                    for operand, array, base in zip(self.operands, more, bases[2:], strict=True):
                        leaves.append(array.load(base + row * operand.row + at * operand.step, lanes, operand.step))
                    value = evaluate(self.epilogue, leaves, lanes)
                    if mask is not None:
                        chosen = mask.load(at, lanes) > splat(0.0, lanes)
                    else:
                        chosen = tail(at, self.length, lanes) if self.guarded else None
                    y.store(bases[1] + row * self.row + at, value, lanes, mask=chosen)

            if self.outputs % rows:
                with tir.If(group * rows + r < self.outputs), tir.Then():
                    write()
            else:
                write()
