"""The oracles: what is right passes, and every comparison has a case in which it must fail."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

import graphprune as gp
from graphprune.dialects.onnx.reader import read
from graphprune.verify import difference, tolerance
from tests.models import CASES

EXAMPLE = "examples/super_resolution.onnx"


@pytest.fixture(scope="module")
def dense() -> ir.Model:
    return gp.load(EXAMPLE)


@pytest.fixture(scope="module")
def plan(dense: ir.Model) -> gp.Plan:
    return gp.plan(dense, macs=0.6)


def failed(verification: gp.Verification) -> set[str]:
    return {check.oracle for check in verification.checks if not check.ok}


def test_a_right_cut_passes_all_oracles(dense: ir.Model, plan: gp.Plan) -> None:
    verification = gp.verify(dense, gp.apply(dense, plan), plan)
    assert verification.ok
    assert {check.oracle for check in verification.checks} == {"interface", "permutation", "control", "mask"}


def test_a_tensor_out_of_step_is_noticed(dense: ir.Model, plan: gp.Plan) -> None:
    pruned = gp.apply(dense, plan)
    weight = pruned.graph.initializers["conv2.weight"]
    array = weight.const_value.numpy()
    weight.const_value = ir.tensor(np.ascontiguousarray(array[:, ::-1]), name=weight.name)
    assert failed(gp.verify(dense, pruned, plan)) == {"mask"}


def test_a_small_error_in_one_weight_is_noticed(dense: ir.Model, plan: gp.Plan) -> None:
    pruned = gp.apply(dense, plan)
    weight = pruned.graph.initializers["conv4.weight"]
    weight.const_value = ir.tensor(weight.const_value.numpy() * np.float32(1.001), name=weight.name)
    assert failed(gp.verify(dense, pruned, plan)) == {"mask"}


def test_a_plan_of_other_entries_is_noticed(dense: ir.Model, plan: gp.Plan) -> None:
    other = gp.plan(dense, macs=0.6, criterion="random", seed=7)
    assert failed(gp.verify(dense, gp.apply(dense, plan), other)) == {"mask"}


def test_a_changed_interface_is_noticed(dense: ir.Model, plan: gp.Plan) -> None:
    pruned = gp.apply(dense, plan)
    pruned.graph.outputs[0].name = "renamed"
    assert "interface" in failed(gp.verify(dense, pruned, plan))


def test_statistics_over_a_cut_axis_are_held_against_the_survivors() -> None:
    model = ir.from_proto(CASES["layer_norm_channels_last"].build())
    plan = gp.plan(model, ratio=0.4, criterion="random")
    verification = gp.verify(model, gp.apply(model, plan), plan)
    assert verification.ok and any(check.oracle == "slice" for check in verification.checks)


@pytest.mark.parametrize(
    ("expected", "found", "error"),
    [
        (np.array([1.0, 2.0]), np.array([1.0, 2.0]), 0.0),
        (np.array([1.0, 2.0]), np.array([1.0, 2.5]), 0.25),
        (np.array([1.0, np.nan]), np.array([1.0, np.nan]), 0.0),
        (np.array([1.0, np.nan]), np.array([1.0, 2.0]), np.inf),
        (np.array([1.0, np.inf]), np.array([1.0, -np.inf]), np.inf),
        (np.zeros(2), np.zeros(3), np.inf),
        (np.zeros(2), np.zeros(2, np.float32), np.inf),
        (np.array(["a"]), np.array(["b"]), np.inf),
        (np.array([1, 2]), np.array([1, 3]), 0.5),
        (np.zeros(0), np.zeros(0), 0.0),
    ],
)
def test_difference(expected: np.ndarray, found: np.ndarray, error: float) -> None:
    assert difference(expected, found) == error


def test_the_tolerance_grows_with_the_epsilon_of_the_type(dense: ir.Model) -> None:
    analysis = gp.analyze(dense)
    assert analysis.program.main.nodes and read(dense).main.nodes
    double, single, half = (tolerance(analysis, np.dtype(kind)) for kind in ("float64", "float32", "float16"))
    assert double < single < half < 0.01
    assert single == pytest.approx(double * np.finfo(np.float32).eps / np.finfo(np.float64).eps)
