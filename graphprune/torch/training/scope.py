"""Which parameters are trained: all, or the few that PERP shows to be enough (Zimmer et al., 2023)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from graphprune.dialects.aten.capture import evaluating
from graphprune.errors import GraphPruneError
from graphprune.torch.training.batches import Batch, Source, first
from graphprune.torch.training.lora import add_low_rank
from graphprune.torch.training.metric import run
from graphprune.torch.training.randomness import seeded

KINDS = {
    "all": "every parameter",
    "norms": "scales and shifts of normalisations",
    "biases": "everything that is called a bias",
    "head": "the last layer that runs",
    "lora": "low-rank updates of all weights, norms and biases (PERP)",
}
_ORIGINAL = re.compile(r"(^|\.)parametrizations\.([^.]+)\.original\d*$")


def plain_name(name: str) -> str:
    """The name of a parameter as it is without masks.

    >>> plain_name("block.parametrizations.weight.original")
    'block.weight'
    """
    return _ORIGINAL.sub(r"\1\2", name)


def names_of(train: str | Sequence[str]) -> tuple[str, ...]:
    """What is to be trained, one by one. Raises GraphPruneError GP107 for nothing."""
    names = train.split(",") if isinstance(train, str) else list(train)
    found = tuple(name.strip() for name in names if name.strip())
    if not found:
        raise GraphPruneError("GP107", "nothing is to be trained", "option train", f"one of {', '.join(KINDS)}")
    return found


def choose(model: nn.Module, train: Sequence[str], rank: int, source: Source) -> list[str]:
    """Names of the parameters to train; adds low-rank updates to the model where they are asked for.

    train:   kinds, or patterns of names of parameters
    source: of data, on the first batch of which the model is run where its head is asked for
    Parameters that need no gradient stay as they are. Raises GraphPruneError GP107 where nothing matches.
    """
    chosen: set[int] = set()
    for each in train:
        free = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        found = [free[name] for name in _of_kind(model, each, free, source)]
        if each == "lora":
            found += add_low_rank(model, rank)
        if not found:
            if not free:
                remedy = "model.requires_grad_(True), or of those that are to be trained"
                raise GraphPruneError("GP107", "every parameter of the model is frozen", "option train", remedy)
            known = f"give one of {', '.join(KINDS)}, or a pattern of names such as 'layer3.*'"
            raise GraphPruneError("GP107", f"no parameter that can be trained is {each!r}", "option train", known)
        chosen |= {id(parameter) for parameter in found}
    return [name for name, parameter in model.named_parameters() if id(parameter) in chosen]


def _of_kind(model: nn.Module, kind: str, free: dict[str, Any], source: Source) -> list[str]:
    if kind == "all":
        return list(free)
    if kind == "norms":
        return [name for name in free if _is_norm(_owner(model, name))]
    if kind == "biases":
        return [name for name in free if plain_name(name).rpartition(".")[2].endswith("bias")]
    if kind == "head":
        head = head_of(model, source)
        return [name for name in free if _owner(model, name) is head]
    if kind == "lora":
        return [*_of_kind(model, "norms", free, source), *_of_kind(model, "biases", free, source)]
    return [name for name in free if fnmatchcase(plain_name(name), kind)]


def is_batch_norm(module: nn.Module) -> bool:
    """Whether a module keeps statistics of what it has seen."""
    return isinstance(module, _NormBase) and module.track_running_stats


def _is_norm(module: nn.Module) -> bool:
    known = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
    return isinstance(module, known) or "norm" in type(module).__name__.lower()


def _owner(model: nn.Module, name: str) -> nn.Module:
    found = model.get_submodule(plain_name(name).rpartition(".")[0])
    assert isinstance(found, nn.Module)
    return found


def head_of(model: nn.Module, source: Source) -> nn.Module | None:
    """The module with a weight of its own that is called last on the first batch; None where the code calls no modules
    (a graph)."""
    called: list[nn.Module] = []
    owners = {_owner(model, name) for name, each in model.named_parameters() if each.dim() > 1}
    batch = Batch.of(first(source)).to(next(model.parameters()).device)
    handles = [each.register_forward_hook(lambda module, *_: called.append(module)) for each in owners - {model}]
    try:
        with evaluating(model), seeded(None), torch.no_grad():
            run(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    return called[-1] if called else None
