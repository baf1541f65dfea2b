"""Time as a budget: staircases, tables, plans by them, and what is told where a plan is missed. Nothing here is timed:
a stopwatch whose clock is moved by what it runs stands for a runtime."""

from __future__ import annotations

import itertools
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphprune as gp
from graphprune.allocate import ALLOCATORS, greedy
from graphprune.allocate.bounds import bounds
from graphprune.allocate.problem import Problem, limits_of
from graphprune.cost import LATENCY, Costing
from graphprune.errors import BudgetNotMet, GraphPruneError
from graphprune.latency.cost import NOISE, Latency, steps
from graphprune.latency.layers import coarser, shapes_of
from graphprune.latency.measure import CLOSE, Measurements
from graphprune.latency.outcome import missed
from graphprune.latency.stopwatch import Run, in_turns, several_in_turns, usual
from graphprune.latency.table import Table
from graphprune.report import Timing
from tests.models.case import seeded
from tests.planning import analysed, concatenated
from tests.stopwatch import Cost, Fake, smooth

MLP = """
    mlp (float[1, 8] x) => (float[1, 4] y)
    <float[8, 32] a, float[32, 48] b, float[48, 16] c, float[16, 4] d>
    {
        h = MatMul(x, a)
        hr = Relu(h)
        i = MatMul(hr, b)
        ir = Relu(i)
        j = MatMul(ir, c)
        jr = Relu(j)
        y = MatMul(jr, d)
    }"""

CONV = """
    conv (float[1, 3, 8, 8] x) => (float[1, 4, 8, 8] y)
    <float[16, 3, 3, 3] a, float[16, 1, 3, 3] b, float[4, 16, 1, 1] c>
    {
        h = Conv<pads = [1, 1, 1, 1]>(x, a)
        i = Conv<group = 16, pads = [1, 1, 1, 1]>(h, b)
        ir = Relu(i)
        y = Conv(ir, c)
    }"""


def model() -> ir.Model:
    return ir.from_proto(seeded(MLP))


def stairs(inputs: int, outputs: int) -> float:
    """Blocks of 16; and where they are not whole, slower than one more of them."""

    def blocks(width: int) -> int:
        return -(-width // 16) + (width > 16 and width % 16 > 0)

    return blocks(inputs) * blocks(outputs) * 1e-5


def asked(
    share: float, cost: Cost = smooth, align: int = 4, text: str = MLP, seed: int = 0
) -> tuple[Problem, Measurements]:
    """The problem of a budget of time on a fake machine."""
    analysis = analysed(seeded(text))
    groups, costing = analysis.groups, Costing(analysis, {})
    measured = Measurements(costing, groups, bounds(analysis, groups, align=align), Table(), stopwatch=Fake(cost))
    allowed = measured.bounds
    random = np.random.default_rng(seed)
    scores = {each.dim: random.lognormal(0.0, 1.0, each.size) for each in groups}
    limits = limits_of(costing, groups, allowed, {LATENCY: share}, 0.0)
    return Problem(analysis, groups, scores, allowed, costing, limits), measured


def choices(problem: Problem) -> list[list[int]]:
    return [
        [width for width in range(1, each.size + 1) if problem.bounds[each.dim].allows(each.size, width)]
        for each in problem.groups
    ]


# ---------------------------------------------------------------- staircases


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=12))
def test_steps_are_monotone_and_no_width_is_slower_than_a_larger_one(times: list[int]) -> None:
    made = steps(np.array(times)).tolist()
    assert made == sorted(made)
    for place, time in enumerate(made):
        right_most = max(k for k, each in enumerate(made) if each == time)
        assert all(times[right_most] <= wider for wider in times[right_most:]), (times, place)


def test_steps_by_hand() -> None:
    assert steps(np.array([40, 55, 50, 80, 99, 98, 100])).tolist() == [40, 50, 50, 80, 100, 100, 100]
    assert steps(np.array([100, 100 / (1 - NOISE) + 1])).tolist()[0] == 100  # beyond noise: it counts


@given(st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=30)
def test_times_on_a_grid_are_monotone_in_both_widths_and_between_points(seed: int) -> None:
    random = np.random.default_rng(seed)
    problem, _ = asked(0.5, lambda inputs, outputs: float(random.uniform(1e-6, 1e-4)))
    latency = problem.costing.latency
    assert isinstance(latency, Latency)
    widths = {each.dim: int(random.integers(1, each.size + 1)) for each in problem.groups}
    for group in problem.groups:
        along = [latency.cost({**widths, group.dim: width}) for width in range(1, group.size + 1)]
        assert along == sorted(along)


