"""Pools of every kind: large windows, ceil_mode, borders, and maps that convolutions read."""

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

SIZES = [1, 2, 3, 5, 8, 15, 16, 17, 20]


@settings(max_examples=35, deadline=None, derandomize=True)
@given(
    machine=st.sampled_from(MACHINES),
    kind=st.sampled_from(["MaxPool", "AveragePool"]),
    batch=st.integers(1, 2),
    channels=st.sampled_from([1, 3, 5]),
    size=st.tuples(st.sampled_from(SIZES), st.sampled_from(SIZES)),
    kernel=st.tuples(st.sampled_from([1, 2, 3, 5]), st.sampled_from([1, 2, 3, 6])),
    strides=st.sampled_from([(1, 1), (2, 2), (3, 3), (1, 2), (3, 1), (7, 7)]),
    dilations=st.sampled_from([(1, 1), (1, 1), (2, 2), (1, 3)]),
    pads=st.tuples(*[st.integers(0, 3)] * 4),
    auto_pad=st.sampled_from(["NOTSET", "NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]),
    ceil=st.booleans(),
    include=st.booleans(),
    around=st.sampled_from(["nothing", "Abs", "conv", "convs"]),
)
def test_pools(
    machine: Machine, kind: str, batch: int, channels: int, size: tuple[int, int], kernel: tuple[int, int],
    strides: tuple[int, int], dilations: tuple[int, int], pads: tuple[int, int, int, int], auto_pad: str, ceil: bool,
    include: bool, around: str,
) -> None:  # fmt: skip
    if auto_pad != "NOTSET":  # onnxruntime pads for windows without dilation that overlap
        dilations = (1, 1)
        kernel = (max(kernel[0], strides[0]), max(kernel[1], strides[1]))
    attributes: dict[str, Any] = {
        "kernel_shape": kernel, "strides": strides, "dilations": dilations, "auto_pad": auto_pad
    }  # fmt: skip
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    if auto_pad == "NOTSET":
        # no window may lie in the border alone, and no border be as wide as a window
        pads = tuple(min(pad, kernel[a % 2] - 1) for a, pad in enumerate(pads))  # type: ignore[assignment]
        attributes |= {"pads": pads, "ceil_mode": int(ceil)}
        reach = [r - pads[a] - pads[2 + a] for a, r in enumerate(reach)]
    if auto_pad in {"NOTSET", "VALID"}:
        size = (max(size[0], reach[0]), max(size[1], reach[1]))
    if kind == "AveragePool":
        attributes["count_include_pad"] = int(include)
    net = Net(opset=19)
    x = net.input(batch, channels, *size)
    if around == "convs":
        x = net.op("Conv", x, net.weight(channels, channels, 3, 3), pads=[1] * 4)
    elif around != "nothing":
        x = net.op("Abs", x)
    y = net.op(kind, x, **attributes)
    results = [y]
    if around.startswith("conv"):
        results = [net.op("Conv", y, net.weight(2, channels, 3, 3), net.weight(2), pads=[1] * 4)]
        results.append(net.op("Conv", x, net.weight(2, channels, 3, 3), pads=[1] * 4))
    model = net.model(*results)
    compare(built(model, machine), [feeds(model, seed=seed) for seed in (0, 1, 0)])


@pytest.mark.parametrize("kind", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("kernel", [(7, 7), (13, 13), (1, 40), (33, 1)])
@pytest.mark.parametrize("padded", [False, True])
def test_large_windows(kind: str, kernel: tuple[int, int], padded: bool) -> None:
    net = Net()
    pads = [k // 2 if padded else 0 for k in kernel] * 2
    x = net.op("Neg", net.input(1, 3, 36, 42))
    model = net.model(net.op(kind, x, kernel_shape=kernel, pads=pads))
    compare(built(model), [feeds(model)])


@pytest.mark.parametrize("kind", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("axes", [1, 3])
def test_one_and_three_axes(kind: str, axes: int) -> None:
    net = Net()
    sizes = (9, 8, 7)[:axes]
    y = net.op(kind, net.op("Relu", net.input(2, 3, *sizes)), kernel_shape=[3] * axes, pads=[1] * (2 * axes))
    model = net.model(y)
    compare(built(model), [feeds(model)])


def test_the_border_of_a_maximum_is_no_number() -> None:
    """Zeros of a border that convolutions share must not win over numbers below zero."""
    net = Net()
    x = net.op("Neg", net.op("Abs", net.input(1, 4, 9, 9)))
    pooled = net.op("MaxPool", x, kernel_shape=[3, 3], pads=[1] * 4)
    check(net.model(pooled, net.op("Conv", x, net.weight(2, 4, 3, 3), pads=[1] * 4)))


@pytest.mark.parametrize("strides", [(1, 1), (2, 2)])
def test_nan_and_inf_in_windows(strides: tuple[int, int]) -> None:
    net = Net()
    y = net.op("AveragePool", net.op("Abs", net.input(1, 2, 9, 9)), kernel_shape=[3, 3], strides=strides)
    model = net.model(y)
    case = feeds(model)
    (array,) = case.values()
    array[0, 0, 2, 3], array[0, 1, 6, 6] = np.nan, -np.inf
    compare(built(model), [case, feeds(model)])


def test_chains_of_pools_and_what_reads_them() -> None:
    """As in SPPF and Inception: pools of pools, all of them joined."""
    net = Net()
    x = net.op("Relu", net.input(1, 4, 10, 11))
    parts = [x]
    for _ in range(3):
        parts.append(net.op("MaxPool", parts[-1], kernel_shape=[5, 5], pads=[2] * 4))
    joined = net.op("Concat", *parts, axis=1)
    y = net.op("Conv", joined, net.weight(3, 16, 1, 1), net.weight(3))
    small = net.op("AveragePool", joined, kernel_shape=[3, 3], pads=[1] * 4, strides=[2, 2])
    check(net.model(y, net.op("GlobalAveragePool", small), net.op("GlobalMaxPool", joined)))
