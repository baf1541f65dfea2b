"""Operators of onnxruntime (domain com.microsoft) that its optimizers and quantisers put into files.

Inputs and attributes as in onnxruntime's docs/ContribOperators.md.
"""

from __future__ import annotations

from typing import Any

from graphprune.dialects.onnx.cells import linear_quantisation, quantised_conv
from graphprune.dialects.onnx.fused_attention import FUSED_ATTENTION
from graphprune.dims import UNIT
from graphprune.program import Node
from graphprune.rules import indexing, linear, norms, pointwise, quantised, recurrent, reduce
from graphprune.rules.operator import Operator
from graphprune.rules.quantised import Packed, Quantised
from graphprune.rules.trace import Trace, Typed
from graphprune.rules.windows import window


def _required(node: Node, name: str) -> Any:
    """An attribute that must be there (``ValueError``)."""
    if name not in node.attributes:
        raise ValueError(f"the attribute {name} is missing")
    return node.attributes[name]


def _unary(trace: Trace, node: Node) -> list[Typed]:
    return [pointwise.same(trace, trace.need(0))]


def _broadcast(trace: Trace, node: Node) -> list[Typed]:
    return [pointwise.broadcast(trace, trace.operands())]


def _split_gelu(trace: Trace, node: Node) -> list[Typed]:
    x, bias = trace.need(0), trace.need(1)
    halves, channels = trace.factor(trace.tie(x.axes[-1], bias.axes[0]), 2)
    trace.whole(halves, "one half of the channels gates the other")
    return [Typed([*x.axes[:-1], channels])]


def _fused_conv(trace: Trace, node: Node) -> list[Typed]:
    x, kernel, added = trace.need(0), trace.need(1), trace.operand(3)
    if x.rank < 2 or x.rank != kernel.rank:
        raise ValueError(f"a kernel of {kernel.rank} axes slides over {x.rank}")
    sizes = window(trace, [a.size for a in x.axes[2:]], [a.size for a in kernel.axes[2:]], node.attributes)
    operands = [x, kernel, trace.operand(2)]
    out = linear.conv(linear.CONV, trace, operands, trace.attribute("group", 1), sizes)
    if added is not None and out.axes is not None:
        trace.broadcast([out.axes, added.axes])
    return [out]


def _fused_matmul(trace: Trace, node: Node) -> list[Typed]:
    if node.attributes.get("transBatchA", 0) or node.attributes.get("transBatchB", 0):
        raise ValueError("batch axes are transposed")
    swap_a, swap_b = (bool(node.attributes.get(name, 0)) for name in ("transA", "transB"))
    return [linear.matmul(trace, trace.need(0), trace.need(1), swap_a=swap_a, swap_b=swap_b)]


def _fused_gemm(trace: Trace, node: Node) -> list[Typed]:
    swap_a, swap_b = (bool(node.attributes.get(name, 0)) for name in ("transA", "transB"))
    return [linear.matmul(trace, trace.need(0), trace.need(1), swap_a=swap_a, swap_b=swap_b, bias=trace.operand(2))]


def _simplified_norm(trace: Trace, node: Node) -> list[Typed]:
    x, scale = trace.need(0), trace.need(1)
    if not x.rank:
        raise ValueError("a single number has nothing to be normalised over")
    return norms.layer_norm(trace, [x, scale], int(node.attributes.get("axis", -1)), len(node.outputs))


def _skip_norm(trace: Trace, node: Node) -> list[Typed]:
    """``... c, ... c, c, c?, c? -> ... c``, its mean and deviation, and the sum before the norm."""
    summed = Typed(trace.broadcast([x.axes for x in trace.operands() if x is not None]))
    axes = summed.axes or []
    trace.inexact(axes[-1])
    reduced = [*axes[:-1], UNIT]
    return [Typed(list(axes)), Typed(reduced), Typed(list(reduced)), summed]


