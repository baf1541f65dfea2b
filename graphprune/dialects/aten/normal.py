"""Takes out of a captured graph what ties it to its trace: wrappers, widths, strides, shared sizes. In place."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node

from graphprune.dialects.aten.inline import (
    graphs_of,
    inline_wrappers,
    lift_tensors,
    separate_bodies,
    separate_sizes,
)
from graphprune.dialects.aten.places import operator_name
from graphprune.dialects.aten.vmap import VMAP

_ATEN = torch.ops.aten


def normalise(module: GraphModule) -> None:
    """The form in which a captured graph is read, whoever captured it."""
    for graph in graphs_of(module):
        inline_wrappers(graph)
        separate_bodies(graph)
    lift_tensors(module)
    for graph in graphs_of(module):
        allow_other_strides(graph)
        sizes_from_inputs(graph)
        separate_sizes(graph)
    for graph in graphs_of(module):
        graph.recompile()


def allow_other_strides(module: GraphModule) -> None:
    """Leave nothing that only runs at the strides it was traced with. A slice of an axis may be cut to odd widths, and
    pairs that are read as complex numbers would no longer lie at even places; a parameter that was stored transposed is
    contiguous once it is cut, and its views are no longer views."""
    for node in module.graph.find_nodes(op="call_function", target=_ATEN.view.default):
        node.target = _ATEN.reshape.default
    for node in module.graph.find_nodes(op="call_function", target=_ATEN.view_as_complex.default):
        with module.graph.inserting_before(node):
            packed = module.graph.call_function(_ATEN.contiguous.default, (node.args[0],))
        packed.meta = dict(node.args[0].meta)
        node.replace_input_with(node.args[0], packed)


def sizes_from_inputs(module: GraphModule) -> None:
    """Read run-time sizes where they come in, and drop what was computed for its shape alone (`x[:, :, -1].shape`
    takes an entry of the width by position, and would keep the width whole)."""
    known: dict[str, tuple[Node, int]] = {}
    for node in module.graph.find_nodes(op="placeholder"):
        for axis, size in enumerate(_shape(node)):
            if not isinstance(size, int) and size.node.expr.is_Symbol:
                known.setdefault(str(size), (node, axis))
    for node in module.graph.find_nodes(op="call_function", target=_ATEN.sym_size.int):
        source = known.get(str(node.meta.get("val")))
        if source is not None:
            node.args = source
    drop_unused(module)


def drop_unused(module: GraphModule) -> None:
    """Erase the nodes that nothing reads, in place; not those that open and close a `vmap`, whose results nobody reads
    either."""
    module.graph.eliminate_dead_code(lambda node: node.is_impure() or operator_name(node.target).startswith(VMAP))


def _shape(node: Node) -> list[Any]:
    value = node.meta.get("val")
    return list(value.shape) if isinstance(value, torch.Tensor) else []
