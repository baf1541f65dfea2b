"""Rows of a table by number, and copies that turn rows into columns: not a bit may change."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tvm")

from graphprune.targets.kernels.copy import Turn
from graphprune.targets.kernels.gather import Gather
from graphprune.targets.kernels.tir import Machine
from tests.targets.kernels import harness


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    machine=st.sampled_from(harness.MACHINES),
    batch=st.integers(1, 2),
    tokens=st.sampled_from([1, 2, 7, 15, 16, 17, 33]),
    features=st.sampled_from([1, 3, 8, 16, 17, 40, 64, 65]),
    rows=st.sampled_from([1, 2, 50]),
    gap=st.integers(0, 3),
    dtype=st.sampled_from(["int64", "int32"]),
    how=st.sampled_from(["rows", "columns", "neither"]),
    guarded=st.booleans(),
    seed=st.integers(0, 99),
)
def test_gather(
    machine: Machine, batch: int, tokens: int, features: int, rows: int, gap: int, dtype: str, how: str,
    guarded: bool, seed: int,
) -> None:  # fmt: skip
    generator = np.random.default_rng(seed)
    table = generator.standard_normal((rows, features + gap)).astype(np.float32)
    table[0, 0] = np.nan
    index = generator.integers(-rows, rows, (batch, tokens)).astype(dtype)
    pitch = tokens if guarded else harness.pitch(tokens)
    shape, token, feature = {
        "rows": ((batch, tokens, features), features, 1),
        "columns": ((batch, features, pitch), 1, pitch),
        "neither": ((batch, features, tokens, 2), 2, 2 * tokens),
    }[how]
    kernel = Gather(
        ((batch, (tokens, int(np.prod(shape[1:])))), (tokens, (1, token))),
        features,
        rows,
        features + gap,
        feature,
        dtype,
        guarded,
    )
    found = harness.run(kernel, machine, index, table.ravel()[: table.size - gap], np.zeros(shape, np.float32))
    wanted = table[:, :features][index]
    if how == "columns":
        found = found[:, :, :tokens].transpose(0, 2, 1)
    elif how == "neither":
        assert not found[..., 1].any()
        found = found[..., 0].transpose(0, 2, 1)
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("machine", harness.MACHINES, ids=str)
@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_numbers_outside_of_the_table_take_its_ends(machine: Machine, dtype: str) -> None:
    table = np.arange(30, dtype=np.float32).reshape(10, 3)
    limits = np.iinfo(dtype)
    index = np.array([9, 10, 11, 2**31 - 1, limits.max, -10, -11, -(2**31), limits.min], dtype)
    for tokens, feature in ((3, 1), (1, len(index))):
        kernel = Gather(((len(index), (1, tokens)),), 3, 10, 3, feature, dtype, guarded=True)
        found = harness.run(kernel, machine, index, table, np.zeros(27, np.float32))
        found = found.reshape(-1, 3) if feature == 1 else found.reshape(3, -1).T
        np.testing.assert_array_equal(found, table[[9, 9, 9, 9, 9, 0, 0, 0, 0]])


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    machine=st.sampled_from(harness.MACHINES),
    outer=st.integers(1, 3),
    rows=st.sampled_from([1, 2, 7, 15, 16, 17, 33, 64]),
    columns=st.sampled_from([1, 3, 8, 16, 17, 40, 64]),
    gap=st.integers(0, 3),
    guarded=st.booleans(),
)
def test_turn(machine: Machine, outer: int, rows: int, columns: int, gap: int, guarded: bool) -> None:
    x = np.arange(outer * rows * (columns + gap), dtype=np.float32).reshape(outer, rows, columns + gap)
    turned = rows + gap if guarded else harness.pitch(rows)
    y = np.full((outer, columns, turned), 77.0, np.float32)
    kernel = Turn(rows, columns, columns + gap, turned, ((outer, (x[0].size, y[0].size)),), guarded)
    found = harness.run(kernel, machine, x, y)
    np.testing.assert_array_equal(found[:, :, :rows], x[:, :, :columns].transpose(0, 2, 1))
    if guarded:
        assert (found[:, :, rows:] == 77.0).all()
