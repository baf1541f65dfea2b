"""Windows over one axis and large maxima."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tvm")

from graphprune.targets.kernels.tir import Machine
from tests.targets.kernels.harness import DOTS
from tests.targets.network.harness import MACHINES, check
from tests.targets.network.net import Net
from tests.targets.network.steps import bias, integers, rounded, stored, weight, within


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


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    machine=st.sampled_from([machine for machine in [*DOTS, *MACHINES] if machine.threads == 1]),
    groups=st.sampled_from([1, 2, 5]),
    inner=st.sampled_from([1, 3, 4, 9]),
    length=st.sampled_from([7, 16, 33]),
    kernel=st.sampled_from([1, 3, 5]),
    stride=st.integers(1, 2),
    zero=st.sampled_from([("uint8", 0), ("uint8", 131), ("int8", 17)]),
    one=st.booleans(),
    operators=st.booleans(),
    seed=st.integers(0, 99),
)
def test_quantised_convolutions_over_one_axis(
    machine: Machine, groups: int, inner: int, length: int, kernel: int, stride: int, zero: tuple[str, int], one: bool,
    operators: bool, seed: int,
) -> None:  # fmt: skip
    """Products of integers, in either form; a Relu behind them joins their step."""
    net = Net(seed=seed)
    dtype, point = zero
    shape = groups * 3, inner, kernel
    more = {"group": groups, "strides": [stride], "pads": [kernel // 2] * 2}
    x = net.input(2, groups * inner, length)
    array = integers(net, *shape)
    if operators:
        scale = net.generator.uniform(0.5, 2.0, 1 if one else shape[0]).astype(np.float32) / 500
        ends = net.constant(0.03, "float32"), net.constant(point, dtype)
        names = net.constant(array), net.constant(scale), net.constant(np.zeros(scale.shape, np.int8))
        last = net.constant(0.0811, "float32"), net.constant(120, dtype)
        y = net.op("QLinearConv", stored(net, x, 0.03, point, dtype), *ends, *names, *last, **more)
    else:
        w, scale = weight(net, array, 0, one)
        y = net.op("Conv", rounded(net, x, 0.03, point, dtype), w, bias(net, shape[0], 0.03, scale), **more)
        y = stored(net, net.op("Relu", y), 0.0811, 120)
    network = within(net.model(y), machine)
    steps = [call for call in network.lowered.calls if getattr(call.kernel, "numbers", "") == "int8"]
    assert [call.what for call in steps] == ["Conv+QuantizeLinear" if operators else "Conv+Relu+QuantizeLinear"]


def test_what_follows_a_window_over_one_axis_joins_it() -> None:
    """Steps with one operand; not those that others read too, and not sums."""
    net = Net()
    x = net.input(1, 4, 21)
    y = net.op("LeakyRelu", net.op("Relu", net.op("Conv", x, net.weight(6, 4, 3))), alpha=0.1)
    z = net.op("Conv", y, net.weight(6, 6, 3), pads=[1, 1])
    network = check(net.model(net.op("Add", net.op("Sigmoid", z), net.op("Tanh", z)), net.op("Relu", z)))
    steps = [call.what for call in network.lowered.calls if call.what.startswith("Conv")]
    assert steps == ["Conv+Relu+LeakyRelu", "Conv"]


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


@pytest.mark.parametrize("kind", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize(
    ("shape", "attributes", "windows"),
    [
        ((2, 3, 4, 5), {"kernel_shape": [4, 5]}, 0),
        ((2, 3, 4, 5), {"kernel_shape": [640, 641], "strides": [640, 641], "ceil_mode": 1}, 0),
        ((2, 3, 7), {"kernel_shape": [9], "pads": [1, 1], "strides": [2]}, 0),
        ((1, 3, 4, 5), {"kernel_shape": [4, 4]}, 1),
        ((1, 3, 4, 5), {"kernel_shape": [3, 6], "pads": [0, 0, 0, 1]}, 1),
    ],
)  # fmt: skip
def test_windows_over_the_whole_map(
    kind: str, shape: tuple[int, ...], attributes: dict[str, Any], windows: int
) -> None:
    net = Net()
    model = net.model(net.op(kind, net.op("Sin", net.input(*shape)), **attributes))
    made = check(model)
    assert len([call for call in made.lowered.calls if type(call.kernel).__name__ == "Reduce"]) == 1 - windows


def test_a_border_that_counts_is_no_part_of_a_map() -> None:
    net = Net()
    attributes = {"kernel_shape": [6, 6], "pads": [1, 1, 1, 1], "count_include_pad": 1}
    check(net.model(net.op("AveragePool", net.input(1, 2, 4, 4), **attributes)))
