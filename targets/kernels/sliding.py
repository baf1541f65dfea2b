"""Products with constant weights of which every output row has one channel of inputs, such as depthwise convolutions:
vectors of x are read once, and the taps beside each other are taken from them in registers.

A vector that a tap shifts lies in two cache lines as a rule, and is two loads. Here the taps of one row of pixels
share the vectors from the first of them on, and each is a shuffle of two neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx

from .contract import Contract, Sum
from .functions import named
from .tir import Array, Machine, Register
from .zip import shuffled


@dataclass(frozen=True)
class Sliding(Contract):
    """As `Contract` with one output row a list, where every list has the same `taps`: their distances from the first
    entry of the list, in its order. Of x up to a vector is read behind what the taps of a row of pixels want."""

    taps: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        if self.rows != 1 or self.parts != 1:
            raise ValueError(f"{self.rows} rows that share a list, {self.parts} parts")

    def tile(
        self,
        machine: Machine,
        arrays: Sequence[Array],
        bases: list[Any],
        where: tuple[Any, Any, Any],
        start: Any,
        vectors: int,
    ) -> None:
        lanes = machine.lanes
        x, weights, offsets, pointers, *_ = arrays
        _, group, _ = where
        sums = [Sum(Register(lanes, self.terms.total), group, start + v * lanes, lanes) for v in range(vectors)]
        self.begin(sums, arrays)
        first = named(pointers[group], 1, "int32")
        here = named(bases[0] + start + offsets[first], 1, "int32")
        for begin, members in shared(self.taps, lanes):
            far = any(shift for _, shift in members)
            read = [named(x.load(here + begin + v * lanes, lanes), lanes, x.dtype) for v in range(vectors + far)]
            for tap, shift in members:
                weight = named(tirx.Broadcast(weights[first + tap], lanes), lanes, weights.dtype)
                for v, each in enumerate(sums):
                    number = slid(read[v], read[v + 1], shift, lanes) if shift else read[v]
                    each.register.set(self.terms.add(each.register.get(), number, weight, lanes))
        self.end(sums, arrays, bases)


def shared(taps: Sequence[int], lanes: int) -> list[tuple[int, list[tuple[int, int]]]]:
    """Taps that share their vectors: where the first begins, and the number of each with its distance from there."""
    found: list[tuple[int, list[tuple[int, int]]]] = []
    for place, tap in sorted((place, tap) for tap, place in enumerate(taps)):
        if not found or place - found[-1][0] >= lanes:
            found.append((place, []))
        found[-1][1].append((tap, place - found[-1][0]))
    return found


def slid(first: Any, second: Any, shift: int, lanes: int) -> Any:
    """One vector out of two neighbours."""
    return shuffled(first, second, range(shift, shift + lanes), lanes)
