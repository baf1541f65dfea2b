"""A small decoder built as LLaMA is (Touvron et al., 2023; grouped-query attention as in LLaMA 2), and its training on
WikiText-2 by a stored recipe.

    python benchmarks/accuracy/llama.py --data FOLDER --work FOLDER

trains it: 4.4 million parameters, 2,048 byte pairs, some twenty minutes of one core that has bf16. The work folder
keeps the encoding, the state of the training, and the weights at its end; the same command goes on after an interrupt.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from measure import note  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from wikitext import tokens  # noqa: E402

import graphprune as gp  # noqa: E402

VOCABULARY, LENGTH = 2048, 256
RECIPE = {
    "optimizer": "adamw", "rate": 3e-3, "weight_decay": 0.05, "clip": 1.0, "schedule": "one_cycle",
    "precision": "bfloat16", "seed": 0,
}  # fmt: skip
STEPS, BATCH = 1600, 8


@dataclass(frozen=True)
class Shape:
    """Sizes of a decoder."""

    layers: int = 6
    width: int = 256
    heads: int = 8
    groups: int = 4
    hidden: int = 640
    vocabulary: int = VOCABULARY
    length: int = LENGTH


class Attention(nn.Module):
    """Causal attention, whose keys and values several heads share, with rotary positions (Su et al., 2021)."""

    cos: Tensor
    sin: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads, self.groups, self.head = shape.heads, shape.groups, shape.width // shape.heads
        self.q = nn.Linear(shape.width, shape.heads * self.head, bias=False)
        self.k = nn.Linear(shape.width, shape.groups * self.head, bias=False)
        self.v = nn.Linear(shape.width, shape.groups * self.head, bias=False)
        self.o = nn.Linear(shape.heads * self.head, shape.width, bias=False)
        angles = torch.arange(shape.length)[:, None] / 10000 ** (torch.arange(0, self.head, 2) / self.head)
        self.register_buffer("cos", torch.cat([angles, angles], -1).cos(), persistent=False)
        self.register_buffer("sin", torch.cat([angles, angles], -1).sin(), persistent=False)

    def turned(self, x: Tensor) -> Tensor:
        """Queries or keys ``[batch, heads, tokens, head]`` turned by their positions."""
        first, second = x.chunk(2, -1)
        count = x.shape[2]
        return x * self.cos[:count] + torch.cat([-second, first], -1) * self.sin[:count]

    def forward(self, x: Tensor) -> Tensor:
        batch, count, _ = x.shape
        q = self.turned(self.q(x).view(batch, count, self.heads, self.head).transpose(1, 2))
        k = self.turned(self.k(x).view(batch, count, self.groups, self.head).transpose(1, 2))
        v = self.v(x).view(batch, count, self.groups, self.head).transpose(1, 2)
        found = F.scaled_dot_product_attention(q, k, v.to(q.dtype), is_causal=True, enable_gqa=True)
        return self.o(found.transpose(1, 2).reshape(batch, count, self.heads * self.head))


class Block(nn.Module):
    """Attention and a gated perceptron (SwiGLU), each behind an RMSNorm and beside a residual stream."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.attention_norm, self.norm = nn.RMSNorm(shape.width), nn.RMSNorm(shape.width)
        self.attention = Attention(shape)
        self.gate = nn.Linear(shape.width, shape.hidden, bias=False)
        self.up = nn.Linear(shape.width, shape.hidden, bias=False)
        self.down = nn.Linear(shape.hidden, shape.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        y = self.norm(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class Decoder(nn.Module):
    """Logits ``[batch, tokens, vocabulary]`` of the next token; the embedding is also the last layer."""

    def __init__(self, shape: Shape = Shape()) -> None:
        super().__init__()
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.width)
        self.head = nn.Linear(shape.width, shape.vocabulary, bias=False)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)
        for name, parameter in self.named_parameters():
            if name.endswith(("o.weight", "down.weight")):  # what adds to the stream, as GPT-2 begins
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * shape.layers))
        self.head.weight = self.embedding.weight

    def forward(self, numbers: Tensor) -> Tensor:
        x = self.embedding(numbers)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x))
        return logits


def windows(text: np.ndarray, begin: int = 0) -> Tensor:
    """Tokens ``[windows, LENGTH]``, one window after the other from ``begin`` on."""
    count = (len(text) - begin) // LENGTH
    return torch.from_numpy(text[begin : begin + count * LENGTH].astype(np.int64)).view(count, LENGTH)


@torch.no_grad()
def surprise(model: nn.Module, held: Tensor, precise: bool = True) -> tuple[float, int]:
    """The sum of ``-ln p`` of all tokens but the first of each window, and how many those are."""
    total = 0.0
    for batch in held.split(32):
        with torch.autocast("cpu", torch.bfloat16, enabled=not precise):
            logits = model(batch)
        total += float(F.cross_entropy(logits[:, :-1].float().transpose(1, 2), batch[:, 1:], reduction="sum"))
    return total, held.numel() - len(held)


def perplexity(model: nn.Module, held: Tensor, precise: bool = True) -> float:
    """``exp`` of the mean surprise of a token."""
    total, count = surprise(model, held, precise)
    return math.exp(total / count)


def network(work: Path, text: dict[str, np.ndarray], steps: int = STEPS) -> Decoder:
    """The trained decoder, from the work folder, or trained now."""
    torch.manual_seed(0)
    model, stored = Decoder(), work / f"llama-{steps}.pt"
    if not stored.exists():

        def data(number: int) -> tuple[Tensor, Tensor]:
            cut = windows(text["train"], np.random.default_rng(number).integers(LENGTH))
            return cut, cut  # each position predicts the next

        trained = gp.finetune(
            model, data, steps=steps, batch=BATCH, checkpoint=work / f"llama-{steps}", resume=True, tell=note, **RECIPE
        )  # fmt: skip
        torch.save(trained.model.state_dict(), stored)
    model.load_state_dict(torch.load(stored, weights_only=True))
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a small decoder on WikiText-2.")
    parser.add_argument("--data", type=Path, required=True, help="a folder with WikiText-2")
    parser.add_argument("--work", type=Path, required=True, help="a folder for the encoding, the state and the weights")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"of {BATCH} windows of {LENGTH} tokens")
    given = parser.parse_args()
    text = tokens(given.data, given.work, VOCABULARY)
    model = network(given.work, text, given.steps)
    for split in ("valid", "test"):
        print(f"{split}: perplexity {perplexity(model, windows(text[split])):.2f} of {len(text[split])} byte pairs")


if __name__ == "__main__":
    main()
