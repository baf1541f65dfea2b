"""ATen operators that contract, normalise, reduce, pool and resample."""

from __future__ import annotations

from collections.abc import Sequence

from graphprune.dialects.aten.call import Call, same
from graphprune.dialects.aten.structure import made, with_axes
from graphprune.dims import NOTHING, UNIT, Axis, Prod, find
from graphprune.program import Node, Sweep
from graphprune.rules import linear, norms, pointwise, reduce, special
from graphprune.rules.numbers import Number
from graphprune.rules.operator import Operator
from graphprune.rules.trace import Operand, Trace, Typed


# ---------------------------------------------------------------- products
def _linear(trace: Trace, node: Node) -> list[Typed]:
    call = Call(trace, node)
    x, weight, bias = call.tensor("input"), call.tensor("weight"), call.optional("bias")
    return [linear.matmul(trace, x, weight, swap_b=True, bias=bias)]


def _matmul(trace: Trace, node: Node) -> list[Typed]:
    return [linear.matmul(trace, trace.need(0), trace.need(1))]


def _addmm(trace: Trace, node: Node) -> list[Typed]:
    """``self + a @ b``."""
    return [linear.matmul(trace, trace.need(1), trace.need(2), bias=trace.need(0))]


def _einsum(trace: Trace, node: Node) -> list[Typed]:
    call = Call(trace, node)
    operands = [x for x in call.tensors("tensors") if x is not None]
    return [linear.einsum(trace, str(call.given["equation"]), operands)]


