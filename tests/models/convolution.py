"""Hard cases 4, 6, 7 and 13: shuffled, grouped, gated and rearranged channels of convolutional networks."""

from __future__ import annotations

import numpy as np
import onnx

from .case import case, channel, seeded


@case(
    channel(2, "stem.weight:0 stem.bias:0 squeeze.weight:0 squeeze.bias:0 depthwise.weight:0 expand.weight:1"),
    channel(6, "stem.weight:0 stem.bias:0 squeeze.weight:1"),
    channel(2, "squeeze.weight:0 squeeze.bias:0 depthwise.weight:0 expand.weight:0 expand.bias:0 last.weight:1"),
    channel(4, "squeeze.weight:0 squeeze.bias:0 depthwise.weight:0 expand.weight:1"),
    channel(10, "expand.weight:0 expand.bias:0 last.weight:1"),
)
def shuffle_between_grouped() -> onnx.ModelProto:
    """ShuffleNet v1 unit: grouped convolution, shuffle by reshape-transpose-reshape, depthwise, grouped convolution.

    With g = 2 groups: stem.weight:0 = g * 6, squeeze.weight:0 = g * 8, which leaves the shuffle as 8 * g. The second
    grouped convolution cuts that in halves, so 8 = h * 4 and its groups are h, while g ends inside each group:
    squeeze.weight:0 = g * h * 4, depthwise.weight:0 = h * 4 * g, expand.weight:1 = 4 * g, expand.weight:0 = h * 10.
    """
    return seeded("""
    shuffle (float[batch, 3, 6, 6] x) => (float[batch, 5, 6, 6] y)
    <float[12, 3, 1, 1] "stem.weight", float[12] "stem.bias", float[16, 6, 1, 1] "squeeze.weight",
     float[16] "squeeze.bias", float[16, 1, 3, 3] "depthwise.weight", float[20, 8, 1, 1] "expand.weight",
     float[20] "expand.bias", float[5, 20, 1, 1] "last.weight",
     int64[5] apart = {-1, 2, 8, 6, 6}, int64[4] together = {-1, 16, 6, 6}>
    {
        stem = Conv(x, "stem.weight", "stem.bias")
        active = Relu(stem)
        squeezed = Conv <group = 2> (active, "squeeze.weight", "squeeze.bias")
        groups = Reshape(squeezed, apart)
        swapped = Transpose <perm = [0, 2, 1, 3, 4]> (groups)
        shuffled = Reshape(swapped, together)
        filtered = Conv <group = 16, pads = [1, 1, 1, 1]> (shuffled, "depthwise.weight")
        expanded = Conv <group = 2> (filtered, "expand.weight", "expand.bias")
        y = Conv(expanded, "last.weight")
    }""")


@case(
    channel(4, "stem.weight:0 stem.bias:0 second.weight:0 fourth.weight:0 last.weight:1"),
    channel(4, "stem.weight:0 stem.bias:0 second.weight:0 third.weight:1"),
    channel(8, "stem.weight:0 stem.bias:0 first.weight:1"),
    channel(6, "first.weight:0 first.bias:0 filter.weight:0 second.weight:1"),
    channel(7, "third.weight:0 third.bias:0 fourth.weight:1"),
)
def shuffle_after_concat() -> onnx.ModelProto:
    """Two ShuffleNet v2 units: halve, transform one half, concatenate, shuffle, and halve again.

    The shuffle views (left 8 + transformed 8) as 2 * 8, so both halves become one dimension of 8 and the 2 is pinned.
    After the shuffle the order is 8 * 2; halving that cuts 8 into a + b, passes a * 2 by and transforms b * 2. The
    second shuffle ties the transformed half to the one that passed by: fourth.weight:0 = a * 2.
    """
    return seeded("""
    shuffle (float[batch, 3, 6, 6] x) => (float[batch, 5, 6, 6] y)
    <float[16, 3, 1, 1] "stem.weight", float[16] "stem.bias", float[6, 8, 1, 1] "first.weight", float[6] "first.bias",
     float[6, 1, 3, 3] "filter.weight", float[8, 6, 1, 1] "second.weight", float[7, 8, 1, 1] "third.weight",
     float[7] "third.bias", float[8, 7, 1, 1] "fourth.weight", float[5, 16, 1, 1] "last.weight",
     int64[5] apart = {-1, 2, 8, 6, 6}, int64[4] together = {-1, 16, 6, 6}, int64[2] halves = {8, 8}>
    {
        stem = Conv(x, "stem.weight", "stem.bias")
        left_1, right_1 = Split <axis = 1> (stem, halves)
        first = Conv(right_1, "first.weight", "first.bias")
        filtered = Conv <group = 6, pads = [1, 1, 1, 1]> (first, "filter.weight")
        second = Conv(filtered, "second.weight")
        joined_1 = Concat <axis = 1> (left_1, second)
        apart_1 = Reshape(joined_1, apart)
        swapped_1 = Transpose <perm = [0, 2, 1, 3, 4]> (apart_1)
        shuffled_1 = Reshape(swapped_1, together)
        left_2, right_2 = Split <axis = 1> (shuffled_1, halves)
        third = Conv(right_2, "third.weight", "third.bias")
        active = Relu(third)
        fourth = Conv(active, "fourth.weight")
        joined_2 = Concat <axis = 1> (left_2, fourth)
        apart_2 = Reshape(joined_2, apart)
        swapped_2 = Transpose <perm = [0, 2, 1, 3, 4]> (apart_2)
        shuffled_2 = Reshape(swapped_2, together)
        y = Conv(shuffled_2, "last.weight")
    }""")


