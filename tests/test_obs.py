"""Optimal Brain Surgeon on groups of inputs: its errors are those of least squares, its order that of brute force."""

from __future__ import annotations

from itertools import combinations
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from graphprune.calibrate import Calibration, Gram
from graphprune.criteria import Part
from graphprune.criteria.obs import OBS
from graphprune.criteria.obspa import OBSPA
from graphprune.criteria.transfer import score_groups
from graphprune.dialects import tools_of
from tests.models import CASES
from tests.planning import case

RNG = np.random.default_rng(0)


def part(rows: np.ndarray, matrix: np.ndarray, width: int = 1) -> Part:
    """A layer whose inputs come `width` to an entry."""
    gram = Gram()
    gram.add(rows[:, None, :])
    labels = np.repeat(np.arange(matrix.shape[1] // width), width)[None]
    layer: Any = SimpleNamespace(name="w")
    return Part(layer, matrix[None], gram, labels, matrix.shape[1] // width)


def least_error(rows: np.ndarray, matrix: np.ndarray, kept: list[int]) -> float:
    """The squared error of the best weights on the kept inputs alone, as a share of the second moment of the output."""
    target = rows @ matrix.T
    found, *_ = np.linalg.lstsq(rows[:, kept], target, rcond=None)
    return float(np.square(target - rows[:, kept] @ found).sum() / np.square(target).sum())


def correlated(count: int, inputs: int) -> np.ndarray:
    return RNG.standard_normal((count, inputs)) @ RNG.standard_normal((inputs, inputs))


@pytest.mark.parametrize("width", [1, 3])
def test_scores_add_up_to_the_error_of_least_squares(width: int) -> None:
    rows, matrix = correlated(400, 6 * width), RNG.standard_normal((5, 6 * width))
    score = OBS(dampening=0).together([part(rows, matrix, width)])
    order = np.argsort(score, kind="stable")
    for removed in (1, 2, 3):
        kept = [r for r in range(6 * width) if r // width not in order[:removed]]
        error = least_error(rows, matrix, kept)
        assert score[order[:removed]].sum() == pytest.approx(error, rel=0.35)  # made non-decreasing: an upper bound
        assert score[order[:removed]].sum() >= error * (1 - 1e-9)
    assert score[order[0]] == pytest.approx(least_error(rows, matrix, kept_without(order[:1], 6, width)), rel=1e-6)


def kept_without(removed: Any, size: int, width: int) -> list[int]:
    return [r for r in range(size * width) if r // width not in set(removed)]


def test_the_first_to_go_is_that_of_brute_force() -> None:
    for _ in range(10):
        rows, matrix = correlated(200, 7), RNG.standard_normal((4, 7))
        errors = [least_error(rows, matrix, kept_without([c], 7, 1)) for c in range(7)]
        assert int(np.argmin(OBS(dampening=0).together([part(rows, matrix)]))) == int(np.argmin(errors))


def test_a_norm_would_choose_otherwise() -> None:
    """The control: an input that another one can replace goes first, however large its weights."""
    rows = RNG.standard_normal((300, 5))
    rows[:, 4] = rows[:, 3] + 0.01 * RNG.standard_normal(300)
    matrix = RNG.standard_normal((4, 5))
    matrix[:, 4] *= 10
    assert int(np.argmin(OBS(dampening=0).together([part(rows, matrix)]))) in {3, 4}
    assert int(np.argmin(np.abs(matrix).sum(axis=0))) not in {4}


def test_two_readers_count_together() -> None:
    rows, first, second = correlated(300, 5), RNG.standard_normal((3, 5)), RNG.standard_normal((6, 5))
    score = OBS(dampening=0).together([part(rows, first), part(rows, second)])
    total = [
        least_error(rows, first, kept_without([c], 5, 1)) + least_error(rows, second, kept_without([c], 5, 1))
        for c in range(5)
    ]
    assert int(np.argmin(score)) == int(np.argmin(total))


def test_greedy_pairs_are_close_to_the_best_pair() -> None:
    rows, matrix = correlated(300, 6), RNG.standard_normal((4, 6))
    order = np.argsort(OBS(dampening=0).together([part(rows, matrix)]), kind="stable")
    best = min(least_error(rows, matrix, kept_without(pair, 6, 1)) for pair in combinations(range(6), 2))
    assert least_error(rows, matrix, kept_without(order[:2], 6, 1)) <= 2 * best


def test_few_samples_are_damped_and_do_not_fail() -> None:
    rows, matrix = correlated(3, 8), RNG.standard_normal((4, 8))
    assert np.isfinite(OBS().together([part(rows, matrix)])).all()


def test_large_groups_go_in_steps_and_keep_their_order_of_magnitude() -> None:
    rows, matrix = correlated(600, 200), RNG.standard_normal((8, 200))
    score = OBS().together([part(rows, matrix)])
    order = np.argsort(score, kind="stable")
    assert least_error(rows, matrix, kept_without(order[:60], 200, 1)) < least_error(
        rows, matrix, kept_without(order[-60:], 200, 1)
    )


@pytest.mark.parametrize("name", CASES)
def test_scores_of_every_case_are_finite_or_there_are_none(name: str) -> None:
    analysis = case(name)
    tools = tools_of(analysis.program.native)
    cases = next(iter(tools.cases(analysis.program.native, 0, {"batch": 4}, 2)))
    calibration = Calibration(cases)
    scores = score_groups(analysis, analysis.groups, criterion="obs", normalize="none", calibration=calibration)
    assert set(scores) <= {group.dim for group in analysis.groups}
    assert all(np.isfinite(each).all() and each.min() >= 0 for each in scores.values())


def test_errors_are_counted_behind_the_batch_norm() -> None:
    """An output that the norm behind it makes small does not decide what goes."""
    rows, matrix = correlated(300, 5), RNG.standard_normal((2, 5))
    plain = part(rows, matrix)
    quiet = Part(plain.layer, plain.matrices, plain.statistic, plain.labels, plain.size, np.array([[1.0, 1e-4]]))
    alone = part(rows, matrix[:1])
    order = np.argsort(OBS().together([quiet]))
    assert np.array_equal(order, np.argsort(OBS().together([alone])))
    assert np.allclose(OBS().together([quiet]), OBS().together([alone]), rtol=1e-3)
    assert not np.allclose(OBS().together([plain]), OBS().together([alone]), rtol=1e-3)


# OBSPA


def test_obspa_is_the_error_of_each_weight_when_its_row_is_refitted() -> None:
    """Brute force: every weight is removed alone, and the others of its row are fitted anew."""
    rows, matrix = correlated(300, 6), RNG.standard_normal((4, 6))
    errors = np.zeros(6)
    for column in range(6):
        others = [c for c in range(6) if c != column]
        for weight in matrix:
            found, *_ = np.linalg.lstsq(rows[:, others], target := rows @ weight, rcond=None)
            errors[column] += np.square(target - rows[:, others] @ found).sum()
    errors /= np.square(rows @ matrix.T).sum()
    np.testing.assert_allclose(OBSPA(dampening=0).entries(part(rows, matrix)), errors, rtol=1e-6)
    together = OBSPA(dampening=0).entries(part(rows, matrix, 2))
    np.testing.assert_allclose(together, errors.reshape(3, 2).sum(axis=1), rtol=1e-6)


def test_obspa_knows_what_another_can_replace_and_a_norm_does_not() -> None:
    rows, matrix = RNG.standard_normal((300, 5)), RNG.standard_normal((4, 5))
    rows[:, 4] = rows[:, 3] + 0.01 * RNG.standard_normal(300)
    matrix[:, 4] *= 10
    score = OBSPA().entries(part(rows, matrix))
    assert score[4] < score[:3].min() and np.square(matrix).sum(axis=0).argmax() == 4
