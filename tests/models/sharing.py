"""Hard case 11: one stored tensor with several readers, tokens and tables."""

from __future__ import annotations

import numpy as np
import onnx

from .case import case, channel, head, head_width, seeded


@case(
    channel(
        16,
        "embedding:1 position:1 norm.scale:0 norm.bias:0 up.weight:0 down.weight:1 down.bias:0",
        exact=False,
    ),
    channel(20, "up.weight:1 up.bias:0 down.weight:0"),
)
def tied_embedding() -> onnx.ModelProto:
    """Token embedding whose transpose is the output projection: one tensor, both ends of the residual stream.

    The vocabulary is pinned twice (ids come from the caller, logits go to him); the rows of the position table are
    picked by stored position ids. The stream is inexact through the norm.
    """
    return seeded("""
    language (int64[batch, 6] tokens) => (float[batch, 6, 30] logits)
    <float[30, 16] "embedding", float[12, 16] "position", float[16] "norm.scale", float[16] "norm.bias",
     float[16, 20] "up.weight", float[20] "up.bias", float[20, 16] "down.weight", float[16] "down.bias",
     int64[1, 6] position_ids = {2, 3, 4, 5, 6, 7}>
    {
        words = Gather("embedding", tokens)
        places = Gather("position", position_ids)
        stream = Add(words, places)
        normed = LayerNormalization <axis = 2> (stream, "norm.scale", "norm.bias")
        up_product = MatMul(normed, "up.weight")
        up_sum = Add(up_product, "up.bias")
        up = Relu(up_sum)
        down_product = MatMul(up, "down.weight")
        down = Add(down_product, "down.bias")
        last = Add(stream, down)
        projection = Transpose <perm = [1, 0]> ("embedding")
        logits = MatMul(last, projection)
    }""")


@case(
    channel(12, "stem.weight:1 shared.weight:0 shared.weight:1 shared.bias:0 last.weight:0"),
)
def layer_applied_twice() -> onnx.ModelProto:
    """A recursive network: a Linear is applied to its own output, so its inputs and outputs are one dimension."""
    return seeded("""
    recursive (float[batch, 7] x) => (float[batch, 3] y)
    <float[7, 12] "stem.weight", float[12, 12] "shared.weight", float[12] "shared.bias", float[12, 3] "last.weight">
    {
        hidden_0 = MatMul(x, "stem.weight")
        product_1 = MatMul(hidden_0, "shared.weight")
        sum_1 = Add(product_1, "shared.bias")
        hidden_1 = Tanh(sum_1)
        product_2 = MatMul(hidden_1, "shared.weight")
        sum_2 = Add(product_2, "shared.bias")
        hidden_2 = Tanh(sum_2)
        y = MatMul(hidden_2, "last.weight")
    }""")


@case(
    channel(12, "left.weight:1 right.weight:1 shared.weight:0"),
    channel(10, "shared.weight:1 shared.bias:0 last.weight:0"),
    channel(5, "first.weight:1"),
)
def siamese_and_tied_autoencoder() -> onnx.ModelProto:
    """Two inputs meet in one shared Linear, and one weight serves as encoder and, by transB, as decoder.

    The shared Linear makes left and right one dimension although they never meet. A Gemm of (x W) W^T ties nothing but
    its own code of 5, which stands on axis 1; axis 0 is pinned by the output.
    """
    return seeded("""
    siamese (float[batch, 7] a, float[batch, 8] b) => (float[batch, 3] y, float[batch, 7] z)
    <float[7, 12] "left.weight", float[8, 12] "right.weight", float[12, 10] "shared.weight", float[10] "shared.bias",
     float[10, 3] "last.weight", float[7, 5] "first.weight">
    {
        left = MatMul(a, "left.weight")
        right = MatMul(b, "right.weight")
        left_shared = Gemm(left, "shared.weight", "shared.bias")
        right_shared = Gemm(right, "shared.weight", "shared.bias")
        both = Mul(left_shared, right_shared)
        y = MatMul(both, "last.weight")
        code = Gemm(a, "first.weight")
        active = Relu(code)
        z = Gemm <transB = 1> (active, "first.weight")
    }""")