@case(
    channel(2, "stem.weight:0 stem.bias:0 last.weight:1"),
    channel(6, "stem.weight:0 stem.bias:0 last.weight:1"),
)
def shuffle_by_gather() -> onnx.ModelProto:
    """The shuffle as one Gather in the stored order 0, 6, 1, 7, ...: stem.weight:0 = 2 * 6, last.weight:1 = 6 * 2."""
    order = np.arange(12, dtype=np.int64).reshape(2, 6).T.reshape(-1)
    return seeded(
        """
    shuffle (float[batch, 3, 6, 6] x) => (float[batch, 5, 6, 6] y)
    <float[12, 3, 1, 1] "stem.weight", float[12] "stem.bias", float[5, 12, 1, 1] "last.weight", int64[12] order>
    {
        stem = Conv(x, "stem.weight", "stem.bias")
        active = Relu(stem)
        shuffled = Gather <axis = 1> (active, order)
        y = Conv(shuffled, "last.weight")
    }""",
        order=order,
    )


@case(
    channel(8, "stem.weight:0 stem.bias:0 odd.weight:1 even.weight:0 last.weight:1"),
    channel(6, "odd.weight:0 odd.bias:0 even.weight:1"),
)
def shuffle_into_gathered_halves() -> onnx.ModelProto:
    """FastestDet's form: fold the channels into (8, 2), bring the 2 to the front, pick each half by a scalar Gather.

    stem.weight:0 = 8 * 2(pinned): the halves are two places of one axis, so one dimension of 8 serves both. The
    transformed half leaves as even.weight:0, and its addition to the half that passed by ties it to the same 8.
    """
    return seeded("""
    shuffle (float[1, 3, 6, 6] x) => (float[1, 5, 6, 6] y)
    <float[16, 3, 1, 1] "stem.weight", float[16] "stem.bias", float[6, 8, 1, 1] "odd.weight", float[6] "odd.bias",
     float[8, 6, 1, 1] "even.weight", float[5, 8, 1, 1] "last.weight",
     int64[3] pairs = {8, 2, 36}, int64[5] halves = {2, -1, 8, 6, 6}, int64 first = {0}, int64 second = {1}>
    {
        stem = Conv(x, "stem.weight", "stem.bias")
        paired = Reshape(stem, pairs)
        swapped = Transpose <perm = [1, 0, 2]> (paired)
        both = Reshape(swapped, halves)
        passed = Gather <axis = 0> (both, first)
        taken = Gather <axis = 0> (both, second)
        odd = Conv(taken, "odd.weight", "odd.bias")
        active = Relu(odd)
        even = Conv(active, "even.weight")
        joined = Add(passed, even)
        y = Conv(joined, "last.weight")
    }""")


