"""A small network with every kind of tensor, and cuts of it made by hand, for the tests of what follows a pruning."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from graphprune.plan import Cut, Plan
from graphprune.torch.pruned import Pruned, apply_edits, attach
from graphprune.torch.tensors import cut_in_place


class Net(nn.Module):
    """Two convolutions, a batch norm, a table outside the state dict, and a head tied to nothing."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 6, 3, padding=1, bias=False)
        self.head = nn.Linear(6, classes)
        self.register_buffer("table", torch.linspace(0.5, 2, 6), persistent=False)
        self.table: Tensor

    def forward(self, images: Tensor) -> Tensor:
        hidden = torch.relu(self.norm(self.first(images)))
        hidden = torch.relu(self.second(hidden)).mean((2, 3)) * self.table
        return self.head(hidden)


def kept(*positions: int) -> Any:
    return np.asarray(positions, np.int64)


FIRST, SECOND = kept(0, 2, 3, 5, 6), kept(1, 2, 4)
CUTS = {
    "first.weight": {0: FIRST},
    "first.bias": {0: FIRST},
    "norm.weight": {0: FIRST},
    "norm.bias": {0: FIRST},
    "norm.running_mean": {0: FIRST},
    "norm.running_var": {0: FIRST},
    "second.weight": {0: SECOND, 1: FIRST},
    "table": {0: SECOND},
    "head.weight": {1: SECOND},
}
EDITS = {
    "first": {"out_channels": 5},
    "norm": {"num_features": 5},
    "second": {"in_channels": 5, "out_channels": 3},
    "head": {"in_features": 3},
}
SHAPES = {name: tuple(tensor.shape) for name, tensor in [*Net().named_parameters(), *Net().named_buffers()]}
PLAN = Plan((Cut("first.weight:0", 8, tuple(FIRST.tolist())), Cut("second.weight:0", 6, tuple(SECOND.tolist()))))


def pruned_by(plan: Plan = PLAN, cuts: Any = CUTS, edits: Any = EDITS, **options: Any) -> Pruned:
    return Pruned(plan, cuts, edits, **options)


def prune_(model: nn.Module, pruned: Pruned | None = None) -> nn.Module:
    """What gp.prune_ does, by hand."""
    pruned = pruned or pruned_by(shapes={name: SHAPES[name] for name in CUTS})
    cut_in_place(model, pruned.cuts)
    apply_edits(model, pruned.edits)
    attach(model, pruned)
    return model


def sliced(array: Any, axes: Any) -> Any:
    """The reference: kept entries of a NumPy array, axis by axis."""
    for axis, positions in axes.items():
        array = np.take(array, positions, axis)
    return array


def pruned_copy(model: nn.Module) -> nn.Module:
    """Another module with the kept entries, made with NumPy and constructors only."""
    twin = copy.deepcopy(model)
    twin.first = nn.Conv2d(3, 5, 3, padding=1)
    twin.norm = nn.BatchNorm2d(5)
    twin.second = nn.Conv2d(5, 3, 3, padding=1, bias=False)
    twin.head = nn.Linear(3, model.head.out_features)  # type: ignore[union-attr,arg-type]
    twin.load_state_dict({
        name: torch.from_numpy(np.array(sliced(tensor.numpy(), CUTS.get(name, {}))))
        for name, tensor in model.state_dict().items()
    })  # fmt: skip
    twin.table = torch.from_numpy(sliced(model.table.numpy(), CUTS["table"]))  # type: ignore[operator,union-attr]
    return twin.train(model.training)


def holding(parameter: nn.Parameter) -> nn.Module:
    """A module with one parameter, `weight`."""
    module = nn.Module()
    module.weight = parameter
    return module


def images(seed: int, count: int = 5) -> Tensor:
    return torch.randn(count, 3, 6, 6, generator=torch.Generator().manual_seed(seed))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, seed: int = 0) -> Tensor:
    """Some steps of training; the last loss, with its graph."""
    loss = torch.zeros(())
    for step in range(steps):
        optimizer.zero_grad()
        logits = model(images(seed + step))
        loss = nn.functional.cross_entropy(logits, torch.arange(len(logits)) % logits.shape[1])
        loss.backward()
        optimizer.step()
    return loss


def snapshot(optimizer: torch.optim.Optimizer) -> Any:
    """All that a failed transplant could have changed, with the identity of every object."""
    held = [each for group in optimizer.param_groups for each in group["params"]]
    return (
        [id(each) for each in held],
        {id(key): {name: (id(value), copy.deepcopy(value)) for name, value in state.items()}
         for key, state in optimizer.state.items()},
        [None if each.grad is None else (id(each.grad), each.grad.clone()) for each in held],
    )  # fmt: skip


def same(first: Any, second: Any) -> bool:
    """Whether two nested structures hold the same objects or bit-identical tensors."""
    if isinstance(first, Tensor):
        return (
            isinstance(second, Tensor)
            and first.dtype == second.dtype
            and first.shape == second.shape
            and torch.equal(first, second)
        )
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)
