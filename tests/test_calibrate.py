"""Statistics of activations: they are those of the data, however it is split into batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import graphprune as gp
from graphprune.calibrate import Gram, Moments, collect, draw
from graphprune.errors import GraphPruneError
from graphprune.layers import layers

RNG = np.random.default_rng(1)


def network() -> ir.Model:
    """A convolution, a ReLU, and a convolution with groups."""
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "v"], ["h"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("Conv", ["r", "w"], ["y"], group=2),
        ],
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", 2, 5, 5))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(np.random.default_rng(0).standard_normal((4, 2, 3, 3)).astype(np.float32), "v"),
            numpy_helper.from_array(np.random.default_rng(1).standard_normal((6, 2, 2, 2)).astype(np.float32), "w"),
        ],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return ir.from_proto(onnx.shape_inference.infer_shapes(made))


ANALYSIS = gp.analyze(network())
LAYERS = layers(ANALYSIS)
DATA = RNG.standard_normal((12, 2, 5, 5)).astype(np.float32)


def collected(batches: list[np.ndarray], make: Any = lambda layer: Gram(), **options: Any) -> Any:
    return collect(ANALYSIS, LAYERS, [{"x": batch} for batch in batches], make, **options)


@settings(max_examples=15, deadline=None)
@given(st.sets(st.integers(1, 11)))
def test_statistics_do_not_depend_on_batches(cuts: set[int]) -> None:
    whole, parts = collected([DATA]), collected(np.split(DATA, sorted(cuts)))
    for layer in LAYERS:
        assert parts[layer].count == whole[layer].count
        assert np.allclose(parts[layer].matrix, whole[layer].matrix, rtol=1e-5, atol=1e-4)
        assert np.allclose(parts[layer].total, whole[layer].total, rtol=1e-5, atol=1e-4)


def test_other_data_has_other_statistics() -> None:
    whole, other = collected([DATA]), collected([DATA[::-1] * 1.01])
    assert not np.allclose(whole[LAYERS[0]].matrix, other[LAYERS[0]].matrix, rtol=1e-5, atol=1e-4)


def test_a_gram_matrix_is_that_of_the_columns() -> None:
    gram = collected([DATA])[LAYERS[0]]
    padded = np.pad(DATA, ((0, 0), (0, 0), (1, 1), (1, 1)))
    columns = [padded[:, :, i : i + 5, j : j + 5] for i in range(3) for j in range(3)]
    rows = np.stack(columns, axis=-1).transpose(0, 2, 3, 1, 4).reshape(-1, 18).astype(np.float64)
    assert np.allclose(gram.matrix[0], rows.T @ rows, rtol=1e-5, atol=1e-4)
    assert gram.count == len(rows)


def test_moments_are_mean_and_variance() -> None:
    moments = collected([DATA[:5], DATA[5:]], lambda layer: Moments())[LAYERS[0]]
    centre = (slice(None), slice(None), slice(0, 4), slice(0, 4))  # what the last corner of the window sees: no border
    values = DATA[:, :, 1:, 1:].astype(np.float64)
    assert centre
    at = 8  # the entry below and to the right
    padded = np.pad(values[:, 0], ((0, 0), (0, 1), (0, 1)))
    assert np.allclose(moments.mean[0, at], padded.mean(), atol=1e-6)
    assert np.allclose(moments.variance[0, at], padded.var(), atol=1e-5)


def test_some_rows_are_drawn_with_the_seed() -> None:
    first, again, other = (collected([DATA], rows=20, seed=seed) for seed in (0, 0, 1))
    assert first[LAYERS[0]].count == 20
    assert np.array_equal(first[LAYERS[0]].matrix, again[LAYERS[0]].matrix)
    assert not np.array_equal(first[LAYERS[0]].matrix, other[LAYERS[0]].matrix)


def test_draw_takes_all_of_few() -> None:
    assert draw(3, 5, (0,)) is None
    chosen = draw(100, 5, (0,))
    assert chosen is not None and len(set(chosen.tolist())) == 5 and (np.diff(chosen) > 0).all()


def test_no_data_is_refused() -> None:
    with pytest.raises(GraphPruneError, match="GP701"):
        collected([])


def test_activations_that_are_not_finite_are_refused() -> None:
    bad = DATA.copy()
    bad[3, 1, 2, 2] = np.inf
    with pytest.raises(GraphPruneError, match=r"batch 2 of the calibration data"):
        collected([DATA, bad])
