"""CumSum along an axis that is known."""

from __future__ import annotations

from graphprune.targets.kernels.scan import Scan
from graphprune.targets.network.graph import Node
from graphprune.targets.network.layout import NotMine, loops, merged, plain
from graphprune.targets.network.lowering import Lowering
from graphprune.targets.rules.shape import constant, first, laid_out

TYPES = {"float32", "int32", "int64"}


def cumulative(at: Lowering, node: Node) -> None:
    """CumSum: the axis is walked alone, every other one is a loop around it."""
    value, x = first(at, node)
    known = constant(node, 1)
    if value.dtype not in TYPES or known is None:
        raise NotMine(f"sums of {value.dtype}")
    axis = known[0] % len(value.shape)
    if len(merged(x.axes[axis])) > 1:
        x = laid_out(at, node, x)
    y = at.scratch(value.shape, tuple(range(len(value.shape))), value.dtype)
    steps = [merged(view.axes[axis])[0].stride if view.axes[axis] else 0 for view in (x, y)]
    around = loops([(*view.axes[:axis], *view.axes[axis + 1 :]) for view in (x, y)])
    kernel = Scan(
        count=value.shape[axis],
        steps=(steps[0], steps[1]),
        outer=plain(around),
        exclusive=bool(node.attributes.get("exclusive", 0)),
        reverse=bool(node.attributes.get("reverse", 0)),
        dtype=value.dtype,
    )
    at.call(kernel, [x, y], node, node.op)
    at.views[node.outputs[0]] = y
