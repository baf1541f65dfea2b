"""Operators that PyTorch's own modules take as a shortcut for inference, written out so that they can be analysed.

Imports torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, linear, relu, scaled_dot_product_attention


def _encoder_layer(
    x: Tensor,
    width: int,
    heads: int,
    inner: tuple[Tensor, Tensor],
    outer: tuple[Tensor, Tensor],
    gelu_not_relu: bool,
    norm_first: bool,
    epsilon: float,
    *rest: Any,
) -> Tensor:
    """A `nn.TransformerEncoderLayer`. x: batch, sequence, width. rest: weight and bias of both norms and of both linear
    layers, then the mask (true where nothing is to be seen) and its kind: 0 for (sequence, sequence), 1 for (batch,
    sequence), 2 for (batch, heads, sequence, sequence)."""
    first, second, widen, narrow = ((rest[k], rest[k + 1]) for k in range(0, 8, 2))
    mask, kind = (*rest[8:], None, None)[:2]
    if mask is not None:
        mask = mask.to(torch.bool).logical_not()
        mask = mask[:, None, None, :] if kind == 1 else mask

    def attend(x: Tensor) -> Tensor:
        split = [torch.unflatten(part, -1, (heads, -1)).transpose(1, 2) for part in linear(x, *inner).chunk(3, -1)]
        mixed = scaled_dot_product_attention(split[0], split[1], split[2], mask)
        return linear(mixed.transpose(1, 2).flatten(2), *outer)

    def feed(x: Tensor) -> Tensor:
        return linear((gelu if gelu_not_relu else relu)(linear(x, *widen)), *narrow)

    if norm_first:
        x = x + attend(layer_norm(x, [width], first[0], first[1], epsilon))
        return x + feed(layer_norm(x, [width], second[0], second[1], epsilon))
    x = layer_norm(x + attend(x), [width], first[0], first[1], epsilon)
    return layer_norm(x + feed(x), [width], second[0], second[1], epsilon)


def _layer(x: Tensor, width: int, heads: int, *rest: Any, mask: Any = None, mask_type: Any = None) -> Any:
    given = [*rest, *([mask, mask_type] if mask is not None else [])]
    return _encoder_layer(x, width, heads, tuple(given[:2]), tuple(given[2:4]), *given[4:])


WRITTEN_OUT: dict[Any, Callable[..., Any]] = {torch.ops.aten._transformer_encoder_layer_fwd.default: _layer}
"""For :func:`torch.fx.experimental.proxy_tensor.make_fx`."""