def _grouped(trace: Trace, node: Node) -> list[Typed]:
    """``t i, e i o -> t o``: rows in order of their group, each run of rows times the matrix of its group (the experts
    of a mixture). Where the runs end is data, so the groups stay."""
    call = Call(trace, node)
    x, weight = trace.need(0), trace.need(1)
    ends, bias = call.optional("offs"), call.optional("bias")
    if x.rank != 2 or weight.rank != 3 or ends is None:
        raise ValueError("groups of equal length are not followed")
    if node.op.startswith("aten."):  # its kernels read 16 bytes at a time, in every row
        entries = max(1, 16 // weight.value.native[1].element_size())
        trace.multiples += [(axis, entries) for axis in (*x.axes[1:], *weight.axes[1:])]
    return [linear.grouped(trace, x, weight, ends, bias)]


def _outer(trace: Trace, node: Node) -> list[Typed]:
    return [linear.einsum(trace, "i,j->ij", [trace.need(0), trace.need(1)])]


def _bilinear(trace: Trace, node: Node) -> list[Typed]:
    out = linear.einsum(trace, "...i,...j,oij->...o", [trace.need(0), trace.need(1), trace.need(2)])
    bias = trace.operand(3)
    if bias is not None and out.axes is not None:
        trace.broadcast([out.axes, bias.axes])
    return [out]


def _conv(trace: Trace, node: Node) -> list[Typed]:
    """Convolutions of any rank, with or without a batch axis; spatial sizes are those that were traced."""
    call = Call(trace, node)
    x, weight, bias = trace.need(0), call.tensor("weight"), call.optional("bias")
    groups = call.entry("groups", 1)
    if not isinstance(groups, Number):
        raise ValueError("its groups are computed at run time")
    lone = x.rank == weight.rank - 1
    if lone:
        x = with_axes(x, [UNIT, *x.axes])
    row = linear.CONV_TRANSPOSE if "transpose" in node.op or call.flag("transposed") else linear.CONV
    sweep = None if lone else _sweep(call, weight.rank - 2, row.scatters)
    found = linear.conv(row, trace, [x, weight, bias], groups, call.shape()[1 if lone else 2 :], sweep)
    return [Typed((found.axes or [])[1:]) if lone else found]


def _sweep(call: Call, rank: int, transposed: bool) -> Sweep:
    def spread(name: str, default: int) -> tuple[int, ...]:
        numbers = call.numbers(name, [default]) or [default]
        return tuple(numbers if len(numbers) == rank else numbers[:1] * rank)

    given = call.given.get("padding")
    if isinstance(given, str):  # `same` has the odd one after, as ONNX's SAME_UPPER
        pads: tuple[int, ...] | str = "same_upper" if given == "same" else (0,) * (2 * rank)
    else:
        pads = spread("padding", 0) * 2
    return Sweep(spread("stride", 1), spread("dilation", 1), pads, transposed)


# ---------------------------------------------------------------- norms
def _batch_norm(trace: Trace, node: Node) -> list[Typed]:
    call = Call(trace, node)
    names = ("weight", "bias", "running_mean", "running_var")
    operands = [call.tensor("input"), *(call.optional(name) for name in names)]
    training = call.flag("training") or operands[3] is None
    epsilon = float(call.given.get("eps", call.given.get("epsilon", 1e-5)))
    out, *statistics = norms.batch_norm(trace, operands, len(node.outputs), training, epsilon)
    for place, typed in enumerate(statistics, 1):
        if call.shape(place) == [0]:  # there are none where none were computed
            typed.axes = [NOTHING]
    return [out, *statistics]


def _instance_norm(trace: Trace, node: Node) -> list[Typed]:
    call = Call(trace, node)
    x = call.tensor("input")
    if call.flag("use_input_stats"):
        for axis in x.axes[2:]:
            trace.inexact(axis)
    names = ("weight", "bias", "running_mean", "running_var")
    return [norms.BATCH_NORM(trace, [x, *(call.optional(name) for name in names)])]


def _layer_norm(trace: Trace, node: Node) -> list[Typed]:
    call = Call(trace, node)
    x, sizes = call.tensor("input"), call.entries("normalized_shape")
    for entry, axis in zip(sizes, x.axes[x.rank - len(sizes) :], strict=True):
        trace.require(entry, axis)
    operands = [x, call.optional("weight"), call.optional("bias")]
    return norms.layer_norm(trace, operands, -len(sizes), len(node.outputs))


def _group_norm(trace: Trace, node: Node) -> list[Typed]:
    call = Call(trace, node)
    groups = call.entry("num_groups" if "num_groups" in call.given else "group")
    if not isinstance(groups, Number):
        raise ValueError("its groups are computed at run time")
    x = call.tensor("input")
    found = norms.group_norm(trace, [x, call.optional("weight"), call.optional("bias")], groups, False)
    sizes = (x.axes[0], x.axes[1], find(Prod(x.axes[2:])))
    for name, axis in zip(("N", "C", "HxW"), sizes, strict=True):  # the lowered form is told the sizes
        entry = call.entry(name)
        if entry is not None:
            trace.require(entry, axis)
    outer, _ = trace.factor(x.axes[1], groups.value)
    return [found, *(Typed([x.axes[0], outer]) for _ in node.outputs[1:])]


def _weight_norm(trace: Trace, node: Node) -> list[Typed]:
    """``g * v / |v|`` with the norm over all axes but one: a statistic of the weight itself."""
    call = Call(trace, node)
    v, g = call.tensor("v"), call.tensor("g")
    at = call.number("dim", 0) % v.rank
    for k, axis in enumerate(v.axes):
        if k != at:
            trace.inexact(axis)
    trace.broadcast([v.axes, g.axes])
    return [same(v), *(same(g) for _ in node.outputs[1:])]


def _softmax(trace: Trace, node: Node) -> list[Typed]:
    call = Call(trace, node)
    x = trace.need(0)
    return [reduce.softmax(trace, x, [call.number("dim")] if x.rank else [])]


def _cosine(trace: Trace, node: Node) -> list[Typed]:
    """A statistic of two tensors over one axis."""
    call = Call(trace, node)
    axes = trace.broadcast([trace.need(0).axes, trace.need(1).axes])
    at = call.number("dim", 1) % len(axes)
    for operand in (trace.need(0), trace.need(1)):
        trace.inexact(operand.axes[at - len(axes)])
    return [Typed([axis for k, axis in enumerate(axes) if k != at])]


# ---------------------------------------------------------------- reductions
def _reduced_axes(call: Call) -> list[int] | None:
    return call.numbers("dim") or None


def _reduce(trace: Trace, node: Node) -> list[Typed]:
    call = Call(trace, node)
    if "other" in call.given:
        return [pointwise.broadcast(trace, trace.operands())]
    x, axes, keep = trace.need(0), _reduced_axes(call), call.flag("keepdim")
    if not x.rank:
        return [same(x) for _ in node.outputs]
    found = reduce.reduce(trace, x, axes, keep)
    return [Typed(list(found.axes or [])) for _ in node.outputs]


def _extreme(trace: Trace, node: Node) -> list[Typed]:
    """`max`, `min`, `median`: over everything, of two tensors, or along one axis with the positions."""
    call = Call(trace, node)
    along = "dim" in call.given or node.op.startswith("aten.mode")  # `mode` alone is never over everything
    if not along or not trace.need(0).rank:
        return _reduce(trace, node)
    x, at, keep = trace.need(0), call.number("dim", -1), call.flag("keepdim")
    if _is_read(node, 1):
        return [reduce.arg(trace, x, at, keep) for _ in node.outputs]
    return [reduce.reduce(trace, x, [at], keep) for _ in node.outputs]


def _is_read(node: Node, output: int) -> bool:
    """Whether something in the graph takes this output."""
    return any(user.op == "output" or user.args[1] == output for user in node.native.users)


def _arg(trace: Trace, node: Node) -> list[Typed]:
    call = Call(trace, node)
    x = trace.need(0)
    if call.given.get("dim") is None or not x.rank:
        for axis in x.axes:
            trace.pin(axis, "GP207", "positions in the whole tensor are computed")
        return [made(call, {})]
    return [reduce.arg(trace, x, call.number("dim"), call.flag("keepdim"))]


def _top_k(trace: Trace, node: Node) -> list[Typed]:
    call = Call(trace, node)
    x = trace.need(0)
    if not x.rank:
        return [same(x) for _ in node.outputs]
    at = call.number("dim", -1)
    return reduce.top_k(trace, x, at, call.shape()[at])


# ---------------------------------------------------------------- space
def _spatial(node: Node) -> int:
    """How many axes a pooling or resampling operator works over: the digit in its name."""
    name = node.op.split(".")[1]
    return next((int(digit) for digit in "123" if f"{digit}d" in name), 2)


def _over_space(trace: Trace, node: Node) -> list[Typed]:
    """``... c * -> ... c *``: channels pass through, space is made anew. Positions count within a channel."""
    call = Call(trace, node)
    x, count = trace.need(0), _spatial(node)
    for axis in x.axes[x.rank - count :]:
        trace.whole(axis, "a window slides over it")
    known: dict[int, Axis] = dict(enumerate(x.axes[: x.rank - count]))
    return [Typed(list(made(call, known, "the positions of a window").axes or [])) for _ in node.outputs]


def _unpool(trace: Trace, node: Node) -> list[Typed]:
    """The converse of pooling: entries are put where, within their channel, their positions say."""
    x, positions = trace.need(0), trace.need(1)
    for a, b in zip(x.axes, positions.axes, strict=True):
        trace.tie(a, b)
    return _over_space(trace, node)


def _fractional_pool(trace: Trace, node: Node) -> list[Typed]:
    """Pooling with windows drawn for each sample and channel: ``n c d`` numbers between 0 and 1."""
    call = Call(trace, node)
    x, drawn = call.tensor("self"), call.tensor("random_samples")
    lead = [UNIT, UNIT, *x.axes[: x.rank - _spatial(node)]][-2:]
    for a, b in zip(lead, drawn.axes, strict=False):
        trace.tie(a, b)
    trace.whole(drawn.axes[-1], "a number for each axis of space")
    return _over_space(trace, node)


def _grid_sample(trace: Trace, node: Node) -> list[Typed]:
    return [special.grid_sample(trace, trace.need(0), trace.need(1))]


def _affine_grid(trace: Trace, node: Node) -> list[Typed]:
    call = Call(trace, node)
    theta, sizes = call.tensor("theta"), call.entries("size")
    for axis in theta.axes[1:]:
        trace.whole(axis, "a matrix of an affine map")
    for entry in sizes[1:]:
        trace.hold(entry, "the positions of a grid are computed from it")
    trace.require(sizes[0], theta.axes[0])
    return [made(call, {0: theta.axes[0]}, "the positions of a grid")]


def _regions(trace: Trace, node: Node) -> list[Typed]:
    """``n c h w, r k -> r c p q``: regions cut out by position."""
    x, boxes = trace.need(0), trace.need(1)
    for axis in (x.axes[0], *x.axes[2:], *boxes.axes):
        trace.whole(axis, "regions are cut out of it by position")
    found = made(Call(trace, node), {1: x.axes[1]}, "regions")
    return [Typed(list(found.axes or [])) for _ in node.outputs[:1]]


def _distances(trace: Trace, node: Node) -> list[Typed]:
    """``... p m, ... r m -> ... p r``: a norm over m."""
    a, b = trace.need(0), trace.need(1)
    trace.tie(a.axes[-1], b.axes[-1])
    trace.inexact(a.axes[-1])
    lead = trace.broadcast([a.axes[:-2], b.axes[:-2]])
    return [Typed([*lead, a.axes[-2], b.axes[-2]])]


def _deformable(trace: Trace, node: Node) -> list[Typed]:
    """torchvision's deformable convolution; offsets are per group of channels."""
    call = Call(trace, node)
    groups = call.entry("groups", 1)
    if not isinstance(groups, Number):
        raise ValueError("its groups are computed at run time")
    operands: Sequence[Operand | None] = [call.tensor("input"), call.tensor("weight"), call.optional("bias")]
    offsets = [call.tensor("offset"), call.optional("mask") if call.flag("use_mask") else None]
    shares = call.number("offset_groups", 1)
    found = special.deformable_conv(trace, operands, offsets, groups, shares, call.shape()[2:])
    mask = call.optional("mask")
    for axis in mask.axes if mask is not None else []:
        trace.whole(axis, "weights of the positions of a window")
    return [found]


_REDUCTIONS = """mean sum amax amin prod var std var_mean std_mean norm linalg_vector_norm linalg_norm logsumexp any all
nansum nanmean count_nonzero frobenius_norm linalg_matrix_norm aminmax nuclear_norm special_logsumexp _is_all_true
_is_any_true"""
_POOLS = """max_pool1d max_pool2d max_pool3d max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices
avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d _adaptive_avg_pool2d
_adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d upsample_nearest1d upsample_nearest2d
upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d upsample_linear1d
upsample_bilinear2d upsample_trilinear3d upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa
reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d"""
_CONVS = """conv1d conv2d conv3d convolution _convolution conv_transpose1d conv_transpose2d conv_transpose3d
mkldnn_convolution"""

COMPUTE: dict[str, Operator] = {
    "aten.linear": Operator(_linear),
    **{f"aten.{name}": Operator(_matmul) for name in ("matmul", "mm", "bmm", "mv", "dot", "linalg_matmul")},
    **{f"aten.{name}": Operator(_addmm) for name in ("addmm", "baddbmm", "addmv")},
    **{name: Operator(_grouped) for name in ("aten._grouped_mm", "transformers::grouped_mm_fallback")},
    "aten.einsum": Operator(_einsum),
    **{f"aten.{name}": Operator(_outer) for name in ("outer", "ger")},
    "aten.bilinear": Operator(_bilinear),
    **{f"aten.{name}": Operator(_conv) for name in _CONVS.split()},
    **{
        f"aten.{name}": Operator(_batch_norm)
        for name in ("batch_norm", "native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm")
    },
    "aten.instance_norm": Operator(_instance_norm),
    **{
        f"aten.{name}": Operator(_layer_norm)
        for name in ("layer_norm", "native_layer_norm", "rms_norm", "_fused_rms_norm")
    },
    "aten.group_norm": Operator(_group_norm),
    "aten.native_group_norm": Operator(_group_norm, sizes=True),
    **{f"aten.{name}": Operator(_weight_norm) for name in ("_weight_norm", "_weight_norm_interface")},
    **{
        f"aten.{name}": Operator(_softmax)
        for name in ("softmax", "_softmax", "log_softmax", "_log_softmax", "_safe_softmax", "special_softmax")
    },
    "aten.cosine_similarity": Operator(_cosine),
    **{f"aten.{name}": Operator(_reduce) for name in _REDUCTIONS.split()},
    **{f"aten.{name}": Operator(_extreme) for name in ("max", "min", "median", "nanmedian", "mode")},
    **{f"aten.{name}": Operator(_arg) for name in ("argmax", "argmin")},
    "aten.topk": Operator(_top_k, sizes=True),
    **{f"aten.{name}": Operator(_over_space, sizes=True) for name in _POOLS.split()},
    **{f"aten.{name}": Operator(_grid_sample) for name in ("grid_sampler", "grid_sampler_2d", "grid_sampler_3d")},
    **{f"aten.{name}": Operator(_unpool, sizes=True) for name in ("max_unpool2d", "max_unpool3d")},
    **{
        f"aten.{name}": Operator(_fractional_pool, sizes=True)
        for name in ("fractional_max_pool2d", "fractional_max_pool3d")
    },
    "aten.affine_grid_generator": Operator(_affine_grid, sizes=True),
    **{f"aten.{name}": Operator(_distances) for name in ("cdist", "_cdist_forward")},
    **{f"torchvision::{name}": Operator(_regions) for name in ("roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool")},
    "torchvision::deform_conv2d": Operator(_deformable),
}
