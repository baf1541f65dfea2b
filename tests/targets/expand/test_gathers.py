"""Gathers by constant indices."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("tvm")

from tests.execution import feeds
from tests.targets.network.harness import check
from tests.targets.network.net import Net


@pytest.mark.parametrize(("axis", "shape"), [(1, (1, 4)), (1, (2, 9)), (0, (5, 3)), (-1, (3, 7)), (-2, (1, 1))])
def test_gather_elements(axis: int, shape: tuple[int, ...]) -> None:
    """As types of tokens are taken from a buffer of ones: of a constant by constants."""
    net = Net()
    size = (3, 7)[axis]
    index = net.constant(net.generator.integers(-size, size, shape), "int64")
    y = net.op("Mul", net.op("GatherElements", net.weight(3, 7), index, axis=axis), net.input(*shape))
    check(net.model(y))


@pytest.mark.parametrize("repeats", [0, 1, 2])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_gather_elements_of_what_is_computed(axis: int, repeats: int) -> None:
    """As relative positions of attention are read; where samples and heads read the same, there is one table."""
    net = Net()
    shape = [2, 3, 4]
    shape[axis] = 5
    index = net.generator.integers(-(2, 3, 6)[axis], (2, 3, 6)[axis], shape)
    index[:] = index[tuple(slice(1) if place < repeats else slice(None) for place in range(3))]
    y = net.op("GatherElements", net.op("Sin", net.input(2, 3, 6)), net.constant(index, "int64"), axis=axis)
    check(net.model(y))


@pytest.mark.parametrize("dtype", ["float32", "bool", "int64"])
@pytest.mark.parametrize("shape", [(4, 2), (1, 1, 9, 2), (3, 1), (2, 3), (2,)], ids=str)
def test_gather_nd(shape: tuple[int, ...], dtype: str) -> None:
    """As masks of attention are read by the numbers of sample and token."""
    net = Net()
    x = net.input(3, 5, 4, dtype=dtype)
    index = np.stack([net.generator.integers(-size, size, shape[:-1]) for size in (3, 5, 4)[: shape[-1]]], -1)
    model = net.model(net.op("GatherND", x, net.constant(index, "int64")))
    case = feeds(model, seed=0)
    if dtype == "bool":
        case[x] = np.random.default_rng(0).random((3, 5, 4)) < 0.5
    check(model, cases=[case])
