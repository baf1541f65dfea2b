"""Quantised weights are scored, and looked through for zeros, as the numbers that they stand for."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

import graphprune as gp
from graphprune.api import free_of
from graphprune.criteria.transfer import score_groups
from graphprune.dequantise import factors, unpacked
from tests.execution import run

INPUTS, HIDDEN, OUTPUTS, BLOCK = 32, 6, 3, 16


def model(nodes: list[onnx.NodeProto], stored: dict[str, np.ndarray]) -> onnx.ModelProto:
    """x[batch, INPUTS] -> y[batch, OUTPUTS]; hidden is the result of the first nodes."""
    nodes = [*nodes, helper.make_node("Relu", ["hidden"], ["r"]), helper.make_node("MatMul", ["r", "last"], ["y"])]
    stored["last"] = np.random.default_rng(1).normal(size=(HIDDEN, OUTPUTS)).astype(np.float32)
    return finished(nodes, stored)


def finished(nodes: list[onnx.NodeProto], stored: dict[str, np.ndarray]) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "quantised",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", INPUTS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", OUTPUTS])],
        [numpy_helper.from_array(array, name) for name, array in stored.items()],
    )
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def packed(bits: int, zeros: str) -> onnx.ModelProto:
    """A MatMulNBits; ``zeros`` says how its zero points are given: "none", "packed" or "float"."""
    generator = np.random.default_rng(bits)
    blocks = INPUTS // BLOCK
    stored = {
        "first": generator.integers(0, 256, (HIDDEN, blocks, BLOCK * bits // 8), dtype=np.uint8),
        "scales": generator.uniform(0.01, 0.1, HIDDEN * blocks).astype(np.float32),
    }
    if zeros == "packed":
        stored["zeros"] = generator.integers(0, 256, HIDDEN * -(-blocks * bits // 8), dtype=np.uint8)
    elif zeros == "float":
        stored["zeros"] = generator.uniform(0, 2**bits, HIDDEN * blocks).astype(np.float32)
    sizes = {"K": INPUTS, "N": HIDDEN, "bits": bits, "block_size": BLOCK}
    names = ["x", "first", "scales", *(["zeros"] if zeros != "none" else [])]
    return model([helper.make_node("MatMulNBits", names, ["hidden"], domain="com.microsoft", **sizes)], stored)


def integer(zeros: str) -> onnx.ModelProto:
    """A QLinearMatMul, of which the second row stands for zeros; ``zeros``: of the whole weight, or of each column."""
    generator = np.random.default_rng(0)
    first = generator.normal(size=(INPUTS, HIDDEN)).astype(np.float32)
    second = generator.integers(-9, 9, (HIDDEN, OUTPUTS), dtype=np.int8)
    zero = np.array(3, np.int8) if zeros == "one" else np.array([3, 0, -5], np.int8)
    second[2], second[3] = zero, 0
    scale = np.float32(0.02) if zeros == "one" else np.full(OUTPUTS, 0.02, np.float32)
    stored = {"first": first, "second": second, "zero": zero, "scale": scale, "point": np.array(128, np.uint8)}
    stored["step"] = np.array(0.05, np.float32)
    weight = ["second", "scale", "zero", "step", "point"]
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["hidden"]),
        helper.make_node("QuantizeLinear", ["hidden", "step", "point"], ["q"]),
        helper.make_node("QLinearMatMul", ["q", "step", "point", *weight], ["p"]),
        helper.make_node("DequantizeLinear", ["p", "step", "point"], ["y"]),
    ]
    return finished(nodes, stored)


def hidden(made: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """What onnxruntime computes for the hidden layer."""
    shown = onnx.ModelProto.FromString(made.SerializeToString())
    shown.graph.output.append(helper.make_tensor_value_info("hidden", TensorProto.FLOAT, None))
    return run(shown, {"x": x.astype(np.float32)})["hidden"]


@pytest.mark.parametrize(("bits", "zeros"), [(4, "none"), (4, "packed"), (4, "float"), (8, "none"), (8, "packed")])
def test_packed_numbers_are_those_of_onnxruntime(bits: int, zeros: str) -> None:
    made = packed(bits, zeros)
    expected = hidden(made, np.eye(INPUTS)).T  # [HIDDEN, INPUTS]
    analysis = gp.analyze(ir.from_proto(made))
    contraction = next(each for each in analysis.contractions if each.bits)
    scale, zero = factors(analysis, contraction)
    stored = numpy_helper.to_array(next(t for t in made.graph.initializer if t.name == "first"))
    assert scale is not None and zero is not None
    numbers = (unpacked(stored, bits).astype(np.float32) - zero) * scale
    assert np.allclose(numbers.reshape(HIDDEN, INPUTS), expected, atol=1e-5)
    assert not np.allclose((unpacked(stored, bits).astype(np.float32) - zero - 1) * scale, numbers)


@pytest.mark.parametrize("criterion", ["l1", "l2", "linf"])
@pytest.mark.parametrize("made", [packed(4, "packed"), packed(8, "none"), packed(4, "float")])
def test_scores_are_those_of_the_numbers(made: onnx.ModelProto, criterion: str) -> None:
    """As many as MatMul with the numbers as floats would get."""
    floats = hidden(made, np.eye(INPUTS))
    plain = model([helper.make_node("MatMul", ["x", "first"], ["hidden"])], {"first": floats})
    scores = []
    for each in (made, plain):
        analysis = gp.analyze(ir.from_proto(each))
        (group,) = (group for group in analysis.groups if group.size == HIDDEN)
        scores.append(score_groups(analysis, [group], criterion=criterion)[group.dim])
    assert np.allclose(*scores, rtol=1e-4)


@pytest.mark.parametrize("zeros", ["one", "columns"])
def test_zeros_of_integers_are_their_zero_points(zeros: str) -> None:
    made = ir.from_proto(integer(zeros))
    assert free_of(gp.analyze(made)) == (1, 0)
    (cut,) = gp.clean(made).plan.groups
    assert cut.keep == (0, 1, 3, 4, 5)


@pytest.mark.parametrize("zeros", ["none", "packed", "float"])
def test_packed_weights_are_pruned_and_cleaned(zeros: str) -> None:
    made = ir.from_proto(packed(4, zeros))
    assert gp.prune(made, ratio=0.5).verification
    assert gp.clean(made).report.cut == 0
