"""Whole networks built by graphprune, dense and sparse, beside onnxruntime, OpenVINO and DeepSparse.

    python benchmarks/targets/networks.py [NAME ...] [--formats unstructured 4x1 8x1 16x1] [--sparsities 0.8 0.9 0.95]
        [--batches 1 2 4 8] [--threads 1 2] [--cores 0 1] [--openvino PYTHON] [--deepsparse PYTHON] [--rounds N]
        [--json PATH]

NAME: bert-base (12 layers, 128 tokens), resnet-50 and mobilenet-v2 (224 x 224, batch norms folded), random weights.
What `gp.sparsify` leaves dense (stem, depthwise layers, what makes an output) is dense for all engines. Every engine is
a process of its own, and one at a time runs. OpenVINO is timed on the dense file, DeepSparse and onnxruntime on the
same zeros as we have. See README.md.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import engines
import numpy as np
import onnx
from engines import Contender, Environments, Row, milliseconds, ratio
from onnx import numpy_helper

sys.path.insert(0, str(Path(__file__).parent.parent))

import models
from measure import note, table, write_json

import graphprune as gp

SEQUENCE = 128  # tokens
NETWORKS = ("bert-base", "resnet-50", "mobilenet-v2")
OLD = 13  # DeepSparse runs all operators of BERT in this opset, and 92 % of them in 17
SAME = 1e-3
ROUNDED = 8 * 2.0**-8  # where products are of bfloat16


@dataclass(frozen=True)
class Given:
    """What the command line says."""

    threads: tuple[int, ...]
    cores: tuple[int, ...]
    rounds: int
    budget: float
    environments: Environments
    variants: tuple[str, ...]


def made(name: str, batch: int = 1, opset: int = models.OPSET) -> onnx.ModelProto:
    """A network with all sizes fixed."""
    sizes = {"batch": batch, "sequence": SEQUENCE}
    model = models.bert(opset=opset) if name == "bert-base" else models.MODELS[name]()
    for each in [*model.graph.input, *model.graph.output]:
        for axis in each.type.tensor_type.shape.dim:
            if axis.dim_param:
                axis.dim_value = sizes[axis.dim_param]
    return model


def masked(model: onnx.ModelProto, masks: Mapping[str, Any]) -> None:
    """Write the zeros, and widen what is left so that the sum of squares stays: activations neither die nor grow."""
    for each in model.graph.initializer:
        if each.name in masks:
            dense = numpy_helper.to_array(each)
            sparse = np.where(masks[each.name], dense, np.float32(0))
            sparse *= np.float32(np.linalg.norm(dense) / np.linalg.norm(sparse))
            each.CopyFrom(numpy_helper.from_array(sparse, each.name))


def weights_left(model: onnx.ModelProto, masks: Mapping[str, Any]) -> float:
    """Weights of contractions that are not zero, as a share of all."""
    arrays = [numpy_helper.to_array(each) for each in model.graph.initializer if len(each.dims) in (2, 4)]
    arrays = [each for each in arrays if each.shape[0] < 30000]  # not the words of BERT, which are looked up
    return sum(np.count_nonzero(each) for each in arrays) / sum(each.size for each in arrays)


def raced(
    name: str, batch: int, format: str | None, sparsity: float, dense: Path, given: Given
) -> list[dict[str, Any]]:
    """One row for each number of threads."""
    folder = dense.parent
    ours, old = (dense, None) if format is None else (folder / "sparse.onnx", None)
    masks: dict[str, Any] = {}
    if format is not None:
        result = gp.sparsify(gp.load(dense), format=format, sparsity=sparsity, verify=False)
        masks = dict(result.masks)
        model = made(name, batch)
        masked(model, masks)
        onnx.save(model, ours)
    left = weights_left(onnx.load(ours), masks)
    theirs = ours
    if name == "bert-base" and given.environments.deepsparse is not None:
        old = made(name, batch, OLD)
        masked(old, masks)
        theirs = folder / "old.onnx"
        onnx.save(old, theirs)
    inputs = folder / "inputs.npz"
    engines.random_inputs(dense, inputs)
    right = {path: engines.reference(path, inputs) for path in {dense, ours}}
    rows = []
    for threads in given.threads:
        built, seconds = engines.built(ours, folder / "ours.gp", threads, given.variants)
        contenders = [
            Contender("graphprune", "graphprune", built.path),
            Contender("onnxruntime, dense", "onnxruntime", dense),
            Contender("OpenVINO f32, dense", "openvino-f32", dense),
            Contender("OpenVINO bf16, dense", "openvino-bf16", dense),
            Contender("DeepSparse, same file", "deepsparse", theirs),
        ]
        if format is not None:
            contenders.append(Contender("onnxruntime, same file", "onnxruntime", ours))
        references = {each.name: right[dense if "dense" in each.name else ours] for each in contenders}
        found, missing = engines.raced(
            contenders,
            references,
            inputs,
            given.environments,
            threads=threads,
            cores=given.cores,
            rounds=given.rounds,
            budget=given.budget,
        )
        layers = built.manifest.variants[0].layers
        rows.append(
            {
                "network": name,
                "batch": batch,
                "format": format or "dense",
                "sparsity": sparsity,
                "density": left,
                "threads": threads,
                "build seconds": seconds,
                "fallbacks": [each.operators for each in layers if each.fallback],
                "engines": found,
                "missing": missing,
            }
        )
        if found["graphprune"].error > (ROUNDED if "bf16" in given.variants[0] else SAME):
            raise SystemExit(f"{name} {format} is wrong by {found['graphprune'].error:.1e}")
        note(str(table_of(rows[-1:])))
    return rows


def table_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """Ratios first: how many times as long as graphprune the others take. Times are milliseconds."""
    peers = {
        "ORT": "onnxruntime, dense",
        "ORT, same file": "onnxruntime, same file",
        "OV f32": "OpenVINO f32, dense",
        "OV bf16": "OpenVINO bf16, dense",
        "DeepSparse": "DeepSparse, same file",
    }
    head = ["network", "batch", "threads", *(f"{name} / ours" for name in peers), "ours, ms", "noise"]
    head += [f"{name}, ms" for name in peers if "same" not in name] + ["most noise", "error", "build, s"]
    cells = []
    for row in rows:
        found: Mapping[str, Row] = row["engines"]
        ours = found["graphprune"]
        label = row["format"] if row["format"] == "dense" else f"{row['format']} {row['sparsity']:.0%}"
        line = [
            f"{row['network']} {label}",
            row["batch"],
            row["threads"],
            *(ratio(found, peer) for peer in peers.values()),
        ]
        line += [milliseconds(ours.seconds), f"{ours.seconds.noise:.0%}"]
        line += [
            milliseconds(found[peer].seconds) if peer in found else ""
            for name, peer in peers.items()
            if "same" not in name
        ]
        line += [f"{max(each.seconds.noise for each in found.values()):.0%}", f"{ours.error:.0e}"]
        cells.append([*line, f"{row['build seconds']:.0f}"])
    return table(head, cells)


def main() -> None:
    parser = argparse.ArgumentParser(description="Whole networks beside other engines.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NETWORKS)}; all without one")
    parser.add_argument("--formats", nargs="*", default=["unstructured", "4x1", "8x1", "16x1"])
    parser.add_argument("--sparsities", nargs="*", type=float, default=[0.8, 0.9, 0.95])
    parser.add_argument("--no-dense", action="store_true")
    parser.add_argument("--batches", nargs="+", type=int, default=[1], metavar="N", help="samples of a call")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--cores", nargs="+", type=int, default=[0, 1], help="that engines run on, as many as threads")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--budget", type=float, default=0.2, help="seconds of a turn")
    parser.add_argument("--variants", nargs="+", default=[engines.best_variant()])
    parser.add_argument("--openvino", metavar="PYTHON", help="of an environment with openvino")
    parser.add_argument("--deepsparse", metavar="PYTHON", help="of an environment with deepsparse 1.8")
    parser.add_argument("--json", metavar="PATH")
    options = parser.parse_args()
    if unknown := set(options.names) - set(NETWORKS):
        parser.error(f"there is no network {', '.join(sorted(unknown))}; there are {', '.join(NETWORKS)}")
    given = Given(
        tuple(options.threads),
        tuple(options.cores),
        options.rounds,
        options.budget,
        Environments(options.openvino, options.deepsparse),
        tuple(options.variants),
    )
    about = engines.settings(given.threads, given.cores, given.rounds, given.budget)
    rows: list[dict[str, Any]] = []
    for name, batch in product(options.names or NETWORKS, options.batches):
        with tempfile.TemporaryDirectory() as place:
            dense = Path(place) / "dense.onnx"
            onnx.save(made(name, batch), dense)
            choices: list[tuple[str | None, float]] = [] if options.no_dense else [(None, 0.0)]
            choices += [(format, sparsity) for sparsity in options.sparsities for format in options.formats]
            for format, sparsity in choices:
                note(f"{name} {format or 'dense'} {sparsity:.0%}, batch {batch}")
                rows += raced(name, batch, format, sparsity, dense, given)
                write_json(options.json, "networks", {"settings": about, "rows": rows})
    print(table_of(rows))


if __name__ == "__main__":
    main()
