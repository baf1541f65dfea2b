"""Shapes and names of what is read: pools, operators that ONNX has no rule for, and networks that do nothing."""

from __future__ import annotations

import onnx_ir as ir
import pytest

pytest.importorskip("tvm")

from graphprune.errors import GraphPruneError
from graphprune.targets.network import inference
from graphprune.targets.network.graph import read
from tests.execution import feeds
from tests.targets.network.harness import built, check, compare
from tests.targets.network.net import Net


@pytest.mark.parametrize("kind", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize(
    ("size", "kernel", "stride", "pad"), [(20, 2, 7, 1), (4, 1, 2, 0), (5, 2, 3, 1), (13, 3, 2, 1)]
)
def test_a_window_that_begins_behind_the_map_is_none(kind: str, size: int, kernel: int, stride: int, pad: int) -> None:
    """ONNX's inference counts it with ceil_mode, onnxruntime and torch do not."""
    net = Net(opset=19)
    x = net.op("Abs", net.input(1, 2, size, size))
    attributes = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [min(pad, kernel - 1)] * 4}
    y = net.op(kind, x, **attributes, ceil_mode=1)
    check(net.model(net.op("Relu", y)))


def test_onnxruntime_is_asked_about_operators_that_onnx_has_no_rule_for() -> None:
    net = Net(opset=21)
    x = net.op("GroupNormalization", net.input(2, 8, 5, 5), net.weight(8), net.weight(8), num_groups=2)
    y = net.op("FastGelu", x, domain="com.microsoft")
    model = net.model(net.op("Relu", y))
    compare(built(model), [feeds(model)])


def test_without_onnxruntime_it_says_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net(opset=21)
    y = net.op("FastGelu", net.op("Relu", net.input(2, 8)), domain="com.microsoft")
    monkeypatch.setattr(inference, "has_onnxruntime", lambda: False)
    monkeypatch.setattr("graphprune.targets.network.graph.has_onnxruntime", lambda: False)
    with pytest.raises(
        GraphPruneError, match=r"GP811 nothing tells the size and type of .*com.microsoft:FastGelu"
    ) as error:
        read(ir.from_proto(net.model(y)), {})
    assert "pip install onnxruntime" in str(error.value)


def test_sizes_that_depend_on_the_data() -> None:
    net = Net()
    with pytest.raises(GraphPruneError, match=r"GP811 the size of .* \(NonZero\) depends on the data"):
        read(ir.from_proto(net.model(net.op("NonZero", net.input(2, 8)))), {})


def test_outputs_that_are_inputs_or_constants() -> None:
    net = Net()
    x = net.input(3, 5)
    same = net.op("Identity", x)
    check(net.model(x, same, net.op("Identity", net.weight(4)), net.op("Relu", x)))


def test_a_network_of_nothing() -> None:
    net = Net()
    x = net.input(3, 5)
    check(net.model(x))


def test_numbers_without_axes() -> None:
    net = Net()
    x, y = net.input(), net.input(7)
    check(net.model(net.op("Add", x, y), net.op("Relu", x), net.op("ReduceSum", y, keepdims=0)))


@pytest.mark.parametrize("steady", [True, False])
def test_results_of_loops_are_tried_out(steady: bool) -> None:
    """Three turns of a loop whose state has a size that ONNX does not follow; or as many as the data says."""
    from onnx import TensorProto, helper

    flag, number, state = (helper.make_tensor_value_info(n, k, s) for n, k, s in (
        ("more", TensorProto.BOOL, []), ("turn", TensorProto.INT64, []), ("before", TensorProto.FLOAT, None),
    ))  # fmt: skip
    nodes = [helper.make_node("Identity", ["more"], ["again"]), helper.make_node("Neg", ["before"], ["after"])]
    after = [helper.make_tensor_value_info("again", TensorProto.BOOL, []), helper.make_empty_tensor_value_info("after")]
    after.append(helper.make_empty_tensor_value_info("row"))
    nodes.append(helper.make_node("Mul", ["before", "before"], ["row"]))
    body = helper.make_graph(nodes, "body", [number, flag, state], after)
    net = Net()
    x, ten = net.input(3, 4), net.constant(10.0, "float32")
    turns = net.numbers(3) if steady else net.op("Cast", net.op("ReduceL1", net.op("Mul", x, ten), keepdims=0), to=7)
    turns = net.op("Squeeze", turns, net.numbers(0)) if steady else turns
    last, rows = net.ops("Loop", turns, "", net.op("Relu", x), outputs=2, body=body)
    model = net.model(net.op("Tanh", last), rows)
    if steady:
        compare(built(model), [feeds(model)])
        return
    with pytest.raises(GraphPruneError, match=r"GP811 .* \(Loop\)"):
        built(model)
