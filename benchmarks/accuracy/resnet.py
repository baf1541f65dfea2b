"""The accuracy of a ResNet of CIFAR-10 after pruning without training, by criterion and recovery.

    python benchmarks/accuracy/resnet.py --data FOLDER --weights resnet56-4bfd9763.th [--speedups 1.5,2.11]
        [--rows random,l1,l2,obs] [--images 2048] [--json PATH]

Data and weights as for examples/cifar10_finetune.py. Calibration images are drawn from the training split and their
labels are not read; accuracy is that of the full test split. All rows of a speedup keep the same share of the MACs, and
nothing is trained. `inner` cuts only widths inside residual blocks, which is what tools can do that do not follow the
option-A shortcut; `all` cuts the residual streams as well, and `depth` lets whole blocks compete with widths. `random`
is the mean of three seeds. Rows are written as they come; with --json, rows that the file has are not run again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent / "examples")]

import cifar10_data  # noqa: E402
import torch  # noqa: E402
from cifar10_finetune import Data, ResNet, accuracy, blocks_in, read_weights  # noqa: E402
from measure import Stopwatch, machine, note, table, write_json  # noqa: E402

import graphprune as gp  # noqa: E402
from graphprune.calibrate import Calibration  # noqa: E402

SEEDS = (0, 1, 2)
_BATCH = 256
_STREAM = 12
"""A group that more tensors than this belong to is a residual stream."""


def streams(analysis: gp.Analysis) -> list[str]:
    """The names of the groups that are residual streams: the others are widths inside blocks."""
    return [group.name for group in analysis.groups if len(group.members) > _STREAM]


@dataclass(frozen=True)
class Row:
    """One way to prune."""

    name: str
    options: dict[str, Any]
    recover: str
    seeds: tuple[int, ...] = (0,)
    inner: bool = True


def _obs(normalize: str) -> dict[str, Any]:
    return {"criterion": "obs", "normalize": normalize, "allocate": "greedy"}


ROWS = {
    row.name: row
    for row in (
        Row("random + batch_norm", {"criterion": "random"}, "batch_norm", SEEDS),
        Row("random + least_squares", {"criterion": "random"}, "least_squares", SEEDS),
        Row("l1 + batch_norm", {"criterion": "l1"}, "batch_norm"),
        Row("l2 + none", {"criterion": "l2"}, "none"),
        Row("l2 + batch_norm", {"criterion": "l2"}, "batch_norm"),
        Row("l1 + least_squares", {"criterion": "l1"}, "least_squares"),
        Row("l2 + least_squares", {"criterion": "l2"}, "least_squares"),
        Row("fpgm + least_squares", {"criterion": "fpgm"}, "least_squares"),
        Row("obs + batch_norm", _obs("none"), "batch_norm"),
        Row("obs + least_squares", _obs("none"), "least_squares"),
        Row("obs by effect + least_squares", _obs("effect"), "least_squares"),
        Row("l2 + gauss_newton", {"criterion": "l2"}, "gauss_newton"),
        Row("obs by effect + gauss_newton", _obs("effect"), "gauss_newton"),
        Row("l2 all + least_squares", {"criterion": "l2"}, "least_squares", inner=False),
        Row("obs by effect all + least_squares", _obs("effect"), "least_squares", inner=False),
        Row("obs by effect all + gauss_newton", _obs("effect"), "gauss_newton", inner=False),
        Row(
            "obs by effect all and depth + least_squares",
            _obs("effect") | {"depth": "auto"},
            "least_squares",
            inner=False,
        ),
    )
}


@dataclass
class Bench:
    """What all rows share."""

    weights: dict[str, torch.Tensor]
    train: torch.Tensor
    test: Data
    done: list[dict[str, Any]] = field(default_factory=list)

    def dense(self) -> ResNet:
        model = ResNet(blocks_in(self.weights))
        model.load_state_dict(self.weights)
        return model.eval()

    def calibration(self) -> Calibration:
        cases = [((images,), {}) for images in self.train.split(_BATCH)]
        return Calibration(cases, rows=_BATCH * 64, source=f"{len(self.train)} training images")

    def run(self, row: Row, speedup: float, seed: int) -> dict[str, Any]:
        """One row at one speedup."""
        watch, model = Stopwatch(), self.dense()
        analysis = gp.analyze(model, self.train[:2])
        with watch("prune"):
            result = gp.prune(
                model, self.train[:2], macs=1 / speedup, recover=row.recover, calibration=self.calibration(),
                ignore=streams(analysis) if row.inner else (), seed=seed, **row.options,
            )  # fmt: skip
        with watch("test"):
            share = accuracy(result.model, self.test)
        report = result.report
        return {
            "row": row.name, "speedup": speedup, "seed": seed, "accuracy": share, "images": len(self.train),
            "macs": report.pruned.macs / report.dense.macs, "seconds": watch.phases, "notes": list(report.notes),
        }  # fmt: skip

    def known(self, row: Row, speedup: float, seed: int) -> bool:
        key = (row.name, speedup, seed, len(self.train))
        return any((each["row"], each["speedup"], each["seed"], each["images"]) == key for each in self.done)


def as_table(results: list[dict[str, Any]], speedups: list[float]) -> str:
    """A line for each row, a column for each speedup."""
    lines = []
    for name in ROWS:
        cells = []
        for speedup in speedups:
            found = [each["accuracy"] for each in results if each["row"] == name and each["speedup"] == speedup]
            spread = f" ± {(max(found) - min(found)) / 2:.1%}" if len(found) > 1 else ""
            cells.append(f"{statistics.mean(found):.2%}{spread}" if found else "")
        if any(cells):
            seconds = [each["seconds"]["prune"] for each in results if each["row"] == name]
            lines.append((name, *cells, f"{statistics.median(seconds):.0f}"))
    return table(("criterion + recovery", *(f"{speedup:g}x" for speedup in speedups), "seconds"), lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="The accuracy of a ResNet pruned without training.")
    parser.add_argument("--data", type=Path, required=True, help="a folder with CIFAR-10")
    parser.add_argument("--weights", type=Path, required=True, help="of a ResNet-20, -32, -44, -56 or -110")
    parser.add_argument("--speedups", default="1.3,1.5,2.11,2.55", help="how many times fewer MACs")
    parser.add_argument("--rows", default="", help="only rows whose name contains one of these")
    parser.add_argument("--images", type=int, default=2048, help="training images to calibrate with")
    parser.add_argument("--test-images", type=int, help="how many of the 10,000; all where not given")
    parser.add_argument("--json", metavar="PATH")
    given = parser.parse_args()
    note(f"machine: {machine()}")
    weights, speedups = read_weights(given.weights), [float(each) for each in given.speedups.split(",")]
    images, _ = cifar10_data.load(given.data, "train")
    drawn = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[: given.images]
    bench = Bench(weights, images[drawn], cifar10_data.load(given.data, "test", given.test_images))
    if given.json and Path(given.json).exists():
        bench.done = json.loads(Path(given.json).read_text())["results"]["runs"]
    baseline = accuracy(bench.dense(), bench.test)
    print(f"ResNet-{6 * blocks_in(weights) + 2}, {len(bench.test[1])} test images, dense: {baseline:.2%}\n")
    wanted = [row for name, row in ROWS.items() if any(part in name for part in given.rows.split(","))]
    for speedup in speedups:
        for row, seed in [(each, seed) for each in wanted for seed in each.seeds]:
            if bench.known(row, speedup, seed):
                continue
            bench.done.append(bench.run(row, speedup, seed))
            note(f"{speedup:g}x {row.name} {seed}: {bench.done[-1]['accuracy']:.2%} {bench.done[-1]['seconds']}")
            write_json(given.json, "accuracy_resnet", {"dense": baseline, "runs": bench.done})
    print(as_table(bench.done, speedups))


if __name__ == "__main__":
    main()
