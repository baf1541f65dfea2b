"""Rounding to words of two bfloat16 numbers, and products of words, against numpy in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tvm")

from graphprune.targets.kernels.across import Across
from graphprune.targets.kernels.contract import Contract
from graphprune.targets.kernels.pairs import Pairs, packed, rounded
from tests.targets.kernels import harness
from tests.targets.kernels.test_contract import packed as tabled
from tests.targets.kernels.test_contract import product

ODD = np.array([0.0, -0.0, 1.0, -1.0, 3.4e38, -3.4e38, np.inf, -np.inf, np.nan, 1.00390625, 1.01171875], np.float32)
here = pytest.mark.skipif(not harness.PAIRS, reason="this processor has no AVX512_BF16")


def widened(halves: np.ndarray) -> np.ndarray:
    return (halves.astype(np.uint32) << np.uint32(16)).view(np.float32)


def nearest(numbers: np.ndarray) -> np.ndarray:
    return widened(rounded(numbers))


def unpacked(words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    bits = words.view(np.uint32)
    return widened(bits & np.uint32(0xFFFF)), widened(bits >> np.uint32(16))


@given(st.lists(st.floats(width=32), min_size=1, max_size=50))
def test_rounding_is_to_the_nearest_with_ties_to_even(numbers: list[float]) -> None:
    x = np.array(numbers, np.float32)
    found = nearest(x).astype(np.float64)
    assert np.array_equal(np.isnan(found), np.isnan(x))
    exact = x.astype(np.float64)
    inside = np.abs(exact) < 3.38e38
    _, exponent = np.frexp(exact)
    step = np.ldexp(1.0, np.maximum(exponent, -125) - 8)
    assert (np.abs(found - exact)[inside] <= step[inside] / 2).all()
    tied = inside & (np.abs(found - exact) == step / 2)
    assert not (rounded(x)[tied] & 1).any()


def test_weights_are_packed_in_pairs() -> None:
    even, odd = unpacked(packed(np.array([[1.0, 2.0, -3.0]], np.float32)))
    assert even.tolist() == [[1.0, -3.0]] and odd.tolist() == [[2.0, 0.0]]
    assert packed(np.array([[0.0, -0.0]], np.float32)).tolist() == [[0]]


@here
@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    machine=st.sampled_from(harness.PAIRS or [None]),
    outer=st.integers(1, 5),
    length=st.sampled_from([1, 3, 16, 17, 64, 100]),
    single=st.booleans(),
    seed=st.integers(0, 99),
)
def test_pairs(machine: harness.Machine, outer: int, length: int, single: bool, seed: int) -> None:
    generator = np.random.default_rng(seed)
    x = generator.choice([1.0, 1e3, 1e-3], (outer, 2, length)) * generator.standard_normal((outer, 2, length))
    x = x.astype(np.float32)
    x[0, 0, :1] = generator.choice(ODD)
    kernel = Pairs(length, length, ((outer, (2 * length, length)),), single)
    found = harness.run(kernel, machine, x, np.zeros((outer, length), np.int32)).reshape(outer, length)
    even, odd = unpacked(found)
    assert np.array_equal(even, nearest(x[:, 0]), equal_nan=True)
    assert np.array_equal(odd, 0 * odd if single else nearest(x[:, 1]), equal_nan=True)


@here
@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    machine=st.sampled_from(harness.PAIRS or [None]),
    across=st.booleans(),
    outputs=st.sampled_from([1, 7, 16, 33]),
    inputs=st.sampled_from([2, 7, 40]),
    length=st.sampled_from([1, 7, 16, 49, 100]),
    rows=st.sampled_from([1, 4, 6]),
    vectors=st.sampled_from([1, 2, 4]),
    parts=st.sampled_from([1, 2]),
    density=st.sampled_from([0.0, 0.3, 1.0]),
    seed=st.integers(0, 99),
)
def test_products(
    machine: harness.Machine, across: bool, outputs: int, inputs: int, length: int, rows: int, vectors: int, parts: int,
    density: float, seed: int,
) -> None:  # fmt: skip
    """The products of two bfloat16 numbers are exact in float32, so that only sums round."""
    generator = np.random.default_rng(seed)
    rows = 16 * min(vectors, 2) if across else rows
    groups = -(-outputs // rows)
    weight = generator.standard_normal((outputs, inputs)).astype(np.float32)
    weight *= np.repeat(generator.random((groups, inputs)) < density, rows, 0)[:outputs]
    x = np.zeros((inputs + inputs % 2, length), np.float32)
    x[:inputs] = generator.standard_normal((inputs, length))
    pitch = harness.pitch(length)
    words = np.zeros((len(x) // 2, pitch), np.int32)
    words[:, :length] = packed(np.ascontiguousarray(x.T)).T
    values, offsets, starts = tabled(packed(weight), rows, 1 if across else parts)
    wanted, size = product(nearest(weight), 1, nearest(x)[None, :inputs].astype(np.float64))
    arrays = [words, values.astype(np.int32), offsets * pitch, starts, np.zeros((outputs, pitch), np.float32)]
    kernel: Across | Contract
    if across:
        kernel = Across(outputs, length, pitch, rows, min(7, length), bias=False, numbers="bfloat16")
    else:
        kernel = Contract(
            outputs, length, pitch, rows, vectors, bias=False, parts=parts, numbers="bfloat16", guarded=True
        )
    found = harness.run(kernel, machine, *arrays).reshape(outputs, pitch)[None, :, :length]
    harness.close(found, wanted, (inputs + 4) * 2.0**-23 * size + 1e-30)
