"""The dense graph with removed entries masked: what a pruned graph is held against.

Entries are zeroed where a contraction sums over them, so nothing they are computed from matters any more. Where a
statistic is taken over a cut axis, the call is run on the survivors alone: its operands are gathered, and its results
spread out again. This shares nothing with the writer but the index arrays.
"""

from __future__ import annotations

import operator

import numpy as np
import torch
from torch.fx import Graph, GraphModule
from torch.fx import Node as FxNode

from graphprune.analysis import Analysis
from graphprune.dialects.aten.capture import Captured
from graphprune.dialects.aten.inline import graphs_of, owner_of
from graphprune.dialects.aten.places import operand, replace_operand, set_argument
from graphprune.dims import Axis, Keep, is_cut
from graphprune.kept import evaluated, indices, whole_size
from graphprune.program import Array, Node, Use
from graphprune.rules.trace import Typed

_ATEN = torch.ops.aten


def masked(analysis: Analysis, keep: Keep) -> Captured:
    """A copy of the captured model, of the same widths, in which the entries not in ``keep`` have no influence."""
    captured: Captured = analysis.program.native
    graph, twins = captured.twin()
    masker = _Masker(analysis, twins, keep)
    for contraction in analysis.contractions:
        for use, position, axis in contraction.masks:
            masker.mask(use, position, axis)
    for node in dict.fromkeys(node for node, axis in analysis.trace.inexact_uses if is_cut(axis, keep)):
        masker.on_survivors(node)
    for each in graphs_of(graph):
        each.recompile()
    return captured.with_graph(graph)


class _Masker:
    def __init__(self, analysis: Analysis, twins: dict[FxNode, FxNode], keep: Keep):
        self.analysis, self.twins, self.keep = analysis, twins, keep
        self.done: set[tuple[FxNode, int, int]] = set()
        self.made = 0
        model: GraphModule = analysis.program.native.graph
        self.device = next((each.device for each in model.parameters()), torch.device("cpu"))

    def mask(self, use: Use, position: int, axis: Axis) -> None:
        """Zero the removed entries of one axis of one operand of a call."""
        twin, value = self.twins[use.node.native], use.node.inputs[use.index]
        if not is_cut(axis, self.keep) or value is None or (twin, use.index, position) in self.done:
            return
        self.done.add((twin, use.index, position))
        typed = self.analysis.trace.typed(value, use)
        if typed.axes is None or typed.axes[position].size != axis.size:
            return  # the operand is broadcast along this axis: the other one carries it
        kept = np.zeros(whole_size(axis), np.bool_)
        kept[indices(axis, self.keep)] = True
        shape = [-1 if k == position else 1 for k in range(len(typed.axes))]
        source = operand(twin, use.node, use.index)
        graph = twin.graph
        with graph.inserting_before(twin):
            zeroed = _call(graph, _ATEN.where.ScalarOther, self._constant(graph, kept.reshape(shape)), source, 0)
        replace_operand(twin, use.node, use.index, zeroed)

    def on_survivors(self, node: Node) -> None:
        """Run one call on the survivors of all its cut axes, and spread its results over the old positions."""
        twin = self.twins[node.native]
        for index, value in enumerate(node.inputs):
            typed = Typed(None) if value is None else self.analysis.trace.typed(value, Use(node, index))
            for place, axis in enumerate(typed.axes or []):
                if is_cut(axis, self.keep):
                    source = operand(twin, node, index)
                    with twin.graph.inserting_before(twin):
                        chosen = self._constant(twin.graph, indices(axis, self.keep))
                        survivors = _call(twin.graph, _ATEN.index_select.default, source, place, chosen)
                    replace_operand(twin, node, index, survivors)
        for slot, size in self.analysis.bindings.items():
            if slot.node is node and isinstance(slot.key, str):
                set_argument(twin, slot.key, {slot.index: evaluated(size, self.keep)})
        for place, value in enumerate(node.outputs):
            for result in _results(twin, place, len(node.outputs)):
                self._spread(result, self.analysis.trace.types[value])

    def _spread(self, result: FxNode, typed: Typed) -> None:
        """Put the survivors back at their positions, with ones in between: a slice of ones is added at the end, and
        every removed position reads it. Nothing depends on them, but what is divided by a norm of zero is not a number,
        and stays none when it is multiplied by a masked weight."""
        graph, readers = result.graph, list(result.users)
        current = result
        for place, axis in enumerate(typed.axes or []):
            if not is_cut(axis, self.keep):
                continue
            kept = indices(axis, self.keep)
            where = np.full(whole_size(axis), len(kept), np.int64)
            where[kept] = np.arange(len(kept))
            with graph.inserting_after(current):
                first = _call(graph, _ATEN.slice.Tensor, current, place, 0, 1)
            with graph.inserting_after(first):
                ones = _call(graph, _ATEN.ones_like.default, first)
            with graph.inserting_after(ones):
                longer = _call(graph, _ATEN.cat.default, [current, ones], place)
            with graph.inserting_after(longer):
                chosen = self._constant(graph, where)
            with graph.inserting_after(chosen):
                current = _call(graph, _ATEN.index_select.default, longer, place, chosen)
        for reader in readers if current is not result else []:
            reader.replace_input_with(result, current)

    def _constant(self, graph: Graph, array: Array) -> FxNode:
        name = f"_graphprune_mask_{self.made}"
        self.made += 1
        owner_of(graph).register_buffer(name, torch.as_tensor(np.ascontiguousarray(array), device=self.device))
        return graph.get_attr(name)


def _call(graph: Graph, target: object, *args: object) -> FxNode:
    return graph.call_function(target, args)  # type: ignore[arg-type]


def _results(twin: FxNode, output: int, count: int) -> list[FxNode]:
    """The nodes that stand for one output of a call: its `getitem`s where there are several, else itself."""
    if count == 1 and not any(user.target is operator.getitem for user in twin.users):
        return [twin]
    return [user for user in twin.users if user.target is operator.getitem and user.args[1] == output]