@case(
    channel(
        10,
        "patch.weight:0 patch.bias:0 class_token:2 position:2 norm.scale:0 norm.bias:0 classifier.weight:0",
        exact=False,
    ),
)
def class_and_position_tokens() -> onnx.ModelProto:
    """ViT stem: patches as tokens, a stored class token expanded to the batch, stored positions; token and mean.

    position:1 = 1 + 4 * 4, all pinned. The target of the Expand is put together at run time from the batch and the
    stored sizes 1 and 10; the 10 follows the cut.
    """
    return seeded("""
    tokens (float[batch, 3, 8, 8] x) => (float[batch, 5] y)
    <float[10, 3, 2, 2] "patch.weight", float[10] "patch.bias", float[1, 1, 10] "class_token",
     float[1, 17, 10] "position", float[10] "norm.scale", float[10] "norm.bias", float[10, 5] "classifier.weight",
     int64[3] flat = {0, 10, -1}, int64[1] at_0 = {0}, int64[1] at_1 = {1}, int64[2] rest = {1, 10}, int64 first = {0}>
    {
        patches = Conv <strides = [2, 2]> (x, "patch.weight", "patch.bias")
        columns = Reshape(patches, flat)
        tokens = Transpose <perm = [0, 2, 1]> (columns)
        sizes = Shape(tokens)
        batch_size = Slice(sizes, at_0, at_1)
        target = Concat <axis = 0> (batch_size, rest)
        class_tokens = Expand("class_token", target)
        sequence = Concat <axis = 1> (class_tokens, tokens)
        placed = Add(sequence, "position")
        normed = LayerNormalization <axis = -1> (placed, "norm.scale", "norm.bias")
        picked = Gather <axis = 1> (normed, first)
        mean = ReduceMean <keepdims = 0> (normed, at_1)
        both = Add(picked, mean)
        y = MatMul(both, "classifier.weight")
    }""")


def _rotary_layer(layer: int, source: str, result: str) -> str:
    """One residual attention layer with rotate-half position embedding, in ONNX text."""
    rotated = "\n".join(
        f"""
        {name}_flat_{layer} = MatMul({source}, "{name}_{layer}.weight")
        {name}_split_{layer} = Reshape({name}_flat_{layer}, by_head)
        {name}_front_{layer} = Slice({name}_split_{layer}, at_0, at_3, last)
        {name}_back_{layer} = Slice({name}_split_{layer}, at_3, end, last)
        {name}_negative_{layer} = Neg({name}_back_{layer})
        {name}_turned_{layer} = Concat <axis = -1> ({name}_negative_{layer}, {name}_front_{layer})
        {name}_cosine_{layer} = Mul({name}_split_{layer}, cosine)
        {name}_sine_{layer} = Mul({name}_turned_{layer}, sine)
        {name}_rotary_{layer} = Add({name}_cosine_{layer}, {name}_sine_{layer})"""
        for name in ("q", "k")
    )
    return f"""{rotated}
        v_flat_{layer} = MatMul({source}, "v_{layer}.weight")
        v_split_{layer} = Reshape(v_flat_{layer}, by_head)
        q_{layer} = Transpose <perm = [0, 2, 1, 3]> (q_rotary_{layer})
        k_{layer} = Transpose <perm = [0, 2, 3, 1]> (k_rotary_{layer})
        v_{layer} = Transpose <perm = [0, 2, 1, 3]> (v_split_{layer})
        products_{layer} = MatMul(q_{layer}, k_{layer})
        scores_{layer} = Mul(products_{layer}, scale)
        shares_{layer} = Softmax <axis = -1> (scores_{layer})
        mixed_{layer} = MatMul(shares_{layer}, v_{layer})
        joined_{layer} = Transpose <perm = [0, 2, 1, 3]> (mixed_{layer})
        context_{layer} = Reshape(joined_{layer}, flat)
        out_{layer} = MatMul(context_{layer}, "out_{layer}.weight")
        {result} = Add({source}, out_{layer})"""


def _rotary_tables() -> dict[str, np.ndarray]:
    """Cosine and sine of position times frequency, each frequency in both halves: float32 [9, 1, 6]."""
    angles = np.outer(np.arange(9), 10.0 ** -np.arange(3))
    both = np.concatenate([angles, angles], axis=1)[:, None].astype(np.float32)
    return {"cosine": np.cos(both), "sine": np.sin(both)}


