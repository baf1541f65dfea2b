"""The accuracy of trained networks with zeros, by criterion, recovery and allocation; nothing is trained.

    python benchmarks/accuracy/sparse.py FILE.onnx --cifar10 FOLDER [--mean M,M,M --std S,S,S]
    python benchmarks/accuracy/sparse.py FILE.onnx --data DATA.npz
    python benchmarks/accuracy/sparse.py FILE.onnx --pictures FOLDER --labels [--peak 255] [--bgr]
    python benchmarks/accuracy/sparse.py resnet56-4bfd9763.th --cifar10 FOLDER
        [--patterns "unstructured 0.5,2:4,unstructured 0.9,8x1 0.9"] [--rows NAME,NAME] [--json PATH]

ONNX files run in onnxruntime, state dicts (.th) in a ResNet of CIFAR-10 in PyTorch. With --cifar10, 512 images of the
training split calibrate an ONNX file and 2,048 a ResNet (--images), without their labels, and the test split judges.
DATA.npz holds arrays by the names of the inputs, and `labels`: its first half calibrates, its second half judges. The
error is that of the outputs, `sum (y' - y)**2 / sum y**2`. `random` takes weights (or blocks of them) by chance, with
three seeds. With --json, rows that the file already has are not run again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent.parent / "examples")]

import inputs  # noqa: E402
import numpy as np  # noqa: E402
from inputs import Samples  # noqa: E402
from measure import Stopwatch, machine, note, table, write_json  # noqa: E402

import graphprune as gp  # noqa: E402
from graphprune.calibrate import Calibration  # noqa: E402
from graphprune.dialects import tools_of  # noqa: E402
from graphprune.fidelity import relative_error  # noqa: E402

SEEDS = (0, 1, 2)
_BATCH = 128
_CALIBRATE = {"onnx": 512, "torch": 2048}
PATTERNS = "unstructured 0.5,2:4,unstructured 0.9,8x1 0.9"


_ALL = "sparsegpt,least_squares"
ROWS: dict[str, dict[str, Any]] = {
    "random": {"criterion": "random"},
    "random + least_squares": {"criterion": "random", "recover": "least_squares"},
    "l2": {},
    "wanda": {"criterion": "wanda"},
    "obs": {"criterion": "obs"},
    "l2 + batch_norm": {"recover": "batch_norm"},
    "l2 + sparsegpt": {"recover": "sparsegpt"},
    "l2 + least_squares": {"recover": "least_squares"},
    "wanda + least_squares": {"criterion": "wanda", "recover": "least_squares"},
    "obs + sparsegpt": {"criterion": "obs", "recover": "sparsegpt"},
    "obs + sparsegpt + least_squares": {"criterion": "obs", "recover": _ALL},
    "permuted l2": {"permute": True},
    "permuted l2 + sparsegpt": {"permute": True, "recover": "sparsegpt"},
    "permuted l2 + least_squares": {"permute": True, "recover": "least_squares"},
    "permuted obs + sparsegpt": {"criterion": "obs", "permute": True, "recover": "sparsegpt"},
    "permuted obs + sparsegpt + least_squares": {"criterion": "obs", "permute": True, "recover": _ALL},
    "l2 erk": {"allocate": "erk"},
    "l2 global": {"allocate": "global"},
    "obs erk + sparsegpt + least_squares": {"criterion": "obs", "recover": _ALL, "allocate": "erk"},
    "l2 global + least_squares": {"recover": "least_squares", "allocate": "global"},
    "obs global + sparsegpt + least_squares": {"criterion": "obs", "recover": _ALL, "allocate": "global"},
}


@dataclass
class Network:
    """What is made sparse, what it is calibrated with, and how it is judged."""

    dense: Any
    example: Any
    calibration: Any
    judge: Callable[[Any], dict[str, float]]
    options: dict[str, Any] = field(default_factory=dict)

    def run(self, pattern: str, row: str, seed: int) -> dict[str, Any]:
        """One row at one pattern."""
        watch, (text, *share) = Stopwatch(), pattern.split()
        with watch("sparsify"):
            result = gp.sparsify(
                self.dense, self.example, format=text, sparsity=float(share[0]) if share else None,
                calibration=self.calibration, seed=seed, **ROWS[row], **self.options,
            )  # fmt: skip
        layers = result.report.layers
        weights = sum(int(np.prod(each.shape)) for each in layers)
        return {
            "pattern": pattern, "row": row, "seed": seed, "layers": len(layers),
            "zeros": 1 - sum(each.nonzeros for each in layers) / weights, "zeros_of_all": result.report.sparsity,
            **self.judge(result.model), "seconds": watch.phases, "notes": list(result.report.notes),
        }  # fmt: skip


def of_file(path: Path, samples: tuple[Samples, Samples], batch: int) -> Network:
    """An ONNX file; its first output is held against the labels."""
    dense = gp.load(path)
    size = dense.graph.inputs[0].shape[0]
    size = size if isinstance(size, int) else batch
    held = list(samples[1].batches(size))
    expected = [tools_of(dense).runner(dense)(case) for case, _ in held]

    def judge(model: Any) -> dict[str, float]:
        run = tools_of(model).runner(model)
        found = [run(case) for case, _ in held]
        errors = [
            relative_error(a, b) for a, b in zip(zip(*expected, strict=True), zip(*found, strict=True), strict=True)
        ]
        right = [(a[0].reshape(len(b), -1).argmax(1) == b).mean() for a, (_, b) in zip(found, held, strict=True)]
        return {"error": float(np.mean(errors)), "accuracy": float(np.mean(right))}

    return Network(dense, None, [case for case, _ in samples[0].batches(size)], judge)


def of_weights(path: Path, folder: Path, images: int, held: int | None) -> Network:
    """A ResNet of CIFAR-10 in PyTorch."""
    import cifar10_data
    import torch
    from cifar10_finetune import ResNet, blocks_in, read_weights

    weights = read_weights(path)
    model = ResNet(blocks_in(weights))
    model.load_state_dict(weights)
    model.eval()
    training, _ = cifar10_data.load(folder, "train")
    drawn = training[torch.randperm(len(training), generator=torch.Generator().manual_seed(0))[:images]]
    test, labels = cifar10_data.load(folder, "test", held)

    @torch.no_grad()
    def outputs(other: Any) -> Any:
        return torch.cat([other(part) for part in test.split(500)])

    expected = outputs(model)

    def judge(other: Any) -> dict[str, float]:
        found = outputs(other)
        error = relative_error([expected.numpy()], [found.numpy()])
        return {"error": error, "accuracy": float((found.argmax(1) == labels).float().mean())}

    cases = [((each,), {}) for each in drawn.split(256)]
    calibration = Calibration(cases, rows=256 * 64, source=f"{len(drawn)} training images")
    return Network(model, drawn[:2], calibration, judge, {"masks": False, "verify": False})


def as_table(results: list[dict[str, Any]], patterns: list[str]) -> str:
    """A line for each row, columns for each pattern: error and accuracy, of `random` with the spread of accuracies."""
    lines = []
    for name in ROWS:
        cells = []
        for pattern in patterns:
            here = [each for each in results if each["row"] == name and each["pattern"] == pattern]
            if not here:
                cells.append("")
                continue
            shares = [each["accuracy"] for each in here]
            spread = f" ({min(shares):.1%} to {max(shares):.1%})" if len(here) > 1 else ""
            error = statistics.mean(each["error"] for each in here)
            cells.append(f"{error:.3g}, {statistics.mean(shares):.2%}{spread}")
        if any(cells):
            seconds = [each["seconds"]["sparsify"] for each in results if each["row"] == name]
            lines.append((name, *cells, f"{statistics.median(seconds):.1f}"))
    return table(("criterion + recovery", *patterns, "seconds"), lines)


def arguments(what: str) -> argparse.ArgumentParser:
    """A parser of what every script says of a model and its data."""
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("model", type=Path, help="an ONNX file, or a state dict of a ResNet of CIFAR-10")
    inputs.options(parser)
    parser.add_argument("--images", type=int, help="training images to calibrate with")
    parser.add_argument("--test-images", type=int, help="how many of the 10,000; all where not given")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--json", metavar="PATH")
    return parser


def chosen(parser: argparse.ArgumentParser, given: argparse.Namespace) -> Network:
    """The network that these arguments name."""
    if given.model.suffix != ".onnx":
        if given.cifar10 is None:
            parser.error("a state dict needs --cifar10")
        return of_weights(given.model, given.cifar10, given.images or _CALIBRATE["torch"], given.test_images)
    counts = (given.images or _CALIBRATE["onnx"], given.test_images)
    first, second = inputs.chosen(parser, given, gp.load(given.model), counts)
    if second.labels is None:
        parser.error("accuracy needs labels")
    return of_file(given.model, (first, second), given.batch)


def main() -> None:
    parser = arguments("The accuracy of trained networks with zeros.")
    parser.add_argument("--patterns", default=PATTERNS, help="formats with their sparsities")
    parser.add_argument("--rows", default=",".join(ROWS), help="names of rows")
    given = parser.parse_args()
    note(f"machine: {machine()}")
    network = chosen(parser, given)
    results: list[dict[str, Any]] = []
    if given.json and Path(given.json).exists():
        results = json.loads(Path(given.json).read_text())["results"]["runs"]
    known = {(each["pattern"], each["row"], each["seed"]) for each in results}
    patterns = [" ".join(each.split()) for each in given.patterns.split(",")]
    dense = network.judge(network.dense)
    print(f"{given.model.name}, dense: {dense['accuracy']:.2%}\n")
    for pattern in patterns:
        for row in given.rows.split(","):
            if ROWS[row].get("allocate" if ":" in pattern else "permute"):
                continue  # N:M has one sparsity, and other formats keep nothing of every few
            for seed in SEEDS if ROWS[row].get("criterion") == "random" else SEEDS[:1]:
                if (pattern, row, seed) in known:
                    continue
                results.append(network.run(pattern, row, seed))
                note(f"{pattern} {row} {seed}: {results[-1]['error']:.4g} {results[-1]['accuracy']:.2%} "
                     f"{results[-1]['seconds']['sparsify']:.1f} s")  # fmt: skip
                write_json(given.json, "accuracy_sparse", {"model": given.model.name, "dense": dense, "runs": results})
    print(as_table(results, patterns))


if __name__ == "__main__":
    main()
