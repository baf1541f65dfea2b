"""Convolutions of each channel by itself (depthwise) with steps of two along the rows, from the map as it lies.

    y[o, i, j] = epilogue(bias[o] + sum over taps (a, b) of w[o, a, b] * x[o, down * i + a - top, 2 * j + b - left])

The rows of a window are joined first, as whole vectors, once for each column of taps; then every second number of these
sums is taken. What lies beyond the map counts as zero and is not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx

from .functions import RESULT, Expression, evaluate, named
from .halve import OPERATIONS, VECTORS, Halve, picked, read
from .loops import extent, placed, put, units
from .tir import Array, Machine, const, splat

WIDE = 3  # columns of taps from which on one vector of outputs has sums enough for all registers


@dataclass(frozen=True)
class Strided(Halve):
    """The arrays are x, weights [channels, taps], bias [channels], y; strides of `outer` are those of x, of channels (1
    or 0) and of y. The operation is "mean", of which nothing but its zero is used."""

    epilogue: Expression = RESULT

    @property
    def arrays(self) -> tuple[str, ...]:
        return ("float32",) * 4

    def body(self, machine: Machine, arrays: Sequence[Array]) -> None:
        x, weights, bias, y = arrays
        lanes, (tall, wide) = machine.lanes, self.taps
        height, width = self.output
        strip = lanes * min(VECTORS if wide <= WIDE else 1, -(-width // lanes))
        with units(extent(self.outer) * height, 2 * width * tall, machine) as unit:
            first, channel, second = placed(unit // height, self.outer, [const(0)] * 3)
            row = unit % height
            bases = [first + self.row(row, tap) * self.rows[0] - self.before[1] for tap in range(tall)]
            there = second + row * self.rows[1]
            factors = [
                named(tirx.Broadcast(weights[channel * (tall * wide) + tap], lanes), lanes)
                for tap in range(tall * wide)
            ]
            start = named(tirx.Broadcast(bias[channel], lanes), lanes)

            def emit(column: Any, count: int, places: range | None) -> None:
                vectors = -(-count // lanes)
                joined: list[list[Any]] = [[None] * self.pieces(vectors) for _ in range(wide)]
                for a, base in enumerate(bases):
                    exists = self.exists(row, a)
                    for n in range(self.pieces(vectors)):
                        value = read(x, base + 2 * column, n * lanes, lanes, places, OPERATIONS[self.operation])
                        if exists is not None:
                            value = named(tirx.Select(tirx.Broadcast(exists, lanes), value, splat(0.0, lanes)), lanes)
                        for b in range(wide):
                            if n < 2 * vectors or b > 1:
                                term = factors[a * wide + b] * value
                                joined[b][n] = named(term if joined[b][n] is None else joined[b][n] + term, lanes)
                for n in range(vectors):
                    total = start
                    for b in range(wide):
                        total = named(total + picked([*joined[b], None, None][2 * n : 2 * n + 3], b, lanes), lanes)
                    result = evaluate(self.epilogue, [total], lanes)
                    put(y, there + column + n * lanes, result, lanes, 1, min(lanes, count - n * lanes))

            self.strips(strip, lanes, emit)

    def exists(self, row: Any, tap: int) -> Any:
        """Whether the row of x that a tap wants is one of the map, or None where it always is."""
        place = row * self.down + (tap - self.before[0])
        conditions = []
        if tap < self.before[0]:
            conditions.append(place >= 0)
        if (self.output[0] - 1) * self.down + tap - self.before[0] >= self.size[0]:
            conditions.append(place < self.size[0])
        return tirx.And(*conditions) if len(conditions) > 1 else conditions[0] if conditions else None