@case(
    head_width(3, "q_0.weight:1 k_0.weight:1 q_1.weight:1 k_1.weight:1 cosine:2 sine:2"),
    head(4, "q_0.weight:1 k_0.weight:1 v_0.weight:1 out_0.weight:0"),
    head(4, "q_1.weight:1 k_1.weight:1 v_1.weight:1 out_1.weight:0"),
    head_width(6, "v_0.weight:1 out_0.weight:0"),
    head_width(6, "v_1.weight:1 out_1.weight:0"),
)
def rotary_tables_shared_by_layers() -> onnx.ModelProto:
    """Two layers that rotate queries and keys with the same stored tables.

    Rotation by halves makes the width half + half with both halves one dimension (x * cos + turn(x) * sin adds front
    to back), and the shared tables make that dimension one for queries and keys of both layers. Values are not rotated.
    """
    weights = ", ".join(f'float[10, 24] "{name}_{layer}.weight"' for layer in range(2) for name in ("q", "k", "v"))
    return seeded(
        f"""
    rotary (float[batch, 9, 10] x) => (float[batch, 9, 10] y)
    <{weights}, float[24, 10] "out_0.weight", float[24, 10] "out_1.weight", float[9, 1, 6] "cosine",
     float[9, 1, 6] "sine", int64[4] by_head = {{0, 0, 4, 6}}, int64[3] flat = {{0, 0, 24}}, int64[1] at_0 = {{0}},
     int64[1] at_3 = {{3}}, int64[1] end = {{9223372036854775807}}, int64[1] last = {{3}}, float scale = {{0.408}}>
    {{{_rotary_layer(0, "x", "middle")}
    {_rotary_layer(1, "middle", "y")}
    }}""",
        **_rotary_tables(),
    )


@case(
    head_width(3, "q.weight:1 k.weight:1 cosine:2 sine:2"),
)
def rotary_interleaved() -> onnx.ModelProto:
    """GPT-J order: the width of 6 is viewed as 3 pairs, and each pair is turned by its angle.

    q.weight:1 = heads(4) * pairs(3) * 2(pinned). The scores of every head leave the network, so heads are pinned too.
    """
    angles = np.outer(np.arange(9), 10.0 ** -np.arange(3))[:, None].astype(np.float32)
    turns = "\n".join(
        f"""
        {name}_flat = MatMul(x, "{name}.weight")
        {name}_pairs = Reshape({name}_flat, in_pairs)
        {name}_even = Gather <axis = 4> ({name}_pairs, first)
        {name}_odd = Gather <axis = 4> ({name}_pairs, second)
        {name}_even_cosine = Mul({name}_even, cosine)
        {name}_odd_sine = Mul({name}_odd, sine)
        {name}_even_sine = Mul({name}_even, sine)
        {name}_odd_cosine = Mul({name}_odd, cosine)
        {name}_new_even = Sub({name}_even_cosine, {name}_odd_sine)
        {name}_new_odd = Add({name}_even_sine, {name}_odd_cosine)
        {name}_even_column = Unsqueeze({name}_new_even, last)
        {name}_odd_column = Unsqueeze({name}_new_odd, last)
        {name}_columns = Concat <axis = -1> ({name}_even_column, {name}_odd_column)
        {name}_turned = Reshape({name}_columns, by_head)"""
        for name in ("q", "k")
    )
    return seeded(
        f"""
    rotary (float[batch, 9, 10] x) => (float[batch, 4, 9, 9] y)
    <float[10, 24] "q.weight", float[10, 24] "k.weight", float[9, 1, 3] "cosine", float[9, 1, 3] "sine",
     int64[5] in_pairs = {{0, 0, 4, 3, 2}}, int64[4] by_head = {{0, 0, 4, 6}}, int64 first = {{0}},
     int64 second = {{1}}, int64[1] last = {{4}}>
    {{{turns}
        q = Transpose <perm = [0, 2, 1, 3]> (q_turned)
        k = Transpose <perm = [0, 2, 3, 1]> (k_turned)
        y = MatMul(q, k)
    }}""",
        cosine=np.cos(angles),
        sine=np.sin(angles),
    )
