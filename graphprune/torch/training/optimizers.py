"""Optimizers by name, with the learning rate that each usually has. Imports torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from graphprune.errors import GraphPruneError, did_you_mean

Make = Callable[[list[Any]], Optimizer]
"""From parameters (or groups of them) to an optimizer, as the classes of `torch.optim` are called."""


@dataclass(frozen=True)
class _Kind:
    make: Callable[[list[Any], float], Optimizer]
    rate: float


OPTIMIZERS = {
    "sgd": _Kind(lambda groups, rate: torch.optim.SGD(groups, rate, momentum=0.9, nesterov=True), 0.01),
    "adamw": _Kind(torch.optim.AdamW, 1e-4),
}
"""``sgd`` has a momentum of 0.9 (Nesterov's), ``adamw`` the decays of moments that are usual."""


_FUNCTION = "give a function that makes one: lambda parameters: torch.optim.Adam(parameters, lr=1e-3)"


def _checked(made: object) -> Optimizer:
    if not isinstance(made, Optimizer):
        what = f"the function returned a {type(made).__name__}, not an optimizer"
        raise GraphPruneError("GP107", what, "option optimizer", _FUNCTION)
    return made


def optimizer_of(
    chosen: str | Make, parameters: list[nn.Parameter], rate: float | None, weight_decay: float
) -> Optimizer:
    """An optimizer of these parameters. Weights decay, vectors (biases, norms) do not.

    Raises GraphPruneError: GP106 for an unknown name, GP107 for numbers out of range, for what is no optimizer, and for
    a rate beside a function, which has one.
    """
    if callable(chosen):
        if rate is not None:
            what = "a function that makes an optimizer gives it its learning rate"
            raise GraphPruneError("GP107", what, "option rate", "leave one of the two out")
        return _checked(chosen(parameters))
    if isinstance(chosen, Optimizer):
        raise GraphPruneError("GP107", "an optimizer is made for a copy of the model", "option optimizer", _FUNCTION)
    if chosen not in OPTIMIZERS:
        remedy = did_you_mean(str(chosen), OPTIMIZERS)
        raise GraphPruneError("GP106", f"there is no optimizer {chosen!r}", "option optimizer", remedy)
    kind = OPTIMIZERS[chosen]
    for option, value, least in (
        ("rate", kind.rate if rate is None else rate, 1e-12),
        ("weight_decay", weight_decay, 0),
    ):
        if isinstance(value, bool) or not least <= value < math.inf:
            raise GraphPruneError("GP107", f"{value!r} is out of range", f"option {option}")
    matrices = [each for each in parameters if each.dim() > 1]
    vectors = [each for each in parameters if each.dim() <= 1]
    groups = [{"params": held, "weight_decay": decay}
              for held, decay in ((matrices, weight_decay), (vectors, 0.0)) if held]  # fmt: skip
    return kind.make(groups, kind.rate if rate is None else rate)
