"""Operators of integers, each as onnxruntime runs it; and that what only moves numbers is moved as it is stored."""

from __future__ import annotations

from collections import Counter
from typing import Any

import onnx_ir as ir
import pytest

pytest.importorskip("tvm")

from graphprune.targets.network.graph import read
from tests.targets.network.net import Net
from tests.targets.network.steps import integers, numbers, rounded, stored, within

MICROSOFT = "com.microsoft"


def ends(net: Net, scale: float, zero: int) -> tuple[str, str]:
    return net.constant(scale, "float32"), net.constant(zero, "uint8")


@pytest.mark.parametrize(
    ("kind", "attributes"),
    [
        ("QLinearAveragePool", {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("QLinearGlobalAveragePool", {}),
        ("QLinearLeakyRelu", {"alpha": 0.1}),
        ("QLinearSigmoid", {}),
    ],
)
def test_of_one_operand(kind: str, attributes: dict[str, Any]) -> None:
    net = Net()
    x = stored(net, net.input(1, 3, 6, 8), 0.0413, 101)
    y = net.op(kind, x, *ends(net, 0.0413, 101), *ends(net, 0.0271, 33), domain=MICROSOFT, **attributes)
    within(net.model(y), most=0.05)


@pytest.mark.parametrize("kind", ["QLinearAdd", "QLinearMul"])
def test_of_two_operands(kind: str) -> None:
    net = Net()
    a, b = stored(net, net.input(2, 5, 7), 0.0413, 101), stored(net, net.input(5, 1), 0.0337, 90)
    y = net.op(kind, a, *ends(net, 0.0413, 101), b, *ends(net, 0.0337, 90), *ends(net, 0.0523, 99), domain=MICROSOFT)
    within(net.model(y), most=0.05)


def test_concat_and_gemm() -> None:
    net = Net()
    a, b = stored(net, net.input(6, 5), 0.0413, 101), stored(net, net.input(6, 4), 0.0337, 90)
    both = net.op(
        "QLinearConcat", *ends(net, 0.0523, 99), a, *ends(net, 0.0413, 101), b, *ends(net, 0.0337, 90),
        domain=MICROSOFT, axis=1,
    )  # fmt: skip
    names = net.constant(integers(net, 11, 9)), net.constant(0.0117, "float32"), net.constant(0, "int8")
    c = net.constant(net.generator.integers(-999, 999, 11), "int32")
    y = net.op("QGemm", both, *ends(net, 0.0523, 99), *names, c, *ends(net, 0.0611, 120), domain=MICROSOFT, transB=1)
    within(net.model(both, y), most=0.05)


def test_the_same_operator_of_onnxruntime() -> None:
    net = Net()
    x = net.op("QuantizeLinear", net.input(3, 17), *ends(net, 0.0413, 101), domain=MICROSOFT)
    within(net.model(net.op("DequantizeLinear", x, *ends(net, 0.0413, 101), domain=MICROSOFT)), steps=0, scale=0.0413)


def left(net: Net, *outputs: str) -> Counter[str]:
    """The operators that are left."""
    return Counter(node.op for node in read(ir.from_proto(net.model(*outputs)), {}).nodes)


def test_what_says_the_same_is_left_out() -> None:
    net = Net()
    x = stored(net, net.input(2, 12), 0.1, 7)
    moved = net.op("Transpose", net.op("Reshape", numbers(net, x, 0.1, 7), net.numbers(4, 6)), perm=[1, 0])
    y = stored(net, moved, 0.1, 7)
    assert left(net, y) == {"QuantizeLinear": 1, "Reshape": 1, "Transpose": 1}
    within(net.model(y), steps=0)


@pytest.mark.parametrize(("scale", "zero"), [(0.1001, 7), (0.1, 8)])
def test_what_says_something_else_is_rounded_again(scale: float, zero: int) -> None:
    net = Net()
    x = stored(net, net.input(2, 12), 0.1, 7)
    y = stored(net, net.op("Reshape", numbers(net, x, 0.1, 7), net.numbers(4, 6)), scale, zero)
    assert left(net, y) == {"QuantizeLinear": 2, "DequantizeLinear": 1, "Reshape": 1}
    within(net.model(y))


def test_outputs_keep_their_names_and_numbers() -> None:
    """Of what is moved on, and of what is read elsewhere."""
    net = Net()
    x = stored(net, net.input(1, 4, 6, 6), 0.1, 7)
    plain = numbers(net, x, 0.1, 7)
    pooled = net.op("MaxPool", plain, kernel_shape=[2, 2], strides=[2, 2])
    halves = net.ops("Split", pooled, outputs=2, axis=1)
    joined = net.op("Concat", *halves, rounded(net, net.op("Relu", pooled), 0.1, 7), axis=1)
    again = [stored(net, joined, 0.1, 7), stored(net, halves[0], 0.2, 1)]
    within(net.model(plain, pooled, joined), scale=0.1)
    within(net.model(*again, plain), scale=1.0)
