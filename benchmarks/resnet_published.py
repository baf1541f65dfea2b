"""The ResNet of https://github.com/akamaster/pytorch_resnet_cifar10 in the form that its trained weights were published
with (BSD-2): the option-A shortcut is a lambda that pads with channels of zeros, by numbers that the lambda holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LambdaLayer(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class BasicBlock(nn.Module):
    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut: nn.Module = nn.Sequential()
        if stride != 1 or before != width:
            ends = (0, 0, 0, 0, width // 4, width // 4)
            self.shortcut = LambdaLayer(lambda x: F.pad(x[:, :, ::2, ::2], ends, "constant", 0))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x)
        return F.relu(out)


class PublishedResNet(nn.Module):
    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._layer(16, 16, blocks)
        self.layer2 = self._layer(16, 32, blocks)
        self.layer3 = self._layer(32, 64, blocks)
        self.linear = nn.Linear(64, 10)

    def _layer(self, before: int, width: int, blocks: int) -> nn.Sequential:
        first = BasicBlock(before, width, 1 if before == width else 2)
        return nn.Sequential(first, *(BasicBlock(width, width, 1) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        out = F.avg_pool2d(out, out.size()[3])
        return self.linear(out.view(out.size(0), -1))


def trained(path: Path) -> PublishedResNet:
    """The network that a published file of weights belongs to; no code in the file is run."""
    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    weights = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    model = PublishedResNet(len({name.split(".")[1] for name in weights if name.startswith("layer1.")}))
    model.load_state_dict(weights)
    return model.eval()
