"""Pooling with steps of two along the rows, from the map as it lies: no phase of it is copied apart.

    y[o, i, j] = op over taps (a, b) of x[o, down * i + a - top, 2 * j + b - left]

The rows of a window are joined first, as whole vectors; then every second number is taken, once for each tap of a row.
Columns beyond the map are not read and do not count. A row beyond it is read as the nearest row of the map, which is
one of the same window, so that a maximum does not change; a mean has no such rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx

from .functions import named
from .loops import Loops, extent, placed, put, units
from .spans import LARGEST, SUM, Operation
from .tir import INT32, Array, Machine, const, loop, splat
from .zip import shuffled

VECTORS = 2  # of outputs that share what they read
COLUMNS = 5  # taps of a row, at most: three vectors then hold all that one vector of outputs is made of
OPERATIONS = {"max": LARGEST, "mean": SUM}


@dataclass(frozen=True)
class Halve:
    """The arrays are x, y; `outer` are loops (images, channels) with their strides, `rows` the distances of rows.

    `size` and `output` are rows and columns of x and y, `taps` of a window; `before` is what windows reach beyond the
    map at the top and to the left. Nothing is read or written but the numbers of the maps.
    """

    operation: str
    taps: tuple[int, int]
    size: tuple[int, int]
    output: tuple[int, int]
    before: tuple[int, int]
    down: int
    rows: tuple[int, int]
    outer: Loops = ()

    def __post_init__(self) -> None:
        if self.taps[1] > COLUMNS:
            raise ValueError(f"{self.taps[1]} taps of a row")

    @property
    def arrays(self) -> tuple[str, ...]:
        return ("float32", "float32")

    def body(self, machine: Machine, arrays: Sequence[Array]) -> None:
        x, y = arrays
        lanes = machine.lanes
        height, width = self.output
        strip = lanes * min(VECTORS, -(-width // lanes))
        with units(extent(self.outer) * height, 2 * width * self.taps[0], machine) as unit:
            first, second = placed(unit // height, self.outer, [const(0), const(0)])
            row = unit % height
            bases = [first + self.row(row, tap) * self.rows[0] - self.before[1] for tap in range(self.taps[0])]
            there = second + row * self.rows[1]

            def emit(column: Any, count: int, places: range | None) -> None:
                pieces = self.pieces(-(-count // lanes))
                rows = [self.down_the_rows(x, bases, column, n * lanes, lanes, places) for n in range(pieces)]
                for n in range(-(-count // lanes)):
                    value = self.along(rows[2 * n : 2 * n + 3], lanes)
                    put(y, there + column + n * lanes, value, lanes, 1, min(lanes, count - n * lanes))

            self.strips(strip, lanes, emit)

    def strips(self, strip: int, lanes: int, emit: Callable[[Any, int, range | None], None]) -> None:
        """Has a row written in strips: from which column, how many numbers, and which numbers of x exist behind where
        the first window begins; None where all of them do, which is a loop."""
        width = self.output[1]
        inner = [step for step in range(-(-width // strip)) if self.inside(step * strip, strip, lanes)]
        if inner:
            with loop(len(inner), inner[0]) as step:
                emit(step * strip, strip, None)
        for step in range(-(-width // strip)):
            if step not in inner:
                start = 2 * strip * step - self.before[1]
                emit(const(step * strip), min(strip, width - step * strip), range(-start, self.size[1] - start))

    def pieces(self, vectors: int) -> int:
        """Vectors of a row that are read for so many vectors of outputs."""
        return 2 * vectors + (self.taps[1] > 2)

    def inside(self, column: int, count: int, lanes: int) -> bool:
        """Whether the numbers are there that are read for `count` outputs from `column`, and the outputs are."""
        start = 2 * column - self.before[1]
        last = start + self.pieces(count // lanes) * lanes
        return start >= 0 and last <= self.size[1] and column + count <= self.output[1]

    def row(self, row: Any, tap: int) -> Any:
        """The row of x that a tap reads, or the nearest one."""
        place = row * self.down + (tap - self.before[0])
        if tap < self.before[0]:
            place = tirx.Max(place, const(0))
        if (self.output[0] - 1) * self.down + tap - self.before[0] >= self.size[0]:
            place = tirx.Min(place, const(self.size[0] - 1))
        return place

    def down_the_rows(
        self, x: Array, bases: Sequence[Any], column: Any, start: int, lanes: int, places: range | None
    ) -> Any:
        """Numbers `start`, `start + 1`, ... behind where the window of `column` begins, each joined with those below
        it. `places` are the numbers that exist, None where all of them do."""
        operation = OPERATIONS[self.operation]
        found = None
        for base in bases:
            value = read(x, base + 2 * column, start, lanes, places, operation)
            found = value if found is None else named(operation.combine(found, value), lanes)
        return found

    def along(self, rows: Sequence[Any], lanes: int) -> Any:
        """One vector of outputs from the two or three vectors that its windows begin in and reach into."""
        operation = OPERATIONS[self.operation]
        found = None
        for tap in range(self.taps[1]):
            value = picked(rows, tap, lanes)
            found = value if found is None else named(operation.combine(found, value), lanes)
        return found if self.operation == "max" else found * splat(1.0 / (self.taps[0] * self.taps[1]), lanes)


def picked(rows: Sequence[Any], tap: int, lanes: int) -> Any:
    """Every second number of two or three vectors that follow each other, from number `tap`."""
    places = [2 * lane + tap for lane in range(lanes)]
    value = shuffled(rows[0], rows[1], [place % (2 * lanes) for place in places], lanes)
    if places[-1] >= 2 * lanes:
        order = [lane if place < 2 * lanes else place - lanes for lane, place in enumerate(places)]
        value = shuffled(value, rows[2], order, lanes)
    return value


def read(x: Array, place: Any, start: int, lanes: int, places: range | None, operation: Operation) -> Any:
    """Numbers `start`, `start + 1`, ... from a place; those that do not exist count as nothing."""
    nothing = splat(operation.identity, lanes)
    if places is None or (start in places and start + lanes - 1 in places):
        return named(x.load(place + start, lanes), lanes)
    first, last = max(0, places.start - start), min(lanes, places.stop - start)
    if first >= last:
        return named(nothing, lanes)
    lane = tirx.Ramp(const(0), 1, lanes)
    exists = tirx.And(lane >= splat(first, lanes, INT32), lane < splat(last, lanes, INT32))
    loaded = named(x.load(place + start, lanes, 1, exists), lanes)
    return named(tirx.Select(exists, loaded, nothing), lanes)
