"""Criteria that look at activations: what each one says it computes, on networks small enough to do it by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from graphprune.analysis import Analysis
from graphprune.calibrate import Calibration
from graphprune.criteria import CRITERIA
from graphprune.criteria.chip import independence
from graphprune.criteria.hrank import ranks
from graphprune.criteria.thinet import elimination
from graphprune.criteria.transfer import score_groups
from tests.models.case import seeded
from tests.planning import analysed, group

RNG = np.random.default_rng(0)
NAMES = ["apoz", "chip", "flap", "hrank", "thinet", "variance", "wanda"]
IMAGES = RNG.standard_normal((12, 3, 7, 7)).astype(np.float32)
ROWS = RNG.standard_normal((40, 6)).astype(np.float32)

LAYERS = """
layers (float[batch, 6] x) => (float[batch, 3] y)
<float[6, 8] "first", float[8, 3] "second">
{
    a = MatMul(x, "first")
    y = MatMul(a, "second")
}"""
CONVOLUTIONS = """
images (float[batch, 3, 7, 7] x) => (float[batch, 4, h, w] y)
<float[8, 3, 3, 3] "first", float[4, 8, 3, 3] "second">
{
    a = Conv(x, "first")
    b = Relu(a)
    y = Conv(b, "second")
}"""
DEPTHWISE = """
images (float[batch, 3, 7, 7] x) => (float[batch, 4, h, w] y)
<float[8, 3, 3, 3] "first", float[8, 1, 3, 3] "second", float[4, 8, 1, 1] "third">
{
    a = Conv(x, "first")
    b = Conv <group = 8> (a, "second")
    y = Conv(b, "third")
}"""
GROUPED = """
images (float[batch, 3, 7, 7] x) => (float[batch, 4, h, w] y)
<float[8, 3, 3, 3] "first", float[4, 4, 3, 3] "second">
{
    a = Conv(x, "first")
    b = Relu(a)
    y = Conv <group = 2> (b, "second")
}"""
FLATTENED = """
images (float[batch, 3, 7, 7] x) => (float[batch, 3] y)
<float[8, 3, 3, 3] "first", float[200, 3] "second">
{
    a = Conv(x, "first")
    b = Flatten(a)
    y = MatMul(b, "second")
}"""


def changed(model: onnx.ModelProto, **weights: np.ndarray) -> onnx.ModelProto:
    """The same network with other numbers."""
    other = onnx.ModelProto()
    other.CopyFrom(model)
    for tensor in other.graph.initializer:
        if tensor.name in weights:
            tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name].astype(np.float32), tensor.name))
    return other


def stored(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {each.name: numpy_helper.to_array(each).copy() for each in model.graph.initializer}


def scored(analysis: Analysis, criterion: str, data: list[np.ndarray], member: str = "", **options: Any) -> np.ndarray:
    """The scores of the entries between the first and the second weight."""
    hidden = group(analysis, member) if member else analysis.groups[0]
    calibration = Calibration([{"x": each} for each in data])
    chosen = {"reduction": "sum", "normalize": "none", **options}
    return score_groups(analysis, [hidden], criterion=criterion, calibration=calibration, **chosen)[hidden.dim]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("text", [LAYERS, CONVOLUTIONS, DEPTHWISE, GROUPED, FLATTENED])
def test_the_split_into_batches_does_not_matter(name: str, text: str) -> None:
    analysis = analysed(seeded(text))
    data = ROWS if text is LAYERS else IMAGES
    whole, parts = scored(analysis, name, [data]), scored(analysis, name, [data[:5], data[5:6], data[6:]])
    assert whole.shape == (analysis.groups[0].size,)
    assert np.isfinite(whole).all() and (whole >= 0).all()
    np.testing.assert_allclose(parts, whole, rtol=1e-4, atol=1e-6)
    assert name in {"hrank", "apoz"} or len(np.unique(whole.round(9))) > 1


@pytest.mark.parametrize("name", NAMES)
def test_the_objects_carry_their_names(name: str) -> None:
    assert CRITERIA.load(name)().name == name


def test_wanda_by_hand() -> None:
    model = seeded(LAYERS)
    weights = stored(model)
    hidden = ROWS.astype(np.float64) @ weights["first"]
    expected = np.abs(weights["second"]).sum(1) * np.sqrt(np.square(hidden).mean(0))
    np.testing.assert_allclose(scored(analysed(model), "wanda", [ROWS]), expected, rtol=1e-5)


@pytest.mark.parametrize(("name", "invariant"), [("wanda", True), ("flap", True), ("thinet", True), ("l2", False)])
def test_scales_that_cancel(name: str, invariant: bool) -> None:
    """A channel times c and the weights that read it divided by c: the network is the same, and so are the scores."""
    model = seeded(LAYERS)
    weights, scale = stored(model), 2.0 ** np.arange(8)
    other = changed(model, first=weights["first"] * scale, second=weights["second"] / scale[:, None])
    before, after = (scored(analysed(each), name, [ROWS]) for each in (model, other))
    assert np.allclose(before, after, rtol=1e-4) == invariant
    assert (np.argsort(before).tolist() == np.argsort(after).tolist()) == invariant


@pytest.mark.parametrize("text", [LAYERS, CONVOLUTIONS])
def test_flap_gives_a_constant_channel_nothing(text: str) -> None:
    graph = text.replace('"first")', '"first", "bias")').replace("<float[", "<float[8] bias, float[", 1)
    graph = graph.replace('MatMul(x, "first", "bias")', 'Gemm(x, "first", "bias")')
    model = seeded(graph)
    first = stored(model)["first"]
    first[(slice(None), 3) if text is LAYERS else (3,)] = 0
    model = changed(model, first=first, bias=np.full(8, 0.7))
    found = scored(analysed(model), "flap", [ROWS if text is LAYERS else IMAGES])
    assert found[3] <= 1e-9 * np.delete(found, 3).min()
    assert scored(analysed(model), "wanda", [ROWS if text is LAYERS else IMAGES])[3] > 0


def test_flap_by_hand_and_the_bias_that_goes_with_it() -> None:
    model = seeded(LAYERS)
    weights = stored(model)
    hidden = ROWS.astype(np.float64) @ weights["first"]
    expected = np.square(weights["second"]).sum(1) * hidden.var(0)
    np.testing.assert_allclose(scored(analysed(model), "flap", [ROWS]), expected, rtol=1e-4)
    gone = 2  # its score is the error that is left once its mean is in the bias
    error = (hidden[:, gone] - hidden[:, gone].mean())[:, None] * weights["second"][gone]
    np.testing.assert_allclose(np.square(error).sum(1).mean(), expected[gone])


def test_apoz_counts_what_a_relu_lets_through() -> None:
    model = seeded(CONVOLUTIONS)
    graph = CONVOLUTIONS.replace('"first")', '"first", "bias")').replace("<float[", "<float[8] bias, float[", 1)
    bias = np.zeros(8)
    bias[1], bias[6] = -100, 100
    model = changed(seeded(graph), bias=bias, first=stored(model)["first"])
    found = scored(analysed(model), "apoz", [IMAGES])
    assert found[1] == 0 and found[6] == 1
    assert ((found > 0) & (found < 1)).sum() == 6


def test_chip_is_the_drop_of_the_nuclear_norm() -> None:
    for shape in ((5, 9), (9, 4)):
        rows = RNG.standard_normal(shape)
        expected = [np.linalg.norm(rows, "nuc") - np.linalg.norm(np.delete(rows, k, 0), "nuc") for k in range(shape[0])]
        np.testing.assert_allclose(independence(rows), expected, rtol=1e-6)


@pytest.mark.parametrize("text", [CONVOLUTIONS, FLATTENED])
def test_chip_finds_a_duplicate(text: str) -> None:
    model = seeded(text)
    first = np.linalg.qr(stored(model)["first"].reshape(8, -1).T)[0].T.reshape(8, 3, 3, 3)
    first[5] = first[2]
    found = scored(analysed(changed(model, first=first)), "chip", [IMAGES])
    assert set(np.argsort(found)[:2].tolist()) == {2, 5}


def test_chip_takes_maps_of_images_and_not_windows() -> None:
    model = seeded(FLATTENED)
    weight = stored(model)["first"].astype(np.float64)
    windows = np.lib.stride_tricks.sliding_window_view(IMAGES.astype(np.float64), (3, 3), (2, 3))
    maps = np.einsum("ocij,nchwij->nohw", weight, windows).reshape(12, 8, -1)
    expected = np.mean([independence(each) for each in maps], axis=0)
    np.testing.assert_allclose(scored(analysed(model), "chip", [IMAGES]), expected, rtol=1e-4)


def test_hrank_of_planted_maps() -> None:
    line = np.arange(1.0, 8)
    images = np.repeat((line[:, None] * line)[None, None], 3, axis=1).repeat(2, axis=0).astype(np.float32)
    images[:, 1] = 1  # a constant map
    images[:, 2] = RNG.standard_normal((7, 7))
    model = seeded("""
    images (float[batch, 3, 7, 7] x) => (float[batch, 4, h, w] y)
    <float[3, 3, 1, 1] "first", float[4, 3, 3, 3] "second">
    {
        a = Conv(x, "first")
        y = Conv(a, "second")
    }""")
    model = changed(model, first=np.eye(3)[:, :, None, None])
    assert scored(analysed(model), "hrank", [images]).tolist() == [1, 1, 7]


def test_hrank_is_the_rank_of_numpy() -> None:
    maps = RNG.standard_normal((6, 1, 5, 7)).astype(np.float32)
    maps[1], maps[2, 0, 3] = 0, maps[2, 0, 2]
    assert ranks(maps).tolist() == np.linalg.matrix_rank(maps[:, 0]).tolist() == [5, 0, 4, 5, 5, 5]
    assert ranks(RNG.standard_normal((4, 3, 8))).tolist() == [3] * 4  # heads: channels by positions
    assert ranks(np.array([[[0.0]], [[2.0]]])).reshape(-1).tolist() == [0, 1]


def greedy(parts: np.ndarray) -> list[int]:
    """The order in which the sums of the contributions ``[entries, ...]`` that are gone stay least, found by trying."""
    gone: list[int] = []
    while len(gone) < len(parts):
        left = [entry for entry in range(len(parts)) if entry not in gone]
        errors = [np.square(parts[[*gone, entry]].sum(0)).sum() for entry in left]
        gone.append(left[int(np.argmin(errors))])
    return gone


def test_thinet_is_the_greedy_search() -> None:
    model = seeded(LAYERS)
    weights = stored(model)
    hidden = ROWS.astype(np.float64) @ weights["first"]
    parts = np.stack([np.outer(hidden[:, k], weights["second"][k]) for k in range(8)])
    found = scored(analysed(model), "thinet", [ROWS])
    assert np.argsort(found).tolist() == greedy(parts)
    assert (np.diff(np.sort(found)) > 0).all()
    np.testing.assert_allclose(
        found.min(), min(np.square(parts).sum((1, 2))) / np.square(parts.sum(0)).sum(), rtol=1e-4
    )


def test_thinet_through_a_convolution() -> None:
    model = seeded(CONVOLUTIONS)
    found = scored(analysed(model), "thinet", [IMAGES])
    weights = stored(model)
    windows = np.lib.stride_tricks.sliding_window_view(IMAGES.astype(np.float64), (3, 3), (2, 3))
    hidden = np.maximum(np.einsum("ocij,nchwij->nohw", weights["first"], windows), 0)
    windows = np.lib.stride_tricks.sliding_window_view(hidden, (3, 3), (2, 3))
    parts = np.einsum("ocij,nchwij->cnohw", weights["second"], windows)
    assert np.argsort(found).tolist() == greedy(parts)


def test_thinet_does_not_lose_its_order_where_errors_fall() -> None:
    found = elimination(np.array([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 0.5]]))
    assert np.argsort(found).tolist() == [2, 0, 1]


def test_variance_by_hand() -> None:
    model = seeded(LAYERS)
    hidden = ROWS.astype(np.float64) @ stored(model)["first"]
    np.testing.assert_allclose(scored(analysed(model), "variance", [ROWS]), hidden.var(0), rtol=1e-5)
