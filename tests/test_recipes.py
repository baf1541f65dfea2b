"""Recipes: options that go together, chosen by what there is."""

from __future__ import annotations

import pytest

import graphprune as gp
from graphprune.calibrate import Calibration
from graphprune.errors import GraphPruneError
from graphprune.recipes import DATA, NOISE, NOTHING, RECIPES, recipe_of
from tests.recover.networks import data, residual
from tests.recover.test_recover import output_error


def test_auto_takes_what_there_is() -> None:
    assert recipe_of("auto", NOTHING)[0] == RECIPES["magnitude"]
    assert recipe_of("auto", DATA)[0] == RECIPES["reconstruct"]
    noise, told = recipe_of("auto", NOISE)
    assert noise == RECIPES["magnitude"]
    assert "noise" in told


def test_noise_is_not_taken_for_data() -> None:
    calibration = Calibration(data(1), data_free=True)
    assert gp.prune(residual(), macs=0.6, recipe="auto", calibration=calibration).plan.options["criterion"] == "l2"


def test_what_a_recipe_needs_is_said() -> None:
    with pytest.raises(GraphPruneError, match="reconstruct") as caught:
        recipe_of("reconstruct", NOTHING)
    assert caught.value.code == "GP704"
    with pytest.raises(GraphPruneError, match="reconstruct") as caught:
        recipe_of("reconstruckt", NOTHING)
    assert caught.value.code == "GP106"


def test_the_recipe_for_data_beats_that_without_on_a_network_with_structure() -> None:
    dense, cases = residual(), data()
    found = {
        name: gp.prune(dense, macs=0.6, recipe=name, calibration=cases) for name in ("magnitude", "reconstruct", "auto")
    }
    errors = {name: output_error(dense, result.model, data(seed=3)) for name, result in found.items()}
    assert errors["reconstruct"] < 0.5 * errors["magnitude"]
    assert errors["auto"] == errors["reconstruct"]
    assert any("recipe reconstruct (there is calibration data)" in note for note in found["auto"].report.notes)
    assert found["auto"].plan.options["recover"] == ["gauss_newton"]


def test_what_is_given_beside_a_recipe_comes_first() -> None:
    result = gp.prune(residual(), macs=0.6, recipe="magnitude", criterion="l1")
    assert result.plan.options["criterion"] == "l1"
