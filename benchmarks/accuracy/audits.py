"""What papers say of pruned networks beyond their accuracy, as checks, by `graphprune.audit`.

    python benchmarks/accuracy/audits.py potential --data FOLDER --weights resnet20-12fca82f.th [--json PATH]
    python benchmarks/accuracy/audits.py rare --data FOLDER [--sparsity 0.9] [--seeds 0,1,2] [--json PATH]

- *potential*: how much of a ResNet of CIFAR-10 can go within a point of its accuracy, on test images as they are and
  with noise, blur and less contrast (Liebenwein et al., MLSys 2021: less on others than on what it was chosen by).
  Widths inside residual blocks, recipe `reconstruct` on 512 training images, nine budgets.
- *rare*: what classes lose of which there is a tenth of the training images (Tran et al., NeurIPS 2022; Paganini, 2020:
  more than the others). The small network of from_scratch.py on Fashion-MNIST (FOLDER as there), 12,800 images before
  two of ten classes are thinned out, four epochs; then 90 % zeros by magnitude, and the same retrained for half of the
  steps. All 10,000 test images.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from statistics import mean
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent.parent / "examples")]

import checks  # noqa: E402
import cifar10_data  # noqa: E402
import from_scratch  # noqa: E402
import torch  # noqa: E402
from cifar10_finetune import read_weights  # noqa: E402
from measure import machine, note, table, write_json  # noqa: E402
from resnet import streams  # noqa: E402

import graphprune as gp  # noqa: E402
from graphprune.audit import audit  # noqa: E402
from graphprune.audit.report import Audited  # noqa: E402

SHARES = (0.9, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5, 0.4)
RARE, FACTOR = (8, 9), 10
"""Bags and ankle boots, as the paper's check has it, and how many times fewer there are."""
_IMAGES, _EPOCHS, _CALIBRATION = 12800, 4, 512


def potential(given: argparse.Namespace) -> dict[str, Any]:
    """One audit of networks at all budgets."""
    images, labels = cifar10_data.load(given.data, "train")
    drawn = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:_CALIBRATION]
    bench = checks.Bench(read_weights(given.weights), (images[drawn], labels[drawn]), (images[:0], labels[:0]))
    dense, example = bench.dense(), images[:2]
    outer, pruned = streams(gp.analyze(dense, example)), {}
    for share in SHARES:
        note(f"pruning to {share:.0%}")
        options = {"macs": share, "ignore": outer, "recipe": "reconstruct"}
        pruned[f"{share:.0%}"] = gp.prune(dense, example, calibration=bench.data(False), **options).model
    found = audit(dense, pruned, example, data=cifar10_data.load(given.data, "test"))
    print(found)
    kinds = found.models[0].distances
    plain = found.potential()
    for kind in kinds:
        if kind != "as given":
            says = "holds" if found.potential(kind) <= plain else "does not hold"
            print(f"potential with {kind} {found.potential(kind):.1%}, as given {plain:.1%}: {says}")
    return found.to_dict()


def rare(given: argparse.Namespace) -> dict[str, Any]:
    """Audits of sparse networks, for several seeds."""
    test = from_scratch.read(given.data, "t10k")
    rows: list[tuple[str, float, float]] = []
    found = {}
    for seed in (int(each) for each in given.seeds.split(",")):
        train = thinned(from_scratch.read(given.data, "train", _IMAGES))
        bench = from_scratch.Bench(train, test, _EPOCHS * (len(train[1]) // 128), seed, 0)
        models = {name: bench.row(name, given.sparsity) for name in ("after: no retraining", "after: rewinding")}
        audited = audit(bench.base().eval(), models, test[0][:2], data=test, alter=())
        found[str(seed)] = audited.to_dict()
        rows += [(name, *losses(each)) for name, each in zip(models, audited.models, strict=True)]
        note(f"seed {seed}: {rows[-2:]}")
    print(table(("row", "rare classes lose", "others lose", "ratio"), [summed(name, rows) for name in models]))
    return found


def thinned(data: from_scratch.Data) -> from_scratch.Data:
    """The same with the first tenth of the images of the rare classes."""
    images, labels = data
    keep = torch.ones(len(labels), dtype=torch.bool)
    for number in RARE:
        places = (labels == number).nonzero().flatten()
        keep[places[len(places) // FACTOR :]] = False
    return images[keep], labels[keep]


def losses(model: Audited) -> tuple[float, float]:
    """What the rare classes lose, and what the others do: the means over classes."""
    drops = {int(each.name): each.drop for each in model.groups}
    return mean(drops[k] for k in RARE), mean(drop for k, drop in drops.items() if k not in RARE)


def summed(name: str, rows: list[tuple[str, float, float]]) -> tuple[str, ...]:
    """One row of the table: means over the seeds."""
    lost = [(rare, others) for each, rare, others in rows if each == name]
    rare, others = (mean(column) for column in zip(*lost, strict=True))
    return name, f"{rare:+.2%}", f"{others:+.2%}", f"{rare / others:.1f}" if others > 0 else ""


def main() -> None:
    parser = argparse.ArgumentParser(description="Audits of pruned networks.")
    parser.add_argument("check", choices=("potential", "rare"))
    parser.add_argument("--data", type=Path, required=True, help="a folder with CIFAR-10, or with Fashion-MNIST")
    parser.add_argument("--weights", type=Path, help="of a ResNet of CIFAR-10")
    parser.add_argument("--sparsity", type=float, default=0.9)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--json", metavar="PATH")
    given = parser.parse_args()
    if given.check == "potential" and given.weights is None:
        parser.error("--weights is needed")
    note(f"machine: {machine()}")
    found = {"potential": potential, "rare": rare}[given.check](given)
    write_json(given.json, f"accuracy_audits_{given.check}", found)


if __name__ == "__main__":
    main()
