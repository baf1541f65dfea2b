"""Pooling against numpy: windows taken from a map with a border, place by place."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tvm")

from graphprune.targets.kernels.functions import Apply, Leaf
from graphprune.targets.kernels.tir import Machine
from graphprune.targets.kernels.window import Window
from tests.targets.kernels import harness

EMPTY = {"max": -np.inf, "min": np.inf, "sum": 0.0, "mean": 0.0}


def reduced(operation: str, values: np.ndarray, counts: np.ndarray | None) -> np.ndarray:
    """[tap][place] over its taps; a mean is divided by the number of taps, and anything by counts."""
    with np.errstate(all="ignore"):
        found = {"max": values.max(0), "min": values.min(0)}.get(operation, values.sum(0))
    if counts is not None:
        return np.asarray(found / counts)
    return np.asarray(found / len(values) if operation == "mean" else found)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    operation=st.sampled_from(["max", "min", "sum", "mean"]),
    machine=st.sampled_from(harness.MACHINES),
    channels=st.sampled_from([1, 2, 5]),
    height=st.integers(1, 7),
    width=st.sampled_from([1, 2, 5, 7, 14, 16, 31]),
    window=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    vectors=st.sampled_from([1, 2, 4]),
    masked=st.booleans(),
    guarded=st.booleans(),
    how=st.sampled_from(["plain", "borders", "counted"]),
    odd=st.booleans(),
    seed=st.integers(0, 99),
)
def test_maps(
    operation: str, machine: Machine, channels: int, height: int, width: int, window: tuple[int, int], vectors: int,
    masked: bool, guarded: bool, how: str, odd: bool, seed: int,
) -> None:  # fmt: skip
    """Maps with one border column that rows share and a border row on either side; the run goes through the borders."""
    generator = np.random.default_rng(seed)
    x = generator.standard_normal((channels, height, width)).astype(np.float32)
    if odd:
        x[0, height // 2, width // 2] = generator.choice([np.nan, np.inf, -np.inf])
    pitch = width + 2
    size = (height + 4) * pitch + 64
    border = np.nan if how == "borders" else 0.0
    maps = np.full((channels, size), border, np.float32)
    for c in range(channels):
        maps[c, 2 * pitch : (2 + height) * pitch].reshape(height, pitch)[:, :width] = x[c]
    taps = [(i, j) for i in range(window[0]) for j in range(window[1])]
    offsets = tuple((i - 1) * pitch + j - 1 for i, j in taps)
    length = height * pitch - 2  # up to the last number of the map
    place = np.arange(length)
    row, column = place // pitch, place % pitch
    inside = [
        (row + i - 1 >= 0) & (row + i - 1 < height) & (column + j - 1 >= 0) & (column + j - 1 < width) for i, j in taps
    ]
    values = np.stack([maps[:, 2 * pitch + offset + place] for offset in offsets]).astype(np.float64)
    counts = np.maximum(np.sum(inside, 0), 1).astype(np.float32)
    if how == "borders":
        values = np.where(np.stack(inside)[:, None], values, EMPTY[operation])
    wanted = reduced(operation, values, counts if how == "counted" else None)

    arrays: list[np.ndarray] = [maps.ravel()[2 * pitch :]]
    x_start = 2 * pitch  # the view begins at the first number of the map: taps reach before it
    bits = np.sum([there.astype(np.int64) << t for t, there in enumerate(inside)], 0).astype(np.int32)
    there = (column < width).astype(np.float32)
    for wants, extra in ((how == "borders", bits), (how == "counted", counts), (masked, there)):
        if wants:
            arrays.append(harness.padded(extra, True) if guarded else with_slack(extra))
    more = len(arrays) - 1
    out = harness.pitch(length) if not guarded else length
    kernel = Window(
        operation,
        tuple(offset + x_start for offset in offsets),
        length,
        (1,) * (2 + more),
        outer=((channels, (size, *(0,) * more, out)),),
        bordered=how == "borders",
        counted=how == "counted",
        masked=masked,
        guarded=guarded,
        vectors=vectors,
    )
    arrays[0] = maps
    found = harness.run(kernel, machine, *arrays, np.full((channels, out), 77.0, np.float32))[:, :length]
    if masked:
        assert (found[:, there == 0] == 77.0).all()
        found, wanted = found[:, there > 0], wanted[:, there > 0]
    harness.close(found, wanted, 1e-5)


def with_slack(array: np.ndarray) -> np.ndarray:
    wide = np.zeros(harness.pitch(array.size), array.dtype)
    wide[: array.size] = array
    return wide


@pytest.mark.parametrize("machine", harness.MACHINES, ids=str)
def test_thirty_two_taps_an_operand_and_a_step_of_two(machine: Machine) -> None:
    """The bit of the last tap is the sign; a stride of the window is a step of the run."""
    generator = np.random.default_rng(0)
    x = generator.standard_normal(200).astype(np.float32)
    add = generator.standard_normal(50).astype(np.float32)
    bits = np.zeros(50, np.int32)
    bits[::2] = -(2**31)
    bits[1::2] = 1 + (1 << 30)
    kernel = Window(
        "sum",
        tuple(range(32)),
        50,
        (2, 1, 1, 1),
        bordered=True,
        guarded=True,
        epilogue=Apply("add", (Leaf(0), Leaf(1))),
        operands=1,
    )
    found = harness.run(kernel, machine, x, bits, add, np.zeros(50, np.float32))
    at = 2 * np.arange(50)
    wanted = np.where(np.arange(50) % 2 == 0, x[at + 31], x[at].astype(np.float64) + x[at + 30]) + add
    harness.close(found, wanted, 1e-6)
    with pytest.raises(ValueError, match="33 taps"):
        Window("sum", tuple(range(33)), 50, (1, 1, 1), bordered=True)
