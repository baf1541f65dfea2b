"""Hard cases 1, 2, 3 and 9: attention in the forms that exporters write it."""

from __future__ import annotations

import onnx

from .case import case, channel, head, head_width, seeded


@case(
    channel(
        16,
        "stem.weight:1 stem.bias:0 q.weight:0 k.weight:0 v.weight:0 out.weight:1 out.bias:0 classifier.weight:0",
    ),
    head(4, "q.weight:1 q.bias:0 k.weight:1 k.bias:0 v.weight:1 v.bias:0 out.weight:0"),
    head_width(6, "q.weight:1 q.bias:0 k.weight:1 k.bias:0"),
    head_width(6, "v.weight:1 v.bias:0 out.weight:0"),
)
def heads_through_reshape() -> onnx.ModelProto:
    """Three Linear of 24 that a reshape views as 4 heads of 6.

    The 24 becomes heads(4) * width(6) in every weight. All projections share the heads; queries and keys share a
    width, since their product sums over it; values have a width of their own, which ends in the output projection.
    """
    return seeded("""
    attention (float[batch, 9, 7] x) => (float[batch, 5] y)
    <float[7, 16] "stem.weight", float[16] "stem.bias",
     float[16, 24] "q.weight", float[24] "q.bias", float[16, 24] "k.weight", float[24] "k.bias",
     float[16, 24] "v.weight", float[24] "v.bias", float[24, 16] "out.weight", float[16] "out.bias",
     float[16, 5] "classifier.weight",
     int64[4] by_head = {0, 0, 4, 6}, int64[3] flat = {0, 0, 24}, float scale = {0.408}, int64[1] tokens = {1}>
    {
        stem = MatMul(x, "stem.weight")
        hidden = Add(stem, "stem.bias")
        q_product = MatMul(hidden, "q.weight")
        q_flat = Add(q_product, "q.bias")
        q_split = Reshape(q_flat, by_head)
        q = Transpose <perm = [0, 2, 1, 3]> (q_split)
        k_product = MatMul(hidden, "k.weight")
        k_flat = Add(k_product, "k.bias")
        k_split = Reshape(k_flat, by_head)
        k = Transpose <perm = [0, 2, 3, 1]> (k_split)
        v_product = MatMul(hidden, "v.weight")
        v_flat = Add(v_product, "v.bias")
        v_split = Reshape(v_flat, by_head)
        v = Transpose <perm = [0, 2, 1, 3]> (v_split)
        products = MatMul(q, k)
        scores = Mul(products, scale)
        shares = Softmax <axis = -1> (scores)
        mixed = MatMul(shares, v)
        joined = Transpose <perm = [0, 2, 1, 3]> (mixed)
        context = Reshape(joined, flat)
        out_product = MatMul(context, "out.weight")
        out = Add(out_product, "out.bias")
        residual = Add(hidden, out)
        pooled = ReduceMean <keepdims = 0> (residual, tokens)
        y = MatMul(pooled, "classifier.weight")
    }""")


@case(
    head(4, "qkv.weight:1 qkv.bias:0 out.weight:0"),
    head_width(6, "qkv.weight:1 qkv.bias:0"),
    head_width(6, "qkv.weight:1 qkv.bias:0 out.weight:0"),
)
def fused_qkv_slices() -> onnx.ModelProto:
    """One Linear of 72 cut by three Slices into q, k and v of 24 = 4 * 6 each.

    qkv.weight:1 is heads * qk_width + heads * qk_width + heads * v_width: the offsets differ, the dimensions repeat.
    """
    return seeded("""
    attention (float[batch, 9, 10] x) => (float[batch, 9, 10] y)
    <float[10, 72] "qkv.weight", float[72] "qkv.bias", float[24, 10] "out.weight",
     int64[1] at_0 = {0}, int64[1] at_24 = {24}, int64[1] at_48 = {48}, int64[1] at_72 = {72}, int64[1] last = {2},
     int64[4] by_head = {0, 0, 4, 6}, int64[3] flat = {0, 0, -1}, float scale = {0.408}>
    {
        product = MatMul(x, "qkv.weight")
        qkv = Add(product, "qkv.bias")
        q_flat = Slice(qkv, at_0, at_24, last)
        k_flat = Slice(qkv, at_24, at_48, last)
        v_flat = Slice(qkv, at_48, at_72, last)
        q_split = Reshape(q_flat, by_head)
        k_split = Reshape(k_flat, by_head)
        v_split = Reshape(v_flat, by_head)
        q = Transpose <perm = [0, 2, 1, 3]> (q_split)
        k = Transpose <perm = [0, 2, 3, 1]> (k_split)
        v = Transpose <perm = [0, 2, 1, 3]> (v_split)
        products = MatMul(q, k)
        scores = Mul(products, scale)
        shares = Softmax <axis = -1> (scores)
        mixed = MatMul(shares, v)
        joined = Transpose <perm = [0, 2, 1, 3]> (mixed)
        context = Reshape(joined, flat)
        y = MatMul(context, "out.weight")
    }""")


