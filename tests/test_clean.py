"""The pass `clean`: what it removes makes no difference, and it removes what was planted."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import ModelProto, helper, numpy_helper

import graphprune as gp
from graphprune.api import free_of
from graphprune.passes.clean import Clean


def _chain(padded: bool = False, bias: bool = False) -> tuple[ModelProto, dict[str, np.ndarray]]:
    """Conv -> Sigmoid -> Conv -> Relu -> Conv with random weights: 8 channels, then 6."""
    rng = np.random.default_rng(0)
    weights = {
        "first": rng.normal(size=(8, 3, 3, 3)),
        "first.bias": rng.normal(size=8),
        "second": rng.normal(size=(6, 8, 3, 3)),
        "last": rng.normal(size=(4, 6, 1, 1)),
    }
    if bias:
        weights["second.bias"] = rng.normal(size=6)
    names = ["second", "second.bias"] if bias else ["second"]
    nodes = [
        helper.make_node("Conv", ["x", "first", "first.bias"], ["a"], pads=[1] * 4),
        helper.make_node("Sigmoid", ["a"], ["b"]),
        helper.make_node("Conv", ["b", *names], ["c"], pads=[int(padded)] * 4),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("Conv", ["d", "last"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", 1, [1, 3, 9, 9])],
        [helper.make_tensor_value_info("y", 1, None)],
    )
    weights = {name: array.astype(np.float32) for name, array in weights.items()}
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), weights


def _model(proto: ModelProto, weights: dict[str, np.ndarray]) -> ir.Model:
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    return ir.from_proto(proto)


def _widths(result: gp.Result) -> dict[str, int]:
    return {cut.group: len(cut.keep) for cut in result.plan.groups if len(cut.keep) < cut.size}


def test_channels_that_nobody_reads_go() -> None:
    proto, weights = _chain()
    weights["second"][:, [1, 5]] = 0
    model = _model(proto, weights)
    result = gp.clean(model)
    assert _widths(result) == {"first:0": 6}
    assert gp.verify(model, result.model, result.plan).ok


def test_channels_that_are_always_zero_go_and_take_their_makers_along() -> None:
    proto, weights = _chain()
    weights["second"][2] = 0  # channel 2 of 6 is relu(0), and nothing else reads channel 7 of the first 8
    weights["second"][:2, 7] = weights["second"][3:, 7] = 0
    model = _model(proto, weights)
    result = gp.clean(model)
    assert _widths(result) == {"first:0": 7, "second:0": 5}
    assert gp.verify(model, result.model, result.plan).ok


def test_what_is_free_is_reported_apart_from_what_is_pruned() -> None:
    proto, weights = _chain()
    weights["first"][[0, 3]] = 0  # constant
    weights["second"][:, 5] = 0  # read by nobody
    model = _model(proto, weights)
    analysis = gp.analyze(model)
    assert free_of(analysis) == (3, 0)
    assert free_of(analysis, {analysis.groups[0].dim: np.array([1, 2, 3, 4, 6, 7])}) == (3, 2)
    report = gp.prune(model, ratio=0.5, verify=False).report
    assert report.free is not None and report.free[0] == 3
    assert "3 entries are dead or constant" in str(report)
    assert report.to_dict()["free"]["entries"] == 3


def test_nothing_is_free_where_every_channel_matters() -> None:
    model = _model(*_chain())
    assert free_of(gp.analyze(model)) == (0, 0)
    assert "dead or constant" not in str(gp.prune(model, ratio=0.5, verify=False).report)


@pytest.mark.parametrize("bias", [False, True])
def test_constants_move_into_the_bias_of_what_reads_them(bias: bool) -> None:
    proto, weights = _chain(bias=bias)
    weights["first"][[0, 3]] = 0  # both are sigmoid of their bias, whatever comes in
    model = _model(proto, weights)
    result = gp.clean(model)
    assert _widths(result) == {"first:0": 6}
    checks = gp.verify(model, result.model, result.plan)
    assert checks.ok and any(check.oracle == "same" for check in checks.checks)


def test_constants_that_meet_padding_stay() -> None:
    proto, weights = _chain(padded=True)
    weights["first"][[0, 3]] = 0
    assert not _widths(gp.clean(_model(proto, weights)))


def test_a_clean_model_is_left_alone() -> None:
    model = _model(*_chain())
    outcome = Clean().apply(model)
    assert outcome.model is model and not outcome.modified


def test_the_check_of_a_clean_model_can_fail() -> None:
    proto, weights = _chain()
    weights["second"][:, 1] = 0
    model = _model(proto, weights)
    result = gp.clean(model)
    bias = result.model.graph.initializers["first.bias"]
    bias.const_value = ir.tensor(bias.const_value.numpy() + np.float32(0.5), name="first.bias")
    assert not gp.verify(model, result.model, result.plan).ok
