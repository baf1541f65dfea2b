"""Windows over one axis and large maxima."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tvm")

from graphprune.targets.kernels.tir import Machine
from tests.targets.network.harness import MACHINES, check
from tests.targets.network.net import Net


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    machine=st.sampled_from(MACHINES),
    batch=st.integers(1, 2),
    groups=st.sampled_from([1, 2, 4]),
    length=st.sampled_from([1, 7, 16, 33]),
    kernel=st.integers(1, 5),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    pads=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    bias=st.booleans(),
    seed=st.integers(0, 99),
)
def test_convolutions_over_one_axis(
    machine: Machine, batch: int, groups: int, length: int, kernel: int, stride: int, dilation: int,
    pads: tuple[int, int], bias: bool, seed: int,
) -> None:  # fmt: skip
    net = Net(seed=seed)
    x = net.op("Relu", net.input(batch, 4, max(length, (kernel - 1) * dilation + 1)))
    inputs = [x, net.weight(8, 4 // groups, kernel)] + ([net.weight(8)] if bias else [])
    y = net.op("Conv", *inputs, group=groups, strides=[stride], dilations=[dilation], pads=pads)
    check(net.model(net.op("Relu", y)), machine)


@pytest.mark.parametrize("kind", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("stride", [1, 2])
def test_pools_over_one_axis(kind: str, stride: int) -> None:
    net = Net()
    y = net.op(kind, net.input(2, 3, 21), kernel_shape=[3], strides=[stride], pads=[1, 1])
    check(net.model(y))


@pytest.mark.parametrize("size", [(13, 13), (5, 40), (20, 20)])
@pytest.mark.parametrize("kernel", [(13, 13), (5, 4), (9, 5)])
@pytest.mark.parametrize("attributes", [{}, {"strides": [2, 3]}, {"ceil_mode": 1, "strides": [2, 2]}], ids=str)
def test_large_maxima(size: tuple[int, int], kernel: tuple[int, int], attributes: dict[str, object]) -> None:
    net = Net()
    half = [(each - 1) // 2 for each in kernel]
    y = net.op("MaxPool", net.op("Sin", net.input(2, 3, *size)), kernel_shape=kernel, pads=half * 2, **attributes)
    check(net.model(y))


def test_nan_and_infinities_pass_large_maxima_as_they_pass_small_ones() -> None:
    net = Net()
    x = net.input(1, 1, 12, 12)
    model = net.model(net.op("MaxPool", x, kernel_shape=[5, 5], pads=[2] * 4))
    array = np.random.default_rng(0).standard_normal((1, 1, 12, 12)).astype(np.float32)
    array[0, 0, 3, 4], array[0, 0, 9, 9] = np.inf, -np.inf
    check(model, cases=[{x: array}])
