"""Where the time of a built network goes: the fastest run of each of its steps, as it runs inside the network.

    python benchmarks/targets/steps.py NAME [--format 8x1] [--sparsity 0.9] [--batch N] [--variant v4] [--core 1]
        [--seconds S] [--tune S]

NAME is one of networks.py. Steps with the same kernel are one row: milliseconds of all of them, their share, how many
there are, and GFLOP/s on the weights that are stored. On a busy machine the fastest run of a short step is one that
nobody interrupted, so that rows can be compared where the times of whole calls cannot. Outputs are not compared here.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from math import prod
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent))

import networks
import numpy as np
import onnx
import onnx_ir as ir
import tvm
from measure import table

import graphprune as gp
from graphprune.runtime import cpu
from graphprune.targets.kernels.across import Across
from graphprune.targets.kernels.contract import Contract
from graphprune.targets.kernels.tir import Machine
from graphprune.targets.network.build import WORDS, described
from graphprune.targets.network.driver import TICK, compiled
from graphprune.targets.network.graph import read
from graphprune.targets.network.lowering import Call, Lowering
from graphprune.targets.network.tune import Tuner, cache_folder
from graphprune.targets.rules import rules_for
from graphprune.targets.x86.processors import PROCESSORS


def model_of(options: argparse.Namespace) -> onnx.ModelProto:
    model = networks.made(options.name, options.batch)
    if options.format:
        with tempfile.TemporaryDirectory() as place:
            path = Path(place) / "dense.onnx"
            onnx.save(model, path)
            found = gp.sparsify(gp.load(path), format=options.format, sparsity=options.sparsity, verify=False)
        networks.masked(model, dict(found.masks))
    return model


def operations(lowered: Lowering, call: Call) -> float:
    """Multiplications and additions with the weights that are stored; 0 for a step without weights."""
    kernel = call.kernel
    if not isinstance(kernel, Contract | Across):
        return 0.0
    stored = lowered.constants[call.views[1].storage].size * WORDS.get(kernel.numbers, 1)
    return 2.0 * stored * kernel.length * prod(extent for extent, *_ in kernel.outer) * call.times


def fastest(program: Any, lowered: Lowering, seconds: float) -> np.ndarray:
    """Seconds of the fastest run of each call, times how often it runs."""
    ticks: list[tuple[int, float]] = []
    tvm.register_global_func(TICK, lambda number: ticks.append((number, time.perf_counter())), override=True)
    rng = np.random.default_rng(0)
    arrays = [program.constants, np.zeros(program.arena, "uint8")]
    for value in lowered.graph.inputs:
        given = rng.standard_normal(value.shape) if value.dtype == "float32" else rng.integers(0, 2, value.shape)
        arrays.append(given.astype(value.dtype))
    arrays += [np.zeros(value.shape, value.dtype) for value in lowered.graph.outputs]
    arguments = [tvm.runtime.tensor(array) for array in arrays]
    main = program.library["main"]
    main(*arguments)
    found = np.full(len(lowered.calls), np.inf)
    end = time.perf_counter() + seconds
    while np.isinf(found).any() or time.perf_counter() < end:
        ticks.clear()
        main(*arguments)
        numbers, ends = zip(*ticks, strict=True)
        np.minimum.at(found, list(numbers[:-1]), np.diff(ends))
    return found * [call.times for call in lowered.calls]


def main() -> None:
    parser = argparse.ArgumentParser(description="Where the time of a built network goes.")
    parser.add_argument("name", choices=networks.NETWORKS)
    parser.add_argument("--format")
    parser.add_argument("--sparsity", type=float, default=0.9)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--variant", default="v4", choices=[each.name for each in PROCESSORS])
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--tune", type=float, default=60.0, help="seconds that forms are measured for")
    options = parser.parse_args()
    os.sched_setaffinity(0, {options.core})
    processor = next(each for each in PROCESSORS if each.name == options.variant)
    target: dict[str, Any] = {"kind": "llvm", "mcpu": processor.mcpu, "num-cores": 1}
    if processor.attributes:
        target["mattr"] = list(processor.attributes)
    machine = Machine(
        processor.lanes,
        processor.registers,
        pairs=processor.rounding == "bfloat16",
        dots="avx512_vnni" in processor.features,
        tiles="amx_tile" in processor.features,
    )
    tuner = Tuner(machine, target, cpu.cpu().name, cache_folder(), budget=options.tune) if options.tune else None
    lowered = Lowering(read(ir.from_proto(model_of(options)), {}), machine, rules_for, tuner=tuner)
    lowered.run()
    seconds = fastest(compiled(lowered, target, timed=True), lowered, options.seconds)
    groups: dict[tuple[str, Any], list[int]] = {}
    for number, call in enumerate(lowered.calls):
        groups.setdefault((call.what, call.kernel), []).append(number)
    rows = []
    for (what, kernel), numbers in sorted(groups.items(), key=lambda each: -seconds[each[1]].sum()):
        total = seconds[numbers].sum()
        done = sum(operations(lowered, lowered.calls[number]) for number in numbers)
        rate = f"{done / total * 1e-9:.0f}" if done else ""
        outputs = getattr(kernel, "outputs", "")
        row = [what, described(kernel), outputs, len(numbers), f"{total * 1e3:.3f}", f"{total / seconds.sum():.1%}"]
        rows.append([*row, rate])
    print(table(["step", "kernel", "outputs", "steps", "ms", "share", "GFLOP/s"], rows))
    print(f"all steps: {seconds.sum() * 1e3:.3f} ms")
    if tuner is not None and tuner.spent > tuner.budget:
        print(f"Measuring ended after {tuner.spent:.0f} s: some steps have the form that was estimated the best.")


if __name__ == "__main__":
    main()
