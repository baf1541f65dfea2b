"""A small network with everything that has a state (BatchNorm, dropout, bias, a tied weight) and data it can learn."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import graphprune as gp


class Pupil(nn.Module):
    """Two convolutions in a residual block, dropout, and two linear layers."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.inner = nn.Conv2d(8, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.outer = nn.Conv2d(width, 8, 3, padding=1)
        self.block = nn.Identity()
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Tensor:
        hidden = torch.relu(self.stem(images))
        hidden = self.block(hidden + self.outer(torch.relu(self.norm(self.inner(hidden)))))
        return self.head(self.drop(torch.relu(hidden).mean((2, 3))))


def pupil(seed: int = 0, width: int = 8) -> Pupil:
    torch.manual_seed(seed)
    return Pupil(width).eval()


def data(count: int = 96, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images ``[n, 3, 6, 6]`` of which one channel is brighter, and which one."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 3, 6, 6, generator=generator)
    labels = torch.arange(count) % 3
    images[torch.arange(count), labels] += 0.7
    return images, labels


def taught(model: nn.Module, **options: Any) -> Any:
    """A short training."""
    given = {"batch": 16, "rate": 0.1, **options}
    if not {"epochs", "steps", "minutes"} & given.keys():
        given["epochs"] = 2
    return gp.finetune(model, given.pop("data", data()), **given)


def same(first: nn.Module, second: nn.Module) -> bool:
    """Whether two modules hold the same bits."""
    one, other = first.state_dict(), second.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
