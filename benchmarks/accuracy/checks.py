"""What papers report of criteria, as checks with a margin, on trained ResNets of CIFAR-10.

    python benchmarks/accuracy/checks.py --data FOLDER --weights resnet56-4bfd9763.th [--only obspa,chip]
        [--images 512] [--test-images 10000] [--json PATH]

30 % fewer multiply-accumulates, widths inside residual blocks, nothing is trained; calibration images are of the
training split. Every row is the accuracy on test images; `random` is the mean of three seeds. A check is a difference
of two rows and what it is to be at least; it is told whether it holds. With --json, rows that the file has already are
not run again. docs/checks.md lists all checks.

Rows that begin with `ranks` are no accuracies: sixteen channels inside each block are removed, each alone, and the
order in which a criterion puts them is compared with that of the loss that each costs, on the same images (Molchanov et
al., CVPR 2019). They are Spearman's rank correlations, the means of all blocks.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from functools import cached_property
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent.parent / "examples")]

import cifar10_data  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from cifar10_finetune import Data, ResNet, accuracy, blocks_in, read_weights  # noqa: E402
from measure import machine, note, table, write_json  # noqa: E402
from resnet import streams  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import graphprune as gp  # noqa: E402
from graphprune.calibrate import Calibration  # noqa: E402
from graphprune.criteria.transfer import score_groups  # noqa: E402

KEPT = 0.7
_BATCH = 128
_UNIFORM = {"allocate": "uniform"}
_CHANNELS = 16
"""Channels of each block that are removed alone, drawn where there are more."""

ROWS: dict[str, dict[str, Any]] = {
    "random": {"criterion": "random", "recover": "batch_norm", **_UNIFORM},
    "l1": {"criterion": "l1", "recover": "batch_norm", **_UNIFORM},
    "l2": {"criterion": "l2", "recover": "batch_norm"},
    "taylor": {"criterion": "taylor", "recover": "batch_norm"},
    "chip": {"criterion": "chip", "recover": "batch_norm"},
    "hrank": {"criterion": "hrank", "recover": "batch_norm"},
    "obspa": {"criterion": "obspa", "normalize": "none", "recover": "obspa,batch_norm"},
    "obspa uniform": {"criterion": "obspa", "recover": "obspa,batch_norm", **_UNIFORM},
    "obspa on noise": {"criterion": "obspa", "recover": "obspa", "noise": True, **_UNIFORM},
    "depth by block influence": {"depth": 2, "recover": "batch_norm"},
    "depth by angle": {"depth": 2, "depth_by": "angular", "recover": "batch_norm"},
    "depth at random": {"depth": 2, "depth_by": "random", "recover": "batch_norm"},
    "depth by block influence, least squares": {"depth": 2, "recover": "least_squares"},
}
"""Options of `gp.prune`; those of widths keep the share above. What is computed from noise has the statistics of its
BatchNorms from images afterwards, as the others have."""

CHECKS = (
    ("l2", "random", 10.0), ("taylor", "random", 10.0), ("taylor", "l1", -1.0), ("chip", "random", 10.0),
    ("hrank", "random", 5.0), ("obspa", "l1", 3.0), ("obspa uniform", "l1", 3.0), ("obspa on noise", "random", 10.0),
    ("depth by block influence", "depth at random", 0.0), ("depth by angle", "depth at random", 0.0),
)  # fmt: skip
"""Two rows, and by how many points the first is to be above the second."""

RANKS = ("random", "l1", "l2", "taylor", "taylor_abs", "obs")
"""Criteria whose order of channels is held against losses."""

LEAST = (("ranks of taylor", 0.5),)
"""A row, and what it is to be at least."""


class Bench:
    """A trained network and its data."""

    def __init__(self, weights: dict[str, torch.Tensor], train: Data, test: Data) -> None:
        self.weights, self.train, self.test = weights, train, test

    def dense(self) -> ResNet:
        model = ResNet(blocks_in(self.weights))
        model.load_state_dict(self.weights)
        return model.eval()

    def data(self, noise: bool) -> Calibration:
        images, labels = self.train
        if noise:
            images = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
        cases = [((each,), {}) for each in images.split(_BATCH)]
        return Calibration(cases, list(labels.split(_BATCH)), data_free=noise)

    def run(self, name: str, seed: int) -> float:
        """The accuracy of one row, in percent."""
        options, model = dict(ROWS[name]), self.dense()
        noise = options.pop("noise", False)
        data = self.data(noise)
        if "depth" not in options:
            options |= {"macs": KEPT, "ignore": streams(gp.analyze(model, self.train[0][:2]))}
        result = gp.prune(model, self.train[0][:2], calibration=data, seed=seed, **options)
        share = result.report.pruned.macs / result.report.dense.macs
        note(f"{name} {seed}: {share:.1%} of the MACs")
        if noise:
            self.statistics(result.model)
        return 100 * accuracy(result.model, self.test)

    @cached_property
    def inner(self) -> tuple[Any, list[Any]]:
        """The analysis of the network, and the widths inside its residual blocks."""
        analysis = gp.analyze(self.dense(), self.train[0][:2])
        outer = streams(analysis)
        return analysis, [each for each in analysis.groups if each.name not in outer]

    @cached_property
    def losses(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each of these widths some channels, and by how much the loss rises without each of them, on the
        calibration images. What a block reads is computed once."""
        model, found = self.dense(), []
        images, labels = self.train
        with torch.no_grad():
            hidden = F.relu(model.bn1(model.conv1(images)))
            blocks = [*model.layer1, *model.layer2, *model.layer3]
            for place, block in enumerate(blocks):
                rest = nn.Sequential(*blocks[place:])
                before, rises = loss(model, rest, hidden, labels), []
                weight = block.conv2.weight
                chosen = np.random.default_rng(place).permutation(weight.shape[1])[:_CHANNELS]
                for channel in chosen.tolist():
                    kept = weight[:, channel].clone()
                    weight[:, channel] = 0
                    rises.append(loss(model, rest, hidden, labels) - before)
                    weight[:, channel] = kept
                found.append((chosen, np.array(rises)))
                note(f"block {place}: losses rise by {min(rises):.2e} to {max(rises):.2e}")
                hidden = block(hidden)
        return found

    def ranks(self, criterion: str, seed: int) -> float:
        """The mean rank correlation of a criterion with the losses."""
        analysis, groups = self.inner
        scores = score_groups(analysis, groups, criterion=criterion, calibration=self.data(False), seed=seed)
        by_name = {each.tensor: scores[group.dim] for group in groups for each in group.members if each.role == "in"}
        of_blocks = [by_name[name] for name, _ in self.dense().named_parameters() if name.endswith(".conv2.weight")]
        pairs = zip(of_blocks, self.losses, strict=True)
        return statistics.mean(spearman(score[chosen], rises) for score, (chosen, rises) in pairs)

    def statistics(self, model: nn.Module) -> None:
        """Those of the images, for every BatchNorm."""
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()
                module.momentum = None  # the mean over all batches
        model.train()
        with torch.no_grad():
            for batch in self.train[0].split(_BATCH):
                model(batch)
        model.eval()


