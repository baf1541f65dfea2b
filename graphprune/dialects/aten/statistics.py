"""ATen operators that compute statistics, and what they are less often asked for than means and norms."""

from __future__ import annotations

from graphprune.dialects.aten.call import Call, same
from graphprune.program import Node
from graphprune.rules import reduce
from graphprune.rules.operator import Operator
from graphprune.rules.trace import Trace, Typed


def _quantile(trace: Trace, node: Node) -> list[Typed]:
    """``x, q? -> q? ...``: which values stand at shares of an order."""
    call = Call(trace, node)
    x, shares = trace.need(0), call.optional("q")
    axes, lead = call.numbers("dim"), list(shares.axes) if shares is not None else []
    found = reduce.reduce(trace, x, axes if x.rank else [], call.flag("keepdim"))
    for axis in lead:
        trace.whole(axis, "its entries are shares of an order")
    return [Typed([*lead, *(found.axes or [])])]


def _kth(trace: Trace, node: Node) -> list[Typed]:
    call = Call(trace, node)
    x = trace.need(0)
    if not x.rank:
        return [same(x) for _ in node.outputs]
    return [reduce.arg(trace, x, call.number("dim", -1), call.flag("keepdim")) for _ in node.outputs]


def _renorm(trace: Trace, node: Node) -> list[Typed]:
    """Every slice along one axis is scaled down to a norm, which is a statistic of all other axes."""
    x = trace.need(0)
    at = Call(trace, node).number("dim") % x.rank
    for k, axis in enumerate(x.axes):
        if k != at:
            trace.inexact(axis)
    return [same(x)]


def _distance(trace: Trace, node: Node) -> list[Typed]:
    """The norm of a difference: over the last axis, or (``dist``) over all."""
    call = Call(trace, node)
    axes = trace.broadcast([trace.need(0).axes, trace.need(1).axes])
    gone = axes if node.op.startswith("aten.dist") else axes[-1:]
    for axis in gone:
        trace.inexact(axis)
    ones = [trace.fixed(1)] if call.flag("keepdim") else []
    return [Typed([*axes[: len(axes) - len(gone)], *ones])]


STATISTICS: dict[str, Operator] = {
    **{f"aten.{name}": Operator(_quantile) for name in ("quantile", "nanquantile")},
    "aten.kthvalue": Operator(_kth),
    "aten.renorm": Operator(_renorm),
    **{f"aten.{name}": Operator(_distance) for name in ("pairwise_distance", "dist")},
}
