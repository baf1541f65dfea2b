"""Hard case 14: sizes computed at run time, control flow with captured weights, and functions of the model's own."""

from __future__ import annotations

import onnx

from .case import case, channel, head, head_width, seeded

ATTENTION_WEIGHTS = """float[10, 24] "q.weight", float[10, 24] "k.weight", float[10, 24] "v.weight",
     float[24, 10] "out.weight\""""


def _attention(split: str, scale: str, join: str) -> str:
    """Attention from `x` to `y` whose reshape targets and scale are the named values."""
    return f"""
        q_split = Reshape(q_flat, {split})
        k_split = Reshape(k_flat, {split})
        v_split = Reshape(v_flat, {split})
        q = Transpose <perm = [0, 2, 1, 3]> (q_split)
        k = Transpose <perm = [0, 2, 3, 1]> (k_split)
        v = Transpose <perm = [0, 2, 1, 3]> (v_split)
        products = MatMul(q, k)
        scores = Mul(products, {scale})
        masked = Where(allowed, scores, low)
        shares = Softmax <axis = -1> (masked)
        mixed = MatMul(shares, v)
        joined = Transpose <perm = [0, 2, 1, 3]> (mixed)
        context = Reshape(joined, {join})
        y = MatMul(context, "out.weight")"""


# The sizes of the batch and the sequence, and a causal mask made of the latter.
SIZES_AND_MASK = """
        sizes = Shape(x)
        batch_size = Gather(sizes, first)
        length = Gather(sizes, second)
        batch_entry = Unsqueeze(batch_size, at_0)
        length_entry = Unsqueeze(length, at_0)
        places = Range(first, length, second)
        rows = Unsqueeze(places, at_1)
        allowed = LessOrEqual(places, rows)
        q_flat = MatMul(x, "q.weight")
        k_flat = MatMul(x, "k.weight")
        v_flat = MatMul(x, "v.weight")"""

SCALARS = "int64 first = {0}, int64 second = {1}, int64[1] at_0 = {0}, int64[1] at_1 = {1}, float low = {-1000.0}"


@case(
    head(4, "q.weight:1 k.weight:1 v.weight:1 out.weight:0"),
    head_width(6, "q.weight:1 k.weight:1 v.weight:1 out.weight:0"),
)
def reshape_targets_computed() -> onnx.ModelProto:
    """Reshape targets are concatenations of run-time sizes with the stored numbers 4, 6 and 24, which must follow.

    One computed target serves queries, keys and values, and its last entry is one number: that makes the widths of
    queries and values one dimension.
    """
    return seeded(f"""
    attention (float[batch, length, 10] x) => (float[batch, length, 10] y)
    <{ATTENTION_WEIGHTS}, {SCALARS}, int64[1] heads = {{4}}, int64[1] width = {{6}}, int64[1] features = {{24}},
     float scale = {{0.408}}>
    {{{SIZES_AND_MASK}
        split_target = Concat <axis = 0> (batch_entry, length_entry, heads, width)
        join_target = Concat <axis = 0> (batch_entry, length_entry, features)
        {_attention("split_target", "scale", "join_target")}
    }}""")


@case(
    head(4, "q.weight:1 k.weight:1 v.weight:1 out.weight:0"),
    head_width(6, "q.weight:1 k.weight:1 v.weight:1 out.weight:0"),
)
def head_width_by_division() -> onnx.ModelProto:
    """The head width is computed as features / heads from the query's shape, and the join target as heads * width.

    The stored number of heads has three readers, all of which follow it. The width is computed once, from queries, and
    used for values too: that makes the widths of queries and values one dimension.
    """
    return seeded(f"""
    attention (float[batch, length, 10] x) => (float[batch, length, 10] y)
    <{ATTENTION_WEIGHTS}, {SCALARS}, int64 heads = {{4}}, int64 third = {{2}}, float scale = {{0.408}}>
    {{{SIZES_AND_MASK}
        q_sizes = Shape(q_flat)
        features = Gather(q_sizes, third)
        width = Div(features, heads)
        heads_entry = Unsqueeze(heads, at_0)
        width_entry = Unsqueeze(width, at_0)
        joined_width = Mul(heads, width)
        joined_entry = Unsqueeze(joined_width, at_0)
        split_target = Concat <axis = 0> (batch_entry, length_entry, heads_entry, width_entry)
        join_target = Concat <axis = 0> (batch_entry, length_entry, joined_entry)
        {_attention("split_target", "scale", "join_target")}
    }}""")


