"""Cutting in steps: scores of what is left, one plan for the dense network, and plans one after the other."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

import graphprune as gp
from graphprune.allocate import ALLOCATORS
from graphprune.analysis import Analysis
from graphprune.cli import main
from graphprune.errors import BudgetNotMet, GraphPruneError
from graphprune.fidelity import Fidelity
from graphprune.plan import Plan
from graphprune.program import Array
from tests.recover.networks import data, model, residual, stored


def same(a: ir.Model, b: ir.Model) -> bool:
    one, two = ({name: each.const_value.numpy() for name, each in m.graph.initializers.items()} for m in (a, b))
    return one.keys() == two.keys() and all(np.array_equal(one[name], two[name]) for name in one)


def kept(plan: Plan) -> dict[str, set[int]]:
    return {cut.group: set(cut.keep) for cut in plan.groups}


class Recorder:
    """L2 that remembers which networks it scored."""

    name = "recorder"

    def __init__(self) -> None:
        self.seen: list[dict[str, Array]] = []

    def score(self, analysis: Analysis, group: Any) -> Array:
        if not self.seen or group.name in self.seen[-1]:
            self.seen.append({})
        found = np.zeros(group.size)
        for member in group.members:
            weight = next((s for s in analysis.program.stored if s.name == member.tensor), None)
            if weight is not None and weight.read().ndim > 1:
                rows = np.moveaxis(weight.read(), member.axis, 0).reshape(group.size, -1)
                found += np.square(rows.astype(np.float64)).sum(axis=1)
        self.seen[-1][group.name] = found
        return found


@pytest.mark.parametrize("allocate", ALLOCATORS.builtin)
def test_every_allocator_meets_the_budget_with_one_plan(allocate: str) -> None:
    plan = gp.plan(residual(), macs=0.5, steps=3, allocate=allocate)
    assert plan.costs["planned"]["macs"] <= 0.5 * plan.costs["dense"]["macs"]
    assert (plan.options["steps"], plan.options["criterion"], plan.options["macs"]) == (3, "l2", 0.5)
    assert plan.options["normalize"] == "mean"


def test_the_plan_makes_the_same_model_from_the_dense_one() -> None:
    result = gp.prune(residual(), macs=0.5, steps=3, criterion="wanda", calibration=data(2))
    assert result.verification is not None and result.verification.ok
    assert same(result.model, gp.apply(residual(), Plan.from_json(result.plan.to_json())))


def test_steps_score_what_is_left_and_take_from_it() -> None:
    recorder = Recorder()
    analysis = gp.analyze(residual())
    plan = gp.plan(analysis, ratio=0.6, allocate="uniform", steps=3, criterion=recorder)
    sizes = [len(seen["a0:0"]) for seen in recorder.seen if "a0:0" in seen]
    assert sizes[-3:] == [12, 9, 7]  # 0.6 of 12 in three steps: a factor of 0.4 ** (1 / 3) each
    assert len(kept(plan)["a0:0"]) == 5
    # What a step scores is the cut network: the numbers of its tensors, not those of the dense one.
    small = gp.apply(analysis, gp.plan(analysis, ratio=1 - 0.4 ** (1 / 3), allocate="uniform", criterion=Recorder()))
    again = Recorder()
    gp.plan(small, ratio=0.1, criterion=again)
    assert np.allclose(again.seen[0]["a0:0"], recorder.seen[-2]["a0:0"])


def test_what_is_gone_stays_gone() -> None:
    """The kept sets of fewer steps of the same factor contain those of more."""
    analysis, factor = gp.analyze(residual()), 0.6
    plans = [gp.plan(analysis, ratio=1 - factor**k, allocate="uniform", steps=k, criterion="wanda", calibration=data(2))
             for k in (1, 2, 3)]  # fmt: skip
    for more, fewer in itertools.pairwise(plans):
        assert all(kept(fewer)[name] <= keep for name, keep in kept(more).items())
    assert kept(plans[1]) != kept(plans[2])


def test_two_channels_that_share_something_do_not_both_go() -> None:
    """Each of two equal channels can go alone, as the other takes over; scored once, they go together."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="first"),
        helper.make_node("MatMul", ["h", "v"], ["y"], name="second"),
    ]
    dense = model(nodes, [stored(rng, "w", 12, 8), stored(rng, "v", 8, 6)], ("n", 12))
    weight = dense.graph.initializers["w"].const_value.numpy().copy()
    weight[:, 1] = weight[:, 0] = 3 * weight[:, 0]  # large, and twice the same
    dense.graph.initializers["w"].const_value = ir.tensor(weight, name="w")
    inputs = [{"x": rng.standard_normal((64, 12)).astype(np.float32)} for _ in range(4)]
    fidelity = Fidelity(gp.analyze(dense), inputs)

    class Alone:
        """What the outputs lose without a channel, when the weights that stay are fitted anew."""

        name = "alone"

        def score(self, analysis: Analysis, group: Any) -> Array:
            one, two = (analysis.program.native.graph.initializers[name].const_value.numpy() for name in ("w", "v"))
            hidden = np.concatenate([each["x"] for each in inputs]) @ one
            found = []
            for entry in range(group.size):
                rest = np.delete(hidden, entry, axis=1)
                fit = np.linalg.lstsq(rest, hidden @ two, rcond=None)[0]
                found.append(np.square(rest @ fit - hidden @ two).sum())
            return np.asarray(found)

    def error(steps: int) -> float:
        options: dict[str, Any] = {"normalize": "none", "calibration": inputs, "recover": "least_squares"}
        result = gp.prune(dense, ratio=0.25, criterion=Alone(), steps=steps, **options)
        return fidelity.error(fidelity.outputs(result.model))

    assert error(3) < 0.9 * error(1)


