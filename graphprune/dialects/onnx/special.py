"""ONNX operators of particular fields: signals, grids, caches, text; deformable and causal convolution."""

from __future__ import annotations

from graphprune.program import Node
from graphprune.rules import computed, pointwise, special
from graphprune.rules.operator import Operator
from graphprune.rules.trace import Trace, Typed
from graphprune.rules.windows import window


def _text(trace: Trace, node: Node) -> list[Typed]:
    return [pointwise.broadcast(trace, trace.operands())]


def _affine_grid(trace: Trace, node: Node) -> list[Typed]:
    return [special.affine_grid(trace, trace.need(0), computed.listed(trace, trace.need(1)))]


def _columns_to_image(trace: Trace, node: Node) -> list[Typed]:
    image, block = trace.constants(trace.operand(1)), trace.constants(trace.operand(2))
    if image is None or block is None:
        raise ValueError("the sizes of image and block are computed at run time")
    return [special.columns_to_image(trace, trace.need(0), image, block)]


def _center_crop_pad(trace: Trace, node: Node) -> list[Typed]:
    x, sizes = trace.need(0), trace.constants(trace.operand(1))
    axes = [int(k) for k in node.attributes.get("axes") or range(x.rank)]
    return [special.along(trace, x, axes, sizes or [None] * len(axes), "it is cropped or padded around its middle")]


def _tensor_scatter(trace: Trace, node: Node) -> list[Typed]:
    axis = int(node.attributes.get("axis", -2))
    return [special.update(trace, trace.need(0), trace.need(1), trace.operand(2), axis)]


def _compress(trace: Trace, node: Node) -> list[Typed]:
    return [special.compress(trace, trace.need(0), trace.need(1), node.attributes.get("axis"))]


def _reverse_sequence(trace: Trace, node: Node) -> list[Typed]:
    time, batch = int(node.attributes.get("time_axis", 0)), int(node.attributes.get("batch_axis", 1))
    return [special.reverse_sequence(trace, trace.need(0), trace.need(1), time, batch)]


def _determinant(trace: Trace, node: Node) -> list[Typed]:
    x = trace.need(0)
    return [Typed((special.along(trace, x, [-2, -1], [None, None], "a determinant").axes or [])[:-2])]


def _fourier(trace: Trace, node: Node) -> list[Typed]:
    x = trace.need(0)
    axis = [int(node.attributes.get("axis", 1))] if node.version < 20 else [-2]
    if node.version >= 20 and trace.operand(2) is not None:
        axis = trace.constants(trace.operand(2)) or []
    if not axis:
        raise ValueError("its axis is computed at run time")
    return [special.along(trace, x, [axis[0], x.rank - 1], [None, None], "a transform of a signal needs all of it")]


def _short_fourier(trace: Trace, node: Node) -> list[Typed]:
    """``n s 1 -> n f b 2``: frames of a signal, each in frequencies."""
    x = trace.need(0)
    out = special.along(trace, x, range(1, x.rank), [None] * (x.rank - 1), "a transform of a signal needs all of it")
    return [Typed([*(out.axes or [])[:2], trace.fixed(trace.unknown()), trace.fixed(2)])]


def _deformable_conv(trace: Trace, node: Node) -> list[Typed]:
    x, kernel = trace.need(0), trace.need(1)
    spatial, reach = ([axis.size for axis in operand.axes[2:]] for operand in (x, kernel))
    return [
        special.deformable_conv(
            trace,
            [x, kernel, trace.operand(3)],
            [trace.operand(2), trace.operand(4)],
            trace.attribute("group", 1),
            int(node.attributes.get("offset_group", 1)),
            window(trace, spatial, reach, node.attributes),
        )
    ]


def _causal_conv(trace: Trace, node: Node) -> list[Typed]:
    return special.causal_conv(trace, [trace.need(0), trace.need(1), trace.operand(2), trace.operand(3)])


def _linear_attention(trace: Trace, node: Node) -> list[Typed]:
    heads = [trace.attribute("q_num_heads"), trace.attribute("kv_num_heads")]
    return special.linear_attention(trace, trace.operands(), heads, bool(node.attributes.get("scale", 0)))


SPECIAL: dict[str, Operator] = {
    "BitCast": Operator(_text),
    "StringConcat": Operator(_text),
    "RegexFullMatch": Operator(_text),
    "AffineGrid": Operator(_affine_grid),
    "Col2Im": Operator(_columns_to_image),
    "CenterCropPad": Operator(_center_crop_pad),
    "TensorScatter": Operator(_tensor_scatter),
    "Compress": Operator(_compress),
    "ReverseSequence": Operator(_reverse_sequence),
    "Det": Operator(_determinant),
    "DFT": Operator(_fourier),
    "STFT": Operator(_short_fourier),
    "DeformConv": Operator(_deformable_conv),
    "CausalConvWithState": Operator(_causal_conv),
    "LinearAttention": Operator(_linear_attention),
}
