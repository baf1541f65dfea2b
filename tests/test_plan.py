"""Plans: the same bytes for the same question, nothing believed that a file says, and options that are checked."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from graphprune.allocate import ALLOCATORS
from graphprune.errors import BudgetNotMet, GraphPruneError
from graphprune.plan import Cut, Plan, fingerprint, make_plan, named
from tests.models import CASES
from tests.models.case import seeded
from tests.planning import analysed, case, two_layers

PRUNABLE = sorted(name for name in CASES if case(name).groups)


@pytest.mark.parametrize("name", PRUNABLE)
def test_round_trip_and_same_bytes(name: str) -> None:
    first, second = (make_plan(case(name), ratio=0.5, criterion="random", seed=3) for _ in range(2))
    assert first.to_json() == second.to_json()
    assert Plan.from_json(first.to_json()) == first


def test_a_plan_can_be_read_by_people() -> None:
    plan = make_plan(analysed(two_layers()), ratio=0.5, allocate="uniform")
    lines = plan.to_json().splitlines()
    groups = [line for line in lines if '"group"' in line]
    assert len(groups) == 2
    assert all('"keep": [' in line for line in groups)
    assert "first:1: 8 -> 4" in str(plan)


def test_what_was_planned_is_what_remains() -> None:
    plan = make_plan(analysed(two_layers()), macs=0.5)
    assert plan.costs["planned"]["macs"] <= 0.5 * plan.costs["dense"]["macs"]
    assert {each["code"] for each in plan.left} >= {"GP202"}


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "small.plan.json"
    plan = make_plan(analysed(two_layers()), ratio=0.5)
    plan.save(path)
    assert Plan.load(path) == plan
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(GraphPruneError, match="GP502"):
        Plan.load(path)
    with pytest.raises(GraphPruneError, match="GP101"):
        Plan.load(tmp_path / "none.json")


def test_empty_keeps_everything() -> None:
    analysis = analysed(two_layers())
    plan = Plan.empty(analysis)
    assert plan.keep(analysis) == {}
    assert plan.costs["dense"] == plan.costs["planned"]


def test_a_plan_fits_another_checkpoint_and_no_other_network() -> None:
    model = two_layers()
    plan = make_plan(analysed(model), ratio=0.5)
    retrained = analysed(two_layers())
    assert {dim.size for dim in plan.keep(retrained)} == {dim.size for dim in plan.keep(analysed(model))}
    with pytest.raises(GraphPruneError, match="GP501"):
        plan.keep(case("shuffle_between_grouped"))
    edited = dataclasses.replace(plan, groups=(Cut("frist:1", 8, (0,)),))
    with pytest.raises(GraphPruneError) as caught:
        edited.keep(retrained)
    assert (caught.value.code, caught.value.remedy) == ("GP501", "did you mean 'first:1'?")
    with pytest.raises(GraphPruneError, match=r"GP501.*9 entries in the plan and 8"):
        dataclasses.replace(plan, groups=(Cut("first:1", 9, (0,)),)).keep(retrained)


def test_the_fingerprint_is_of_the_structure() -> None:
    assert fingerprint(analysed(two_layers())) == fingerprint(analysed(two_layers()))
    assert fingerprint(analysed(two_layers())) != fingerprint(case("shuffle_between_grouped"))


def test_groups_have_names_of_their_own() -> None:
    analysis = analysed(
        seeded("""
        shared (float[batch, 3] x) => (float[batch, 2] y)
        <float[6] bias, float[3, 6] first, float[6, 6] second, float[6, 2] third>
        {
            a = MatMul(x, first)
            b = Add(a, bias)
            c = MatMul(b, second)
            d = Add(c, bias)
            y = MatMul(d, third)
        }""")
    )
    assert len(analysis.groups) == 2
    assert len(named(analysis)) == 2
    plan = make_plan(analysis, ratio=0.5, allocate="uniform")
    assert [len(kept) for kept in Plan.from_json(plan.to_json()).keep(analysis).values()] == [3, 3]


def edited(**changes: Any) -> str:
    fields: dict[str, Any] = {
        "schema": "graphprune.plan",
        "version": 1,
        "groups": [{"group": "a:0", "size": 8, "keep": [0, [2, 4]]}],
        **changes,
    }
    return json.dumps({name: value for name, value in fields.items() if value is not ...})


def group_text(**changes: Any) -> str:
    return edited(groups=[{"group": "a:0", "size": 8, "keep": [0], **changes}])


def test_a_plan_written_by_hand() -> None:
    assert Plan.from_json(edited()).groups == (Cut("a:0", 8, (0, 2, 3, 4)),)


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("", "GP502", "not JSON"),
        ("[" * 100_000, "GP502", "not JSON"),
        ("[]", "GP502", "no schema"),
        (edited(schema="other"), "GP502", "no schema"),
        (edited(version=...), "GP502", "version None"),
        (edited(version=True), "GP502", "version True"),
        (edited(version=0), "GP502", "no version 0"),
        (edited(version=2), "GP503", "version 2"),
        (edited(goups=[]), "GP502", "no field 'goups'"),
        (edited(groups={}), "GP502", "not a list"),
        (edited(groups=[1]), "GP502", "groups[0]"),
        (edited(groups=[{"group": "a:0", "size": 8}]), "GP502", "groups[0]"),
        (group_text(group=1), "GP502", "not a text"),
        (group_text(size="8"), "GP502", "size '8'"),
        (group_text(size=10**30), "GP502", "size 1000"),
        (group_text(keep=[]), "GP502", "at least one"),
        (group_text(keep="0"), "GP502", "at least one"),
        (group_text(keep=[0.5]), "GP502", "0.5"),
        (group_text(keep=[True]), "GP502", "True"),
        (group_text(keep=[8]), "GP502", "within 0 to 7"),
        (group_text(keep=[-1]), "GP502", "within 0 to 7"),
        (group_text(keep=[[3, 1]]), "GP502", "within 0 to 7"),
        (group_text(keep=[[0, 10**9]]), "GP502", "within 0 to 7"),
        (group_text(keep=[[0, 1, 2]]), "GP502", "neither an index nor a range"),
        (group_text(keep=[3, 3]), "GP502", "does not come after 3"),
        (group_text(keep=[[0, 3], 2]), "GP502", "does not come after 3"),
        (edited(groups=[{"group": "a:0", "size": 2, "keep": [0]}] * 2), "GP502", "given twice"),
        ('{"schema": "graphprune.plan", "schema": 1}', "GP502", "given twice"),
        (edited(options=[]), "GP502", "options"),
        (edited(model={"name": 1}), "GP502", "model.name"),
        (edited(costs={"dense": {}}), "GP502", "costs"),
        (edited(left=[1]), "GP502", "left"),
    ],
)
def test_what_a_file_says_is_checked(text: str, code: str, says: str) -> None:
    with pytest.raises(GraphPruneError) as caught:
        Plan.from_json(text)
    assert caught.value.code == code
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        ({}, "GP107", "how far"),
        ({"ratio": 30}, "GP107", "write 0.3"),
        ({"ratio": 1.0}, "GP107", "from 0 to below 1"),
        ({"ratio": float("nan")}, "GP107", "a fraction in (0,1)"),
        ({"ratio": "0.3"}, "GP107", "option ratio"),
        ({"macs": 0}, "GP107", "option macs"),
        ({"macs": 60}, "GP107", "write 0.6"),
        ({"params": -0.1}, "GP107", "option params"),
        ({"macs": 0.5, "ratio": 0.5}, "GP107", "both"),
        ({"ratio": 0.5, "max_ratio": 1.5}, "GP107", "option max_ratio"),
        ({"ratio": 0.5, "min_width": 0}, "GP107", "option min_width"),
        ({"ratio": 0.5, "align": 2.5}, "GP107", "option align"),
        ({"ratio": 0.5, "align": "best"}, "GP107", "option align"),
        ({"ratio": 0.5, "seed": -1}, "GP107", "option seed"),
        ({"ratio": 0.5, "sizes": {"batch": 0}}, "GP107", "sizes['batch']"),
        ({"ratio": 0.5, "criterion": "l3"}, "GP106", "l1"),
        ({"ratio": 0.5, "allocate": "globl"}, "GP106", "did you mean 'global'"),
        ({"ratio": 0.5, "heads": "all"}, "GP106", "heads"),
        ({"ratio": 0.5, "ignore": ["*"]}, "GP302", "ignored or selected"),
    ],
)
def test_options_are_checked(options: dict[str, Any], code: str, says: str) -> None:
    with pytest.raises(GraphPruneError) as caught:
        make_plan(analysed(two_layers()), **options)
    assert caught.value.code == code
    assert says in str(caught.value)


def test_a_budget_that_cannot_be_met_says_what_limits_it() -> None:
    with pytest.raises(BudgetNotMet) as caught:
        make_plan(analysed(two_layers()), macs=0.1, max_ratio=0.5)
    assert caught.value.code == "GP301"
    assert "10.0% were asked for, 37.5% is the least possible" in str(caught.value)
    assert "first:1 (4 of 8 kept)" in str(caught.value)
    assert "third:1 (GP202 an axis of the graph output 'y', output y)" in str(caught.value)


def test_long_names_leave_room_for_the_reasons() -> None:
    model = two_layers()
    third = next(each for each in model.graph.initializer if each.name == "third")
    third.name = model.graph.node[-1].input[1] = "third" * 200
    with pytest.raises(BudgetNotMet) as caught:
        make_plan(analysed(model), macs=0.1, max_ratio=0.5)
    assert "first:1 (4 of 8 kept)" in str(caught.value)
    assert ":1 (GP202 an axis of the graph output 'y', output y)" in str(caught.value)


@pytest.mark.parametrize("allocate", ALLOCATORS.builtin)
def test_the_least_possible_is_at_the_bounds_whoever_allocates(allocate: str) -> None:
    with pytest.raises(BudgetNotMet, match=r"GP301.*37\.5% is the least possible"):
        make_plan(analysed(two_layers()), macs=0.3749, max_ratio=0.5, allocate=allocate)
    plan = make_plan(analysed(two_layers()), macs=0.375, max_ratio=0.5, allocate=allocate)
    assert [len(cut.keep) for cut in plan.groups] == [4, 2]


def test_groups_at_their_bound_are_listed() -> None:
    plan = make_plan(analysed(two_layers()), ratio=0.9, min_width=2)
    assert {(each["name"], each["code"]) for each in plan.left} >= {("first:1", "GP303"), ("second:1", "GP303")}
