"""Samples of our own: calls of operators that PyTorch's database has no samples of, or none that say anything.

May import torch. Must never import graphprune.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

_ATEN = torch.ops.aten
Arguments = tuple[Any, ...]


def _x(*shape: int) -> torch.Tensor:
    return torch.randn(shape)


def _i(most: int, *shape: int) -> torch.Tensor:
    return torch.randint(most, shape)


def _recurrent(
    gates: int, layers: int, directions: int, *, biases: bool = True, batch_first: bool = False
) -> Arguments:
    """Input, state (two for an LSTM) and parameters of a recurrent layer: 3 inputs, 5 units, 2 sequences of 4 steps."""
    x = _x(2, 4, 3) if batch_first else _x(4, 2, 3)
    state = _x(layers * directions, 2, 5)
    params = []
    for layer in range(layers):
        for _ in range(directions):
            params += [_x(gates * 5, 5 * directions if layer else 3), _x(gates * 5, 5)]
            params += [_x(gates * 5), _x(gates * 5)] if biases else []
    given = [state, _x(layers * directions, 2, 5)] if gates == 4 else state
    return x, given, params, biases, layers, 0.0, False, directions == 2, batch_first


def _recurrent_samples(gates: int) -> list[Arguments]:
    return [
        _recurrent(gates, 1, 1),
        _recurrent(gates, 2, 1, batch_first=True),
        _recurrent(gates, 1, 2, biases=False),
        _recurrent(gates, 2, 2),
    ]


def _cell_samples(gates: int) -> list[Arguments]:
    """One step of a recurrence: 2 sequences of 3 inputs, 5 units, with biases and without."""
    states = (lambda: [_x(2, 5), _x(2, 5)]) if gates == 4 else (lambda: _x(2, 5))
    weights = _x(gates * 5, 3), _x(gates * 5, 5)
    return [(_x(2, 3), states(), *weights, _x(gates * 5), _x(gates * 5)), (_x(2, 3), states(), *weights)]


def _convolutions() -> list[Arguments]:
    """``_convolution``: plain, grouped and transposed."""
    flags = (False, False, True, True)
    return [
        (_x(2, 6, 5, 5), _x(4, 6, 3, 3), _x(4), [1, 1], [1, 1], [1, 1], False, [0, 0], 1, *flags),
        (_x(2, 6, 7), _x(4, 3, 3), None, [2], [0], [1], False, [0], 2, *flags),
        (_x(2, 6, 5, 5), _x(6, 2, 3, 3), _x(6), [2, 2], [1, 1], [1, 1], True, [1, 1], 3, *flags),
    ]


def _integers() -> list[Arguments]:
    return [(_i(9, 4, 3), _i(3, 4, 3)), (_i(9, 4, 3), _i(3, 3)), (_i(9, 4, 3), 2)]


# By the name of the operator: its overload, and the arguments of each sample.
OWN: dict[str, tuple[Callable[..., Any], Callable[[], list[Arguments]]]] = {
    **{
        f"aten.__{name}__": (getattr(_ATEN, f"__{name}__"), _integers)
        for name in ("and", "or", "xor", "lshift", "rshift")
    },
    "aten._convolution": (_ATEN._convolution.default, _convolutions),
    "aten.mkldnn_convolution": (
        _ATEN.mkldnn_convolution.default,
        lambda: [(_x(2, 6, 5, 5), _x(4, 3, 3, 3), _x(4), [1, 1], [1, 1], [1, 1], 2)],
    ),
    "aten._fused_rms_norm": (
        _ATEN._fused_rms_norm.default,
        lambda: [(_x(4, 3, 6), [6], _x(6), 1e-6), (_x(4, 6), [6], None, None)],
    ),
    "aten._native_batch_norm_legit_no_training": (
        _ATEN._native_batch_norm_legit_no_training.default,
        lambda: [
            (_x(2, 5, 4, 4), _x(5), _x(5), _x(5), _x(5).exp(), 0.1, 1e-5),
            (_x(3, 5), None, None, _x(5), _x(5).exp(), 0.1, 1e-5),
        ],
    ),
    "aten._neg_view": (_ATEN._neg_view.default, lambda: [(_x(4, 3),)]),
    "aten._unsafe_index": (
        _ATEN._unsafe_index.Tensor,
        lambda: [(_x(4, 5, 3), [None, _i(5, 6), None]), (_x(4, 5, 3), [_i(4, 2, 1), _i(5, 3)])],
    ),
    "aten._unsafe_index_put": (
        _ATEN._unsafe_index_put.default,
        lambda: [(_x(4, 5, 3), [_i(4, 2)], _x(2, 5, 3)), (_x(4, 5, 3), [None, _i(5, 2)], _x(4, 2, 3), True)],
    ),
    "aten.index_put": (
        _ATEN.index_put.default,
        lambda: [
            (_x(4, 5, 3), [_i(4, 2)], _x(3)),
            (_x(4, 5, 3), [None, None, _i(3, 2)], _x(4, 5, 2)),
            (_x(4, 5, 3), [_i(4, 2), None, _i(3, 2)], _x(2, 5), True),
            (_x(4, 5, 3), [_x(4, 5) > 0], _x(3)),
            (_x(4, 5, 3), [_x(4) > 0], _x(5, 3)),
            (_x(4, 5, 3), [_x(4, 5, 3) > 0], torch.tensor(2.0)),
        ],
    ),
    "aten.index": (
        _ATEN.index.Tensor,
        lambda: [
            (_x(4, 5, 3), [None, _i(5, 7)]),
            (_x(4, 5, 3), [_i(4, 2), None, _i(3, 2)]),
            (_x(4, 5, 3), [None, _i(5, 2, 1), _i(3, 4)]),
            (_x(4, 5, 3), [torch.arange(1, 3)]),
            (_x(4, 6), [None, torch.tensor([0, 2, 4])]),
            (_x(4, 6), [None, torch.tensor([0, 2, 4, 1, 3, 5])]),
            (_x(4, 5, 3), [None, torch.tensor([True, False, True, True, False])]),
        ],
    ),
    "aten._upsample_bicubic2d_aa": (_ATEN._upsample_bicubic2d_aa.default, lambda: [(_x(2, 3, 4, 4), [6, 5], False)]),
    "aten._weight_norm": (_ATEN._weight_norm.default, lambda: [(_x(4, 3), _x(4, 1), 0), (_x(4, 3), _x(1, 3), 1)]),
    "aten._weight_norm_interface": (_ATEN._weight_norm_interface.default, lambda: [(_x(4, 3), _x(4, 1), 0)]),
    "aten.affine_grid_generator": (_ATEN.affine_grid_generator.default, lambda: [(_x(4, 2, 3), [4, 3, 5, 5], False)]),
    "aten.col2im": (
        _ATEN.col2im.default,
        lambda: [
            (_x(3, 20, 12), [4, 5], [2, 2], [1, 1], [0, 0], [1, 1]),
            (_x(20, 12), [4, 5], [2, 2], [1, 1], [0, 0], [1, 1]),
        ],
    ),
    "aten.conj": (_ATEN.conj.default, lambda: [(torch.complex(_x(4, 3), _x(4, 3)),)]),
    "aten.contiguous": (_ATEN.contiguous.default, lambda: [(_x(4, 3),)]),
    "aten._conj": (_ATEN._conj.default, lambda: [(torch.complex(_x(4, 3), _x(4, 3)),)]),
    "aten.detach_copy": (_ATEN.detach_copy.default, lambda: [(_x(4, 3),)]),
    "aten.fake_quantize_per_tensor_affine": (
        _ATEN.fake_quantize_per_tensor_affine.default,
        lambda: [(_x(4, 3), 0.1, 3, -128, 127)],
    ),
    "aten.diagonal": (_ATEN.diagonal.default, lambda: [(_x(4, 4, 3),), (_x(3, 4, 5), 1, -1, 0)]),
    "aten.diagonal_copy": (_ATEN.diagonal_copy.default, lambda: [(_x(4, 4, 3),), (_x(3, 4, 5), 1, -1, 0)]),
    "aten.view_as_complex_copy": (_ATEN.view_as_complex_copy.default, lambda: [(_x(4, 3, 2),)]),
    "aten.view_as_real_copy": (_ATEN.view_as_real_copy.default, lambda: [(torch.complex(_x(4, 3), _x(4, 3)),)]),
    "aten.slogdet": (_ATEN.slogdet.default, lambda: [(_x(3, 3),)]),
    "aten.linalg_diagonal": (_ATEN.linalg_diagonal.default, lambda: [(_x(3, 4, 4),)]),
    "aten.dropout": (_ATEN.dropout.default, lambda: [(_x(4, 3), 0.5, False), (_x(4, 3), 0.5, True)]),
    "aten.alpha_dropout": (_ATEN.alpha_dropout.default, lambda: [(_x(4, 3), 0.5, False)]),
    "aten.feature_dropout": (_ATEN.feature_dropout.default, lambda: [(_x(4, 3, 5), 0.5, False)]),
    "aten.fft_fftshift": (_ATEN.fft_fftshift.default, lambda: [(_x(4, 3), [1])]),
    "aten.fft_ifftshift": (_ATEN.fft_ifftshift.default, lambda: [(_x(4, 3), [0])]),
    "aten.fft_fftfreq": (_ATEN.fft_fftfreq.default, lambda: [(6,)]),
    "aten.fft_rfftfreq": (_ATEN.fft_rfftfreq.default, lambda: [(6,)]),
    "aten.fractional_max_pool2d": (
        _ATEN.fractional_max_pool2d.default,
        lambda: [
            (_x(2, 3, 6, 6), [2, 2], [3, 3], torch.rand(2, 3, 2)),
            (_x(3, 6, 6), [2, 2], [3, 3], torch.rand(1, 3, 2)),
        ],
    ),
    "aten.fractional_max_pool3d": (
        _ATEN.fractional_max_pool3d.default,
        lambda: [(_x(2, 3, 6, 6, 6), [2, 2, 2], [3, 3, 3], torch.rand(2, 3, 3))],
    ),
    "aten.conv3d": (
        _ATEN.conv3d.default,
        lambda: [
            (_x(2, 4, 3, 3, 3), _x(6, 4, 2, 2, 2), _x(6)),
            (_x(4, 3, 3, 3), _x(6, 2, 2, 2, 2), None, [1, 1, 1], [0, 0, 0], [1, 1, 1], 2),
        ],
    ),
    "aten._is_all_true": (_ATEN._is_all_true.default, lambda: [(_x(4, 3) > 0,)]),
    "aten._is_any_true": (_ATEN._is_any_true.default, lambda: [(_x(4, 3) > 0,)]),
    "aten.frobenius_norm": (_ATEN.frobenius_norm.dim, lambda: [(_x(4, 3, 5), [1, 2]), (_x(4, 3, 5), [1], True)]),
    "aten.nuclear_norm": (_ATEN.nuclear_norm.dim, lambda: [(_x(4, 3, 5), [1, 2])]),
    **{
        f"aten.{name}_window": (getattr(_ATEN, f"{name}_window").default, lambda: [(6,)])
        for name in ("bartlett", "blackman", "hamming", "hann", "kaiser")
    },
    "aten.lift": (_ATEN.lift.default, lambda: [(_x(4, 3),)]),
    "aten.lstm": (_ATEN.lstm.input, functools.partial(_recurrent_samples, 4)),
    "aten.gru": (_ATEN.gru.input, functools.partial(_recurrent_samples, 3)),
    "aten.rnn_tanh": (_ATEN.rnn_tanh.input, functools.partial(_recurrent_samples, 1)),
    "aten.rnn_relu": (_ATEN.rnn_relu.input, functools.partial(_recurrent_samples, 1)),
    "aten.lstm_cell": (_ATEN.lstm_cell.default, functools.partial(_cell_samples, 4)),
    "aten.gru_cell": (_ATEN.gru_cell.default, functools.partial(_cell_samples, 3)),
    "aten.rnn_tanh_cell": (_ATEN.rnn_tanh_cell.default, functools.partial(_cell_samples, 1)),
    "aten.rnn_relu_cell": (_ATEN.rnn_relu_cell.default, functools.partial(_cell_samples, 1)),
    "aten.max_pool1d": (_ATEN.max_pool1d.default, lambda: [(_x(2, 3, 6), [2])]),
    "aten.max_pool2d": (
        _ATEN.max_pool2d.default,
        lambda: [(_x(2, 3, 6, 6), [2, 2]), (_x(3, 6, 6), [3, 3], [1, 1], [1, 1])],
    ),
    "aten.max_pool3d": (_ATEN.max_pool3d.default, lambda: [(_x(2, 3, 4, 4, 4), [2, 2, 2])]),
    "aten.native_channel_shuffle": (
        _ATEN.native_channel_shuffle.default,
        lambda: [(_x(2, 6, 3, 3), 2), (_x(2, 6, 3, 3), 3)],
    ),
    "aten.native_dropout": (_ATEN.native_dropout.default, lambda: [(_x(4, 3), 0.5, True), (_x(4, 3), 0.5, False)]),
    "aten.native_layer_norm": (
        _ATEN.native_layer_norm.default,
        lambda: [(_x(4, 5, 6), [6], _x(6), _x(6), 1e-5), (_x(4, 5, 6), [5, 6], None, None, 1e-5)],
    ),
    "aten.nll_loss": (_ATEN.nll_loss.default, lambda: [(_x(4, 3), _i(3, 4))]),
    "aten.nll_loss2d": (_ATEN.nll_loss2d.default, lambda: [(_x(4, 3, 2, 2), _i(3, 4, 2, 2))]),
    "aten.mode": (_ATEN.mode.default, lambda: [(_i(5, 30),), (_i(5, 4, 30),)]),
    "aten.permute": (_ATEN.permute.default, lambda: [(_x(4, 4, 4), [1, 2, 0]), (_x(4, 4), [1, 0])]),
    "aten.pixel_shuffle": (_ATEN.pixel_shuffle.default, lambda: [(_x(2, 12, 3, 3), 2), (_x(8, 3, 3), 2)]),
    "aten.pixel_unshuffle": (_ATEN.pixel_unshuffle.default, lambda: [(_x(2, 3, 4, 6), 2)]),
    "aten.poisson": (_ATEN.poisson.default, lambda: [(_x(4, 3).abs(),)]),
    "aten.rand_like": (_ATEN.rand_like.default, lambda: [(_x(4, 3),)]),
    "aten.rand": (_ATEN.rand.default, lambda: [([4, 3],)]),
    "aten.randperm": (_ATEN.randperm.default, lambda: [(6,)]),
    "aten.reflection_pad1d": (_ATEN.reflection_pad1d.default, lambda: [(_x(2, 3, 5), [1, 2]), (_x(3, 5), [1, 2])]),
    "aten.reflection_pad2d": (_ATEN.reflection_pad2d.default, lambda: [(_x(2, 3, 5, 5), [1, 2, 0, 1])]),
    "aten.replication_pad1d": (_ATEN.replication_pad1d.default, lambda: [(_x(2, 3, 5), [1, 2])]),
    "aten.reflection_pad3d": (_ATEN.reflection_pad3d.default, lambda: [(_x(2, 3, 4, 4, 4), [1, 1, 1, 1, 1, 1])]),
    "aten.replication_pad3d": (_ATEN.replication_pad3d.default, lambda: [(_x(2, 3, 4, 4, 4), [1, 1, 1, 1, 1, 1])]),
    "aten.replication_pad2d": (_ATEN.replication_pad2d.default, lambda: [(_x(2, 3, 5, 5), [1, 2, 0, 1])]),
    "aten.select_copy": (_ATEN.select_copy.int, lambda: [(_x(4, 3, 5), 1, 2)]),
    "aten.slice_copy": (
        _ATEN.slice_copy.Tensor,
        lambda: [(_x(6, 3), 0, 1, 4), (_x(6, 3), 0, 0, 6, 2), (_x(6, 3), 1, -2)],
    ),
    "aten.split_copy": (_ATEN.split_copy.Tensor, lambda: [(_x(6, 4), 2), (_x(6, 4), 3, 1)]),
    "aten.unsafe_split_with_sizes": (_ATEN.unsafe_split_with_sizes.default, lambda: [(_x(6, 4), [1, 2, 3])]),
    "aten.type_as": (_ATEN.type_as.default, lambda: [(_x(4, 3), _i(5, 2))]),
    "aten.embedding": (
        _ATEN.embedding.default,
        lambda: [(_x(7, 5), _i(7, 4, 3)), (_x(7, 5), _i(7, 4), 2), (_x(7, 5), torch.tensor(3))],
    ),
    "aten.scaled_dot_product_attention": (
        _ATEN.scaled_dot_product_attention.default,
        lambda: [
            (_x(2, 4, 3, 6), _x(2, 4, 5, 6), _x(2, 4, 5, 7)),
            (_x(2, 4, 3, 6), _x(2, 4, 5, 6), _x(2, 4, 5, 6), _x(3, 5)),
            (_x(2, 4, 3, 6), _x(2, 4, 5, 6), _x(2, 4, 5, 6), _x(2, 1, 3, 5) > 0),
            (_x(2, 4, 3, 6), _x(2, 4, 3, 6), _x(2, 4, 3, 6), None, 0.0, True),
            (_x(2, 3, 6), _x(2, 5, 6), _x(2, 5, 7)),
        ],
    ),
    "aten.scaled_dot_product_attention grouped": (
        functools.partial(_ATEN.scaled_dot_product_attention.default, enable_gqa=True),
        lambda: [(_x(2, 4, 3, 6), _x(2, 2, 5, 6), _x(2, 2, 5, 7)), (_x(2, 6, 3, 6), _x(2, 3, 5, 6), _x(2, 3, 5, 6))],
    ),
}
