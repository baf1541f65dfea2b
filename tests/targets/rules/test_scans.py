"""CumSum along each axis, in each direction, of views in pieces."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tvm")

from graphprune.targets.kernels.tir import Machine
from tests.execution import feeds
from tests.targets.network.harness import MACHINES, check
from tests.targets.network.net import Net


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    machine=st.sampled_from(MACHINES),
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    axis=st.integers(-3, 2),
    exclusive=st.integers(0, 1),
    reverse=st.integers(0, 1),
    dtype=st.sampled_from(["float32", "int32", "int64"]),
)
def test_sums(machine: Machine, shape: list[int], axis: int, exclusive: int, reverse: int, dtype: str) -> None:
    axis = max(-len(shape), min(axis, len(shape) - 1))
    net = Net()
    x = net.op("Transpose", net.input(*shape[::-1], dtype=dtype))
    y = net.op("CumSum", x, net.constant(axis, "int64"), exclusive=exclusive, reverse=reverse)
    check(net.model(y), machine)


def test_an_axis_in_pieces() -> None:
    net = Net()
    turned = net.op("Transpose", net.input(3, 4, 5), perm=[1, 0, 2])
    x = net.op("Reshape", turned, net.numbers(12, 5))
    check(net.model(net.op("CumSum", x, net.constant(0, "int32"))))


def test_other_types() -> None:
    net = Net()
    model = net.model(net.op("CumSum", net.input(3, 4, dtype="float64"), net.constant(1, "int64")))
    check(model, cases=[{"input1": np.arange(12.0).reshape(3, 4)}], fallbacks=["CumSum"])


def test_positions_of_tokens() -> None:
    """As RoBERTa numbers what is not padding."""
    net = Net()
    ids = net.input(2, 7, dtype="int64")
    there = net.op("Cast", net.op("Not", net.op("Equal", ids, net.constant(1, "int64"))), to=7)
    places = net.op("Mul", net.op("CumSum", there, net.constant(1, "int64")), there)
    model = net.model(net.op("Gather", net.weight(9, 16), places))
    case = feeds(model, seed=0)
    case[ids] = np.random.default_rng(0).integers(0, 3, (2, 7))
    check(model, cases=[case])
