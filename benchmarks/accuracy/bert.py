"""A small encoder built as BERT is (Devlin et al., NAACL 2019), and its training on WikiText-2 by a stored recipe.

    python benchmarks/accuracy/bert.py --data FOLDER --work FOLDER

trains it to tell which byte pairs of a text were replaced, as the discriminator of ELECTRA (Clark et al., ICLR 2020)
does: 30 % of them, by pairs drawn from the text. That has a label for every token, so that some ten minutes of one core
are enough; MiniLM's own size (6 layers of 384) is not trained in that time. 4 layers of 256, heads of 32 and four times
the width inside as in MiniLM, 3.7 million parameters. The work folder keeps what llama.py keeps there.
"""

from __future__ import annotations

import argparse
import sys
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

VOCABULARY, LENGTH = 2048, 64
LAYERS, WIDTH, HEADS, HIDDEN = 4, 256, 8, 1024
REPLACED = 0.3
RECIPE = {
    "optimizer": "adamw", "rate": 1e-3, "weight_decay": 0.05, "clip": 1.0, "schedule": "one_cycle",
    "precision": "bfloat16", "seed": 0, "loss": "token_cross_entropy",
}  # fmt: skip
STEPS, BATCH = 1000, 32


class Layer(nn.Module):
    """Attention and a perceptron, each with a norm behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.first, self.second = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH)
        self.attention_norm, self.norm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.heads, self.head = HEADS, WIDTH // HEADS

    def forward(self, x: Tensor) -> Tensor:
        batch, count, _ = x.shape
        q, k, v = (
            each(x).view(batch, count, self.heads, self.head).transpose(1, 2) for each in (self.q, self.k, self.v)
        )
        found = F.scaled_dot_product_attention(q, k, v)
        x = self.attention_norm(x + self.o(found.transpose(1, 2).reshape(batch, count, self.heads * self.head)))
        return self.norm(x + self.second(F.gelu(self.first(x))))


class Encoder(nn.Module):
    """Logits ``[batch, tokens, 2]``: was it replaced?"""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.position = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.head = nn.Linear(WIDTH, 2)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, numbers: Tensor) -> Tensor:
        x = self.norm(self.embedding(numbers) + self.position.weight[: numbers.shape[1]])
        for layer in self.layers:
            x = layer(x)
        logits: Tensor = self.head(x)
        return logits


def samples(text: np.ndarray, seed: int) -> tuple[Tensor, Tensor]:
    """Windows ``[windows, LENGTH]`` of tokens, some of them replaced, and which those are (1). A drawn token that is
    the one that stood there is not replaced."""
    generator = np.random.default_rng(seed)
    begin = int(generator.integers(LENGTH))
    count = (len(text) - begin) // LENGTH
    whole = text[begin : begin + count * LENGTH].astype(np.int64)
    drawn = text[generator.integers(len(text), size=len(whole))].astype(np.int64)
    shown = np.where(generator.random(len(whole)) < REPLACED, drawn, whole)
    return torch.from_numpy(shown).view(count, LENGTH), torch.from_numpy((shown != whole).astype(np.int64)).view(
        count, LENGTH
    )


@torch.no_grad()
def judged(model: nn.Module, held: tuple[Tensor, Tensor]) -> dict[str, float]:
    """The share of tokens that are told rightly, and the mean loss."""
    right, loss = 0, 0.0
    for shown, labels in zip(held[0].split(128), held[1].split(128), strict=True):
        logits = model(shown)
        right += int((logits.argmax(-1) == labels).sum())
        loss += float(F.cross_entropy(logits.transpose(1, 2), labels, reduction="sum"))
    return {"accuracy": right / held[1].numel(), "loss": loss / held[1].numel()}


def network(work: Path, text: dict[str, np.ndarray], steps: int = STEPS) -> Encoder:
    """The trained encoder, from the work folder, or trained now."""
    torch.manual_seed(0)
    model, stored = Encoder(), work / f"bert-{steps}.pt"
    if not stored.exists():

        def data(number: int) -> tuple[Tensor, Tensor]:
            return samples(text["train"], number)

        trained = gp.finetune(
            model, data, steps=steps, batch=BATCH, checkpoint=work / f"bert-{steps}", resume=True, tell=note, **RECIPE
        )  # fmt: skip
        torch.save(trained.model.state_dict(), stored)
    model.load_state_dict(torch.load(stored, weights_only=True))
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a small encoder on WikiText-2.")
    parser.add_argument("--data", type=Path, required=True, help="a folder with WikiText-2")
    parser.add_argument("--work", type=Path, required=True, help="a folder for the encoding, the state and the weights")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"of {BATCH} windows of {LENGTH} tokens")
    given = parser.parse_args()
    text = tokens(given.data, given.work, VOCABULARY)
    model = network(given.work, text, given.steps)
    for split in ("valid", "test"):
        print(f"{split}: {judged(model, samples(text[split], 0))}")


if __name__ == "__main__":
    main()
