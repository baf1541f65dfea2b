"""Single layers by format and density: time, share of the processor's peak, and where sparse begins to pay.

    python benchmarks/targets/layers.py [SHAPE ...] [--sweep] [--plot PATH.png] [--core N] [--rounds N] [--json PATH]

Every layer is built as a network of its own on one thread, the form of its kernel chosen by measurement as in a build,
and the call of its kernel is timed inside; "with copies" is with what moves the input and the output of so small a
network into and out of our layout. The dense layer runs in onnxruntime, in a process of its own, in the same
interleaved rounds. The peak is measured in short runs: fused multiply-adds on registers alone. --sweep goes through
densities and finds where a format is as fast as our dense layer. N:M/8 is the vector N:M whose N / M is the density.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import engines
import numpy as np
import onnx
import onnx_ir as ir
import tvm
from engines import HERE, Array, Engine
from onnx import TensorProto, helper, numpy_helper
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

sys.path.insert(0, str(HERE.parent))

from measure import Spread, note, spread, table, write_json

from graphprune.formats import parse
from graphprune.runtime import cpu
from graphprune.targets.kernels.across import Across
from graphprune.targets.kernels.contract import Contract
from graphprune.targets.kernels.tir import Machine, Register, const
from graphprune.targets.network.build import described
from graphprune.targets.network.driver import TICK, compiled
from graphprune.targets.network.graph import read
from graphprune.targets.network.lowering import Lowering
from graphprune.targets.network.tune import Tuner, cache_folder
from graphprune.targets.rules import rules_for
from graphprune.targets.target import Processor
from graphprune.targets.x86.processors import PROCESSORS

VECTOR = "N:M/8"
FORMATS = ("unstructured", "4x1", "8x1", "16x1", VECTOR)
SPARSITIES = (0.8, 0.9, 0.95)
SWEEP = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7)
_SAME = 1e-4
_CHAINS = 24  # sums at the same time: more than two a cycle times the four cycles that each takes


@dataclass(frozen=True)
class Shape:
    """A fully connected layer over `size` tokens, or (kernel not 0) a convolution over maps of `size` by `size`."""

    name: str
    inputs: int
    outputs: int
    size: int
    kernel: int = 0

    @property
    def places(self) -> int:
        return self.size**2 if self.kernel else self.size

    @property
    def taps(self) -> int:
        return max(1, self.kernel) ** 2


SHAPES = (
    Shape("768->3072 M128", 768, 3072, 128),
    Shape("3072->768 M128", 3072, 768, 128),
    Shape("256->64 @56", 256, 64, 56, 1),
    Shape("1024->256 @14", 1024, 256, 14, 1),
    Shape("512->2048 @7", 512, 2048, 7, 1),
    Shape("3x3 64 @56", 64, 64, 56, 3),
    Shape("3x3 128 @28", 128, 128, 28, 3),
    Shape("3x3 256 @14", 256, 256, 14, 3),
    Shape("3x3 512 @7", 512, 512, 7, 3),
)


def weights_of(shape: Shape, format: str | None, density: float) -> Array:
    """`[outputs, taps, inputs]`, random; the largest magnitudes that the format can keep."""
    rng = np.random.default_rng(0)
    dense = rng.standard_normal((shape.outputs, shape.taps, shape.inputs)).astype(np.float32)
    if format is None:
        return dense / np.float32(np.sqrt(shape.inputs * shape.taps))
    share = Fraction(density).limit_denominator(50)
    if format == VECTOR:
        mask = parse(f"{share.numerator}:{share.denominator}/8").project(np.abs(dense))
    else:
        mask = parse(format).project(np.abs(dense), 1 - density)
    return np.where(mask, dense, np.float32(0)) / np.float32(np.sqrt(shape.inputs * shape.taps * density))


def model_of(shape: Shape, weights: Array) -> onnx.ModelProto:
    bias = np.random.default_rng(1).standard_normal(shape.outputs).astype(np.float32)
    if shape.kernel:
        kernel = [shape.kernel] * 2
        stored = weights.transpose(0, 2, 1).reshape(shape.outputs, shape.inputs, *kernel)
        nodes = [helper.make_node("Conv", ["x", "w", "b"], ["y"], "layer", pads=[shape.kernel // 2] * 4)]
        x, y = ([1, channels, shape.size, shape.size] for channels in (shape.inputs, shape.outputs))
    else:
        stored = weights[:, 0].T
        nodes = [
            helper.make_node("MatMul", ["x", "w"], ["p"], "layer"),
            helper.make_node("Add", ["p", "b"], ["y"], "b"),
        ]
        x, y = ([1, shape.size, channels] for channels in (shape.inputs, shape.outputs))
    initializers = [numpy_helper.from_array(np.ascontiguousarray(a), n) for n, a in (("w", stored), ("b", bias))]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", x), ("y", y))]
    graph = helper.make_graph(nodes, "layer", values[:1], values[1:], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


# ------------------------------------------------------------------ timing
_ticks: list[float] = []


@contextmanager
def on_core(core: int) -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Ours:
    """A layer that was compiled to be timed: seconds of its kernel and of everything."""

    def __init__(self, model: onnx.ModelProto, processor: Processor, core: int):
        self.core = core
        graph = read(ir.from_proto(model), {})
        target = {"kind": "llvm", "mcpu": processor.mcpu, "num-cores": 1}
        machine = Machine(processor.lanes, processor.registers, 1)
        with on_core(core):
            tuner = Tuner(machine, target, cpu.cpu().name, cache_folder())
            lowered = Lowering(graph, machine, rules_for, tuner=tuner)
            lowered.run()
        program = compiled(lowered, target, timed=True)
        self.kernels = [n for n, call in enumerate(lowered.calls) if isinstance(call.kernel, Contract | Across)]
        assert self.kernels, "no contraction"
        self.kernel = described(lowered.calls[self.kernels[0]].kernel).replace("contract ", "")
        weights = [lowered.constants[lowered.calls[n].views[1].storage] for n in self.kernels]
        self.stored = sum(each.size for each in weights)
        self.main = program.library["main"]
        self.x = np.random.default_rng(2).standard_normal(graph.inputs[0].shape).astype(np.float32)
        shape = graph.outputs[0].shape
        arrays = [program.constants, np.zeros(program.arena, np.uint8), self.x, np.zeros(shape, np.float32)]
        self.arguments = [tvm.runtime.tensor(each) for each in arrays]

    def output(self) -> Array:
        self.main(*self.arguments)
        found: Array = self.arguments[-1].numpy()
        return found

    def seconds(self, budget: float) -> tuple[float, float]:
        """Medians of the calls of one turn."""
        kernels: list[float] = []
        alls: list[float] = []
        with on_core(self.core):
            for _ in range(3):
                self.main(*self.arguments)
            end = time.perf_counter() + budget
            while len(kernels) < 3 or time.perf_counter() < end:
                _ticks.clear()
                self.main(*self.arguments)
                kernels.append(sum(_ticks[n + 1] - _ticks[n] for n in self.kernels))
                alls.append(_ticks[-1] - _ticks[0])
        return statistics.median(kernels), statistics.median(alls)


class Peak:
    """Fused multiply-adds on registers alone."""

    steps = 2_000  # some tenths of a millisecond, of which hardly any is interrupted

    def __init__(self, processor: Processor, core: int):
        self.core, self.lanes = core, processor.lanes
        self.chains = _CHAINS if processor.registers > _CHAINS else processor.registers - 4
        with IRBuilder() as builder, T.prim_func(s_tir=True):
            argument = T.arg("numbers", T.handle())
            T.func_attr({"global_symbol": "main"})
            numbers = T.match_buffer(argument, ((self.chains + 1) * self.lanes,), "float32")
            sums = [Register(self.lanes) for _ in range(self.chains)]
            place = [tirx.Ramp(const(n * self.lanes), 1, self.lanes) for n in range(self.chains + 1)]
            for n, each in enumerate(sums):
                each.set(numbers[place[n]])
            with T.serial(0, self.steps):
                for each in sums:
                    factor = tirx.Broadcast(numbers[const(self.chains * self.lanes)], self.lanes)
                    each.set(each.get() + factor * each.get())
            for n, each in enumerate(sums):
                T.buffer_store(numbers, each.get(), [place[n]])
        target = tvm.target.Target({"kind": "llvm", "mcpu": processor.mcpu, "num-cores": 1})
        self.main = tvm.compile(tvm.IRModule({"main": builder.get()}), target=target)["main"]
        numbers_ = np.full((self.chains + 1) * self.lanes, 1e-8, np.float32)
        self.numbers = tvm.runtime.tensor(numbers_)

    def rate(self, budget: float) -> float:
        """Operations a second, the median of one turn; an addition and a multiplication are two."""
        found: list[float] = []
        with on_core(self.core):
            end = time.perf_counter() + budget
            while len(found) < 3 or time.perf_counter() < end:
                start = time.perf_counter()
                self.main(self.numbers)
                found.append(2 * self.steps * self.chains * self.lanes / (time.perf_counter() - start))
        return statistics.median(found)


def measured(
    shape: Shape,
    choices: Sequence[tuple[str | None, float]],
    processor: Processor,
    given: argparse.Namespace,
    peak: Peak,
) -> list[dict[str, Any]]:
    """A row for each format and density; the dense layer, onnxruntime and the peak are in every round."""
    ours: list[tuple[str | None, float, Ours, float]] = []
    with tempfile.TemporaryDirectory() as place:
        path, inputs = Path(place) / "dense.onnx", Path(place) / "inputs.npz"
        for format, density in [(None, 1.0), *choices]:
            weights = weights_of(shape, format, density)
            model = model_of(shape, weights)
            layer = Ours(model, processor, given.core)
            np.savez(inputs, x=layer.x)
            if format is None:
                onnx.save(model, path)
            other = Path(place) / "sparse.onnx"
            onnx.save(model, other)
            error = engines.difference(engines.reference(other, inputs), layer.output())
            if not error < _SAME:
                raise SystemExit(f"{shape.name} {format} {density}: wrong by {error:.1e}")
            ours.append((format, np.count_nonzero(weights) / weights.size, layer, error))
        theirs = Engine(sys.executable, "onnxruntime", path, 1, [given.core])
        try:
            theirs.run(inputs, Path(place) / "found.npy")
            times: list[list[tuple[float, float]]] = [[] for _ in ours]
            dense, peaks = [], []
            with engines.alone():
                for turn in range(given.rounds + 1):
                    turns = [layer.seconds(given.budget) for _, _, layer, _ in ours]
                    their, rate = statistics.median(theirs.seconds(given.budget)), peak.rate(given.budget)
                    if turn:
                        dense.append(their)
                        peaks.append(rate)
                        for each, took in zip(times, turns, strict=True):
                            each.append(took)
        finally:
            theirs.close()
    top, ort = statistics.median(peaks), spread(dense)
    rows = []
    for (format, density, layer, error), seconds in zip(ours, times, strict=True):
        kernel, whole = (spread([each[place] for each in seconds]) for place in (0, 1))
        operations = 2 * density * shape.inputs * shape.taps * shape.outputs * shape.places
        rows.append(
            {
                "shape": shape.name,
                "format": format or "dense",
                "density": density,
                "kernel": layer.kernel,
                "stored / kept": layer.stored / (density * shape.inputs * shape.taps * shape.outputs),
                "seconds": kernel,
                "with copies": whole,
                "onnxruntime dense": ort,
                "operations a second": operations / kernel.median,
                "peak": top,
                "share of peak": operations / kernel.median / top,
                "error": error,
            }
        )
    note(table_of(rows))
    return rows


def table_of(rows: Sequence[Mapping[str, Any]]) -> str:
    head = ["layer", "format", "density", "ORT / ours", "with copies", "of peak", "GFLOP/s", "µs", "noise", "tile"]
    head += ["stored / kept", "ORT, µs", "noise"]
    cells = []
    for row in rows:
        seconds: Spread = row["seconds"]
        ort: Spread = row["onnxruntime dense"]
        cells.append(
            [
                row["shape"],
                row["format"],
                f"{row['density']:.0%}",
                f"{ort.median / seconds.median:.2f}",
                f"{ort.median / row['with copies'].median:.2f}",
                f"{row['share of peak']:.0%}",
                f"{row['operations a second'] / 1e9:.0f}",
                f"{seconds.median * 1e6:.0f}",
                f"{seconds.noise:.0%}",
                row["kernel"],
                f"{row['stored / kept']:.2f}",
                f"{ort.median * 1e6:.0f}",
                f"{ort.noise:.0%}",
            ]
        )
    return table(head, cells)


# ------------------------------------------------------------------ the sweep
def break_even(rows: Sequence[Mapping[str, Any]], shape: str, format: str) -> float | None:
    """The highest density at which the format is as fast as our dense layer, between measured densities by straight
    lines; None where it never is."""
    dense = next(each["seconds"].median for each in rows if each["shape"] == shape and each["format"] == "dense")
    points = [
        (each["density"], each["seconds"].median) for each in rows if (each["shape"], each["format"]) == (shape, format)
    ]
    slowest = max(time for _, time in points)
    points = sorted([*points, (1.0, max(dense, slowest))])
    best = None
    for (low, fast), (high, slow) in itertools.pairwise(points):
        if fast < dense:
            best = high if slow <= dense else low + (high - low) * (dense - fast) / (slow - fast)
    return best


def break_even_table(rows: Sequence[Mapping[str, Any]], formats_: Sequence[str]) -> str:
    shapes = list(dict.fromkeys(each["shape"] for each in rows))
    found = [[shape, *(break_even(rows, shape, format) for format in formats_)] for shape in shapes]
    cells = [[row[0], *("never" if each is None else f"{each:.0%}" for each in row[1:])] for row in found]
    return table(["density at which sparse = dense", *formats_], cells)


def plot(rows: Sequence[Mapping[str, Any]], path: str) -> None:
    """Time over density, one panel a shape, our dense layer and onnxruntime's as lines across, and the density at which
    a format is as fast as dense."""
    try:
        import matplotlib
    except ImportError:
        note("no plot: matplotlib is not installed")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    shapes = list(dict.fromkeys(each["shape"] for each in rows))
    columns = min(3, len(shapes))
    lines = -(-len(shapes) // columns)
    figure, grid = pyplot.subplots(lines, columns, squeeze=False, figsize=(5 * columns, 4 * lines))
    for panel, shape in zip(grid.flat, shapes, strict=False):
        here = [each for each in rows if each["shape"] == shape]
        for format in dict.fromkeys(each["format"] for each in here if each["format"] != "dense"):
            points = sorted(
                (each["density"], each["seconds"].median * 1e6) for each in here if each["format"] == format
            )
            even = break_even(rows, shape, format)
            label = format if even is None else f"{format}, = dense at {even:.0%}"
            panel.plot(*zip(*points, strict=True), marker="o", markersize=3, label=label)
        dense = next(each for each in here if each["format"] == "dense")
        panel.axhline(dense["seconds"].median * 1e6, color="black", linewidth=1, label="dense")
        theirs = dense["onnxruntime dense"].median * 1e6
        panel.axhline(theirs, color="gray", linestyle="--", linewidth=1, label="onnxruntime, dense")
        panel.set(title=shape, xlabel="density", ylabel="µs", xscale="log", yscale="log")
        places = [2, 5, 10, 20, 50, 100]
        panel.set_xticks([each / 100 for each in places], [f"{each}%" for each in places])
        panel.minorticks_off()
        panel.legend(fontsize=7)
    for panel in grid.flat[len(shapes) :]:
        panel.axis("off")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    names = [each.name for each in SHAPES]
    parser = argparse.ArgumentParser(description="Single layers by format and density.")
    parser.add_argument("shapes", nargs="*", metavar="SHAPE", help=f"of {'; '.join(names)}; all without one")
    parser.add_argument("--formats", nargs="+", default=list(FORMATS))
    parser.add_argument("--sweep", action="store_true", help="densities from 2 to 70 %% in place of 20, 10 and 5 %%")
    parser.add_argument("--densities", nargs="+", type=float, help="these in place of both")
    parser.add_argument("--plot", metavar="PATH", help="a PNG of time over density, where matplotlib is installed")
    parser.add_argument("--variant", default=engines.best_variant())
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--budget", type=float, default=0.02, help="seconds of a turn")
    parser.add_argument("--json", metavar="PATH")
    given = parser.parse_args()
    if unknown := set(given.shapes) - set(names):
        parser.error(f"there is no shape {', '.join(sorted(unknown))}; there are {'; '.join(names)}")
    tvm.register_global_func(TICK, lambda _: _ticks.append(time.perf_counter()), override=True)
    processor = next(each for each in PROCESSORS if each.name == given.variant)
    peak = Peak(processor, given.core)
    note(f"peak: {peak.rate(0.2) / 1e9:.0f} GFLOP/s")
    densities = given.densities or (SWEEP if given.sweep else tuple(1 - each for each in SPARSITIES))
    choices: list[tuple[str | None, float]] = [(format, density) for format in given.formats for density in densities]
    about = engines.settings([1], [given.core], given.rounds, given.budget)
    rows: list[dict[str, Any]] = []
    for shape in SHAPES:
        if not given.shapes or shape.name in given.shapes:
            note(shape.name)
            rows += measured(shape, choices, processor, given, peak)
            write_json(given.json, "layers", {"settings": about, "rows": rows})
    print(table_of(rows))
    if len(densities) > len(SPARSITIES):
        print(break_even_table(rows, given.formats))
    if given.plot:
        plot(rows, given.plot)


if __name__ == "__main__":
    main()
