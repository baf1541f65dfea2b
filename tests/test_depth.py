"""Residual blocks: which there are, which go, and that what is left computes what the dense network does without."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

import graphprune as gp
from graphprune.cli import main
from graphprune.cost import Costing
from graphprune.criteria.angular import Angular
from graphprune.criteria.block_influence import BlockInfluence, cosine
from graphprune.depth.apply import with_silent_blocks, without_blocks
from graphprune.depth.choose import choose
from graphprune.depth.residual import residuals
from graphprune.dialects import tools_of
from graphprune.errors import BudgetNotMet, GraphPruneError
from graphprune.passes import PASSES
from graphprune.pipeline import Pipeline
from graphprune.plan import Plan

Nodes = list[onnx.NodeProto]


def model(nodes: Nodes, tensors: dict[str, np.ndarray], outputs: dict[str, Any]) -> ir.Model:
    """A network of tokens ``x [n, 5, 8]``."""
    graph = helper.make_graph(
        nodes,
        "depth",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", 5, 8))],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in tensors.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return ir.from_proto(onnx.shape_inference.infer_shapes(made))


def block(name: str, given: str, made: str) -> Nodes:
    """``made = given + down(relu(up(given)))``."""
    return [
        helper.make_node("MatMul", [given, f"{name}.up"], [f"{name}.a"]),
        helper.make_node("Relu", [f"{name}.a"], [f"{name}.b"]),
        helper.make_node("MatMul", [f"{name}.b", f"{name}.down"], [f"{name}.c"]),
        helper.make_node("Add", [given, f"{name}.c"], [made]),
    ]


def weights(*names: str, scale: float = 0.3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(len(names))
    shapes = {f"{name}.{end}": shape for name in names for end, shape in (("up", (8, 16)), ("down", (16, 8)))}
    return {name: scale * rng.standard_normal(shape) for name, shape in shapes.items()}


def chain(*silent: str, count: int = 4) -> ir.Model:
    """Blocks one after the other, then a head; the branches of some add nothing."""
    names = [f"b{k}" for k in range(count)]
    tensors = weights(*names)
    tensors.update({f"{name}.down": np.zeros((16, 8)) for name in silent})
    nodes: Nodes = []
    for k, name in enumerate(names):
        nodes += block(name, f"h{k}" if k else "x", f"h{k + 1}")
    nodes.append(helper.make_node("MatMul", [f"h{count}", "head"], ["y"]))
    tensors["head"] = np.random.default_rng(9).standard_normal((8, 3))
    return model(nodes, tensors, {"y": ("n", 5, 3)})


def data(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((6, 5, 8)).astype(np.float32)


def run(made: ir.Model, *values: str) -> list[np.ndarray]:
    if values:
        made = made.clone()
        known = {value.name: value for node in made.graph for value in node.outputs}
        made.graph.outputs[:] = [known[name] for name in values]
    return list(tools_of(made).runner(made)({"x": data(7)}))


def names(made: ir.Model) -> list[str]:
    return [each.name for each in residuals(gp.analyze(made))]


def prune(made: ir.Model, depth: int, **options: Any) -> gp.Result:
    return gp.prune(made, depth=depth, **{"calibration": data(), **options})


# What is a block


def test_sums_of_a_skip_and_a_branch_are_blocks() -> None:
    analysis = gp.analyze(chain())
    found = residuals(analysis)
    assert [(each.name, each.before.name) for each in found] == [("h1", "x"), ("h2", "h1"), ("h3", "h2"), ("h4", "h3")]
    assert [each.op for each in found[1].dropped] == ["MatMul", "Relu", "MatMul"]
    assert [each.cost(analysis, Costing(analysis, {"n": 1})) for each in found] == [(2 * 5 * 8 * 16, 2 * 8 * 16)] * 4


@pytest.mark.parametrize("turned", [False, True])
def test_the_order_of_the_operands_does_not_matter(turned: bool) -> None:
    nodes = block("b", "x", "y")
    if turned:
        nodes[-1].input[:] = nodes[-1].input[::-1]
    made = model(nodes, weights("b"), {"y": ("n", 5, 8)})
    assert names(made) == ["y"]
    assert np.array_equal(run(without_blocks(made, ["y"]))[0], data(7))


NO_BLOCK: dict[str, tuple[Nodes, dict[str, np.ndarray]]] = {
    "a shortcut with weights": (
        [*block("b", "x", "s")[:3], helper.make_node("MatMul", ["x", "w"], ["s"]),
         helper.make_node("Add", ["s", "b.c"], ["y"])],
        {**weights("b"), "w": np.eye(8)},
    ),
    "a branch without weights": (
        [helper.make_node("Mul", ["x", "x"], ["s"]), helper.make_node("Add", ["x", "s"], ["y"])], {},
    ),
    "a skip that is broadcast": (
        [helper.make_node("ReduceMean", ["x"], ["s"], keepdims=1), helper.make_node("MatMul", ["s", "w"], ["r"]),
         helper.make_node("Add", ["s", "r"], ["y"])],
        {"w": np.ones((1, 8))},
    ),
    "a branch of something else": (
        [helper.make_node("MatMul", ["x", "w"], ["s"]), helper.make_node("MatMul", ["x", "v"], ["r"]),
         helper.make_node("Add", ["s", "r"], ["y"])],
        {"w": np.eye(8), "v": np.ones((8, 8))},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", NO_BLOCK)
def test_other_sums_are_none(case: str) -> None:
    nodes, tensors = NO_BLOCK[case]
    assert names(model(nodes, tensors, {"y": None})) == []


def test_what_others_read_of_a_branch_stays() -> None:
    made = model(block("b", "x", "y"), weights("b"), {"y": None, "b.b": None})
    (found,) = residuals(gp.analyze(chain(count=1)))
    assert len(found.dropped) == 3
    assert names(made) == []  # the second product alone does not read the skip
    assert names(model(block("b", "x", "y"), weights("b"), {"y": None, "b.c": None})) == []


# What is left


@pytest.mark.parametrize("gone", [["h1"], ["h4"], ["h2", "h3"], ["h1", "h2", "h3", "h4"]])
def test_a_network_without_blocks_is_one_that_never_had_them(gone: list[str]) -> None:
    dense = chain()
    small = without_blocks(dense, gone)
    left = [k for k in range(4) if f"h{k + 1}" not in gone]
    assert {f"b{k}.up" for k in left} | {f"b{k}.down" for k in left} | {"head"} == set(small.graph.initializers)
    x = data(7)
    for k in left:
        up, down = (dense.graph.initializers[f"b{k}.{end}"].const_value.numpy() for end in ("up", "down"))
        x = x + np.maximum(x @ up, 0) @ down
    expected = x @ dense.graph.initializers["head"].const_value.numpy()
    np.testing.assert_allclose(run(small)[0], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(run(with_silent_blocks(dense, gone))[0], expected, rtol=1e-4, atol=1e-5)
    assert len(dense.graph) == 17, "the dense model is what it was"


def test_results_are_verified_reported_and_planned() -> None:
    dense = chain()
    result = prune(dense, 2)
    assert result.verification is not None and result.verification.ok
    assert {"interface", "permutation", "control", "mask"} == {each.oracle for each in result.verification.checks}
    assert result.report.pruned.parameters == result.report.dense.parameters - 2 * 256
    assert "2 residual blocks left out" in str(result.report)
    again = Plan.from_json(result.plan.to_json())
    assert again == result.plan and len(again.blocks) == 2
    assert again.costs["planned"]["parameters"] == result.report.pruned.parameters
    np.testing.assert_array_equal(run(gp.apply(dense, again))[0], run(result.model)[0])


def test_a_wrong_result_is_found() -> None:
    dense = chain()
    result = prune(dense, 1)
    other = next(name for name in ("h1", "h2") if name not in result.plan.blocks)
    checks = gp.verify(dense, result.model, replace(result.plan, blocks=(other,))).checks
    assert [each.oracle for each in checks if not each.ok] == ["mask"]


def test_widths_and_blocks_in_one_plan() -> None:
    dense = chain()
    plan = replace(gp.plan(dense, ratio=0.4), blocks=("h2",))
    small = gp.apply(dense, plan)
    assert gp.verify(dense, small, plan).ok
    assert small.graph.initializers["b0.up"].shape[1] < 16 and "b1.up" not in small.graph.initializers
    assert not gp.verify(dense, small, replace(plan, blocks=())).ok


def test_what_is_left_can_be_recovered() -> None:
    dense, held = chain(), {"x": data(5)}
    plain, better = prune(dense, 1), prune(dense, 1, recover="least_squares")
    assert plain.plan.blocks == better.plan.blocks
    wanted, first, second = (tools_of(each).runner(each)(held)[0] for each in (dense, plain.model, better.model))
    assert np.square(second - wanted).sum() < np.square(first - wanted).sum()


# Which go


def test_block_influence_by_hand() -> None:
    dense = chain()
    values = dict(zip(["h1", "h2", "h3", "h4"], run(dense, "h1", "h2", "h3", "h4"), strict=True)) | {"x": data(7)}
    influence = []
    for before, after in (("x", "h1"), ("h1", "h2"), ("h2", "h3"), ("h3", "h4")):
        a, b = values[before].reshape(-1, 8), values[after].reshape(-1, 8)
        influence.append(
            1 - np.mean([u @ v / np.linalg.norm(u) / np.linalg.norm(v) for u, v in zip(a, b, strict=True)])
        )
    analysis = gp.analyze(dense)
    found = choose(analysis, 4, calibration=gp.calibration(data(7), analysis)).scores
    np.testing.assert_allclose([found[f"h{k}"] for k in range(1, 5)], influence, rtol=1e-5)
    assert prune(dense, 1, calibration=data(7)).plan.blocks == (f"h{np.argmin(influence) + 1}",)


def test_a_block_that_adds_nothing_goes_first_and_changes_nothing() -> None:
    dense = chain("b2")
    result = prune(dense, 1)
    assert result.plan.blocks == ("h3",)
    assert result.plan.options["scores"]["h3"] <= 1e-6
    np.testing.assert_allclose(run(result.model)[0], run(dense)[0], atol=1e-5)


def test_a_run_that_adds_nothing_goes_first_by_angle() -> None:
    result = prune(chain("b1", "b2"), 2, depth_by="angular")
    assert result.plan.blocks == ("h2", "h3")
    (distance,) = result.plan.options["scores"].values()
    assert distance < 1e-3  # arccos turns a rounding of 1e-7 into its root


def test_blocks_of_a_unit_go_together() -> None:
    assert prune(chain("b2", "b3"), 1, depth_unit=2).plan.blocks == ("h3", "h4")
    found = prune(chain("b1", "b2"), 1, depth_unit=2).plan.blocks  # they are of two units
    assert found in {("h1", "h2"), ("h3", "h4")}


def test_random_blocks_follow_the_seed() -> None:
    drawn = {prune(chain(), 1, depth_by="random", calibration=None, seed=seed).plan.blocks for seed in range(8)}
    assert len(drawn) > 1
    assert prune(chain(), 1, depth_by="random", seed=3).plan == prune(chain(), 1, depth_by="random", seed=3).plan


def test_distances() -> None:
    a, b = np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]]), np.array([[-2.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    assert cosine(a, b).tolist() == [-1.0, 1.0, 0.0]
    assert BlockInfluence().distance(a, b).tolist() == [2.0, 0.0, 1.0]
    assert Angular().distance(a, b).tolist() == [1.0, 0.0, 0.5]


# What cannot be


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"depth": 5}, "GP301"),
        ({"depth": 2, "depth_unit": 3}, "GP301"),
        ({"depth": 0}, "GP107"),
        ({"depth": True}, "GP107"),
        ({"depth": 1, "depth_unit": 0}, "GP107"),
        ({"depth": 1, "steps": 2}, "GP107"),
        ({"depth": 1, "depth_by": "l1"}, "GP704"),
        ({"depth": 1, "depth_by": "blocks"}, "GP106"),
        ({"depth": 1, "calibration": None}, "GP704"),
        ({"depth": 1, "calibration": np.full((2, 5, 8), np.nan, np.float32)}, "GP703"),
        ({"macs": 0.5, "criterion": "angular"}, "GP704"),
    ],
)
def test_mistakes_are_told(options: dict[str, Any], code: str) -> None:
    with pytest.raises(GraphPruneError) as caught:
        gp.prune(chain(), **{"calibration": data(), **options})
    assert caught.value.code == code


def test_there_may_be_no_block() -> None:
    nodes, tensors = NO_BLOCK["a branch without weights"]
    with pytest.raises(BudgetNotMet) as caught:
        prune(model(nodes, tensors, {"y": None}), 1)
    assert caught.value.code == "GP302"


def test_plans_are_checked() -> None:
    plan = prune(chain(), 1).plan
    with pytest.raises(GraphPruneError, match="GP501"):
        gp.apply(chain(), replace(plan, blocks=("h9",)))
    for wrong in ("h1", [1], ["h1", "h1"]):
        with pytest.raises(GraphPruneError, match="GP502"):
            Plan.from_json(json.dumps({**json.loads(plan.to_json()), "blocks": wrong}))
    assert '"blocks"' not in gp.plan(chain(), ratio=0.3).to_json()


# The pass and the command


def test_the_pass_goes_together_with_others() -> None:
    result = Pipeline.from_text("depth{blocks=1},width{ratio=0.5}", PASSES).apply(chain())
    assert [step.modified for step in result.report] == [True, True]
    assert len(names(result.model)) == 3


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dense, small, array = (str(tmp_path / name) for name in ("dense.onnx", "small.onnx", "data.npy"))
    gp.save(chain("b1"), dense)
    np.save(array, data())
    assert main(["inspect", dense, "--json"]) == 0
    assert [each["name"] for each in json.loads(capsys.readouterr().out)["blocks"]] == ["h1", "h2", "h3", "h4"]
    assert main(["inspect", dense]) == 0
    assert "residual block" in capsys.readouterr().out
    assert main(["prune", dense, small, "--depth", "1", "--calibration", array]) == 0
    assert "1 residual block left out" in capsys.readouterr().out
    plan = str(tmp_path / "small.plan.json")
    assert Plan.load(plan).blocks == ("h2",)
    assert main(["apply", dense, plan, str(tmp_path / "again.onnx"), "-q"]) == 0
    assert (tmp_path / "again.onnx").read_bytes() == Path(small).read_bytes()
    assert main(["verify", dense, small, "--plan", plan]) == 0
    assert main(["plan", dense, "--depth", "2", "--depth-by", "random", "-o", plan]) == 0
    assert "2 residual blocks left out" in capsys.readouterr().out
    assert main(["prune", dense, small, "--depth", "1", "--max-drop", "1%", "--in-place"]) != 0
    assert "GP107" in capsys.readouterr().err
