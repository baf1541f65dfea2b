"""Knapsack and integer program: against all combinations where costs are separable, and never worse than greedy."""

from __future__ import annotations

import ctypes
import itertools
import math
import os
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphprune.allocate import ALLOCATORS, knapsack, levels, milp
from graphprune.allocate.bounds import Bound
from graphprune.allocate.levels import Levels, levels_around
from graphprune.allocate.problem import Problem
from graphprune.allocate.silence import silence
from graphprune.analysis import Analysis
from graphprune.cost import MEASURES
from graphprune.errors import GraphPruneError
from tests.models import CASES
from tests.models.case import seeded
from tests.planning import analysed, case, problem

pytest.importorskip("scipy")

PRUNABLE = sorted(name for name in CASES if case(name).groups)
BUDGETS = {"macs": 0.55, "parameters": 0.6, "bytes": 0.65}


def branches() -> Analysis:
    """Three branches of 6, 7 and 8 hidden entries that cost 5, 7 and 11 each, and share nothing: separable costs."""
    return analysed(
        seeded("""
    branches (float[batch, 3] x, float[batch, 5] y, float[batch, 9] z) => (float[batch, 2] sum)
    <float[3, 6] a1, float[6, 2] a2, float[5, 7] b1, float[7] b0, float[7, 2] b2, float[9, 8] c1, float[8, 2] c2>
    {
        a = MatMul(x, a1)
        ar = Relu(a)
        ao = MatMul(ar, a2)
        b = Gemm(y, b1, b0)
        br = Relu(b)
        bo = MatMul(br, b2)
        c = MatMul(z, c1)
        cr = Relu(c)
        co = MatMul(cr, c2)
        ab = Add(ao, bo)
        sum = Add(ab, co)
    }""")
    )


SEPARABLE = branches()


def asked_of(seed: int, fractions: Mapping[str, float], **limits: Any) -> Problem:
    random = np.random.default_rng(seed)
    scores = {each.dim: random.lognormal(0.0, 1.0, each.size) for each in SEPARABLE.groups}
    return problem(SEPARABLE, fractions, scores=scores, **limits)


def least_loss(asked: Problem) -> float:
    """The least loss of all combinations of widths that bounds and budgets allow."""
    choices = [
        [width for width in range(1, each.size + 1) if asked.bounds[each.dim].allows(each.size, width)]
        for each in asked.groups
    ]
    cuts = (dict(zip(asked.full, widths, strict=True)) for widths in itertools.product(*choices))
    return min(asked.loss(widths) for widths in cuts if asked.holds(widths))


@given(st.integers(0, 2**32 - 1), st.floats(0.2, 1.0), st.sampled_from([1, 2, 3]))
@settings(deadline=None, max_examples=40)
@pytest.mark.parametrize("allocator", ["knapsack", "milp"])
def test_the_best_of_all_is_found_for_one_budget(allocator: str, seed: int, share: float, align: int) -> None:
    asked = asked_of(seed, {"macs": share}, align=align)
    if asked.holds(asked.least):
        widths = ALLOCATORS.load(allocator)(asked)
        asked.check(widths, allocator)
        assert asked.loss(widths) == pytest.approx(least_loss(asked), rel=1e-5)


@given(st.integers(0, 2**32 - 1), st.floats(0.3, 1.0), st.floats(0.3, 1.0))
@settings(deadline=None, max_examples=40)
def test_the_best_of_all_is_found_for_several_budgets(seed: int, macs: float, parameters: float) -> None:
    asked = asked_of(seed, {"macs": macs, "parameters": parameters, "bytes": 0.9})
    widths = ALLOCATORS.load("milp")(asked)
    asked.check(widths, "milp")
    assert asked.loss(widths) == pytest.approx(least_loss(asked), rel=1e-5)


def test_greedy_is_not_always_the_best() -> None:
    """Else the two tests above could not fail."""
    worse = [
        seed
        for seed in range(40)
        if (asked := asked_of(seed, {"macs": 0.6})).loss(ALLOCATORS.load("greedy")(asked)) > least_loss(asked) * 1.001
    ]
    assert worse


