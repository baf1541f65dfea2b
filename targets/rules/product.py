"""MatMul of two activations: heads and transposes are strides, so attention moves no number."""

from __future__ import annotations

from collections.abc import Sequence

from graphprune.targets.kernels.contract import Operand
from graphprune.targets.kernels.product import Product
from graphprune.targets.network.graph import Node, Value
from graphprune.targets.network.layout import Axis, NotMine, View, loops, merged, together
from graphprune.targets.network.lowering import Lowering
from graphprune.targets.rules.pointwise import Fused, call_fused, others_of, with_most_fused

FEWER = (8, 2, 1, 0)  # nodes that join the epilogue


def matmul(at: Lowering, node: Node) -> None:
    """MatMul of two values that are both computed, with the most that can join it."""
    a, b = node.inputs[:2]
    assert a is not None and b is not None
    if len(a.shape) < 2 or len(b.shape) < 2 or node.outputs[0].dtype != "float32":
        raise NotMine("a vector")
    try:
        with_most_fused(at, node, FEWER, lambda found: emit(at, node, found))
    except NotMine:  # axes in pieces, as turned positions leave them
        with_most_fused(at, node, FEWER, lambda found: emit(at, node, found, copied=True))


def emit(at: Lowering, node: Node, found: Fused, copied: bool = False) -> None:
    """One product with this epilogue: rows of a by columns of b, whichever lie side by side being the run."""
    a, b = (settled(at, value, node) for value in node.inputs[:2])
    if copied:
        a, b = at_hand(at, a, node), at_hand(at, b, node)
    value = found.value
    rank = len(value.shape)
    *batch, m, _ = value.shape
    a, b = a.expand((*batch, *a.shape[-2:])), b.expand((*batch, *b.shape[-2:]))
    # The run is the rows of a where they lie side by side (queries: softmax and the next product then follow), else the
    # columns of b.
    turned = side_by_side(a, rank - 2) and m > 1
    if turned:
        a, b = b.transpose((*range(rank - 2), rank - 1, rank - 2)), a.transpose((*range(rank - 2), rank - 1, rank - 2))
    elif not side_by_side(b, rank - 1):
        b = at_hand(at, b, node)
    order = (*range(rank - 2), rank - 1, rank - 2) if turned else tuple(range(rank))
    y = at.scratch(value.shape, order)
    others = others_of(at, found)
    row, run = (rank - 1, rank - 2) if turned else (rank - 2, rank - 1)
    rows = one([a.axes[rank - 2], y.axes[row], *(view.axes[row] for view in others)], "rows")
    depth = one([a.axes[rank - 1], b.axes[rank - 2]], "inner axis")
    runs = one([b.axes[rank - 1], y.axes[run], *(view.axes[run] for view in others)], "run")
    if y.shape[run] > 1 and (runs[:2] != (1, 1) or any(step not in {0, 1} for step in runs[2:])):
        raise NotMine("the run does not lie side by side")
    walked = loops([(*view.axes[: rank - 2],) for view in (a, b, y, *others)])
    kernel = Product(
        length=y.shape[run],
        rows=y.shape[row],
        depth=a.shape[rank - 1],
        a_row=rows[0],
        a_depth=depth[0],
        x_depth=depth[1],
        y_row=rows[1],
        outer=tuple((loop.extent, loop.strides[0], loop.strides[1], loop.strides[2]) for loop in walked),
        block=min(4, y.shape[row]) if at.machine.registers > 16 else 2,
        vectors=max(1, min(4, -(-y.shape[run] // at.machine.lanes))),
        guarded=y.shape[run] == 1,  # nothing lies behind the one number of a run but the next run
        epilogue=found.expression,
        operands=tuple(
            Operand(rows[2 + index], runs[2 + index], tuple(loop.strides[3 + index] for loop in walked))
            for index in range(len(others))
        ),
    )
    call_fused(at, node, found, kernel, [a, b, *others, y])


def settled(at: Lowering, value: Value | None, node: Node) -> View:
    """An operand that vectors may read past the end of: not an input of the network."""
    assert value is not None
    view = at.of(value)
    if view.storage.kind == "input":
        view = at_hand(at, view, node)
    return view


def at_hand(at: Lowering, view: View, node: Node) -> View:
    """A copy of a view in the order of its axes."""
    return at.copied_once(view, range(len(view.shape)), node, "copy for MatMul")


def side_by_side(view: View, axis: int) -> bool:
    """Whether the entries of an axis lie side by side."""
    row = merged(view.axes[axis])
    return len(row) == 1 and row[0].stride == 1


def one(axes: Sequence[Axis], what: str) -> tuple[int, ...]:
    """The stride of each array over an axis that is one loop in all of them."""
    found = together([tuple(merged(axis)) for axis in axes])
    if len(found) > 1:
        raise NotMine(f"{what} in pieces")
    return found[0].strides if found else (0,) * len(axes)
