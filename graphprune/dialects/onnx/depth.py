"""ONNX models without residual blocks, and with blocks that add nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import onnx_ir as ir

from graphprune.analysis import Analysis
from graphprune.dialects.onnx.writer import Twins

if TYPE_CHECKING:
    from graphprune.depth.residual import Residual


def without(analysis: Analysis, blocks: Sequence[Residual]) -> ir.Model:
    """A copy of the analysed model in which sums are their skips, and what only their branches needed is gone."""
    copy = analysis.program.native.clone()
    twins = Twins(analysis.program.native, copy)
    gone: dict[ir.Node, None] = {}
    for block in blocks:
        sum_ = twins.nodes[block.node.native]
        skip, result = sum_.inputs[block.skip.index], sum_.outputs[0]
        assert skip is not None, "the operands of a sum are there"
        if result.is_graph_output():
            _hand_out(copy, sum_, skip, result)
        for reader, index in list(result.uses()):
            reader.replace_input_with(index, skip)
        gone[sum_] = None
        gone.update(dict.fromkeys(twins.nodes[node.native] for node in block.dropped if node.native in twins.nodes))
    _remove(copy, [node for node in copy.graph if node in gone])
    return copy  # type: ignore[no-any-return]


def _hand_out(model: ir.Model, sum_: ir.Node, skip: ir.Value, result: ir.Value) -> None:
    """Let an output be the skip under the name that it has."""
    node = ir.Node("", "Identity", [skip])
    output = node.outputs[0]
    output.name, output.shape, output.type = result.name, result.shape, result.type
    result.name = f"{result.name}.sum"
    sum_.append(node)
    model.graph.outputs[list(model.graph.outputs).index(result)] = output


def _remove(model: ir.Model, nodes: Sequence[ir.Node]) -> None:
    """Take nodes out, and the stored tensors that nobody reads without them."""
    read = [value for node in nodes for value in _values(node)]
    model.graph.remove(nodes, safe=True)
    for value in dict.fromkeys(read):
        known = value.is_initializer() and not value.is_graph_input() and not value.is_graph_output()
        if known and not value.uses() and model.graph.initializers.get(value.name or "") is value:
            del model.graph.initializers[value.name or ""]
        producer, unread = value.producer(), not value.uses() and not value.is_graph_output()
        if unread and producer is not None and producer.op_type == "Constant" and producer.graph is model.graph:
            model.graph.remove(producer, safe=True)


def _values(node: ir.Node) -> list[ir.Value]:
    inner = [node, *(each for body in _bodies(node) for each in ir.traversal.RecursiveGraphIterator(body))]
    return [value for each in inner for value in each.inputs if value is not None]


def _bodies(node: ir.Node) -> list[ir.Graph]:
    kind = ir.AttributeType.GRAPH
    return [each.as_graph() for each in node.attributes.values() if not each.is_ref() and each.type == kind]


def silenced(analysis: Analysis, blocks: Sequence[Residual]) -> ir.Model:
    """A copy of the analysed model in which sums read the difference of their branches and themselves: zeros, of any
    type."""
    copy = analysis.program.native.clone()
    twins = Twins(analysis.program.native, copy)
    for count, block in enumerate(blocks):
        sum_ = twins.nodes[block.node.native]
        branch = sum_.inputs[block.branch.index]
        assert branch is not None, "the operands of a sum are there"
        node = ir.Node("", "Sub", [branch, branch])
        zeros = node.outputs[0]
        zeros.name, zeros.shape, zeros.type = f"graphprune.silent.{count}", branch.shape, branch.type
        sum_.prepend(node)
        sum_.replace_input_with(block.branch.index, zeros)
    return copy  # type: ignore[no-any-return]
