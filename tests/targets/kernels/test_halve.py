"""Pools that take every second column against numpy, window by window; maxima exactly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tvm")

from graphprune.targets.kernels.halve import COLUMNS, Halve
from graphprune.targets.kernels.tir import Machine
from tests.targets.kernels import harness


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    machine=st.sampled_from(harness.MACHINES),
    operation=st.sampled_from(["max", "max", "mean"]),
    channels=st.integers(1, 3),
    taps=st.tuples(st.integers(1, 4), st.integers(1, COLUMNS)),
    more=st.tuples(st.integers(0, 9), st.sampled_from([0, 1, 2, 5, 13, 14, 15, 27, 29, 30, 31, 61, 62, 63, 64, 80])),
    before=st.tuples(st.integers(0, 3), st.integers(0, 4)),
    after=st.tuples(st.integers(0, 3), st.integers(0, 4)),
    down=st.integers(1, 3),
    odd=st.booleans(),
)
def test_pools(
    machine: Machine, operation: str, channels: int, taps: tuple[int, int], more: tuple[int, int],
    before: tuple[int, int], after: tuple[int, int], down: int, odd: bool,
) -> None:  # fmt: skip
    """Windows reach beyond the map by less than a window, and none lies outside of it."""
    generator = np.random.default_rng(sum(more))
    height, width = (taps[axis] + more[axis] for axis in (0, 1))
    top, left = (min(before[axis], taps[axis] - 1) if operation == "max" else 0 for axis in (0, 1))
    bottom, right = (min(after[axis], taps[axis] - 1) if operation == "max" else 0 for axis in (0, 1))
    x = generator.standard_normal((channels, height, width)).astype(np.float32)
    if odd:
        x[0, height // 2, width // 2] = generator.choice([np.nan, np.inf, -np.inf])
    whole = np.pad(x, ((0, 0), (top, bottom), (left, right)), constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(whole, taps, (1, 2))[:, ::down, ::2]
    with np.errstate(all="ignore"):
        wanted = windows.max((3, 4)) if operation == "max" else windows.astype(np.float64).mean((3, 4))
    _, rows, columns = wanted.shape
    kernel = Halve(
        operation, taps, (height, width), (rows, columns), (top, left), down, (width, columns),
        ((channels, (height * width, rows * columns)),),
    )  # fmt: skip
    found = harness.run(kernel, machine, x, np.zeros(wanted.shape, np.float32))
    harness.close(found, wanted, 0.0 if operation == "max" else 1e-6)


def test_rows_apart() -> None:
    """Rows and maps with gaps: what is between them stays as it is."""
    x = np.arange(2 * 6 * 9, dtype=np.float32).reshape(2, 6, 9)
    y = np.full((2, 3, 7), 5.0, np.float32)
    kernel = Halve("max", (2, 2), (6, 8), (3, 4), (0, 0), 2, (9, 7), ((2, (54, 21)),))
    found = harness.run(kernel, harness.MACHINES[0], x, y)
    assert (found[..., 4:] == 5.0).all()
    assert np.array_equal(found[..., :4], x[:, :, :8].reshape(2, 3, 2, 4, 2).max((2, 4)))


def test_too_many_columns() -> None:
    with pytest.raises(ValueError, match="6 taps"):
        Halve("max", (1, 6), (8, 8), (8, 2), (0, 0), 1, (8, 2))
