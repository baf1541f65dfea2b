"""Softmax and its logarithm over one axis, or over rows and run together.

    y[o, r, p] = exp(x[r] - max x) / sum exp(x - max x),      or x[r] - max x - log(sum exp(x - max x))

and an epilogue on that.

Three walks over the axis: the largest number, the exponentials and their sum, and the division. As in onnxruntime a
NaN, an infinity or nothing but -infinity along the axis gives NaN everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from tvm import tirx

from .functions import RESULT, Expression, evaluate, exp, named, upper
from .loops import Loops, Strip, sweep
from .spans import SUM, Operation, Place, Span
from .tir import Array, Machine, Register, splat

PEAK = Operation(-inf, upper)  # a NaN that this drops is still in the sum


@dataclass(frozen=True)
class Softmax:
    """The arrays are x and y; every loop has a stride for each of them.

    `axis` are the loops r, `outer` the loops o; the run is `length` numbers with strides `steps`, kept (the axis is
    rows below each other) or a part of the axis. `guarded`: numbers behind a kept run belong to somebody else.
    """

    length: int
    kept: bool
    steps: tuple[int, ...]
    axis: Loops = ()
    outer: Loops = ()
    logarithm: bool = False
    epilogue: Expression = RESULT  # of y alone
    guarded: bool = False
    vectors: int = 4

    @property
    def arrays(self) -> tuple[str, ...]:
        return ("float32", "float32")

    def body(self, machine: Machine, arrays: Sequence[Array]) -> None:
        span = Span(arrays, self.axis, self.length, self.steps, self.kept, machine.lanes, self.guarded)

        def emit(bases: list[Any], start: Any, strip: Strip) -> None:
            self.strip(span, bases, strip)

        sweep(machine, self.outer, span.run, self.vectors, span.depth, emit)

    def strip(self, span: Span, bases: list[Any], strip: Strip) -> None:
        lanes = span.lanes

        peaks = span.total(bases, strip, PEAK, lambda place: span.read(0, place))

        def term(place: Place) -> Any:
            value = Register(lanes)
            value.set(exp(lanes, span.read(0, place) - peaks[place.vector].get()))
            if not self.logarithm:
                span.write(value.get(), place)
            return value.get()

        sums = span.total(bases, strip, SUM, term, 2)
        for register in sums:
            value = register.get()
            register.set(tirx.log(value) if self.logarithm else splat(1.0, lanes) / value)

        def finish(place: Place) -> None:
            if self.logarithm:
                value = span.read(0, place) - peaks[place.vector].get() - sums[place.vector].get()
            else:
                value = span.read(-1, place) * sums[place.vector].get()
            if self.epilogue != RESULT:
                value = evaluate(self.epilogue, [named(value, lanes)], lanes)
            span.write(value, place)

        span.visit(bases, strip, span.chains(strip, 2), finish)
