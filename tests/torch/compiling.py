"""Networks and small tools for the tests of the backend of `torch.compile`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from graphprune.errors import GraphPruneError
from graphprune.verify import difference

IMAGES, WORDS = torch.randn(2, 3, 9, 9), torch.randint(0, 50, (2, 7))
HALF = {"macs": 0.5, "then": "eager"}


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Dynamo remembers compiled code by function."""
    torch.manual_seed(0)
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Images(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.second = nn.Conv2d(16, 24, 3, stride=2)
        self.head = nn.Linear(24, 5)
        self.scale = torch.linspace(0.5, 2, 24)  # a plain attribute

    def forward(self, images: Tensor) -> Tensor:
        hidden = torch.relu_(self.norm(self.first(images)))
        return self.head(torch.relu(self.second(hidden)).mean((2, 3)) * self.scale)


class Words(nn.Module):
    """Attention as a layer of PyTorch, and written out."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 32)
        self.attend = nn.MultiheadAttention(32, 4, batch_first=True)
        self.queries, self.keys, self.values = (nn.Linear(32, 32) for _ in range(3))
        self.norm = nn.LayerNorm(32)
        self.wide, self.narrow = nn.Linear(32, 64), nn.Linear(64, 32)
        self.out = nn.Linear(32, 50)

    def forward(self, words: Tensor) -> Tensor:
        x = self.table(words)
        x = x + self.attend(x, x, x, need_weights=False)[0]
        q, k, v = (f(x).unflatten(-1, (4, -1)).transpose(1, 2) for f in (self.queries, self.keys, self.values))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = self.norm(x + mixed.transpose(1, 2).flatten(2))
        return self.out(x + self.narrow(nn.functional.gelu(self.wide(x))))


class Broken(nn.Module):
    """Dynamo makes two graphs of it, which share a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 8))
        self.last = nn.Sequential(nn.Linear(8, 40), nn.ReLU(), nn.Linear(40, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.shared(x)
        torch._dynamo.graph_break()
        return self.last(self.shared(x))


def varied(model: nn.Module) -> nn.Module:
    """Statistics and scales that are not all alike, in evaluation mode."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.bias)
    return model.eval()


def close(a: Tensor, b: Tensor) -> bool:
    return difference(a.detach().numpy(), b.detach().numpy()) < 1e-5


class Cache(nn.Module):
    """Writes to a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.out = nn.Linear(8, 16), nn.Linear(16, 3)
        self.register_buffer("past", torch.zeros(4, 16))
        self.past: Tensor

    def forward(self, x: Tensor) -> Tensor:
        self.past[:2].copy_(self.inner(x))
        return self.out(torch.relu(self.past))


def compiled(model: Any, **options: Any) -> Any:
    return torch.compile(model, backend="graphprune", options=options)


def refusal(model: nn.Module, example: Tensor, grad: bool = False, **options: Any) -> GraphPruneError:
    with pytest.raises(GraphPruneError) as caught, torch.set_grad_enabled(grad):
        torch.compile(model, backend="graphprune", options=options)(example)
    return caught.value
