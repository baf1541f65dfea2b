"""Trained networks cut, made sparse and built: accuracy beside speed.

    python benchmarks/targets/trained.py FILE.onnx --cifar10 FOLDER [--mean M,M,M --std S,S,S] [--ways NAME,NAME]
    python benchmarks/targets/trained.py FILE.onnx --data DATA.npz
    python benchmarks/targets/trained.py resnet56-4bfd9763.th --cifar10 FOLDER [--cores N] [--rounds N] [--json PATH]

Models and data as for benchmarks/accuracy/sparse.py. Each way below makes a network out of the trained one, without
training. It is judged on the test split, built for one thread at batch 1, and timed beside onnxruntime on the dense
file and on the same file, each in a process of its own, in turns. `error` is that of the build against onnxruntime.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "accuracy"), str(HERE.parent.parent / "examples")]

import engines  # noqa: E402
import sparse  # noqa: E402
from engines import Contender, Environments, milliseconds, ratio  # noqa: E402
from measure import machine, note, table, write_json  # noqa: E402

import graphprune as gp  # noqa: E402

BLOCKS = {"criterion": "obs", "recover": "sparsegpt,least_squares"}


@dataclass(frozen=True)
class Way:
    """What is done to a network: the share of its MACs that channels keep, then zeros in a format."""

    macs: float | None = None
    format: str | None = None
    sparsity: float = 0.0


WAYS = {
    "dense": Way(),
    "70 % of MACs": Way(0.7),
    "50 % of MACs": Way(0.5),
    "unstructured 80 %": Way(None, "unstructured", 0.8),
    "4x1 70 %": Way(None, "4x1", 0.7),
    "8x1 50 %": Way(None, "8x1", 0.5),
    "70 % of MACs, unstructured 70 %": Way(0.7, "unstructured", 0.7),
    "70 % of MACs, 4x1 50 %": Way(0.7, "4x1", 0.5),
}


def made(network: sparse.Network, way: Way) -> Any:
    """The network, cut and with zeros, both with recovery."""
    model = network.dense
    if way.macs is not None:
        model = gp.prune(
            model, network.example, macs=way.macs, recipe="reconstruct", calibration=network.calibration
        ).model
    if way.format is not None:
        model = gp.sparsify(
            model, network.example, format=way.format, sparsity=way.sparsity, calibration=network.calibration,
            **BLOCKS, **network.options,
        ).model  # fmt: skip
    return model


def saved(model: Any, example: Any, path: Path) -> None:
    """An ONNX file for batches of one."""
    import onnx

    if example is None:
        gp.save(model, path)
    else:
        import torch

        torch.onnx.export(model.eval(), (example[:1],), dynamo=True, verbose=False).save(str(path))
    found = onnx.load(path)
    for value in (*found.graph.input, *found.graph.output):
        first = value.type.tensor_type.shape.dim[0]
        if first.dim_param:
            first.dim_value = 1
    onnx.save(found, path)


def measured(name: str, network: sparse.Network, dense: Path, given: argparse.Namespace) -> dict[str, Any]:
    """One row."""
    model = made(network, WAYS[name])
    quality = network.judge(model)
    with tempfile.TemporaryDirectory() as place:
        file, inputs = Path(place) / "model.onnx", Path(place) / "inputs.npz"
        saved(model, network.example, file)
        engines.random_inputs(dense, inputs)
        built, seconds = engines.built(file, Path(place) / "model.gp", 1, given.variants)
        contenders = [
            Contender("graphprune", "graphprune", built.path),
            Contender("onnxruntime, dense", "onnxruntime", dense),
            Contender("onnxruntime, same file", "onnxruntime", file),
        ]
        right = {"onnxruntime, dense": engines.reference(dense, inputs)}
        references = {each.name: right.get(each.name, engines.reference(file, inputs)) for each in contenders}
        found, _ = engines.raced(
            contenders, references, inputs, Environments(None, None), threads=1, cores=given.cores, rounds=given.rounds,
            budget=given.budget,
        )  # fmt: skip
    fallbacks = [each.operators for each in built.manifest.variants[0].layers if each.fallback]
    return {"way": name, **quality, "engines": found, "build seconds": seconds, "fallbacks": fallbacks}


def table_of(rows: Sequence[Mapping[str, Any]]) -> str:
    head = ["", "accuracy", "ours, ms", "noise", "ORT dense / ours", "ORT same file / ours", "error", "fallbacks"]
    cells = []
    for row in rows:
        found = row["engines"]
        ours = found["graphprune"]
        line = [row["way"], f"{row['accuracy']:.2%}", milliseconds(ours.seconds), f"{ours.seconds.noise:.0%}"]
        line += [ratio(found, "onnxruntime, dense"), ratio(found, "onnxruntime, same file")]
        cells.append([*line, f"{ours.error:.0e}", len(row["fallbacks"])])
    return table(head, cells)


def main() -> None:
    parser = sparse.arguments("Trained networks cut, made sparse and built.")
    parser.add_argument("--ways", default=";".join(WAYS), help="names, with semicolons between them")
    parser.add_argument("--cores", nargs="+", type=int, default=[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--budget", type=float, default=0.1, help="seconds of a turn")
    parser.add_argument("--variants", nargs="+", default=[engines.best_variant()])
    given = parser.parse_args()
    note(f"machine: {machine()}")
    network = sparse.chosen(parser, given)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as place:
        dense = Path(place) / "dense.onnx"
        saved(network.dense, network.example, dense)
        for name in given.ways.split(";"):
            rows.append(measured(name.strip(), network, dense, given))
            note(table_of(rows[-1:]))
            write_json(given.json, "trained", {"model": given.model.name, "rows": rows})
    print(table_of(rows))


if __name__ == "__main__":
    main()
