"""Zeros that are there already: the format that made them is found, and none where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from graphprune.formats import parse
from graphprune.formats.format import Array
from graphprune.formats.recognise import MOST, _blocks, largest_block, recognise


def sparse(text: str, share: float | None, shape: tuple[int, ...] = (256, 256), seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    form = parse(text)
    weights = rng.standard_normal(shape).astype(np.float32)
    mask = form.project(np.abs(weights), form.sparsity or share)
    return np.where(mask, weights, np.float32(0))


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("2:4", None), ("1:4", None), ("1:8", None), ("4:8", None), ("2:4/4", None), ("2:4/8", None), ("1:8/8", None),
        ("4x1", 0.9), ("8x1", 0.8), ("16x1", 0.9), ("16x16", 0.7), ("32x32", 0.5), ("1x8", 0.9), ("balanced/32", 0.9),
        ("balanced/64", 0.75),
    ],
)  # fmt: skip
def test_what_was_made_is_recognised_first(text: str, share: float | None) -> None:
    matrix = sparse(text, share)
    first = recognise(matrix)[0]
    assert str(first.format) == text
    assert first.sparsity == pytest.approx(np.mean(matrix == 0), abs=1e-9)
    assert first.explained == pytest.approx(1.0)


def test_patterns_are_recognised() -> None:
    matrix = sparse("pattern:4/8", 0.7, (64, 9, 32))
    assert "pattern:4/12" in [str(each.format) for each in recognise(matrix)]
    names = [each.format.name for each in recognise(sparse("unstructured", 0.7, (64, 9, 32)))]
    assert "pattern" not in names


def test_tiles_are_recognised() -> None:
    matrix = sparse("tile/64", 0.8)
    found = [str(each.format) for each in recognise(matrix)]
    assert {"tile/64", "tile/32"} <= set(found)
    assert "tile/128" not in found


@pytest.mark.parametrize("share", [0.5, 0.9, 0.98])
def test_scattered_zeros_are_unstructured_and_nothing_else(share: float) -> None:
    found = recognise(sparse("unstructured", share))
    assert [str(each.format) for each in found] == ["unstructured"]
    assert found[0].sparsity == pytest.approx(share, abs=1e-4)


def test_a_few_zeros_among_kept_blocks_do_not_hide_them() -> None:
    matrix = sparse("8x1", 0.9)
    matrix[np.unravel_index(np.flatnonzero(matrix)[:20], matrix.shape)] = 0
    first = recognise(matrix)[0]
    assert str(first.format) == "8x1"
    assert MOST <= first.explained < 1


def test_the_largest_block_is_the_one_that_explains_most() -> None:
    found = largest_block(sparse("16x16", 0.75))
    assert found is not None
    assert str(found.format) == "16x16"
    assert largest_block(sparse("unstructured", 0.9)) is None


@pytest.mark.parametrize("shape", [(37, 1, 50), (24, 9, 12), (5, 2, 3)])
def test_blocks_are_counted_as_they_cover(shape: tuple[int, int, int]) -> None:
    """The fast count of all blocks, each from one half its size, against the mask of each block."""
    mask = np.random.default_rng(0).random(shape) < 0.02
    mask[0, 0, 0] = True
    for each in _blocks(mask):
        covered = each.format.cover(mask)
        assert covered is not None
        assert each.sparsity == pytest.approx(1 - np.mean(covered))
        assert each.filled == pytest.approx(mask.sum() / covered.sum())


def test_nothing_zero_and_everything_zero_have_no_format() -> None:
    assert recognise(np.ones((8, 8))) == []
    assert recognise(np.zeros((8, 8))) == []
    assert recognise(np.full((8, 8), np.nan)) == []


def test_negative_zeros_are_zeros() -> None:
    matrix = sparse("8x1", 0.9)
    assert str(recognise(np.where(matrix == 0, np.float32(-0.0), matrix))[0].format) == "8x1"
