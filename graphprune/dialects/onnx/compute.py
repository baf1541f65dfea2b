"""ONNX operators that contract, normalise, reduce and pool."""

from __future__ import annotations

import math

from graphprune.dialects.onnx.structure import axes_of
from graphprune.program import Node, Sweep
from graphprune.rules import linear, norms, reduce, special
from graphprune.rules.computed import product
from graphprune.rules.numbers import now
from graphprune.rules.operator import Operator
from graphprune.rules.trace import Trace, Typed
from graphprune.rules.windows import transposed_window, window
from graphprune.sizes import Extent

REDUCTIONS = "L1 L2 LogSum LogSumExp Max Mean Min Prod Sum SumSquare"


def _matmul(trace: Trace, node: Node) -> list[Typed]:
    return [linear.matmul(trace, trace.need(0), trace.need(1))]


def _gemm(trace: Trace, node: Node) -> list[Typed]:
    swap_a, swap_b = (bool(node.attributes.get(name, 0)) for name in ("transA", "transB"))
    return [linear.matmul(trace, trace.need(0), trace.need(1), swap_a=swap_a, swap_b=swap_b, bias=trace.operand(2))]


def _einsum(trace: Trace, node: Node) -> list[Typed]:
    operands = [operand for operand in trace.operands() if operand is not None]
    return [linear.einsum(trace, str(node.attributes["equation"]), operands)]


def _conv(trace: Trace, node: Node) -> list[Typed]:
    x, kernel = trace.need(0), trace.need(1)
    sizes = window(trace, [a.size for a in x.axes[2:]], [a.size for a in kernel.axes[2:]], node.attributes)
    operands = [x, kernel, trace.operand(2)]
    return [linear.conv(linear.CONV, trace, operands, trace.attribute("group", 1), sizes, sweep(node, len(sizes)))]


def sweep(node: Node, rank: int) -> Sweep:
    """How the window of a convolution moves, by its attributes."""
    given = node.attributes
    pads: tuple[int, ...] | str = tuple(given.get("pads") or [0] * (2 * rank))
    automatic = str(given.get("auto_pad", "NOTSET"))
    if automatic.startswith("SAME"):
        pads = automatic.lower()
    elif automatic == "VALID":
        pads = (0,) * (2 * rank)
    ones = [1] * rank
    return Sweep(
        tuple(given.get("strides") or ones), tuple(given.get("dilations") or ones), pads, node.op == "ConvTranspose"
    )


def _conv_transpose(trace: Trace, node: Node) -> list[Typed]:
    x, kernel = trace.need(0), trace.need(1)
    sizes = transposed_window(trace, [a.size for a in x.axes[2:]], [a.size for a in kernel.axes[2:]], node.attributes)
    operands = [x, kernel, trace.operand(2)]
    groups = trace.attribute("group", 1)
    return [linear.conv(linear.CONV_TRANSPOSE, trace, operands, groups, sizes, sweep(node, len(sizes)))]


def _batch_norm(trace: Trace, node: Node) -> list[Typed]:
    training = bool(node.attributes.get("training_mode", 0)) or len(node.outputs) > 1
    epsilon = float(node.attributes.get("epsilon", 1e-5))
    return norms.batch_norm(trace, trace.operands()[:5], len(node.outputs), training, epsilon)


def _instance_norm(trace: Trace, node: Node) -> list[Typed]:
    return [norms.instance_norm(trace, [trace.need(0), trace.need(1), trace.need(2)])]


def _layer_norm(trace: Trace, node: Node) -> list[Typed]:
    operands = [trace.need(0), *trace.operands()[1:3]]
    return norms.layer_norm(trace, operands, int(node.attributes.get("axis", -1)), len(node.outputs))


def _group_norm(trace: Trace, node: Node) -> list[Typed]:
    operands = [trace.need(0), trace.need(1), trace.need(2)]
    return [norms.group_norm(trace, operands, trace.attribute("num_groups", 1), node.version < 21)]


def _lp_norm(trace: Trace, node: Node) -> list[Typed]:
    return [norms.over_axes(trace, trace.need(0), [int(node.attributes.get("axis", -1))])]


def _mean_variance(trace: Trace, node: Node) -> list[Typed]:
    return [norms.over_axes(trace, trace.need(0), node.attributes.get("axes", [0, 2, 3]))]


def _lrn(trace: Trace, node: Node) -> list[Typed]:
    return [norms.local_response(trace, trace.need(0))]


def _reduce(trace: Trace, node: Node) -> list[Typed]:
    x, keepdims = trace.need(0), bool(node.attributes.get("keepdims", 1))
    if x.typed.entries is not None and node.op == "ReduceProd" and x.rank == 1:
        entry = product(x.typed.entries)
        return [Typed([trace.fixed(1)] if keepdims else [], [entry])]
    try:
        axes = axes_of(trace, node, 1)
    except ValueError:
        return [reduce.reduce_unknown_axes(trace, x, keepdims)]
    if not axes and node.attributes.get("noop_with_empty_axes", 0):
        return [Typed(list(x.axes))]
    return [reduce.reduce(trace, x, axes or None, keepdims)]


def _softmax(trace: Trace, node: Node) -> list[Typed]:
    x = trace.need(0)
    if node.version >= 13:
        return [reduce.softmax(trace, x, [int(node.attributes.get("axis", -1))])]
    first = int(node.attributes.get("axis", 1)) % max(1, x.rank)
    return [reduce.softmax(trace, x, range(first, x.rank))]


def _arg(trace: Trace, node: Node) -> list[Typed]:
    keepdims = bool(node.attributes.get("keepdims", 1))
    return [reduce.arg(trace, trace.need(0), int(node.attributes.get("axis", 0)), keepdims)]


