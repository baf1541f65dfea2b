"""Entries in any order and weighed sums of them against numpy, at the edge of readable memory."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tvm")

from graphprune.targets.kernels.take import Take
from graphprune.targets.kernels.tir import Machine
from tests.targets.kernels import harness


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    machine=st.sampled_from(harness.MACHINES),
    outer=st.sampled_from([1, 3]),
    size=st.sampled_from([1, 5, 18]),
    around=st.sampled_from([1, 7, 16, 35]),
    count=st.sampled_from([1, 4, 16, 37]),
    taps=st.sampled_from([0, 1, 2, 4]),
    fast=st.sampled_from(["run", "entries", "neither"]),
    dtype=st.sampled_from(["float32", "int64"]),
    seed=st.integers(0, 99),
)
def test_take(
    machine: Machine, outer: int, size: int, around: int, count: int, taps: int, fast: str, dtype: str, seed: int
) -> None:
    """[outer, size, around] to [outer, count, around], or with the last two turned; no taps is a copy."""
    generator = np.random.default_rng(seed)
    dtype = "float32" if taps else dtype
    x = (100 * generator.standard_normal((outer, size, around))).astype(dtype)
    places = generator.integers(0, size, (max(taps, 1), count))
    weights = generator.standard_normal(places.shape).astype(np.float32) if taps else np.ones(places.shape)
    wanted = sum(
        x[:, row].astype(np.float64) * weight[None, :, None] for row, weight in zip(places, weights, strict=True)
    )
    turned = fast != "run"
    stride, step, moved = (around, 1, count) if turned else (around, around, 1)
    run = (around, (1, moved)) if fast != "entries" else None
    loops = ((outer, (size * around, count * around)),)
    kernel = Take(
        count=count,
        step=step,
        outer=loops if run else (*loops, (around, (1, moved))),
        run=run,
        taps=len(places),
        weighed=taps > 0,
        dtype=dtype,
    )
    y = np.zeros((outer, around, count) if turned else (outer, count, around), dtype)
    extra = [weights] if taps else []
    found = harness.run(kernel, machine, x, (places * stride).astype(np.int32), *extra, y)
    found = found.reshape(y.shape).transpose(0, 2, 1) if turned else found.reshape(y.shape)
    harness.close(found.astype(np.float64), np.asarray(wanted), 1e-4 if taps else 0.0)
