"""Hard case 8: a Swin stage with shifted windows, relative positions and patch merging."""

from __future__ import annotations

import numpy as np
import onnx

from .case import case, channel, head, head_width, seeded

WINDOW = 4

# x --> tokens + attention in shifted windows: `tokens` and `unrolled` [batch, 8, 8, 10]
SHIFTED_ATTENTION = """
        patches = Conv <strides = [2, 2]> (x, "patch.weight", "patch.bias")
        tokens = Transpose <perm = [0, 2, 3, 1]> (patches)
        normed_1 = LayerNormalization <axis = -1> (tokens, "norm_1.scale", "norm_1.bias")
        lower = Slice(normed_1, at_2, end, rows)
        upper = Slice(normed_1, at_0, at_2, rows)
        rolled_rows = Concat <axis = 1> (lower, upper)
        right = Slice(rolled_rows, at_2, end, columns)
        left = Slice(rolled_rows, at_0, at_2, columns)
        rolled = Concat <axis = 2> (right, left)
        tiles = Reshape(rolled, apart)
        tiles_first = Transpose <perm = [0, 1, 3, 2, 4, 5]> (tiles)
        windows = Reshape(tiles_first, as_windows)
        qkv_product = MatMul(windows, "qkv.weight")
        qkv_flat = Add(qkv_product, "qkv.bias")
        qkv_split = Reshape(qkv_flat, by_head)
        qkv = Transpose <perm = [2, 0, 3, 1, 4]> (qkv_split)
        q_plain = Gather <axis = 0> (qkv, first)
        k_plain = Gather <axis = 0> (qkv, second)
        v = Gather <axis = 0> (qkv, third)
        q = Mul(q_plain, scale)
        k = Transpose <perm = [0, 1, 3, 2]> (k_plain)
        products = MatMul(q, k)
        bias_rows = Gather <axis = 0> ("table", relative)
        bias_pairs = Reshape(bias_rows, pairs)
        bias_heads = Transpose <perm = [2, 0, 1]> (bias_pairs)
        bias = Unsqueeze(bias_heads, at_0)
        biased = Add(products, bias)
        biased_windows = Reshape(biased, masked_view)
        mask_heads = Unsqueeze(mask, at_1)
        mask_batch = Unsqueeze(mask_heads, at_0)
        masked_windows = Add(biased_windows, mask_batch)
        scores = Reshape(masked_windows, plain_view)
        shares = Softmax <axis = -1> (scores)
        mixed = MatMul(shares, v)
        joined = Transpose <perm = [0, 2, 1, 3]> (mixed)
        context = Reshape(joined, flat)
        proj_product = MatMul(context, "proj.weight")
        proj = Add(proj_product, "proj.bias")
        proj_tiles = Reshape(proj, back)
        proj_rows = Transpose <perm = [0, 1, 3, 2, 4, 5]> (proj_tiles)
        proj_image = Reshape(proj_rows, image)
        back_upper = Slice(proj_image, at_6, end, rows)
        back_lower = Slice(proj_image, at_0, at_6, rows)
        back_rows = Concat <axis = 1> (back_upper, back_lower)
        back_left = Slice(back_rows, at_6, end, columns)
        back_right = Slice(back_rows, at_0, at_6, columns)
        unrolled = Concat <axis = 2> (back_left, back_right)"""

# `tokens` and `unrolled` --> y: the residual MLP, the four corners of every 2x2 merged, and a classifier
MLP_AND_MERGING = """
        attended = Add(tokens, unrolled)
        normed_2 = LayerNormalization <axis = -1> (attended, "norm_2.scale", "norm_2.bias")
        up_product = MatMul(normed_2, "up.weight")
        up_sum = Add(up_product, "up.bias")
        up = Relu(up_sum)
        down_product = MatMul(up, "down.weight")
        down = Add(down_product, "down.bias")
        stage = Add(attended, down)
        corner_0 = Slice(stage, even_even, ends, places, steps)
        corner_1 = Slice(stage, odd_even, ends, places, steps)
        corner_2 = Slice(stage, even_odd, ends, places, steps)
        corner_3 = Slice(stage, odd_odd, ends, places, steps)
        corners = Concat <axis = -1> (corner_0, corner_1, corner_2, corner_3)
        merged = LayerNormalization <axis = -1> (corners, "norm_3.scale", "norm_3.bias")
        reduced = MatMul(merged, "reduction.weight")
        pooled = ReduceMean <keepdims = 0> (reduced, places)
        y = MatMul(pooled, "classifier.weight")"""


