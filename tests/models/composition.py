"""Hard case 5: chains of concatenation, split and slice, in which one dimension is part of many axes."""

from __future__ import annotations

import onnx

from .case import case, channel, seeded


@case(
    channel(6, "enter.weight:0 enter.bias:0 leave.weight:1"),
    channel(
        10,
        "enter.weight:0 enter.bias:0 first_in.weight:1 first_out.weight:0 first_out.bias:0 second_in.weight:1 "
        "second_out.weight:0 leave.weight:1",
    ),
    channel(4, "first_in.weight:0 first_out.weight:1"),
    channel(5, "second_in.weight:0 second_out.weight:1"),
    channel(7, "leave.weight:0 leave.bias:0 last.weight:1"),
)
def c2f_block() -> onnx.ModelProto:
    """YOLOv8 C2f: split 16 into 6 + 10, pass the 10 through two residual bottlenecks, concatenate every stage.

    enter.weight:0 = a(6) + b(10). The residual sums keep every bottleneck output in b, so leave.weight:1 is
    a + b + b + b, and one cut of b removes three input channels there.
    """
    return seeded("""
    c2f (float[batch, 3, 6, 6] x) => (float[batch, 2, 6, 6] y)
    <float[16, 3, 1, 1] "enter.weight", float[16] "enter.bias", float[4, 10, 3, 3] "first_in.weight",
     float[10, 4, 3, 3] "first_out.weight", float[10] "first_out.bias", float[5, 10, 3, 3] "second_in.weight",
     float[10, 5, 3, 3] "second_out.weight", float[7, 36, 1, 1] "leave.weight", float[7] "leave.bias",
     float[2, 7, 1, 1] "last.weight", int64[2] parts = {6, 10}>
    {
        entered = Conv(x, "enter.weight", "enter.bias")
        passed, stage_0 = Split <axis = 1> (entered, parts)
        narrow_1 = Conv <pads = [1, 1, 1, 1]> (stage_0, "first_in.weight")
        active_1 = Relu(narrow_1)
        wide_1 = Conv <pads = [1, 1, 1, 1]> (active_1, "first_out.weight", "first_out.bias")
        stage_1 = Add(stage_0, wide_1)
        narrow_2 = Conv <pads = [1, 1, 1, 1]> (stage_1, "second_in.weight")
        active_2 = Relu(narrow_2)
        wide_2 = Conv <pads = [1, 1, 1, 1]> (active_2, "second_out.weight")
        stage_2 = Add(stage_1, wide_2)
        stages = Concat <axis = 1> (passed, stage_0, stage_1, stage_2)
        left = Conv(stages, "leave.weight", "leave.bias")
        active = Relu(left)
        y = Conv(active, "last.weight")
    }""")


@case(
    channel(8, "enter.weight:0 enter.bias:0 leave.weight:1"),
    channel(8, "enter.weight:0 enter.bias:0 inner.weight:1"),
    channel(8, "inner.weight:0 inner.bias:0 leave.weight:1"),
    channel(7, "leave.weight:0 leave.bias:0 last.weight:1"),
)
def chunk_without_residual() -> onnx.ModelProto:
    """The same block without residuals, and Split by count: the halves and the inner output stay independent."""
    return seeded("""
    c2f (float[batch, 3, 6, 6] x) => (float[batch, 2, 6, 6] y)
    <float[16, 3, 1, 1] "enter.weight", float[16] "enter.bias", float[8, 8, 3, 3] "inner.weight",
     float[8] "inner.bias", float[7, 16, 1, 1] "leave.weight", float[7] "leave.bias", float[2, 7, 1, 1] "last.weight">
    {
        entered = Conv(x, "enter.weight", "enter.bias")
        passed, taken = Split <axis = 1, num_outputs = 2> (entered)
        inner = Conv <pads = [1, 1, 1, 1]> (taken, "inner.weight", "inner.bias")
        active = Relu(inner)
        stages = Concat <axis = 1> (active, passed)
        left = Conv(stages, "leave.weight", "leave.bias")
        y = Conv(left, "last.weight")
    }""")


