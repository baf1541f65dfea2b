"""Captured models without residual blocks, and with blocks that add nothing."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch.fx import GraphModule
from torch.fx import Node as FxNode

from graphprune.analysis import Analysis
from graphprune.dialects.aten.capture import Captured
from graphprune.dialects.aten.inline import graphs_of
from graphprune.dialects.aten.places import operand, replace_operand
from graphprune.dialects.aten.stages import mutates

if TYPE_CHECKING:
    from graphprune.depth.residual import Residual

_ATEN = torch.ops.aten


def without(analysis: Analysis, blocks: Sequence[Residual]) -> Captured:
    """A copy of the captured model in which sums are their skips, and what only their branches needed is gone. A graph
    that writes in place gets copies of the skips: the sums had memory of their own."""
    captured: Captured = analysis.program.native
    graph, twins = captured.twin()
    shared = any(mutates(node) for each in graphs_of(graph) for node in each.graph.nodes)
    gone: set[FxNode] = set()
    for block in blocks:
        sum_ = twins[block.node.native]
        skip = operand(sum_, block.node, block.skip.index)
        if shared:
            with graph.graph.inserting_before(sum_):
                copied = graph.graph.call_function(_ATEN.clone.default, (skip,))
            copied.meta = dict(sum_.meta)
            skip = copied
        sum_.replace_all_uses_with(skip)
        gone |= {sum_, *(twins[node.native] for node in block.dropped)}
    _erase(graph, gone)
    graph.graph.lint()
    graph.recompile()
    return captured.with_graph(graph)


def _erase(graph: GraphModule, gone: set[FxNode]) -> None:
    """Take nodes out, their parts, and the tensors that no node names any more."""
    named = {str(node.target) for node in graph.graph.find_nodes(op="get_attr")}
    for node in reversed(list(graph.graph.nodes)):
        part = node.target is operator.getitem and node.args[0] in gone
        if not node.users and (node in gone or part or node.op == "get_attr"):
            graph.graph.erase_node(node)
    left = {str(node.target) for node in graph.graph.find_nodes(op="get_attr")}
    for name in named - left:
        path, _, last = name.rpartition(".")
        delattr(graph.get_submodule(path), last)
    graph.delete_all_unused_submodules()


def silenced(analysis: Analysis, blocks: Sequence[Residual]) -> Captured:
    """A copy of the captured model in which sums read the difference of their branches and themselves: zeros."""
    captured: Captured = analysis.program.native
    graph, twins = captured.twin()
    for block in blocks:
        sum_ = twins[block.node.native]
        branch = operand(sum_, block.node, block.branch.index)
        with graph.graph.inserting_before(sum_):
            zeros = graph.graph.call_function(_ATEN.sub.Tensor, (branch, branch))
        zeros.meta = dict(branch.meta)
        replace_operand(sum_, block.node, block.branch.index, zeros)
    graph.recompile()
    return captured.with_graph(graph)
