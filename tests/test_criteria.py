"""Scores against sums written out by hand, and the properties that plans rely on."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from graphprune.criteria import (
    CRITERIA,
    AnalysisCriterion,
    FilterCriterion,
    GroupCriterion,
    WeightCriterion,
)
from graphprune.criteria import transfer as transfer_module
from graphprune.criteria.custom import KINDS
from graphprune.criteria.random_ import Random
from graphprune.criteria.transfer import NORMALIZATIONS, REDUCTIONS, score_groups
from graphprune.errors import GraphPruneError
from tests.models import CASES
from tests.models.case import seeded
from tests.planning import analysed, case, group, two_layers


def weights(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t).astype(np.float64) for t in model.graph.initializer}


BUILTIN = {name: CRITERIA.load(name)() for name in CRITERIA.builtin}
WITHOUT_DATA = [
    name for name, each in BUILTIN.items() if isinstance(each, WeightCriterion | GroupCriterion | FilterCriterion)
]
WITH_DATA = [
    name for name, each in BUILTIN.items() if name not in WITHOUT_DATA and not isinstance(each, AnalysisCriterion)
]


@pytest.mark.parametrize("name", CRITERIA.builtin)
def test_builtin_names_are_those_that_the_objects_carry(name: str) -> None:
    criterion = CRITERIA.load(name)()
    assert criterion.name == name
    assert sum(isinstance(criterion, kind) for kind in KINDS) == 1


@pytest.mark.parametrize("name", WITH_DATA)
def test_criteria_that_need_data_say_so(name: str) -> None:
    analysis = analysed(two_layers())
    with pytest.raises(GraphPruneError, match="needs"):
        score_groups(analysis, analysis.groups, criterion=name)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(("criterion", "norm"), [("l1", 1), ("l2", 2)])
def test_an_entry_owns_its_column_and_its_row(criterion: str, norm: int, reduction: str) -> None:
    model = two_layers()
    analysis, w = analysed(model), weights(model)
    hidden = group(analysis, "first:1")
    found = score_groups(analysis, [hidden], criterion=criterion, reduction=reduction, normalize="none")[hidden.dim]
    parts = np.stack([np.linalg.norm(w["first"], norm, axis=0), np.linalg.norm(w["second"], norm, axis=1)])
    by_hand = {"sum": parts.sum(0), "mean": parts.mean(0), "max": parts.max(0), "l2": np.sqrt((parts**2).sum(0))}
    np.testing.assert_allclose(found, by_hand[reduction], rtol=1e-5)


def test_heads_and_their_width_share_a_weight() -> None:
    analysis = analysed(
        seeded("""
        attend (float[batch, 5, 8] x) => (float[batch, 5, 3] y)
        <float[8, 12] q, float[8, 12] k, float[8, 12] v, float[12, 3] o, int64[4] apart = {0, 5, 4, 3},
         int64[3] together = {0, 5, 12}>
        {
            qx = MatMul(x, q)
            kx = MatMul(x, k)
            vx = MatMul(x, v)
            qr = Reshape(qx, apart)
            kr = Reshape(kx, apart)
            vr = Reshape(vx, apart)
            qt = Transpose <perm = [0, 2, 1, 3]> (qr)
            kt = Transpose <perm = [0, 2, 3, 1]> (kr)
            vt = Transpose <perm = [0, 2, 1, 3]> (vr)
            scores = MatMul(qt, kt)
            shares = Softmax <axis = -1> (scores)
            mixed = MatMul(shares, vt)
            back = Transpose <perm = [0, 2, 1, 3]> (mixed)
            flat = Reshape(back, together)
            y = MatMul(flat, o)
        }""")
    )
    heads = next(each for each in analysis.groups if each.kind == "head")
    stored = {each.name: each.read().astype(np.float64) for each in analysis.program.stored}
    expected = sum(np.abs(stored[n]).reshape(8, 4, 3).sum((0, 2)) for n in "qkv") + np.abs(stored["o"]).reshape(
        4, 3, 3
    ).sum((1, 2))
    found = score_groups(analysis, [heads], criterion="l1", reduction="sum", normalize="none")[heads.dim]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("criterion", WITHOUT_DATA)
def test_every_case_gets_finite_scores_that_differ(name: str, criterion: str) -> None:
    analysis = case(name)
    scores = score_groups(analysis, analysis.groups, criterion=criterion)
    for each in analysis.groups:
        assert scores[each.dim].shape == (each.size,)
        assert np.isfinite(scores[each.dim]).all()
        # Two filters are as far from each other.
        assert len(np.unique(scores[each.dim])) > 1 or (criterion == "fpgm" and each.size == 2)


def test_slices_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    analysis = case("shuffle_between_grouped")
    whole = score_groups(analysis, analysis.groups)
    monkeypatch.setattr(transfer_module, "_SLICE", 7)
    for dim, score in score_groups(analysis, analysis.groups).items():
        np.testing.assert_allclose(score, whole[dim], rtol=1e-5)


def test_each_weight_is_read_once() -> None:
    analysis = analysed(two_layers())
    reads: dict[str, int] = {}
    for stored in analysis.program.stored:

        def counted(name: str = stored.name, read: object = stored.read) -> np.ndarray:
            reads[name] = reads.get(name, 0) + 1
            assert callable(read)
            array: np.ndarray = read()
            return array

        stored.read = counted
    score_groups(analysis, analysis.groups)
    assert reads == {"first": 1, "second": 1, "third": 1}


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
def test_normalizations_keep_the_order_and_take_zeros(normalize: str) -> None:
    score = np.array([3.0, 1.0, 2.0, 5.0])
    found = NORMALIZATIONS[normalize](score)
    assert np.argsort(found).tolist() == np.argsort(score).tolist()
    assert np.isfinite(NORMALIZATIONS[normalize](np.zeros(4))).all()


def test_random_depends_on_seed_and_name_alone() -> None:
    code = "from graphprune.criteria.random_ import Random; print(Random().group('w:0', 3, 1).tolist())"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert other.strip() == str(Random().group("w:0", 3, 1).tolist())
    assert Random().group("w:0", 3, 2).tolist() != Random().group("w:0", 3, 1).tolist()
    assert Random().group("v:0", 3, 1).tolist() != Random().group("w:0", 3, 1).tolist()


def test_weights_that_are_not_finite_are_an_error() -> None:
    model = two_layers()
    bad = weights(model)["second"].astype(np.float32)
    bad[0, 0] = np.nan
    index = [t.name for t in model.graph.initializer].index("second")
    model.graph.initializer[index].CopyFrom(numpy_helper.from_array(bad, "second"))
    analysis = analysed(model)
    with pytest.raises(GraphPruneError, match=r"GP107.*not finite"):
        score_groups(analysis, analysis.groups)


@pytest.mark.parametrize("option", ["criterion", "reduction", "normalize"])
def test_unknown_names(option: str) -> None:
    analysis = analysed(two_layers())
    with pytest.raises(GraphPruneError) as caught:
        score_groups(analysis, analysis.groups, **{option: "maen"})
    assert caught.value.code == "GP106"
