"""Low-rank updates that keep zeros: ``W + M * (B A)`` while training, one tensor again afterwards.

LoRA is Hu et al., ICLR 2022; with the mask ``M`` of what is kept it is the MaskLoRA of PERP (Zimmer et al., 2023),
which can be merged into a sparse weight without making it dense.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from graphprune.torch.masks import Mask, in_order, own_class
from graphprune.torch.sparse_masks import SparseMask
from graphprune.torch.tensors import places


class LowRank(nn.Module):
    """Shows a tensor ``[out, ...]`` with ``b a`` added where it is kept; nothing at first, as ``b`` is zero.

    kept:  True where the tensor may change; None for everywhere
    order: names of the parameters and buffers of the module as they were, which merging restores
    """

    def __init__(self, tensor: Tensor, rank: int, kept: Tensor | None, order: tuple[str, ...]):
        super().__init__()
        self.order, self.kept = order, kept
        rows, columns = tensor.shape[0], tensor[0].numel()
        rank = min(rank, rows, columns)
        made = torch.empty(rank, columns)
        nn.init.kaiming_uniform_(made, a=5**0.5)
        self.a = nn.Parameter(made.to(tensor))
        self.b = nn.Parameter(torch.zeros(rows, rank).to(tensor))

    def forward(self, tensor: Tensor) -> Tensor:
        """The tensor with the update; what is masked stays as it is, bit by bit."""
        added = tensor + (self.b @ self.a).view_as(tensor)
        return added if self.kept is None else torch.where(self.kept, added, tensor)


def add_low_rank(model: nn.Module, rank: int) -> list[nn.Parameter]:
    """Put updates of this rank on every weight with at least two axes that has its place for itself; their parameters.

    Left out are tied weights, those of recurrent layers (whose code reads them past any parametrization), and those
    that something else than a mask computes.
    """
    made: list[nn.Parameter] = []
    for owner, attribute, original in list(_weights(model)):
        chains: Any = owner.parametrizations if parametrize.is_parametrized(owner) else {}
        chain = list(chains[attribute]) if attribute in chains else []
        orders = [each.order for other in chains.values() for each in other if hasattr(each, "order")]
        order = orders[0] if orders else (*owner._parameters, *owner._buffers)
        update = LowRank(original, rank, _kept(chain, original), order)
        # unsafe: leaves out the check that shape and type stay, which computes the tensor
        parametrize.register_parametrization(owner, attribute, update, unsafe=True)
        made += [update.a, update.b]
    return made


def merge_low_rank(model: nn.Module) -> None:
    """Add the updates to the weights, and remove them: masks stay, and every parameter is the object that it was."""
    for owner in list(model.modules()):
        if not parametrize.is_parametrized(owner):
            continue
        chains: Any = owner.parametrizations
        for attribute in list(chains):
            chain = chains[attribute]
            if not isinstance(chain[-1], LowRank):
                continue
            update = chain[-1]
            with torch.no_grad():
                chain.original.copy_(update(chain.original))
            if len(chain) > 1:
                del chain[-1]
                continue
            own_class(owner)
            parametrize.remove_parametrizations(owner, attribute, leave_parametrized=False)
            in_order(owner, update.order)


def _weights(model: nn.Module) -> Iterator[tuple[nn.Module, str, Tensor]]:
    """Module, attribute and numbers of each weight that can have an update."""
    held = [place for place in places(model).values() if place.is_parameter]
    counts: dict[int, set[tuple[int, str]]] = {}
    for place in held:
        counts.setdefault(id(place.tensor), set()).add((id(place.owner), place.attribute))
    owners = {id(chain): (owner, attribute) for owner, attribute, chain in _chains(model.modules())}
    seen = set()
    for place in held:
        tensor = place.tensor
        if id(tensor) in seen or len(counts[id(tensor)]) > 1 or tensor.dim() < 2 or not tensor.requires_grad:
            continue
        seen.add(id(tensor))
        owner, attribute = owners.get(id(place.owner), (place.owner, place.attribute))
        masked = owner is not place.owner
        if masked and not all(isinstance(each, SparseMask | Mask) for each in place.owner.children()):
            continue
        if isinstance(owner, nn.RNNBase | parametrize.ParametrizationList) or not tensor.is_floating_point():
            continue
        yield owner, attribute, tensor


def _chains(modules: Iterable[nn.Module]) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    for owner in modules:
        if parametrize.is_parametrized(owner):
            chains: Any = owner.parametrizations
            yield from ((owner, attribute, chain) for attribute, chain in chains.items())


def _kept(chain: Iterable[nn.Module], tensor: Tensor) -> Tensor | None:
    """What the masks of a tensor keep of it; None where there are none."""
    kept = None
    for each in chain:
        for mask in each.buffers():
            kept = mask.expand_as(tensor) if kept is None else kept & mask
    return kept