def _embed_norm(trace: Trace, node: Node) -> list[Typed]:
    """``b s, b s?, v c, p c, g c?, c, c -> b s c, b, b s c``: tables are read at positions, their sum is normalised."""
    ids = trace.need(0)
    channels = trace.need(2).axes[1]
    for index in (2, 3, 4):
        table = trace.operand(index)
        if table is not None:
            trace.pin(table.axes[0], "GP207", indexing.INDEXED)
            trace.tie(channels, table.axes[1])
    for index in (5, 6):
        trace.tie(channels, trace.need(index).axes[0])
    for index in (1, 7, 8):
        operand = trace.operand(index)
        if operand is not None:
            trace.broadcast([ids.axes, operand.axes])
    if trace.operand(8) is None or trace.operand(7) is not None:
        trace.whole(ids.axes[1], "positions are counted along it")
    trace.inexact(channels)
    out = [*ids.axes, channels]
    return [Typed(out), Typed([ids.axes[0]]), Typed(list(out))]


def _group_norm(trace: Trace, node: Node) -> list[Typed]:
    """``n ... (g c)`` or ``n (g c) ...``; SkipGroupNorm also adds a residual and a bias before."""
    x, skip, bias = trace.need(0), trace.operand(3), trace.operand(4)
    at = x.rank - 1 if node.attributes.get("channels_last", 1) else 1
    channels = x.axes[at]
    groups = trace.attribute("groups", 1)
    count, inner = trace.factor(channels, groups.value)
    trace.require(groups, count)
    for k, axis in enumerate(x.axes):
        if k not in {0, at}:
            trace.inexact(axis)
    trace.inexact(inner)
    for operand in (trace.need(1), trace.need(2), bias):
        if operand is not None:
            trace.tie(channels, operand.axes[0])
    if skip is not None and skip.rank == x.rank:
        trace.broadcast([x.axes, skip.axes])
    elif skip is not None:
        trace.tie(skip.axes[0], x.axes[0])
        trace.tie(skip.axes[-1], channels)
    return [Typed(list(x.axes)), Typed(list(x.axes))]


def _quantised_broadcast(trace: Trace, node: Node) -> list[Typed]:
    return [pointwise.broadcast(trace, [trace.need(0), trace.need(3)])]


def _quantised_where(trace: Trace, node: Node) -> list[Typed]:
    return [pointwise.broadcast(trace, [trace.need(0), trace.need(1), trace.need(4)])]


def _quantised_concat(trace: Trace, node: Node) -> list[Typed]:
    operands = [trace.need(k) for k in range(2, len(node.inputs), 3)]
    if 0 in (ranks := {operand.rank for operand in operands}) or len(ranks) != 1:
        raise ValueError("tensors of one rank, which is not zero, can be laid end to end")
    return [indexing.concat(trace, operands, int(_required(node, "axis")))]


def _quantised_pool_all(trace: Trace, node: Node) -> list[Typed]:
    x = trace.need(0)
    last = bool(node.attributes.get("channels_last", 0))
    return [reduce.reduce(trace, x, range(1, x.rank - 1) if last else range(2, x.rank), True)]


def _quantised_softmax(trace: Trace, node: Node) -> list[Typed]:
    x = trace.need(0)
    first = int(node.attributes.get("axis", -1)) % max(1, x.rank)
    return [reduce.softmax(trace, x, [first] if int(node.attributes.get("opset", 13)) >= 13 else range(first, x.rank))]


def _quantised_pool(trace: Trace, node: Node) -> list[Typed]:
    if node.attributes.get("channels_last", 0):
        raise ValueError("channels come last")
    return reduce.pool(trace, trace.need(0), _required(node, "kernel_shape"), node.attributes)


def _quantised_mean(trace: Trace, node: Node) -> list[Typed]:
    keepdims = bool(node.attributes.get("keepdims", 1))
    return [reduce.reduce(trace, trace.need(0), node.attributes.get("axes"), keepdims)]


def _quantised_gemm(trace: Trace, node: Node) -> list[Typed]:
    a, b = (Quantised(trace.need(k), trace.operand(k + 1), trace.operand(k + 2)) for k in (0, 3))
    swap_a, swap_b = (bool(node.attributes.get(name, 0)) for name in ("transA", "transB"))
    return [quantised.product_of(trace, a, b, swap_a=swap_a, swap_b=swap_b, bias=trace.operand(6))]


def _dynamic_matmul(trace: Trace, node: Node) -> list[Typed]:
    a, b = Quantised(trace.need(0)), Quantised(trace.need(1), trace.operand(2), trace.operand(3))
    quantised.measured(trace, a.data)
    return [quantised.product_of(trace, a, b, bias=trace.operand(4))]


