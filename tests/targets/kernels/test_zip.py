"""Interleaving two rows, and every second number of one, against numpy, at the edge of readable memory."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tvm")

from graphprune.targets.kernels.tir import Machine
from graphprune.targets.kernels.zip import Unzip, Zip
from tests.targets.kernels import harness

LENGTHS = st.sampled_from([1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 32, 33, 50])


@settings(max_examples=40, deadline=None, derandomize=True)
@given(machine=st.sampled_from(harness.MACHINES), outer=st.integers(1, 3), length=LENGTHS, repeated=st.booleans())
def test_zip(machine: Machine, outer: int, length: int, repeated: bool) -> None:
    x = np.arange(outer * 2 * length, dtype=np.float32).reshape(outer, 2, length)
    kernel = Zip(length, 0 if repeated else length, ((outer, (2 * length, 2 * length)),))
    found = harness.run(kernel, machine, x, np.zeros((outer, length, 2), np.float32))
    rows = np.stack([x[:, 0], x[:, 0]], 1) if repeated else x
    assert np.array_equal(found.reshape(outer, length, 2), rows.transpose(0, 2, 1))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(machine=st.sampled_from(harness.MACHINES), outer=st.integers(1, 3), length=LENGTHS)
def test_unzip(machine: Machine, outer: int, length: int) -> None:
    size = 2 * length - 1  # the last number that is taken is the last there is
    x = np.arange(outer * size, dtype=np.float32).reshape(outer, size)
    kernel = Unzip(length, ((outer, (size, length)),))
    found = harness.run(kernel, machine, x, np.zeros((outer, length), np.float32))
    assert np.array_equal(found.reshape(outer, length), x[:, ::2])