@pytest.mark.parametrize("allocator", ["knapsack", "milp"])
@pytest.mark.parametrize("name", PRUNABLE)
def test_never_worse_than_greedy(name: str, allocator: str) -> None:
    asked = problem(case(name), BUDGETS, align=2)
    if asked.holds(asked.least):
        widths = ALLOCATORS.load(allocator)(asked)
        asked.check(widths, allocator)
        assert asked.loss(widths) <= asked.loss(ALLOCATORS.load("greedy")(asked))


@pytest.mark.parametrize("name", PRUNABLE)
def test_levels_cost_what_the_count_says(name: str) -> None:
    asked = problem(case(name), BUDGETS)
    made = levels_around(asked, asked.full, 1.0)
    for measure in MEASURES:
        rounded = len(asked.analysis.program.stored) if measure == "bytes" else 0  # packed bits
        for place, group in enumerate(asked.groups):
            for width, loss, cost in zip(
                made.widths[place], made.losses[place], made.costs[measure][place], strict=True
            ):
                change = asked.change(measure, group.dim, int(width), asked.full)
                assert cost == pytest.approx(change, rel=1e-9, abs=1e-6 + rounded)
                assert loss == pytest.approx(math.fsum(np.sort(asked.scores[group.dim])[: group.size - width]))


def test_levels_are_few_and_hold_where_one_is() -> None:
    made = levels_around(asked_of(0, {"macs": 0.5}), {dim: 5 for dim in asked_of(0, {"macs": 0.5}).full}, 0.4)
    assert [width.tolist() for width in made.widths] == [[3, 4, 5, 6], [3, 4, 5, 6, 7], [2, 3, 4, 5, 6, 7, 8]]
    assert levels._choices(Bound(10, 1), 1000, 123, 1.0).tolist()[:3] == [10, 76, 123]
    assert len(levels._choices(Bound(10, 1), 1000, 123, 1.0)) == levels.MOST_LEVELS + 1


@pytest.mark.parametrize("choose", [knapsack.choose, milp.choose])
def test_a_choice_by_hand(choose: levels.Chooser) -> None:
    """Two groups, room for 3: giving up level 0 of the first (loss 5) costs 2, of the second (loss 4) costs 1 or 3."""
    widths = [np.array([1, 2]), np.array([1, 2, 3])]
    losses = [np.array([5.0, 0.0]), np.array([9.0, 4.0, 0.0])]
    given = Levels(widths, losses, {"macs": [np.array([0.0, 2.0]), np.array([0.0, 1.0, 3.0])]}, {"macs": 3.0})
    assert choose(given) == [1, 1]
    apart = {name: given.costs["macs"] for name in ("macs", "parameters")}
    assert choose(Levels(widths, losses, apart, {"macs": 9.0, "parameters": 3.0})) == [1, 1]
    assert choose(Levels(widths, losses, apart, {"macs": 9.0, "parameters": 9.0})) == [1, 2]


def test_rounded_cells_stay_close(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = asked_of(3, {"macs": 0.5})
    exact = asked.loss(ALLOCATORS.load("knapsack")(asked))
    monkeypatch.setattr(knapsack, "CELLS", 10)
    widths = ALLOCATORS.load("knapsack")(asked)
    asked.check(widths, "knapsack")
    assert exact <= asked.loss(widths) <= asked.loss(ALLOCATORS.load("greedy")(asked))


def test_nothing_is_printed_from_c(capfd: pytest.CaptureFixture[str]) -> None:
    library = ctypes.CDLL(None)
    library.printf(b"seen\n")
    with silence():
        library.printf(b"from C\n")
        os.write(1, b"from anywhere\n")
    library.fflush(None)
    assert capfd.readouterr().out == "seen\n"


def test_milp_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(GraphPruneError, match=r"GP108.*SciPy") as caught:
        ALLOCATORS.load("milp")(asked_of(0, {"macs": 0.5}))
    assert caught.value.remedy == "pip install 'graphprune[solve]'"