@case(
    channel(4, "main.weight:0 main.bias:0 left.weight:1 right.weight:0 fuse.weight:1"),
    channel(5, "left.weight:0 left.bias:0 right.weight:1"),
    channel(3, "side.weight:0 norm.scale:0 norm.bias:0 norm.mean:0 norm.variance:0 fuse.weight:1"),
    channel(6, "fuse.weight:0 fuse.bias:0 last.weight:1"),
)
def cross_stage_partial() -> onnx.ModelProto:
    """CSP: two 1x1 convolutions of the same input, one followed by a residual block, concatenated and fused."""
    return seeded("""
    csp (float[batch, 3, 6, 6] x) => (float[batch, 2, 6, 6] y)
    <float[4, 3, 1, 1] "main.weight", float[4] "main.bias", float[5, 4, 3, 3] "left.weight", float[5] "left.bias",
     float[4, 5, 3, 3] "right.weight", float[3, 3, 1, 1] "side.weight", float[3] "norm.scale", float[3] "norm.bias",
     float[3] "norm.mean", float[3] "norm.variance", float[6, 7, 1, 1] "fuse.weight", float[6] "fuse.bias",
     float[2, 6, 1, 1] "last.weight">
    {
        main = Conv(x, "main.weight", "main.bias")
        left = Conv <pads = [1, 1, 1, 1]> (main, "left.weight", "left.bias")
        active = Sigmoid(left)
        right = Conv <pads = [1, 1, 1, 1]> (active, "right.weight")
        residual = Add(right, main)
        side = Conv(x, "side.weight")
        normed = BatchNormalization(side, "norm.scale", "norm.bias", "norm.mean", "norm.variance")
        joined = Concat <axis = 1> (residual, normed)
        fused = Conv(joined, "fuse.weight", "fuse.bias")
        fused_active = Relu(fused)
        y = Conv(fused_active, "last.weight")
    }""")


@case(
    channel(
        6,
        "stem.weight:0 stem.bias:0 norm_1.scale:0 norm_1.bias:0 norm_1.mean:0 norm_1.variance:0 grow_1.weight:1 "
        "norm_2.scale:0 norm_2.bias:0 norm_2.mean:0 norm_2.variance:0 grow_2.weight:1 last.weight:1",
    ),
    channel(
        4, "grow_1.weight:0 norm_2.scale:0 norm_2.bias:0 norm_2.mean:0 norm_2.variance:0 grow_2.weight:1 last.weight:1"
    ),
    channel(5, "grow_2.weight:0 last.weight:1"),
)
def dense_block() -> onnx.ModelProto:
    """DenseNet: every layer reads the concatenation of all before it, a concat of concats.

    norm_2 runs over stem(6) + grow_1(4) and last.weight:1 over (stem + grow_1) + grow_2(5).
    """
    return seeded("""
    dense (float[batch, 3, 6, 6] x) => (float[batch, 2, 6, 6] y)
    <float[6, 3, 1, 1] "stem.weight", float[6] "stem.bias", float[6] "norm_1.scale", float[6] "norm_1.bias",
     float[6] "norm_1.mean", float[6] "norm_1.variance", float[4, 6, 3, 3] "grow_1.weight", float[10] "norm_2.scale",
     float[10] "norm_2.bias", float[10] "norm_2.mean", float[10] "norm_2.variance", float[5, 10, 3, 3] "grow_2.weight",
     float[2, 15, 1, 1] "last.weight">
    {
        stem = Conv(x, "stem.weight", "stem.bias")
        normed_1 = BatchNormalization(stem, "norm_1.scale", "norm_1.bias", "norm_1.mean", "norm_1.variance")
        active_1 = Relu(normed_1)
        grown_1 = Conv <pads = [1, 1, 1, 1]> (active_1, "grow_1.weight")
        joined_1 = Concat <axis = 1> (stem, grown_1)
        normed_2 = BatchNormalization(joined_1, "norm_2.scale", "norm_2.bias", "norm_2.mean", "norm_2.variance")
        active_2 = Relu(normed_2)
        grown_2 = Conv <pads = [1, 1, 1, 1]> (active_2, "grow_2.weight")
        joined_2 = Concat <axis = 1> (joined_1, grown_2)
        y = Conv(joined_2, "last.weight")
    }""")


