"""Depthwise convolutions with steps of two against numpy in float64, window by window."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tvm")

from graphprune.targets.kernels.functions import Apply, Leaf
from graphprune.targets.kernels.halve import COLUMNS
from graphprune.targets.kernels.strided import Strided
from graphprune.targets.kernels.tir import Machine
from tests.targets.kernels import harness

RELU = Apply("relu", (Leaf(0),))


def depthwise(
    x: np.ndarray, weights: np.ndarray, bias: np.ndarray, pads: tuple[int, int, int, int], down: int
) -> tuple[np.ndarray, np.ndarray]:
    """The convolution in float64, and the sum of the magnitudes of what is added; zeros around the map."""
    top, left, bottom, right = pads
    whole = np.pad(x.astype(np.float64), ((0, 0), (top, bottom), (left, right)))
    windows = np.lib.stride_tricks.sliding_window_view(whole, weights.shape[1:], (1, 2))[:, ::down, ::2]
    with np.errstate(all="ignore"):
        terms = windows * weights.astype(np.float64)[:, None, None]
        size = np.where(np.isfinite(terms), np.abs(terms), 0).sum((3, 4)) + np.abs(bias)[:, None, None]
        return terms.sum((3, 4)) + bias[:, None, None], size


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    machine=st.sampled_from(harness.MACHINES),
    channels=st.integers(1, 3),
    taps=st.tuples(st.integers(1, 4), st.integers(1, COLUMNS)),
    more=st.tuples(st.integers(0, 9), st.sampled_from([0, 1, 2, 5, 13, 14, 15, 27, 29, 30, 31, 61, 62, 63, 64, 111])),
    pads=st.tuples(*[st.integers(0, 3)] * 4),
    down=st.integers(1, 3),
    epilogue=st.sampled_from([Leaf(0), RELU]),
    odd=st.booleans(),
)
def test_shapes(
    machine: Machine, channels: int, taps: tuple[int, int], more: tuple[int, int], pads: tuple[int, int, int, int],
    down: int, epilogue: Leaf | Apply, odd: bool,
) -> None:  # fmt: skip
    generator = np.random.default_rng(sum(more))
    height, width = (taps[axis] + more[axis] for axis in (0, 1))
    x = generator.standard_normal((channels, height, width)).astype(np.float32)
    if odd:
        x[0, height // 2, width // 2] = generator.choice([np.nan, np.inf, -np.inf])
    weights = generator.standard_normal((channels, *taps)).astype(np.float32)
    bias = generator.standard_normal(channels).astype(np.float32)
    wanted, size = depthwise(x, weights, bias, pads, down)
    _, rows, columns = wanted.shape
    kernel = Strided(
        "mean", taps, (height, width), (rows, columns), pads[:2], down, (width, columns),
        ((channels, (height * width, 1, rows * columns)),), epilogue,
    )  # fmt: skip
    found = harness.run(kernel, machine, x, weights, bias, np.zeros(wanted.shape, np.float32))
    if epilogue == RELU:
        wanted = np.maximum(wanted, 0)
    harness.close(found, wanted, 20 * 2.0**-23 * size)


def test_the_reference_tells_another_convolution() -> None:
    generator = np.random.default_rng(0)
    x, weights = generator.standard_normal((2, 6, 9)), generator.standard_normal((2, 3, 3))
    wanted, size = depthwise(x, weights, np.zeros(2), (1, 1, 1, 1), 2)
    other, _ = depthwise(x, weights[:, :, ::-1], np.zeros(2), (1, 1, 1, 1), 2)
    with pytest.raises(AssertionError):
        harness.close(other, wanted, 20 * 2.0**-23 * size)


def test_rows_apart() -> None:
    """Rows and maps with gaps: what is between them stays as it is."""
    x = np.arange(2 * 6 * 9, dtype=np.float32).reshape(2, 6, 9)
    y = np.full((2, 3, 7), 5.0, np.float32)
    weights, bias = np.ones((2, 2, 2), np.float32), np.zeros(2, np.float32)
    kernel = Strided("mean", (2, 2), (6, 8), (3, 4), (0, 0), 2, (9, 7), ((2, (54, 1, 21)),))
    found = harness.run(kernel, harness.MACHINES[0], x, weights, bias, y)
    assert (found[..., 4:] == 5.0).all()
    assert np.array_equal(found[..., :4], x[:, :, :8].reshape(2, 3, 2, 4, 2).sum((2, 4)))
