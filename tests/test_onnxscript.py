"""Networks written in onnxscript: operators that are onnxscript functions are analysed through their bodies."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxscript
import pytest
from onnx import numpy_helper
from onnxscript import FLOAT
from onnxscript import opset18 as op

import graphprune as gp
from tests.oracles import prune_and_check

own = onnxscript.values.Opset("tests.own", 1)


@onnxscript.script(own, default_opset=op)
def Swish(x, beta: float = 1.0):
    """``x * sigmoid(beta * x)``"""
    return x * op.Sigmoid(x * op.CastLike(beta, x))


@onnxscript.script(own, default_opset=op)
def Gated(x, gate, up, down):
    """A gated perceptron, whose width is not to be seen from outside."""
    return op.MatMul(Swish(op.MatMul(x, gate), beta=1.5) * op.MatMul(x, up), down)


@onnxscript.script(own, default_opset=op)
def Heads(x, query, key, value, out, heads):
    """Attention; ``heads`` is what the last axis is cut into, as a target of Reshape."""
    q = op.Transpose(op.Reshape(op.MatMul(x, query), heads), perm=[0, 2, 1, 3])
    k = op.Transpose(op.Reshape(op.MatMul(x, key), heads), perm=[0, 2, 3, 1])
    v = op.Transpose(op.Reshape(op.MatMul(x, value), heads), perm=[0, 2, 1, 3])
    mixed = op.Transpose(op.MatMul(op.Softmax(op.MatMul(q, k)), v), perm=[0, 2, 1, 3])
    return op.MatMul(op.Reshape(mixed, op.Constant(value_ints=[0, 0, -1])), out)


@onnxscript.script(default_opset=op)
def perceptron(
    x: FLOAT["batch", 5, 8],  # noqa: F821, UP037
    gate: FLOAT[8, 12],
    up: FLOAT[8, 12],
    down: FLOAT[12, 8],
) -> FLOAT["batch", 5, 8]:  # noqa: F821, UP037
    return Gated(x, gate, up, down)


@onnxscript.script(default_opset=op)
def block(
    x: FLOAT["batch", 5, 8],  # noqa: F821, UP037
    query: FLOAT[8, 12],
    key: FLOAT[8, 12],
    value: FLOAT[8, 12],
    out: FLOAT[12, 8],
    gate: FLOAT[8, 16],
    up: FLOAT[8, 16],
    down: FLOAT[16, 8],
) -> FLOAT["batch", 5, 8]:  # noqa: F821, UP037
    seen = x + Heads(x, query, key, value, out, op.Constant(value_ints=[0, 0, 3, 4]))
    return seen + Gated(seen, gate, up, down)


@onnxscript.script(default_opset=op)
def loop(x: FLOAT["batch", 8], into: FLOAT[8, 6], back: FLOAT[6, 8]) -> FLOAT["batch", 8]:  # noqa: F821, UP037
    hidden = op.MatMul(x, into)
    for _ in range(3):
        hidden = op.Tanh(hidden + 0.1)
    return op.MatMul(hidden, back)


@onnxscript.script(own, default_opset=op)
def Dense(x, weight, bias):
    return op.Relu(op.MatMul(x, weight) + bias)


@onnxscript.script(own, default_opset=op)
def Regrouped(x, shape, back):
    """The same stored shape is read twice, and those of heads follow the cut."""
    y = op.Reshape(x, shape)
    return op.Reshape(op.Tanh(op.Reshape(op.Reshape(y, back), shape)), back)


@onnxscript.script(default_opset=op)
def layers(
    x: FLOAT["batch", 8],  # noqa: F821, UP037
    first: FLOAT[8, 12],
    first_bias: FLOAT[12],
    last: FLOAT[12, 8],
) -> FLOAT["batch", 8]:  # noqa: F821, UP037
    return op.MatMul(Dense(x, first, first_bias), last) + x


@onnxscript.script(default_opset=op)
def regrouped(
    x: FLOAT["batch", 8],  # noqa: F821, UP037
    first: FLOAT[8, 12],
    last: FLOAT[12, 8],
) -> FLOAT["batch", 8]:  # noqa: F821, UP037
    hidden = op.MatMul(x, first)
    shape, back = op.Constant(value_ints=[-1, 3, 4]), op.Constant(value_ints=[-1, 12])
    return op.MatMul(Regrouped(hidden, shape, back), last)


def model(function: Any) -> onnx.ModelProto:
    """The model of a script: all operands but the first are weights, with random numbers."""
    made = function.to_model_proto()
    generator = np.random.default_rng(0)
    for value in list(made.graph.input)[1:]:
        shape = [size.dim_value for size in value.type.tensor_type.shape.dim]
        array = (generator.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)
        made.graph.initializer.append(numpy_helper.from_array(array, value.name))
        made.graph.input.remove(value)
    return made


def groups(function: Any) -> set[tuple[int, str, frozenset[str]]]:
    found = gp.analyze(ir.from_proto(model(function))).groups
    return {(each.size, each.kind, frozenset(member.name for member in each.members)) for each in found}


def test_a_width_inside_of_a_function_is_found() -> None:
    assert groups(perceptron) == {(12, "channel", frozenset({"gate:1", "up:1", "down:0"}))}


def test_heads_inside_of_a_function_are_found() -> None:
    kinds = sorted((size, kind) for size, kind, _ in groups(block))
    assert kinds == [(3, "head"), (4, "head width"), (4, "head width"), (16, "channel")]


def test_a_bias_that_a_function_is_given_is_cut_with_its_layer() -> None:
    assert groups(layers) == {(12, "channel", frozenset({"first:1", "first_bias:0", "last:0"}))}
    pruned = gp.apply(dense := ir.from_proto(model(layers)), gp.plan(dense, ratio=0.5))
    assert {name: list(value.shape or []) for name, value in pruned.graph.initializers.items()} == {
        "first": [8, 6],
        "first_bias": [6],
        "last": [6, 8],
    }


@pytest.mark.parametrize("stored", [False, True])
def test_numbers_that_a_function_is_given_are_rewritten(stored: bool) -> None:
    made = model(regrouped)
    if stored:  # as initializers: a function sees none of the model's
        for node in [node for node in made.graph.node if node.op_type == "Constant"]:
            numbers = np.array(node.attribute[0].ints, np.int64)
            made.graph.initializer.append(numpy_helper.from_array(numbers, node.output[0]))
            made.graph.node.remove(node)
    checked = prune_and_check(made, ratio=0.5, seed=0, sizes={"batch": 2})
    assert checked.problems == []
    assert checked.removed > 0


def test_a_loop_over_a_hidden_value_is_followed() -> None:
    assert groups(loop) == {(6, "channel", frozenset({"into:1", "back:0"}))}


@pytest.mark.parametrize("function", [perceptron, block, loop, layers])
@pytest.mark.parametrize("ratio", [0.3, 0.6])
def test_pruning_holds(function: Any, ratio: float) -> None:
    checked = prune_and_check(model(function), ratio=ratio, seed=0, sizes={"batch": 2})
    assert checked.problems == []
    assert checked.removed > 0
