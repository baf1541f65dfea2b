"""Mixed batches for distillation: inputs between two samples, which no label belongs to.

A teacher knows the inputs it was trained with by heart; what it answers between them says more about the function that
it computes. Student and teacher are given the same mixed inputs, and no labels are needed (Beyer et al., "Knowledge
distillation: a good teacher is patient and consistent", CVPR 2022). Imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from graphprune.errors import GraphPruneError, did_you_mean
from graphprune.torch.training.batches import Batch

Mix = Callable[[Tensor, Tensor], Tensor]
"""From samples [n, ...] and as many partners to what is between them."""


def _mixup(count: int) -> Mix:
    shares = torch.rand(count)

    def mix(samples: Tensor, partners: Tensor) -> Tensor:
        return torch.lerp(partners, samples, shares.to(samples).view(-1, *[1] * (samples.dim() - 1)))

    return mix


def _cutmix(count: int) -> Mix:
    area, *places = torch.rand(3).tolist()

    def mix(samples: Tensor, partners: Tensor) -> Tensor:
        if samples.dim() != 4:
            what = f"cutmix is of images [n, channels, height, width], and an input is {list(samples.shape)}"
            raise GraphPruneError("GP702", what, "option mix", "mix by mixup")
        inside = [slice(None), slice(None)]
        for place, size in zip(places, samples.shape[2:], strict=True):
            side = round(size * area**0.5)
            start = int(place * (size - side + 1))
            inside.append(slice(start, start + side))
        mixed = samples.clone()
        mixed[tuple(inside)] = partners[tuple(inside)]
        return mixed

    return mix


MIXES: dict[str, Callable[[int], Mix]] = {"mixup": _mixup, "cutmix": _cutmix}
"""From the number of samples to what is drawn for a batch.

- ``mixup``: ``u x + (1 - u) x'``, with u drawn evenly from 0..1 for each sample (Zhang et al., ICLR 2018)
- ``cutmix``: of another image a rectangle whose share of the area is drawn evenly from 0..1, the same for the whole
  batch (Yun et al., ICCV 2019)
"""


def mixes_of(chosen: str) -> tuple[str, ...]:
    """Names, with commas between them. Raises GraphPruneError: GP106 for an unknown one, GP107 for none."""
    names = tuple(each.strip() for each in chosen.split(",") if each.strip())
    if not names:
        raise GraphPruneError("GP107", "nothing says how to mix", "option mix", f"one of {', '.join(MIXES)}")
    for each in names:
        if each not in MIXES:
            raise GraphPruneError("GP106", f"there is no mix {each!r}", "option mix", did_you_mean(each, MIXES))
    return names


def mixed(batch: Batch, names: Sequence[str]) -> Batch:
    """A batch as it is, as often as not; else each sample of it mixed with another one, in one of these ways.

    All tensors of floating-point numbers among the inputs are mixed alike; labels are left out. Draws global random
    numbers. Raises GraphPruneError GP702 where there are no such tensors, or they are of several numbers of samples.
    """
    held = (batch.args, dict(batch.kwargs))
    found = [each for each in pytree.tree_leaves(held) if isinstance(each, Tensor) and each.is_floating_point()]
    counts = {len(each) if each.dim() else 0 for each in found}
    if len(counts) != 1 or counts == {0}:
        what = "inputs cannot be mixed that are no floating-point numbers, or have no first axis of samples in common"
        raise GraphPruneError("GP702", what, "option mix", "leave it out")
    if float(torch.rand(())) < 0.5:
        return Batch(*held, None)
    count = counts.pop()
    order = torch.randperm(count)
    mix = MIXES[names[int(torch.randint(len(names), ()))]](count)

    def between(leaf: object) -> object:
        return mix(leaf, leaf[order]) if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf

    args, kwargs = pytree.tree_map(between, held)
    return Batch(args, kwargs, None)
