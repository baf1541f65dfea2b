"""The tensors of a module by name, and how they lose entries without losing their identity.

Imports torch; of this package only pruned.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from graphprune.dialects.aten.gather import gathered
from graphprune.errors import GraphPruneError

if TYPE_CHECKING:
    from graphprune.cuts import Cuts
    from graphprune.program import Array

    Axes = Mapping[int, Array]
    """Axis of a tensor -> the positions that are kept of it."""


@dataclass(frozen=True)
class Place:
    """Where a module holds a parameter or a buffer.

    persistent: whether it belongs to the state dict
    """

    owner: nn.Module
    attribute: str
    tensor: Tensor
    persistent: bool

    @property
    def is_parameter(self) -> bool:
        return self.attribute in self.owner._parameters

    def put(self, tensor: Tensor) -> None:
        """Have the module hold another tensor here."""
        if self.is_parameter:
            setattr(self.owner, self.attribute, tensor)  # not _parameters: recurrent modules keep a list of their own
        else:
            self.owner._buffers[self.attribute] = tensor


def places(module: nn.Module) -> dict[str, Place]:
    """Every parameter and buffer by name; one that has several names is there under each."""
    found = {}
    for path, owner in module.named_modules(remove_duplicate=False):
        prefix = f"{path}." if path else ""
        for name, tensor in owner._parameters.items():
            if tensor is not None:
                found[prefix + name] = Place(owner, name, tensor, True)
        for name, tensor in owner._buffers.items():
            if tensor is not None:
                persistent = name not in owner._non_persistent_buffers_set
                found[prefix + name] = Place(owner, name, tensor, persistent)
    return found


def cuts_by_tensor(cuts: Cuts, tensors: Mapping[str, Tensor]) -> dict[int, tuple[str, Axes]]:
    """`id` of a tensor -> its name in the cuts and what is kept of its axes; a tied tensor may be cut by any name.

    Names that are not among the tensors are passed over. Raises GraphPruneError GP504 where two names of one tensor are
    cut in different ways.
    """
    found: dict[int, tuple[str, Axes]] = {}
    for name, axes in cuts.items():
        if name not in tensors or not axes:
            continue
        before = found.setdefault(id(tensors[name]), (name, axes))
        if not same_axes(before[1], axes):
            what = f"{before[0]!r} and {name!r} are one tensor, but the cut keeps different entries of them"
            raise GraphPruneError("GP504", what, name)
    return found


def same_axes(a: Axes, b: Axes) -> bool:
    """Whether two cuts of one tensor are the same."""
    return a is b or (a.keys() == b.keys() and all(np.array_equal(a[axis], b[axis]) for axis in a))


def fits_dense(shape: Iterable[int], axes: Axes) -> bool:
    """Whether a tensor of this shape has everything that the cut keeps, and more along each of its axes."""
    sizes = list(shape)
    return all(axis < len(sizes) and sizes[axis] > max(len(kept), *kept[-1:].tolist()) for axis, kept in axes.items())


def fits_cut(shape: Iterable[int], axes: Axes) -> bool:
    """Whether a tensor of this shape is what the cut leaves."""
    sizes = list(shape)
    return all(axis < len(sizes) and sizes[axis] == len(kept) for axis, kept in axes.items())


def laid_out(tensor: Tensor, like: Tensor) -> Tensor:
    """The tensor with the strides of another one of its shape.

    Fused optimizers walk a parameter, its gradient and its state side by side in memory.
    """
    if tensor.layout != torch.strided or tensor.stride() == like.stride():
        return tensor
    return torch.empty_like(like, dtype=tensor.dtype, device=tensor.device, requires_grad=False).copy_(tensor)


@contextmanager
def plain_mode() -> Iterator[None]:
    """Tensors made within this can be trained with later, even when the caller is in inference mode."""
    with torch.inference_mode(False), torch.no_grad():
        yield


def replace_data(tensor: Tensor, data: Tensor) -> None:
    """Give a parameter or buffer other contents, of any shape and type; it stays the same object for everyone.

    The node that accumulates gradients remembers the shape, and lives as long as any graph that it is part of, such as
    that of the last loss. Setting data of another shape keeps it; data of another type makes torch drop it.
    """
    if tensor.requires_grad:
        other = torch.float64 if tensor.dtype != torch.float64 else torch.float32
        tensor.data = torch.empty(0, dtype=other, device=tensor.device)
    tensor.data = data


def cut_in_place(module: nn.Module, cuts: Cuts, ready: Mapping[str, Tensor] | None = None) -> None:
    """Remove entries of a module's parameters, their gradients and buffers; every tensor stays the same object.

    All or nothing; tensors that are cut already are passed over. Attributes that name sizes are not changed.
    ready: what is left of tensors, by name, where that was gathered before: the module takes it over
    Raises GraphPruneError GP504 where the module has no such tensor or one of another shape.
    """
    found = places(module)
    for name, axes in cuts.items():
        if name not in found:
            raise GraphPruneError("GP504", f"the module has no tensor {name!r}", type(module).__name__)
        shape = found[name].tensor.shape
        if not fits_dense(shape, axes) and not fits_cut(shape, axes):
            raise GraphPruneError("GP504", f"the shape {tuple(shape)} does not fit the cut: {shown_axes(axes)}", name)
    tensors = {name: place.tensor for name, place in found.items()}
    by_id = {id(tensor): tensor for tensor in tensors.values()}
    with plain_mode():
        new = []
        for key, (name, axes) in cuts_by_tensor(cuts, tensors).items():
            tensor = by_id[key]
            if fits_cut(tensor.shape, axes):
                continue
            data = gathered(tensor, axes) if ready is None or name not in ready else ready[name].detach()
            gradient = None if tensor.grad is None else laid_out(gathered(tensor.grad, axes), data)
            new.append((tensor, data, gradient))
        for tensor, data, gradient in new:
            tensor.grad = None
            replace_data(tensor, data)
            tensor.grad = gradient


def shown_axes(axes: Axes) -> str:
    """What a cut keeps, for a message.

    >>> import numpy as np
    >>> shown_axes({0: np.array([0, 2]), 1: np.array([1])})
    '2 of axis 0 up to position 2, 1 of axis 1 up to position 1'
    """
    return ", ".join(
        f"{len(kept)} of axis {axis}" + (f" up to position {kept[-1]}" if len(kept) else "")
        for axis, kept in sorted(axes.items())
    )
