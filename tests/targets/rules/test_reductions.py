"""Reductions, softmax and norms over any axes, of tensors, maps and what is turned."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tvm")

from graphprune.targets.kernels.tir import Machine
from tests.execution import feeds
from tests.targets.network.harness import MACHINES, built, check, compare
from tests.targets.network.net import Net

REDUCTIONS = ["L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare"]
SHAPES = [
    (1,), (5,), (40,), (1, 1), (3, 7), (1, 33), (17, 1), (2, 3, 16), (2, 1, 5), (1, 4, 6, 5), (2, 3, 1, 17),
    (2, 8, 7, 7),
]  # fmt: skip
FROM = ["input", "Abs", "turned", "conv", "slice", "row"]


def made(net: Net, kind: str, shape: tuple[int, ...], seed: int) -> str:
    """A tensor as it may lie: the user's, one of ours, turned, cut out of a larger one, or a map with a border."""
    rank = len(shape)
    if kind == "turned":
        order = np.random.default_rng(seed).permutation(rank).tolist()
        x = net.op("Abs", net.input(*(shape[order.index(axis)] for axis in range(rank))))
        return net.op("Transpose", x, perm=order)
    if kind == "slice":
        wide = net.op("Abs", net.input(*shape[:-1], shape[-1] + 3))
        return net.op("Slice", wide, net.numbers(2), net.numbers(2 + shape[-1]), net.numbers(rank - 1))
    if kind == "conv" and rank == 4:
        return net.op(
            "Conv", net.input(*shape), net.weight(shape[1], shape[1], 3, 3), net.weight(shape[1]), pads=[1] * 4
        )
    if kind == "row":
        return net.op("Expand", net.op("Abs", net.input(*(1,) * (rank - 1), shape[-1])), net.numbers(*shape))
    x = net.input(*shape)
    return net.op("Abs", x) if kind != "input" else x


@settings(max_examples=70, deadline=None, derandomize=True)
@given(
    machine=st.sampled_from(MACHINES),
    kind=st.sampled_from(REDUCTIONS),
    shape=st.sampled_from(SHAPES),
    axes=st.sets(st.integers(0, 3)),
    keep=st.booleans(),
    given_by=st.sampled_from(FROM),
    behind=st.sampled_from([None, "Relu", "Sub"]),
    seed=st.integers(0, 9),
)
def test_reductions(
    machine: Machine, kind: str, shape: tuple[int, ...], axes: set[int], keep: bool, given_by: str,
    behind: str | None, seed: int,
) -> None:  # fmt: skip
    net = Net(opset=18, seed=seed)
    x = made(net, given_by, shape, seed)
    chosen = sorted(axis - len(shape) * (seed % 2) for axis in axes if axis < len(shape))
    attributes: dict[str, Any] = {"keepdims": int(keep), "noop_with_empty_axes": seed % 3 == 0}
    y = net.op(f"Reduce{kind}", x, *([net.numbers(*chosen)] if chosen else []), **attributes)
    if behind == "Sub" and keep:
        y = net.op("Sub", x, y)
    elif behind == "Relu":
        y = net.op("Relu", y)
    model = net.model(y)
    compare(built(model, machine), [feeds(model, seed=each) for each in (0, 1, 0)], 1e-4 if "Prod" in kind else 2e-5)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    machine=st.sampled_from(MACHINES),
    kind=st.sampled_from(["Softmax", "LogSoftmax"]),
    opset=st.sampled_from([11, 17]),
    shape=st.sampled_from(SHAPES),
    axis=st.integers(-4, 3),
    given_by=st.sampled_from(FROM),
    scale=st.sampled_from([1.0, 30.0]),
)
def test_softmax(
    machine: Machine, kind: str, opset: int, shape: tuple[int, ...], axis: int, given_by: str, scale: float
) -> None:
    net = Net(opset=opset)
    given_by = "Abs" if given_by == "slice" and opset < 10 else given_by
    x = net.op("Mul", made(net, given_by, shape, abs(axis)), net.constant(scale, "float32"))
    check(net.model(net.op(kind, x, axis=axis % len(shape) - (len(shape) if axis < 0 else 0))), machine)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    machine=st.sampled_from(MACHINES),
    kind=st.sampled_from(["Layer", "Layer", "RMS", "Instance", "Batch"]),
    shape=st.sampled_from([shape for shape in SHAPES if len(shape) > 1]),
    axis=st.integers(0, 3),
    given_by=st.sampled_from(FROM),
    bias=st.booleans(),
    shift=st.sampled_from([0.0, 100.0]),
    epsilon=st.sampled_from([None, 1e-3]),
    behind=st.sampled_from([None, "Relu"]),
)
def test_norms(
    machine: Machine, kind: str, shape: tuple[int, ...], axis: int, given_by: str, bias: bool, shift: float,
    epsilon: float | None, behind: str | None,
) -> None:  # fmt: skip
    if kind == "Instance" and len(shape) < 3:
        shape = (2, 4, 9)
    net = Net(opset={"RMS": 23}.get(kind, 17))
    x = net.op("Add", made(net, given_by, shape, axis), net.constant(shift, "float32"))
    attributes = {} if epsilon is None else {"epsilon": epsilon}
    channels = shape[1]
    if kind in {"Layer", "RMS"}:
        axis %= len(shape)
        factors = [factor(net, *shape[axis:]) for _ in range(1 + (bias and kind == "Layer"))]
        attributes["axis"] = axis - len(shape) * (axis % 2)
    else:
        factors = [factor(net, channels) for _ in range(4 if kind == "Batch" else 2)]
    y = net.op(f"{kind}Normalization", x, *factors, **attributes)
    model = net.model(net.op(behind, y) if behind else y)
    tolerance = 2e-5 if not shift else 1e-3  # of numbers around 100 five digits are left, here and there
    compare(built(model, machine), [feeds(model, seed=each) for each in (0, 1, 0)], tolerance)


