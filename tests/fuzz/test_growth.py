"""Small files that stand for much: what doubles with every node, or nests with every node, takes no time and no stack.

Each model is a chain of one step after the other; a few hundred of them are a few kilobytes of file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from graphprune import api
from graphprune.errors import GraphPruneError

from .harness import time_limit

LENGTH = 600
SECONDS = 10
Step = Callable[[str, str], Sequence[NodeProto]]

_STORED: dict[str, Sequence[int]] = {
    "zero": [0], "one": [1], "two": [2], "eight": [8], "double": [1, 2], "flat": [2, -1], "thrice": [1, 1, 2]
}  # fmt: skip


def node(op: str, inputs: str, outputs: str, **attributes: object) -> NodeProto:
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


def model(nodes: Sequence[NodeProto], output: str) -> ir.Model:
    """Nodes that may read x [2, 8], a wide input q [p, r], and a weight of 8 by 16."""
    weights = [numpy_helper.from_array(np.array(numbers, np.int64), name) for name, numbers in _STORED.items()]
    weights.append(numpy_helper.from_array(np.ones((8, 16), np.float32), "weight"))
    weights.append(numpy_helper.from_array(np.ones((16, 3), np.float32), "last"))
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 8]),
        helper.make_tensor_value_info("q", TensorProto.FLOAT, ["p", "r"]),
    ]
    graph = helper.make_graph(list(nodes), "chain", inputs, [onnx.ValueInfoProto(name=output)], weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return ir.serde.deserialize_model(made)


def chain(first: NodeProto, step: Step, last: str) -> ir.Model:
    """h0 -> h1 -> ... -> h600 -> y, where `first` makes h0 and `last` makes y."""
    nodes = [node("MatMul", "x weight", "hidden"), first]
    for k in range(LENGTH):
        nodes += step(f"h{k}", f"h{k + 1}")
    return model([*nodes, node(last, f"h{LENGTH}", "y")], "y")


_HIDDEN = node("Identity", "hidden", "h0")
_SIZES = node("Shape", "hidden", "h0")
_RUN_TIME_SIZES = node("Shape", "q", "h0")


def _kronecker(old: str, new: str) -> list[NodeProto]:
    steps = (("Unsqueeze", "two", "a"), ("Expand", "thrice", "b"), ("Reshape", "flat", ""))
    names = [old, *(f"{new}{suffix}" for _, _, suffix in steps)]
    return [node(op, f"{names[k]} {other}", names[k + 1]) for k, (op, other, _) in enumerate(steps)]


def _sliced(old: str, new: str) -> list[NodeProto]:
    cut = node("Slice", f"{old} zero eight one one", f"{new}cut")
    return [cut, node("Concat", f"{new}cut {new}cut", new, axis=1)]


def _nested(old: str, new: str) -> list[NodeProto]:
    return [node("Tile", f"{old} double", f"{new}t"), node("Concat", f"{new}t hidden", new, axis=1)]


_CHAINS: dict[str, Callable[[], ir.Model]] = {
    "an axis joined with itself": lambda: chain(
        _HIDDEN, lambda old, new: [node("Concat", f"{old} {old}", new, axis=1)], "Relu"
    ),
    "an axis joined with another": lambda: chain(
        _HIDDEN, lambda old, new: [node("Concat", f"{old} hidden", new, axis=1)], "Relu"
    ),
    "joined and repeated": lambda: chain(_HIDDEN, _nested, "Relu"),
    "cut and joined": lambda: chain(_HIDDEN, _sliced, "Relu"),
    "multiplied": lambda: chain(_HIDDEN, _kronecker, "Relu"),
    "a new axis": lambda: chain(_HIDDEN, lambda old, new: [node("Unsqueeze", f"{old} one", new)], "Relu"),
    "diamonds before what has no rule": lambda: chain(
        _HIDDEN, lambda old, new: [node("Add", f"{old} {old}", new)], "Nonsense"
    ),
    "sizes multiplied": lambda: chain(_SIZES, lambda old, new: [node("Mul", f"{old} {old}", new)], "ConstantOfShape"),
    "sizes added": lambda: chain(_SIZES, lambda old, new: [node("Add", f"{old} one", new)], "ConstantOfShape"),
    "sizes joined": lambda: chain(
        _SIZES, lambda old, new: [node("Concat", f"{old} {old}", new, axis=0)], "ConstantOfShape"
    ),
    "sizes of the run multiplied": lambda: chain(
        _RUN_TIME_SIZES,
        lambda old, new: [node("Add", f"{old} one", f"{new}a"), node("Mul", f"{old} {new}a", new)],
        "ConstantOfShape",
    ),
}


@pytest.mark.parametrize("name", _CHAINS)
def test_growth(name: str) -> None:
    made = _CHAINS[name]()
    with time_limit(SECONDS):
        analysis = api.analyze(made)
        assert isinstance(analysis.refusals, list)
        try:
            api.apply(analysis, api.plan(analysis, ratio=0.5))
        except GraphPruneError as error:
            assert error.code == "GP302"


@pytest.mark.parametrize("op", ["Identity", "Transpose"])
def test_a_weight_behind_many_operators(op: str) -> None:
    """Folding a constant goes node by node, not call in call."""
    nodes = [node(op, "weight" if k == 0 else f"w{k}", f"w{k + 1}") for k in range(2 * LENGTH)]
    made = model([*nodes, node("MatMul", f"x w{2 * LENGTH}", "h"), node("MatMul", "h last", "y")], "y")
    with time_limit(SECONDS):
        analysis = api.analyze(made)
        api.apply(analysis, api.plan(analysis, ratio=0.5))


def test_sizes_given_to_what_has_no_rule_stay() -> None:
    """A Reshape that cannot be followed reads the size of the hidden axis: cut, it would reshape to something else."""
    nodes = [
        node("MatMul", "x weight", "hidden"),
        node("MatMul", "hidden last", "y"),
        node("Shape", "hidden", "sizes"),
        node("Concat", " ".join(["sizes"] * 40), "many", axis=0),
        node("Reshape", "x many", "z"),
    ]
    made = model(nodes, "y")
    made.graph.outputs.append(next(n.outputs[0] for n in made.graph if n.op_type == "Reshape"))
    analysis = api.analyze(made)
    assert analysis.groups == []
    assert {refusal.code for refusal in analysis.refusals if refusal.tensor == "last" and refusal.axis == 0} == {
        "GP206"
    }
