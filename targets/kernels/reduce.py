"""Reductions: sums, means, extremes, norms and log-sum-exp over any loops, with the run kept or reduced.

    y[o, p] = epilogue(op over r of x[o, r, p])            the run is kept: vectors of places p, rows r below each other
    y[o] = epilogue(op over r and p of x[o, r, p])         the run is reduced: numbers behind its end never count

A NaN anywhere gives NaN, in extremes too (as numpy and torch do; in onnxruntime it depends on where it stands).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx

from .functions import RESULT, Expression, evaluate, exp
from .loops import Loops, Strip, sweep
from .spans import LARGEST, PRODUCT, SMALLEST, SUM, Operation, Place, Span
from .tir import Array, Machine, Register, const, splat, wide

LARGEST_FLOAT = 3.4028234663852886e38

# What is done to each number, and how the results are joined.
OPERATIONS: dict[str, tuple[Callable[[Any], Any], Operation]] = {
    "sum": (lambda x: x, SUM),
    "mean": (lambda x: x, SUM),
    "max": (lambda x: x, LARGEST),
    "min": (lambda x: x, SMALLEST),
    "prod": (lambda x: x, PRODUCT),
    "sum_square": (lambda x: x * x, SUM),
    "l1": (tirx.abs, SUM),
    "l2": (lambda x: x * x, SUM),
    "log_sum_exp": (lambda x: x, SUM),
}


@dataclass(frozen=True)
class Reduce:
    """The arrays are x, mask (where there is one), operands, y; every loop has a stride for each of them.

    `reduced` and `outer` are the loops r and o; the run p is `length` numbers with strides `steps`. `masked` says that
    a mask tells which places of the run there are: others are not written (run kept), or do not count (run reduced;
    `count` then says how many numbers a mean is over). `guarded`: numbers behind a kept run belong to somebody else;
    those behind a reduced one are never read.
    """

    operation: str
    length: int
    kept: bool
    steps: tuple[int, ...]
    reduced: Loops = ()
    outer: Loops = ()
    count: int | None = None
    masked: bool = False
    guarded: bool = False
    epilogue: Expression = RESULT
    operands: int = 0
    vectors: int = 4
    dtype: str = "float32"  # of x; 8-bit integers are added exactly, as float32
    result: str = "float32"
    taken: int = 0  # from a sum, which a mean then divides: what zero points add to it

    @property
    def arrays(self) -> tuple[str, ...]:
        return (self.dtype, *("float32",) * (self.masked + self.operands), self.result)

    def body(self, machine: Machine, arrays: Sequence[Array]) -> None:
        mask = 1 if self.masked else None
        span = Span(arrays, self.reduced, self.length, self.steps, self.kept, machine.lanes, self.guarded, mask)

        def emit(bases: list[Any], start: Any, strip: Strip) -> None:
            self.strip(span, bases, strip)

        sweep(machine, self.outer, span.run, self.vectors, span.depth, emit)

    def strip(self, span: Span, bases: list[Any], strip: Strip) -> None:
        prepare, operation = OPERATIONS[self.operation]
        if self.operation == "log_sum_exp":
            peaks = span.total(bases, strip, LARGEST, lambda place: span.read(0, place))
            for peak in peaks:
                peak.set(finite(peak.get(), span.lanes))
            found = span.total(
                bases, strip, SUM, lambda place: exp(span.lanes, span.read(0, place) - peaks[place.vector].get()), 2
            )
            results = [tirx.log(sum_.get()) + peak.get() for sum_, peak in zip(found, peaks, strict=True)]
        else:
            found = span.total(bases, strip, operation, lambda place: prepare(self.read(span, place)))
            results = [self.finished(register.get(), span) for register in found]
        operands = range(1 + self.masked, len(span.arrays) - 1)
        for v, result in enumerate(results):
            if span.kept:
                at = [base + v * span.lanes * step for base, step in zip(bases, span.steps, strict=True)]
                place = Place(at, 0, v, strip.numbers(v))
                leaves = [result, *(span.read(index, place) for index in operands)]
                span.write(evaluate(self.epilogue, leaves, span.lanes), place)
            else:
                leaves = [result, *(span.arrays[index].load(bases[index], span.lanes, 0) for index in operands)]
                register = Register(span.lanes, self.result)
                register.set(evaluate(self.epilogue, leaves, span.lanes))
                span.arrays[-1][bases[-1]] = register.lane(const(0))

    def read(self, span: Span, place: Place) -> Any:
        value = span.read(0, place)
        return value if self.dtype == "float32" else tirx.Cast(wide("float32", span.lanes), value)

    def finished(self, value: Any, span: Span) -> Any:
        if self.taken:
            value = value - splat(float(self.taken), span.lanes)
        if self.operation == "l2":
            return tirx.sqrt(value)
        if self.operation == "mean":
            return value / splat(float(self.count or span.count), span.lanes)
        return value


def finite(peak: Any, lanes: int) -> Any:
    """What is taken from numbers before exp: their largest, or 0 where that is infinite (inf - inf would be NaN)."""
    bounded = tirx.abs(peak) <= splat(LARGEST_FLOAT, lanes)
    return tirx.Select(bounded, peak, splat(0.0, lanes))