@case(
    head(4, "qkv.weight:1 qkv.bias:0 out.weight:0"),
    head_width(6, "qkv.weight:1 qkv.bias:0"),
    head_width(6, "qkv.weight:1 qkv.bias:0 out.weight:0"),
)
def fused_qkv_uneven_split() -> onnx.ModelProto:
    """Multi-query attention: one Linear of 36 split into 4 query heads and a single key and value head of 6.

    qkv.weight:1 is heads * qk_width + qk_width + v_width; the single key and value head has no head dimension to cut.
    """
    return seeded("""
    attention (float[batch, 9, 10] x) => (float[batch, 9, 10] y)
    <float[10, 36] "qkv.weight", float[36] "qkv.bias", float[24, 10] "out.weight",
     int64[3] parts = {24, 6, 6}, int64[4] many = {0, 0, 4, 6}, int64[4] single = {0, 0, 1, 6},
     int64[3] flat = {0, 0, 24}, float scale = {0.408}>
    {
        product = MatMul(x, "qkv.weight")
        qkv = Add(product, "qkv.bias")
        q_flat, k_flat, v_flat = Split <axis = 2> (qkv, parts)
        q_split = Reshape(q_flat, many)
        k_split = Reshape(k_flat, single)
        v_split = Reshape(v_flat, single)
        q = Transpose <perm = [0, 2, 1, 3]> (q_split)
        k = Transpose <perm = [0, 2, 3, 1]> (k_split)
        v = Transpose <perm = [0, 2, 1, 3]> (v_split)
        products = MatMul(q, k)
        scores = Mul(products, scale)
        shares = Softmax <axis = -1> (scores)
        mixed = MatMul(shares, v)
        joined = Transpose <perm = [0, 2, 1, 3]> (mixed)
        context = Reshape(joined, flat)
        y = MatMul(context, "out.weight")
    }""")


@case(
    head(4, "qkv.weight:1 qkv.bias:0 out.weight:0"),
    head_width(6, "qkv.weight:1 qkv.bias:0"),
    head_width(6, "qkv.weight:1 qkv.bias:0 out.weight:0"),
)
def fused_qkv_interleaved_by_head() -> onnx.ModelProto:
    """GPT-NeoX order: the 72 is viewed as 4 heads of 18 first, and each head is split into q, k and v of 6.

    qkv.weight:1 is heads * (qk_width + qk_width + v_width).
    """
    return seeded("""
    attention (float[batch, 9, 10] x) => (float[batch, 9, 10] y)
    <float[10, 72] "qkv.weight", float[72] "qkv.bias", float[24, 10] "out.weight",
     int64[4] by_head = {0, 0, 4, 18}, int64[3] parts = {6, 6, 6}, int64[3] flat = {0, 0, 24}, float scale = {0.408}>
    {
        product = MatMul(x, "qkv.weight")
        qkv_flat = Add(product, "qkv.bias")
        qkv_split = Reshape(qkv_flat, by_head)
        qkv = Transpose <perm = [0, 2, 1, 3]> (qkv_split)
        q, k_plain, v = Split <axis = -1> (qkv, parts)
        k = Transpose <perm = [0, 1, 3, 2]> (k_plain)
        products = MatMul(q, k)
        scores = Mul(products, scale)
        shares = Softmax <axis = -1> (scores)
        mixed = MatMul(shares, v)
        joined = Transpose <perm = [0, 2, 1, 3]> (mixed)
        context = Reshape(joined, flat)
        y = MatMul(context, "out.weight")
    }""")


