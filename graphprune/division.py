"""One budget for two kinds of cuts: a few divisions of it are made and measured, and the best is taken.

What the one kind gets is a number: a share of the multiply-accumulates, or so many blocks; the other kind makes up for
the rest of the budget. Some numbers over the whole range are tried, and then those on both sides of the best.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from graphprune.errors import BudgetNotMet

STEPS = 4
"""Intervals of the first round."""


class Measured(Protocol):
    """A division that was tried: the relative error of the outputs, or why it cannot be."""

    @property
    def error(self) -> float: ...

    @property
    def failure(self) -> str: ...


P = TypeVar("P")
T = TypeVar("T", bound=Measured)


@dataclass(frozen=True)
class Division(Generic[T]):
    """The best trial, and all in their order."""

    best: T
    trials: tuple[T, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """What a report says of it."""
        return (f"of {len(self.trials)} ways to divide the budget: {self.best}",)


def best_division(
    points: Sequence[P],
    between: Callable[[P, P], P | None],
    attempt: Callable[[P], T],
    budget: str,
    tell: Callable[[str], None] | None = None,
) -> Division[T]:
    """The division of the least error; of equal ones the first.

    points:  from one end of the range to the other; between: what lies halfway between two, None where nothing does
    attempt: makes a division and measures it
    budget:  as an error says it
    tell:    is told about every trial
    Raises BudgetNotMet GP302 where no division meets the budget.
    """
    found: list[tuple[P, T]] = []

    def tried(point: P) -> None:
        found.append((point, attempt(point)))
        if tell is not None:
            tell(f"[{len(found)}] {found[-1][1]}")

    def best() -> tuple[P, T]:
        return min(found, key=lambda each: each[1].error)

    for point in points:
        tried(point)
    middle, first = best()
    place = list(points).index(middle)
    for beside in (place - 1, place + 1):
        more = between(middle, points[beside]) if 0 <= beside < len(points) and not first.failure else None
        if more is not None:
            tried(more)
    trials = tuple(each for _, each in found)
    _, least = best()
    if least.failure or not math.isfinite(least.error):
        where = "; ".join(dict.fromkeys(each.failure for each in trials if each.failure))
        raise BudgetNotMet("GP302", f"{budget} are reached in no way that was tried", where)
    return Division(least, trials)
