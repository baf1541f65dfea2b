"""What a network computes from its sizes is known before it is lowered."""

from __future__ import annotations

import onnx
import pytest

pytest.importorskip("tvm")

from tests.targets.network.harness import built, check
from tests.targets.network.net import Net

BRANCHES = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[1, N] x) => (float[A, B] y) {
    two = Constant <value = int64[1] {2}> ()
    three = Constant <value = int64[1] {3}> ()
    none = ConstantOfShape <value = int64[1] {0}> (three)
    amounts = Concat <axis = 0> (none, two)
    wide = Pad <mode = "reflect"> (x, amounts)
    sizes = Shape (wide)
    one = Constant <value = int64 {1}> ()
    columns = Gather <axis = 0> (sizes, one)
    twelve = Constant <value = int64 {12}> ()
    is_twelve = Equal (columns, twelve)
    y = If (is_twelve) <
        then_branch = then_graph () => (float[A, B] a) { a = Sin (wide) },
        else_branch = else_graph () => (float[C] b) {
            zero = Constant <value = int64[1] {0}> ()
            b = Squeeze (wide, zero)
        }
    >
}
"""


@pytest.mark.parametrize(("length", "shape"), [(10, (1, 12)), (11, (13,))])
def test_amounts_and_branches_that_follow_from_sizes(length: int, shape: tuple[int, ...]) -> None:
    """As in speech networks: how much a Pad adds, and which branch of an If runs, is computed from Shape."""
    model = onnx.parser.parse_model(BRANCHES)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = length
    made = built(model)
    assert made.lowered.graph.outputs[0].shape == shape
    assert "If" not in {call.node.op for call in made.lowered.calls}
    check(model)


def test_constants_of_a_shape() -> None:
    net = Net()
    shape = net.numbers(2, 3)
    y = net.op("Add", net.op("ConstantOfShape", shape), net.input(2, 3))
    check(net.model(y))
