"""Transposed convolutions of every kind against onnxruntime."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

pytest.importorskip("tvm")

from graphprune.targets.kernels.tir import Machine
from tests.targets.network.harness import MACHINES, check
from tests.targets.network.net import Net


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    machine=st.sampled_from(MACHINES),
    batch=st.integers(1, 2),
    groups=st.sampled_from([1, 1, 2, 4]),
    per=st.sampled_from([1, 2, 5]),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 5)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilations=st.sampled_from([(1, 1), (1, 1), (2, 1), (2, 3)]),
    pads=st.tuples(*[st.integers(0, 3)] * 4),
    more=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    auto=st.sampled_from(["NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]),
    bias=st.booleans(),
    seed=st.integers(0, 99),
)
def test_shapes(
    machine: Machine, batch: int, groups: int, per: int, size: tuple[int, int], kernel: tuple[int, int],
    strides: tuple[int, int], dilations: tuple[int, int], pads: tuple[int, int, int, int], more: tuple[int, int],
    auto: str, bias: bool, seed: int,
) -> None:  # fmt: skip
    more = tuple(min(extra, step - 1) for extra, step in zip(more, strides, strict=True))  # type: ignore[assignment]
    attributes: dict[str, object] = {"strides": strides, "dilations": dilations, "group": groups}
    if auto == "NOTSET":
        attributes |= {"pads": pads, "output_padding": more}
        for axis in (0, 1):
            reach = (kernel[axis] - 1) * dilations[axis] + 1
            assume((size[axis] - 1) * strides[axis] + reach + more[axis] - pads[axis] - pads[axis + 2] > 0)
    else:
        assume(dilations == (1, 1) and all(k >= s for k, s in zip(kernel, strides, strict=True)))
        attributes["auto_pad"] = auto
    net = Net(seed=seed)
    x = net.op("Relu", net.input(batch, 4, *size))
    inputs = [x, net.weight(4, per, *kernel)] + ([net.weight(groups * per)] if bias else [])
    check(net.model(net.op("Tanh", net.op("ConvTranspose", *inputs, **attributes))), machine)


@pytest.mark.parametrize("auto", ["NOTSET", "SAME_UPPER", "SAME_LOWER"])
def test_the_size_of_the_output_is_given(auto: str) -> None:
    net = Net()
    x, w = net.input(1, 3, 5, 6), net.weight(3, 4, 3, 3)
    y = net.op("ConvTranspose", x, w, strides=[2, 2], output_shape=[10, 12], auto_pad=auto)
    check(net.model(y))


def test_over_one_axis() -> None:
    net = Net()
    x = net.op("Relu", net.input(2, 3, 17))
    y = net.op("ConvTranspose", x, net.weight(3, 4, 5), net.weight(4), strides=[2], pads=[1, 2], output_padding=[1])
    check(net.model(y))


def test_weights_that_are_computed_fall_back() -> None:
    net = Net()
    y = net.op("ConvTranspose", net.input(1, 3, 5, 6), net.op("Abs", net.input(3, 4, 3, 3)))
    check(net.model(y), fallbacks=["ConvTranspose"])
