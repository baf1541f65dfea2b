"""The greedy allocator against the same idea written down without a heap, a polynomial or a weight."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphprune.allocate import ALLOCATORS
from graphprune.allocate.greedy import descend
from graphprune.allocate.polynomial import running
from graphprune.allocate.problem import Problem
from graphprune.cost import MEASURES
from graphprune.dims import Dim
from tests.models import CASES
from tests.planning import analysed, case, group, problem, two_layers

PRUNABLE = sorted(name for name in CASES if case(name).groups)


def drawn(name: str, fractions: dict[str, float], **limits: Any) -> Problem:
    """The question for a hard case with scores that have no ties."""
    analysis = case(name)
    random = np.random.default_rng(0)
    scores = {each.dim: random.lognormal(0.0, 1.0, each.size) for each in analysis.groups}
    return problem(analysis, fractions, scores=scores, **limits)


def one_by_one(asked: Problem, measure: str) -> dict[Dim, int]:
    """At each step all groups are asked again what their next step costs and saves, by exact counts."""
    widths = dict(asked.full)
    while not asked.holds(widths):
        steps = []
        for place, each in enumerate(asked.groups):
            width = widths[each.dim]
            lower = asked.bounds[each.dim].below(width)
            saving = -asked.change(measure, each.dim, lower, widths)
            if saving > 0:
                losses = asked.losses[place]
                steps.append(((losses[each.size - lower] - losses[each.size - width]) / saving, place, lower))
        _, place, lower = min(steps)
        widths[asked.groups[place].dim] = lower
    return widths


@pytest.mark.parametrize("limits", [{}, {"align": 2}, {"min_width": 3, "max_ratio": 0.7}])
@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("name", PRUNABLE)
def test_steps_are_those_of_the_plain_way(name: str, measure: str, limits: dict[str, Any]) -> None:
    asked = drawn(name, {measure: 0.6}, **limits)
    if asked.holds(asked.least):
        widths = dict(asked.full)
        descend(asked, widths)
        assert widths == one_by_one(asked, measure)


@pytest.mark.parametrize("name", PRUNABLE)
def test_the_polynomial_saves_what_the_count_says(name: str) -> None:
    asked = drawn(name, dict.fromkeys(MEASURES, 0.5))
    random = np.random.default_rng(1)
    now = [each.size for each in asked.groups]
    costs = running(asked, now)
    for _ in range(20):
        place = int(random.integers(len(now)))
        dim, width = asked.groups[place].dim, int(random.integers(1, now[place] + 1))
        widths = {each.dim: size for each, size in zip(asked.groups, now, strict=True)}
        for measure, cost in costs.items():
            told = cost.saving(place, 1 - width / now[place])
            rounded = len(asked.analysis.program.stored) if measure == "bytes" else 0  # packed bits
            counted = -asked.change(measure, dim, width, widths)
            assert told == pytest.approx(counted, rel=1e-9, abs=1e-6 + rounded)
            cost.cut(place, 1 - width / now[place])
        now[place] = width


def test_several_budgets_weigh_what_each_is_off() -> None:
    asked = drawn("shuffle_between_grouped", {"macs": 0.6, "parameters": 0.4, "bytes": 0.9})
    widths = ALLOCATORS.load("greedy")(asked)
    asked.check(widths, "greedy")
    alone = ALLOCATORS.load("greedy")(drawn("shuffle_between_grouped", {"macs": 0.6}))
    assert asked.loss(widths) > asked.loss(dict(zip(asked.full, alone.values(), strict=True)))


def test_what_is_worth_less_than_nothing_goes_first() -> None:
    analysis = analysed(two_layers())
    first, second = (group(analysis, name).dim for name in ("first:1", "second:1"))
    scores = {first: np.array([1e-9] * 8), second: np.array([-2.0, 5.0, 5.0, -1.0])}
    asked = problem(analysis, {"macs": 0.55}, scores=scores)
    keep = asked.keep(ALLOCATORS.load("greedy")(asked))
    assert keep[second].tolist() == [1, 2]


def test_what_saves_nothing_is_left_alone() -> None:
    analysis = analysed(two_layers())
    asked = problem(analysis, {"macs": 1.0}, scores={each.dim: np.zeros(each.size) for each in analysis.groups})
    assert ALLOCATORS.load("greedy")(asked) == asked.full
