"""Criteria that look at weights alone, against their definitions written out by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import graphprune as gp
from graphprune.criteria.bn_scale import BatchNormScale
from graphprune.criteria.custom import criterion_of
from graphprune.criteria.fpgm import FPGM
from graphprune.criteria.lamp import LAMP
from graphprune.criteria.transfer import score_groups
from graphprune.errors import GraphPruneError
from tests.models.case import seeded
from tests.planning import analysed, group, two_layers

RNG = np.random.default_rng(0)


def stored(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {each.name: numpy_helper.to_array(each).astype(np.float64) for each in model.graph.initializer}


def scores(model: onnx.ModelProto, member: str, criterion: Any, **options: Any) -> np.ndarray:
    analysis = analysed(model)
    found = group(analysis, member)
    return score_groups(analysis, [found], criterion=criterion, normalize="none", **options)[found.dim]


def grouped() -> onnx.ModelProto:
    """A grouped convolution between two others."""
    return seeded("""
    convolutions (float[batch, 3, 6, 6] x) => (float[batch, 5, 6, 6] y)
    <float[8, 3, 1, 1] "first", float[12, 2, 1, 1] "second", float[5, 12, 1, 1] "third">
    {
        a = Conv(x, "first")
        b = Relu(a)
        c = Conv <group = 4> (b, "second")
        y = Conv(c, "third")
    }""")


def normalised() -> onnx.ModelProto:
    """A convolution, a batch normalisation, and a convolution without."""
    return seeded("""
    convolutions (float[batch, 3, 6, 6] x) => (float[batch, 5, 6, 6] y)
    <float[8, 3, 1, 1] "first", float[6, 8, 1, 1] "second", float[5, 6, 1, 1] "third",
     float[8] "scale", float[8] "shift", float[8] "mean", float[8] "variance" = {1, 1, 1, 1, 1, 1, 1, 1}>
    {
        a = Conv(x, "first")
        b = BatchNormalization(a, "scale", "shift", "mean", "variance")
        c = Relu(b)
        d = Conv(c, "second")
        e = Relu(d)
        y = Conv(e, "third")
    }""")


# ---------------------------------------------------------------- the largest weight
def test_the_largest_weight_by_brute_force() -> None:
    model = two_layers()
    w = stored(model)
    expected = [max(abs(w["first"][:, k]).max(), abs(w["second"][k]).max()) for k in range(8)]
    np.testing.assert_allclose(scores(model, "first:1", "linf", reduction="max"), expected)


def test_the_largest_weight_of_entries_that_are_many_channels() -> None:
    model = grouped()
    analysis, w = analysed(model), stored(model)
    first, second, third = w["first"].reshape(4, 2, 3), w["second"].reshape(4, 3, 2), w["third"].reshape(5, 4, 3)
    by_hand = {
        4: [max(abs(each).max() for each in (first[k], second[k], third[:, k])) for k in range(4)],
        2: [max(abs(first[:, k]).max(), abs(second[:, :, k]).max()) for k in range(2)],
        3: [max(abs(second[:, k]).max(), abs(third[:, :, k]).max()) for k in range(3)],
    }
    assert sorted(each.size for each in analysis.groups) == [2, 3, 4]
    for each in analysis.groups:
        found = score_groups(analysis, [each], criterion="linf", reduction="max", normalize="none")[each.dim]
        np.testing.assert_allclose(found, by_hand[each.size])


# ---------------------------------------------------------------- distances
def distances(rows: np.ndarray) -> list[float]:
    return [sum(float(np.linalg.norm(a - b)) for b in rows) for a in rows]


def test_distances_are_those_between_filters_of_the_layer_that_computes_them() -> None:
    model = two_layers()
    np.testing.assert_allclose(scores(model, "first:1", "fpgm"), distances(stored(model)["first"].T), rtol=1e-6)
    outputs = scores(model, "second:1", "fpgm")
    np.testing.assert_allclose(outputs, distances(stored(model)["second"].T), rtol=1e-6)
    assert np.abs(outputs / distances(stored(model)["third"]) - 1).max() > 1e-2  # those that read them do not count


def test_a_duplicated_filter_in_the_middle_goes_first() -> None:
    rows = RNG.standard_normal((12, 20))
    rows[3] = rows[7] = rows.mean(axis=0)
    found = FPGM().filters(rows)
    assert sorted(np.argsort(found)[:2]) == [3, 7]
    np.testing.assert_allclose(found, distances(rows), rtol=1e-6)


def test_large_common_parts_do_not_hide_distances() -> None:
    rows = RNG.standard_normal((6, 4)) * 1e-3
    np.testing.assert_allclose(FPGM().filters(rows + 1e3), distances(rows), rtol=1e-6)


# ---------------------------------------------------------------- LAMP
def test_lamp_by_its_definition_and_without_a_scale() -> None:
    rows = RNG.standard_normal((5, 4))
    flat = np.abs(rows).ravel()
    each = [flat[k] ** 2 / sum(v**2 for v in flat if v >= flat[k]) for k in range(20)]
    found = LAMP().filters(rows)
    np.testing.assert_allclose(found, np.reshape(each, (5, 4)).sum(1))
    np.testing.assert_allclose(LAMP().filters(1e4 * rows), found)
    assert max(each) == 1
    with pytest.raises(AssertionError):  # magnitudes have a scale
        np.testing.assert_allclose(np.abs(1e4 * rows).sum(1), np.abs(rows).sum(1))


# ---------------------------------------------------------------- scales of batch norms
def test_scales_of_batch_norms_and_no_score_without() -> None:
    model = normalised()
    analysis = analysed(model)
    np.testing.assert_allclose(scores(model, "first:0", "bn_scale"), np.abs(stored(model)["scale"]), rtol=1e-6)
    assert BatchNormScale().score(analysis, group(analysis, "second:0")) is None
    plan = gp.plan(analysis, ratio=0.3, criterion="bn_scale")
    assert {"name": "second:0", "code": "GP704", "reason": "bn_scale cannot score it"} in [dict(x) for x in plan.left]
    (cut,) = [each for each in plan.groups if len(each.keep) < each.size]
    order = np.argsort(np.abs(stored(model)["scale"]))
    assert sorted(cut.keep) == sorted(order[len(order) - len(cut.keep) :])


def test_no_group_at_all_can_be_scored() -> None:
    with pytest.raises(GraphPruneError, match=r"GP704.*no group"):
        gp.plan(analysed(two_layers()), ratio=0.3, criterion="bn_scale")


# ---------------------------------------------------------------- of your own
def spread(rows: np.ndarray) -> np.ndarray:
    """The largest number of an entry without the smallest."""
    found: np.ndarray = rows.max(1) - rows.min(1)
    return found


@pytest.mark.parametrize("given", [spread, f"{__name__}:spread"])
def test_a_function_is_a_criterion(given: str | Callable[[np.ndarray], np.ndarray]) -> None:
    if isinstance(given, str):
        given = f"{spread.__module__}:spread"
    model = two_layers()
    w = stored(model)
    expected = (spread(w["first"].T) + spread(w["second"])) / 2
    np.testing.assert_allclose(scores(model, "first:1", given), expected, rtol=1e-6)
    plan = gp.plan(analysed(model), ratio=0.3, criterion=given)
    assert plan.options["criterion"] == f"{spread.__module__}:spread"
    assert gp.Plan.from_json(plan.to_json()).options == plan.options


def test_a_function_that_fails_is_told() -> None:
    with pytest.raises(GraphPruneError, match=r"GP107 the criterion failed: ZeroDivisionError[\s\S]*array of NumPy"):
        gp.plan(analysed(two_layers()), ratio=0.3, criterion=lambda rows: 1 / 0)


def test_an_object_and_a_class_are_criteria() -> None:
    model = two_layers()
    expected = scores(model, "first:1", "linf")
    for given in (criterion_of("linf"), type(criterion_of("linf"))):
        np.testing.assert_array_equal(scores(model, "first:1", given), expected)
    assert gp.plan(analysed(model), ratio=0.3, criterion=criterion_of("linf")).options["criterion"] == "Linf()"


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (lambda rows: rows, "GP107"),
        (lambda rows: rows.max(1) * np.nan, "GP107"),
        ("linff", "GP106"),
        ("no.such.module:thing", "GP111"),
        (3, "GP111"),
    ],
)
def test_what_is_no_criterion(given: Any, code: str) -> None:
    with pytest.raises(GraphPruneError) as caught:
        scores(two_layers(), "first:1", given)
    assert caught.value.code == code


@pytest.mark.parametrize("criterion", ["linf", "fpgm", "lamp"])
def test_weights_that_are_not_finite_are_an_error(criterion: str) -> None:
    model = two_layers()
    bad = stored(model)["first"].astype(np.float32)
    bad[0, 0] = np.inf
    model.graph.initializer[[each.name for each in model.graph.initializer].index("first")].CopyFrom(
        numpy_helper.from_array(bad, "first")
    )
    with pytest.raises(GraphPruneError, match="GP107"):
        scores(model, "first:1", criterion)


@pytest.mark.parametrize("criterion", ["taylor", "synflow", "grasp", "kwon"])
def test_onnx_has_no_gradients(criterion: str) -> None:
    with pytest.raises(GraphPruneError, match=r"GP704.*gradients"):
        gp.plan(analysed(two_layers()), ratio=0.3, criterion=criterion)
