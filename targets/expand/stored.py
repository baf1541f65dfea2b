"""Quantised numbers are moved as they are stored: QuantizeLinear goes up through what only moves numbers, and
DequantizeLinear down; where both meet and say the same, neither is left.

Moving, taking the largest and rounding are one thing in any order, so that every result stays what it was.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from graphprune.targets.expand.maker import array

UP = {"Concat", "Flatten", "Identity", "MaxPool", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
DOWN = {*UP, "Expand", "Gather", "Slice", "Split"} - {"Concat"}
EIGHT = {ir.DataType.UINT8, ir.DataType.INT8}


def move_as_stored(graph: ir.Graph) -> bool:
    """In place; whether anything changed."""
    found = False
    queue = [node for node in graph if node.op_type in {"QuantizeLinear", "DequantizeLinear"} and not node.domain]
    while queue:
        node = queue.pop(0)
        if node.graph is None or not one_scale(node):
            continue
        if node.op_type == "QuantizeLinear":
            more = cancelled(graph, node) or up(graph, node)
        else:
            more = down(graph, node)
        queue += more or []
        found = found or more is not None
    return found


def one_scale(node: ir.Node) -> bool:
    """Whether it has one constant scale, and 8-bit numbers on its side."""
    stored = node.inputs[0] if node.op_type == "DequantizeLinear" else node.outputs[0]
    factors = array(node.inputs[1])
    zero = node.inputs[2] if len(node.inputs) > 2 else None
    known = zero is None or array(zero) is not None
    return stored is not None and stored.dtype in EIGHT and factors is not None and factors.size == 1 and known


def parameters(node: ir.Node) -> tuple[float, int, ir.DataType | None]:
    """Scale, zero point and type of what is stored."""
    factors = array(node.inputs[1])
    zero = array(node.inputs[2]) if len(node.inputs) > 2 else None
    stored = node.inputs[0] if node.op_type == "DequantizeLinear" else node.outputs[0]
    assert factors is not None and stored is not None
    return float(factors.reshape(())), 0 if zero is None else int(zero.reshape(-1)[0]), stored.dtype


def cancelled(graph: ir.Graph, node: ir.Node) -> list[ir.Node] | None:
    """What is quantised as it was before stays as it is."""
    source = node.inputs[0].producer() if node.inputs[0] is not None else None
    if source is None or source.op_type != "DequantizeLinear" or node.outputs[0].is_graph_output():
        return None
    if not one_scale(source) or parameters(source) != parameters(node):
        return None
    stored = source.inputs[0]
    assert stored is not None
    ir.convenience.replace_all_uses_with(node.outputs[0], stored)
    graph.remove(node, safe=True)
    unused(graph, source)
    return []


def up(graph: ir.Graph, node: ir.Node) -> list[ir.Node] | None:
    """A QuantizeLinear after an operator that moves numbers or takes the largest comes before it."""
    value = node.inputs[0]
    move = None if value is None else value.producer()
    if value is None or move is None or move.op_type not in UP or move.domain or len(move.outputs) > 1:
        return None
    if len(list(value.uses())) > 1 or value.is_graph_output():
        return None
    made, entries = [], list(move.inputs)
    for place, entry in enumerate(entries):
        if entry is None or (place and move.op_type != "Concat"):
            continue
        step = ir.Node("", "QuantizeLinear", [entry, *node.inputs[1:]], node.attributes.values())
        entries[place] = named(step.outputs[0], f"{node.outputs[0].name}/{place}", entry.shape, node.outputs[0].dtype)
        made.append(step)
    moved = again(move, entries, node.outputs[0].dtype)
    old = node.outputs[0]
    ir.convenience.replace_nodes_and_values(graph, node, [node, move], [*made, moved], [old], [moved.outputs[0]])
    return made


def down(graph: ir.Graph, node: ir.Node) -> list[ir.Node] | None:
    """Operators that move numbers or take the largest behind a DequantizeLinear come before it."""
    value, stored = node.outputs[0], node.inputs[0]
    assert stored is not None
    made: list[ir.Node] = []
    for move, place in list(value.uses()):
        if move.domain or move.graph is not graph:
            continue
        entries: Sequence[ir.Value | None] | None = None
        if place == 0 and move.op_type in DOWN and (move.op_type != "MaxPool" or len(move.outputs) == 1):
            entries = [stored, *move.inputs[1:]]
        elif move.op_type == "Concat" and len(list(value.uses())) == 1:
            entries = alike(move, node)
        if entries is None:
            continue
        moved = again(move, entries, stored.dtype)
        steps = []
        for old, new in zip(move.outputs, moved.outputs, strict=True):
            step = ir.Node("", "DequantizeLinear", [new, *node.inputs[1:]], node.attributes.values())
            named(step.outputs[0], f"{old.name}/numbers", old.shape, value.dtype)
            steps.append(step)
        results = [step.outputs[0] for step in steps]
        ir.convenience.replace_nodes_and_values(graph, move, [move], [moved, *steps], list(move.outputs), results)
        made += steps
    unused(graph, node)
    return made or None


def alike(move: ir.Node, node: ir.Node) -> list[ir.Value | None] | None:
    """What is stored of all that a Concat joins, where all of it is stored alike."""
    sources = [None if entry is None else entry.producer() for entry in move.inputs]
    if any(each is None or each.op_type != "DequantizeLinear" or not one_scale(each) for each in sources):
        return None
    if any(each is None or parameters(each) != parameters(node) for each in sources):
        return None
    return [each.inputs[0] for each in sources if each is not None]


def again(move: ir.Node, entries: Sequence[ir.Value | None], dtype: ir.DataType | None) -> ir.Node:
    """The same step on other numbers."""
    moved = ir.Node("", move.op_type, entries, move.attributes.values(), num_outputs=len(move.outputs), name=move.name)
    for old, new in zip(move.outputs, moved.outputs, strict=True):
        named(new, f"{old.name}/stored", old.shape, dtype)
    folded(moved)
    return moved


def folded(moved: ir.Node) -> None:
    """Constants are turned here: nobody folds them afterwards."""
    kept = array(moved.inputs[0])
    if kept is not None and moved.op_type == "Transpose":
        order = moved.attributes.get("perm")
        turned = kept.transpose(None if order is None else order.as_ints())
        moved.outputs[0].const_value = ir.tensor(np.ascontiguousarray(turned))


def named(value: ir.Value, name: str, shape: ir.Shape | None, dtype: ir.DataType | None) -> ir.Value:
    """The value with this name, shape and type."""
    value.name, value.shape = name, shape
    value.type = None if dtype is None else ir.TensorType(dtype)
    return value


def unused(graph: ir.Graph, node: ir.Node) -> None:
    """Takes a node out that nothing reads."""
    if not any(list(value.uses()) or value.is_graph_output() for value in node.outputs):
        graph.remove(node, safe=True)
