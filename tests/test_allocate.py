"""Rankings, bounds and budgets: what must hold for every cut, and the cuts that can be told by hand."""

from __future__ import annotations

import fnmatch

import numpy as np
import pytest

from graphprune.allocate import RANKINGS
from graphprune.allocate.bounds import Bound, bounds, products, select
from graphprune.allocate.budget import Family, at_ratio, meet
from graphprune.analysis import Analysis
from graphprune.cost import MEASURES, Costing
from graphprune.criteria.transfer import score_groups
from graphprune.errors import GraphPruneError
from tests.models import CASES
from tests.planning import analysed, case, group, two_layers

PRUNABLE = sorted(name for name in CASES if case(name).groups)


def family(analysis: Analysis, ranking: str = "global", **limits: object) -> Family:
    scores = score_groups(analysis, analysis.groups)
    found = bounds(analysis, analysis.groups, **limits)  # type: ignore[arg-type]
    return Family(analysis.groups, scores, found, RANKINGS.load(ranking)(analysis, analysis.groups))


@pytest.mark.parametrize("ranking", RANKINGS.builtin)
@pytest.mark.parametrize("name", PRUNABLE)
def test_cuts_are_nested(name: str, ranking: str) -> None:
    analysis = case(name)
    made = family(analysis, ranking)
    before = {each.dim: set(range(each.size)) for each in analysis.groups}
    for share in made.steps:
        keep = made.keep(made.widths(share))
        now = {each.dim: set(keep.get(each.dim, range(each.size))) for each in analysis.groups}
        assert all(now[dim] <= before[dim] and now[dim] for dim in now)
        before = now


@pytest.mark.parametrize("ranking", RANKINGS.builtin)
@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("name", PRUNABLE)
def test_a_budget_that_is_met_is_used_up(name: str, measure: str, ranking: str) -> None:
    analysis = case(name)
    costing = Costing(analysis, {})
    made = family(analysis, ranking)
    found = meet(made, costing, {measure: 0.7})
    widths = {dim: len(kept) for dim, kept in found.keep.items()}
    limit = 0.7 * costing.cost(measure, {})
    assert found.met == (costing.cost(measure, widths) <= limit)
    if found.met:
        for dim, width in widths.items():
            assert costing.cost(measure, {**widths, dim: width + 1}) > limit
    else:
        assert widths == {d: w for d, w in made.widths(1.0).items() if w < d.size}


def test_all_budgets_are_met() -> None:
    analysis = case("shuffle_between_grouped")
    costing = Costing(analysis, {})
    found = meet(family(analysis), costing, {"macs": 0.6, "parameters": 0.8, "bytes": 0.5})
    widths = {dim: len(kept) for dim, kept in found.keep.items()}
    assert found.met
    for measure, fraction in (("macs", 0.6), ("parameters", 0.8), ("bytes", 0.5)):
        assert costing.cost(measure, widths) <= fraction * costing.cost(measure, {})


def test_uniform_takes_the_same_share_of_all() -> None:
    analysis = analysed(two_layers())
    keep = at_ratio(family(analysis, "uniform"), 0.5).keep
    assert [len(keep[each.dim]) for each in analysis.groups] == [4, 2]


def test_the_lowest_scores_go_first() -> None:
    analysis = analysed(two_layers())
    hidden = group(analysis, "first:1")
    keep = at_ratio(family(analysis, "uniform"), 0.5).keep[hidden.dim]
    scores = score_groups(analysis, [hidden])[hidden.dim]
    assert keep.tolist() == sorted(np.argsort(scores)[4:].tolist())


def test_global_compares_groups() -> None:
    analysis = analysed(two_layers())
    first, second = analysis.groups
    scores = {first.dim: np.arange(8.0), second.dim: np.arange(4.0) + 100}
    made = Family([first, second], scores, bounds(analysis, analysis.groups), [0, 0])
    assert made.widths(4 / 12) == {first.dim: 4, second.dim: 4}


def test_isomorphic_compares_what_has_the_same_structure() -> None:
    analysis = analysed(two_layers())
    classes = RANKINGS.load("isomorphic")(analysis, analysis.groups)
    assert classes[0] != classes[1]  # one has a bias, the other has none
    assert RANKINGS.load("isomorphic")(analysis, [analysis.groups[0]] * 2)[0] == classes[0]


def test_equal_scores_go_in_order() -> None:
    analysis = analysed(two_layers())
    scores = {each.dim: np.zeros(each.size) for each in analysis.groups}
    made = Family(analysis.groups, scores, bounds(analysis, analysis.groups, max_ratio=0.5), [0, 0])
    keep = at_ratio(made, 3 / 12).keep
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


@pytest.mark.parametrize("name", PRUNABLE)
def test_aligned_axes_stay_aligned(name: str) -> None:
    analysis = case(name)
    made = family(analysis, align=2, max_ratio=0.8)
    costing = Costing(analysis, {})
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
        select(analysis.groups, **{option: ["secnod"]})
    assert caught.value.code == "GP106"
    assert "did you mean 'second'" in caught.value.remedy
