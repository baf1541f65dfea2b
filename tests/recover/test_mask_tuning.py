"""Factors of channels, held against least squares over the products of each channel, and on data that nobody saw."""

from __future__ import annotations

import numpy as np
import pytest

import graphprune as gp
from graphprune.recover.mask_tuning import scaled
from tests.recover.networks import data, residual
from tests.recover.test_recover import output_error


@pytest.mark.parametrize("loose", [True, False])
@pytest.mark.parametrize("taps", [1, 3])
def test_the_factors_are_those_of_brute_force(taps: int, loose: bool) -> None:
    """Each channel's products with its weights are one column; what is added, a column of ones for each output."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((60, 4 * taps)) + 0.5
    ones = np.concatenate([rows, np.ones((60, 1))], axis=1)
    weight, target = rng.standard_normal((4 * taps, 5)), rng.standard_normal((60, 5)) + 2
    old = np.concatenate([weight, np.zeros((1, 5))])
    columns = [(rows[:, k * taps : (k + 1) * taps] @ weight[k * taps : (k + 1) * taps]).reshape(-1) for k in range(4)]
    columns += [np.tile(np.eye(5)[k], 60) for k in range(5)] if loose else []
    best = np.linalg.lstsq(np.stack(columns, axis=1), target.reshape(-1), rcond=None)[0]
    found = scaled(ones.T @ ones, ones.T @ target, old, 0.0, taps, loose)
    assert np.allclose(found[:-1], weight * np.repeat(best[:4], taps)[:, None], atol=1e-6)
    assert np.allclose(found[-1], best[4:] if loose else 0, atol=1e-6)


def test_a_large_ridge_keeps_the_weights() -> None:
    rng = np.random.default_rng(1)
    rows, old = rng.standard_normal((30, 6)), np.concatenate([rng.standard_normal((5, 3)), np.zeros((1, 3))])
    rows[:, -1] = 1
    found = scaled(rows.T @ rows, rows.T @ rng.standard_normal((30, 3)), old, 1e9, 1, False)
    assert np.allclose(found, old, atol=1e-6)


def test_tuned_networks_are_closer_and_keep_their_directions() -> None:
    dense = residual()
    plain = gp.prune(dense, macs=0.6, calibration=data())
    tuned = gp.prune(dense, macs=0.6, calibration=data(), recover="mask_tuning")
    assert output_error(dense, tuned.model, data(seed=5)) < 0.7 * output_error(dense, plain.model, data(seed=5))
    assert "mask_tuning: " in str(tuned.report)
    one, two = (each.model.graph.initializers["b0"].const_value.numpy() for each in (plain, tuned))
    ratio = two / one
    assert np.allclose(ratio, ratio[:1, :, :1, :1], rtol=1e-3)  # one number for each input channel
    assert np.ptp(ratio) > 0.01


def test_biases_are_not_fitted_twice() -> None:
    with pytest.raises(gp.GraphPruneError, match="GP107"):
        gp.prune(residual(), macs=0.6, calibration=data(2), recover="mask_tuning,bias")
