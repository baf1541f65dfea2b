"""Trained ONNX files pruned without PyTorch: output error, and accuracy where there are labels.

    python benchmarks/accuracy/onnx_files.py FILE.onnx --data DATA.npz [--macs 0.8,0.6] [--rows NAME,NAME] [--json PATH]
    python benchmarks/accuracy/onnx_files.py FILE.onnx --cifar10 FOLDER [--mean M,M,M --std S,S,S]
    python benchmarks/accuracy/onnx_files.py FILE.onnx --pictures FOLDER [--labels] [--peak 255] [--bgr] [--int8]

DATA.npz holds arrays by the names of the inputs, and `labels` where accuracy is wanted; its first half calibrates, its
second half judges. With --cifar10, images of the training split calibrate and 2,000 of the test split judge; of a
folder of pictures every second one does. The error is the mean squared difference of all outputs to the dense ones,
over their variance. `random` has three seeds. --int8 quantises the file first, by onnxruntime (QDQ, per channel,
calibrated by 64 samples); the quantised file is what is pruned and compared with. Only onnxruntime runs the networks.
With --json, rows that the file already has are not run again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent.parent / "examples")]

import numpy as np  # noqa: E402
from inputs import IMAGES, Samples, chosen, first, numbers, options  # noqa: E402
from measure import Stopwatch, machine, note, table, write_json  # noqa: E402
from peer_rows import PEER, cut  # noqa: E402

import graphprune as gp  # noqa: E402
from graphprune.dialects import tools_of  # noqa: E402
from graphprune.errors import GraphPruneError  # noqa: E402

SEEDS = (0, 1, 2)
_RANGES = 64
"""How many samples an int8 file takes its ranges from."""

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


@dataclass(frozen=True)
class Bench:
    """A file, what calibrates and judges it, and samples of a batch."""

    path: Path
    dense: Any
    samples: tuple[Samples, ...]
    size: int

    @property
    def judged(self) -> int:
        """How many samples judge: those that fill batches."""
        count = len(self.samples[1])
        return count if self.samples[1].whole else count // self.size * self.size

    def runs(self, macs: float, name: str) -> Iterator[Callable[[], dict[str, Any]]]:
        """One row at one budget, for each seed."""
        for seed in SEEDS if ROWS.get(name, {}).get("criterion") == "random" else SEEDS[:1]:
            yield lambda seed=seed: self.run(macs, name, seed)

    def run(self, macs: float, name: str, seed: int) -> dict[str, Any]:
        watch, notes, cases = Stopwatch(), [], [case for case, _ in self.samples[0].batches(self.size)]
        with watch("prune"):
            if name in PEER:
                model, share = cut(self.path, macs, cases, PEER[name])
            else:
                result = gp.prune(self.dense, macs=macs, calibration=cases, seed=seed, **ROWS[name])
                model, notes = result.model, list(result.report.notes)
                share = result.report.pruned.macs / result.report.dense.macs
        measured = judged(self.dense, model, self.samples[1], self.size)
        note(f"{macs:g} {name} {seed}: {share:.3f} {measured} {watch.phases}")
        found = {"row": name, "budget": macs, "seed": seed, "macs": share, **measured}
        return {**found, "seconds": watch.phases, "notes": notes}


def as_table(results: list[dict[str, Any]], budgets: list[float]) -> str:
    """A line for each row, columns for each budget: the mean error of the seeds, and accuracy with its range."""
    lines = []
    for name in dict.fromkeys(each["row"] for each in results):
        cells = []
        for budget in budgets:
            here = [each for each in results if each["row"] == name and each["budget"] == budget]
            if not here or "error" not in here[0]:
                cells.append(here[0]["why"] if here else "")
                continue
            shares = [each["accuracy"] for each in here if "accuracy" in each]
            accuracy = f", {statistics.mean(shares):.2%}" if shares else ""
            spread = f" ({min(shares):.1%} to {max(shares):.1%})" if len(shares) > 1 else ""
            cells.append(f"{statistics.mean(each['error'] for each in here):.4f}{accuracy}{spread}")
        lines.append((name, *cells))
    return table(("criterion + recovery", *(f"{budget:.0%} of MACs" for budget in budgets)), lines)


def quantised(path: Path, samples: Samples, size: int, out: Path) -> Path:
    """The file in int8, QDQ, per channel."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        cases = iter(first(samples, size, max(1, _RANGES // size)))

        def get_next(self) -> Any:
            return next(self.cases, None)

    quantize_static(path, out, Reader(), quant_format=QuantFormat.QDQ, per_channel=True)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description="Trained ONNX files, pruned without PyTorch.")
    parser.add_argument("file", type=Path)
    options(parser)
    parser.add_argument("--int8", action="store_true", help="quantise the file first")
    parser.add_argument("--macs", type=numbers, default=[0.8, 0.6])
    parser.add_argument("--rows", default=",".join(ROWS), help=f"names of rows; also {', '.join(PEER)}")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--json", metavar="PATH")
    given = parser.parse_args()
    if unknown := [name for name in given.rows.split(",") if name not in (*ROWS, *PEER)]:
        parser.error(f"no such rows: {', '.join(unknown)}; known: {', '.join((*ROWS, *PEER))}")
    note(f"machine: {machine()}")
    dense = gp.load(given.file)
    batch = dense.graph.inputs[0].shape[0]
    size = batch if isinstance(batch, int) else given.batch
    samples = chosen(parser, given, dense, IMAGES)
    with tempfile.TemporaryDirectory() as folder:
        path = given.file
        if given.int8:
            path = quantised(given.file, samples[0], size, Path(folder) / given.file.name)
            dense = gp.load(path)
        measured(Bench(path, dense, samples, size), given)


def measured(bench: Bench, given: argparse.Namespace) -> None:
    """All rows, written as they come."""
    results: list[dict[str, Any]] = []
    if given.json and Path(given.json).exists():
        results = json.loads(Path(given.json).read_text(encoding="utf-8"))["results"]["runs"]
    known = {(each["budget"], each["row"]) for each in results}
    dense = judged(bench.dense, bench.dense, bench.samples[1], bench.size)
    facts = {
        "file": given.file.name, "int8": given.int8, "dense": dense, "judged": bench.judged,
        "sha256": [each.digest() for each in bench.samples],
        "versions": {name: version(name) for name in ("graphprune", "numpy", "onnxruntime")},
    }  # fmt: skip
    for macs in given.macs:
        for name in given.rows.split(","):
            if (macs, name) in known:
                continue
            for run in bench.runs(macs, name):
                try:
                    results.append(run())
                except (GraphPruneError, ValueError) as error:  # a refusal is a result
                    note(f"{macs:g} {name}: {error}")
                    results.append({"row": name, "budget": macs, "why": getattr(error, "code", "out of reach")})
            write_json(given.json, "accuracy_onnx_files", {**facts, "runs": results})
    print(f"{given.file.name}, {bench.judged} samples, dense: {dense}\n")
    print(as_table(results, given.macs))


if __name__ == "__main__":
    main()
