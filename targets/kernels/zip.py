"""Copies that interleave two rows, or take every second number of one: steps of two as shuffles of whole vectors.

Zip:    y[o, 2 i + r] = x[o, i + r * apart],  r = 0, 1
Unzip:  y[o, i] = x[o, 2 i]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx

from .loops import Loops, blocks, extent, fetch, placed, put, units
from .tir import Array, Machine, Register, const


def shuffled(first: Any, second: Any, order: Sequence[int], lanes: int) -> Any:
    """Numbers of two vectors in this order."""
    return held(tirx.Shuffle([first, second], [const(lane) for lane in order]), lanes)


def held(value: Any, lanes: int) -> Any:
    """The value in a register: a shuffle reads it once."""
    register = Register(lanes)
    register.set(value)
    return register.get()


@dataclass(frozen=True)
class Zip:
    """The arrays are x, y; `outer` are loops with their strides. Nothing but the rows is read or written; a row may be
    both (`apart` 0), so that every number is repeated."""

    length: int
    apart: int
    outer: Loops = ()

    @property
    def arrays(self) -> tuple[str, ...]:
        return ("float32", "float32")

    def body(self, machine: Machine, arrays: Sequence[Array]) -> None:
        x, y = arrays
        lanes = machine.lanes
        with units(extent(self.outer), 2 * self.length, machine) as unit:
            here, there = placed(unit, self.outer, [const(0), const(0)])

            def emit(start: Any, count: int) -> None:
                rows = [held(fetch(x, here + start + r * self.apart, lanes, 1, count), lanes) for r in (0, 1)]
                for half in (0, lanes):
                    left = min(lanes, 2 * count - half)
                    if left > 0:
                        order = [lane // 2 + lane % 2 * lanes for lane in range(half, half + lanes)]
                        value = shuffled(rows[0], rows[1], order, lanes)
                        put(y, there + 2 * start + half, value, lanes, 1, left)

            blocks(self.length, lanes, emit)


@dataclass(frozen=True)
class Unzip:
    """The arrays are x, y; `outer` are loops with their strides. Of x nothing behind the last number is read."""

    length: int
    outer: Loops = ()

    @property
    def arrays(self) -> tuple[str, ...]:
        return ("float32", "float32")

    def body(self, machine: Machine, arrays: Sequence[Array]) -> None:
        x, y = arrays
        lanes = machine.lanes
        with units(extent(self.outer), 2 * self.length, machine) as unit:
            here, there = placed(unit, self.outer, [const(0), const(0)])

            def emit(start: Any, count: int, numbers: int) -> None:
                first = held(fetch(x, here + 2 * start, lanes, 1, min(numbers, lanes)), lanes)
                second = first
                if numbers > lanes:
                    second = held(fetch(x, here + 2 * start + lanes, lanes, 1, numbers - lanes), lanes)
                value = shuffled(first, second, [2 * lane for lane in range(lanes)], lanes)
                put(y, there + start, value, lanes, 1, count)

            # Behind the last number there may be nothing: the block with it, a whole one or not, reads one less.
            before = (self.length - 1) // lanes * lanes
            blocks(before, lanes, lambda start, count: emit(start, count, 2 * count))
            emit(const(before), self.length - before, 2 * (self.length - before) - 1)