def factor(net: Net, *shape: int) -> str:
    return net.constant(net.generator.uniform(0.5, 1.5, shape), "float32")


def test_a_norm_whose_factors_are_computed() -> None:
    """As in networks that are steered by another input."""
    net = Net()
    x, steer = net.op("Relu", net.input(2, 9, 12)), net.input(2, 24)
    one = net.constant(np.ones(12), "float32")
    y = net.op("LayerNormalization", x, one)
    scale, shift = net.ops("Split", net.op("Unsqueeze", steer, net.numbers(1)), net.numbers(12, 12), outputs=2, axis=2)
    y = net.op("Add", net.op("Mul", y, net.op("Add", scale, one)), shift)
    check(net.model(y))


def test_a_norm_whose_mean_is_used() -> None:
    net = Net()
    y, mean, deviation = net.ops(
        "LayerNormalization", net.op("Relu", net.input(3, 10)), net.weight(10), net.weight(10), outputs=3
    )
    model = net.model(y, mean, deviation)
    compare(built(model), [feeds(model)])


def test_a_norm_by_hand() -> None:
    """As exporters write it where the operator set has no norm."""
    net = Net()
    x = net.input(2, 5, 24)
    centred = net.op("Sub", x, net.op("ReduceMean", x, axes=[-1]))
    variance = net.op("ReduceMean", net.op("Pow", centred, net.constant(2.0, "float32")), axes=[-1])
    deviation = net.op("Sqrt", net.op("Add", variance, net.constant(1e-5, "float32")))
    y = net.op("Div", centred, deviation)
    check(net.model(net.op("Add", net.op("Mul", y, net.weight(24)), net.weight(24))))


@pytest.mark.parametrize("kind", ["ReduceMax", "ReduceMean", "ReduceLogSumExp", "Softmax", "LayerNormalization"])
def test_nan_and_inf(kind: str) -> None:
    """They reach the row that they are in, and no other."""
    net = Net()
    x = net.op("Abs", net.input(4, 37))
    others = [net.weight(37)] if kind == "LayerNormalization" else []
    model = net.model(net.op(kind, x, *others, **({"axes": [1]} if kind.startswith("Reduce") else {"axis": 1})))
    case = feeds(model)
    (array,) = case.values()
    array[0, :3] = [np.nan, 1, 2]
    array[2, 36] = np.inf
    compare(built(model), [case, feeds(model)])
