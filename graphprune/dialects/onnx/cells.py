"""ONNX operators that are small networks themselves (recurrent cells, attention), and the quantised ones."""

from __future__ import annotations

from graphprune.program import Node
from graphprune.rules import attention, pointwise, quantised, recurrent
from graphprune.rules.attention import Side
from graphprune.rules.operator import Operator
from graphprune.rules.quantised import Quantised
from graphprune.rules.trace import Operand, Trace, Typed
from graphprune.rules.windows import window
from graphprune.sizes import Extent

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def _recurrent(trace: Trace, node: Node) -> list[Typed]:
    weights = recurrent.Weights(trace.need(1), trace.need(2), trace.operand(3), trace.operand(7))
    return recurrent.cell(
        trace,
        trace.need(0),
        weights,
        (trace.operand(5), trace.operand(6)),
        GATES[node.op],
        hidden=trace.attribute("hidden_size") if "hidden_size" in node.attributes else None,
        lengths=trace.operand(4),
        batch_first=bool(node.attributes.get("layout", 0)),
    )


def _attention(trace: Trace, node: Node) -> list[Typed]:
    names = ("q_num_heads", "kv_num_heads", "kv_num_heads")
    operands = (trace.need(0), trace.need(1), trace.need(2))
    query, key, value = (_side(trace, operand, name) for operand, name in zip(operands, names, strict=True))
    valid = trace.operand(6)
    if valid is not None:
        trace.tie(valid.axes[0], query.batch)
    key, value = attention.cached(trace, key, trace.operand(4)), attention.cached(trace, value, trace.operand(5))
    scaled = bool(node.attributes.get("scale", 0))
    scores = attention.attend(trace, query, key, value, scaled=scaled, biases=[trace.operand(3)])
    out = Side(query.batch, query.heads, query.positions, value.width)
    merged = [out.batch, out.positions, out.merged]
    return [
        Typed(merged if operands[0].rank == 3 else out.stored),
        Typed(key.stored),
        Typed(value.stored),
        Typed(scores),
    ]


def _side(trace: Trace, x: Operand, heads: str) -> Side:
    return attention.merged_heads(trace, x, trace.attribute(heads)) if x.rank == 3 else attention.split_heads(x)


def _rotary(trace: Trace, node: Node) -> list[Typed]:
    return [
        attention.rotary(
            trace,
            trace.need(0),
            [trace.need(1), trace.need(2)],
            trace.operand(3),
            heads=trace.attribute("num_heads"),
            rotated=trace.attribute("rotary_embedding_dim"),
            interleaved=bool(node.attributes.get("interleaved", 0)),
        )
    ]


def _swiglu(trace: Trace, node: Node) -> list[Typed]:
    return [pointwise.broadcast(trace, [trace.need(0), trace.need(1)])]


def linear_quantisation(trace: Trace, node: Node) -> list[Typed]:
    """QuantizeLinear and DequantizeLinear, of ONNX and of onnxruntime."""
    axis, block = int(node.attributes.get("axis", 1)), int(node.attributes.get("block_size", 0))
    scales = [trace.need(1), trace.operand(2)]
    return [quantised.linear_quantisation(trace, trace.need(0), scales, axis, block)]


def _dynamic(trace: Trace, node: Node) -> list[Typed]:
    return quantised.dynamic_quantisation(trace, trace.need(0))


def _matmul_integer(trace: Trace, node: Node) -> list[Typed]:
    a, b = Quantised(trace.need(0), None, trace.operand(2)), Quantised(trace.need(1), None, trace.operand(3))
    return [quantised.product_of(trace, a, b)]


def _matmul(trace: Trace, node: Node) -> list[Typed]:
    a, b = (Quantised(trace.need(k), trace.operand(k + 1), trace.operand(k + 2)) for k in (0, 3))
    return [quantised.product_of(trace, a, b, result=[trace.operand(6), trace.operand(7)])]


def _conv_integer(trace: Trace, node: Node) -> list[Typed]:
    x, kernel = trace.need(0), Quantised(trace.need(1), None, trace.operand(3))
    return [quantised.convolution(trace, x, kernel, None, trace.attribute("group", 1), _positions(trace, x, kernel))]


def quantised_conv(trace: Trace, node: Node) -> list[Typed]:
    """QLinearConv, of ONNX and (channels first) of onnxruntime."""
    if node.attributes.get("channels_last", 0):
        raise ValueError("channels come last")
    x, kernel = trace.need(0), Quantised(trace.need(3), trace.operand(4), trace.operand(5))
    sizes = _positions(trace, x, kernel)
    return [quantised.convolution(trace, x, kernel, trace.operand(8), trace.attribute("group", 1), sizes)]


def _positions(trace: Trace, x: Operand, kernel: Quantised) -> list[Extent]:
    spatial, reach = ([axis.size for axis in operand.axes[2:]] for operand in (x, kernel.data))
    return window(trace, spatial, reach, trace.node.attributes)


ATTENTION_AND_RNN: dict[str, Operator] = {
    **{name: Operator(_recurrent) for name in GATES},
    "Attention": Operator(_attention),
    "RotaryEmbedding": Operator(_rotary),
    "SwiGLU": Operator(_swiglu),
    "QuantizeLinear": Operator(linear_quantisation),
    "DequantizeLinear": Operator(linear_quantisation),
    "DynamicQuantizeLinear": Operator(_dynamic),
    "MatMulInteger": Operator(_matmul_integer),
    "QLinearMatMul": Operator(_matmul),
    "ConvInteger": Operator(_conv_integer),
    "QLinearConv": Operator(quantised_conv),
}