def loss(model: ResNet, rest: nn.Module, hidden: torch.Tensor, labels: torch.Tensor) -> float:
    """The mean cross-entropy, from what the blocks that are left read."""
    total = 0.0
    for x, y in zip(hidden.split(_BATCH), labels.split(_BATCH), strict=True):
        total += float(F.cross_entropy(model.linear(rest(x).mean((2, 3))), y, reduction="sum"))
    return total / len(labels)


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """The correlation of the ranks; the first of equal ones comes first.

    >>> spearman(np.array([1.0, 2.0, 9.0]), np.array([-3.0, 0.0, 0.5]))
    1.0
    """
    ranks = [np.argsort(np.argsort(each, kind="stable"), kind="stable") for each in (a, b)]
    return float(np.corrcoef(*ranks)[0, 1])


def main() -> None:
    parser = argparse.ArgumentParser(description="Checks of criteria on trained ResNets.")
    parser.add_argument("--data", type=Path, required=True, help="a folder with CIFAR-10")
    parser.add_argument("--weights", type=Path, required=True, help="of a ResNet-20, -32, -44, -56 or -110")
    parser.add_argument("--only", default="", help="rows whose names begin with one of these; all where not given")
    parser.add_argument("--images", type=int, default=512, help="training images to calibrate with")
    parser.add_argument("--test-images", type=int, help="how many of the 10,000; all where not given")
    parser.add_argument("--json", metavar="PATH")
    given = parser.parse_args()
    note(f"machine: {machine()}")
    images, labels = cifar10_data.load(given.data, "train")
    drawn = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[: given.images]
    weights, test = read_weights(given.weights), cifar10_data.load(given.data, "test", given.test_images)
    bench = Bench(weights, (images[drawn], labels[drawn]), test)
    done: dict[str, list[float]] = {}
    if given.json and Path(given.json).exists():
        done = json.loads(Path(given.json).read_text())["results"]["rows"]
    print(
        f"ResNet-{6 * blocks_in(weights) + 2}, {len(test[1])} test images, {100 * accuracy(bench.dense(), test):.2f} %"
    )
    names = [*ROWS, *(f"ranks of {each}" for each in RANKS)]
    for name in [each for each in names if any(each.startswith(part) for part in given.only.split(","))]:
        for seed in range(3 if "random" in name else 1):
            if len(done.get(name, [])) <= seed:
                ranked = name.startswith("ranks of ")
                row = bench.ranks(name.removeprefix("ranks of "), seed) if ranked else bench.run(name, seed)
                done.setdefault(name, []).append(row)
                write_json(given.json, "accuracy_checks", {"rows": done})
    lines = [(name, f"{statistics.mean(each):.2f}") for name, each in done.items()]
    print(table(("row", "accuracy or correlation"), lines))
    for better, other, margin in CHECKS:
        if better in done and other in done:
            gap = statistics.mean(done[better]) - statistics.mean(done[other])
            verdict = "holds" if gap >= margin else "does not hold"
            print(f"{better} - {other}: {gap:+.2f} points, at least {margin:+g} expected: {verdict}")
    for name, least in LEAST:
        if name in done:
            mean = statistics.mean(done[name])
            print(f"{name}: {mean:.2f}, at least {least:g} expected: {'holds' if mean >= least else 'does not hold'}")


if __name__ == "__main__":
    main()