def _top_k(trace: Trace, node: Node) -> list[Typed]:
    numbers = [int(node.attributes["k"])] if "k" in node.attributes else trace.constants(trace.operand(1))
    size: Extent = numbers[0] if numbers else trace.unknown()
    return reduce.top_k(trace, trace.need(0), int(node.attributes.get("axis", -1)), size)


def _cumulative(trace: Trace, node: Node) -> list[Typed]:
    x, axis = trace.need(0), trace.constants(trace.operand(1))
    return [reduce.along(trace, x, axis or range(x.rank), "each entry depends on those before it")]


def _matrix(trace: Trace, node: Node) -> list[Typed]:
    x = trace.need(0)
    return [reduce.along(trace, x, [-2, -1], f"{node.op} looks at positions in the matrix")]


def _pool(trace: Trace, node: Node) -> list[Typed]:
    return reduce.pool(trace, trace.need(0), node.attributes["kernel_shape"], node.attributes, len(node.outputs))


def _pool_all(trace: Trace, node: Node) -> list[Typed]:
    return [reduce.pool_all(trace, trace.need(0))]


def _resize(trace: Trace, node: Node) -> list[Typed]:
    x = trace.need(0)
    axes = [k % x.rank for k in node.attributes.get("axes") or range(x.rank)]
    sizes: list[Extent | None] = [None] * x.rank
    target = trace.operand(3)
    entries = None if target is None else trace.entries(target)
    scales = _scales(trace, node)
    if entries and node.attributes.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        for k in axes:
            trace.whole(x.axes[k], "it is resampled in proportion to the others")
        wanted = _in_proportion(node, [x.axes[k].size for k in axes], [now(entry) for entry in entries])
        return [reduce.resize(trace, x, [wanted[axes.index(k)] if k in axes else None for k in range(x.rank)])]
    for place, k in enumerate(axes):
        if entries and now(entries[place]) == x.axes[k].size:
            trace.require(entries[place], x.axes[k])
        elif entries:
            sizes[k] = now(entries[place])
        elif scales is None:
            sizes[k] = None if k < 2 else trace.derived(x.axes[k].size, node.place)
        elif scales[place] != 1.0:
            size = x.axes[k].size
            sizes[k] = int(size * scales[place]) if isinstance(size, int) else trace.derived(size, scales[place])
    return [reduce.resize(trace, x, sizes)]


def _in_proportion(node: Node, old: list[Extent], wanted: list[Extent]) -> list[Extent]:
    """The wanted sizes with all axes scaled alike, so that none is larger or that none is smaller than wanted."""
    pairs = zip(wanted, old, strict=True)
    ratios = [new / size for new, size in pairs if isinstance(new, int) and isinstance(size, int)]
    if len(ratios) < len(old):
        raise ValueError("it keeps the proportions of sizes that only the run knows")
    ratio = min(ratios) if node.attributes["keep_aspect_ratio_policy"] == "not_larger" else max(ratios)
    return [math.floor(ratio * size + 0.5) for size in old if isinstance(size, int)]


def _scales(trace: Trace, node: Node) -> list[float] | None:
    if "scales" in node.attributes:
        return [float(scale) for scale in node.attributes["scales"]]
    index = 1 if node.op == "Upsample" or node.version < 11 else 2
    operand = trace.operand(index)
    stored = None if operand is None else operand.value.stored
    return None if stored is None or not stored.elements else [float(scale) for scale in stored.read().reshape(-1)]


def _grid_sample(trace: Trace, node: Node) -> list[Typed]:
    return [special.grid_sample(trace, trace.need(0), trace.need(1))]


def _roi(trace: Trace, node: Node) -> list[Typed]:
    x, rois = trace.need(0), trace.need(1)
    for axis in (x.axes[0], *x.axes[2:], *rois.axes):
        trace.whole(axis, "regions are cut out of it by position")
    pooled = node.attributes.get("pooled_shape") or [node.attributes.get(f"output_{k}", 1) for k in ("height", "width")]
    return [Typed([rois.axes[0], x.axes[1], *(trace.fixed(int(size)) for size in pooled)])]


COMPUTE: dict[str, Operator] = {
    "MatMul": Operator(_matmul),
    "Gemm": Operator(_gemm),
    "Einsum": Operator(_einsum),
    "Conv": Operator(_conv),
    "ConvTranspose": Operator(_conv_transpose),
    "BatchNormalization": Operator(_batch_norm),
    "InstanceNormalization": Operator(_instance_norm),
    "LayerNormalization": Operator(_layer_norm),
    "RMSNormalization": Operator(_layer_norm),
    "GroupNormalization": Operator(_group_norm),
    "LpNormalization": Operator(_lp_norm),
    "MeanVarianceNormalization": Operator(_mean_variance),
    "LRN": Operator(_lrn),
    **{f"Reduce{name}": Operator(_reduce) for name in REDUCTIONS.split()},
    **{name: Operator(_softmax) for name in ("Softmax", "LogSoftmax", "Hardmax")},
    **{name: Operator(_arg) for name in ("ArgMax", "ArgMin")},
    "TopK": Operator(_top_k),
    **{name: Operator(_cumulative) for name in ("CumSum", "CumProd")},
    "Trilu": Operator(_matrix),
    "EyeLike": Operator(_matrix),
    **{name: Operator(_pool) for name in ("MaxPool", "AveragePool", "LpPool")},
    **{name: Operator(_pool_all) for name in ("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")},
    **{name: Operator(_resize, sizes=True) for name in ("Resize", "Upsample")},
    "GridSample": Operator(_grid_sample),
    "RoiAlign": Operator(_roi),
    "MaxRoiPool": Operator(_roi),
}