# ---------------------------------------------------------------- costs


@given(st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=20)
def test_the_prediction_is_the_sum_over_the_table(seed: int) -> None:
    random = np.random.default_rng(seed)
    problem, _ = asked(0.5)
    widths = {
        each.dim: int(random.choice(allowed)) for each, allowed in zip(problem.groups, choices(problem), strict=True)
    }
    a, b, c = (widths[each.dim] for each in problem.groups)
    table = sum(smooth(*shape) for shape in ((8, a), (a, b), (b, c), (c, 4)))
    assert problem.cost(LATENCY, widths) == pytest.approx(table * 1e12, rel=1e-3, abs=2e4)
    for group in problem.groups:
        changed = {**widths, group.dim: group.size}
        change = problem.change(LATENCY, group.dim, group.size, widths)
        assert problem.cost(LATENCY, changed) - problem.cost(LATENCY, widths) == change


def test_what_is_in_no_table_is_proportional_to_activations() -> None:
    analysis = analysed(seeded(MLP))
    groups, costing = analysis.groups, Costing(analysis, {})
    fake = Fake(overhead=1.5)
    latency = Measurements(costing, groups, bounds(analysis, groups, align=4), Table(), stopwatch=fake).latency
    layers = 1e12 * sum(smooth(*shape) for shape in ((8, 16), (16, 24), (24, 8), (8, 4)))
    beside = 0.5e12 * sum(smooth(*shape) for shape in ((8, 32), (32, 48), (48, 16), (16, 4)))
    half = {each.dim: each.size // 2 for each in groups}
    assert latency.cost({}) == latency.dense
    kept = (2 * (16 + 24 + 8) + 4) / (2 * (32 + 48 + 16) + 4)
    assert latency.cost(half) == pytest.approx(layers + beside * kept, rel=1e-3)


def test_a_depthwise_layer_has_one_side_and_its_numbers_follow() -> None:
    analysis = analysed(seeded(CONV))
    costing = Costing(analysis, {})
    allowed = coarser(analysis.groups, bounds(analysis, analysis.groups, align=4))
    shapes = shapes_of(costing, analysis.groups, allowed)
    assert [len(shape.sides) for shape in shapes] == [1, 1, 1]
    assert [str(layer) for layer in shapes[1].layers()] == [
        f"Conv-18 group={n} pads=[1, 1, 1, 1] float[1,{n},8,8] float[{n},1,3,3]" for n in (4, 8, 12, 16)
    ]


def test_a_concatenation_is_looked_at_at_more_widths_than_its_parts() -> None:
    analysis = analysed(concatenated(8, 16, 8))
    allowed = coarser(analysis.groups, bounds(analysis, analysis.groups, align="auto"))
    shapes = shapes_of(Costing(analysis, {}), analysis.groups, allowed)
    assert [shape.extents for shape in shapes] == [[[4, 8]], [[4, 8, 12, 16]], [[4, 8]], [[12, 16, 20, 24, 28, 32]]]


# ---------------------------------------------------------------- allocation


@pytest.mark.parametrize("allocator", ["knapsack", "milp"])
@pytest.mark.parametrize("cost", [smooth, stairs])
def test_the_best_of_all_is_found_where_layers_share_nothing(cost: Cost, allocator: str) -> None:
    """As HALP's check: the optimum of brute force. Branches, so that times are separable as its costs are."""
    pytest.importorskip("scipy")
    text = """
    branches (float[1, 8] x) => (float[1, 4] y)
    <float[8, 32] a, float[32, 4] b, float[8, 48] c, float[48, 4] d, float[8, 32] e, float[32, 4] f>
    {
        i = MatMul(x, a)
        j = MatMul(i, b)
        k = MatMul(x, c)
        l = MatMul(k, d)
        m = MatMul(x, e)
        n = MatMul(m, f)
        o = Add(j, l)
        y = Add(o, n)
    }"""
    for seed, share in itertools.product(range(4), (0.45, 0.6, 0.8)):
        problem, _ = asked(share, cost, text=text, seed=seed)
        every = (dict(zip(problem.full, widths, strict=True)) for widths in itertools.product(*choices(problem)))
        best = min(problem.loss(widths) for widths in every if problem.holds(widths))
        found = ALLOCATORS.load(allocator)(problem)
        problem.check(found, allocator)
        assert problem.loss(found) == pytest.approx(best, rel=1e-4)


@pytest.mark.parametrize("allocator", ["greedy", "knapsack"])
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.7, 0.8]))
@settings(deadline=None, max_examples=20)
def test_no_more_is_lost_than_with_the_same_share_of_every_group(allocator: str, seed: int, share: float) -> None:
    problem, _ = asked(share, stairs, seed=seed)
    uniform = ALLOCATORS.load("uniform")(problem)
    assert problem.loss(ALLOCATORS.load(allocator)(problem)) <= problem.loss(uniform)


