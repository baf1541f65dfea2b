"""Weights of integer operators: fitted in the form between floats, written where they are, on their grid."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import graphprune as gp
from graphprune.dialects import tools_of
from graphprune.dialects.onnx.between import between_floats
from graphprune.fidelity import Fidelity
from graphprune.layers import layers
from tests.recover.networks import data

RANGES = {"x": 8.0, "a": 6.0, "b": 6.0, "c": 6.0, "p": 3.0, "y": 4.0}
"""The largest magnitude of each activation."""


def stored(name: str, array: Any, dtype: Any) -> Any:
    return numpy_helper.from_array(np.asarray(array, dtype), name)


class Writer:
    """Products of integers, one after the other: uint8 activations, int8 weights, biases in 32 bits."""

    def __init__(self, per_channel: bool) -> None:
        self.rng, self.per_channel = np.random.default_rng(0), per_channel
        self.nodes: list[Any] = []
        self.tensors: list[Any] = []
        for name, most in RANGES.items():
            low = 0.0 if name in "abc" else -most
            scale = (most - low) / 255
            self.tensors += [stored(f"{name}.s", scale, np.float32), stored(f"{name}.z", round(-low / scale), np.uint8)]

    def weight(self, name: str, shape: tuple[int, ...], out: int, before: str) -> tuple[list[str], str]:
        numbers = self.rng.standard_normal(shape) * np.sqrt(2 * shape[out] / np.prod(shape))
        others = tuple(axis for axis in range(len(shape)) if axis != out)
        scale = np.float32((np.abs(numbers).max(axis=others) if self.per_channel else np.abs(numbers).max()) / 127)
        spread = scale.reshape([-1 if axis == out else 1 for axis in range(len(shape))]) if self.per_channel else scale
        unit = scale * np.float32((RANGES[before] * (1 if before in "abc" else 2)) / 255)
        self.tensors += [
            stored(f"{name}.wq", np.rint(numbers / spread), np.int8), stored(f"{name}.ws", scale, np.float32),
            stored(f"{name}.wz", np.zeros(np.shape(scale)), np.int8),
            stored(f"{name}.bq", np.rint(0.2 * self.rng.standard_normal(shape[out]) / unit), np.int32),
        ]  # fmt: skip
        return [f"{name}.wq", f"{name}.ws", f"{name}.wz"], f"{name}.bq"

    @staticmethod
    def of(name: str) -> list[str]:
        return [f"{name}.q", f"{name}.s", f"{name}.z"]

    def op(self, kind: str, inputs: list[str], output: str, **more: Any) -> None:
        self.nodes.append(helper.make_node(kind, inputs, [output], **more))


def integers(per_channel: bool = True, gemm: bool = True, opset: int = 18) -> ir.Model:
    """Three convolutions, a mean over positions, and a product of matrices: QGemm with a bias, or QLinearMatMul."""
    make = Writer(per_channel)
    make.op("QuantizeLinear", ["x", "x.s", "x.z"], "x.q")
    for name, before, shape in (("a", "x", (12, 3, 3, 3)), ("b", "a", (12, 12, 3, 3)), ("c", "b", (16, 12, 3, 3))):
        weight, bias = make.weight(name, shape, 0, before)
        given = [*make.of(before), *weight, f"{name}.s", f"{name}.z", bias]
        make.op("QLinearConv", given, f"{name}.q", pads=[1, 1, 1, 1])
    make.op("DequantizeLinear", make.of("c"), "c.f")
    make.op("GlobalAveragePool", ["c.f"], "p.m")
    make.op("Flatten", ["p.m"], "p.f")
    make.op("QuantizeLinear", ["p.f", "p.s", "p.z"], "p.q")
    weight, bias = make.weight("y", (16, 5), 1, "p")
    if gemm:
        make.op("QGemm", [*make.of("p"), *weight, bias, "y.s", "y.z"], "y.q", domain="com.microsoft")
    else:
        make.op("QLinearMatMul", [*make.of("p"), *weight, "y.s", "y.z"], "y.q")
    make.op("DequantizeLinear", make.of("y"), "y")
    used = {name for node in make.nodes for name in node.input}
    graph = helper.make_graph(
        make.nodes,
        "integers",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", 3, 8, 8))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("n", 5))],
        [each for each in make.tensors if each.name in used],
    )
    sets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return ir.from_proto(helper.make_model(graph, opset_imports=sets, ir_version=9))


def codes_of(made: ir.Model) -> dict[str, np.ndarray]:
    return {str(name): value.const_value.numpy() for name, value in made.graph.initializers.items()}


def kinds(made: ir.Model) -> list[str]:
    return [node.op_type for node in made.graph]


CASES = [(True, True), (False, True), (True, False), (False, False)]


@pytest.mark.parametrize("opset", [12, 18])  # before 13, only the DequantizeLinear of onnxruntime has an axis
@pytest.mark.parametrize(("per_channel", "gemm"), CASES)
def test_it_computes_the_same_but_for_rounding(per_channel: bool, gemm: bool, opset: int) -> None:
    whole = integers(per_channel, gemm, opset)
    other = between_floats(whole)
    assert not {"QLinearConv", "QLinearMatMul", "QGemm"} & set(kinds(other))
    assert {"QLinearConv", "QGemm" if gemm else "QLinearMatMul"} <= set(kinds(whole))  # it stays as it is
    found = [layer.name for layer in layers(gp.analyze(other))]
    assert [name.split(" of ")[0] for name in found] == ["a.wq", "b.wq", "c.wq", "y.wq"]
    step = 2 * RANGES["y"] / 255
    for case in data(3):
        a, b = (tools_of(each).runner(each)(case)[0] for each in (whole, other))
        assert np.abs(a).max() > 5 * step
        assert np.abs(a - b).max() <= 2.01 * step


def test_where_there_are_no_products_of_integers_it_is_the_same_model() -> None:
    plain = between_floats(integers())
    assert between_floats(plain) is plain
    assert tools_of(plain).between_floats(plain) is plain


def test_what_cannot_be_said_stays() -> None:
    """A scale that is computed while it runs."""
    proto = ir.to_proto(integers(per_channel=False))
    node = next(each for each in proto.graph.node if each.op_type == "QLinearConv" and each.input[0] == "a.q")
    node.input[4] = "computed"
    proto.graph.node.insert(0, helper.make_node("Abs", ["b.ws"], ["computed"]))
    found = between_floats(ir.from_proto(proto))
    assert kinds(found).count("QLinearConv") == 1 and kinds(found).count("Conv") == 2


@pytest.mark.parametrize("recover", ["least_squares", "mask_tuning", "gauss_newton"])
@pytest.mark.parametrize(("per_channel", "gemm"), CASES[:3:2])
def test_codes_of_integer_operators_are_fitted(per_channel: bool, gemm: bool, recover: str) -> None:
    dense = integers(per_channel, gemm)
    options: dict[str, Any] = {"macs": 0.5, "criterion": "l1", "calibration": data()}
    plain = gp.prune(dense, **options)
    better = gp.prune(dense, **options, recover=recover)
    assert better.plan.groups == plain.plan.groups
    fidelity = Fidelity(gp.analyze(dense), data(3, seed=7))
    before, after = (fidelity.error(fidelity.outputs(each.model)) for each in (plain, better))
    assert after < (0.95 if recover == "mask_tuning" else 0.6) * before
    assert kinds(better.model) == kinds(plain.model) == kinds(dense)
    old, new = codes_of(plain.model), codes_of(better.model)
    assert old.keys() == new.keys()
    changed = {name for name in old if not np.array_equal(old[name], new[name])}
    assert {"b.wq", "c.wq"} <= changed <= {f"{layer}.{kind}" for layer in "abcy" for kind in ("wq", "bq")}
    for name in changed:
        assert new[name].dtype == old[name].dtype
        assert new[name].dtype != np.int8 or np.abs(new[name].astype(int)).max() <= 127
    onnxruntime.InferenceSession(ir.to_proto(better.model).SerializeToString())
    assert TensorProto.INT8 in {each.data_type for each in ir.to_proto(better.model).graph.initializer}
