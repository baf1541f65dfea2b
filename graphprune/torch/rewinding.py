"""Weights back to where they were early in training, while zeros stay: what finds lottery tickets.

Train, remove the smallest weights, give the others the numbers that they had early on, and train again (Frankle &
Carbin, The lottery ticket hypothesis, ICLR 2019; from an early step instead of the start: Frankle et al., Linear mode
connectivity and the lottery ticket hypothesis, ICML 2020). :func:`rewind` is the step between; training and pruning are
those of `gp.finetune` and `gp.sparsify`. Imports torch; of this package masks.py, sparse_masks.py and tensors.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from graphprune.errors import GraphPruneError
from graphprune.torch.sparse_masks import masks_of
from graphprune.torch.tensors import places, plain_mode

_BEHIND_A_MASK = re.compile(r"((?:.*\.)?)parametrizations\.([^.]+)\.original")
_MASK = re.compile(r"(?:.*\.)?parametrizations\.[^.]+\.0\.\w+")


def rewind(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give the parameters and buffers of a module the numbers of an earlier state of it, bit by bit, in place; they
    stay the same objects, and gradients are dropped. What a mask removes is zero all the same, and weights of two or
    more axes stay zero where they are. All or nothing.

    state: a state dict of the module, with masks or without; the masks of the module stay as they are
    Raises GraphPruneError GP504 where a tensor of the module is not in it, or has another shape or type there.
    """
    earlier = {_plain(name): tensor for name, tensor in state.items() if not _MASK.fullmatch(name)}
    masks, found = masks_of(model), []
    with plain_mode():
        for name, place in places(model).items():
            if _MASK.fullmatch(name) or not place.persistent:
                continue
            plain, tensor = _plain(name), place.tensor
            numbers = _fitting(earlier, plain, tensor)
            if plain in masks:
                numbers = torch.where(masks[plain], numbers, 0)
            elif place.is_parameter and tensor.dim() > 1:
                numbers = torch.where(tensor == 0, 0, numbers)
            found.append((tensor, numbers.to(tensor.dtype)))
        for tensor, numbers in found:
            tensor.copy_(numbers)
            tensor.grad = None


def _plain(name: str) -> str:
    """The name of a tensor as it is without a mask.

    >>> _plain("layer.parametrizations.weight.original"), _plain("layer.bias")
    ('layer.weight', 'layer.bias')
    """
    match = _BEHIND_A_MASK.fullmatch(name)
    return name if match is None else match[1] + match[2]


def _fitting(earlier: Mapping[str, Tensor], name: str, tensor: Tensor) -> Tensor:
    if name not in earlier:
        raise GraphPruneError("GP504", f"the state has no {name!r}", "rewind", "give one of the same network")
    given = earlier[name]
    if given.shape != tensor.shape or given.dtype != tensor.dtype:
        what = f"{name!r} is {given.dtype} {tuple(given.shape)} there, and {tensor.dtype} {tuple(tensor.shape)} here"
        raise GraphPruneError("GP504", what, "rewind", "give a state of the same network")
    return given.to(tensor.device)
