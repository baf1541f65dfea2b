"""Architectures at small sizes, each made with its inputs: for what is compared across dialects."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from tests.torch import networks
from tests.torch.networks import images, tokens, vectors
from tests.zoo import vision_operators

Made = tuple[nn.Module, tuple[Any, ...]]
Make = Callable[[], Made]


def _encoder() -> Made:
    layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), (torch.randn(2, 5, 16),)


def _mlp() -> Made:
    return nn.Sequential(nn.Linear(7, 12), nn.ReLU(), nn.Linear(12, 9), nn.GELU(), nn.Linear(9, 5)), (vectors(),)


class _UNet(nn.Module):
    """Two scales, with a skip that is concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.down = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.up, self.last = nn.ConvTranspose2d(12, 8, 2, stride=2), nn.Conv2d(16, 3, 3, padding=1)

    def forward(self, x: Any) -> Any:
        inner = torch.relu(self.inner(x))
        return self.last(torch.cat([inner, self.up(torch.relu(self.down(inner)))], 1))


class _Gated(nn.Module):
    """A feed-forward layer with a gate, whose two projections are one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.both, self.last = nn.Linear(7, 8), nn.Linear(8, 24), nn.Linear(12, 5)

    def forward(self, x: Any) -> Any:
        value, gate = self.both(self.first(x)).chunk(2, -1)
        return self.last(value * torch.nn.functional.silu(gate))


ARCHITECTURES: dict[str, Make] = {
    "mlp": _mlp,
    "convolutions": lambda: (networks.Convolutions(), (images(),)),
    "transposed": lambda: (networks.Transposed(), (images(),)),
    "lstm": lambda: (networks.Recurrent(), (tokens(),)),
    "gru": lambda: (networks.Recurrent(nn.GRU, bidirectional=True), (tokens(),)),
    "tied": lambda: (networks.Tied(), (tokens(),)),
    "attention": lambda: (networks.Block(), (vectors(),)),
    "hard-coded attention": lambda: (networks.Block(networks.HardCoded), (vectors(),)),
    "encoder": _encoder,
    "unet": lambda: (_UNet(), (images(),)),
    "gated": lambda: (_Gated(), (vectors(),)),
}


def _vision(name: str, size: int) -> Make:
    def made() -> Made:
        vision_operators.load()  # before torchvision is imported
        torchvision = importlib.import_module("torchvision")
        return torchvision.models.get_model(name, num_classes=10), (torch.randn(2, 3, size, size),)

    return made


_VISION = {
    "resnet18": 64, "resnet50": 64, "resnext50_32x4d": 64, "wide_resnet50_2": 64, "vgg11_bn": 64, "alexnet": 96,
    "squeezenet1_1": 64, "densenet121": 64, "mobilenet_v2": 64, "mobilenet_v3_small": 64, "mnasnet0_5": 64,
    "efficientnet_b0": 64, "regnet_y_400mf": 64, "shufflenet_v2_x0_5": 64, "convnext_tiny": 64, "googlenet": 64,
    "vit_b_16": 224, "swin_t": 64, "maxvit_t": 224, "inception_v3": 96,
}  # fmt: skip
if importlib.util.find_spec("torchvision") is not None:
    ARCHITECTURES.update({name: _vision(name, size) for name, size in _VISION.items()})