def test_greedy_goes_down_a_staircase_as_far_as_is_cheapest() -> None:
    """Of one layer the next step saves little, and the one after it most; of the other all save the same, and more than
    that next one. Who looks no farther takes three steps of the other, and loses 24 entries in place of 16."""
    text = """
    branches (float[1, 8] x, float[1, 16] z) => (float[1, 4] y)
    <float[8, 64] a, float[64, 4] b, float[16, 48] c, float[48, 4] d>
    {
        i = MatMul(x, a)
        j = MatMul(i, b)
        k = MatMul(z, c)
        l = MatMul(k, d)
        y = Add(j, l)
    }"""

    def cliff(inputs: int, outputs: int) -> float:
        by_inputs = {8: {64: 10.0, 56: 9.0}.get(outputs, 3.0), 16: outputs * 10 / 48}
        return by_inputs.get(inputs, 0.01) * 1e-5

    problem, _ = asked(0.75, cliff, align=8, text=text)
    problem = replace(problem, scores={each.dim: np.ones(each.size) for each in problem.groups})
    widths = dict(problem.full)
    greedy.descend(problem, widths)
    assert list(widths.values()) == [48, 48]


@pytest.mark.parametrize("allocator", sorted(ALLOCATORS.builtin))
@pytest.mark.parametrize("share", [0.4, 0.5, 0.75])
def test_widths_are_right_most_points_of_a_planted_staircase(allocator: str, share: float) -> None:
    pytest.importorskip("scipy")
    problem, measured = asked(share, stairs)
    widths = ALLOCATORS.load(allocator)(problem)
    problem.check(widths, allocator)
    a, b, c = (widths[each.dim] for each in problem.groups)
    assert {a % 16, b % 16, c % 16} == {0}
    assert sum(stairs(*shape) for shape in ((8, a), (a, b), (b, c), (c, 4))) <= share * measured.table.picoseconds(
        next(key for key in measured.table.microseconds if key.startswith("network"))
    ) * 1e-12 * (1 + 1e-6)


def test_without_the_table_widths_are_between_steps() -> None:
    """Else the test above could not fail."""
    plan = gp.plan(model(), macs=0.5, align=4)
    assert any(len(cut.keep) % 16 for cut in plan.groups)


@given(st.integers(0, 2**32 - 1), st.floats(0.3, 0.9), st.sampled_from(["global", "uniform", "greedy", "knapsack"]))
@settings(deadline=None, max_examples=30)
def test_a_width_is_never_slower_than_a_larger_one(seed: int, share: float, allocator: str) -> None:
    """For any table: of each group alone, no larger width that the table has makes the layers faster together."""
    known: dict[tuple[int, int], float] = {}
    random = np.random.default_rng(seed)

    def cost(inputs: int, outputs: int) -> float:
        return known.setdefault((inputs, outputs), inputs * outputs * random.uniform(0.5, 1.5) * 1e-7)

    problem, _ = asked(share, cost, seed=seed)
    if not problem.holds(problem.least):
        return
    widths = ALLOCATORS.load(allocator)(problem)
    for group, allowed in zip(problem.groups, choices(problem), strict=True):
        for wider in (each for each in allowed if each > widths[group.dim]):
            assert problem.change(LATENCY, group.dim, wider, widths) > 0


# ---------------------------------------------------------------- plans


def test_a_plan_meets_the_budget_as_measured_where_layers_alone_say_too_little() -> None:
    """A network that takes twice what its layers do, at any width, and a plan that was held against it."""
    fake = Fake(overhead=2.0)
    result = gp.prune(model(), latency=0.6, latency_table=Table(), stopwatch=fake)
    assert result.report.timing is not None
    assert 1 / result.report.timing.speedup <= 0.6 * 1.05
    dense, planned = (result.plan.costs[name][LATENCY] for name in ("dense", "planned"))
    assert 1 / result.report.timing.speedup == pytest.approx(planned / dense, rel=0.03)
    assert result.plan.options["machine"] == "a fake"
    assert "GP305" not in str(result.report)
    assert "latency, planned" in str(result.report)