def test_refitting_between_steps_is_what_is_scored() -> None:
    analysis = gp.analyze(residual())
    one, two = Recorder(), Recorder()
    gp.plan(analysis, macs=0.5, steps=2, criterion=one, calibration=data())
    plan = gp.plan(analysis, macs=0.5, steps=2, criterion=two, calibration=data(), refit="least_squares")
    assert np.allclose(one.seen[0]["a0:0"], two.seen[0]["a0:0"])
    assert not np.allclose(one.seen[-1]["a0:0"], two.seen[-1]["a0:0"])
    assert plan.options["refit"] == ["least_squares"]


def test_bounds_are_those_of_the_dense_network() -> None:
    plan = gp.plan(gp.analyze(residual()), ratio=0.8, steps=4, allocate="uniform", max_ratio=0.5, align=2)
    widths = {cut.group: len(cut.keep) for cut in plan.groups}
    assert widths["a0:0"] == widths["a1:0"] == 6


def test_two_plans_one_after_the_other_are_one() -> None:
    dense = residual()
    first = gp.plan(dense, ratio=0.3)
    small = gp.apply(dense, first)
    second = gp.plan(small, ratio=0.4, criterion="random")
    both = first.then(second)
    assert same(gp.apply(dense, both), gp.apply(small, second))
    assert both.costs["planned"] == second.costs["planned"] and both.costs["dense"] == first.costs["dense"]
    assert same(gp.apply(dense, first.then(Plan.empty(gp.analyze(small)))), small)
    with pytest.raises(GraphPruneError, match="GP501"):
        second.then(first)
    nodes = [helper.make_node("MatMul", ["x", "q"], ["h"]), helper.make_node("MatMul", ["h", "p"], ["y"])]
    rng = np.random.default_rng(0)
    other = gp.plan(model(nodes, [stored(rng, "q", 4, 8), stored(rng, "p", 8, 2)], ("n", 4)), ratio=0.5)
    with pytest.raises(GraphPruneError, match="knows no group"):
        first.then(other)


@pytest.mark.parametrize("steps", [0, -1, 1.5, True])
def test_steps_that_are_none(steps: Any) -> None:
    with pytest.raises(GraphPruneError, match="GP107"):
        gp.plan(residual(), macs=0.5, steps=steps)


def test_a_sweep_has_no_steps() -> None:
    from graphprune.sweep import sweep

    with pytest.raises(GraphPruneError, match="GP107"):
        sweep(residual(), macs=[0.5], calibration=data(2), steps=2)


def test_what_cannot_be_met_is_told_before_the_work() -> None:
    recorder = Recorder()
    with pytest.raises(BudgetNotMet, match="GP301"):
        gp.plan(residual(), macs=0.01, steps=5, criterion=recorder)
    assert len(recorder.seen) == 1
    with pytest.raises(GraphPruneError, match="GP704"):
        gp.prune(residual(), macs=0.5, steps=2, recover="least_squares")


def test_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx.save(ir.to_proto(residual()), tmp_path / "dense.onnx")
    np.savez(tmp_path / "data.npz", x=np.concatenate([case["x"] for case in data()]))
    monkeypatch.chdir(tmp_path)
    line = ["--macs", "0.5", "--criterion", "wanda", "--calibration", "data.npz", "--steps", "3"]
    assert main(["prune", "dense.onnx", "small.onnx", *line, "--recover", "least_squares", "-q"]) == 0
    plan = Plan.load("small.plan.json")
    assert plan.options["steps"] == 3 and plan.options["refit"] == ["least_squares"]
    assert main(["plan", "dense.onnx", *line, "-o", "other.json", "-q"]) == 0
    assert main(["apply", "dense.onnx", "other.json", "other.onnx", "-q"]) == 0
    assert main(["verify", "dense.onnx", "small.onnx", "-q"]) == 0


def test_options_that_do_not_exist_are_named() -> None:
    for cut in (gp.plan, gp.prune):
        with pytest.raises(GraphPruneError, match=r"GP106 there is no option 'mcas'[\s\S]*did you mean 'macs'"):
            cut(residual(), mcas=0.5)