@case(
    channel(4, "stem.weight:0 stem.bias:0 grouped.weight:0 grouped.bias:0 last.weight:1"),
    channel(3, "stem.weight:0 stem.bias:0 grouped.weight:1"),
    channel(5, "grouped.weight:0 grouped.bias:0 last.weight:1"),
)
def grouped_unequal() -> onnx.ModelProto:
    """A convolution with 4 groups from 12 to 20 channels: stem.weight:0 = g * 3, grouped.weight:0 = g * 5.

    Whole groups, inputs of every group and outputs of every group are three independent dimensions.
    """
    return seeded("""
    grouped (float[batch, 3, 6, 6] x) => (float[batch, 5, 6, 6] y)
    <float[12, 3, 3, 3] "stem.weight", float[12] "stem.bias", float[20, 3, 3, 3] "grouped.weight",
     float[20] "grouped.bias", float[5, 20, 1, 1] "last.weight">
    {
        stem = Conv <pads = [1, 1, 1, 1]> (x, "stem.weight", "stem.bias")
        active = Relu(stem)
        grouped = Conv <group = 4, pads = [1, 1, 1, 1]> (active, "grouped.weight", "grouped.bias")
        y = Conv(grouped, "last.weight")
    }""")


@case(
    channel(
        6,
        "stem.weight:0 stem.bias:0 depthwise.weight:0 depthwise.bias:0 norm.scale:0 norm.bias:0 norm.mean:0 "
        "norm.variance:0 last.weight:1",
    ),
    channel(
        3, "depthwise.weight:0 depthwise.bias:0 norm.scale:0 norm.bias:0 norm.mean:0 norm.variance:0 last.weight:1"
    ),
)
def depthwise_multiplier() -> onnx.ModelProto:
    """A depthwise convolution that makes 3 outputs of every input: depthwise.weight:0 = channel(6) * multiplier(3)."""
    return seeded("""
    depthwise (float[batch, 3, 6, 6] x) => (float[batch, 5, 6, 6] y)
    <float[6, 3, 3, 3] "stem.weight", float[6] "stem.bias", float[18, 1, 3, 3] "depthwise.weight",
     float[18] "depthwise.bias", float[18] "norm.scale", float[18] "norm.bias", float[18] "norm.mean",
     float[18] "norm.variance", float[5, 18, 1, 1] "last.weight">
    {
        stem = Conv <pads = [1, 1, 1, 1]> (x, "stem.weight", "stem.bias")
        active = Relu(stem)
        deep = Conv <group = 6, pads = [1, 1, 1, 1]> (active, "depthwise.weight", "depthwise.bias")
        normed = BatchNormalization(deep, "norm.scale", "norm.bias", "norm.mean", "norm.variance")
        y = Conv(normed, "last.weight")
    }""")


@case(
    channel(2, "stem.weight:0 stem.bias:0 up.weight:0 up.bias:0 deep.weight:0 deep.bias:0 last.weight:1"),
    channel(4, "stem.weight:0 stem.bias:0 up.weight:0"),
    channel(3, "up.weight:1 up.bias:0 deep.weight:0 deep.bias:0 last.weight:1"),
)
def transposed_grouped() -> onnx.ModelProto:
    """ConvTranspose with 2 groups from 8 to 6 channels, then a depthwise ConvTranspose.

    Its weight is stored input first: up.weight:0 = g * 4, up.weight:1 = 3 and the output is g * 3.
    """
    return seeded("""
    transposed (float[batch, 3, 4, 4] x) => (float[batch, 5, 16, 16] y)
    <float[8, 3, 3, 3] "stem.weight", float[8] "stem.bias", float[8, 3, 2, 2] "up.weight", float[6] "up.bias",
     float[6, 1, 2, 2] "deep.weight", float[6] "deep.bias", float[5, 6, 1, 1] "last.weight">
    {
        stem = Conv <pads = [1, 1, 1, 1]> (x, "stem.weight", "stem.bias")
        active = Relu(stem)
        up = ConvTranspose <group = 2, strides = [2, 2]> (active, "up.weight", "up.bias")
        deep = ConvTranspose <group = 6, strides = [2, 2]> (up, "deep.weight", "deep.bias")
        y = Conv(deep, "last.weight")
    }""")


