"""The ONNX files of a folder: each built by graphprune, checked, and timed beside onnxruntime on the same file.

    python benchmarks/targets/files.py FOLDER [--shapes FILE:NAME=N,N ...] [--threads N] [--cores N ...] [--rounds N]
        [--json PATH]

Open first axes are 1. A file that cannot be built is told with its code. Operators
without a kernel, which onnxruntime runs in the middle of our network, are counted and named.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import engines
import numpy as np
import onnx
import onnxruntime
from engines import HERE, Array, Contender, Environments, Row, milliseconds, ratio

sys.path.insert(0, str(HERE.parent))

from measure import note, table, write_json

from graphprune.cli.build import named_shape
from graphprune.errors import GraphPruneError
from graphprune.runtime.arrays import random_inputs

SLOWER = 0.95  # of onnxruntime's speed: what the goal allows


def fixed(source: Path, to: Path, shapes: Mapping[str, Sequence[int]]) -> None:
    """The file with these shapes of its inputs, so that all engines know them."""
    model = onnx.load(source)
    for each in model.graph.input:
        for axis, size in zip(each.type.tensor_type.shape.dim, shapes.get(each.name, ()), strict=False):
            axis.dim_value = size
    onnx.save(model, to)


def of_file(text: str) -> tuple[str, str]:
    """A file and the shape of one of its inputs, from FILE:NAME=N,N."""
    name, _, shape = text.partition(":")
    return name, shape


def first_output(model: Path, inputs: Mapping[str, Array]) -> Array:
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    found: Array = session.run(None, dict(inputs))[0]
    return found


def raced(source: Path, given: argparse.Namespace) -> dict[str, Any]:
    row: dict[str, Any] = {"file": source.stem, "nodes": len(onnx.load(source, load_external_data=False).graph.node)}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        try:
            shapes = dict(named_shape(text) for name, text in map(of_file, given.shapes) if name == source.stem)
            built, seconds = engines.built(source, folder / "ours.gp", given.threads, given.variants, shapes=shapes)
        except GraphPruneError as error:
            return {**row, "code": error.code, "why": str(error)[:300]}
        about = built.manifest
        fixed(source, folder / "fixed.onnx", {each.name: each.shape for each in about.inputs})
        arrays = random_inputs(about.inputs, np.random.Generator(np.random.PCG64(0)))
        np.savez(folder / "inputs.npz", **arrays)  # type: ignore[arg-type]
        wanted = first_output(folder / "fixed.onnx", arrays)
        contenders = [
            Contender("graphprune", "graphprune", built.path),
            Contender("onnxruntime", "onnxruntime", folder / "fixed.onnx"),
        ]
        found, missing = engines.raced(
            contenders,
            {each.name: wanted for each in contenders},
            folder / "inputs.npz",
            Environments(),
            threads=given.threads,
            cores=given.cores,
            rounds=given.rounds,
            budget=given.budget,
        )
    layers = about.variants[0].layers
    fallbacks = Counter(each.operators for each in layers if each.fallback)
    worst = max((each["error"] or 0.0 for each in about.verification), default=0.0)
    verified = all(each["ok"] is True for each in about.verification)
    row |= {"calls": len(layers), "fallbacks": dict(fallbacks), "build seconds": seconds, "verified": verified}
    return {**row, "engines": found, "missing": missing, "largest error of any output": worst}


def table_of(rows: Sequence[Mapping[str, Any]]) -> str:
    head = [
        "file",
        "ORT / ours",
        "ours, ms",
        "noise",
        "ORT, ms",
        "noise",
        "nodes",
        "calls",
        "without a kernel",
        "error",
    ]
    head += ["verified", "build, s"]
    cells: list[list[object]] = []
    for row in rows:
        if "code" in row:
            cells.append([row["file"], row["code"], *[""] * 4, row["nodes"], *[""] * 5])
            continue
        found: Mapping[str, Row] = row["engines"]
        line: list[object] = [row["file"], ratio(found, "onnxruntime")]
        for name in ("graphprune", "onnxruntime"):
            each = found.get(name)
            line += ["", ""] if each is None else [milliseconds(each.seconds), f"{each.seconds.noise:.0%}"]
        names = ", ".join(f"{count} {name}" for name, count in row["fallbacks"].items()) or "none"
        line += [row["nodes"], row["calls"], names, f"{row['largest error of any output']:.0e}"]
        cells.append([*line, "yes" if row["verified"] else "no", f"{row['build seconds']:.0f}"])
    return table(head, cells)


def summary(rows: Sequence[Mapping[str, Any]]) -> str:
    built = [row for row in rows if "code" not in row]
    whole = [row for row in built if not row["fallbacks"]]
    ratios = [
        row["engines"]["onnxruntime"].seconds.median / row["engines"]["graphprune"].seconds.median
        for row in built
        if len(row["engines"]) > 1
    ]
    fast = sum(each >= SLOWER for each in ratios)
    text = f"{len(built)} of {len(rows)} files are built, {len(whole)} with a kernel for every operator; {fast} of "
    return text + f"{len(ratios)} are not more than {1 - SLOWER:.0%} slower than onnxruntime"


def main() -> None:
    parser = argparse.ArgumentParser(description="ONNX files beside onnxruntime.")
    parser.add_argument("folder", type=Path, help="a folder of ONNX files")
    parser.add_argument("--only", nargs="*", default=[], help="files whose names have one of these in them")
    parser.add_argument("--shapes", nargs="*", default=[], metavar="FILE:NAME=N,N", help="of open axes, by file")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cores", nargs="+", type=int, default=[0, 1], help="that engines run on, as many as threads")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--budget", type=float, default=0.1, help="seconds of a turn")
    parser.add_argument("--variants", nargs="+", default=[engines.best_variant()])
    parser.add_argument("--json", metavar="PATH")
    given = parser.parse_args()
    about = engines.settings([given.threads], given.cores, given.rounds, given.budget)
    rows = []
    for source in sorted(given.folder.glob("*.onnx")):
        if not given.only or any(each in source.stem for each in given.only):
            note(source.name)
            rows.append(raced(source, given))
            note(table_of(rows[-1:]))
            write_json(given.json, "files", {"settings": about, "rows": rows})
    print(table_of(rows))
    print(summary(rows))


if __name__ == "__main__":
    main()
