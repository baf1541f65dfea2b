"""Hard case 12: normalisations, whose statistics depend on which channels there are."""

from __future__ import annotations

import onnx

from .case import case, channel, head, head_width, seeded


@case(
    channel(3, "stem.weight:0 stem.bias:0 norm.scale:0 norm.bias:0 gamma:0 beta:0 last.weight:1"),
    channel(4, "stem.weight:0 stem.bias:0 gamma:0 beta:0 last.weight:1", exact=False),
)
def group_norm_exported() -> onnx.ModelProto:
    """GroupNorm as PyTorch exports it: fold into 3 groups, InstanceNormalization, unfold by Shape, scale and shift.

    stem.weight:0 = group(3) * width(4). Statistics run over one group's width and places: whole groups go exactly,
    the width is inexact. norm.scale holds one entry per group, gamma and beta one per channel.
    """
    return seeded("""
    normed (float[batch, 3, 6, 6] x) => (float[batch, 5, 6, 6] y)
    <float[12, 3, 3, 3] "stem.weight", float[12] "stem.bias", float[3] "norm.scale", float[3] "norm.bias",
     float[12, 1, 1] "gamma", float[12, 1, 1] "beta", float[5, 12, 1, 1] "last.weight", int64[3] folded = {0, 3, -1}>
    {
        stem = Conv <pads = [1, 1, 1, 1]> (x, "stem.weight", "stem.bias")
        groups = Reshape(stem, folded)
        normed_groups = InstanceNormalization(groups, "norm.scale", "norm.bias")
        sizes = Shape(stem)
        normed = Reshape(normed_groups, sizes)
        scaled = Mul(normed, gamma)
        shifted = Add(scaled, beta)
        active = Relu(shifted)
        y = Conv(active, "last.weight")
    }""")


@case(
    channel(3, "stem.weight:0 stem.bias:0 norm.scale:0 norm.bias:0 last.weight:1"),
    channel(4, "stem.weight:0 stem.bias:0 norm.scale:0 norm.bias:0 last.weight:1", exact=False),
)
def group_norm_operator() -> onnx.ModelProto:
    """GroupNormalization of opset 21, scale and bias per channel; `num_groups` follows when a group is cut."""
    return seeded(
        """
    normed (float[batch, 3, 6, 6] x) => (float[batch, 5, 6, 6] y)
    <float[12, 3, 3, 3] "stem.weight", float[12] "stem.bias", float[12] "norm.scale", float[12] "norm.bias",
     float[5, 12, 1, 1] "last.weight">
    {
        stem = Conv <pads = [1, 1, 1, 1]> (x, "stem.weight", "stem.bias")
        normed = GroupNormalization <num_groups = 3> (stem, "norm.scale", "norm.bias")
        active = Relu(normed)
        y = Conv(active, "last.weight")
    }""",
        opset=21,
    )


@case(
    channel(
        10,
        "stem.weight:0 depthwise.weight:0 norm.scale:0 norm.bias:0 up.weight:0 down.weight:1 down.bias:0 gamma:0 "
        "last.weight:1",
        exact=False,
    ),
    channel(16, "up.weight:1 up.bias:0 down.weight:0"),
)
def layer_norm_channels_last() -> onnx.ModelProto:
    """ConvNeXt block: depthwise convolution, channels moved last, LayerNorm, MLP, layer scale, moved back, residual."""
    return seeded("""
    convnext (float[batch, 3, 6, 6] x) => (float[batch, 5, 6, 6] y)
    <float[10, 3, 1, 1] "stem.weight", float[10, 1, 3, 3] "depthwise.weight", float[10] "norm.scale",
     float[10] "norm.bias", float[10, 16] "up.weight", float[16] "up.bias", float[16, 10] "down.weight",
     float[10] "down.bias", float[10, 1, 1] "gamma", float[5, 10, 1, 1] "last.weight">
    {
        stem = Conv(x, "stem.weight")
        deep = Conv <group = 10, pads = [1, 1, 1, 1]> (stem, "depthwise.weight")
        channels_last = Transpose <perm = [0, 2, 3, 1]> (deep)
        normed = LayerNormalization <axis = -1, epsilon = 0.000001> (channels_last, "norm.scale", "norm.bias")
        up_product = MatMul(normed, "up.weight")
        up_sum = Add(up_product, "up.bias")
        gate = Sigmoid(up_sum)
        up = Mul(up_sum, gate)
        down_product = MatMul(up, "down.weight")
        down = Add(down_product, "down.bias")
        channels_first = Transpose <perm = [0, 3, 1, 2]> (down)
        scaled = Mul(gamma, channels_first)
        residual = Add(stem, scaled)
        y = Conv(residual, "last.weight")
    }""")


