"""Quantised networks, dense and with blocks of zeros, beside onnxruntime on the dense quantised file.

    python benchmarks/targets/quantised.py [NAME ...] [--formats 16x4 32x4] [--sparsities 0.8 0.9] [--operators OP ...]
        [--core N] [--rounds N] [--processor-time] [--json PATH]

NAME: bert-base, resnet-50 and mobilenet-v2 as in networks.py, one thread, batch 1. onnxruntime's own quantize_static
makes them 8-bit: QDQ form, one scale for each output channel, activations from 0 to 255, calibrated on random inputs;
products alone in bert-base (--operators), all that it knows in the others. Zeros are there before that, and stay.
--processor-time leaves out what other processes had of the core. See README.md.
"""

from __future__ import annotations

import argparse
import os
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
from engines import Contender, Environments, Row, milliseconds, ratio
from measure import note, table, write_json
from networks import NETWORKS, made, masked

import graphprune as gp
from graphprune.runtime.cpu import cpu
from graphprune.targets.x86.processors import PROCESSORS

PRODUCTS = ("MatMul", "Gemm")
CASES = 2  # of calibration


def quantised(model: onnx.ModelProto, to: Path, operators: Sequence[str] | None) -> None:
    """The file with numbers of 8 bits."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    rng = np.random.default_rng(1)

    class Random(CalibrationDataReader):  # type: ignore[misc]
        left = CASES

        def get_next(self) -> dict[str, Any] | None:
            self.left -= 1
            return {each.name: number(each, rng) for each in model.graph.input} if self.left >= 0 else None

    source = to.with_suffix(".float.onnx")
    onnx.save(model, source)
    quantize_static(
        source,
        to,
        Random(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=None if operators is None else list(operators),
    )


def number(value: onnx.ValueInfoProto, rng: np.random.Generator) -> Any:
    kind = value.type.tensor_type
    shape = [axis.dim_value for axis in kind.shape.dim]
    if kind.elem_type == onnx.TensorProto.FLOAT:
        return rng.standard_normal(shape).astype(np.float32)
    return rng.integers(0, 2, shape).astype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))


def variant() -> str:
    """The best for integers that this processor can run."""
    return next(each.name for each in PROCESSORS if each.rounding == "float32" and each.runs_on(cpu()))


def raced(name: str, format: str | None, sparsity: float, dense: Path, given: argparse.Namespace) -> dict[str, Any]:
    folder = dense.parent
    operators = given.operators or (PRODUCTS if name == "bert-base" else None)
    ours = dense
    if format is not None:
        model = made(name)
        source = folder / "float.onnx"
        onnx.save(model, source)
        masked(model, dict(gp.sparsify(gp.load(source), format=format, sparsity=sparsity, verify=False).masks))
        ours = folder / "sparse.onnx"
        quantised(model, ours, operators)
    elif not dense.exists():
        quantised(made(name), dense, operators)
    inputs = folder / "inputs.npz"
    engines.random_inputs(dense, inputs)
    built, seconds = engines.built(ours, folder / "ours.gp", 1, [variant()])
    contenders = [
        Contender("graphprune", "graphprune", built.path),
        Contender("onnxruntime, dense", "onnxruntime", dense),
    ]
    if format is not None:
        contenders.append(Contender("onnxruntime, same file", "onnxruntime", ours))
    right = {each.name: engines.reference(each.model if "onnx" in each.name else ours, inputs) for each in contenders}
    found, _ = engines.raced(
        contenders,
        right,
        inputs,
        Environments(),
        threads=1,
        cores=[given.core],
        rounds=given.rounds,
        budget=given.budget,
    )
    if found["graphprune"].error > max(row["tolerance"] for row in built.manifest.verification):
        raise SystemExit(f"{name} {format} is wrong by {found['graphprune'].error:.1e}")
    layers = built.manifest.variants[0].layers
    return {
        "network": name,
        "format": format or "dense",
        "sparsity": sparsity,
        "build seconds": seconds,
        "layers": dict(Counter(each.format for each in layers if each.format)),
        "fallbacks": [each.operators for each in layers if each.fallback],
        "engines": found,
    }


def table_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """Ratios first: how many times as long as graphprune onnxruntime takes."""
    head = ["network", "onnxruntime / ours", "same file / ours", "ours, ms", "noise", "error", "fallbacks", "build, s"]
    cells = []
    for row in rows:
        found: Mapping[str, Row] = row["engines"]
        ours = found["graphprune"]
        label = row["format"] if row["format"] == "dense" else f"{row['format']} {row['sparsity']:.0%}"
        line = [f"{row['network']} {label}", ratio(found, "onnxruntime, dense"), ratio(found, "onnxruntime, same file")]
        line += [milliseconds(ours.seconds), f"{ours.seconds.noise:.0%}", f"{ours.error:.0e}"]
        cells.append([*line, str(len(row["fallbacks"])), f"{row['build seconds']:.0f}"])
    return table(head, cells)


def main() -> None:
    parser = argparse.ArgumentParser(description="Quantised networks beside onnxruntime.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NETWORKS)}; all without one")
    parser.add_argument("--formats", nargs="*", default=["16x4"])
    parser.add_argument("--sparsities", nargs="*", type=float, default=[0.8, 0.9])
    parser.add_argument("--operators", nargs="*", help="that are quantised")
    parser.add_argument("--core", type=int, default=0, help="that engines run on")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--budget", type=float, default=0.2, help="seconds of a turn")
    parser.add_argument("--processor-time", action="store_true", help="instead of that of the clock")
    parser.add_argument("--json", metavar="PATH")
    options = parser.parse_args()
    if unknown := set(options.names) - set(NETWORKS):
        parser.error(f"there is no network {', '.join(sorted(unknown))}; there are {', '.join(NETWORKS)}")
    if options.processor_time:
        os.environ[engines.CLOCK] = "processor"
    about = engines.settings([1], [options.core], options.rounds, options.budget)
    rows: list[dict[str, Any]] = []
    for name in options.names or NETWORKS:
        with tempfile.TemporaryDirectory() as place:
            choices: list[tuple[str | None, float]] = [(None, 0.0)]
            choices += [(format, sparsity) for sparsity in options.sparsities for format in options.formats]
            for format, sparsity in choices:
                note(f"{name} {format or 'dense'} {sparsity:.0%}")
                rows.append(raced(name, format, sparsity, Path(place) / "dense.onnx", options))
                note(table_of(rows[-1:]))
                write_json(options.json, "quantised", {"settings": about, "rows": rows})
    print(table_of(rows))


if __name__ == "__main__":
    main()
