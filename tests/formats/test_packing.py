"""Packed weights come back bit by bit, and their bytes are those of the arrays that are stored."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphprune.errors import GraphPruneError
from graphprune.formats import FORMATS, parse
from graphprune.formats.format import Array

TEXTS = [
    "unstructured", "1x1", "4x1", "8x1", "1x4", "3x2", "16x16", "2:4", "1:3", "4:8", "3:32", "2:4/4", "1:4/8", "3:5/3",
    "balanced/4", "balanced/32", "balanced/7", "tile/2", "tile/5", "tile/64", "pattern:4/8", "pattern:2/3",
]  # fmt: skip


def special(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Array:
    """Numbers of all kinds: negative zeros, several kinds of NaN, infinities."""
    size = int(np.prod(shape))
    bits = rng.integers(0, 256, size * np.dtype(dtype).itemsize, dtype=np.uint8)
    weights = bits.view(dtype).copy()
    if weights.dtype.kind == "f":
        weights[rng.random(size) < 0.2] = -0.0
        weights[rng.random(size) < 0.1] = np.nan
    return weights.reshape(shape)


def same_bits(a: Array, b: Array) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(TEXTS),
    st.tuples(st.integers(1, 20), st.sampled_from([0, 1, 2, 9]), st.integers(1, 40)),
    st.sampled_from(["f4", "f2", "f8", "i1"]),
    st.sampled_from([0.0, 0.3, 0.7, 0.95, 1.0]),
    st.integers(0, 2**32),
)
def test_round_trip(text: str, size: tuple[int, int, int], dtype: str, share: float, seed: int) -> None:
    form, rng = parse(text), np.random.default_rng(seed)
    outputs, taps, channels = size
    shape = (outputs, channels) if not taps else (outputs, taps, channels)
    if form.name == "pattern" and form.misfit(outputs, max(1, taps), channels):
        return
    mask = form.project(rng.random(shape), form.sparsity or share)
    weights = special(rng, shape, dtype)
    packed = form.pack(weights, mask)
    assert same_bits(form.unpack(packed), np.where(mask, weights, np.zeros((), weights.dtype)))
    assert packed.format == str(form)
    assert packed.bytes == sum(array.nbytes for array in packed.arrays.values())
    assert form.bytes(mask, weights.itemsize) == packed.bytes


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(TEXTS), st.integers(1, 12), st.sampled_from([1, 9]), st.integers(1, 24), st.integers(0, 2**32))
def test_a_cover_keeps_all_and_can_be_stored(text: str, outputs: int, taps: int, channels: int, seed: int) -> None:
    form, rng = parse(text), np.random.default_rng(seed)
    mask = rng.random((outputs, taps, channels)) < 0.2
    covered = form.cover(mask)
    assert form.stored(mask) == (None if covered is None else np.count_nonzero(covered))
    if covered is None:
        assert form.name in {"nm", "vector_nm", "pattern"}
        return
    assert form.holds(covered)
    assert not np.any(mask & ~covered)
    weights = special(rng, mask.shape, "f4")
    weights = np.where(mask, weights, np.float32(0))
    assert same_bits(form.unpack(form.pack(weights, covered)), weights)


def test_masks_with_free_slots_are_packed_as_they_are() -> None:
    weights = np.array([[1.0, 2.0, 3.0, 4.0]], np.float32)
    mask = np.array([[False, False, True, False]])
    packed = parse("2:4").pack(weights, mask)
    assert packed.arrays["values"].reshape(-1).tolist() == [0.0, 3.0]
    assert parse("2:4").unpack(packed).tolist() == [[0.0, 0.0, 3.0, 0.0]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("unstructured", 512 * 4 + 512 * 1 + 17 * 4),  # columns below 256 have one byte
        ("8x1", 64 * 8 * 4 + 64 * 1 + 3 * 4),
        ("16x16", 2 * 256 * 4 + 2 * 1 + 2 * 4),
        ("2:4", 16 * 64 * 4 + 16 * 64 * 2 // 8),  # two bits for each slot, no counts
        ("2:4/8", 16 * 64 * 4 + 2 * 64 * 2 // 8),
        ("balanced/32", 16 * 4 * 8 * 4 + 16 * 4 * 8 * 5 // 8 + 2),
        ("tile/8", 64 * 8 * 4 + 16 * 1 + 64 * 1 + 2 * 3 * 4),
    ],
)
def test_bytes_are_these(text: str, expected: int) -> None:
    """16 outputs, 128 inputs, a quarter kept (a half of 2:4)."""
    form = parse(text)
    mask = form.project(np.random.default_rng(0).random((16, 128)), form.sparsity or 0.75)
    assert form.bytes(mask, 4) == expected


def test_bytes_of_patterns() -> None:
    form = parse("pattern:4/8")
    mask = form.project(np.random.default_rng(0).random((16, 9, 32)), 0.8)
    kernels = 16 * round(0.2 * 32 * 9 / 4)
    patterns = len(form.pack(np.zeros(mask.shape), mask).arrays["library"])
    assert patterns <= 8
    assert form.bytes(mask, 2) == kernels * 4 * 2 + kernels * 2 + patterns * 2


@pytest.mark.parametrize("text", TEXTS)
def test_a_mask_of_no_such_format_is_refused(text: str) -> None:
    form = parse(text)
    if text in {"unstructured", "1x1"}:
        return
    mask = np.random.default_rng(3).random((24, 9, 64)) < 0.5
    assert not form.holds(mask)
    with pytest.raises(GraphPruneError, match=f"GP107 the mask is not one of the format {text}"):
        form.pack(np.zeros(mask.shape, np.float32), mask)


def test_weights_of_another_shape_are_refused() -> None:
    with pytest.raises(GraphPruneError, match="GP107 the shapes differ"):
        parse("unstructured").pack(np.zeros((2, 3)), np.ones((3, 2), bool))


def test_all_kinds_are_tried_here() -> None:
    assert {parse(text).name for text in TEXTS} == set(FORMATS.builtin)