@case(
    head(4, "q.weight:1 k.weight:1 v.weight:1 out.weight:0"),
    head_width(6, "v.weight:1 out.weight:0"),
)
def scale_from_head_width() -> onnx.ModelProto:
    """The scale is 1 / sqrt(width) computed from the shape of the queries, as older exporters write it.

    Cutting the width would change the scale, that is, what the surviving entries mean: it is pinned. Heads and the
    width of values stay free.
    """
    return seeded(f"""
    attention (float[batch, length, 10] x) => (float[batch, length, 10] y)
    <{ATTENTION_WEIGHTS}, {SCALARS}, int64[1] heads = {{4}}, int64[1] unknown = {{-1}}, int64[1] at_3 = {{3}},
     int64[1] end = {{4}}, int64[1] features = {{24}}, int64[4] by_head = {{0, 0, 4, -1}}, float half = {{-0.5}}>
    {{{SIZES_AND_MASK}
        q_by_head = Reshape(q_flat, by_head)
        q_sizes = Shape(q_by_head)
        width = Slice(q_sizes, at_3, end, at_0)
        width_number = Cast <to = 1> (width)
        scale = Pow(width_number, half)
        split_target = Concat <axis = 0> (batch_entry, length_entry, heads, unknown)
        join_target = Concat <axis = 0> (batch_entry, length_entry, features)
        {_attention("split_target", "scale", "join_target")}
    }}""")


@case(
    channel(6, "stem.weight:0 stem.bias:0 hidden.weight:1"),
    channel(10, "hidden.weight:0 hidden.bias:0 last.weight:1"),
)
def flatten_by_shape() -> onnx.ModelProto:
    """x.view(x.size(0), -1) before a Linear: hidden.weight:1 = channel(6) * places(36, pinned)."""
    return seeded("""
    flattened (float[batch, 3, 6, 6] x) => (float[batch, 5] y)
    <float[6, 3, 3, 3] "stem.weight", float[6] "stem.bias", float[10, 216] "hidden.weight", float[10] "hidden.bias",
     float[5, 10] "last.weight", int64 first = {0}, int64[1] at_0 = {0}, int64[1] unknown = {-1}>
    {
        stem = Conv <pads = [1, 1, 1, 1]> (x, "stem.weight", "stem.bias")
        active = Relu(stem)
        sizes = Shape(active)
        batch_size = Gather(sizes, first)
        batch_entry = Unsqueeze(batch_size, at_0)
        target = Concat <axis = 0> (batch_entry, unknown)
        flat = Reshape(active, target)
        hidden = Gemm <transB = 1> (flat, "hidden.weight", "hidden.bias")
        hidden_active = Relu(hidden)
        y = Gemm <transB = 1> (hidden_active, "last.weight")
    }""")


@case(
    channel(
        8,
        "stem.weight:0 stem.bias:0 then.weight:1 then.weight:0 then.bias:0 inner.weight:1 outer.weight:0 last.weight:1",
    ),
    channel(5, "inner.weight:0 inner.bias:0 outer.weight:1"),
)
def branches() -> onnx.ModelProto:
    """An If whose branches capture the stem: one applies a convolution of its own outer scope and adds, the other has
    a bottleneck whose weights are stored inside the branch. Both results are one value, so all 8 are one dimension.
    """
    return seeded("""
    branching (float[batch, 3, 6, 6] x, bool deep) => (float[batch, 5, 6, 6] y)
    <float[8, 3, 3, 3] "stem.weight", float[8] "stem.bias", float[8, 8, 1, 1] "then.weight", float[8] "then.bias",
     float[8, 5, 1, 1] "outer.weight", float[5, 8, 1, 1] "last.weight">
    {
        stem = Conv <pads = [1, 1, 1, 1]> (x, "stem.weight", "stem.bias")
        chosen = If (deep) <
            then_branch = then () => (float[batch, 8, 6, 6] then_result) {
                then_product = Conv(stem, "then.weight", "then.bias")
                then_result = Add(stem, then_product)
            },
            else_branch = otherwise () => (float[batch, 8, 6, 6] else_result)
            <float[5, 8, 1, 1] "inner.weight", float[5] "inner.bias"> {
                inner = Conv(stem, "inner.weight", "inner.bias")
                inner_active = Relu(inner)
                else_result = Conv(inner_active, "outer.weight")
            }
        >
        active = Relu(chosen)
        y = Conv(active, "last.weight")
    }""")