class Jumping(Fake):
    """Networks take more than their layers wherever a width is no multiple of 16, as where numbers are moved to another
    layout between two layers."""

    def network(self, model: ir.Model) -> Run:
        run, shapes = super().network(model), [each.shape.numpy() for each in model.graph.initializers.values()]  # type: ignore[union-attr]
        between = sum(shape[1] % 16 > 0 for shape in shapes[:-1]) * 2.5e-5

        def slower() -> None:
            run()
            self.now += between

        return slower


@pytest.mark.parametrize("share", [0.5, 0.6, 0.7, 0.8])
def test_a_plan_meets_the_budget_where_the_time_of_networks_jumps(share: float) -> None:
    """Predictions that are corrected by what was seen last go from one side of a jump to the other for ever."""
    plan = gp.plan(model(), latency=share, latency_table=Table(), stopwatch=Jumping())
    assert plan.costs["planned"][LATENCY] <= share * (1 + CLOSE) * plan.costs["dense"][LATENCY]


def test_without_a_run_of_the_network_such_a_budget_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the test above could not fail."""
    monkeypatch.setattr("graphprune.latency.measure.ROUNDS", 0)
    plans = [gp.plan(model(), latency=each / 10, latency_table=Table(), stopwatch=Jumping()) for each in (5, 6, 7, 8)]
    shares = [each.costs["planned"][LATENCY] / each.costs["dense"][LATENCY] for each in plans]
    assert any(found > 1.1 * each / 10 for found, each in zip(shares, (5, 6, 7, 8), strict=True))


def test_budgets_combine() -> None:
    plan = gp.plan(model(), latency=0.7, params=0.4, latency_table=Table(), stopwatch=Fake())
    assert plan.costs["planned"]["parameters"] <= 0.4 * plan.costs["dense"]["parameters"]
    assert plan.costs["planned"][LATENCY] <= 0.7 * plan.costs["dense"][LATENCY]


def test_a_budget_that_cannot_be_met() -> None:
    with pytest.raises(BudgetNotMet, match="latency") as error:
        gp.plan(model(), latency=0.001, latency_table=Table(), stopwatch=Fake())
    assert error.value.code == "GP301"


def test_steps_share_a_table() -> None:
    plan = gp.plan(model(), latency=0.5, steps=2, latency_table=Table(), stopwatch=Fake())
    assert plan.costs["planned"][LATENCY] <= 0.5 * plan.costs["dense"][LATENCY]


def test_a_sweep_goes_over_shares_of_time(tmp_path: Path) -> None:
    from graphprune.sweep import sweep

    batches = [{"x": np.full((1, 8), float(place), np.float32)} for place in range(4)]
    measuring = {"latency_table": Table(), "stopwatch": Fake()}
    found = sweep(model(), latency=[0.4, 0.8], calibration=batches, path=tmp_path / "sweep.json", **measuring)
    macs = {row.target: row.macs for row in found.rows if row.criterion == "l2"}
    assert macs[0.4] < macs[0.8] < 1


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"latency": 60}, "option latency"),
        ({"latency": 0.6, "threads": 0.5}, "threads"),
        ({"latency": 0.6, "depth": 1, "calibration": "noise"}, "option depth"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], where: str) -> None:
    with pytest.raises(GraphPruneError) as error:
        gp.plan(model(), **options, latency_table=Table(), stopwatch=Fake())
    assert error.value.code == "GP107"
    assert where in error.value.where


# ---------------------------------------------------------------- tables


def test_a_table_is_completed_and_then_says_all(tmp_path: Path) -> None:
    path, fake = tmp_path / "table.json", Fake()
    first = gp.plan(model(), latency=0.6, latency_table=path, stopwatch=fake)
    assert len(fake.asked) == len(set(fake.asked)) > 0
    content, asked_before = path.read_bytes(), len(fake.asked)
    second = gp.plan(model(), latency=0.6, latency_table=path, stopwatch=fake)
    assert (second.to_json(), path.read_bytes(), len(fake.asked)) == (first.to_json(), content, asked_before)
    Table.load(path).save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == content
    elsewhere = gp.plan(model(), latency=0.6, latency_table=path, stopwatch=Fake(machine="another"))
    assert elsewhere.to_json() == first.to_json()


def test_a_table_that_cannot_be_written_is_told_before_anything_is_measured(tmp_path: Path) -> None:
    fake = Fake()
    with pytest.raises(GraphPruneError, match="folder does not exist") as error:
        gp.plan(model(), latency=0.6, latency_table=tmp_path / "no" / "table.json", stopwatch=fake)
    assert (error.value.code, fake.asked, fake.now) == ("GP105", [], 0.0)


def test_times_of_two_machines_are_not_mixed(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    gp.plan(model(), latency=0.6, latency_table=path, stopwatch=Fake())
    found = json.loads(path.read_text())
    del found["microseconds"][next(key for key in found["microseconds"] if key.startswith("MatMul"))]
    path.write_text(json.dumps(found))
    with pytest.raises(GraphPruneError, match="this is another") as error:
        gp.plan(model(), latency=0.6, latency_table=path, stopwatch=Fake(machine="another"))
    assert error.value.code == "GP515"


GOOD: dict[str, Any] = {"schema": "graphprune.latencies", "version": 1, "machine": "m", "microseconds": {"a": 1.5}}


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("{", "GP514", "not JSON"),
        ("[]", "GP514", "schema"),
        (json.dumps({**GOOD, "schema": "graphprune.plan"}), "GP514", "schema"),
        (json.dumps({**GOOD, "version": "1"}), "GP514", "version"),
        (json.dumps({**GOOD, "version": 2}), "GP503", "version 2"),
        (json.dumps({**GOOD, "machine": None}), "GP514", "machine"),
        (json.dumps({**GOOD, "microseconds": [1]}), "GP514", "microseconds"),
        *(
            (json.dumps({**GOOD, "microseconds": {"a": bad}}), "GP514", "not a time")
            for bad in (0, -1, "1", True, 1e99)
        ),
        (json.dumps({**GOOD, "microseconds": {"a": float("nan")}}), "GP514", "not a time"),
        ('{"schema": "graphprune.latencies", "schema": 1}', "GP514", "twice"),
        ("\0" * 10, "GP514", "not JSON"),
    ],
)
def test_malformed_tables(text: str, code: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    path.write_text(text)
    with pytest.raises(GraphPruneError, match=says) as error:
        gp.plan(model(), latency=0.6, latency_table=path, stopwatch=Fake())
    assert error.value.code == code
    assert str(path) in error.value.where


@given(st.dictionaries(st.text(), st.floats(1e-8, 1e3), max_size=5), st.text())
@settings(deadline=None)
def test_a_table_comes_back_as_it_was(times: dict[str, float], machine: str) -> None:
    table = Table(machine)
    table.add(times)
    with tempfile.TemporaryDirectory() as folder:
        table.save(Path(folder, "t.json"))
        assert Table.load(Path(folder, "t.json")) == table


# ---------------------------------------------------------------- measuring


def test_in_turns_and_several() -> None:
    fake = Fake()

    def taking(seconds: float) -> Run:
        def run() -> None:
            fake.now += seconds

        return run

    timing = in_turns(taking(0.02), taking(0.01), 0.1, fake.clock)
    assert (timing.dense, timing.speedup) == (pytest.approx(0.02), pytest.approx(2.0))
    assert several_in_turns([taking(0.3), taking(0.1)], 0.0, fake.clock) == pytest.approx([0.3, 0.1])
    assert usual([1.0, 1.0, 1.0, 9.0]) == 1.0


@pytest.mark.parametrize(
    ("measured", "planned", "budget", "says"),
    [
        (0.60, 0.60, 0.60, ""),
        (0.62, 0.60, 0.60, ""),
        (1.10, 0.60, 0.60, "slower than the dense"),
        (0.75, 0.60, 0.80, "were planned"),
        (0.40, 0.60, 0.60, "were planned"),
        (0.64, 0.60, 0.60, "above the budget"),
    ],
)
def test_what_is_told_of_a_result(measured: float, planned: float, budget: float, says: str) -> None:
    timing = Timing(1.0, measured, 1 / measured, 0.99 / measured, 1 / measured, 0.01, 15)
    told = missed(timing, planned, budget)
    assert [says in line and "GP305" in line for line in told] == [True] * bool(says)


def test_a_result_that_is_slower_is_told() -> None:
    """A machine on which the table is right about layers, and the network is slower for being cut."""
    table, fake = Table(), Fake()
    gp.plan(model(), latency=0.6, latency_table=table, stopwatch=fake)
    backwards = Fake(lambda inputs, outputs: 1 / smooth(inputs, outputs) * 1e-9)
    result = gp.prune(model(), latency=0.6, latency_table=table, stopwatch=backwards)
    assert "GP305 slower than the dense network" in str(result.report)
