"""What needs training: masks at initialisation, gradual pruning, and ways to retrain, on Fashion-MNIST.

    python benchmarks/accuracy/from_scratch.py --data FOLDER [--sparsity 0.9,0.98] [--images 20000] [--epochs 6]
        [--seeds 0,1,2] [--only ticket,dense] [--rounds 5] [--json PATH]

FOLDER has the four gz files of https://github.com/zalandoresearch/fashion-mnist. A small convolutional network is
trained from nothing by `gp.finetune`; zeros are unstructured, in all weights. Four kinds of rows, each with the same
number of steps in all its rows:

- *init*: masks of the untrained network, then training: drawn at random (the same share in each layer, ERK, smart
  ratios), SNIP and GraSP (on 512 images), SynFlow (100 rounds); ERK and smart ratios divide the zeros among all layers,
  and the last three rank all weights of the network together, as their papers do.
- *while*: gradual magnitude pruning within the same steps.
- *after*: the trained dense network, its smallest weights zero, retrained for half of the steps
  more: at its last learning rate, with the whole schedule replayed (rewinding), and with few parameters (norms and
  biases; low-rank updates beside them). Beside *rewinding* the same with the weights of all layers ranked together, by
  size and by LAMP (Lee et al., ICLR 2021).
- *ticket*: rounds of training and removing the smallest weights of the whole network, and training once more (Frankle
  et al., ICML 2020). After each round the weights go back to what they were after a twentieth of the steps, or
  (*rate rewound*; Renda et al., ICLR 2020) they go on as they are, and only the schedule is replayed from there. *drawn
  anew* is the network of the same zeros with other weights at the start, trained once.

Where weights are not ranked together, the first and the last layer stay dense and the two others have the same
share of zeros; the share of all weights is the same in every row.

Accuracy is that of all 10,000 test images after the last step; nothing was chosen by it. Rows are written as they
come; with --json, rows that the file already has are not run again.
"""

from __future__ import annotations

import argparse
import copy
import gzip
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent)]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from measure import Stopwatch, machine, note, table, write_json  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import graphprune as gp  # noqa: E402
from graphprune.torch import bake, masks_of, put_masks, rewind  # noqa: E402
from graphprune.torch.training.schedule import SCHEDULES  # noqa: E402

Data = tuple[Tensor, Tensor]
_RATE, _FEW_RATE, _BATCH = 0.05, 0.05, 128
_ROUNDS = 100
_EARLY, _OTHER = 0.05, 1000
"""The share of the steps to which a lottery ticket goes back, and what is added to a seed for weights drawn anew."""


def read(folder: Path, split: str, count: int | None = None) -> Data:
    """Images in -1..1, float32 [n, 1, 28, 28], and labels of "train" or "t10k"."""
    images = np.frombuffer(gzip.decompress((folder / f"{split}-images-idx3-ubyte.gz").read_bytes()), np.uint8, -1, 16)
    labels = np.frombuffer(gzip.decompress((folder / f"{split}-labels-idx1-ubyte.gz").read_bytes()), np.uint8, -1, 8)
    pixels = torch.from_numpy(images.reshape(-1, 1, 28, 28)[:count].astype(np.float32)) / 127.5 - 1
    return pixels, torch.from_numpy(labels[:count].astype(np.int64))


