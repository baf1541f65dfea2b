"""Elementwise operators, and copies between layouts: one expression on any number of arrays, walked by common loops.

    y[loops, p] = expression(a[loops, p], b[loops, p], ...)

`loops` are (extent, stride of each array ..., stride of y); the run is the innermost loop, over which y has stride 1
(any other stride is written number by number). An operand's stride over the run is 1, 0 (one number for all), or any
other, which costs a load for each number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from .functions import Expression, evaluate
from .tir import Array, Machine, const, loop, tail, tasks

WORTH = 16384  # numbers that make a task of their own worth its start


@dataclass(frozen=True)
class Map:
    """The arrays are the operands, then y; `dtypes` are theirs. Nothing is read or written past the end of a run."""

    expression: Expression
    dtypes: tuple[str, ...]
    loops: tuple[tuple[int, ...], ...]  # extent, then a stride for each array
    run: tuple[int, ...]

    @property
    def arrays(self) -> tuple[str, ...]:
        return self.dtypes

    def body(self, machine: Machine, arrays: Sequence[Array]) -> None:
        length, step = self.run[0], self.run[-1]
        lanes = machine.lanes if step == 1 and length > 1 else 1
        total = length * prod(extent for extent, *_ in self.loops)
        outer = self.split(machine.threads if total > WORTH else 1)
        count = prod(extent for extent, *_ in self.loops[:outer])
        with tasks(count if total > WORTH else 1, machine) as task, loop(1 if total > WORTH else count) as step:
            place = task if total > WORTH else step
            bases = [const(0)] * len(arrays)
            for extent, *strides in reversed(self.loops[:outer]):
                bases = [base + place % extent * stride for base, stride in zip(bases, strides, strict=True)]
                place = place // extent
            self.walk(lanes, arrays, bases, self.loops[outer:])

    def split(self, threads: int) -> int:
        """How many of the outer loops become tasks: the fewest that keep the threads busy."""
        count = 1
        for index, (extent, *_) in enumerate(self.loops):
            if count >= 4 * threads:
                return index
            count *= extent
        return len(self.loops)

    def walk(self, lanes: int, arrays: Sequence[Array], bases: list[Any], loops: Sequence[tuple[int, ...]]) -> None:
        if loops:
            extent, *strides = loops[0]
            with loop(extent) as step:
                self.walk(lanes, arrays, [b + step * s for b, s in zip(bases, strides, strict=True)], loops[1:])
            return
        length, *steps = self.run
        full, rest = divmod(length, lanes)
        if full:
            with loop(full) as index:
                self.vector(lanes, arrays, bases, index * lanes, None)
        if not rest:
            return
        if all(step in {0, 1} for step in steps):
            self.vector(lanes, arrays, bases, const(full * lanes), tail(const(full * lanes), length, lanes))
        else:  # a vector with gaps could reach numbers that are not there
            with loop(rest) as index:
                self.number(arrays, bases, index + full * lanes)

    def vector(self, lanes: int, arrays: Sequence[Array], bases: list[Any], at: Any, mask: Any) -> None:
        *operands, y = arrays
        if lanes == 1:
            self.number(arrays, bases, at)
            return
        leaves = [
            array.load(base + at * step, lanes, step, mask if step else None)
            for array, base, step in zip(operands, bases, self.run[1:], strict=False)
        ]
        y.store(bases[-1] + at, evaluate(self.expression, leaves, lanes), lanes, mask=mask)

    def number(self, arrays: Sequence[Array], bases: list[Any], at: Any) -> None:
        *operands, y = arrays
        leaves = [array[base + at * step] for array, base, step in zip(operands, bases, self.run[1:], strict=False)]
        y[bases[-1] + at * self.run[-1]] = evaluate(self.expression, leaves, 1)
