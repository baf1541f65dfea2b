"""What a trained ResNet on CIFAR-10 still knows when 20 %, 40 % and 53 % of its MACs are gone, before any recovery.

    python benchmarks/trained_resnet.py --data FOLDER --weights resnet56-4bfd9763.th [--test-images N] [--json PATH]

Data and weights as for examples/cifar10_finetune.py, which has the network: its option-A shortcuts pad with channels of
zeros. Channels are chosen by L2 and, as the control, at random with three seeds; nothing is trained and no statistic is
taken anew. `streams` are the widths of the three residual streams, 16, 32 and 64 in the dense network. `masked` is the
largest difference to the dense network with the same channels masked, as a share of its largest score: it is run by the
module's own code, and has to be rounding only. Its control is the same comparison with one padding moved by a channel.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

from measure import Stopwatch, machine, note, table, write_json

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))

import cifar10_data
import torch
from cifar10_finetune import Data, ResNet, accuracy, blocks_in, read_weights

import graphprune as gp

REMOVED = (0.20, 0.40, 0.53)
SEEDS = (0, 1, 2)
LEAST_CONTROL = 1e-2
MOST_DIFFERENCE = 1e-4


def dense(weights: dict[str, torch.Tensor]) -> ResNet:
    model = ResNet(blocks_in(weights))
    model.load_state_dict(weights)
    return model.eval()


def difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference, as a share of the largest expected score."""
    return float((found - expected).abs().max() / expected.abs().max())


@torch.no_grad()
def masked(model: ResNet, result: Any, images: torch.Tensor) -> tuple[float, float]:
    """How much the pruned network differs from the masked dense one, and how much with one padding moved."""
    gp.mask(model, result.plan, images[:1])
    expected = model.eval()(images)
    found = difference(result.model(images), expected)
    shortcut = result.model.layer2[0].shortcut
    before, after = shortcut.padding[-2:]
    right = shortcut.padding
    shortcut.padding = (*right[:-2], before + 1, after - 1)
    moved = difference(result.model(images), expected)
    shortcut.padding = right
    return found, moved


def streams(model: ResNet) -> list[int]:
    """The widths of the three residual streams."""
    return [stage[0].conv2.out_channels for stage in (model.layer1, model.layer2, model.layer3)]


def measured(weights: dict[str, torch.Tensor], test: Data, removed: float, criterion: str, seed: int) -> dict[str, Any]:
    """Prune once, and everything about the result."""
    watch, example = Stopwatch(), test[0][:1]
    with watch("prune"):
        result = gp.prune(dense(weights), example, macs=1 - removed, criterion=criterion, seed=seed)
    small = result.model.eval()
    gap, control = masked(dense(weights), result, test[0][:100])
    with watch("test"):
        share = accuracy(small, test)
    report = result.report
    return {
        "removed": removed, "criterion": criterion, "seed": seed, "accuracy": share, "streams": streams(small),
        "macs": report.pruned.macs / report.dense.macs,
        "parameters": report.pruned.parameters / report.dense.parameters,
        "masked": gap, "control": control, "class": type(small).__name__, "verified": bool(report.verification.ok),
        "seconds": watch.phases,
    }  # fmt: skip


def as_table(results: list[dict[str, Any]]) -> str:
    head = ("MACs removed", "criterion", "accuracy", "MACs left", "parameters left", "streams", "masked", "control")
    rows = []
    for each in results:
        name = each["criterion"] + (f" {each['seed']}" if each["criterion"] == "random" else "")
        widths = " ".join(map(str, each["streams"]))
        shares = [f"{each[key]:.2%}" for key in ("accuracy", "macs", "parameters")]
        gaps = [f"{each[key]:.0e}" for key in ("masked", "control")]
        rows.append((f"{each['removed']:.0%}", name, *shares, widths, *gaps))
    return table(head, rows)


def summary(results: list[dict[str, Any]]) -> str:
    """A line for each share: L2 against the mean of the random ones."""
    lines = []
    for removed in REMOVED:
        here = [each for each in results if each["removed"] == removed]
        ours = [each["accuracy"] for each in here if each["criterion"] != "random"]
        other = [each["accuracy"] for each in here if each["criterion"] == "random"]
        spread = f"{statistics.mean(other):.2%} ({min(other):.2%} to {max(other):.2%})"
        lines.append(f"{removed:.0%} removed: l2 {ours[0]:.2%}, random {spread}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="The accuracy of a pruned ResNet before any recovery.")
    parser.add_argument("--data", type=Path, required=True, help="a folder with CIFAR-10")
    parser.add_argument("--weights", type=Path, required=True, help="of a ResNet-20, -32, -44, -56 or -110")
    parser.add_argument("--test-images", type=int, help="how many of the 10,000; all where not given")
    parser.add_argument("--threads", type=int, help="of PyTorch")
    parser.add_argument("--json", metavar="PATH")
    given = parser.parse_args()
    note(f"machine: {machine()}")
    if given.threads:
        torch.set_num_threads(given.threads)
    weights, test = read_weights(given.weights), cifar10_data.load(given.data, "test", given.test_images)
    baseline = accuracy(dense(weights), test)
    print(f"ResNet-{6 * blocks_in(weights) + 2}, {len(test[1])} test images, dense: {baseline:.2%}\n")
    runs = [(removed, *kind) for removed in REMOVED for kind in (("l2", 0), *(("random", seed) for seed in SEEDS))]
    results = []
    for removed, criterion, seed in runs:
        results.append(measured(weights, test, removed, criterion, seed))
        note(f"{removed:.0%} {criterion} {seed}: {results[-1]['accuracy']:.2%}")
    print(as_table(results))
    print(f"\n{summary(results)}")
    wrong = [each for each in results if each["masked"] > MOST_DIFFERENCE or each["control"] < LEAST_CONTROL]
    verdict = "the same as" if not wrong else f"NOT the same as ({len(wrong)} of {len(results)})"
    print(f"\nthe pruned networks compute {verdict} the masked ones")
    write_json(given.json, "trained_resnet", {"dense": baseline, "images": len(test[1]), "runs": results})


if __name__ == "__main__":
    main()