def _relative_index() -> np.ndarray:
    """For every pair of places in a window, the row of the bias table: int64 [WINDOW ** 4]."""
    places = np.stack(np.meshgrid(np.arange(WINDOW), np.arange(WINDOW), indexing="ij")).reshape(2, -1)
    offsets = places[:, :, None] - places[:, None, :] + WINDOW - 1
    return (offsets[0] * (2 * WINDOW - 1) + offsets[1]).reshape(-1)


def _shift_mask() -> np.ndarray:
    """Minus 100 between places that the roll brought together: float32 [windows, places, places]."""
    part = np.array([0, 0, 0, 0, 1, 1, 2, 2])
    parts = part[:, None] * 3 + part[None, :]
    windows = parts.reshape(2, WINDOW, 2, WINDOW).transpose(0, 2, 1, 3).reshape(4, -1)
    return np.where(windows[:, :, None] == windows[:, None, :], 0.0, -100.0).astype(np.float32)


@case(
    channel(
        10,
        "patch.weight:0 patch.bias:0 norm_1.scale:0 norm_1.bias:0 qkv.weight:0 proj.weight:1 proj.bias:0 "
        "norm_2.scale:0 norm_2.bias:0 up.weight:0 down.weight:1 down.bias:0 norm_3.scale:0 norm_3.bias:0 "
        "reduction.weight:0",
        exact=False,
    ),
    head(3, "qkv.weight:1 qkv.bias:0 table:1 proj.weight:0"),
    head_width(4, "qkv.weight:1 qkv.bias:0 proj.weight:0"),
    channel(20, "up.weight:1 up.bias:0 down.weight:0"),
    channel(14, "reduction.weight:1 classifier.weight:0"),
)
def shifted_windows() -> onnx.ModelProto:
    """Patches, a roll by Slice and Concat, 4x4 windows, attention with a bias table, the way back, an MLP, merging.

    Places are pinned by the image. The residual stream of 10 ends in four parts of the merged 40 (norm_3, reduction)
    and is inexact through the norms. qkv.weight:1 = three(pinned) * heads(3) * width(4); the rows of the bias table are
    picked by a constant index and pinned, its columns are the heads. The heads also stand inside the reshape targets
    that add and remove the mask's window axis.
    """
    return seeded(
        """
    swin (float[batch, 3, 16, 16] x) => (float[batch, 5] y)
    <float[10, 3, 2, 2] "patch.weight", float[10] "patch.bias", float[10] "norm_1.scale", float[10] "norm_1.bias",
     float[10, 36] "qkv.weight", float[36] "qkv.bias", float[49, 3] "table", float[12, 10] "proj.weight",
     float[10] "proj.bias", float[10] "norm_2.scale", float[10] "norm_2.bias", float[10, 20] "up.weight",
     float[20] "up.bias", float[20, 10] "down.weight", float[10] "down.bias", float[40] "norm_3.scale",
     float[40] "norm_3.bias", float[40, 14] "reduction.weight", float[14, 5] "classifier.weight",
     int64[256] relative, float[4, 16, 16] mask, float scale = {0.5},
     int64[1] at_0 = {0}, int64[1] at_1 = {1}, int64[1] at_2 = {2}, int64[1] at_6 = {6}, int64[1] end = {8},
     int64[1] rows = {1}, int64[1] columns = {2}, int64[2] even_even = {0, 0}, int64[2] odd_even = {1, 0},
     int64[2] even_odd = {0, 1}, int64[2] odd_odd = {1, 1}, int64[2] ends = {8, 8}, int64[2] places = {1, 2},
     int64[2] steps = {2, 2}, int64[6] apart = {-1, 2, 4, 2, 4, 10}, int64[3] as_windows = {-1, 16, 10},
     int64[5] by_head = {-1, 16, 3, 3, 4}, int64[3] pairs = {16, 16, 3}, int64[5] masked_view = {-1, 4, 3, 16, 16},
     int64[4] plain_view = {-1, 3, 16, 16}, int64[3] flat = {-1, 16, 12}, int64[6] back = {-1, 2, 2, 4, 4, 10},
     int64[4] image = {-1, 8, 8, 10}, int64 first = {0}, int64 second = {1}, int64 third = {2}>
    {"""
        + SHIFTED_ATTENTION
        + MLP_AND_MERGING
        + "}",
        relative=_relative_index(),
        mask=_shift_mask(),
    )