@case(
    channel(4, "left.weight:0 left.bias:0 sum.weight:0 sum.bias:0 last.weight:1"),
    channel(6, "right.weight:0 sum.weight:0 sum.bias:0 last.weight:1"),
    channel(3, "left.weight:0 left.bias:0 sum.weight:0 sum.bias:0 last.weight:1"),
    channel(5, "right.weight:0 sum.weight:0 sum.bias:0 last.weight:1"),
)
def concat_added_to_plain() -> onnx.ModelProto:
    """A concat of left(7) and right(11) is added to one plain convolution of 18, then read backwards through slices.

    The addition makes the plain axis left + right as well. The slices cut at 4 and 13, which splits left into 4 + 3
    and right into 6 + 5; the pieces are then concatenated in reverse order.
    """
    return seeded("""
    mixed (float[batch, 3, 6, 6] x) => (float[batch, 2, 6, 6] y)
    <float[7, 3, 1, 1] "left.weight", float[7] "left.bias", float[11, 3, 1, 1] "right.weight",
     float[18, 3, 1, 1] "sum.weight", float[18] "sum.bias", float[2, 18, 1, 1] "last.weight",
     int64[1] at_0 = {0}, int64[1] at_4 = {4}, int64[1] at_13 = {-5}, int64[1] end = {9223372036854775807},
     int64[1] channels = {1}>
    {
        left = Conv(x, "left.weight", "left.bias")
        right = Conv(x, "right.weight")
        joined = Concat <axis = 1> (left, right)
        plain = Conv(x, "sum.weight", "sum.bias")
        added = Add(joined, plain)
        front = Slice(added, at_0, at_4, channels)
        middle = Slice(added, at_4, at_13, channels)
        back = Slice(added, at_13, end, channels)
        reversed = Concat <axis = 1> (back, middle, front)
        y = Conv(reversed, "last.weight")
    }""")


@case(
    channel(6, "first.weight:0 first.bias:0 third.weight:0 third.bias:0 fourth.weight:1"),
    channel(8, "stem.weight:0 stem.bias:0 first.weight:1"),
    channel(2, "third.weight:0 third.bias:0 fourth.weight:1"),
    channel(7, "third.weight:0 third.bias:0 fourth.weight:1"),
)
def padded_shortcut() -> onnx.ModelProto:
    """CIFAR ResNet option A: the shortcut gains channels by zero padding (2 + 6 + 7) before it is added.

    third.weight:0 = 2 + first(6) + 7: the padded entries are constants that the addition ties to real channels, so they
    are cut together with them and the pad amounts shrink. The two paddings are dimensions of their own.
    """
    return seeded("""
    shortcut (float[batch, 3, 6, 6] x) => (float[batch, 5, 6, 6] y)
    <float[8, 3, 3, 3] "stem.weight", float[8] "stem.bias", float[6, 8, 1, 1] "first.weight", float[6] "first.bias",
     float[15, 3, 3, 3] "third.weight", float[15] "third.bias", float[5, 15, 1, 1] "fourth.weight",
     int64[8] amounts = {0, 2, 0, 0, 0, 7, 0, 0}>
    {
        stem = Conv <pads = [1, 1, 1, 1]> (x, "stem.weight", "stem.bias")
        first = Conv(stem, "first.weight", "first.bias")
        padded = Pad(first, amounts)
        third = Conv <pads = [1, 1, 1, 1]> (x, "third.weight", "third.bias")
        added = Add(padded, third)
        active = Relu(added)
        y = Conv(active, "fourth.weight")
    }""")
