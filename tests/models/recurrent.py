"""Hard case 10: recurrent operators, whose weights hold all gates and directions in one tensor."""

from __future__ import annotations

import onnx

from .case import case, channel, seeded


@case(
    channel(8, "first.input:1 first.recurrence:1 first.recurrence:2 first.bias:1 first.peephole:1 second.input:2"),
    channel(5, "second.input:1 second.recurrence:1 second.recurrence:2 second.bias:1 last.weight:0"),
)
def stacked_lstm_with_peepholes() -> onnx.ModelProto:
    """Two LSTM in one direction; gates are the outer factor of the rows, hidden units the inner one.

    first.input:1 = gates(4) * hidden(8), first.bias:1 = (4 + 4) * hidden, first.peephole:1 = 3 * hidden. The hidden
    state feeds back, so first.recurrence holds hidden on both axes; `hidden_size` follows the cut.
    """
    return seeded("""
    recurrent (float[9, batch, 7] x) => (float[9, batch, 3] y)
    <float[1, 32, 7] "first.input", float[1, 32, 8] "first.recurrence", float[1, 64] "first.bias",
     float[1, 24] "first.peephole", float[1, 20, 8] "second.input", float[1, 20, 5] "second.recurrence",
     float[1, 40] "second.bias", float[5, 3] "last.weight", int64[1] direction = {1}>
    {
        first_4d = LSTM <hidden_size = 8> (x, "first.input", "first.recurrence", "first.bias", , , , "first.peephole")
        first = Squeeze(first_4d, direction)
        second_4d = LSTM <hidden_size = 5> (first, "second.input", "second.recurrence", "second.bias")
        second = Squeeze(second_4d, direction)
        y = MatMul(second, "last.weight")
    }""")


@case(
    channel(6, "first.input:1 first.recurrence:1 first.recurrence:2 first.bias:1 second.input:2"),
    channel(4, "second.input:1 second.recurrence:1 second.recurrence:2 second.bias:1 last.weight:0 state.weight:0"),
)
def stacked_bidirectional_lstm() -> onnx.ModelProto:
    """Two bidirectional LSTM as PyTorch exports them: both directions in one tensor, hence one hidden dimension.

    second.input:2 = directions(2, pinned) * hidden(6). The last state leaves through Y_h, moved to (batch, 2 * 4).
    """
    return seeded("""
    recurrent (float[9, batch, 7] x) => (float[9, batch, 3] y, float[batch, 2] z)
    <float[2, 24, 7] "first.input", float[2, 24, 6] "first.recurrence", float[2, 48] "first.bias",
     float[2, 16, 12] "second.input", float[2, 16, 4] "second.recurrence", float[2, 32] "second.bias",
     float[8, 3] "last.weight", float[8, 2] "state.weight", int64[3] joined = {0, 0, -1}, int64[2] state_view = {-1, 8}>
    {
        first_4d = LSTM <hidden_size = 6, direction = "bidirectional"> (
            x, "first.input", "first.recurrence", "first.bias")
        first_last = Transpose <perm = [0, 2, 1, 3]> (first_4d)
        first = Reshape(first_last, joined)
        second_4d, state, cell = LSTM <hidden_size = 4, direction = "bidirectional"> (
            first, "second.input", "second.recurrence", "second.bias")
        second_last = Transpose <perm = [0, 2, 1, 3]> (second_4d)
        second = Reshape(second_last, joined)
        y = MatMul(second, "last.weight")
        state_last = Transpose <perm = [1, 0, 2]> (state)
        state_flat = Reshape(state_last, state_view)
        z = MatMul(state_flat, "state.weight")
    }""")


@case(
    channel(6, "gru.input:1 gru.recurrence:1 gru.recurrence:2 gru.bias:1 gru.state:2 last.weight:0"),
    channel(8, "stem.weight:1 stem.bias:0 gru.input:2"),
)
def gru_with_learned_state() -> onnx.ModelProto:
    """A reverse GRU on embedded inputs, with three gates and an initial state that is a stored tensor [1, 2, 6]."""
    return seeded("""
    recurrent (float[9, 2, 7] x) => (float[9, 2, 3] y)
    <float[7, 8] "stem.weight", float[8] "stem.bias", float[1, 18, 8] "gru.input", float[1, 18, 6] "gru.recurrence",
     float[1, 36] "gru.bias", float[1, 2, 6] "gru.state", float[6, 3] "last.weight", int64[1] direction = {1}>
    {
        product = MatMul(x, "stem.weight")
        sum = Add(product, "stem.bias")
        embedded = Tanh(sum)
        hidden_4d = GRU <hidden_size = 6, direction = "reverse", linear_before_reset = 1> (
            embedded, "gru.input", "gru.recurrence", "gru.bias", , "gru.state")
        hidden = Squeeze(hidden_4d, direction)
        y = MatMul(hidden, "last.weight")
    }""")


@case(
    channel(5, "rnn.input:1 rnn.recurrence:1 rnn.recurrence:2 rnn.bias:1 norm.scale:0 norm.bias:0 last.weight:1"),
)
def bidirectional_rnn_summed() -> onnx.ModelProto:
    """A plain bidirectional RNN; its two directions are added, so only hidden(5) is left, and normalised per channel.

    rnn.input:1 = hidden (a single gate) and rnn.bias:1 = 2 * hidden. InstanceNormalization takes statistics over time
    only, so it stays exact.
    """
    return seeded("""
    recurrent (float[9, batch, 7] x) => (float[batch, 3, 9] y)
    <float[2, 5, 7] "rnn.input", float[2, 5, 5] "rnn.recurrence", float[2, 10] "rnn.bias", float[5] "norm.scale",
     float[5] "norm.bias", float[3, 5, 1] "last.weight", int64[1] directions = {1}>
    {
        both = RNN <hidden_size = 5, direction = "bidirectional"> (x, "rnn.input", "rnn.recurrence", "rnn.bias")
        summed = ReduceSum <keepdims = 0> (both, directions)
        channels_first = Transpose <perm = [1, 2, 0]> (summed)
        normed = InstanceNormalization(channels_first, "norm.scale", "norm.bias")
        y = Conv(normed, "last.weight")
    }""")
