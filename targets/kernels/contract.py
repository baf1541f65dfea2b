"""Products with constant weights, dense or sparse: fully connected layers and convolutions of every kind.

The activations of one run (tokens, or pixels of a map) lie side by side; inputs are rows of such runs, and an output
row is the sum of some input rows, each shifted by a constant and multiplied by one weight. Which rows, and how far, is
a table: rows of a matrix, taps of a kernel, phases of a strided one and the channels of a group differ only in it, and
a weight that is not there is not in the table. `rows` output rows share one list of entries (a block of rows x 1),
their sums stay in registers for `vectors` vectors of the run, and the epilogue (bias, activation, residual, border) is
applied to them there.

    y[row, p] = epilogue(bias[row] + sum over entries e of the row's group of weight[e, row] * x[offset[e] + p])

Sums of 8-bit integers are integers; `scale[row]` makes them numbers before the epilogue.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as tir

from .functions import RESULT, Expression, evaluate
from .loops import fetch_early
from .terms import TERMS, Terms
from .tir import INT32, Array, Machine, Register, const, loop, splat, tail, tasks, wide

AHEAD = 512  # numbers of the weights from what is multiplied to what is asked for
WHOLE = 4  # output rows from which on an entry asks for its share of a cache line
LINE = 16  # numbers of a cache line
Bounds = tuple[Any, Any]  # the first, and the one behind the last


@dataclass(frozen=True)
class Operand:
    """Another array of the epilogue: strides of its rows and of the run (1, or 0 for one number a row)."""

    row: int
    step: int
    outer: tuple[int, ...]
    dtype: str = "float32"


@dataclass(frozen=True)
class Contract:
    """The arrays are x, weights, offsets, groups, bias, scale, mask (each where there is one), operands, y.

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
    numbers: str = "float32"  # a row of TERMS
    scaled: bool = False
    result: str = "float32"
    ahead: int = 0  # cache lines of weights that a list asks for ahead, 0 where nothing is
    parts: int = 1  # pieces of the inputs: all outputs meet one, which stays in the first-level cache, then the next

    @property
    def terms(self) -> Terms:
        return TERMS[self.numbers]

    @property
    def arrays(self) -> tuple[str, ...]:
        extra = (*(self.terms.total,) * self.bias, *("float32",) * (self.scaled + self.masked))
        others = (operand.dtype for operand in self.operands)
        return (self.terms.word, self.terms.word, INT32, INT32, *extra, *others, self.result)

    def body(self, machine: Machine, arrays: Sequence[Array]) -> None:
        with self.terms.instructions(machine):
            self.walk(machine, arrays)

    def within(self) -> AbstractContextManager[Any]:
        """What the statements of each task stand in, and what they may need of it."""
        return nullcontext()

    def walk(self, machine: Machine, arrays: Sequence[Array]) -> None:
        groups = -(-self.outputs // self.rows)
        blocks = -(-self.length // (self.vectors * machine.lanes * self.block))
        chunk = -(-groups // self.chunks)
        count = prod(extent for extent, _, _ in self.outer) * blocks * self.chunks
        with tasks(count, machine) as task, self.within() as room:
            piece = task % self.chunks
            block = task // self.chunks % blocks
            place = task // (self.chunks * blocks)
            bases = [const(0)] * (2 + len(self.operands))
            for index in range(len(self.outer) - 1, -1, -1):
                extent, *strides = self.outer[index]
                strides += [operand.outer[index] for operand in self.operands]
                bases = [base + place % extent * stride for base, stride in zip(bases, strides, strict=True)]
                place = place // extent
            bounds = piece * chunk, tirx.Min(piece * chunk + chunk, const(groups))
            self.strips(machine, arrays, bases, (block * self.block, block == blocks - 1, room), bounds)

    def strips(
        self, machine: Machine, arrays: Sequence[Array], bases: list[Any], where: tuple[Any, Any, Any], bounds: Bounds
    ) -> None:
        """The tiles of one task, for the groups of output rows within the bounds; `where` is the first tile, whether
        the rest of the run is with them, and what the task stands in."""
        lanes = machine.lanes
        tile = self.vectors * lanes
        full, rest = divmod(self.length, tile)
        first, last, room = where
        with loop(self.parts) as part, tir.serial(*bounds) as group:
            if full:
                with tir.serial(0, tirx.Min(const(self.block), const(full) - first)) as column:
                    start = (first + column) * tile
                    self.tile(machine, arrays, bases, (part, group, room), start, self.vectors)
            if rest:
                with tir.If(last), tir.Then():
                    start = const(full * tile)
                    self.tile(machine, arrays, bases, (part, group, room), start, -(-rest // lanes))

    def tile(
        self,
        machine: Machine,
        arrays: Sequence[Array],
        bases: list[Any],
        where: tuple[Any, Any, Any],
        start: Any,
        vectors: int,
    ) -> None:
        """One group of rows on some vectors: sums begin with the bias or with what earlier parts left, and end in the
        epilogue or as what the next part goes on with."""
        lanes, rows = machine.lanes, self.rows
        x, weights, offsets, pointers, *_ = arrays
        part, group, _ = where
        sums = [
            Sum(Register(lanes, self.terms.total), group * rows + r, start + v * lanes, lanes)
            for r in range(rows)
            for v in range(vectors)
        ]
        many = self.parts > 1
        either(many, part == 0, lambda: self.begin(sums, arrays), lambda: self.go_on(sums, arrays, bases))
        entries = part * -(-self.outputs // rows) + group
        first = pointers[entries]
        if rows < WHOLE:
            self.ask(weights, offsets, first)
        with tir.serial(0, pointers[entries + 1] - first) as entry:
            here = bases[0] + start + offsets[first + entry]
            if rows >= WHOLE and self.ahead:
                fetch_early(weights, (first + entry) * rows + AHEAD)
            for index, each in enumerate(sums):
                r, v = divmod(index, vectors)
                weight = tirx.Broadcast(weights[(first + entry) * rows + r], lanes)
                number = x.load(here + v * lanes, lanes)
                total = each.register.get()
                each.register.set(self.terms.add(total, number, weight, lanes))
        last = part == self.parts - 1
        either(many, last, lambda: self.end(sums, arrays, bases), lambda: self.pause(sums, arrays, bases))

    def ask(self, weights: Array, offsets: Array, first: Any) -> None:
        """Asks for weights and offsets of a list some lists ahead, all at once: an entry has few bytes of a line."""
        for line in range(self.ahead):
            fetch_early(weights, first * self.rows + AHEAD + line * LINE)
        for line in range(-(-self.ahead // self.rows)):
            fetch_early(offsets, first + AHEAD // self.rows + line * LINE)

    def begin(self, sums: Sequence[Sum], arrays: Sequence[Array]) -> None:
        for each in sums:
            bias = arrays[4][self.there(each)] if self.bias else const(0, self.terms.total)
            each.register.set(tirx.Broadcast(bias, each.lanes))

    def go_on(self, sums: Sequence[Sum], arrays: Sequence[Array], bases: Sequence[Any]) -> None:
        for each in sums:
            place = bases[1] + self.there(each) * self.row + each.at
            mask = tail(each.at, self.length, each.lanes) if self.guarded else None
            each.register.set(arrays[-1].load(place, each.lanes, 1, mask))

    def pause(self, sums: Sequence[Sum], arrays: Sequence[Array], bases: Sequence[Any]) -> None:
        for each in sums:
            self.write(each, each.register.get, arrays, bases)

    def end(self, sums: Sequence[Sum], arrays: Sequence[Array], bases: Sequence[Any]) -> None:
        others = arrays[4 + self.bias + self.scaled + self.masked : -1]

        def finished(each: Sum) -> Any:
            total = each.register.get()
            if self.scaled:
                scale = arrays[4 + self.bias][self.there(each)]
                total = tirx.Cast(wide("float32", each.lanes), total) * tirx.Broadcast(scale, each.lanes)
            leaves = [total]
            for operand, array, base in zip(self.operands, others, bases[2:], strict=True):
                place = base + each.row * operand.row + each.at * operand.step
                leaves.append(array.load(place, each.lanes, operand.step))
            return evaluate(self.epilogue, leaves, each.lanes)

        for each in sums:
            self.write(each, partial(finished, each), arrays, bases)

    def write(self, each: Sum, value: Callable[[], Any], arrays: Sequence[Array], bases: Sequence[Any]) -> None:
        """Where there is such a row, and where the run may be written."""
        if self.masked:
            mask = arrays[4 + self.bias + self.scaled].load(each.at, each.lanes) > splat(0.0, each.lanes)
        else:
            mask = tail(each.at, self.length, each.lanes) if self.guarded else None
        either(
            bool(self.outputs % self.rows),
            each.row < self.outputs,
            lambda: arrays[-1].store(bases[1] + each.row * self.row + each.at, value(), each.lanes, mask=mask),
        )

    def there(self, each: Sum) -> Any:
        """The row, or the last one in place of rows that do not exist: nothing of these is written."""
        return tirx.Min(each.row, const(self.outputs - 1)) if self.outputs % self.rows else each.row


@dataclass(frozen=True)
class Sum:
    """The sums of one output row for one vector of the run, which begins at `at`."""

    register: Register
    row: Any
    at: Any
    lanes: int


def either(asked: bool, condition: Any, yes: Callable[[], None], no: Callable[[], None] | None = None) -> None:
    """Statements under a condition of the code that is made; without a question `yes` alone."""
    if not asked:
        yes()
        return
    with tir.If(condition):
        with tir.Then():
            yes()
        if no is not None:
            with tir.Else():
                no()
