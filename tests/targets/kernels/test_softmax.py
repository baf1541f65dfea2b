"""Softmax against numpy in float64, and against onnxruntime where the numbers are odd."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

pytest.importorskip("tvm")

from graphprune.targets.kernels.functions import RESULT, Apply, Expression, Number
from graphprune.targets.kernels.softmax import Softmax
from graphprune.targets.kernels.tir import Machine
from tests.targets.kernels import harness


def reference(s: np.ndarray, axis: tuple[int, ...], logarithm: bool) -> Any:
    with np.errstate(all="ignore"):
        s = s - s.max(axis, keepdims=True)
        total = np.exp(s).sum(axis, keepdims=True)
        return s - np.log(total) if logarithm else np.exp(s) / total


def onnx(operator: str, x: np.ndarray, axis: int) -> Any:
    graph = helper.make_graph(
        [helper.make_node(operator, ["x"], ["y"], axis=axis)],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    machine=st.sampled_from(harness.MACHINES),
    outer=st.integers(1, 3),
    rows=st.sampled_from([1, 2, 3, 7, 8, 9, 33]),
    length=st.sampled_from([1, 2, 5, 15, 16, 17, 49, 64, 65, 100]),
    vectors=st.sampled_from([1, 2, 4]),
    kept=st.booleans(),
    guarded=st.booleans(),
    logarithm=st.booleans(),
    epilogue=st.sampled_from([RESULT, Apply("where", (Apply("less", (Number(0.1), RESULT)), Number(0.0), RESULT))]),
    seed=st.integers(0, 99),
)
def test_rows_and_runs(
    machine: Machine, outer: int, rows: int, length: int, vectors: int, kept: bool, guarded: bool,
    logarithm: bool, epilogue: Expression, seed: int,
) -> None:  # fmt: skip
    generator = np.random.default_rng(seed)
    x = (8 * generator.standard_normal((outer, rows, length))).astype(np.float32)
    wide = harness.padded(x, guarded)
    pitch = wide.shape[-1]
    scores = x.astype(np.float64)
    kernel = Softmax(
        length,
        kept,
        (1, 1),
        axis=((rows, (pitch, pitch)),),
        outer=((outer, (rows * pitch, rows * pitch)),),
        logarithm=logarithm,
        epilogue=epilogue,
        guarded=guarded,
        vectors=vectors,
    )
    found = harness.run(kernel, machine, wide, np.zeros_like(wide))[..., :length]
    wanted = reference(scores, (1,) if kept else (1, 2), logarithm)
    # exp is within 3e-7, a sum rounds once for each of its numbers in a lane, and scores round too
    size = np.abs(np.where(np.isfinite(scores), scores, 0)).max() + 1
    relative = 1e-6 + 2.0**-23 * (rows * length + 2 * size)
    bound = relative * (1 + np.abs(wanted)) if logarithm else relative * wanted + 1e-37
    if epilogue != RESULT:  # which side of the step a number is on is open where it is near it
        near = np.abs(wanted - 0.1) <= bound
        wanted, found = np.where(wanted > 0.1, 0.0, wanted), np.where(near, 0.0, found)
        wanted = np.where(near, 0.0, wanted)
    harness.close(found, wanted, bound)


@pytest.mark.parametrize("machine", harness.MACHINES, ids=str)
@pytest.mark.parametrize("operator", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("kept", [True, False])
def test_odd_numbers_are_as_in_onnxruntime(machine: Machine, operator: str, kept: bool) -> None:
    count = 21
    x = np.zeros((8, count), np.float32)
    x[0] = -np.inf
    x[1, 1] = np.nan
    x[2, 20] = np.inf
    x[3, 1] = -np.inf
    x[4] = np.nan
    x[5] = np.inf
    x[6, 1] = -3e38
    x[7, :] = -3.4e38
    x[7, 20] = -np.inf
    wanted = onnx(operator, x, 1)
    shape = {"steps": (1, 1), "logarithm": operator == "LogSoftmax", "guarded": True}
    if kept:
        kernel = Softmax(8, True, axis=((count, (8, 8)),), **shape)
        found = harness.run(kernel, machine, np.ascontiguousarray(x.T), np.zeros((count, 8), np.float32)).T
    else:
        kernel = Softmax(count, False, outer=((8, (count, count)),), **shape)
        found = harness.run(kernel, machine, x, np.zeros_like(x))
    harness.close(found, wanted, 1e-6 * (1 + np.abs(np.where(np.isfinite(wanted), wanted, 0))))


@pytest.mark.parametrize("machine", harness.MACHINES, ids=str)
def test_heads_in_panels(machine: Machine) -> None:
    """Keys that lie in two panels are two loops of the axis; large scores do not overflow."""
    generator = np.random.default_rng(0)
    x = (100 * generator.standard_normal((2, 3, 5, 32))).astype(np.float32)  # panel, head, key, query
    kernel = Softmax(32, True, (1, 1), axis=((2, (480, 480)), (5, (32, 32))), outer=((3, (160, 160)),))
    found = harness.run(kernel, machine, x, np.zeros_like(x))
    harness.close(found, reference(x.astype(np.float64), (0, 2), False), 1e-6)
