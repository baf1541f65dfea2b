"""Entries of one axis in any order, or weighed sums of a few of them: indices, mirrored borders, resized maps.

    y[o, i, r] = sum over taps t of weight[t, i] * x[o, place[t, i], r]        (one tap without a weight: a copy)

Vectors lie along `run`, or along the entries where these lie side by side in y.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as tir

from .loops import Loop, Loops, Strip, across, extent, fetch, placed, put, sweep, units, walk
from .tir import INT32, Array, Machine, Register, const, loop, splat


@dataclass(frozen=True)
class Take:
    """The arrays are x, places, weights (where there are some), y. `places` and `weights` are [taps, count]; a place is
    a distance in x, in numbers. `outer` are loops with the strides of x and y, `step` is the distance of entries in y,
    `run` the extent and the strides of what lies around the entries, if anything does."""

    count: int
    step: int
    outer: Loops = ()
    run: Loop | None = None
    taps: int = 1
    weighed: bool = False
    dtype: str = "float32"

    @property
    def arrays(self) -> tuple[str, ...]:
        return (self.dtype, INT32, *(("float32",) if self.weighed else ()), self.dtype)

    def body(self, machine: Machine, arrays: Sequence[Array]) -> None:
        if self.run is None:
            self.along_entries(machine, arrays)
        else:
            self.along_run(machine, arrays, self.run)

    def along_run(self, machine: Machine, arrays: Sequence[Array], run: Loop) -> None:
        x, places, *weights, y = arrays
        length, steps = run
        entries = (*self.outer, (self.count, (0, self.step)))
        with units(extent(entries), length, machine) as unit:
            bases = placed(unit, entries, [const(0), const(0)])
            entry = unit % self.count

            def total(read: Callable[[Any], Any], repeat: Callable[[Any], Any]) -> Any:
                found = None
                for tap in range(self.taps):
                    where = tap * self.count + entry
                    value = read(places[where])
                    value = value * repeat(weights[0][where]) if weights else value
                    found = value if found is None else found + value
                return found

            if steps[1] != 1:  # neighbours of the run are not neighbours in y: number by number
                with loop(length) as number:
                    here = bases[0] + number * steps[0]
                    y[bases[1] + number * steps[1]] = total(lambda place: x[here + place], lambda weight: weight)
                return
            lanes = machine.lanes
            body, rest = across(length, steps, lanes)

            def move(left: int | None, at: Sequence[Any]) -> None:
                value = total(
                    lambda place: fetch(x, at[0] + place, lanes, steps[0], left),
                    lambda weight: tirx.Broadcast(weight, lanes),
                )
                put(y, at[1], value, lanes, 1, left)

            walk((body,), bases, 4, lambda at, _: move(None, at), (lambda at, _: move(rest, at)) if rest else None)

    def along_entries(self, machine: Machine, arrays: Sequence[Array]) -> None:
        x, places, *weights, y = arrays
        lanes = machine.lanes

        def emit(bases: list[Any], start: Any, strip: Strip) -> None:
            total = Register(lanes, self.dtype)
            total.set(splat(0, lanes, self.dtype))
            for tap in range(self.taps):
                first = start + tap * self.count
                gathered = Register(lanes, self.dtype)
                gathered.set(splat(0, lanes, self.dtype))
                for lane in range(strip.left):
                    number = x[bases[0] + places[first + lane]]
                    tir.buffer_store(gathered.buffer, number, [const(lane)])
                value = gathered.get()
                if weights:
                    value = value * fetch(weights[0], first, lanes, 1, strip.left)
                total.set(total.get() + value if weights else value)
            put(y, bases[1], total.get(), lanes, self.step, strip.left)

        sweep(machine, self.outer, (self.count, (0, self.step)), 1, self.taps, emit)
