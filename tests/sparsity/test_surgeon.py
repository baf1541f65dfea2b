"""The closed forms for zeros, held against brute force: every subset of columns solved by itself."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphprune.criteria.obs import inverse
from graphprune.formats import parse
from graphprune.sparsity.columns import Columns
from graphprune.sparsity.surgeon import constrained, factor, losses, sweep


def problem(seed: int, outputs: int = 3, columns: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """The minimum without zeros, and a Gram matrix of correlated inputs."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((40, columns)) @ rng.standard_normal((columns, columns))
    return rng.standard_normal((outputs, columns)), rows.T @ rows / 40 + 0.01 * np.eye(columns)


def error(start: np.ndarray, hessian: np.ndarray, weights: np.ndarray) -> np.ndarray:
    gap = weights - start
    return np.einsum("oi,ij,oj->o", gap, hessian, gap)


def solved(start: np.ndarray, hessian: np.ndarray, free: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    """One output by brute force: the columns that are free at their best, the others as they are fixed."""
    root = np.linalg.cholesky(hessian).T  # the error is |root (w - start)|^2
    target = root @ (start - np.where(free, 0, fixed))
    found = fixed.copy()
    found[free] = np.linalg.lstsq(root[:, free], target, rcond=None)[0]
    return found


@pytest.mark.parametrize("seed", range(5))
def test_the_loss_of_a_weight_is_what_its_removal_costs(seed: int) -> None:
    start, hessian = problem(seed)
    found = Columns(1, 8).losses(start, inverse(hessian))
    for row, column in itertools.product(range(3), range(8)):
        free = np.arange(8) != column
        best = solved(start[row], hessian, free, np.zeros(8))
        assert found[row, column] == pytest.approx(error(start[row][None], hessian, best[None])[0], rel=1e-7)


def test_the_loss_of_a_block_is_what_its_removal_costs() -> None:
    """Blocks of three of eight channels in two taps: two whole ones and a smaller one in each."""
    start, hessian = problem(0, 2, 16)
    found = Columns(2, 8, 3).losses(start, inverse(hessian))
    blocks = [tap * 8 + np.arange(begin, min(8, begin + 3)) for tap in (0, 1) for begin in (0, 3, 6)]
    for row, block in itertools.product(range(2), blocks):
        best = solved(start[row], hessian, ~np.isin(np.arange(16), block), np.zeros(16))
        assert found[row, block].sum() == pytest.approx(error(start[row][None], hessian, best[None])[0], rel=1e-7)
        assert np.allclose(found[row, block], found[row, block[0]])


def test_the_losses_of_another_hessian_are_others() -> None:
    start, hessian = problem(1)
    places, squares = np.arange(8)[:, None], np.ones((8, 1, 1))
    assert np.allclose(losses(start, places, squares)[:, :, 0], start**2)
    assert not np.allclose(Columns(1, 8).losses(start, inverse(hessian)), start**2)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**20), st.integers(1, 12), st.integers(1, 12))
def test_the_sweep_is_surgery_in_the_order_of_columns(seed: int, columns: int, step: int) -> None:
    """Each zero is made up for by the columns behind it at their best, whatever the spans."""
    start, hessian = problem(seed, 3, columns)
    kept = np.random.default_rng(seed).random((3, columns)) < 0.5
    begins = list(range(0, columns, step))
    spans = list(zip(begins, [*begins[1:], columns], strict=True))
    found, mask = sweep(start, factor(hessian), spans, lambda number, *_: kept[:, slice(*spans[number])])
    assert np.array_equal(mask, kept)
    for row in range(3):
        expected = start[row].copy()
        for column in range(columns):
            if not kept[row, column]:
                expected[column] = 0
                expected = solved(start[row], hessian, np.arange(columns) > column, expected)
        assert np.allclose(found[row], expected, atol=1e-6 * np.abs(start).max())


def test_columns_behind_the_spans_make_up_and_stay() -> None:
    start, hessian = problem(3)
    found, mask = sweep(start, factor(hessian), [(0, 4)], lambda *_: np.zeros((3, 4), bool))
    assert not found[:, :4].any() and mask[:, 4:].all()
    for row in range(3):
        assert np.allclose(found[row], solved(start[row], hessian, np.arange(8) >= 4, np.zeros(8)))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**20), st.integers(1, 10))
def test_least_squares_with_zeros_has_no_slope_where_weights_are_kept(seed: int, columns: int) -> None:
    start, hessian = problem(seed, 4, columns)
    kept = np.random.default_rng(seed).random((4, columns)) < 0.5
    kept[1] = kept[0]  # a pattern that two outputs share
    found = constrained(start, hessian, kept)
    slope = (found - start) @ hessian
    assert not found[~kept].any()
    assert np.abs(slope[kept]).max(initial=0) < 1e-8 * np.abs(start @ hessian).max()
    swept, _ = sweep(start, factor(hessian), [(0, columns)], lambda *_: kept)
    least, rest = error(start, hessian, found), np.where(kept, start, 0)
    assert np.all(least <= error(start, hessian, swept) * (1 + 1e-9) + 1e-12)
    assert np.all(least <= error(start, hessian, rest) * (1 + 1e-9) + 1e-12)


def test_surgery_is_better_than_zeros_alone_where_inputs_are_like_their_neighbours() -> None:
    start = np.random.default_rng(4).standard_normal((16, 32))
    hessian = 0.8 ** np.abs(np.subtract.outer(np.arange(32), np.arange(32)))
    costs = Columns(1, 32).losses(start, inverse(hessian))
    kept = costs > np.median(costs)
    swept, _ = sweep(start, factor(hessian), [(0, 32)], lambda *_: kept)
    assert error(start, hessian, swept).sum() < 0.7 * error(start, hessian, np.where(kept, start, 0)).sum()


@pytest.mark.parametrize(
    ("text", "taps", "channels", "spans"),
    [
        ("unstructured", 9, 16, [(0, 144)]),
        ("unstructured", 9, 32, [(0, 160), (160, 288)]),
        ("unstructured", 1, 300, [(0, 128), (128, 256), (256, 300)]),
        ("4x3", 1, 300, [(0, 126), (126, 252), (252, 300)]),
        ("2:4", 3, 130, [(0, 128), (128, 130), (130, 258), (258, 260), (260, 388), (388, 390)]),
        ("balanced/192", 1, 400, [(0, 192), (192, 384), (384, 400)]),
        ("tile/8", 1, 300, [(0, 300)]),
        ("pattern:4/8", 9, 64, [(0, 576)]),
    ],
)
def test_spans_end_where_the_format_has_its_borders(
    text: str, taps: int, channels: int, spans: list[tuple[int, int]]
) -> None:
    assert Columns(taps, channels).spans(parse(text)) == spans


def test_columns_are_in_the_order_of_formats() -> None:
    inputs = np.arange(6).reshape(2, 3)  # channels, taps
    assert np.array_equal(inputs.reshape(-1)[Columns(3, 2).order], [0, 3, 1, 4, 2, 5])
