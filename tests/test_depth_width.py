"""Blocks and widths in one budget: what is tried, what is taken, and that one plan for the dense network says it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper

import graphprune as gp
from graphprune.cli import main
from graphprune.cost import measure
from graphprune.depth.divide import Competition, renamed
from graphprune.depth.residual import residuals
from graphprune.dialects import tools_of
from graphprune.division import best_division
from graphprune.errors import BudgetNotMet, GraphPruneError
from graphprune.fidelity import Fidelity
from graphprune.plan import Plan
from graphprune.sweep import split
from tests.recover.networks import data as images
from tests.recover.networks import residual
from tests.test_depth import chain, data, model, weights

BATCHES = [{"x": data(seed)} for seed in range(6)]


def prune(dense: Any, **options: Any) -> gp.Result:
    return gp.prune(dense, **{"calibration": BATCHES, "macs": 0.5, "depth": "auto", **options})


# The search


@dataclass(frozen=True)
class Tried:
    point: int
    error: float
    failure: str = ""


def halfway(a: int, b: int) -> int | None:
    return (a + b) // 2 if abs(a - b) > 1 else None


@pytest.mark.parametrize(
    ("least", "tried"), [(0, [0, 4, 8, 2]), (4, [0, 4, 8, 2, 6]), (6, [0, 4, 8, 2, 6]), (8, [0, 4, 8, 6])]
)
def test_both_sides_of_the_best_are_tried(least: int, tried: list[int]) -> None:
    told = list[str]()
    found = best_division([0, 4, 8], halfway, lambda each: Tried(each, abs(each - least + 0.1)), "it", told.append)
    assert [each.point for each in found.trials] == tried and len(told) == len(tried)
    assert found.best.error == min(each.error for each in found.trials)
    assert str(len(tried)) in found.notes[0]


def test_what_fails_is_not_taken() -> None:
    found = best_division([0, 1], halfway, lambda k: Tried(k, 0.5) if k else Tried(k, float("inf"), "GP301 no"), "it")
    assert found.best.point == 1
    with pytest.raises(BudgetNotMet, match=r"(?s)GP302 it are reached in no way.*GP301 no"):
        best_division([0, 1], halfway, lambda k: Tried(k, float("inf"), "GP301 no"), "it")
    with pytest.raises(BudgetNotMet, match="GP302"):
        best_division([0], halfway, lambda k: Tried(k, float("nan")), "it")


# What is made


@pytest.mark.parametrize(
    "options",
    [
        {}, {"recover": "least_squares", "criterion": "obs"}, {"depth_by": "angular"}, {"depth_unit": 2},
        {"macs": None, "params": 0.6}, {"macs": 0.6, "bytes": 0.7}, {"depth_by": "random", "seed": 3}, {"steps": 2},
    ],
    ids=str,
)  # fmt: skip
def test_the_best_of_what_was_tried_is_made(options: dict[str, Any]) -> None:
    told, dense = list[str](), chain("b1")
    result = prune(dense, tell=told.append, **options)
    assert result.verification is not None and result.verification.ok
    found = result.plan.options
    assert len(told) == len(found["tried"]) >= 3 and found["depth"] == "auto"
    assert result.report.notes[1] == found["divided"][0] and result.report.notes[2] == found["tried"][0]
    errors = {int(line.split()[1]): float(line.split("error ")[1]) for line in found["tried"] if "error" in line}
    assert errors[found["blocks"]] == min(errors.values())
    assert len(result.plan.blocks) == found["blocks"] * options.get("depth_unit", 1)
    before, after = (measure(gp.analyze(each), {}) for each in (dense, result.model))
    for name, share in {"macs": 0.5, **options}.items():
        if name in ("macs", "params", "bytes") and share is not None:
            cost = "parameters" if name == "params" else name
            assert getattr(after, cost) <= share * getattr(before, cost)
    assert Plan.from_json(result.plan.to_json()) == result.plan
    again = gp.apply(chain("b1"), result.plan)
    assert gp.verify(chain("b1"), again, result.plan).ok
    assert prune(chain("b1"), **options).plan == result.plan


def test_errors_are_those_of_the_held_out_data() -> None:
    """A number of blocks is what it is when that is asked for by itself."""
    dense = gp.analyze(chain())
    fit, judge = split(gp.calibration(BATCHES, dense))
    competition = Competition(dense, {"macs": 0.5}, {}, (), fit, judge, {})
    trial = competition.trial(1)
    alone = gp.prune(chain(), depth=1, macs=0.5, calibration=fit)
    assert alone.plan.blocks == trial.plan.blocks and alone.plan.groups == trial.plan.groups
    assert any(len(each.keep) < each.size for each in alone.plan.groups) and "tried" not in alone.plan.options
    fidelity = Fidelity(dense, judge.cases)
    assert trial.error == pytest.approx(fidelity.error(fidelity.outputs(alone.model)), rel=1e-6)
    other = Fidelity(dense, fit.cases)
    assert trial.error != pytest.approx(other.error(other.outputs(alone.model)), rel=1e-3)


def test_blocks_that_add_nothing_are_the_budget() -> None:
    result = prune(chain("b0", "b2"), macs=0.52)
    assert result.plan.blocks == ("h1", "h3")
    for case in BATCHES:
        dense, small = (tools_of(each).runner(each)(case)[0] for each in (chain("b0", "b2"), result.model))
        np.testing.assert_allclose(small, dense, atol=1e-5)


def test_widths_alone_where_every_block_counts() -> None:
    """Half of the hidden features of every block are dead, and no block is."""
    dense = chain()
    for name, stored in dense.graph.initializers.items():
        if name.endswith(".up"):
            array = np.array(stored.const_value.numpy())
            array[:, ::2] = 0
            stored.const_value = ir.tensor(array)
    result = prune(dense, macs=0.55)
    assert result.plan.blocks == () and result.plan.options["blocks"] == 0


def test_convolutions_with_recovery() -> None:
    plain = gp.prune(residual(), calibration=images(), macs=0.5, depth="auto", criterion="obs")
    better = gp.prune(
        residual(), calibration=images(), macs=0.5, depth="auto", criterion="obs", recover="gauss_newton", steps=2
    )
    fidelity = Fidelity(gp.analyze(residual()), images(3, seed=5))
    errors = [fidelity.error(fidelity.outputs(each.model)) for each in (plain, better)]
    assert errors[1] < errors[0]


# What cannot be


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"macs": None}, "GP107"), ({"macs": None, "ratio": 0.5}, "GP107"), ({"macs": 1.5}, "GP107"),
        ({"macs": True}, "GP107"), ({"depth": "some"}, "GP107"), ({"depth": 1.5}, "GP107"), ({"depth": 0}, "GP107"),
        ({"depth": 1, "ratio": 0.5, "macs": None}, "GP107"), ({"calibration": None}, "GP704"),
        ({"calibration": BATCHES[:1]}, "GP701"), ({"depth": 5}, "GP301"), ({"depth": 1, "macs": 0.001}, "GP301"),
        ({"macs": 0.001, "max_ratio": 0.1}, "GP302"), ({"depth_by": "l1"}, "GP704"), ({"recover": "magic"}, "GP106"),
        ({"depth": 1, "steps": 0}, "GP107"), ({"criterion": "taylor"}, "GP704"),
    ],
    ids=str,
)  # fmt: skip
def test_mistakes_are_told(options: dict[str, Any], code: str) -> None:
    with pytest.raises(GraphPruneError) as caught:
        prune(chain(), **options)
    assert caught.value.code == code


def test_there_may_be_no_block() -> None:
    nodes = [helper.make_node("MatMul", ["x", "b.up"], ["a"]), helper.make_node("MatMul", ["a", "b.down"], ["y"])]
    with pytest.raises(BudgetNotMet, match="GP302 there is no residual block"):
        prune(model(nodes, weights("b"), {"y": None}))


def test_a_group_that_only_the_smaller_network_has() -> None:
    dense = gp.analyze(chain())
    other = gp.analyze(model_of_other_names())
    plan = gp.plan(other, ratio=0.4)
    with pytest.raises(GraphPruneError, match="GP501"):
        renamed(other, dense, plan)
    same = renamed(gp.analyze(chain()), dense, gp.plan(chain(), ratio=0.4))
    assert same == gp.plan(chain(), ratio=0.4).groups
    whole = replace(plan, groups=tuple(replace(each, keep=tuple(range(each.size))) for each in plan.groups))
    assert renamed(other, dense, whole) == ()


def model_of_other_names() -> Any:
    nodes = [helper.make_node("MatMul", ["x", "c.up"], ["a"]), helper.make_node("MatMul", ["a", "c.down"], ["y"])]
    return model(nodes, weights("c"), {"y": None})


# The command


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dense, small, array = (str(tmp_path / name) for name in ("dense.onnx", "small.onnx", "data.npy"))
    gp.save(chain("b1"), dense)
    np.save(array, np.concatenate([each["x"] for each in BATCHES]))
    asked = ["--macs", "0.5", "--depth", "auto", "--calibration", array, "--batch", "6", "--recover", "least_squares"]
    assert main(["prune", dense, small, *asked]) == 0
    spoken = capsys.readouterr()
    assert "ways to divide the budget" in spoken.out and "tried: 0 left out" in spoken.out and "[1]" in spoken.err
    plan = str(tmp_path / "small.plan.json")
    assert Plan.load(plan).options["depth"] == "auto"
    assert main(["verify", dense, small, "--plan", plan]) == 0
    capsys.readouterr()
    assert main(["plan", dense, *asked[:8]]) == 0
    assert json.loads(capsys.readouterr().out)["options"]["tried"]
    for wrong in (["--depth", "auto"], ["--depth", "all", "--macs", "0.5"], ["--depth", "0"]):
        assert main(["prune", dense, str(tmp_path / "no.onnx"), *wrong, "--calibration", array]) != 0
        assert "GP107" in capsys.readouterr().err
    assert not (tmp_path / "no.onnx").exists()


def test_modules_become_their_graphs() -> None:
    torch = pytest.importorskip("torch")
    from tests.torch.test_depth import images as pictures
    from tests.torch.test_depth import net

    dense = net(before=True)
    batches = [pictures(seed) for seed in range(1, 6)]
    result = gp.prune(dense, pictures(), macs=0.4, depth="auto", calibration=batches, recover="least_squares")
    assert result.verification is not None and result.verification.ok
    assert result.report.pruned.macs <= 0.4 * result.report.dense.macs
    gone = len(result.plan.blocks)
    assert gone == result.plan.options["blocks"]
    assert len(residuals(gp.analyze(result.model, pictures()))) == len(residuals(gp.analyze(dense, pictures()))) - gone
    fixed = gp.prune(net(before=True), pictures(), macs=0.4, depth=1, calibration=batches)
    assert len(fixed.plan.blocks) == 1 and fixed.report.pruned.macs <= 0.4 * fixed.report.dense.macs
    with torch.no_grad():
        assert torch.isfinite(fixed.model(pictures())).all()
