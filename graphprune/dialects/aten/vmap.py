"""`vmap` as torch.export writes it: calls that open a level, hide an axis at it, bring it back, and close the level.

What is called in between sees its operands without the hidden axes, and its rules need not know of them: every entry of
a hidden axis goes through the same computation. Imports torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch._C._functorch import get_dynamic_layer_stack_depth, pop_dynamic_layer_stack_and_undo_to_depth

from graphprune.dialects.aten.call import Call
from graphprune.program import Node
from graphprune.rules.operator import Operator
from graphprune.rules.trace import Trace, Typed

VMAP = "torch._functorch.predispatch."
"""What the names of all these calls begin with."""

_HIDDEN = "vmap runs over it, so many entries at a time"


def _hide(trace: Trace, node: Node) -> list[Typed]:
    """``_add_batch_dim(x, axis, level)``."""
    x, at = trace.need(0), Call(trace, node).number("1")
    trace.whole(x.axes[at], _HIDDEN)
    return [Typed([axis for k, axis in enumerate(x.axes) if k != at % x.rank])]


def _bring_back(trace: Trace, node: Node) -> list[Typed]:
    """``_remove_batch_dim(x, level, size, axis)``."""
    call, x = Call(trace, node), trace.need(0)
    at = call.number("3") % (x.rank + 1)
    return [Typed([*x.axes[:at], trace.fixed(call.shape()[at], _HIDDEN), *x.axes[at:]])]


def _nothing(trace: Trace, node: Node) -> list[Typed]:
    return [Typed([]) for _ in node.outputs]


LEVELS: dict[str, Operator] = {
    f"{VMAP}_add_batch_dim": Operator(_hide),
    f"{VMAP}_remove_batch_dim": Operator(_bring_back),
    **{
        f"{VMAP}{name}": Operator(_nothing)
        for name in ("_vmap_increment_nesting", "_vmap_decrement_nesting", "lazy_load_decompositions")
    },
}


@contextmanager
def levels_closed() -> Iterator[None]:
    """Close the levels that a graph leaves open where it fails in between: they belong to the thread, and whatever runs
    next would be run at them."""
    depth = get_dynamic_layer_stack_depth()
    try:
        yield
    finally:
        if get_dynamic_layer_stack_depth() > depth:
            pop_dynamic_layer_stack_and_undo_to_depth(depth)
