"""Normalisation by what is known of the numbers themselves: layer, instance, group, RMS and L2 norm.

    layer: y = (x - mean) / sqrt(variance + epsilon) * scale + bias      mean and variance over rows r, or rows and run
    rms:   y = x / sqrt(mean of squares + epsilon) * scale + bias
    l2:    y = x / max(root of the sum of squares, epsilon) * scale + bias

The variance is taken in a second walk from numbers less the mean, and both are corrected by the mean of those (which is
what the first mean was rounded by): the error does not grow with |mean| / deviation, as x - mean is exact or nearly so
where the mean is large. (Chan, Golub, LeVeque, "Algorithms for Computing the Sample Variance", 1983.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx

from .functions import RESULT, Expression, evaluate, upper
from .loops import Loops, Strip, sweep
from .spans import SUM, Place, Span
from .tir import Array, Machine, Register, splat


@dataclass(frozen=True)
class Normalize:
    """The arrays are x, scale and bias (where there are), mask (where there is one), operands, y; every loop has a
    stride for each of them, so that scale and bias go with a reduced loop (layer norm) or a kept one (instance norm).

    `reduced` and `outer` are loops; the run is `length` numbers with strides `steps`, kept or reduced as well.
    `masked`, `count` and `guarded` are as for `Reduce`.
    """

    kind: str
    epsilon: float
    length: int
    kept: bool
    steps: tuple[int, ...]
    reduced: Loops = ()
    outer: Loops = ()
    scale: bool = True
    bias: bool = True
    count: int | None = None
    masked: bool = False
    guarded: bool = False
    epilogue: Expression = RESULT
    operands: int = 0
    vectors: int = 4

    @property
    def arrays(self) -> tuple[str, ...]:
        return ("float32",) * (2 + self.scale + self.bias + self.masked + self.operands)

    def body(self, machine: Machine, arrays: Sequence[Array]) -> None:
        mask = 1 + self.scale + self.bias if self.masked else None
        span = Span(arrays, self.reduced, self.length, self.steps, self.kept, machine.lanes, self.guarded, mask)

        def emit(bases: list[Any], start: Any, strip: Strip) -> None:
            self.strip(span, bases, strip)

        sweep(machine, self.outer, span.run, self.vectors, span.depth, emit)

    def strip(self, span: Span, bases: list[Any], strip: Strip) -> None:
        lanes = span.lanes
        means, factors, shifts = (
            self.layer(span, bases, strip) if self.kind == "layer" else self.size(span, bases, strip)
        )

        def finish(place: Place) -> None:
            v = place.vector
            value = span.read(0, place)
            if means:
                value = (value - means[v].get()) * factors[v].get() + shifts[v].get()
            else:
                value = value * factors[v].get()
            if self.scale:
                value = value * span.read(1, place)
            if self.bias:
                value = value + span.read(1 + self.scale, place)
            others = range(1 + self.scale + self.bias + self.masked, len(span.arrays) - 1)
            leaves = [value, *(span.read(index, place) for index in others)]
            span.write(evaluate(self.epilogue, leaves, lanes), place)

        span.visit(bases, strip, span.chains(strip, 2), finish)

    def layer(
        self, span: Span, bases: list[Any], strip: Strip
    ) -> tuple[list[Register], list[Register], list[Register]]:
        """The mean, the factor, and what the correction of the mean adds."""
        lanes = span.lanes
        part = splat(1.0 / (self.count or span.count), lanes)
        means = span.total(bases, strip, SUM, lambda place: span.read(0, place))
        for register in means:
            register.set(register.get() * part)

        def moments(place: Place) -> list[Any]:
            difference = Register(lanes)
            difference.set(span.read(0, place) - means[place.vector].get())
            return [difference.get(), difference.get() * difference.get()]

        firsts, seconds = span.totals(bases, strip, SUM, moments, 2)
        for one, two in zip(firsts, seconds, strict=True):
            one.set(one.get() * part)
            variance = upper(two.get() * part - one.get() * one.get(), splat(0.0, lanes))
            two.set(splat(1.0, lanes) / tirx.sqrt(variance + splat(self.epsilon, lanes)))
            one.set(splat(0.0, lanes) - one.get() * two.get())
        return means, seconds, firsts

    def size(self, span: Span, bases: list[Any], strip: Strip) -> tuple[list[Register], list[Register], list[Register]]:
        lanes = span.lanes

        def square(place: Place) -> Any:
            value = Register(lanes)
            value.set(span.read(0, place))
            return value.get() * value.get()

        factors = span.total(bases, strip, SUM, square)
        for register in factors:
            value = register.get()
            if self.kind == "rms":
                mean = value * splat(1.0 / (self.count or span.count), lanes)
                value = tirx.sqrt(mean + splat(self.epsilon, lanes))
            else:
                value = upper(tirx.sqrt(value), splat(self.epsilon, lanes))
            register.set(splat(1.0, lanes) / value)
        return [], factors, []
