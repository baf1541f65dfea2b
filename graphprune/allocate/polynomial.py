"""A cost as a function of the widths of groups, kept up to date while they change: what a step saves, at once.

Counting a whole network again for each of a million steps would take minutes. Counts are polynomials: the value of
every term is kept, and for every group the sum of the terms that are linear in its width, so that the saving of a step
is one product, and doing the step touches only the terms that the group stands in. In floating point: what a search
ends with is counted again exactly. Measured times are looked up step by step.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar, overload

import numpy as np

from graphprune.allocate.problem import CHANNELS, Problem
from graphprune.cost import LATENCY
from graphprune.program import Array

Share = TypeVar("Share", float, Array)


class Running(Protocol):
    """One cost at some widths."""

    @overload
    def saving(self, place: int, share: float) -> float: ...
    @overload
    def saving(self, place: int, share: Array) -> Array: ...
    def saving(self, place: int, share: float | Array) -> float | Array:
        """What the cost falls by when a group loses this share of its width; negative where it gains (share < 0)."""

    def cut(self, place: int, share: float) -> None:
        """Let a group lose this share of its width."""


class Polynomial:
    """One cost at some widths.

    terms:  the factor of every product of widths; a product names the places of groups, once for each power
    widths: by place
    """

    def __init__(self, terms: Mapping[tuple[int, ...], float], widths: Sequence[int]):
        self._values: list[float] = []
        self._powers: list[list[tuple[int, int]]] = []
        self._users: list[list[tuple[int, int]]] = [[] for _ in widths]
        self._linear = [0.0] * len(widths)
        for product, factor in terms.items():
            powers = list(Counter(product).items())
            for place, power in powers:
                self._users[place].append((len(self._values), power))
            self._powers.append(powers)
            self._values.append(factor * math.prod(widths[place] for place in product))
        for value, powers in zip(self._values, self._powers, strict=True):
            self._add_linear(powers, value)
        self._curved = [[(term, power) for term, power in users if power > 1] for users in self._users]

    def saving(self, place: int, share: Share) -> Share:
        """What the cost falls by when a group loses this share of its width; negative where it gains (share < 0)."""
        saved = share * self._linear[place]
        for term, power in self._curved[place]:
            saved = saved + self._values[term] * (1 - (1 - share) ** power)
        return saved

    def cut(self, place: int, share: float) -> None:
        """Let a group lose this share of its width."""
        rest = 1 - share
        for term, power in self._users[place]:
            old = self._values[term]
            self._values[term] = new = old * rest if power == 1 else old * rest**power
            self._add_linear(self._powers[term], new - old)

    def _add_linear(self, powers: list[tuple[int, int]], value: float) -> None:
        for place, power in powers:
            if power == 1:
                self._linear[place] += value


class Looked:
    """A cost that is looked up, and no polynomial: that of each step is asked for by itself."""

    def __init__(self, problem: Problem, measure: str, widths: Sequence[int]):
        self._problem, self._measure = problem, measure
        self._dims = [group.dim for group in problem.groups]
        self._widths = dict(zip(self._dims, widths, strict=True))

    @overload
    def saving(self, place: int, share: float) -> float: ...
    @overload
    def saving(self, place: int, share: Array) -> Array: ...
    def saving(self, place: int, share: float | Array) -> float | Array:
        """As of a polynomial."""
        if isinstance(share, np.ndarray):
            return np.array([self.saving(place, each) for each in share.tolist()])
        width = self._width(place, share)
        return -float(self._problem.change(self._measure, self._dims[place], width, self._widths))

    def cut(self, place: int, share: float) -> None:
        """As of a polynomial."""
        self._widths[self._dims[place]] = self._width(place, share)

    def _width(self, place: int, share: float) -> int:
        return round(self._widths[self._dims[place]] * (1 - share))


def running(problem: Problem, widths: Sequence[int]) -> dict[str, Running]:
    """The costs that have a limit, by measure, at these widths (by place)."""
    places = {group.dim: place for place, group in enumerate(problem.groups)}
    found: dict[str, Running] = {}
    for name in problem.limits:
        if name == CHANNELS:
            found[name] = Polynomial({(place,): 1.0 for place in places.values()}, widths)
        elif name == LATENCY:
            found[name] = Looked(problem, name, widths)
        else:
            found[name] = Polynomial(problem.costing.polynomial(name, places), widths)
    return found
