"""Higher-order operators: calls with graphs of their own.

What a body reads from around it comes last among its inputs, and stands for those very values; what comes first are the
states and slices of one round.
"""

from __future__ import annotations

from graphprune.dialects.aten.call import Call
from graphprune.dialects.aten.flex import flex_attention
from graphprune.program import Node
from graphprune.rules import control
from graphprune.rules.operator import Operator
from graphprune.rules.trace import Operand, Trace, Typed


def _cond(trace: Trace, node: Node) -> list[Typed]:
    """``cond(flag, then, otherwise, operands)``."""
    return control.branch(trace, [node.blocks["1"], node.blocks["2"]])


def _while(trace: Trace, node: Node) -> list[Typed]:
    """``while_loop(condition, body, carried, others)``."""
    carried = [Typed([]) if x is None else x.typed for x in Call(trace, node).tensors("2")]
    control.condition(trace, node.blocks["0"], carried)
    return control.loop(trace, node.blocks["1"], carried, 0, [])


def _scan(trace: Trace, node: Node) -> list[Typed]:
    """``scan(body, states, scanned, others)``: along the first axis of what is scanned."""
    call = Call(trace, node)
    return _rounds(trace, node, [x.typed for x in call.tensors("1") if x], [x for x in call.tensors("2") if x])


def _map(trace: Trace, node: Node) -> list[Typed]:
    """``map_impl(body, scanned, others)``: a scan without states."""
    return _rounds(trace, node, [], [x for x in Call(trace, node).tensors("1") if x])


def _rounds(trace: Trace, node: Node, states: list[Typed], scanned: list[Operand]) -> list[Typed]:
    slices = [control.sliced(trace, x, 0) for x in scanned]
    results = control.loop(trace, node.blocks["0"], states, 0, slices)
    stacks = [control.stacked(trace, typed, scanned[0].axes[0], 0) for typed in results[len(states) :]]
    return [*results[: len(states)], *stacks]


FLOW: dict[str, Operator] = {
    "higher_order.flex_attention": Operator(flex_attention),
    "higher_order.cond": Operator(_cond),
    "higher_order.while_loop": Operator(_while),
    "higher_order.scan": Operator(_scan),
    "higher_order.map_impl": Operator(_map),
}

AROUND = {("higher_order.flex_attention", "3"): 7, ("higher_order.flex_attention", "4"): 8}
"""Where a call holds what a body reads from around it, by the argument that holds the body; else in its last one."""