@case(
    head(4, "qkv.weight:0 qkv.bias:0 out.weight:1"),
    head_width(6, "qkv.weight:0 qkv.bias:0 out.weight:1"),
)
def fused_qkv_gathered() -> onnx.ModelProto:
    """timm order: 72 viewed as (3, 4, 6), the three brought to the front and picked by scalar Gathers; Gemm weights.

    qkv.weight:0 is three(pinned) * heads * width: one axis of the view serves q, k and v, so values share the width.
    """
    return seeded("""
    attention (float[9, 10] x) => (float[9, 10] y)
    <float[72, 10] "qkv.weight", float[72] "qkv.bias", float[10, 24] "out.weight", float[10] "out.bias",
     int64[5] apart = {1, 9, 3, 4, 6}, int64 first = {0}, int64 second = {1}, int64 third = {2},
     int64[2] flat = {9, 24}, float scale = {0.408}>
    {
        qkv_flat = Gemm <transB = 1> (x, "qkv.weight", "qkv.bias")
        qkv_split = Reshape(qkv_flat, apart)
        qkv = Transpose <perm = [2, 0, 3, 1, 4]> (qkv_split)
        q_plain = Gather <axis = 0> (qkv, first)
        k_plain = Gather <axis = 0> (qkv, second)
        v = Gather <axis = 0> (qkv, third)
        q = Mul(q_plain, scale)
        k = Transpose <perm = [0, 1, 3, 2]> (k_plain)
        scores = MatMul(q, k)
        shares = Softmax <axis = -1> (scores)
        mixed = MatMul(shares, v)
        joined = Transpose <perm = [0, 2, 1, 3]> (mixed)
        context = Reshape(joined, flat)
        y = Gemm <transB = 1> (context, "out.weight", "out.bias")
    }""")


@case(
    head(2, "q.weight:1 k.weight:1 v.weight:1 out.weight:0"),
    head(3, "q.weight:1 out.weight:0"),
    head_width(5, "q.weight:1 k.weight:1"),
    head_width(5, "v.weight:1 out.weight:0"),
)
def grouped_query_expand() -> onnx.ModelProto:
    """repeat_kv as exported: 2 key/value heads, unsqueezed, expanded to 3 copies and folded into 6 heads.

    q.weight:1 is kv_heads(2) * queries_per_kv(3) * width(5); keys and values lack the middle factor, which the Expand
    makes up. Cutting a kv head takes its 3 query heads along; cutting queries_per_kv takes one from every kv head.
    """
    return seeded("""
    attention (float[batch, 9, 10] x) => (float[batch, 9, 10] y)
    <float[10, 30] "q.weight", float[10, 10] "k.weight", float[10, 10] "v.weight", float[30, 10] "out.weight",
     int64[4] query_heads = {0, 0, 6, 5}, int64[4] key_heads = {0, 0, 2, 5}, int64[1] middle = {2},
     int64[5] copies = {1, 2, 3, 9, 5}, int64[4] folded = {-1, 6, 9, 5}, int64[3] flat = {0, 0, 30},
     float scale = {0.447}>
    {
        q_flat = MatMul(x, "q.weight")
        k_flat = MatMul(x, "k.weight")
        v_flat = MatMul(x, "v.weight")
        q_split = Reshape(q_flat, query_heads)
        k_split = Reshape(k_flat, key_heads)
        v_split = Reshape(v_flat, key_heads)
        q = Transpose <perm = [0, 2, 1, 3]> (q_split)
        k_heads = Transpose <perm = [0, 2, 1, 3]> (k_split)
        v_heads = Transpose <perm = [0, 2, 1, 3]> (v_split)
        k_single = Unsqueeze(k_heads, middle)
        k_copies = Expand(k_single, copies)
        k_folded = Reshape(k_copies, folded)
        v_single = Unsqueeze(v_heads, middle)
        v_copies = Expand(v_single, copies)
        v = Reshape(v_copies, folded)
        k = Transpose <perm = [0, 1, 3, 2]> (k_folded)
        products = MatMul(q, k)
        scores = Mul(products, scale)
        shares = Softmax <axis = -1> (scores)
        mixed = MatMul(shares, v)
        joined = Transpose <perm = [0, 2, 1, 3]> (mixed)
        context = Reshape(joined, flat)
        y = MatMul(context, "out.weight")
    }""")


