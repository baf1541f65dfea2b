"""Gradual magnitude pruning: zeros that become more while the network is trained (Zhu and Gupta, "To prune, or not to
prune", 2017).

The smallest weights go, or those that move towards zero (Sanh, Wolf & Rush, "Movement pruning: adaptive sparsity by
fine-tuning", NeurIPS 2020): the lowest ``-sum_t w_t dL/dw_t`` over the steps ``t`` so far.

After the share ``p`` of the ramp the sparsity of every layer is ``s (1 - (1 - p)³)``: fast at first, when there is much
to spare. What is zero once stays zero. As by `gp.sparsify`, the layer that makes the output stays dense, and
convolutions of so few channels, or with one for each output, that they have no weights to lose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from graphprune.errors import GraphPruneError, did_you_mean
from graphprune.formats import parse
from graphprune.formats.format import Array, Format
from graphprune.torch.sparse_masks import masks_of, put_masks

RAMP = 0.75
"""The share of the budget in which sparsity grows; in the rest the network recovers."""
CUTS = 20
BY = ("magnitude", "movement")
"""What says which weights go."""
_SCORE = "movement"
"""The buffer beside a mask that movement is summed in: it is saved with the state."""
_FEW = 4
"""Channels of an image: a convolution that reads no more of them stays dense."""


@dataclass
class GradualZeros:
    """Masks on the weights of linear layers and convolutions that follow a training.

    names: of the weights that have a mask
    """

    model: nn.Module
    format: Format
    sparsity: float | None
    names: tuple[str, ...]
    by: str = "magnitude"

    @classmethod
    def on(
        cls,
        model: nn.Module,
        format: str,
        sparsity: float | None,
        keep_zeros: bool = False,
        head: Callable[[], nn.Module | None] = lambda: None,
        by: str = "magnitude",
    ) -> GradualZeros | None:
        """Put masks that keep everything (or all but zeros) on a model; None where no sparsity is asked for, and the
        format fixes none.

        head: finds the layer that makes the output
        by:   a name of :data:`BY`
        Raises GraphPruneError: GP106 and GP107 for the format, the share and the name, GP302 where no weight can have
        it, GP103 where one is masked already.
        """
        found = parse(format)
        if by not in BY:
            raise GraphPruneError("GP106", f"zeros cannot be chosen by {by!r}", "option zeros_by", did_you_mean(by, BY))
        if by == "movement" and sparsity is None:
            what = (
                "weights have not moved yet when a format of a fixed sparsity takes its zeros, and without one none go"
            )
            raise GraphPruneError("GP107", what, "option zeros_by", "give a sparsity that grows, such as 0.9")
        if sparsity is None and found.sparsity is None:
            return None
        if (sparsity is None) != (found.sparsity is not None) or (sparsity is not None and not 0 <= sparsity < 1):
            what = f"{sparsity!r} is no sparsity for {found}"
            raise GraphPruneError("GP107", what, "option sparsity", "a share from 0 to below 1; none where it is fixed")
        weights = dict(_weights(model, found, head()))
        if not weights:
            what = f"no linear layer or convolution can have the format {found}"
            raise GraphPruneError("GP302", what, type(model).__name__)
        zero = {name: (each.detach() == 0) & keep_zeros for name, each in weights.items()}
        put_masks(model, {name: ~each for name, each in zero.items()})
        made = cls(model, found, sparsity, tuple(weights), by)
        if by == "movement":
            for mask, _ in made._moving():
                mask.register_buffer(_SCORE, torch.zeros_like(mask.mask, dtype=torch.float32))
        return made

    def _moving(self) -> Iterator[tuple[Any, Tensor]]:
        """The mask of every weight, and the parameter that is trained."""
        for name in self.names:
            path, _, last = name.rpartition(".")
            own: Any = self.model.get_submodule(path)
            yield own.parametrizations[last][0], own.parametrizations[last].original

    def watch(self) -> None:
        """Take down how weights are about to move; between the backward pass and the step."""
        if self.by == "movement":
            for mask, weight in self._moving():
                if weight.grad is not None:
                    mask.movement.sub_(weight.grad.detach() * weight.detach())

    @property
    def cuts(self) -> int:
        """How often zeros become more; once, after the first step, where the format fixes how many there are."""
        return 1 if self.sparsity is None else CUTS

    def cut(self, progress: float, before: int) -> int:
        """Bring the masks to where they are to be after this share of the budget; how many cuts there were by then.

        before: how many there were
        """
        due = self.cuts if progress >= RAMP or self.sparsity is None else int(self.cuts * progress / RAMP)
        if due <= before:
            return before
        share = None if self.sparsity is None else self.sparsity * (1 - (1 - due / self.cuts) ** 3)
        masks = masks_of(self.model)
        for name, (mask, _) in zip(self.names, self._moving(), strict=True):
            owner = self.model.get_submodule(name.rpartition(".")[0])
            worth: Tensor = getattr(owner, name.rpartition(".")[2]).detach().abs()
            if self.by == "movement":  # what is zero stays below all others
                score = mask.movement.double()
                worth = torch.where(mask.mask, score - score.min() + torch.finfo(score.dtype).tiny, 0)
            kept = np.concatenate([self.format.project(each, share) for each in _cubes(owner, worth)])
            masks[name].copy_(_as_weight(kept, worth))
        return due


def _weights(model: nn.Module, format: Format, head: nn.Module | None) -> Iterator[tuple[str, Tensor]]:
    for path, owner in model.named_modules():
        if isinstance(owner, _ConvNd) and (owner.in_channels <= _FEW or owner.in_channels == owner.groups):
            continue
        if isinstance(owner, nn.Linear | _ConvNd) and not isinstance(owner, _ConvTransposeNd) and owner is not head:
            outputs, taps, channels = _cubes(owner, owner.weight.detach())[0].shape
            if not format.misfit(outputs, taps, channels):
                yield f"{path}.weight" if path else "weight", owner.weight


def _cubes(owner: Any, weight: Tensor) -> list[Array]:
    """A weight as formats see it: ``[outputs, taps, channels]`` for each group."""
    flat: Array = weight.double().cpu().numpy().reshape(*weight.shape[:2], -1).swapaxes(1, 2)
    return np.split(flat, getattr(owner, "groups", 1))


def _as_weight(cube: Array, weight: Tensor) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(cube.swapaxes(1, 2))).reshape(weight.shape).to(weight.device)
