"""Muon: a momentum that is made orthogonal before it moves the weights. No part of the product, as it won nothing here.

Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024: the momentum of a weight, read as a
matrix ``[outputs, inputs of one of them]``, gives way to the matrix nearest to it whose singular values are all 1, so
that directions of small gradients move as far as those of large ones. Newton-Schulz steps come near to it by products
alone. Updates are as long as those of AdamW (0.2 for each entry; Liu et al., "Muon is scalable for LLM training",
2025), which moves the vectors (biases, norms) at the same rate.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

_STEPS = 5
_QUINTIC = (3.4445, -4.7750, 2.0315)
_LENGTH = 0.2


def orthogonal(matrix: Tensor) -> Tensor:
    """Nearly ``U V'`` of a matrix ``U S V'`` (or of several, in the last two axes): singular values that are no less
    than a hundredth of its length come between 0.6 and 1.3, and zeros stay.

    >>> orthogonal(torch.tensor([[3.0, 0.0], [0.0, -4.0]])).round().tolist()
    [[1.0, 0.0], [0.0, -1.0]]
    """
    a, b, c = _QUINTIC
    found: Tensor = matrix / matrix.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-12)
    tall = found.shape[-2] > found.shape[-1]
    if tall:
        found = found.mT
    for _ in range(_STEPS):
        square = found @ found.mT
        found = a * found + (b * square + c * square @ square) @ found
    return found.mT if tall else found


def muon(parameters: list[Tensor], rate: float, weight_decay: float = 5e-4) -> Muon:
    """Muon of a network, whose vectors do not decay."""
    matrices = [each for each in parameters if each.dim() > 1]
    vectors = [each for each in parameters if each.dim() <= 1]
    return Muon([{"params": matrices, "weight_decay": weight_decay}, {"params": vectors}], lr=rate)


class Muon(Optimizer):
    """Muon for weights of two axes or more, AdamW for vectors."""

    def __init__(
        self,
        params: Any,
        lr: float = 2e-4,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "betas": betas, "eps": eps,
                                  "weight_decay": weight_decay})  # fmt: skip

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                update = (_matrix if parameter.dim() > 1 else _vector)(parameter.grad, self.state[parameter], group)
                parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"])
        return loss


def _matrix(gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
    """The orthogonal one of Nesterov's momentum, at the length of an update of AdamW."""
    average = state.setdefault("momentum", torch.zeros_like(gradient))
    average.lerp_(gradient, 1 - group["momentum"])
    ahead = gradient.lerp(average, group["momentum"]).flatten(1)
    update: Tensor = orthogonal(ahead) * (_LENGTH * max(ahead.shape) ** 0.5)
    return update.view_as(gradient)


def _vector(gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
    """As of AdamW (Loshchilov and Hutter, ICLR 2019), without its decay."""
    if not state:
        state |= {"step": 0, "mean": torch.zeros_like(gradient), "square": torch.zeros_like(gradient)}
    first, second = group["betas"]
    state["step"] += 1
    mean, square = state["mean"], state["square"]
    mean.lerp_(gradient, 1 - first)
    square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
    spread = (square / (1 - second ** state["step"])).sqrt_().add_(group["eps"])
    update: Tensor = mean / (1 - first ** state["step"]) / spread
    return update