@case(
    channel(8, "stem.weight:1 state.weight:0 state.weight:1 state.bias:0 last.weight:0 trace.weight:0"),
)
def loop_with_state() -> onnx.ModelProto:
    """A Loop that applies a captured Linear three times and collects every state: input, output and trace are tied."""
    return seeded("""
    looping (float[batch, 7] x) => (float[batch, 3] y, float[3, batch, 2] z)
    <float[7, 8] "stem.weight", float[8, 8] "state.weight", float[8] "state.bias", float[8, 3] "last.weight",
     float[8, 2] "trace.weight", int64 trips = {3}, bool go = {1}>
    {
        start = MatMul(x, "stem.weight")
        final, states = Loop (trips, go, start) <
            body = step (int64 trip, bool going, float[batch, 8] state) =>
                (bool still_going, float[batch, 8] next_state, float[batch, 8] seen) {
                still_going = Identity(going)
                product = MatMul(state, "state.weight")
                sum = Add(product, "state.bias")
                next_state = Tanh(sum)
                seen = Identity(next_state)
            }
        >
        y = MatMul(final, "last.weight")
        z = MatMul(states, "trace.weight")
    }""")


@case(
    channel(6, "state.weight:0 state.weight:1 input.weight:1 state.bias:0 start:1 last.weight:0"),
    channel(5, "embed.weight:1 embed.bias:0 input.weight:0"),
)
def scan_cell() -> onnx.ModelProto:
    """A recurrent cell written as Scan over time, from a stored initial state, with weights stored in the body."""
    return seeded("""
    scanning (float[9, 2, 7] x) => (float[9, 2, 3] y)
    <float[7, 5] "embed.weight", float[5] "embed.bias", float[2, 6] "start", float[5, 6] "input.weight",
     float[6, 3] "last.weight">
    {
        embed_product = MatMul(x, "embed.weight")
        embedded = Add(embed_product, "embed.bias")
        final, states = Scan <num_scan_inputs = 1,
            body = step (float[2, 6] state, float[2, 5] entry) => (float[2, 6] next_state, float[2, 6] seen)
            <float[6, 6] "state.weight", float[6] "state.bias"> {
                from_state = MatMul(state, "state.weight")
                from_entry = MatMul(entry, "input.weight")
                product = Add(from_state, from_entry)
                sum = Add(product, "state.bias")
                next_state = Tanh(sum)
                seen = Identity(next_state)
            }> ("start", embedded)
        y = MatMul(states, "last.weight")
    }""")


@case(
    channel(12, "first.weight:1 first.bias:0 second.weight:0"),
    channel(9, "second.weight:1 second.bias:0 last.weight:0"),
)
def function_called_twice() -> onnx.ModelProto:
    """A function of the model's own, called with different weights: each call has couplings of its own."""
    return seeded("""
    calling (float[batch, 7] x) => (float[batch, 3] y)
    <float[7, 12] "first.weight", float[12] "first.bias", float[12, 9] "second.weight", float[9] "second.bias",
     float[9, 3] "last.weight">
    {
        first = local.dense(x, "first.weight", "first.bias")
        second = local.dense(first, "second.weight", "second.bias")
        y = MatMul(second, "last.weight")
    }
    <domain: "local", opset_import: ["" : 18]>
    dense (entry, weight, bias) => (result)
    {
        product = MatMul(entry, weight)
        sum = Add(product, bias)
        result = Relu(sum)
    }""")
