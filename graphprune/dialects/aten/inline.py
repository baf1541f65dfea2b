"""Makes a captured graph plain: bodies of wrappers are written out, and arithmetic on sizes is not shared.

torch.export leaves `torch.no_grad()` regions, and autocast regions that are switched off, as operators of their own;
for inference they compute what their bodies compute. And it works out equal sizes once: ``batch * 12`` serves the heads
of every layer. Layers are pruned to different widths, so each reader gets arithmetic, and numbers, of its own. What is
changed here must be recompiled by the caller: that takes longer than the change.
"""

from __future__ import annotations

import copy
import operator
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node


def graphs_of(module: GraphModule) -> list[GraphModule]:
    """A graph, the bodies of its branches and loops, and theirs."""
    return [each for each in module.modules() if isinstance(each, GraphModule)]


def owner_of(graph: Graph) -> GraphModule:
    """The module that holds the tensors of a graph."""
    if graph.owning_module is None:
        raise ValueError("several modules share one graph")
    return graph.owning_module


def inline_wrappers(module: GraphModule) -> None:
    """Inline every wrapper of a graph, and the wrappers in what that brings, in place."""
    changed = True
    while changed:
        changed = False
        for node in list(module.graph.nodes):
            body = _body(module, node)
            if body is not None:
                _inline(module, node, *body)
                changed = True
    for node in list(module.graph.nodes):
        if node.op == "get_attr" and not node.users:
            module.graph.erase_node(node)


# Copies of arithmetic in one graph; real models need one for each head count of each layer.
_MOST_COPIES = 20_000
_ARITHMETIC = {operator.add, operator.sub, operator.mul, operator.floordiv}


def separate_sizes(module: GraphModule) -> None:
    """Give every reader of a computed size a copy of the arithmetic, in place."""
    graph, copies = module.graph, 0
    for node in reversed(list(graph.nodes)):  # readers first: what a copy reads is copied for it in its turn
        if node.op != "call_function" or node.target not in _ARITHMETIC:
            continue
        for user in list(node.users)[1:]:
            if user.op == "output" or copies >= _MOST_COPIES:
                continue
            with graph.inserting_before(user):
                user.replace_input_with(node, graph.node_copy(node))
            copies += 1


def separate_bodies(module: GraphModule) -> None:
    """Give every branch and every loop a body of its own, in place: with one body, two could not differ in width."""
    taken: set[object] = set()
    for node in list(module.graph.nodes):
        for place, each in enumerate(node.args):
            if not isinstance(each, Node) or each.op != "get_attr":
                continue
            body = operator.attrgetter(str(each.target))(module)
            if each.target in taken and isinstance(body, GraphModule):
                name = f"body_{place}_of_{node.name}"
                module.add_module(name, copy.deepcopy(body))
                with module.graph.inserting_before(node):
                    node.args = (*node.args[:place], module.graph.get_attr(name), *node.args[place + 1 :])
            taken.add(each.target)


_CALLS_BODIES = frozenset({"cond", "while_loop", "scan", "map_impl"})
"""Operators whose last argument holds what their bodies read as it stands."""


def lift_tensors(module: GraphModule) -> None:
    """Hand the tensors that bodies hold to them from outside, in place: what traces a graph anew takes those of a body
    for others, or does not find them."""
    for node in list(module.graph.nodes):
        if not isinstance(node.target, torch._ops.HigherOrderOperator) or node.target.name() not in _CALLS_BODIES:  # type: ignore[no-untyped-call]
            continue
        named = [each for each in node.args if isinstance(each, Node) and each.op == "get_attr"]
        bodies = [each for each in (operator.attrgetter(str(n.target))(module) for n in named) if _is_graph(each)]
        for body in bodies:
            lift_tensors(body)
            own = [
                n for n in body.graph.find_nodes(op="get_attr") if not _is_graph(operator.attrgetter(n.target)(body))
            ]
            for held in own:
                _lift(module, node, bodies, body, held)
            for target in {str(held.target) for held in own}:
                path, _, name = target.rpartition(".")
                delattr(body.get_submodule(path), name)


def _lift(module: GraphModule, node: Node, bodies: list[GraphModule], body: GraphModule, held: Node) -> None:
    """Make one tensor of a body an operand of the call, and an input of all bodies."""
    name = _moved(module, body, str(held.target))
    with module.graph.inserting_before(node):
        outer = module.graph.get_attr(name)
    given: Any = node.args[-1]
    node.args = (*node.args[:-1], (*given, outer))
    outer.meta = dict(held.meta)
    for each in bodies:
        first = next(inner for inner in each.graph.nodes if inner.op != "placeholder")
        with each.graph.inserting_before(first):
            formal = each.graph.placeholder(name)
        formal.meta = dict(held.meta)
        if each is body:
            held.replace_all_uses_with(formal)
            each.graph.erase_node(held)


def _is_graph(value: object) -> bool:
    return isinstance(value, GraphModule)


def _body(module: GraphModule, node: Node) -> tuple[GraphModule, tuple[Any, ...]] | None:
    """The body of a wrapper and the arguments it is called with, `None` for any other node."""
    name = str(getattr(node.target, "__name__", "")) if node.op == "call_function" else ""
    if name == "wrap_with_set_grad_enabled":
        graph, operands = node.args[1], node.args[2:]
    elif name == "wrap_with_autocast" and node.args[2] is False:
        graph, operands = node.args[4], node.args[5:]
    else:
        return None
    if not isinstance(graph, Node) or graph.op != "get_attr":
        return None
    found = module.get_submodule(str(graph.target))
    return (found, operands) if isinstance(found, GraphModule) else None


def _inline(module: GraphModule, node: Node, body: GraphModule, operands: tuple[Any, ...]) -> None:
    known: dict[Node, Any] = {}
    formal = [each for each in body.graph.nodes if each.op == "placeholder"]
    known.update(zip(formal, operands, strict=True))
    result: Any = None
    with module.graph.inserting_before(node):
        for inner in body.graph.nodes:
            if inner.op == "placeholder":
                continue
            if inner.op == "output":
                result = torch.fx.map_arg(inner.args[0], lambda each: known[each])
            elif inner.op == "get_attr":
                known[inner] = module.graph.get_attr(_moved(module, body, str(inner.target)))
                known[inner].meta = dict(inner.meta)
            else:
                known[inner] = module.graph.node_copy(inner, lambda each: known[each])
    for user in list(node.users):
        if user.target is operator.getitem:
            user.replace_all_uses_with(result[user.args[1]])
            module.graph.erase_node(user)
    if node.users:
        node.replace_all_uses_with(result[0] if isinstance(result, tuple | list) else result)
    module.graph.erase_node(node)


def _moved(module: GraphModule, body: GraphModule, target: str) -> str:
    """The name under which the outer module holds what `target` is in the body."""
    value: Any = operator.attrgetter(target)(body)
    name = target.replace(".", "_")
    while hasattr(module, name):
        name += "_"
    if isinstance(value, torch.nn.Module):
        module.add_module(name, value)
    elif isinstance(value, torch.nn.Parameter):
        module.register_parameter(name, value)
    else:
        module.register_buffer(name, value)
    return name
