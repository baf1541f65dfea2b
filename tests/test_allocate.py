"""Allocators, bounds and budgets: what must hold for every cut, and the cuts that can be told by hand."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import numpy as np
import pytest

from graphprune.allocate import ALLOCATORS
from graphprune.allocate.bounds import Bound, bounds, products, select
from graphprune.allocate.erk import ratios
from graphprune.allocate.isomorphic import structures
from graphprune.allocate.nested import Family, cut
from graphprune.allocate.problem import Problem
from graphprune.cost import MEASURES
from graphprune.criteria.transfer import score_groups
from graphprune.dims import Dim
from graphprune.errors import GraphPruneError
from graphprune.plan import make_plan
from tests.models import CASES
from tests.planning import analysed, case, concatenated, group, problem, two_layers

PRUNABLE = sorted(name for name in CASES if case(name).groups)
CLASSES: dict[str, Callable[[Problem], list[Hashable]]] = {
    "one": lambda asked: [0] * len(asked.groups),
    "each": lambda asked: list(range(len(asked.groups))),
    "structure": lambda asked: structures(asked.analysis, asked.groups),
}


def unused(asked: Problem, widths: Mapping[Dim, int]) -> list[str]:
    """The groups that could be one step wider with all budgets met."""
    return [
        each.name
        for each in asked.groups
        if widths[each.dim] < each.size
        and asked.holds({**widths, each.dim: min(each.size, widths[each.dim] + asked.bounds[each.dim].step)})
    ]


def test_what_is_unused_is_seen() -> None:
    asked = problem(analysed(two_layers()), {"macs": 0.5})
    assert unused(asked, asked.least) == ["first:1", "second:1"]


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("name", PRUNABLE)
def test_cuts_are_nested(name: str, classes: str) -> None:
    asked = problem(case(name), ratio=0.5)
    made = Family(asked, CLASSES[classes](asked))
    before = {each.dim: set(range(each.size)) for each in asked.groups}
    for share in made.steps:
        keep = asked.keep(made.widths(share))
        now = {each.dim: set(keep.get(each.dim, range(each.size))) for each in asked.groups}
        assert all(now[dim] <= before[dim] and now[dim] for dim in now)
        before = now
    assert {dim: len(kept) for dim, kept in before.items()} == asked.least


@pytest.mark.parametrize("allocator", ALLOCATORS.builtin)
@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("name", PRUNABLE)
def test_a_budget_is_met_and_used_up(name: str, measure: str, allocator: str) -> None:
    asked = problem(case(name), {measure: 0.7})
    if asked.holds(asked.least):
        widths = ALLOCATORS.load(allocator)(asked)
        asked.check(widths, allocator)
        assert unused(asked, widths) == []


@pytest.mark.parametrize("allocator", ALLOCATORS.builtin)
@pytest.mark.parametrize("limits", [{"align": 2}, {"max_ratio": 0.8, "min_width": 3}])
def test_all_budgets_are_met_within_bounds(allocator: str, limits: dict[str, Any]) -> None:
    fractions = {"macs": 0.6, "parameters": 0.8, "bytes": 0.5}
    asked = problem(case("shuffle_between_grouped"), fractions, **limits)
    widths = ALLOCATORS.load(allocator)(asked)
    asked.check(widths, allocator)
    assert unused(asked, widths) == []
    for measure, fraction in fractions.items():
        assert asked.costing.cost(measure, widths) <= fraction * asked.costing.cost(measure, {})


@pytest.mark.parametrize("allocator", ALLOCATORS.builtin)
def test_a_ratio_is_a_share_of_all_channels(allocator: str) -> None:
    asked = problem(analysed(two_layers()), ratio=0.5)
    assert sum(ALLOCATORS.load(allocator)(asked).values()) == 6


@pytest.mark.parametrize("allocator", ALLOCATORS.builtin)
@pytest.mark.parametrize("name", ["shuffle_between_grouped", "einsum_attention_and_mlp"])
def test_the_same_question_has_the_same_answer(name: str, allocator: str) -> None:
    first, second = (make_plan(case(name), macs=0.6, allocate=allocator) for _ in range(2))
    assert first.to_json() == second.to_json()


@pytest.mark.parametrize(
    ("widths", "says"), [({}, "None"), ({"first:1": 3}, "3"), ({"first:1": 8.0}, "8.0"), ({"first:1": 8}, "budget")]
)
def test_an_answer_of_an_allocator_is_checked(widths: dict[str, Any], says: str) -> None:
    analysis = analysed(two_layers())
    asked = problem(analysis, {"macs": 0.5}, align=2)
    given = {group(analysis, "second:1").dim: 4, **{group(analysis, name).dim: width for name, width in widths.items()}}
    with pytest.raises(GraphPruneError, match=f"GP111.*{says}"):
        asked.check(given, "mine")


def test_uniform_takes_the_same_share_of_all() -> None:
    asked = problem(analysed(two_layers()), ratio=0.5)
    assert list(ALLOCATORS.load("uniform")(asked).values()) == [4, 2]


def test_the_lowest_scores_go_first() -> None:
    asked = problem(analysed(two_layers()), ratio=0.5)
    hidden = group(asked.analysis, "first:1")
    keep = asked.keep({**asked.full, hidden.dim: 4})
    assert keep[hidden.dim].tolist() == sorted(np.argsort(asked.scores[hidden.dim])[4:].tolist())


def test_global_compares_groups() -> None:
    analysis = analysed(two_layers())
    first, second = analysis.groups
    asked = problem(analysis, ratio=4 / 12, scores={first.dim: np.arange(8.0), second.dim: np.arange(4.0) + 100})
    assert cut(asked, [0, 0]) == {first.dim: 4, second.dim: 4}


def test_isomorphic_compares_what_has_the_same_structure() -> None:
    analysis = analysed(two_layers())
    classes = structures(analysis, analysis.groups)
    assert classes[0] != classes[1]  # one has a bias, the other has none
    assert structures(analysis, [analysis.groups[0]] * 2)[0] == classes[0]


def test_erk_keeps_small_layers_dense() -> None:
    analysis = analysed(two_layers())
    first, second = (group(analysis, name).dim for name in ("first:1", "second:1"))
    assert {dim: ratios(analysis)[dim] for dim in (first, second)} == {first: 11 / 24, second: 12 / 32}
    asked = problem(analysis, {"parameters": 0.5})
    widths = ALLOCATORS.load("erk")(asked)
    shares = {dim: widths[dim] / dim.size / ratios(analysis)[dim] for dim in (first, second)}
    assert shares[first] == pytest.approx(shares[second], abs=1 / 4 / (12 / 32))  # one entry of the smaller group
    assert (widths[first], widths[second]) == (5, 2)


def test_erk_caps_densities_at_one() -> None:
    analysis = analysed(two_layers())
    asked = problem(analysis, {"parameters": 0.95})
    assert ALLOCATORS.load("erk")(asked) == {group(analysis, "first:1").dim: 8, group(analysis, "second:1").dim: 3}


def test_lamp_is_the_global_ranking_of_lamp_scores() -> None:
    analysis = case("shuffle_between_grouped")
    asked = problem(analysis, {"macs": 0.6})
    normalized = problem(analysis, {"macs": 0.6}, scores=score_groups(analysis, analysis.groups, normalize="lamp"))
    assert ALLOCATORS.load("lamp")(asked) == ALLOCATORS.load("global")(normalized)
    assert ALLOCATORS.load("lamp")(asked) != ALLOCATORS.load("global")(asked)


def test_equal_scores_go_in_order() -> None:
    analysis = analysed(two_layers())
    scores = {each.dim: np.zeros(each.size) for each in analysis.groups}
    asked = problem(analysis, ratio=3 / 12, scores=scores, max_ratio=0.5)
    keep = asked.keep(cut(asked, [0, 0]))
    assert keep[analysis.groups[0].dim].tolist() == [3, 4, 5, 6, 7]
    assert analysis.groups[1].dim not in keep


@pytest.mark.parametrize(
    ("limits", "least", "step"),
    [
        ({}, 1, 1),
        ({"max_ratio": 0.25}, 6, 1),
        ({"min_width": 3}, 3, 1),
        ({"min_width": 30}, 8, 1),
        ({"align": 4}, 4, 4),
        ({"align": 3, "min_width": 4}, 6, 3),
        ({"align": 16}, 8, 8),
        ({"align": "auto"}, 1, 1),
        ({"max_ratio": 0.0}, 8, 1),
    ],
)
def test_bounds(limits: dict[str, object], least: int, step: int) -> None:
    analysis = analysed(two_layers())
    found = bounds(analysis, analysis.groups, **limits)  # type: ignore[arg-type]
    assert found[group(analysis, "first:1").dim] == Bound(least, step)


def test_parts_of_a_concatenation_are_aligned_as_the_whole_is() -> None:
    analysis = analysed(concatenated(6, 64, 2))
    found = bounds(analysis, analysis.groups, align="auto")
    assert [found[each.dim] for each in analysis.groups] == [Bound(4, 4), Bound(8, 8), Bound(2, 2)]


@pytest.mark.parametrize("name", PRUNABLE)
def test_aligned_axes_stay_aligned(name: str) -> None:
    asked = problem(case(name), ratio=0.5, align=2, max_ratio=0.8)
    made, costing = Family(asked, [0] * len(asked.groups)), asked.costing
    for share in made.steps:
        widths = made.widths(share)
        for factors in (product for _, axes in costing.stored() for axis in axes for product in products(axis)):
            full, width = costing.product(factors, {}), costing.product(factors, widths)
            assert width == full or width % 2 == 0 or full % 2 == 1


def test_patterns_choose() -> None:
    analysis = analysed(two_layers())
    chosen, left = select(analysis.groups, ignore=["first.b*"])
    assert [each.name for each in chosen] == ["second:1"]
    assert [each.code for each in left] == ["GP211"]
    chosen, _ = select(analysis.groups, only=["third"])
    assert [each.name for each in chosen] == ["second:1"]
    names = {m.tensor for each in analysis.groups for m in each.members}
    assert fnmatch.filter(sorted(names), "first*")


def test_a_name_with_brackets_is_a_name() -> None:
    analysis = analysed(two_layers())
    stored = analysis.program.stored[0]
    stored.name = "first[0]"
    chosen, _ = select(analysis.groups, only=["first[0]"])
    assert len(chosen) == 1


@pytest.mark.parametrize("option", ["ignore", "only"])
def test_a_pattern_that_matches_nothing_is_an_error(option: str) -> None:
    analysis = analysed(two_layers())
    with pytest.raises(GraphPruneError) as caught:
        select(analysis.groups, **{option: ["secnod"]})  # type: ignore[arg-type]
    assert caught.value.code == "GP106"
    assert "did you mean 'second'" in caught.value.remedy
