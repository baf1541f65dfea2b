"""Trained ONNX files pruned without PyTorch: output error, and accuracy where there are labels.

    python benchmarks/accuracy/onnx_files.py FILE.onnx --data DATA.npz [--macs 0.8,0.6] [--rows NAME,NAME] [--json PATH]
    python benchmarks/accuracy/onnx_files.py FILE.onnx --cifar10 FOLDER [--mean M,M,M --std S,S,S]

DATA.npz holds arrays by the names of the inputs, and `labels` where accuracy is wanted; its first half calibrates, its
second half judges. With --cifar10, images of the training split calibrate and 2,000 of the test split judge. The error
is the mean squared difference of all outputs to the dense ones, over their variance. `random` is the mean of three
seeds. Only onnxruntime runs the networks.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent / "examples")]

import numpy as np  # noqa: E402
from measure import Stopwatch, machine, note, table, write_json  # noqa: E402

import graphprune as gp  # noqa: E402
from graphprune.dialects import tools_of  # noqa: E402

SEEDS = (0, 1, 2)
_IMAGES = (512, 2000)
"""How many images of CIFAR-10 calibrate, and how many judge."""

ROWS: dict[str, dict[str, Any]] = {
    "random": {"criterion": "random"},
    "l1": {"criterion": "l1"},
    "l2": {"criterion": "l2"},
    "l2 + least_squares": {"criterion": "l2", "recover": "least_squares"},
    "random + least_squares": {"criterion": "random", "recover": "least_squares"},
    "obs by effect + least_squares": {"recipe": "reconstruct", "recover": "least_squares"},
    "recipe reconstruct": {"recipe": "reconstruct"},
    "recipe reconstruct in 4 steps": {"recipe": "reconstruct", "steps": 4},
    "l2 + mask_tuning": {"criterion": "l2", "recover": "mask_tuning"},
    "l2 in 4 steps": {"criterion": "l2", "steps": 4},
    "l2 in 4 steps + least_squares": {"criterion": "l2", "recover": "least_squares", "steps": 4},
    "obs": {"criterion": "obs"},
    "obs + least_squares": {"criterion": "obs", "recover": "least_squares"},
    "obs in 4 steps + least_squares": {"criterion": "obs", "recover": "least_squares", "steps": 4},
}


@dataclass(frozen=True)
class Samples:
    """Inputs by name, samples along the first axis, and labels."""

    inputs: dict[str, np.ndarray]
    labels: np.ndarray | None

    def batches(self, size: int) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray | None]]:
        """Whole batches."""
        count = len(next(iter(self.inputs.values())))
        for begin in range(0, count - size + 1, size):
            part = slice(begin, begin + size)
            labels = None if self.labels is None else self.labels[part]
            yield {name: array[part] for name, array in self.inputs.items()}, labels


def judged(dense: Any, small: Any, samples: Samples, size: int) -> dict[str, float]:
    """The error of the outputs, and the accuracy of the first one."""
    one, two = tools_of(dense).runner(dense), tools_of(small).runner(small)
    gap, spread, right, count = 0.0, 0.0, 0, 0
    for case, labels in samples.batches(size):
        expected, found = one(case), two(case)
        for a, b in zip(expected, found, strict=True):
            gap += float(np.square(a - b, dtype=np.float64).sum())
            spread += float(np.square(a - a.mean(), dtype=np.float64).sum())
        if labels is not None:
            right += int((found[0].reshape(len(labels), -1).argmax(1) == labels).sum())
            count += len(labels)
    return {"error": gap / spread, **({"accuracy": right / count} if count else {})}


def archive(path: Path) -> tuple[Samples, Samples]:
    """The halves of a file of arrays."""
    with np.load(path) as file:
        arrays = dict(file)
    labels = arrays.pop("labels", None)
    half = len(next(iter(arrays.values()))) // 2
    first = Samples({name: array[:half] for name, array in arrays.items()}, None)
    return first, Samples({n: a[half:] for n, a in arrays.items()}, None if labels is None else labels[half:])


def cifar10(folder: Path, name: str, mean: list[float], std: list[float]) -> tuple[Samples, Samples]:
    """Images in the form that the network was trained with."""
    import cifar10_data

    found = []
    for split, count in zip(("train", "test"), _IMAGES, strict=True):
        images, labels = cifar10_data.load(folder, split, count)
        pixels = images * cifar10_data.DEVIATION[:, None, None] + cifar10_data.MEAN[:, None, None]
        array = (pixels.numpy() - np.array(mean)[:, None, None]) / np.array(std)[:, None, None]
        found.append(Samples({name: array.astype(np.float32)}, labels.numpy() if split == "test" else None))
    return found[0], found[1]


def run(dense: Any, macs: float, name: str, samples: tuple[Samples, Samples], size: int) -> list[dict[str, Any]]:
    """One row at one budget, for each seed."""
    found = []
    for seed in SEEDS if ROWS[name].get("criterion") == "random" else (0,):
        watch = Stopwatch()
        calibration = [case for case, _ in samples[0].batches(size)]
        with watch("prune"):
            result = gp.prune(dense, macs=macs, calibration=calibration, seed=seed, **ROWS[name])
        share = result.report.pruned.macs / result.report.dense.macs
        measured = judged(dense, result.model, samples[1], size)
        found.append({"row": name, "budget": macs, "seed": seed, "macs": share, **measured, "seconds": watch.phases})
        note(f"{macs:g} {name} {seed}: {measured}")
    return found


def as_table(results: list[dict[str, Any]], budgets: list[float]) -> str:
    """A line for each row, columns for each budget."""
    lines = []
    for name in dict.fromkeys(each["row"] for each in results):
        cells = []
        for budget in budgets:
            here = [each for each in results if each["row"] == name and each["budget"] == budget]
            accuracy = f" {statistics.mean(each['accuracy'] for each in here):.2%}" if "accuracy" in here[0] else ""
            cells.append(f"{statistics.mean(each['error'] for each in here):.4f}{accuracy}")
        lines.append((name, *cells))
    return table(("criterion + recovery", *(f"error at {budget:g} of MACs" for budget in budgets)), lines)


def numbers(text: str) -> list[float]:
    """Numbers with commas between them."""
    return [float(each) for each in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description="Trained ONNX files, pruned without PyTorch.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--data", type=Path, help="arrays by the names of the inputs")
    parser.add_argument("--cifar10", type=Path, help="a folder with CIFAR-10")
    parser.add_argument("--mean", type=numbers, default=[0.4914, 0.4822, 0.4465])
    parser.add_argument("--std", type=numbers, default=[0.2023, 0.1994, 0.2010])
    parser.add_argument("--macs", type=numbers, default=[0.8, 0.6])
    parser.add_argument("--rows", default=",".join(ROWS), help="names of rows")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--json", metavar="PATH")
    given = parser.parse_args()
    note(f"machine: {machine()}")
    dense = gp.load(given.file)
    first = dense.graph.inputs[0]
    size = first.shape[0] if isinstance(first.shape[0], int) else given.batch
    if given.data is None and given.cifar10 is None:
        parser.error("give --data or --cifar10")
    samples = archive(given.data) if given.data else cifar10(given.cifar10, first.name, given.mean, given.std)
    rows = given.rows.split(",")
    results = [each for macs in given.macs for name in rows for each in run(dense, macs, name, samples, size)]
    print(f"{given.file.name}, dense: {judged(dense, dense, samples[1], size)}\n")
    print(as_table(results, given.macs))
    write_json(given.json, "accuracy_onnx_files", {"file": given.file.name, "runs": results})


if __name__ == "__main__":
    main()
