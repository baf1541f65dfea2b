"""Time as a budget: what is planned, what is measured, and what multiply-accumulates as a budget give instead.

    python benchmarks/latency.py FOLDER [--networks super_resolution,resnet-50,resnet] [--shares 0.7,0.5] [--threads 1]
        [--rows latency,uniform,macs,aligned] [--data FOLDER --weights resnet56-4bfd9763.th] [--images 1024]
        [--json PATH]

`super_resolution` is the trained network of examples/, `resnet-50` has random weights (benchmarks/models.py), `resnet`
is a trained ResNet of CIFAR-10, exported to ONNX; its data and weights are as for examples/cifar10_finetune.py. For
each share there are four rows. `latency` has the share of the time of a run as its budget; `uniform` has the same, and
every group loses the same share; `macs` may keep the same share of the multiply-accumulates, at any width; `aligned`
the same, at widths that are multiples of 8 in large groups and of 4 in others, as those of tables are. `measured` is
the time against the dense network, in turns, after everything was planned; on one thread it is the time of the
processor, which other work on the machine disturbs least. Tables of latencies are kept in FOLDER. For the trained
ResNet the criterion is obs by effect, divided by greedy, with least squares afterwards, and the accuracy is that of
all test images; others are scored by l2, and have no accuracy. `again` is the share of the distinct layers at widths
that were chosen which take what is in the table, within 15 %, when they are measured anew.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from measure import Stopwatch, machine, note, table, write_json
from models import write

import graphprune as gp
from graphprune.allocate.bounds import bounds
from graphprune.calibrate import Calibration
from graphprune.cost import LATENCY, Costing
from graphprune.dialects.onnx.runner import Runner
from graphprune.latency.layers import coarser, shapes_of
from graphprune.latency.outcome import AGREES
from graphprune.latency.stopwatch import in_turns
from graphprune.latency.table import Table

EXAMPLES = Path(__file__).parent.parent / "examples"
_BATCH = 256
_BY_EFFECT = {"criterion": "obs", "normalize": "effect", "recover": "least_squares"}


@dataclass
class Network:
    """One network, and what it is pruned with. test: images and labels, where it is trained."""

    name: str
    path: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    test: tuple[Any, Any] | None = None

    def accuracy(self, model: Any) -> float | None:
        if self.test is None:
            return None
        run, (images, labels) = Runner(model, optimised=True), self.test
        found = [run({"images": each})[0].argmax(axis=1) for each in np.array_split(images, len(images) // _BATCH)]
        return float((np.concatenate(found) == labels).mean())


def trained(folder: Path, given: argparse.Namespace) -> Network:
    """A ResNet of CIFAR-10, in ONNX, with calibration data and a test."""
    sys.path.append(str(EXAMPLES))
    import cifar10_data
    import torch
    from cifar10_finetune import ResNet, blocks_in, read_weights

    weights = read_weights(given.weights)
    model = ResNet(blocks_in(weights))
    model.load_state_dict(weights)
    name = f"resnet-{6 * blocks_in(weights) + 2}"
    images, _ = cifar10_data.load(given.data, "train")
    drawn = images[torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[: given.images]]
    batch = {"images": {0: torch.export.Dim("batch")}}
    path = folder / f"{name}.onnx"
    torch.onnx.export(
        model.eval(), (drawn[:2],), path, dynamo=True, dynamic_shapes=batch, verbose=False, external_data=False
    )
    data = Calibration([{"images": each.numpy()} for each in drawn.split(_BATCH)], rows=_BATCH * 64, source="training")
    pixels, labels = cifar10_data.load(given.data, "test")
    return Network(name, path, {**_BY_EFFECT, "calibration": data}, (pixels.numpy(), labels.numpy()))


def networks(given: argparse.Namespace) -> Iterator[Network]:
    for name in given.networks.split(","):
        if name == "resnet":
            yield trained(given.folder, given)
        elif name == "super_resolution":
            yield Network(name, EXAMPLES / "super_resolution.onnx")
        else:
            yield Network(name, write(name, given.folder))


def ways(share: float, sums: str) -> dict[str, dict[str, Any]]:
    """Options by row; sums: an allocator that adds scores up."""
    return {
        "latency": {"latency": share, "allocate": sums},
        "uniform": {"latency": share, "allocate": "uniform"},
        "macs": {"macs": share, "allocate": sums},
        "aligned": {"macs": share, "allocate": sums, "align": "auto"},
    }


def row(
    network: Network, analysis: Any, name: str, options: dict[str, Any], given: argparse.Namespace
) -> dict[str, Any]:
    watch, timed = Stopwatch(), given.folder / f"{network.name}.{given.threads}.json"
    dense = analysis.program.native
    if LATENCY in options:
        options = {**options, "latency_table": timed, "threads": given.threads}
    with watch("prune"):
        result = gp.prune(dense, **{**network.options, **options}, verify=False)
    clock = gp.dialects.tools_of(dense).stopwatch(analysis.program, threads=given.threads)
    timing = in_turns(clock.network(dense), clock.network(result.model), 6.0, clock.clock)
    planned = result.plan.costs["planned"].get(LATENCY, 0) / result.plan.costs["dense"].get(LATENCY, 1)
    report = result.report
    return {
        "network": network.name, "row": name, "planned": planned or None, "measured": 1 / timing.speedup,
        "noise": timing.noise, "dense_seconds": timing.dense, "macs": report.pruned.macs / report.dense.macs,
        "accuracy": network.accuracy(result.model), "seconds": watch.phases["prune"], "machine": clock.machine,
        "again": again(analysis, result, timed, clock) if LATENCY in options else None,
        "told": [each for each in report.notes if "GP305" in each],
    }  # fmt: skip


def again(analysis: Any, result: gp.Result, path: Path, clock: Any) -> float:
    """The share of the layers at the widths that were chosen that take, measured anew, what is in the table, within
    15 %."""
    widths = {dim: len(kept) for dim, kept in result.plan.keep(analysis).items()}
    groups, stored = analysis.groups, Table.load(path).microseconds
    shapes = shapes_of(Costing(analysis, {}), groups, coarser(groups, bounds(analysis, groups, align="auto")))
    chosen = {str(layer): layer for layer in (shape.layer(widths) for shape in shapes) if str(layer) in stored}
    found = clock.layers(list(chosen.values()), 10.0)
    near = [abs(each * 1e6 / stored[key] - 1) <= AGREES for key, each in zip(chosen, found, strict=True)]
    return sum(near) / len(near)


def line(share: float, each: Mapping[str, Any]) -> tuple[str, ...]:
    planned, accuracy = each["planned"], each["accuracy"]
    return (
        f"{each['network']} {share:.0%} {each['row']}", "" if planned is None else f"{planned:.1%}",
        f"{each['measured']:.1%}", f"{each['noise']:.1%}", f"{each['macs']:.1%}",
        "" if each["again"] is None else f"{each['again']:.0%}", "" if accuracy is None else f"{accuracy:.2%}",
        f"{each['seconds']:.0f}",
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="Time as a budget.")
    parser.add_argument("folder", type=Path, help="where models and tables of latencies are kept")
    parser.add_argument("--networks", default="super_resolution,resnet-50")
    parser.add_argument("--shares", default="0.7,0.5")
    parser.add_argument("--rows", default="latency,uniform,macs,aligned")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data", type=Path, help="a folder with CIFAR-10")
    parser.add_argument("--weights", type=Path, help="of a ResNet-20, -32, -44, -56 or -110")
    parser.add_argument("--images", type=int, default=1024, help="training images to calibrate with")
    parser.add_argument("--json", metavar="PATH")
    given = parser.parse_args()
    note(f"machine: {machine()}")
    given.folder.mkdir(exist_ok=True)
    results, lines = [], []
    for network in networks(given):
        analysis = gp.analyze(gp.load(network.path))
        dense = network.accuracy(analysis.program.native)
        if dense is not None:
            note(f"{network.name}, dense: {dense:.2%}")
        sums = "greedy" if network.test is not None else "global"
        for share in map(float, given.shares.split(",")):
            for name, options in ways(share, sums).items():
                if name not in given.rows.split(","):
                    continue
                results.append({"share": share, **row(network, analysis, name, options, given)})
                lines.append(line(share, results[-1]))
                note(" ".join([*lines[-1], *results[-1]["told"]]))
                write_json(given.json, "latency", results)
    print(table(("network, budget", "planned", "measured", "noise", "MACs", "again", "accuracy", "seconds"), lines))


if __name__ == "__main__":
    main()