@case(
    head(2, "q.weight:1 k.weight:1 v.weight:1 out.weight:0"),
    head(3, "q.weight:1 out.weight:0"),
    head_width(5, "q.weight:1 k.weight:1"),
    head_width(5, "v.weight:1 out.weight:0"),
)
def grouped_query_broadcast() -> onnx.ModelProto:
    """The same attention without copies: queries viewed as (2, 3) heads, keys as (2, 1), and MatMul broadcasts."""
    return seeded("""
    attention (float[batch, 9, 10] x) => (float[batch, 9, 10] y)
    <float[10, 30] "q.weight", float[10, 10] "k.weight", float[10, 10] "v.weight", float[30, 10] "out.weight",
     int64[5] query_heads = {0, 0, 2, 3, 5}, int64[5] key_heads = {0, 0, 2, 1, 5}, int64[3] flat = {0, 0, 30},
     float scale = {0.447}>
    {
        q_flat = MatMul(x, "q.weight")
        k_flat = MatMul(x, "k.weight")
        v_flat = MatMul(x, "v.weight")
        q_split = Reshape(q_flat, query_heads)
        k_split = Reshape(k_flat, key_heads)
        v_split = Reshape(v_flat, key_heads)
        q = Transpose <perm = [0, 2, 3, 1, 4]> (q_split)
        k = Transpose <perm = [0, 2, 3, 4, 1]> (k_split)
        v = Transpose <perm = [0, 2, 3, 1, 4]> (v_split)
        products = MatMul(q, k)
        scores = Mul(products, scale)
        shares = Softmax <axis = -1> (scores)
        mixed = MatMul(shares, v)
        joined = Transpose <perm = [0, 3, 1, 2, 4]> (mixed)
        context = Reshape(joined, flat)
        y = MatMul(context, "out.weight")
    }""")


@case(
    head(2, "q.weight:1 k.weight:1 v.weight:1 out.weight:0"),
    head(3, "q.weight:1 out.weight:0"),
    head_width(5, "q.weight:1 k.weight:1"),
    head_width(4, "v.weight:1 out.weight:0"),
)
def grouped_query_operator() -> onnx.ModelProto:
    """The Attention operator on 3-D inputs, with 6 query and 2 key/value heads given as attributes.

    q.weight:1 is kv_heads(2) * queries_per_kv(3) * qk_width(5); v.weight:1 is kv_heads * v_width(4). The default scale
    is 1 / sqrt(qk_width), so the attribute must be written out when the width shrinks.
    """
    return seeded(
        """
    attention (float[batch, 9, 10] x) => (float[batch, 9, 10] y)
    <float[10, 30] "q.weight", float[10, 10] "k.weight", float[10, 8] "v.weight", float[24, 10] "out.weight">
    {
        q = MatMul(x, "q.weight")
        k = MatMul(x, "k.weight")
        v = MatMul(x, "v.weight")
        context = Attention <q_num_heads = 6, kv_num_heads = 2> (q, k, v)
        y = MatMul(context, "out.weight")
    }""",
        opset=23,
    )


@case(
    head(4, "q.weight:1 k.weight:1 v.weight:1 out.weight:0"),
    head_width(6, "q.weight:2 k.weight:2"),
    head_width(5, "v.weight:2 out.weight:1"),
    channel(12, "up.weight:1 up.bias:0 down.weight:0"),
)
def einsum_attention_and_mlp() -> onnx.ModelProto:
    """Every product is an Einsum over named axes, with weights of rank 3: letters that meet are one dimension.

    The MLP leaves the result of its first product implicit (abm) and names the rest of the axes by an ellipsis.
    """
    return seeded("""
    attention (float[batch, 9, 10] x) => (float[batch, 9, 10] y)
    <float[10, 4, 6] "q.weight", float[10, 4, 6] "k.weight", float[10, 4, 5] "v.weight", float[4, 5, 10] "out.weight",
     float[10, 12] "up.weight", float[12] "up.bias", float[12, 10] "down.weight", float scale = {0.408}>
    {
        q = Einsum <equation = "bsc,chd->bshd"> (x, "q.weight")
        k = Einsum <equation = "bsc,chd->bshd"> (x, "k.weight")
        v = Einsum <equation = "b s c, c h e -> b h s e"> (x, "v.weight")
        products = Einsum <equation = "bshd,bthd->bhst"> (q, k)
        scores = Mul(products, scale)
        shares = Softmax <axis = -1> (scores)
        mixed = Einsum <equation = "bhst,bhte->bshe"> (shares, v)
        out = Einsum <equation = "bshe,hec->bsc"> (mixed, "out.weight")
        hidden = Add(x, out)
        up_product = Einsum <equation = "abc,cm"> (hidden, "up.weight")
        up_sum = Add(up_product, "up.bias")
        up = Relu(up_sum)
        y = Einsum <equation = "...m,mc->...c"> (up, "down.weight")
    }""")