@case(
    channel(12, "stem.weight:1 stem.bias:0 norm.scale:0 gate.weight:0 up.weight:0 down.weight:1", exact=False),
    channel(16, "gate.weight:1 up.weight:1 down.weight:0"),
)
def rms_norm_decomposed() -> onnx.ModelProto:
    """LLaMA block: RMSNorm written out as Pow, ReduceMean, Sqrt and Div, then a gated MLP, to a pinned average.

    ReduceMean over the stream divides by its width, so the 12 is inexact. The output is the mean over the stream too,
    which leaves nothing of it to the caller and does not pin it.
    """
    return seeded("""
    llama (float[batch, 6, 7] x) => (float[batch, 6] y)
    <float[7, 12] "stem.weight", float[12] "stem.bias", float[12] "norm.scale", float[12, 16] "gate.weight",
     float[12, 16] "up.weight", float[16, 12] "down.weight", float two = {2.0}, float epsilon = {0.000001},
     int64[1] last = {-1}>
    {
        stem_product = MatMul(x, "stem.weight")
        stem = Add(stem_product, "stem.bias")
        square = Pow(stem, two)
        mean = ReduceMean <keepdims = 1> (square, last)
        mean_safe = Add(mean, epsilon)
        root = Sqrt(mean_safe)
        unit = Div(stem, root)
        normed = Mul("norm.scale", unit)
        gate_sum = MatMul(normed, "gate.weight")
        gate_share = Sigmoid(gate_sum)
        gate = Mul(gate_sum, gate_share)
        up = MatMul(normed, "up.weight")
        product = Mul(gate, up)
        down = MatMul(product, "down.weight")
        residual = Add(stem, down)
        y = ReduceMean <keepdims = 0> (residual, last)
    }""")


@case(
    head(4, "q.weight:1 k.weight:1 v.weight:1 out.weight:0"),
    head_width(6, "q.weight:1 k.weight:1 q_norm.scale:0 k_norm.scale:0", exact=False),
    head_width(6, "v.weight:1 out.weight:0"),
)
def rms_norm_of_queries_and_keys() -> onnx.ModelProto:
    """Qwen3 attention: the RMSNormalization operator over each head's width; values are not normalised."""
    return seeded(
        """
    attention (float[batch, 9, 10] x) => (float[batch, 9, 10] y)
    <float[10, 24] "q.weight", float[10, 24] "k.weight", float[10, 24] "v.weight", float[6] "q_norm.scale",
     float[6] "k_norm.scale", float[24, 10] "out.weight", int64[4] by_head = {0, 0, 4, 6}, int64[3] flat = {0, 0, 24},
     float scale = {0.408}>
    {
        q_flat = MatMul(x, "q.weight")
        k_flat = MatMul(x, "k.weight")
        v_flat = MatMul(x, "v.weight")
        q_split = Reshape(q_flat, by_head)
        k_split = Reshape(k_flat, by_head)
        v_split = Reshape(v_flat, by_head)
        q_normed = RMSNormalization <axis = -1> (q_split, "q_norm.scale")
        k_normed = RMSNormalization <axis = -1> (k_split, "k_norm.scale")
        q = Transpose <perm = [0, 2, 1, 3]> (q_normed)
        k = Transpose <perm = [0, 2, 3, 1]> (k_normed)
        v = Transpose <perm = [0, 2, 1, 3]> (v_split)
        products = MatMul(q, k)
        scores = Mul(products, scale)
        shares = Softmax <axis = -1> (scores)
        mixed = MatMul(shares, v)
        joined = Transpose <perm = [0, 2, 1, 3]> (mixed)
        context = Reshape(joined, flat)
        y = MatMul(context, "out.weight")
    }""",
        opset=23,
    )
