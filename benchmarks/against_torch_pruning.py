"""Side by side with Torch-Pruning: models of torchvision and trained ResNets, both tools taking half of every group.

    python -m venv peer && peer/bin/pip install torch numpy tqdm pillow
    peer/bin/pip install --no-deps torchvision torch-pruning
    python benchmarks/against_torch_pruning.py --python peer/bin/python [--weights FILE ...] [--models NAME ...]
        [--json PATH]

Torch-Pruning runs in its own environment (`--python`), every model in a process of its own; both environments need
torchvision. See against_worker.py for the comparison, and README.md for what the columns mean.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from measure import machine, note, table, write_json

WORKER = Path(__file__).parent / "against_worker.py"
MODELS = """
    alexnet convnext_tiny deeplabv3_mobilenet_v3_large densenet121 efficientnet_b0 efficientnet_v2_s fcn_resnet50
    googlenet inception_v3 lraspp_mobilenet_v3_large maxvit_t mc3_18 mnasnet0_5 mobilenet_v2 mobilenet_v3_small r3d_18
    raft_small regnet_x_400mf regnet_y_400mf resnet18 resnet50 resnext50_32x4d shufflenet_v2_x0_5 squeezenet1_1 swin_t
    swin_v2_t swin3d_t vgg11_bn vit_b_32 wide_resnet50_2
""".split()  # noqa: SIM905
SECONDS = 400


def asked(python: str, tool: str, model: str) -> list[dict[str, Any]]:
    """What the worker says of one model; one record for each way of asking."""
    command = [python, "-W", "ignore", str(WORKER), tool, model]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return [{"outcome": "too slow", "note": f"stopped after {SECONDS} s"}]
    if done.returncode:
        return [{"outcome": "crashes", "note": done.stderr.strip()[-300:]}]
    found: list[dict[str, Any]] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def shown(record: dict[str, Any]) -> str:
    return f"differs {record['gap']:.0e}" if record["outcome"] == "differs" else str(record["outcome"])


def share(record: dict[str, Any]) -> str:
    return f"{record['macs']:.0%}" if "macs" in record else ""


def seconds(record: dict[str, Any], phase: str) -> str:
    return f"{record['seconds'][phase]:.2f}" if phase in record.get("seconds", {}) else ""


def as_table(results: dict[str, dict[str, Any]]) -> str:
    head = ["model", "Torch-Pruning", "with hints", "graphprune", "result"]
    head += ["MACs left, theirs", "ours", "analysis, theirs", "ours", "whole, theirs", "ours", "of that export"]
    rows = []
    for name, row in results.items():
        plain, hinted, ours = row["torch-pruning"], row["hinted"], row["graphprune"]
        cells = [Path(name).stem, shown(plain), shown(hinted), shown(ours)]
        cells.append("graph" if ours.get("class") == "GraphModule" else "same class")
        cells += [share(hinted), share(ours)]
        cells += [seconds(each, phase) for phase in ("analysis", "whole") for each in (hinted, ours)]
        rows.append([*cells, seconds(ours, "export")])
    return table(head, rows)


def counts(results: dict[str, dict[str, Any]]) -> str:
    """How many models each tool prunes to something that computes what it should."""
    lines = []
    for tool, title in (("torch-pruning", "Torch-Pruning"), ("hinted", "with hints"), ("graphprune", "graphprune")):
        right = sum(row[tool]["outcome"] == "same" for row in results.values())
        lines.append(f"{title}: {right} of {len(results)}")
    return "the pruned model computes what the masked one does: " + "; ".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare with Torch-Pruning.")
    parser.add_argument("--python", required=True, help="the Python of an environment with Torch-Pruning")
    parser.add_argument("--models", nargs="*", default=MODELS, help="names of torchvision")
    parser.add_argument("--weights", nargs="*", default=[], help="files of pytorch_resnet_cifar10")
    parser.add_argument("--json", metavar="PATH")
    given = parser.parse_args()
    note(f"machine: {machine()}")
    results: dict[str, dict[str, Any]] = {}
    for name in [*given.weights, *given.models]:
        theirs = asked(given.python, "torch-pruning", name)
        ours = asked(sys.executable, "graphprune", name)
        results[name] = {"torch-pruning": theirs[0], "hinted": theirs[-1], "graphprune": ours[0]}
        note(f"{Path(name).stem}: " + ", ".join(f"{tool} {shown(each)}" for tool, each in results[name].items()))
    print(as_table(results))
    print(f"\n{counts(results)}")
    write_json(given.json, "against_torch_pruning", {Path(name).stem: row for name, row in results.items()})


if __name__ == "__main__":
    main()
