"""Mutations that nest: branches in branches, loops in loops, functions that call functions. See message.py."""

from __future__ import annotations

from random import Random

import onnx
from onnx import GraphProto, ModelProto, TensorProto, helper

from .message import NAMES, graphs, mutation, names, pick


def _constant_condition(graph: GraphProto) -> str:
    name = f"condition{len(graph.node)}"
    graph.node.insert(
        0, helper.make_node("Constant", [], [name], value=helper.make_tensor("c", TensorProto.BOOL, [], [True]))
    )
    return name


@mutation
def conditionals_nested(rng: Random, model: ModelProto) -> None:
    """The output of the model goes through an If in an If in an If; protobuf itself allows about 30."""
    if not model.graph.output or not model.graph.node:
        return
    name = model.graph.output[0].name
    inner = helper.make_graph([helper.make_node("Identity", [name], ["deep"])], "deepest", [], [_untyped("deep")])
    condition = _constant_condition(model.graph)
    for level in range(rng.choice((1, 5, 20, 28))):
        made = f"deep{level}"
        node = helper.make_node("If", [condition], [made], then_branch=inner, else_branch=inner if level < 5 else None)
        inner = helper.make_graph([node], f"level{level}", [], [_untyped(made)])
    model.graph.node.add().CopyFrom(helper.make_node("If", [condition], ["top"], then_branch=inner, else_branch=inner))
    model.graph.output.append(_untyped("top"))


@mutation
def loops_nested(rng: Random, model: ModelProto) -> None:
    condition = _constant_condition(model.graph)
    body = None
    for level in range(rng.choice((1, 3, 12, 28))):
        inner = [helper.make_node("Identity", [f"c{level}"], [f"d{level}"])]
        if body is not None:
            inner.append(helper.make_node("Loop", ["", f"c{level}"], [], body=body))
        inputs = [_untyped(f"i{level}"), _untyped(f"c{level}")]
        body = helper.make_graph(inner, f"loop{level}", inputs, [_untyped(f"d{level}")])
    model.graph.node.add().CopyFrom(helper.make_node("Loop", ["", condition], [], body=body))


def _untyped(name: str) -> onnx.ValueInfoProto:
    return onnx.ValueInfoProto(name=name)


@mutation
def branch_changed(rng: Random, model: ModelProto) -> None:
    """A branch or a body has other inputs and outputs than its node, or shadows a name."""
    inner = graphs(model)[1:]
    graph = pick(rng, inner)
    if graph is None:
        return
    kind = rng.randrange(4)
    if kind == 0:
        graph.input.append(_untyped(rng.choice([*names(model), "more"])))
    elif kind == 1 and graph.output:
        graph.output.add().CopyFrom(graph.output[0])
    elif kind == 2:
        del graph.output[:]
    elif graph.node and graph.node[0].output:
        graph.node[0].output[0] = rng.choice(names(model))


@mutation
def functions_recursive(rng: Random, model: ModelProto) -> None:
    """Functions that call themselves, each other, or a long chain, and a call of them."""
    length = rng.choice((1, 2, 5, 200))
    closed = rng.random() < 0.7
    imports = [helper.make_opsetid("fuzz", 1), helper.make_opsetid("", 17)]
    for level in range(length):
        last = level == length - 1
        callee = "F0" if last and closed else "Identity" if last else f"F{level + 1}"
        call = helper.make_node(callee, ["a"], ["b"], domain="" if callee == "Identity" else "fuzz")
        model.functions.append(helper.make_function("fuzz", f"F{level}", ["a"], ["b"], [call], imports))
    model.opset_import.append(helper.make_opsetid("fuzz", 1))
    node = pick(rng, model.graph.node)
    if node is not None:
        node.op_type, node.domain = "F0", "fuzz"


@mutation
def function_called_wrongly(rng: Random, model: ModelProto) -> None:
    body = [helper.make_node("Relu", ["a"], ["b"]), helper.make_node("Add", ["b", "c"], ["d"])]
    imports = [helper.make_opsetid("", rng.choice((1, 7, 17)))]
    model.functions.append(helper.make_function("fuzz", "G", ["a", "c"], ["b", "d"], body, imports, ["alpha"]))
    model.opset_import.append(helper.make_opsetid("fuzz", 1))
    node = pick(rng, model.graph.node)
    if node is not None:
        node.op_type, node.domain = "G", "fuzz"


@mutation
def function_twice(rng: Random, model: ModelProto) -> None:
    if model.functions:
        model.functions.add().CopyFrom(rng.choice(model.functions))


@mutation
def function_changed(rng: Random, model: ModelProto) -> None:
    function = pick(rng, model.functions)
    if function is None:
        return
    kind = rng.randrange(5)
    if kind == 0 and function.node:
        del function.node[rng.randrange(len(function.node))]
    elif kind == 1 and function.input:
        del function.input[rng.randrange(len(function.input))]
    elif kind == 2:
        function.output.append(rng.choice(("nowhere", *function.output)))
    elif kind == 3:
        del function.opset_import[:]
    else:
        function.name = rng.choice(NAMES)
