"""Products with constant weights whose inputs are copied first, part by part, into a piece of memory that stays in the
first-level cache: there every vector that an entry reads is one cache line.

Taps of a map are a few numbers apart, so that nearly every vector lies in two lines, and is two loads. A *span* is what
the taps that lie whole vectors apart read of one channel; each is copied to a place of its own. Offsets of entries are
those of the copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from tvm.script.ir_builder import tirx as tir

from .contract import Bounds, Contract
from .tir import Array, Machine, const, loop, room


@dataclass(frozen=True)
class Packed(Contract):
    """`channels` of x lie `channel` numbers apart; `parts` divides them, `block` is 1. Of each span, where it begins in
    a channel, and how many vectors it has more than a tile."""

    channels: int = 1
    channel: int = 0
    spans: tuple[tuple[int, int], ...] = ((0, 0),)
    lanes: int = 16

    def __post_init__(self) -> None:
        if self.block != 1 or self.channels % self.parts:
            raise ValueError(f"tiles in blocks of {self.block}, {self.channels} channels in {self.parts} parts")

    @property
    def size(self) -> int:
        """Numbers of the copy of a channel."""
        return self.lanes * sum(more + self.vectors for _, more in self.spans)

    def within(self) -> AbstractContextManager[Any]:
        return room(self.channels // self.parts * self.size, self.terms.word)

    def strips(
        self, machine: Machine, arrays: Sequence[Array], bases: list[Any], where: tuple[Any, Any, Any], bounds: Bounds
    ) -> None:
        first, _, own = where
        full, rest = divmod(self.length, self.vectors * machine.lanes)
        copy = Array(own, const(0), arrays[0].dtype)

        def strip(start: Any, vectors: int) -> None:
            with loop(self.parts) as part:
                self.pack(copy, arrays[0], bases[0] + start, part, vectors)
                here = [const(0) - start, *bases[1:]]  # of the copy, whose numbers begin at 0
                with tir.serial(*bounds) as group:
                    self.tile(machine, [copy, *arrays[1:]], here, (part, group, None), start, vectors)

        if full:
            with tir.If(first < full), tir.Then():
                strip(first * (self.vectors * machine.lanes), self.vectors)
        if rest:
            with tir.If(first == full), tir.Then():
                strip(const(full * self.vectors * machine.lanes), -(-rest // machine.lanes))

    def pack(self, copy: Array, x: Array, place: Any, part: Any, vectors: int) -> None:
        """Copies the channels of one part."""
        count = self.channels // self.parts
        with tir.serial(0, count) as number:
            source, target = place + (part * count + number) * self.channel, number * self.size
            for begin, more in self.spans:
                for vector in range(more + vectors):
                    step = vector * self.lanes
                    copy.store(target + step, x.load(source + begin + step, self.lanes), self.lanes)
                target = target + (more + self.vectors) * self.lanes
