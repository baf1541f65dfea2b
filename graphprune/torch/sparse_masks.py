"""Masks of single weights: zeros that stay zero in training, until :func:`bake` makes them numbers of the tensor.

A mask is a parametrization of a parameter: the module shows the masked tensor, and the gradients of what is masked are
zero. It is a buffer, so that it is saved with the state and moves with the module. Imports torch; of this package
masks.py and tensors.py.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from graphprune.errors import GraphPruneError
from graphprune.program import Array
from graphprune.torch.masks import in_order, own_class, parametrized_already
from graphprune.torch.tensors import Place, places

_KEY = re.compile(r"(?:(.*)\.)?parametrizations\.([^.]+)\.0\.mask")


class SparseMask(nn.Module):
    """Shows a tensor with positive zeros where the buffer ``mask`` is False; everything else is bit by bit the same.

    order: names of the parameters and buffers of the module as they were, which baking restores
    """

    mask: Tensor

    def __init__(self, mask: Tensor, order: tuple[str, ...]):
        super().__init__()
        self.order = order
        self.register_buffer("mask", mask)

    def forward(self, tensor: Tensor) -> Tensor:
        """The masked tensor. Not a product: that would keep what is not finite, and the sign of zero."""
        return torch.where(self.mask, tensor, torch.zeros((), dtype=tensor.dtype, device=tensor.device))


def put_masks(model: nn.Module, masks: Mapping[str, Array | Tensor]) -> None:
    """Mask parameters of a module, in place; they stay the same objects, for optimizers. All or nothing.

    masks: the name of a parameter -> True where it is kept, in its shape; tied ones are masked under each name
    Raises GraphPruneError: GP504 where there is no such parameter, or one of another shape; GP103 where it is
    parametrized already.
    """
    found = places(model)
    chosen = [each for name, mask in masks.items() for each in _chosen(model, found, name, mask)]
    done: list[Place] = []
    try:
        for place, mask in chosen:
            _register(place, mask)
            done.append(place)
    except BaseException:
        for place in reversed(done):
            _remove(place.owner, place.attribute, keep_zeros=False)
        raise


def is_mask(name: str) -> bool:
    """Whether a tensor of a state dict is a mask, by its name.

    >>> is_mask("head.parametrizations.weight.0.mask"), is_mask("head.weight")
    (True, False)
    """
    return _KEY.fullmatch(name) is not None


def masks_of(model: nn.Module) -> dict[str, Tensor]:
    """The masks of a module, by the names that its parameters have without them; empty where there are none."""
    return {f"{path}.{attribute}" if path else attribute: mask.mask for path, _, attribute, mask in _masks(model)}


def restore_masks(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give a new module the masks that a saved state has, so that ``model.load_state_dict(state)`` fits.

    Raises GraphPruneError as :func:`put_masks` does.
    """
    found = [(match, mask) for key, mask in state.items() if (match := _KEY.fullmatch(key)) is not None]
    put_masks(model, {f"{match[1]}.{match[2]}" if match[1] else match[2]: mask for match, mask in found})


def bake(model: nn.Module, names: Collection[str] | None = None) -> None:
    """Make the zeros of all masks (or those of these parameters) numbers of the parameters, and remove the masks: the
    module is a plain one again, its parameters the same objects. Nothing happens where there are no masks."""
    for path, owner, attribute, _ in list(_masks(model)):
        if names is None or (f"{path}.{attribute}" if path else attribute) in names:
            _remove(owner, attribute, keep_zeros=True)


def _chosen(
    model: nn.Module, found: Mapping[str, Place], name: str, mask: Array | Tensor
) -> Iterator[tuple[Place, Tensor]]:
    if name not in found or not found[name].is_parameter:
        path, _, attribute = name.rpartition(".")
        owner = dict(model.named_modules()).get(path)
        if owner is not None and parametrize.is_parametrized(owner, attribute):
            raise parametrized_already(name)
        raise GraphPruneError("GP504", f"the model has no parameter {name!r}", type(model).__name__)
    place = found[name]
    as_tensor = torch.as_tensor(np.ascontiguousarray(mask) if isinstance(mask, np.ndarray) else mask)
    if as_tensor.shape != place.tensor.shape or as_tensor.dtype != torch.bool:
        what = (
            f"a mask of {as_tensor.dtype} and shape {tuple(as_tensor.shape)} does not fit {tuple(place.tensor.shape)}"
        )
        raise GraphPruneError("GP504", what, name, "give one boolean for each number of the parameter")
    seen = set()
    for other in found.values():
        if other.tensor is place.tensor and (id(other.owner), other.attribute) not in seen:
            seen.add((id(other.owner), other.attribute))
            yield other, as_tensor.to(place.tensor.device)


def _register(place: Place, mask: Tensor) -> None:
    owner = place.owner
    chains: Any = owner.parametrizations if parametrize.is_parametrized(owner) else {}
    earlier = [chain[0].order for chain in chains.values() if isinstance(chain[0], SparseMask)]
    order = earlier[0] if earlier else (*owner._parameters, *owner._buffers)
    # unsafe: leaves out the check that shape and type stay, which computes the tensor
    parametrize.register_parametrization(owner, place.attribute, SparseMask(mask.clone(), order), unsafe=True)


def _masks(model: nn.Module) -> Iterator[tuple[str, nn.Module, str, SparseMask]]:
    """Path and module, attribute and mask of everything that is masked, each once."""
    for path, owner in model.named_modules():
        if not parametrize.is_parametrized(owner):
            continue
        chains: Any = owner.parametrizations
        for attribute, chain in chains.items():
            if len(chain) == 1 and isinstance(chain[0], SparseMask):
                yield path, owner, attribute, chain[0]


def _remove(owner: nn.Module, attribute: str, *, keep_zeros: bool) -> None:
    chains: Any = owner.parametrizations
    mask, original = chains[attribute][0], chains[attribute].original
    if keep_zeros:
        with torch.no_grad():
            original.copy_(mask(original))
    own_class(owner)
    parametrize.remove_parametrizations(owner, attribute, leave_parametrized=False)
    in_order(owner, mask.order)