@case(
    channel(12, "stem.weight:0 stem.bias:0 down.weight:1 up.weight:0 up.bias:0 last.weight:1"),
    channel(4, "down.weight:0 down.bias:0 up.weight:1"),
)
def squeeze_excite() -> onnx.ModelProto:
    """Squeeze and excite with 1x1 convolutions: the gate multiplies the channels it was computed from."""
    return seeded("""
    gated (float[batch, 3, 6, 6] x) => (float[batch, 5, 6, 6] y)
    <float[12, 3, 3, 3] "stem.weight", float[12] "stem.bias", float[4, 12, 1, 1] "down.weight", float[4] "down.bias",
     float[12, 4, 1, 1] "up.weight", float[12] "up.bias", float[5, 12, 1, 1] "last.weight">
    {
        stem = Conv <pads = [1, 1, 1, 1]> (x, "stem.weight", "stem.bias")
        pooled = GlobalAveragePool(stem)
        down = Conv(pooled, "down.weight", "down.bias")
        active = Relu(down)
        up = Conv(active, "up.weight", "up.bias")
        gate = HardSigmoid(up)
        gated = Mul(stem, gate)
        y = Conv(gated, "last.weight")
    }""")


@case(
    channel(12, "stem.weight:0 stem.bias:0 layer_scale:0 down.weight:0 up.weight:1 up.bias:0 last.weight:1"),
    channel(4, "down.weight:1 down.bias:0 up.weight:0"),
)
def squeeze_excite_reshaped() -> onnx.ModelProto:
    """The same with Linear layers: the average over a flattened (12, 36) view, and a reshape back to (12, 1, 1)."""
    return seeded("""
    gated (float[batch, 3, 6, 6] x) => (float[batch, 5, 6, 6] y)
    <float[12, 3, 3, 3] "stem.weight", float[12] "stem.bias", float[12, 4] "down.weight", float[4] "down.bias",
     float[4, 12] "up.weight", float[12] "up.bias", float[12, 1, 1] "layer_scale", float[5, 12, 1, 1] "last.weight",
     int64[3] flat = {-1, 12, 36}, int64[2] vector = {-1, 12}, int64[4] image = {-1, 12, 1, 1}, int64[1] last = {2}>
    {
        stem_plain = Conv <pads = [1, 1, 1, 1]> (x, "stem.weight", "stem.bias")
        stem = Mul(stem_plain, "layer_scale")
        pixels = Reshape(stem, flat)
        mean = ReduceMean <keepdims = 1> (pixels, last)
        pooled = Reshape(mean, vector)
        down = Gemm(pooled, "down.weight", "down.bias")
        active = Relu(down)
        up = Gemm(active, "up.weight", "up.bias")
        gate_flat = Sigmoid(up)
        gate = Reshape(gate_flat, image)
        gated = Mul(gate, stem)
        y = Conv(gated, "last.weight")
    }""")


@case(
    channel(12, "stem.weight:0 stem.bias:0 down.weight:1 up.weight:0 last.weight:1", exact=False),
    channel(4, "down.weight:0 up.weight:1"),
)
def channel_and_spatial_gates() -> onnx.ModelProto:
    """CBAM: one gate over channels (two readers of the same weights), one over places.

    The second gate is computed from the mean and the maximum over channels, so cutting a channel changes a statistic:
    the 12 is inexact. The convolution over (mean, maximum) has an input axis of 1 + 1, in which nothing can be cut.
    """
    return seeded("""
    gated (float[batch, 3, 6, 6] x) => (float[batch, 5, 6, 6] y)
    <float[12, 3, 3, 3] "stem.weight", float[12] "stem.bias", float[4, 12, 1, 1] "down.weight",
     float[12, 4, 1, 1] "up.weight", float[1, 2, 3, 3] "place.weight", float[5, 12, 1, 1] "last.weight",
     int64[1] channels = {1}>
    {
        stem = Conv <pads = [1, 1, 1, 1]> (x, "stem.weight", "stem.bias")
        mean = GlobalAveragePool(stem)
        mean_down = Conv(mean, "down.weight")
        mean_active = Relu(mean_down)
        mean_up = Conv(mean_active, "up.weight")
        peak = GlobalMaxPool(stem)
        peak_down = Conv(peak, "down.weight")
        peak_active = Relu(peak_down)
        peak_up = Conv(peak_active, "up.weight")
        gate_sum = Add(mean_up, peak_up)
        gate = Sigmoid(gate_sum)
        gated = Mul(stem, gate)
        place_mean = ReduceMean <keepdims = 1> (gated, channels)
        place_peak = ReduceMax <keepdims = 1> (gated, channels)
        places = Concat <axis = 1> (place_mean, place_peak)
        place_sum = Conv <pads = [1, 1, 1, 1]> (places, "place.weight")
        place_gate = Sigmoid(place_sum)
        placed = Mul(gated, place_gate)
        y = Conv(placed, "last.weight")
    }""")


