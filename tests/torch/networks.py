"""Small networks whose code is written the ways in which people write it, for the tests of the PyTorch door."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn


class Convolutions(nn.Module):
    """Plain, depthwise and grouped convolutions, a batch norm, a group norm and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.grouped = nn.Conv2d(8, 12, 1, groups=4)
        self.groups = nn.GroupNorm(4, 12)
        self.head = nn.Linear(12, 5)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.depthwise(torch.relu(self.norm(self.stem(images))))
        return self.head(torch.relu(self.groups(self.grouped(hidden))).mean((2, 3)))


class Transposed(nn.Module):
    """An encoder and a decoder with transposed convolutions, one of them grouped."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(8, 12, 2, stride=2, groups=4)
        self.slope = nn.PReLU(12)
        self.last = nn.ConvTranspose2d(12, 3, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.slope(self.up(torch.relu(self.down(images)))))


class Recurrent(nn.Module):
    """An embedding, a recurrent network of two layers and a head."""

    def __init__(self, kind: type[nn.RNNBase] = nn.LSTM, **options: Any) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.recurrent = kind(6, 8, 2, batch_first=True, **options)
        self.head = nn.Linear(16 if options.get("bidirectional") else 8, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.recurrent(self.embedding(tokens))[0])


class Tied(nn.Module):
    """A feed-forward language model whose head shares the weight of its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.norm = nn.LayerNorm(8)
        self.wide = nn.Linear(8, 12)
        self.narrow = nn.Linear(12, 8)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.embedding(tokens)
        hidden = hidden + self.narrow(functional.gelu(self.wide(self.norm(hidden))))
        return self.head(hidden)


class Settings:
    """What transformers calls a config."""

    def __init__(self, **numbers: int) -> None:
        self.hidden_size = 16
        self.num_attention_heads = 4
        self.attention_head_size = 3
        self.intermediate_size = 24
        vars(self).update(numbers)


class Attention(nn.Module):
    """Attention as transformers writes it: sizes are attributes that are worked out once."""

    def __init__(self, config: Settings) -> None:
        super().__init__()
        self.config = config
        self.num_heads, self.head_dim = config.num_attention_heads, config.attention_head_size
        self.all_head_size = self.num_heads * self.head_dim
        self.scaling = self.head_dim**-0.5
        self.query = nn.Linear(config.hidden_size, self.all_head_size)
        self.key = nn.Linear(config.hidden_size, self.all_head_size)
        self.value = nn.Linear(config.hidden_size, self.all_head_size)
        self.output = nn.Linear(self.all_head_size, config.hidden_size)

    def split(self, hidden: Tensor) -> Tensor:
        return hidden.view(hidden.shape[0], hidden.shape[1], self.num_heads, self.head_dim).transpose(1, 2)

    def joined(self, hidden: Tensor) -> Tensor:
        return hidden.transpose(1, 2).reshape(hidden.shape[0], hidden.shape[2], self.all_head_size)

    def forward(self, hidden: Tensor) -> Tensor:
        parts = [self.split(layer(hidden)) for layer in (self.query, self.key, self.value)]
        return self.output(self.joined(functional.scaled_dot_product_attention(*parts, scale=self.scaling)))


class FromConfig(Attention):
    """Sizes are read from the configuration at every call."""

    def split(self, hidden: Tensor) -> Tensor:
        heads, width = self.config.num_attention_heads, self.config.attention_head_size
        return hidden.view(hidden.shape[0], hidden.shape[1], heads, width).transpose(1, 2)

    def joined(self, hidden: Tensor) -> Tensor:
        return hidden.transpose(1, 2).flatten(2)


class HardCoded(Attention):
    """Sizes are numbers in the code."""

    def split(self, hidden: Tensor) -> Tensor:
        return hidden.view(hidden.shape[0], hidden.shape[1], 4, 3).transpose(1, 2)

    def joined(self, hidden: Tensor) -> Tensor:
        return hidden.transpose(1, 2).reshape(hidden.shape[0], hidden.shape[2], 12)


class Block(nn.Module):
    """Some attention between two projections."""

    def __init__(self, attention: Callable[[Settings], nn.Module] = Attention) -> None:
        super().__init__()
        self.first = nn.Linear(7, 16)
        self.attention = attention(Settings())
        self.norm = nn.LayerNorm(16)
        self.last = nn.Linear(16, 5)

    def forward(self, vectors: Tensor) -> Tensor:
        hidden = self.first(vectors)
        return self.last(self.norm(hidden + self.attention(hidden)))


def images(count: int = 2) -> Tensor:
    return torch.randn(count, 3, 6, 6, generator=torch.Generator().manual_seed(count))


def tokens(count: int = 2) -> Tensor:
    return torch.randint(0, 11, (count, 5), generator=torch.Generator().manual_seed(count))


def vectors(count: int = 2) -> Tensor:
    return torch.randn(count, 5, 7, generator=torch.Generator().manual_seed(count))
