"""Reductions against numpy in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tvm")

from graphprune.targets.kernels.functions import Apply, Leaf, Number
from graphprune.targets.kernels.reduce import OPERATIONS, Reduce
from graphprune.targets.kernels.tir import Machine
from tests.targets.kernels import harness

EPSILON = 2.0**-23
ODD = (np.nan, np.inf, -np.inf)


def reference(operation: str, x: np.ndarray, axis: tuple[int, ...], count: int | None = None) -> Any:
    with np.errstate(all="ignore"):
        if operation == "log_sum_exp":
            peak = x.max(axis, keepdims=True)
            peak = np.where(np.isfinite(peak), peak, 0)
            return np.log(np.exp(x - peak).sum(axis)) + peak.reshape(x.sum(axis).shape)
        table = {
            "sum": x.sum(axis),
            "mean": x.sum(axis) / (count or np.prod([x.shape[a] for a in axis])),
            "max": x.max(axis),
            "min": x.min(axis),
            "prod": x.prod(axis),
            "sum_square": (x * x).sum(axis),
            "l1": np.abs(x).sum(axis),
            "l2": np.sqrt((x * x).sum(axis)),
        }
    return table[operation]


def bound(operation: str, x: np.ndarray, axis: tuple[int, ...]) -> Any:
    """What rounding may do: one rounding for each number of a sum of as many, relative to the sum of magnitudes."""
    size = np.where(np.isfinite(x), np.abs(x), 0)
    count = np.prod([x.shape[a] for a in axis])
    roundings = (count + 4) * EPSILON
    if operation in {"max", "min"}:
        return np.zeros(x.sum(axis).shape)
    if operation == "log_sum_exp":  # and exp and log have errors of 3e-7
        return roundings + 1e-6 + size.max(axis) * EPSILON
    if operation == "prod":
        return roundings * size.prod(axis)
    if operation in {"sum_square", "l2"}:
        squares = (size * size).sum(axis)
        return roundings * (squares if operation == "sum_square" else np.sqrt(squares))
    return roundings * size.sum(axis)


def numbers(seed: int, shape: tuple[int, ...], odd: bool) -> Any:
    generator = np.random.default_rng(seed)
    x = generator.standard_normal(shape).astype(np.float32)
    if odd:
        for value in ODD:
            if generator.random() < 0.6:
                x.ravel()[generator.integers(x.size)] = value
    return x


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    operation=st.sampled_from(sorted(OPERATIONS)),
    machine=st.sampled_from(harness.MACHINES),
    outer=st.integers(1, 3),
    rows=st.sampled_from([1, 2, 3, 7, 8, 9, 17, 40]),
    length=st.sampled_from([1, 2, 3, 5, 15, 16, 17, 31, 49, 64, 65, 100]),
    vectors=st.sampled_from([1, 2, 4]),
    kept=st.booleans(),
    guarded=st.booleans(),
    odd=st.booleans(),
    seed=st.integers(0, 99),
)
def test_rows_and_runs(
    operation: str, machine: Machine, outer: int, rows: int, length: int, vectors: int,
    kept: bool, guarded: bool, odd: bool, seed: int,
) -> None:  # fmt: skip
    x = numbers(seed, (outer, rows, length), odd)
    if operation == "prod":
        x = np.sign(x) * np.abs(x) ** np.float32(0.1)
    wide = harness.padded(x, guarded)
    pitch = wide.shape[-1]
    axis = (1,) if kept else (1, 2)
    y = harness.padded(np.zeros((outer, length) if kept else (outer,), np.float32), guarded or not kept)
    kernel = Reduce(
        operation,
        length,
        kept,
        (1, 1) if kept else (1, 0),
        reduced=((rows, (pitch, 0)),),
        outer=((outer, (rows * pitch, y.shape[-1] if kept else 1)),),
        guarded=guarded,
        vectors=vectors,
    )
    found = harness.run(kernel, machine, wide, y)
    found = found[:, :length] if kept else found
    exact = x.astype(np.float64)
    harness.close(found, reference(operation, exact, axis), bound(operation, exact, axis))


@pytest.mark.parametrize("machine", harness.MACHINES, ids=str)
def test_two_reduced_loops_an_epilogue_and_operands(machine: Machine) -> None:
    x = numbers(0, (3, 5, 4, 33), False)
    add = numbers(1, (5, 33), False)
    kernel = Reduce(
        "sum",
        33,
        True,
        (1, 1, 0, 1),
        reduced=((3, (5 * 4 * 33, 0, 0, 0)), (4, (33, 0, 0, 0))),
        outer=((5, (4 * 33, 33, 1, 33)),),
        guarded=True,
        epilogue=Apply("add", (Apply("mul", (Leaf(0), Leaf(2))), Apply("mul", (Leaf(1), Number(2.0))))),
        operands=2,
    )
    found = harness.run(kernel, machine, x, add, add[:, 0].copy(), np.zeros((5, 33), np.float32))
    exact = x.astype(np.float64).sum((0, 2)) * add[:, :1] + 2.0 * add
    harness.close(found, exact, 1e-5)


@pytest.mark.parametrize("machine", harness.MACHINES, ids=str)
@pytest.mark.parametrize("operation", ["mean", "max", "log_sum_exp"])
def test_places_that_the_mask_leaves_out_do_not_count(machine: Machine, operation: str) -> None:
    x = numbers(2, (6, 45), False)
    mask = (np.arange(45) % 9 != 8).astype(np.float32)
    wanted = reference(operation, x[:, mask > 0].astype(np.float64), (1,))
    x[:, mask == 0] = np.nan
    kernel = Reduce(operation, 45, False, (1, 1, 0), outer=((6, (45, 0, 1)),), count=int(mask.sum()), masked=True)
    harness.close(harness.run(kernel, machine, x, mask, np.zeros(6, np.float32)), wanted, 2e-6)


@pytest.mark.parametrize("machine", harness.MACHINES, ids=str)
def test_places_that_the_mask_leaves_out_are_not_written(machine: Machine) -> None:
    x = numbers(3, (7, 45), False)
    mask = (np.arange(45) % 9 != 8).astype(np.float32)
    kernel = Reduce("sum", 45, True, (1, 1, 1), reduced=((7, (45, 0, 0)),), masked=True, guarded=True)
    found = harness.run(kernel, machine, x, mask, np.full(45, 77.0, np.float32))
    assert (found[mask == 0] == 77.0).all()
    harness.close(found[mask > 0], x[:, mask > 0].astype(np.float64).sum(0), 1e-5)


@pytest.mark.parametrize("machine", harness.MACHINES, ids=str)
@pytest.mark.parametrize("kept", [True, False])
def test_a_run_with_gaps(machine: Machine, kept: bool) -> None:
    """Steps other than one are slow and right, and touch nothing behind the last number."""
    x = numbers(4, (3, 19, 5), False)
    y = np.zeros((19, 2) if kept else (1,), np.float32)
    kernel = Reduce("l2", 19, kept, (5, 2 if kept else 0), reduced=((3, (19 * 5, 0)),))
    found = harness.run(kernel, machine, x.ravel()[: 3 * 19 * 5 - 4], y.ravel()[:37] if kept else y)
    exact = (x[:, :, 0].astype(np.float64) ** 2).sum(0 if kept else (0, 1)) ** 0.5
    harness.close(found[::2] if kept else found[0], exact, 1e-5)


@pytest.mark.parametrize("machine", harness.MACHINES, ids=str)
@pytest.mark.parametrize("count", [2, 37, 41, 64])
def test_tasks_end_where_the_work_ends(machine: Machine, count: int) -> None:
    """Enough numbers for several tasks; 37 and 41 results are no multiple of what a task has."""
    x = numbers(5, (count, 4001), False)
    kernel = Reduce("sum", 4001, False, (1, 0), outer=((count, (4001, 1)),))
    exact = x.astype(np.float64)
    found = harness.run(kernel, machine, x, np.zeros(count, np.float32))
    harness.close(found, exact.sum(1), bound("sum", exact, (1,)))
