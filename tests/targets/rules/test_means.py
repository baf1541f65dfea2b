"""Means of quantised numbers against exact arithmetic: scales are powers of two, so that every tie is one."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tvm")

from tests.targets.kernels.harness import MACHINES
from tests.targets.network.harness import Machine, built
from tests.targets.network.net import Net
from tests.targets.network.steps import numbers, stored, within

EVERY = [machine for machine in MACHINES if machine.threads == 1]
ZEROS = st.sampled_from([("uint8", 0), ("uint8", 131), ("uint8", 255), ("int8", -128), ("int8", 17)])


def rounded(sums: np.ndarray, counts: np.ndarray, ratio: Fraction, zero: int, dtype: str) -> np.ndarray:
    """round(ratio * sum / count) + zero of integers, ties to even, as rational numbers."""
    limits = np.iinfo(dtype)
    pairs = zip(sums.ravel().tolist(), np.broadcast_to(counts, sums.shape).ravel().tolist(), strict=True)
    steps = [round(ratio * Fraction(total, count)) + zero for total, count in pairs]
    return np.clip(np.array(steps).reshape(sums.shape), limits.min, limits.max).astype(dtype)


def integers_of(x: np.ndarray, scale: float, zero: int, dtype: str) -> np.ndarray:
    """Numbers of x, all of them multiples of the scale, without their zero point."""
    limits = np.iinfo(dtype)
    return np.clip(np.rint(x / scale) + zero, limits.min, limits.max).astype(np.int64) - zero


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    machine=st.sampled_from(EVERY),
    batch=st.integers(1, 2),
    channels=st.sampled_from([1, 3, 17]),
    size=st.tuples(st.integers(3, 9), st.sampled_from([3, 5, 8, 17, 33])),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    strides=st.sampled_from([(1, 1), (2, 2), (1, 2), (3, 1)]),
    pads=st.tuples(*[st.integers(0, 1)] * 4),
    include=st.booleans(),
    zero=ZEROS,
    end=ZEROS,
    ratio=st.sampled_from([1, 2, 4]),
    seed=st.integers(0, 99),
)
def test_windows(
    machine: Machine, batch: int, channels: int, size: tuple[int, int], kernel: tuple[int, int],
    strides: tuple[int, int], pads: tuple[int, int, int, int], include: bool, zero: tuple[str, int],
    end: tuple[str, int], ratio: int, seed: int,
) -> None:  # fmt: skip
    pads = tuple(min(pad, kernel[place % 2] - 1) for place, pad in enumerate(pads))  # type: ignore[assignment]
    net = Net(opset=19)
    x = numbers(net, stored(net, net.input(batch, channels, *size), 0.5, zero[1], zero[0]), 0.5, zero[1], zero[0])
    y = net.op("AveragePool", x, kernel_shape=kernel, strides=strides, pads=pads, count_include_pad=int(include))
    network = built(net.model(stored(net, y, 0.5 / ratio, end[1], end[0])), machine)
    case = np.random.default_rng(seed).integers(-300, 300, (batch, channels, *size)).astype(np.float32) * 0.5
    (found,) = network.run({"input1": case})[0].values()

    wide = ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3]))
    over = [np.pad(each, wide) for each in (integers_of(case, 0.5, zero[1], zero[0]), np.ones(case.shape, np.int64))]
    sums, there = (
        np.lib.stride_tricks.sliding_window_view(each, kernel, (2, 3))[:, :, :: strides[0], :: strides[1]].sum((4, 5))
        for each in over
    )
    counts = np.array(kernel[0] * kernel[1]) if include else there
    assert np.array_equal(found, rounded(sums, counts, Fraction(ratio), end[1], end[0]))
    assert kinds(network) <= {"uint8", "int8"}


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    machine=st.sampled_from(EVERY),
    shape=st.sampled_from([(1, 5, 7, 7), (2, 19, 1, 6), (1, 33, 4, 4), (2, 3, 15, 17), (1, 64, 1, 2)]),
    axes=st.sampled_from([None, (1,), (2, 3), (-1,), (0, 2)]),
    zero=ZEROS,
    end=ZEROS,
    seed=st.integers(0, 99),
)
def test_axes(
    machine: Machine, shape: tuple[int, ...], axes: tuple[int, ...] | None, zero: tuple[str, int],
    end: tuple[str, int], seed: int,
) -> None:  # fmt: skip
    """GlobalAveragePool where there are no axes, else ReduceMean."""
    net = Net(opset=19)
    x = numbers(net, stored(net, net.input(*shape), 0.25, zero[1], zero[0]), 0.25, zero[1], zero[0])
    if axes is None:
        y = net.op("GlobalAveragePool", x)
    else:
        y = net.op("ReduceMean", x, net.numbers(*axes), keepdims=seed % 2)
    network = built(net.model(stored(net, y, 0.25, end[1], end[0])), machine)
    case = np.random.default_rng(seed).integers(-300, 300, shape).astype(np.float32) * 0.25
    (found,) = network.run({"input1": case})[0].values()
    over = (2, 3) if axes is None else axes
    sums = integers_of(case, 0.25, zero[1], zero[0]).sum(over, keepdims=axes is None or seed % 2 == 1)
    count = int(np.prod([shape[axis] for axis in over]))
    assert np.array_equal(found, rounded(sums, np.array(count), Fraction(1), end[1], end[0]))
    assert kinds(network) <= {"uint8", "int8"}


def kinds(network: object) -> set[str]:
    """What lies in scratch."""
    calls = network.lowered.calls  # type: ignore[attr-defined]
    return {view.dtype for call in calls for view in call.views if view.storage.kind == "scratch"}


@pytest.mark.parametrize("machine", EVERY, ids=str)
def test_the_operators_of_onnxruntime(machine: Machine) -> None:
    net = Net()
    x = stored(net, net.input(1, 9, 8, 9), 0.05, 3)
    ends = net.constant(0.05, "float32"), net.constant(3, "uint8")
    others = net.constant(0.0437, "float32"), net.constant(7, "uint8")
    mean = net.op("QLinearGlobalAveragePool", x, *ends, *others, domain="com.microsoft")
    pooled = net.op("QLinearAveragePool", x, *ends, *others, domain="com.microsoft", kernel_shape=[3, 3],
                    strides=[2, 2], pads=[1] * 4, count_include_pad=1)  # fmt: skip
    network = within(net.model(mean, pooled), machine)
    assert kinds(network) == {"uint8"}


def test_a_tie_and_what_is_next_to_it() -> None:
    """The check tells 0.5, which is rounded to 0, from 0.5 and a little, which is not."""
    one = np.array([1])
    assert rounded(one, np.array([2]), Fraction(1), 0, "uint8") == 0
    assert rounded(one * 5001, np.array([10001]), Fraction(1), 0, "uint8") == 1
    assert rounded(one * 600, np.array([2]), Fraction(1), 0, "uint8") == 255
