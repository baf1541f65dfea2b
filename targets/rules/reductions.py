"""Operators that reduce or normalise over axes: loops of the reduced axes, of the others, and a run among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphprune.targets.kernels.normalize import Normalize
from graphprune.targets.kernels.reduce import Reduce
from graphprune.targets.kernels.softmax import Softmax
from graphprune.targets.network.graph import Node, Value
from graphprune.targets.network.layout import NotMine, View, loops, plain
from graphprune.targets.network.lowering import Lowering
from graphprune.targets.rules.pointwise import Fused, call_fused, with_most_fused
from graphprune.targets.rules.shape import constant

OPERATIONS = {
    "ReduceL1": "l1",
    "ReduceL2": "l2",
    "ReduceLogSumExp": "log_sum_exp",
    "ReduceMax": "max",
    "ReduceMean": "mean",
    "ReduceMin": "min",
    "ReduceProd": "prod",
    "ReduceSum": "sum",
    "ReduceSumSquare": "sum_square",
    "GlobalAveragePool": "mean",
    "GlobalMaxPool": "max",
}


@dataclass(frozen=True)
class Walk:
    """How several views of one shape are walked: loops over the reduced axes, over the others, and the run."""

    reduced: tuple[tuple[int, tuple[int, ...]], ...]
    outer: tuple[tuple[int, tuple[int, ...]], ...]
    length: int
    steps: tuple[int, ...]
    kept: bool


def walk(views: Sequence[View], axes: Sequence[int]) -> Walk:
    """The run is a loop over which x has stride 1: one of the axes that stay, where the result has stride 1 too, else
    one of the reduced axes."""
    rank = len(views[0].shape)
    inside = loops([tuple(view.axes[axis] for axis in axes) for view in views])
    outside = loops([tuple(view.axes[axis] for axis in range(rank) if axis not in axes) for view in views])
    if not inside and not outside:
        return Walk((), (), 1, (1,) * len(views), True)  # one number
    for candidates, kept in ((outside, True), (inside, False)):
        for run in candidates:
            if run.strides[0] == 1 and (not kept or run.strides[-1] == 1):
                if any(step not in {0, 1} for step in run.strides[:-1]):
                    continue
                rest = [loop for loop in candidates if loop is not run]
                return Walk(
                    plain(inside if kept else rest), plain(rest if kept else outside), run.extent, run.strides, kept
                )
    raise NotMine("nothing lies side by side")


def source(at: Lowering, node: Node, dtype: str = "float32") -> tuple[Value, View]:
    """The first input, where vectors may read it; an input of the network is copied."""
    value = node.inputs[0]
    assert value is not None
    if value.dtype != dtype:
        raise NotMine(f"{value.dtype} numbers")
    view = at.of(value)
    if view.storage.kind != "scratch" or not any(axis and axis[-1].stride == 1 for axis in view.axes):
        target = at.scratch(value.shape, tuple(range(len(value.shape))))
        at.copy(view, target, node)
        view = target
    return value, view


def smaller(at: Lowering, view: View, axes: Sequence[int], dtype: str = "float32") -> View:
    """A place for what is left of `view` when `axes` are one, in the same order."""
    shape = [1 if axis in axes else size for axis, size in enumerate(view.shape)]
    order = sorted(range(len(shape)), key=lambda axis: -(view.axes[axis][-1].stride if view.axes[axis] else 1 << 60))
    order.sort(key=lambda axis: shape[axis] != 1)
    return at.scratch(shape, order, dtype)


def axes_of(node: Node, rank: int) -> list[int]:
    """The axes that a node reduces over."""
    if node.op.startswith("Global"):
        return list(range(2, rank))
    found = constant(node, 1, "axes")
    if not found and node.attributes.get("noop_with_empty_axes", 0):
        raise NotMine("no axes")
    return sorted(axis % rank for axis in found) if found else list(range(rank))


def reducing(operation: str, walked: Walk) -> Reduce:
    """The kernel that reduces along a walk over x and what is left of it."""
    return Reduce(
        operation=operation,
        length=walked.length,
        kept=walked.kept,
        steps=walked.steps,
        reduced=walked.reduced,
        outer=walked.outer,
        guarded=True,
    )


def reduce(at: Lowering, node: Node) -> None:
    """ReduceSum, -Mean, -Max and others of their kind, and the global pools."""
    value, x = source(at, node)
    axes = axes_of(node, len(value.shape))
    y = smaller(at, x, axes)
    result = y.reshape(node.outputs[0].shape)
    assert result is not None
    kernel = reducing(OPERATIONS[node.op], walk([x, y.expand(x.shape)], axes))
    at.call(kernel, [x, y], node, node.op)
    at.views[node.outputs[0]] = result


def softmax(at: Lowering, node: Node) -> None:
    """Softmax along one axis, or over all axes from one on, as operator sets before 13 define it; what follows it and
    reads nothing else is a part of it (torch.onnx exports attention with zeros for what is NaN)."""
    value, x = source(at, node)
    rank = len(value.shape)
    old = at.graph.opset < 13
    axis = node.attributes.get("axis", 1 if old else -1) % rank
    axes = list(range(axis, rank)) if old else [axis]
    y = at.like(x, value.shape)
    walked = walk([x, y], axes)

    def emit(found: Fused) -> None:
        if found.operands:
            raise NotMine("an operand behind a softmax")
        kernel = Softmax(
            length=walked.length,
            kept=walked.kept,
            steps=walked.steps,
            axis=walked.reduced,
            outer=walked.outer,
            logarithm=node.op == "LogSoftmax",
            epilogue=found.expression,
            guarded=True,
        )
        call_fused(at, node, found, kernel, [x, y])

    with_most_fused(at, node, (2, 1, 0), emit)


def layer_norm(at: Lowering, node: Node) -> None:
    """LayerNormalization and RMSNormalization over the last axes."""
    value, x = source(at, node)
    rank = len(value.shape)
    if any(entry.users or entry in at.graph.outputs for entry in node.outputs[1:]):
        raise NotMine("its mean or deviation is used")
    first = node.attributes.get("axis", -1) % rank
    normalise(at, node, x, list(range(first, rank)), 1e-5, "layer" if "Layer" in node.op else "rms", node.inputs[1:3])


def instance_norm(at: Lowering, node: Node) -> None:
    """InstanceNormalization: each image and channel for itself."""
    value, x = source(at, node)
    rank = len(value.shape)
    shaped = []
    for entry in node.inputs[1:3]:
        assert entry is not None
        if entry.constant is None:
            raise NotMine("its scale is not constant")
        array = entry.constant.reshape(-1, *(1,) * (rank - 2))
        shaped.append(Value(entry.name, array.shape, "float32", array))
    normalise(at, node, x, list(range(2, rank)), 1e-5, "layer", shaped)


def normalise(
    at: Lowering, node: Node, x: View, axes: list[int], epsilon: float, kind: str, factors: Sequence[Value | None]
) -> None:
    """Mean and variance (layer) or mean square (rms) over axes, then factors and summands that are given."""
    present = [entry for entry in factors if entry is not None]
    if any(entry.dtype != "float32" for entry in present):
        raise NotMine("factors of another type")
    extra = [at.of(entry).expand(x.shape) for entry in present]
    y = at.like(x, x.shape)
    walked = walk([x, *extra, y], axes)
    kernel = Normalize(
        kind=kind,
        epsilon=float(node.attributes.get("epsilon", epsilon)),
        length=walked.length,
        kept=walked.kept,
        steps=walked.steps,
        reduced=walked.reduced,
        outer=walked.outer,
        scale=bool(factors) and factors[0] is not None,
        bias=len(factors) > 1 and factors[1] is not None,
        guarded=True,
    )
    at.call(kernel, [x, *extra, y], node, node.op)
    at.views[node.outputs[0]] = y
