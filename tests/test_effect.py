"""Scores by what they do to the outputs: the unit is the error of the outputs, and it is really measured."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

import graphprune as gp
from graphprune.analysis import Analysis
from graphprune.calibrate import Calibration, Gram
from graphprune.criteria.effect import refitted
from graphprune.criteria.obs import OBS
from graphprune.criteria.transfer import read_parts, score_groups
from graphprune.dialects import tools_of
from graphprune.errors import GraphPruneError
from tests.recover.networks import data, residual


def scored(dense: ir.Model, normalize: str) -> tuple[Analysis, dict[str, np.ndarray]]:
    analysis = gp.analyze(dense)
    scores = score_groups(
        analysis, analysis.groups, criterion="obs", normalize=normalize, calibration=Calibration(data())
    )
    return analysis, {group.name: scores[group.dim] for group in analysis.groups if group.dim in scores}


def louder(dense: ir.Model, name: str, factor: float) -> ir.Model:
    copy = dense.clone()
    value = copy.graph.initializers[name]
    value.const_value = ir.tensor(value.const_value.numpy() * np.float32(factor), name=name)
    return copy


def test_orders_inside_groups_stay() -> None:
    _, plain = scored(residual(), "none")
    _, weighed = scored(residual(), "effect")
    for name, score in plain.items():
        assert np.array_equal(np.argsort(score, kind="stable"), np.argsort(weighed[name], kind="stable"))


def test_the_less_important_half_adds_up_to_the_measured_error() -> None:
    dense = residual()
    analysis, weighed = scored(dense, "effect")
    (group,) = [each for each in analysis.groups if each.name == "a1:0"]
    gone = np.argsort(weighed["a1:0"], kind="stable")[:6]
    calibration = Calibration(data())
    (part,) = read_parts(analysis, [group], OBS(), calibration, 0)[group.dim]
    new = part.layer.weights(refitted(part, gone)).astype(np.float32)
    changed = tools_of(dense).with_stored(analysis.program, {"b1": new})
    one, two = tools_of(dense).runner(dense), tools_of(dense).runner(changed)
    errors = [np.square(one(c)[0] - two(c)[0]).mean() / np.var(one(c)[0]) for c in calibration.cases[:4]]
    assert weighed["a1:0"][gone].sum() == pytest.approx(np.mean(errors), rel=1e-3)


def test_a_group_whose_loss_hardly_reaches_the_output_counts_less() -> None:
    """The second block reads the first; made quiet, its groups lose importance, which no relative error would show."""
    _, before = scored(residual(), "effect")
    _, after = scored(louder(residual(), "b1", 0.01), "effect")
    _, relative = scored(louder(residual(), "b1", 0.01), "none")
    _, plain = scored(residual(), "none")
    assert after["a1:0"].sum() < 0.01 * before["a1:0"].sum()
    assert relative["a1:0"].sum() == pytest.approx(plain["a1:0"].sum(), rel=1e-3)


def test_the_model_is_what_it_was() -> None:
    dense = residual()
    before = {name: value.const_value.numpy().tobytes() for name, value in dense.graph.initializers.items()}
    scored(dense, "effect")
    assert before == {name: value.const_value.numpy().tobytes() for name, value in dense.graph.initializers.items()}


def test_refitted_matrices_are_least_squares() -> None:
    dense = residual()
    analysis = gp.analyze(dense)
    (group,) = [each for each in analysis.groups if each.name == "a0:0"]
    (part,) = read_parts(analysis, [group], OBS(), Calibration(data()), 0)[group.dim]
    assert isinstance(part.statistic, Gram)
    gone = np.array([1, 4])
    new = refitted(part, gone)[0]
    assert not new[:, np.isin(part.labels[0], gone)].any()
    gram, old = part.statistic.matrix[0], part.matrices[0]

    def error(matrix: np.ndarray) -> float:
        return float(np.einsum("or,rs,os->", matrix - old, gram, matrix - old))

    zeroed = np.where(np.isin(part.labels[0], gone)[None], 0.0, old)
    assert error(new) < error(zeroed)
    rng = np.random.default_rng(0)
    for _ in range(5):
        moved = new + 1e-2 * rng.standard_normal(new.shape) * ~np.isin(part.labels[0], gone)
        assert error(moved) > error(new)


def test_criteria_without_activations_have_no_effect_to_measure() -> None:
    with pytest.raises(GraphPruneError) as caught:
        gp.plan(residual(), macs=0.5, criterion="l2", normalize="effect")
    assert caught.value.code == "GP704"
