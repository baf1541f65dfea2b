"""What is reduced: rows below each other with the run kept, or rows and run together. Kernels are written once for
both.

Run kept: a sum is a vector of sums, one for each place, and there is one such vector for each vector of the strip.
Run reduced: a sum is one number, repeated in every lane; lanes behind the end of the run never count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from tvm import tirx

from .loops import (
    CHAINS,
    Combine,
    Loops,
    Strip,
    across,
    extent,
    fetch,
    first,
    folded,
    joined,
    moved,
    put,
    registers,
    walk,
)
from .tir import Array, Register, splat


@dataclass(frozen=True)
class Operation:
    """What an accumulator begins with, and how two of them are joined."""

    identity: float
    combine: Combine


def larger(a: Any, b: Any) -> Any:
    """The larger of two, NaN where one is. (TVM folds `b != b` to false; isnan it keeps.)"""
    return tirx.Select(tirx.isnan(b), b, tirx.Select(a < b, b, a))


def smaller(a: Any, b: Any) -> Any:
    """The smaller of two numbers, or NaN where one of them is."""
    return tirx.Select(tirx.isnan(b), b, tirx.Select(b < a, b, a))


SUM = Operation(0.0, lambda a, b: a + b)
PRODUCT = Operation(1.0, lambda a, b: a * b)
LARGEST = Operation(-inf, larger)
SMALLEST = Operation(inf, smaller)


@dataclass(frozen=True)
class Place:
    """One vector of the reduced numbers: where it lies in each array, which accumulator it is added to, and how many of
    its lanes there are."""

    at: list[Any]
    chain: int
    vector: int
    left: int


@dataclass(frozen=True)
class Span:
    """Every loop has a stride for each of `arrays`; `mask` is the index of an array that is positive where the run has
    numbers (other places do not count where the run is reduced, and are not written)."""

    arrays: Sequence[Array]
    rows: Loops
    length: int
    steps: tuple[int, ...]
    kept: bool
    lanes: int
    guarded: bool = False
    mask: int | None = None

    @property
    def run(self) -> tuple[int, tuple[int, ...]]:
        """What is left to sweep over."""
        return (self.length, self.steps) if self.kept else (1, (0,) * len(self.steps))

    @property
    def depth(self) -> int:
        """How many numbers, or vectors of them, are read for one result."""
        return extent(self.rows) * (1 if self.kept else -(-self.length // self.lanes))

    @property
    def count(self) -> int:
        """How many numbers one result is made of, where no mask takes some away."""
        return extent(self.rows) * (1 if self.kept else self.length)

    def visit(self, bases: list[Any], strip: Strip, chains: int, emit: Callable[[Place], None]) -> None:
        lanes = self.lanes
        if self.kept:

            def strips(at: list[Any], chain: int) -> None:
                for v in range(strip.vectors):
                    emit(Place(moved(at, v * lanes, self.steps), chain, v, strip.numbers(v)))

            walk(self.rows, bases, chains, strips)
            return
        run, rest = across(self.length, self.steps, lanes)
        walk(
            (*self.rows, run),
            bases,
            chains,
            lambda at, chain: emit(Place(at, chain, 0, lanes)),
            (lambda at, chain: emit(Place(at, chain, 0, rest))) if rest else None,
        )

    def chains(self, strip: Strip, sums: int) -> int:
        """Accumulators for each sum: as many as hide the latency of an addition, and not more than a row has
        vectors."""
        if self.kept:
            return max(1, CHAINS // (strip.vectors * sums))
        return max(1, min(CHAINS // sums, self.length // self.lanes))

    def totals(
        self,
        bases: list[Any],
        strip: Strip,
        operation: Operation,
        terms: Callable[[Place], Sequence[Any]],
        sums: int = 1,
        weight: int = 1,
    ) -> list[list[Register]]:
        """`sums` reductions of what `terms` gives for each place, each as one register for each vector of the strip."""
        chains = self.chains(strip, sums * weight)
        kept = [[registers(chains, self.lanes, operation.identity) for _ in range(strip.vectors)] for _ in range(sums)]

        def add(place: Place) -> None:
            exists = self.exists(place)
            for term, vectors in zip(terms(place), kept, strict=True):
                value = term if exists is None else tirx.Select(exists, term, splat(operation.identity, self.lanes))
                register = vectors[place.vector][place.chain]
                register.set(operation.combine(register.get(), value))

        self.visit(bases, strip, chains, add)
        join = joined if self.kept else folded
        return [[join(chained, operation.combine) for chained in vectors] for vectors in kept]

    def total(
        self, bases: list[Any], strip: Strip, operation: Operation, term: Callable[[Place], Any], weight: int = 1
    ) -> list[Register]:
        return self.totals(bases, strip, operation, lambda place: [term(place)], 1, weight)[0]

    def exists(self, place: Place) -> Any:
        """The lanes that count, or None where all of them do. A kept run has nothing that a garbage lane could
        spoil."""
        if self.kept:
            return None
        mask = self.masked(place)
        if place.left == self.lanes:
            return mask
        there = first(place.left, self.lanes)
        return there if mask is None else tirx.And(there, mask)

    def masked(self, place: Place) -> Any:
        return None if self.mask is None else self.read(self.mask, place) > splat(0.0, self.lanes)

    def limit(self, place: Place, step: int) -> int | None:
        """How many lanes may be touched: behind a kept run of step 1 lies scratch, unless it is guarded."""
        return None if self.kept and step == 1 and not self.guarded else place.left

    def read(self, index: int, place: Place) -> Any:
        step = self.steps[index]
        return fetch(self.arrays[index], place.at[index], self.lanes, step, self.limit(place, step))

    def write(self, value: Any, place: Place, index: int = -1) -> None:
        step = self.steps[index]
        put(self.arrays[index], place.at[index], value, self.lanes, step, self.limit(place, step), self.masked(place))