@case(
    channel(5, "stem.weight:0 stem.bias:0 last.weight:1"),
)
def pixel_shuffle_channel_first() -> onnx.ModelProto:
    """DepthToSpace in CRD order: stem.weight:0 = channel(5) * 2 * 2, the block offsets being pinned."""
    return seeded("""
    pixels (float[batch, 3, 4, 4] x) => (float[batch, 2, 8, 8] y)
    <float[20, 3, 3, 3] "stem.weight", float[20] "stem.bias", float[2, 5, 3, 3] "last.weight">
    {
        stem = Conv <pads = [1, 1, 1, 1]> (x, "stem.weight", "stem.bias")
        pixels = DepthToSpace <blocksize = 2, mode = "CRD"> (stem)
        y = Conv <pads = [1, 1, 1, 1]> (pixels, "last.weight")
    }""")


@case(
    channel(5, "stem.weight:0 stem.bias:0 last.weight:1"),
)
def pixel_shuffle_depth_first() -> onnx.ModelProto:
    """DepthToSpace in DCR order: stem.weight:0 = 2 * 2 * channel(5), so survivors are spread over four blocks."""
    return seeded("""
    pixels (float[batch, 3, 4, 4] x) => (float[batch, 2, 8, 8] y)
    <float[20, 3, 3, 3] "stem.weight", float[20] "stem.bias", float[2, 5, 3, 3] "last.weight">
    {
        stem = Conv <pads = [1, 1, 1, 1]> (x, "stem.weight", "stem.bias")
        pixels = DepthToSpace <blocksize = 2, mode = "DCR"> (stem)
        y = Conv <pads = [1, 1, 1, 1]> (pixels, "last.weight")
    }""")


@case(
    channel(5, "stem.weight:0 stem.bias:0 last.weight:1"),
)
def pixel_shuffle_reshaped() -> onnx.ModelProto:
    """The CRD order spelled out as reshape-transpose-reshape; the 2s end in the height and width, which are pinned."""
    return seeded("""
    pixels (float[batch, 3, 4, 4] x) => (float[batch, 2, 8, 8] y)
    <float[20, 3, 3, 3] "stem.weight", float[20] "stem.bias", float[2, 5, 3, 3] "last.weight",
     int64[6] apart = {-1, 5, 2, 2, 4, 4}, int64[4] together = {-1, 5, 8, 8}>
    {
        stem = Conv <pads = [1, 1, 1, 1]> (x, "stem.weight", "stem.bias")
        blocks = Reshape(stem, apart)
        swapped = Transpose <perm = [0, 1, 4, 2, 5, 3]> (blocks)
        pixels = Reshape(swapped, together)
        y = Conv <pads = [1, 1, 1, 1]> (pixels, "last.weight")
    }""")


@case(
    channel(6, "stem.weight:0 stem.bias:0 middle.weight:1"),
    channel(4, "middle.weight:0 middle.bias:0 last.weight:1"),
)
def space_to_depth_and_back() -> onnx.ModelProto:
    """SpaceToDepth puts the block offset outermost: middle.weight:1 = 2 * 2 * channel(6); then DCR brings it back."""
    return seeded("""
    pixels (float[batch, 3, 8, 8] x) => (float[batch, 2, 8, 8] y)
    <float[6, 3, 3, 3] "stem.weight", float[6] "stem.bias", float[16, 24, 1, 1] "middle.weight",
     float[16] "middle.bias", float[2, 4, 3, 3] "last.weight">
    {
        stem = Conv <pads = [1, 1, 1, 1]> (x, "stem.weight", "stem.bias")
        blocks = SpaceToDepth <blocksize = 2> (stem)
        middle = Conv(blocks, "middle.weight", "middle.bias")
        active = Relu(middle)
        pixels = DepthToSpace <blocksize = 2> (active)
        y = Conv <pads = [1, 1, 1, 1]> (pixels, "last.weight")
    }""")
