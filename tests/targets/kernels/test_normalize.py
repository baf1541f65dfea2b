"""Norms against numpy in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tvm")

from graphprune.targets.kernels.functions import Apply, Leaf
from graphprune.targets.kernels.normalize import Normalize
from graphprune.targets.kernels.tir import Machine
from tests.targets.kernels import harness

EPSILON = 2.0**-23


def reference(kind: str, x: np.ndarray, axis: tuple[int, ...], epsilon: float) -> Any:
    with np.errstate(all="ignore"):
        if kind == "layer":
            return (x - x.mean(axis, keepdims=True)) / np.sqrt(x.var(axis, keepdims=True) + epsilon)
        squares = (x * x).sum(axis, keepdims=True)
        if kind == "rms":
            count = np.prod([x.shape[a] for a in axis])
            return x / np.sqrt(squares / count + epsilon)
        return x / np.maximum(np.sqrt(squares), epsilon)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    kind=st.sampled_from(["layer", "rms", "l2"]),
    machine=st.sampled_from(harness.MACHINES),
    outer=st.integers(1, 3),
    rows=st.sampled_from([1, 2, 3, 7, 8, 9, 33]),
    length=st.sampled_from([1, 2, 5, 15, 16, 17, 49, 64, 65, 100]),
    vectors=st.sampled_from([1, 2, 4]),
    kept=st.booleans(),
    guarded=st.booleans(),
    scale=st.sampled_from([None, "row", "run", "outer"]),
    bias=st.booleans(),
    odd=st.booleans(),
    offset=st.sampled_from([0.0, 1.0, 100.0, -3e4]),
    seed=st.integers(0, 99),
)
def test_rows_and_runs(
    kind: str, machine: Machine, outer: int, rows: int, length: int, vectors: int, kept: bool, guarded: bool,
    scale: str | None, bias: bool, odd: bool, offset: float, seed: int,
) -> None:  # fmt: skip
    generator = np.random.default_rng(seed)
    x = (generator.standard_normal((outer, rows, length)) + offset).astype(np.float32)
    if odd:
        x[0, -1, 0] = generator.choice([np.nan, np.inf, -np.inf])
    wide = harness.padded(x, guarded)
    pitch = wide.shape[-1]
    arrays, steps, strides, apart = [wide], [1], [pitch], [rows * pitch]
    exact = x.astype(np.float64)
    axis = (1,) if kept else (1, 2)
    wanted = reference(kind, exact, axis, 1e-5)
    size = 0.0
    for there, which in ((scale is not None, scale), (bias, "row")):
        if not there:
            continue
        shape = {"row": (1, rows, 1), "run": (1, 1, length), "outer": (outer, 1, 1)}[str(which)]
        more = generator.standard_normal(shape).astype(np.float32)
        wanted = wanted + more if len(arrays) > (scale is not None) else wanted * more
        arrays.append(harness.padded(more, guarded) if which == "run" else more)
        steps.append(int(which == "run"))
        strides.append(int(which == "row"))
        apart.append(int(which == "outer"))
        size += float(np.abs(more).max())
    kernel = Normalize(
        kind,
        1e-5,
        length,
        kept,
        (*steps, 1),
        reduced=((rows, (*strides, pitch)),),
        outer=((outer, (*apart, rows * pitch)),),
        scale=scale is not None,
        bias=bias,
        guarded=guarded,
        vectors=vectors,
    )
    found = harness.run(kernel, machine, *arrays, np.zeros_like(wide))[..., :length]
    # The bound knows nothing of the offset: sums of n numbers round n times at most, and everything else a few times.
    # Only where the deviation itself is of the size of the offset's rounding (one number, or equal ones) does x count.
    count = rows * (1 if kept else length)
    plain = np.abs(reference(kind, np.where(np.isfinite(exact), exact, 0), axis, 1e-5)).max()
    harness.close(found, wanted, (2 * count + 30) * EPSILON * (plain + 1) * (size + 1))


@pytest.mark.parametrize("machine", harness.MACHINES, ids=str)
@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("offset", [0.0, 1e3, 1e5, -1e6])
def test_the_variance_is_stable(machine: Machine, kept: bool, offset: float) -> None:
    """The mean is up to a million deviations away: an error of a few roundings, where E[x²] - E[x]² would have nothing
    left (it is computed beside, so that this test is known to be able to fail)."""
    generator = np.random.default_rng(0)
    x = (generator.standard_normal((768, 16)) + offset).astype(np.float32)
    exact = x.astype(np.float64)
    y = np.zeros_like(x)
    if kept:
        kernel = Normalize("layer", 1e-12, 16, True, (1, 0, 0, 1), reduced=((768, (16, 1, 1, 16)),))
        arrays, axis = (x, np.ones(768, np.float32), np.zeros(768, np.float32), y), (0,)
    else:
        kernel = Normalize("layer", 1e-12, 16, False, (1, 0, 0, 1), reduced=((768, (16, 0, 0, 16)),))
        arrays, axis = (x, np.ones(1, np.float32), np.zeros(1, np.float32), y), (0, 1)
    error = np.abs(harness.run(kernel, machine, *arrays) - reference("layer", exact, axis, 1e-12)).max()
    assert error < 3e-6
    if abs(offset) >= 1e5:
        naive = (x * x).mean(axis) - x.mean(axis) ** 2
        assert (np.abs(naive - exact.var(axis)) > 0.5).any()


@pytest.mark.parametrize("machine", harness.MACHINES, ids=str)
def test_group_norm_with_a_border_and_an_epilogue(machine: Machine) -> None:
    """Groups are an outer loop, channels of a group and their run are reduced, a mask leaves the border out."""
    generator = np.random.default_rng(1)
    groups, channels, length = 3, 4, 40
    x = generator.standard_normal((groups, channels, length)).astype(np.float32)
    mask = (np.arange(length) % 8 != 7).astype(np.float32)
    scale, bias = generator.standard_normal((2, groups, channels)).astype(np.float32)
    add = generator.standard_normal((groups, channels, length)).astype(np.float32)
    exact = x[..., mask > 0].astype(np.float64)
    wanted = reference("layer", exact, (1, 2), 1e-3) * scale[..., None] + bias[..., None] + add[..., mask > 0]
    x[..., mask == 0] = np.nan
    whole = channels * length
    kernel = Normalize(
        "layer",
        1e-3,
        length,
        False,
        (1, 0, 0, 1, 1, 1),
        reduced=((channels, (length, 1, 1, 0, length, length)),),
        outer=((groups, (whole, channels, channels, 0, whole, whole)),),
        count=channels * int(mask.sum()),
        masked=True,
        epilogue=Apply("relu", (Apply("add", (Leaf(0), Leaf(1))),)),
        operands=1,
    )
    found = harness.run(kernel, machine, x, scale, bias, mask, add, np.full_like(x, 77.0))
    assert (found[..., mask == 0] == 77.0).all()
    harness.close(found[..., mask > 0], np.maximum(wanted, 0), 5e-6)
