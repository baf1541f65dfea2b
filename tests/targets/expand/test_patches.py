"""Convolutions whose windows lie side by side."""

from __future__ import annotations

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
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    places=st.tuples(st.integers(1, 5), st.integers(1, 18)),
    rest=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    groups=st.sampled_from([1, 2]),
    batch=st.integers(1, 2),
    bias=st.booleans(),
    computed=st.booleans(),
)
def test_windows_side_by_side(
    machine: Machine, kernel: tuple[int, int], places: tuple[int, int], rest: tuple[int, int], groups: int, batch: int,
    bias: bool, computed: bool,
) -> None:  # fmt: skip
    """Of the network's input and of what it computes, with pixels at the end that no window reaches."""
    net = Net()
    sizes = [count * k + min(more, k - 1) for count, k, more in zip(places, kernel, rest, strict=True)]
    x = net.input(batch, 2 * groups, *sizes)
    x = net.op("Sin", x) if computed else x
    more = [net.weight(6)] if bias else []
    y = net.op("Conv", x, net.weight(6, 2, *kernel), *more, strides=list(kernel), group=groups)
    check(net.model(net.op("Relu", y)), machine)


@pytest.mark.parametrize("auto_pad", ["VALID", "SAME_UPPER"])
def test_borders_that_a_word_asks_for(auto_pad: str) -> None:
    net = Net()
    y = net.op("Conv", net.input(1, 3, 7, 8), net.weight(4, 3, 3, 3), strides=[3, 3], auto_pad=auto_pad)
    check(net.model(y))


@pytest.mark.parametrize("sizes", [(4, 6, 8), (5, 7, 9)])
def test_patches_of_films(sizes: tuple[int, ...]) -> None:
    net = Net()
    y = net.op("Conv", net.input(2, 3, *sizes), net.weight(5, 3, 2, 3, 4), net.weight(5), strides=[2, 3, 4])
    check(net.model(net.op("Relu", y)))