def network(seed: int) -> nn.Module:
    """Two convolutions and two linear layers, about 107,000 weights."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32 * 49, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


def weights(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: each for name, each in model.named_parameters() if each.dim() > 1}


# ------------------------------------------------------------------ masks
Masks = dict[str, Tensor]


def uniform(scores: dict[str, Tensor], sparsity: float) -> Masks:
    """The largest scores of each layer but the first and the last, which stay dense."""
    inner = list(scores)[1:-1]
    share = inner_share({name: each.numel() for name, each in scores.items()}, sparsity)
    return {
        name: _largest(each.flatten(), share).view_as(each)
        if name in inner
        else torch.ones_like(each, dtype=torch.bool)
        for name, each in scores.items()
    }


def inner_share(sizes: dict[str, int], sparsity: float) -> float:
    """The sparsity of all layers but the first and the last that makes that of the network."""
    return sparsity * sum(sizes.values()) / sum(list(sizes.values())[1:-1])


def together(scores: dict[str, Tensor], sparsity: float) -> Masks:
    """The largest scores of all layers together."""
    parts = _largest(torch.cat([each.flatten() for each in scores.values()]), sparsity).split(
        [each.numel() for each in scores.values()]
    )
    return {name: part.view_as(each) for (name, each), part in zip(scores.items(), parts, strict=True)}


def _largest(scores: Tensor, sparsity: float) -> Tensor:
    kept = torch.zeros(len(scores), dtype=torch.bool)
    kept[scores.topk(round(len(scores) * (1 - sparsity))).indices] = True
    return kept


def random(model: nn.Module, batch: Data, sparsity: float) -> Masks:
    return uniform({name: torch.rand_like(each) for name, each in weights(model).items()}, sparsity)


def smart(model: nn.Module, batch: Data, sparsity: float) -> Masks:
    """By chance, with smart ratios for the layers (Su et al., NeurIPS 2020)."""
    return by_chance(model, batch, sparsity, "smart")


def erk(model: nn.Module, batch: Data, sparsity: float) -> Masks:
    """By chance, with the densities of ERK (Liu et al., ICLR 2022)."""
    return by_chance(model, batch, sparsity, "erk")


def by_chance(model: nn.Module, batch: Data, sparsity: float, allocate: str) -> Masks:
    options = {"format": "unstructured", "criterion": "random", "seed": int(torch.initial_seed())}
    found = gp.sparsify(model, batch[0][:1], sparsity=sparsity, allocate=allocate, only=["*"], verify=False, **options)
    return {name: torch.from_numpy(found.masks[name]) for name in weights(model)}


def snip(model: nn.Module, batch: Data, sparsity: float) -> Masks:
    """``|g w|`` (Lee et al., ICLR 2019)."""
    held = weights(model)
    gradients = torch.autograd.grad(F.cross_entropy(model(batch[0]), batch[1]), list(held.values()))
    return together({n: (g * w).abs().detach() for (n, w), g in zip(held.items(), gradients, strict=True)}, sparsity)


def grasp(model: nn.Module, batch: Data, sparsity: float) -> Masks:
    """``-w Hg``: what the gradient's length loses without a weight; the largest are removed, at a temperature of 200
    (Wang et al., ICLR 2020)."""
    held = weights(model)
    loss = F.cross_entropy(model(batch[0]) / 200, batch[1])
    gradients = torch.autograd.grad(loss, list(held.values()), create_graph=True)
    length = sum((g.detach() * g).sum() for g in gradients)
    products = torch.autograd.grad(length, list(held.values()))  # type: ignore[arg-type]
    # the paper keeps the smallest of -w Hg
    return together({n: (w * h).detach() for (n, w), h in zip(held.items(), products, strict=True)}, sparsity)


def synflow(model: nn.Module, batch: Data, sparsity: float) -> Masks:
    """``|w| dR/d|w|`` for the sum R of the outputs of the network with positive weights on an input of ones, in 100
    rounds (Tanaka et al., NeurIPS 2020); without statistics of batches."""
    model = model.eval().double()
    held = weights(model)
    with torch.no_grad():
        for each in held.values():
            each.abs_()
    masks = {name: torch.ones_like(each, dtype=torch.bool) for name, each in held.items()}
    for turn in range(1, _ROUNDS + 1):
        shown = {name: each.detach() * masks[name] for name, each in held.items()}
        for each in shown.values():
            each.requires_grad_()
        total = torch.func.functional_call(model, shown, (torch.ones_like(batch[0][:1]).double(),)).sum()
        gradients = torch.autograd.grad(total, list(shown.values()))
        scores = {n: (g * w).detach() for (n, w), g in zip(shown.items(), gradients, strict=True)}
        masks = together(scores, 1 - (1 - sparsity) ** (turn / _ROUNDS))
    return masks


INIT: dict[str, Callable[[nn.Module, Data, float], Masks]] = {
    "random": random, "random erk": erk, "random smart": smart, "snip": snip, "grasp": grasp, "synflow": synflow,
}  # fmt: skip
AFTER: dict[str, dict[str, Any]] = {
    "after: no retraining": {},
    "after: last rate": {"schedule": "constant", "rate": _RATE / 100},
    "after: rewinding": {"rate": _RATE},
    "after: norms and biases": {"train": "norms,biases", "rate": _FEW_RATE},
    "after: lora": {"train": "lora", "rank": 4, "rate": _FEW_RATE},
}
RANKED = {"after: rewinding, ranked together": "global", "after: rewinding, LAMP": "lamp"}
"""Rows whose smallest weights are those of all layers, and how `gp.sparsify` calls that."""

TICKETS = ("ticket: weights rewound", "ticket: rate rewound", "ticket: drawn anew")


# ------------------------------------------------------------------ rows
class Bench:
    """What the rows of one seed share."""

    def __init__(self, train: Data, test: Data, steps: int, seed: int, rounds: int) -> None:
        self.train, self.test, self.steps, self.seed, self.rounds = train, test, steps, seed, rounds
        self.dense: nn.Module | None = None
        self.masks: dict[float, Masks] = {}

    def trained(self, model: nn.Module, steps: int, **options: Any) -> nn.Module:
        options = {"rate": _RATE, "schedule": "cosine", **options}
        found: nn.Module = gp.finetune(model, self.train, steps=steps, batch=_BATCH, seed=self.seed, **options).model
        return found

    def base(self) -> nn.Module:
        """The dense network, trained once."""
        if self.dense is None:
            self.dense = self.trained(network(self.seed), self.steps)
        return self.dense

    def row(self, name: str, sparsity: float) -> nn.Module:
        """The network of a row."""
        if name == "dense":
            return self.base()
        if name == "while: gmp":
            model = network(self.seed)
            share = inner_share({name: each.numel() for name, each in weights(model).items()}, sparsity)
            return self.trained(model, self.steps, sparsity=share)
        if name.startswith("init: "):
            model, batch = network(self.seed), tuple(each[:512] for each in self.train)
            put_masks(model, INIT[name.removeprefix("init: ")](network(self.seed).train(), batch, sparsity))
            found = self.trained(model, self.steps)
            bake(found)
            return found
        if name in TICKETS:
            return self.ticket(name, sparsity)
        if name in RANKED:
            model = self.sparse(self.base(), sparsity, RANKED[name])
            bake(model)
            return self.trained(model, self.steps // 2, keep_zeros=True, **AFTER["after: rewinding"])
        model = copy.deepcopy(self.base())
        put_masks(model, uniform({n: w.detach().abs() for n, w in weights(model).items()}, sparsity))
        bake(model)
        options = AFTER[name]
        return self.trained(model, self.steps // 2, keep_zeros=True, **options) if options else model

    def sparse(self, model: nn.Module, sparsity: float, allocate: str) -> nn.Module:
        """Without the smallest weights of all layers."""
        options = {"format": "unstructured", "allocate": allocate, "only": ["*"], "verify": False}
        found: nn.Module = gp.sparsify(model, self.train[0][:1], sparsity=sparsity, **options).model
        return found

    def ticket(self, name: str, sparsity: float) -> nn.Module:
        """A lottery ticket, or a network of its zeros."""
        if name == "ticket: drawn anew":
            model = network(self.seed + _OTHER)
            put_masks(model, self.masks[sparsity])
            found = self.trained(model, self.steps)
            bake(found)
            return found
        few = round(_EARLY * self.steps)
        begun = few / self.steps
        model = self.trained(network(self.seed), few, schedule=lambda share: SCHEDULES["cosine"](share * begun))
        early = copy.deepcopy(model.state_dict())
        for turn in range(self.rounds + 1):
            model = self.trained(model, self.steps - few, rewind=begun)
            if turn == self.rounds:
                break
            model = self.sparse(model, 1 - (1 - sparsity) ** ((turn + 1) / self.rounds), "global")
            if name == "ticket: weights rewound":
                rewind(model, early)
                self.masks[sparsity] = {each: mask.clone() for each, mask in masks_of(model).items()}
        bake(model)
        return model


@torch.no_grad()
def accuracy(model: nn.Module, data: Data) -> float:
    model = model.float().eval()
    right = sum(
        int((model(x).argmax(1) == y).sum()) for x, y in zip(data[0].split(500), data[1].split(500), strict=True)
    )
    return right / len(data[1])


def zeros(model: nn.Module) -> float:
    held = weights(model).values()
    return sum(int((each == 0).sum()) for each in held) / sum(each.numel() for each in held)


def as_table(results: list[dict[str, Any]], shares: list[float], names: list[str]) -> str:
    """A line for each row, a column for each sparsity: the mean over seeds, the lowest and the highest."""
    lines = []
    for name in names:
        cells = []
        for share in shares:
            found = [each["accuracy"] for each in results if each["row"] == name and each["sparsity"] == share]
            text = f"{statistics.mean(found):.2%} ({min(found):.2%} to {max(found):.2%})" if found else ""
            cells.append(text)
        lines.append((name, *cells))
    return table(("row", *(f"{share:.0%} zeros" for share in shares)), lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Pruning that needs training, on Fashion-MNIST.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sparsity", default="0.9,0.98")
    parser.add_argument("--images", type=int, default=20000)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--only", default="", help="rows whose names begin with one of these; all where not given")
    parser.add_argument("--rounds", type=int, default=5, help="of a lottery ticket")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", metavar="PATH")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    note(f"machine: {machine()}")
    shares = [float(each) for each in given.sparsity.split(",")]
    train, test = read(given.data, "train", given.images), read(given.data, "t10k")
    steps = given.epochs * (len(train[1]) // _BATCH)
    names = ["dense", *(f"init: {each}" for each in INIT), "while: gmp", *AFTER, *RANKED, *TICKETS]
    names = [name for name in names if any(name.startswith(part) for part in given.only.split(","))]
    done: list[dict[str, Any]] = []
    if given.json and Path(given.json).exists():
        done = json.loads(Path(given.json).read_text())["results"]["runs"]
    for seed in [int(each) for each in given.seeds.split(",")]:
        bench = Bench(train, test, steps, seed, given.rounds)
        for share in shares:
            for name in names:
                if any((each["row"], each["sparsity"], each["seed"]) == (name, share, seed) for each in done):
                    continue
                if name == "ticket: drawn anew" and share not in bench.masks:
                    bench.row("ticket: weights rewound", share)
                watch = Stopwatch()
                with watch("row"):
                    model = bench.row(name, share)
                found = {"row": name, "sparsity": share, "seed": seed, "accuracy": accuracy(model, test),
                         "zeros": zeros(model), "seconds": watch.phases["row"], "steps": steps}  # fmt: skip
                done.append(found)
                note(f"seed {seed}, {share:g}, {name}: {found['accuracy']:.2%}, {found['zeros']:.2%} zeros")
                write_json(given.json, "accuracy_from_scratch", {"images": given.images, "runs": done})
    print(as_table(done, shares, names))


if __name__ == "__main__":
    main()
