"""Contractions as matrices: what a node computes is what its matrices do to its rows, in every form there is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

import graphprune as gp
from graphprune.dialects import tools_of
from graphprune.layers import Layer, layers
from graphprune.program import Array

RNG = np.random.default_rng(0)


def model(op: str, data: tuple[int, ...], weight: tuple[int, ...], bias: int = 0, **attributes: Any) -> ir.Model:
    """One contraction between two that make its channels free where they are reduced."""
    inputs = ["w", "b"][: 1 + bool(bias)]
    stored = [numpy_helper.from_array(RNG.standard_normal(weight).astype(np.float32), "w")]
    if bias:
        stored.append(numpy_helper.from_array(RNG.standard_normal(bias).astype(np.float32), "b"))
    order = ["x", *inputs] if not attributes.pop("weight_first", False) else ["w", "x"]
    node = helper.make_node(op, order, ["y"], name="it", **attributes)
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, data)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        stored,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return ir.from_proto(onnx.shape_inference.infer_shapes(made))


CONTRACTIONS: Mapping[str, tuple[Any, ...]] = {
    "linear": ("MatMul", (3, 5), (5, 4)),
    "tokens": ("MatMul", (2, 3, 5), (5, 4)),
    "weight first": ("MatMul", (5, 3), (4, 5), 0, {"weight_first": True}),
    "a matrix for each head": ("MatMul", (2, 3, 4, 5), (3, 5, 6)),
    "gemm": ("Gemm", (3, 5), (4, 5), 4, {"transB": 1}),
    "gemm of transposed data": ("Gemm", (5, 3), (5, 4), 4, {"transA": 1}),
    "einsum": ("Einsum", (2, 3, 5), (5, 4), 0, {"equation": "bti,io->obt"}),
    "einsum with heads": ("Einsum", (2, 3, 4, 5), (4, 6, 5), 0, {"equation": "bthi,hoi->bhto"}),
    "1x1": ("Conv", (2, 6, 5, 5), (4, 6, 1, 1), 4),
    "3x3": ("Conv", (2, 6, 7, 5), (4, 6, 3, 3), 4, {"pads": [1, 1, 1, 1]}),
    "strided, dilated, uneven": (
        "Conv",
        (2, 6, 13, 11),
        (4, 6, 3, 2),
        4,
        {"pads": [2, 0, 1, 1], "strides": [2, 3], "dilations": [2, 1]},
    ),
    "grouped": ("Conv", (2, 6, 5, 5), (4, 3, 3, 3), 0, {"group": 2}),
    "depthwise": ("Conv", (2, 6, 5, 5), (6, 1, 3, 3), 0, {"group": 6}),
    "same upper": ("Conv", (2, 3, 6, 7), (4, 3, 3, 4), 0, {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    "same lower": ("Conv", (2, 3, 6, 7), (4, 3, 3, 4), 0, {"auto_pad": "SAME_LOWER", "strides": [2, 2]}),
    "valid": ("Conv", (2, 3, 6, 7), (4, 3, 3, 4), 0, {"auto_pad": "VALID"}),
    "one axis": ("Conv", (2, 3, 16), (4, 3, 5), 4, {"strides": [2]}),
    "three axes": ("Conv", (1, 2, 4, 5, 6), (3, 2, 2, 3, 2), 3),
}


def made(name: str) -> ir.Model:
    """The model of this name."""
    op, data, weight, *rest = CONTRACTIONS[name]
    bias, attributes = [*rest, 0, {}][:2] if len(rest) < 2 else rest
    return model(op, data, weight, bias, **(attributes or {}))


def seen(native: ir.Model) -> tuple[Layer, Array, Array, Array]:
    """Its only layer, the matrices of its weight, the activation and the result without bias."""
    analysis = gp.analyze(native)
    (layer,) = layers(analysis)
    staged = tools_of(native).staged(analysis.program, [layer.node], [layer.result])
    state = staged.begin({"x": RNG.standard_normal(native.graph.inputs[0].shape.numpy()).astype(np.float32)})
    staged.step(state)
    data = staged.read(state, layer.activation)
    staged.step(state)
    weight = analysis.program.dialect.constant(layer.weight)
    bias = layer.contraction.bias
    shift = (
        0 if bias is None else analysis.program.dialect.constant(bias.node.inputs[bias.index]).reshape(layer.shape[:2])
    )
    return layer, layer.matrices(weight), data, layer.results(staged.read(state, layer.result)).take() - shift


@pytest.mark.parametrize("name", CONTRACTIONS)
def test_matrices_times_rows_are_the_result(name: str) -> None:
    layer, matrices, data, result = seen(made(name))
    assert np.allclose(np.einsum("sgr,gor->sgo", layer.rows(data).take(), matrices), result, atol=1e-4)


@pytest.mark.parametrize("name", ["3x3", "grouped", "gemm"])
def test_the_comparison_finds_a_wrong_matrix(name: str) -> None:
    layer, matrices, data, result = seen(made(name))
    swapped = matrices[:, :, ::-1]
    assert not np.allclose(np.einsum("sgr,gor->sgo", layer.rows(data).take(), swapped), result, atol=1e-4)


@pytest.mark.parametrize("name", CONTRACTIONS)
def test_weights_are_the_inverse_of_matrices(name: str) -> None:
    native = made(name)
    (layer,) = layers(gp.analyze(native))
    weight = native.graph.initializers["w"].const_value.numpy()
    assert np.array_equal(layer.weights(layer.matrices(weight)), weight)


@pytest.mark.parametrize("name", CONTRACTIONS)
def test_some_samples_are_those_of_all(name: str) -> None:
    layer, _, data, _ = seen(made(name))
    rows = layer.rows(data)
    every = rows.take()
    assert len(rows) == len(every)
    some = np.sort(RNG.choice(len(rows), min(3, len(rows)), replace=False))
    assert np.array_equal(rows.take(some), every[some])
    assert np.array_equal(np.concatenate(list(rows.chunks())), every)


def test_what_cannot_be_written_is_said() -> None:
    """A weight that two nodes read is no layer's own."""
    shared = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("MatMul", ["h", "w"], ["y"])],
        "shared",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (2, 4))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (2, 4))],
        [numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")],
    )
    native = ir.from_proto(helper.make_model(shared, opset_imports=[helper.make_opsetid("", 18)], ir_version=9))
    assert [layer.stored for layer in layers(gp.analyze(native))] == [None, None]


def test_a_transposed_convolution_is_no_matrix_of_columns() -> None:
    native = model("ConvTranspose", (1, 3, 4, 4), (3, 2, 3, 3))
    assert layers(gp.analyze(native)) == []


def test_the_entries_of_a_dimension_among_the_inputs() -> None:
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "v"], ["h"]),
            helper.make_node("Conv", ["h", "w"], ["y"]),
        ],
        "two",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 2, 6, 6))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(np.ones((3, 2, 1, 1), np.float32), "v"),
            numpy_helper.from_array(np.ones((2, 3, 2, 2), np.float32), "w"),
        ],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    analysis = gp.analyze(ir.from_proto(onnx.shape_inference.infer_shapes(made)))
    (group,) = [each for each in analysis.groups if each.size == 3]
    last = layers(analysis)[1]
    (entries,) = last.entries(group.dim, last.inputs)
    assert entries.tolist() == [0] * 4 + [1] * 4 + [2] * 4
