"""Products of two activations: attention scores, attention values, and any MatMul without a constant.

    y[b, m, p] = epilogue(sum_k a[b, m, k] * x[b, k, p])

The run p has stride 1 in x and y; every other stride is free, so that heads and transposes are strides and move no
number. `rows` rows of a share the loads of x; their sums stay in registers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as tir

from .contract import Operand
from .functions import RESULT, Expression, evaluate
from .tir import Array, Machine, Register, const, splat, tail, tasks


@dataclass(frozen=True)
class Product:
    """The arrays are a, x, operands of the epilogue, y. `outer` are loops b: extent, strides of a, x and y."""

    length: int
    rows: int
    depth: int
    a_row: int
    a_depth: int
    x_depth: int
    y_row: int
    outer: tuple[tuple[int, int, int, int], ...] = ()
    block: int = 4  # rows in registers
    vectors: int = 4
    guarded: bool = False
    epilogue: Expression = RESULT
    operands: tuple[Operand, ...] = ()

    @property
    def arrays(self) -> tuple[str, ...]:
        return ("float32",) * (3 + len(self.operands))

    def body(self, machine: Machine, arrays: Sequence[Array]) -> None:
        tile = self.vectors * machine.lanes
        full, rest = divmod(self.length, tile)
        columns = full + (rest > 0)
        with tasks(prod(extent for extent, *_ in self.outer) * columns, machine) as task:
            column = task % columns
            place = task // columns
            bases: list[Any] = [const(0)] * (3 + len(self.operands))
            for index in range(len(self.outer) - 1, -1, -1):
                extent, *strides = self.outer[index]
                strides += [operand.outer[index] for operand in self.operands]
                bases = [base + place % extent * stride for base, stride in zip(bases, strides, strict=True)]
                place = place // extent
            if full:
                with tir.If(column < full), tir.Then():
                    self.strip(machine, arrays, bases, column * tile, self.vectors)
            if rest:
                with tir.If(column == full), tir.Then():
                    self.strip(machine, arrays, bases, column * tile, -(-rest // machine.lanes))

    def strip(self, machine: Machine, arrays: Sequence[Array], bases: list[Any], start: Any, vectors: int) -> None:
        whole, rest = divmod(self.rows, self.block)
        if whole:
            with tir.serial(0, whole) as group:
                self.tile(machine, arrays, bases, group * self.block, start, self.block, vectors)
        if rest:
            self.tile(machine, arrays, bases, const(whole * self.block), start, rest, vectors)

    def tile(
        self, machine: Machine, arrays: Sequence[Array], bases: list[Any], row: Any, start: Any, rows: int, vectors: int
    ) -> None:
        lanes = machine.lanes
        a, x, *more, y = arrays
        sums = [[Register(lanes) for _ in range(vectors)] for _ in range(rows)]
        for register in (register for registers in sums for register in registers):
            register.set(splat(0.0, lanes))
        with tir.serial(0, self.depth) as k:
            for r, registers in enumerate(sums):
                factor = tirx.Broadcast(a[bases[0] + (row + r) * self.a_row + k * self.a_depth], lanes)
                for v, register in enumerate(registers):
                    there = x.load(bases[1] + k * self.x_depth + start + v * lanes, lanes)
                    register.set(register.get() + factor * there)
        for r, registers in enumerate(sums):
            for v, register in enumerate(registers):
                at = start + v * lanes
                leaves = [register.get()]
                for operand, array, base in zip(self.operands, more, bases[3:], strict=True):
                    leaves.append(array.load(base + (row + r) * operand.row + at * operand.step, lanes, operand.step))
                mask = tail(at, self.length, lanes) if self.guarded else None
                y.store(
                    bases[2] + (row + r) * self.y_row + at, evaluate(self.epilogue, leaves, lanes), lanes, mask=mask
                )