def _matmul_to_float(trace: Trace, node: Node) -> list[Typed]:
    a, b = (Quantised(trace.need(k), trace.operand(k + 2), trace.operand(k + 4)) for k in (0, 1))
    for operand in (a.scale, a.zero_point):
        if operand is not None and operand.rank and operand.axes[0].size != 1:
            raise ValueError("the left factor has more than one scale")
    return [quantised.product_of(trace, a, b, bias=trace.operand(6))]


def _dynamic_lstm(trace: Trace, node: Node) -> list[Typed]:
    weights = recurrent.Weights(
        trace.need(1),
        trace.need(2),
        trace.operand(3),
        trace.operand(7),
        input_scales=(trace.operand(8), trace.operand(9)),
        recurrent_scales=(trace.operand(10), trace.operand(11)),
        swapped=True,
    )
    hidden = trace.attribute("hidden_size") if "hidden_size" in node.attributes else None
    states = (trace.operand(5), trace.operand(6))
    out = recurrent.cell(trace, trace.need(0), weights, states, 4, hidden=hidden, lengths=trace.operand(4))
    # Inputs and hidden states are quantised step by step, by their own range.
    quantised.measured(trace, trace.need(0))
    trace.inexact(weights.recurrent.axes[1])
    return out


def _matmul_bits(trace: Trace, node: Node) -> list[Typed]:
    zeros, bits = trace.operand(3), int(node.attributes.get("bits", 4))
    weight = Packed(
        trace.need(1),
        trace.need(2),
        zeros,
        trace.operand(4),
        trace.operand(5),
        trace.attribute("K"),
        trace.attribute("N"),
        int(_required(node, "block_size")),
        bits,
        zeros is not None and zeros.value.dtype == "uint8" and bits < 8,
    )
    return [quantised.packed_linear(trace, trace.need(0), weight)]


_ROWS: dict[str, Operator] = {
    **{name: Operator(_unary) for name in ("Gelu", "QuickGelu", "QLinearLeakyRelu", "QLinearSigmoid")},
    **{name: Operator(_broadcast) for name in ("BiasGelu", "FastGelu", "BiasAdd")},
    "BiasSplitGelu": Operator(_split_gelu),
    "FusedConv": Operator(_fused_conv),
    **{name: Operator(_fused_matmul) for name in ("FusedMatMul", "TransposeMatMul")},
    "FusedGemm": Operator(_fused_gemm),
    **{name: Operator(_skip_norm) for name in ("SkipLayerNormalization", "SkipSimplifiedLayerNormalization")},
    "SimplifiedLayerNormalization": Operator(_simplified_norm),
    "EmbedLayerNormalization": Operator(_embed_norm),
    **{name: Operator(_group_norm) for name in ("GroupNorm", "SkipGroupNorm")},
    **{name: Operator(linear_quantisation) for name in ("QuantizeLinear", "DequantizeLinear")},
    "QLinearConv": Operator(quantised_conv),
    **{name: Operator(_quantised_broadcast) for name in ("QLinearAdd", "QLinearMul")},
    "QLinearWhere": Operator(_quantised_where),
    "QLinearConcat": Operator(_quantised_concat),
    "QLinearGlobalAveragePool": Operator(_quantised_pool_all),
    "QLinearSoftmax": Operator(_quantised_softmax),
    "QLinearAveragePool": Operator(_quantised_pool),
    "QLinearReduceMean": Operator(_quantised_mean),
    "QGemm": Operator(_quantised_gemm),
    "DynamicQuantizeMatMul": Operator(_dynamic_matmul),
    "MatMulIntegerToFloat": Operator(_matmul_to_float),
    "DynamicQuantizeLSTM": Operator(_dynamic_lstm),
    "MatMulNBits": Operator(_matmul_bits),
    **FUSED_ATTENTION,
}

CONTRIB: dict[str, Operator] = {
    # onnxruntime registers this one in the standard domain.
    "SimplifiedLayerNormalization": _ROWS["SimplifiedLayerNormalization"],
    **{f"com.microsoft:{name}": row for name, row in _ROWS.items()},
}
