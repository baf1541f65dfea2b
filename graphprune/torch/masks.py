"""Masks: a plan to look at before cutting, as parametrizations that show removed entries of every tensor as zero.

The model keeps its sizes, its parameters (as objects, for optimizers) and their numbers; only what its code reads is
masked. Imports torch; of this package tensors.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.utils import parametrize

from graphprune.errors import GraphPruneError
from graphprune.torch.tensors import Place, cuts_by_tensor, fits_dense, places, shown_axes

if TYPE_CHECKING:
    from graphprune.cuts import Cuts
    from graphprune.program import Array
    from graphprune.torch.tensors import Axes

_PLAIN = "_graphprune_unmasked"
"""The attribute of a masked model that holds the cuts of buffers which cannot be masked."""


class Mask(nn.Module):
    """Shows a tensor with zeros where entries are to be removed; their gradients are zero.

    Holds one buffer `axis_0`, `axis_1`, ... of booleans for each axis that loses entries, of the rank of the tensor.
    """

    def __init__(self, shape: torch.Size, axes: Axes, device: torch.device, order: tuple[str, ...], persistent: bool):
        """Make a mask.

        order:      names of the parameters and buffers of the module as they were, which unmasking restores
        persistent: whether the masked tensor belongs to the state dict
        """
        super().__init__()
        self.order = order
        self.persistent = persistent
        for axis, kept in axes.items():
            stays = torch.zeros(shape[axis], dtype=torch.bool)
            stays[torch.as_tensor(kept, dtype=torch.int64)] = True
            view = [1] * len(shape)
            view[axis] = -1
            self.register_buffer(f"axis_{axis}", stays.view(view).to(device))

    def forward(self, tensor: Tensor) -> Tensor:
        """The masked tensor. Not a product: that would keep what is not finite, and the sign of zero."""
        for stays in self.buffers():
            tensor = torch.where(stays, tensor, torch.zeros((), dtype=tensor.dtype, device=tensor.device))
        return tensor

    def axes(self) -> dict[int, Array]:
        """What is kept of each axis that loses entries."""
        return {
            int(name.removeprefix("axis_")): np.flatnonzero(stays.cpu().numpy()).astype(np.int64)
            for name, stays in self.named_buffers()
        }


def mask(model: nn.Module, cuts: Cuts) -> None:
    """Show every tensor of the model with zeros where the cuts remove entries; undone by :func:`unmask`.

    Parameters stay the same objects, tied ones stay tied, and gradients of removed entries are zero. Buffers are masked
    where they hold floating numbers that nothing updates: not the statistics of a batch norm, of which the removed ones
    are not read any more, and not indices or booleans. All or nothing.
    Raises GraphPruneError: GP103 where a tensor is parametrized already or masked, GP504 where the cuts do not fit.
    """
    found = places(model)
    chosen = list(_chosen(model, cuts, found))
    done: list[tuple[nn.Module, str]] = []
    plain: dict[str, Axes] = {}
    try:
        for name, place, axes in chosen:
            if not _can_be_masked(place):
                plain[name] = axes
                continue
            _register(place, axes)
            done.append((place.owner, place.attribute))
    except BaseException:
        for owner, attribute in reversed(done):
            _remove(owner, attribute)
        raise
    vars(model)[_PLAIN] = plain


def unmask(model: nn.Module) -> None:
    """Remove the masks of :func:`mask`, if there are any: the model is what it was, with what was learnt since."""
    for _, owner, attribute, _ in list(_masks(model)):
        _remove(owner, attribute)
    vars(model).pop(_PLAIN, None)


def masked_cuts(model: nn.Module) -> dict[str, dict[int, Array]]:
    """The cuts that the masks of a model show, with each tied tensor once; empty where there are none.

    Found in the masks themselves, so that a model whose state was loaded has the cuts of that state; those of buffers
    that cannot be masked are known only to the model that was masked and its copies.
    """
    found: dict[str, dict[int, Array]] = {}
    seen = set()
    for path, owner, attribute, kept in _masks(model):
        original = _chains(owner)[attribute].original
        if id(original) not in seen:
            seen.add(id(original))
            found[f"{path}.{attribute}" if path else attribute] = kept.axes()
    plain = {name: dict(axes) for name, axes in vars(model).get(_PLAIN, {}).items()}
    return {**found, **plain}


def _chosen(model: nn.Module, cuts: Cuts, found: dict[str, Place]) -> Iterator[tuple[str, Place, Axes]]:
    """Every place that holds a tensor of the cuts, under each of the names that a tied one has, checked."""
    by_tensor = cuts_by_tensor(cuts, {name: place.tensor for name, place in found.items()})
    for name in cuts:
        if name not in found:
            raise _not_there(model, name)
    seen = set()
    for name, place in found.items():
        if id(place.tensor) not in by_tensor or (id(place.owner), place.attribute) in seen:
            continue
        seen.add((id(place.owner), place.attribute))
        axes = by_tensor[id(place.tensor)][1]
        if not fits_dense(place.tensor.shape, axes):
            what = f"the shape {tuple(place.tensor.shape)} does not fit the cut: {shown_axes(axes)}"
            raise GraphPruneError("GP504", what, name)
        if isinstance(place.owner, parametrize.ParametrizationList):
            raise parametrized_already(name)
        if isinstance(place.owner, torch.jit.ScriptModule):
            what = "a module of TorchScript cannot be parametrized"
            raise GraphPruneError("GP103", what, name, "mask the module before it is scripted")
        yield name, place, axes


def _not_there(model: nn.Module, name: str) -> GraphPruneError:
    path, _, attribute = name.rpartition(".")
    try:
        owner = model.get_submodule(path)
    except AttributeError:
        return GraphPruneError("GP504", f"the model has no tensor {name!r}", type(model).__name__)
    if parametrize.is_parametrized(owner, attribute):
        return parametrized_already(name)
    return GraphPruneError("GP504", f"the model has no tensor {name!r}", type(model).__name__)


def parametrized_already(name: str) -> GraphPruneError:
    """GP103 for a tensor that something else computes."""
    remedy = "unmask(model) removes masks; torch.nn.utils.parametrize.remove_parametrizations removes others"
    return GraphPruneError("GP103", "the tensor is parametrized already, so a mask cannot be put on it", name, remedy)


def _can_be_masked(place: Place) -> bool:
    if place.is_parameter:
        return True
    number = place.tensor.is_floating_point() or place.tensor.is_complex()
    # The code of a batch norm updates them in place: through a mask, it would update a copy that is thrown away.
    return number and not isinstance(place.owner, _NormBase)


def _register(place: Place, axes: Axes) -> None:
    owner, attribute = place.owner, place.attribute
    earlier = [chain[0].order for chain in _chains(owner).values() if isinstance(chain[0], Mask)]
    order = earlier[0] if earlier else (*owner._parameters, *owner._buffers)
    kept = Mask(place.tensor.shape, axes, place.tensor.device, order, place.persistent)
    # unsafe: leaves out the check that shape and type stay, which computes the tensor
    parametrize.register_parametrization(owner, attribute, kept, unsafe=True)
    if not place.persistent:
        _chains(owner)[attribute]._non_persistent_buffers_set.add("original")
        kept._non_persistent_buffers_set.update(kept._buffers)


def _chains(owner: Any) -> Any:
    """The parametrizations of each attribute of a module, in the order of their application."""
    return owner.parametrizations if parametrize.is_parametrized(owner) else {}


def _masks(model: nn.Module) -> Iterator[tuple[str, nn.Module, str, Mask]]:
    """Path and module, attribute and mask of everything that is masked, each once."""
    for path, owner in model.named_modules():
        for attribute, chain in _chains(owner).items():
            if len(chain) == 1 and isinstance(chain[0], Mask):
                yield path, owner, attribute, chain[0]


def _remove(owner: nn.Module, attribute: str) -> None:
    kept = _chains(owner)[attribute][0]
    own_class(owner)
    parametrize.remove_parametrizations(owner, attribute, leave_parametrized=False)
    if not kept.persistent:
        owner._non_persistent_buffers_set.add(attribute)
    in_order(owner, kept.order)


def own_class(owner: nn.Module) -> None:
    """Give a parametrized module a class that no other one has.

    The properties of its tensors are in its class; a deep copy of a module has the same class, and removing the
    parametrization of the one would take the property from the other.
    """
    kind = type(owner)
    own = {name: value for name, value in vars(kind).items() if name not in {"__dict__", "__weakref__"}}
    owner.__class__ = type(kind.__name__, kind.__bases__, own)


def in_order(owner: nn.Module, order: tuple[str, ...]) -> None:
    """Have a module hold its parameters and buffers in this order; what it does not name comes last.

    Removing a parametrization appends the tensor, and optimizers and averages go by the order of parameters.
    """
    held: Any
    for held in (owner._parameters, owner._buffers):
        known = [name for name in order if name in held]
        for name in [*known, *(name for name in list(held) if name not in known)]:
            held[name] = held.pop(name)
