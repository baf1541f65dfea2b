"""ONNX file in, compiled network out: a library for each kind of processor, and models of the steps without kernel."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx_ir as ir

from graphprune.runtime import cpu
from graphprune.runtime.artifact import Layer, Network, Tensor, Variant
from graphprune.targets.kernels.across import Across
from graphprune.targets.kernels.contract import Contract
from graphprune.targets.kernels.gemv import Gemv
from graphprune.targets.kernels.tir import Machine
from graphprune.targets.network.alone import alone
from graphprune.targets.network.driver import Program, compiled
from graphprune.targets.network.graph import Node, read
from graphprune.targets.network.lowering import Call, Lowering
from graphprune.targets.network.tune import Tuner, cache_folder
from graphprune.targets.rules import rules_for
from graphprune.targets.target import Processor

WORDS = {"bfloat16": 2, "int8": 4}  # numbers of a word


def build(
    model: Path,
    shapes: Mapping[str, tuple[int, ...]],
    processors: Sequence[Processor],
    threads: int,
    tune: float = 60.0,
) -> Network:
    """The network at these input shapes, for each processor; for the first that this machine can run, forms of kernels
    are measured for at most `tune` seconds.

    Raises GraphPruneError GP811 where a size depends on the data, GP812 where a step without kernel cannot run alone.
    """
    from graphprune.dialects.onnx import files

    graph = read(files.load(model), shapes)
    identity = identified(model, shapes)
    variants = []
    nodes: list[Node] = []
    tuned = False
    for processor in processors:
        target: dict[str, Any] = {"kind": "llvm", "mcpu": processor.mcpu, "num-cores": threads}
        if processor.attributes:
            target["mattr"] = list(processor.attributes)
        machine = Machine(
            processor.lanes,
            processor.registers,
            threads,
            pairs=processor.rounding == "bfloat16",
            dots="avx512_vnni" in processor.features,
            tiles="amx_tile" in processor.features,
        )
        tuner = None
        if tune and not tuned and processor.runs_on(cpu.cpu()):
            tuner = Tuner(machine, target, cpu.cpu().name, cache_folder(), budget=tune)
            tuned = True
        lowered = Lowering(graph, machine, rules_for, tuner=tuner)
        lowered.run()
        program = compiled(lowered, target, identity, known=nodes)
        variants.append(
            Variant(
                processor.name,
                processor.features,
                exported(program),
                program.constants.tobytes(),
                program.arena,
                layers(lowered, program),
                processor.rounding,
            )
        )
    models = tuple(alone(node, graph) for node in nodes)
    inputs = tuple(Tensor(value.name, value.dtype, value.shape) for value in graph.inputs)
    outputs = tuple(Tensor(value.name, value.dtype, value.shape) for value in graph.outputs)
    made = {"tvm": version("apache-tvm")}
    return Network(identity, inputs, outputs, tuple(variants), models, threads, made)


def identified(model: Path, shapes: Mapping[str, Sequence[int]]) -> str:
    """What fallbacks are called by: the same for the same file and shapes."""
    digest = hashlib.sha256(model.read_bytes())
    for beside in sorted(external(model)):
        digest.update(beside.read_bytes())
    for name in sorted(shapes):
        digest.update(f"{name}={list(shapes[name])};".encode())
    return digest.hexdigest()[:32]


def external(model: Path) -> set[Path]:
    """The files that hold weights of a model; they were checked when it was read."""
    found = set()
    for initializer in ir.load(model).graph.initializers.values():
        if isinstance(initializer.const_value, ir.ExternalTensor):
            found.add(Path(initializer.const_value.path))
    return found


def exported(program: Program) -> bytes:
    """The shared library. Needs a C++ compiler to link it; loading does not."""
    with tempfile.TemporaryDirectory(prefix="graphprune-") as folder:
        path = Path(folder) / "network.so"
        program.library.export_library(str(path))
        return path.read_bytes()


def layers(lowered: Lowering, program: Program) -> tuple[Layer, ...]:
    """A row for each call, with what was refused and why."""
    reasons = {refusal.node: refusal.reasons for refusal in lowered.refusals}
    rows = []
    for call in lowered.calls:
        kernel = call.kernel
        if kernel is None:
            why = "; ".join(reasons.get(call.node, ())) or f"no kernel for {call.node.op}"
            rows.append(Layer(call.node.name, call.node.op, "onnxruntime", fallback=True, reason=why))
            continue
        pattern, density = stored(lowered, call)
        taken, whole = lowered.times.get(call.node, (None, None)) if density is not None else (None, None)
        why = "" if call.samples is None else f"for each of {call.times} samples"
        if whole is not None and taken is not None and pattern.startswith("dense"):
            why = ", ".join(filter(None, (why, "dense, because its zeros save no time here")))
        rows.append(Layer(call.node.name, call.what, described(kernel), pattern, density, taken, whole, reason=why))
    return tuple(rows)


def stored(lowered: Lowering, call: Call) -> tuple[str, float | None]:
    """How the weights of a call are stored, and which part of them."""
    kernel = call.kernel
    if isinstance(kernel, Contract | Across):
        values = lowered.constants[call.views[1].storage]
        total = lowered.weights[call.node]
        rows = kernel.rows
    elif isinstance(kernel, Gemv):
        values = lowered.constants[call.views[1].storage]
        total = lowered.weights[call.node]
        rows = lowered.machine.lanes
    else:
        return "", None
    density = min(1.0, values.size / max(1, total))
    numbers = getattr(kernel, "numbers", "float32")
    kind = "" if numbers == "float32" else f" {numbers}"
    if density > 0.99:
        return f"dense{kind}", 1.0
    if kind:
        return f"block {rows}x{WORDS[numbers] * getattr(kernel, 'depth', 1)}{kind}", density
    return ("unstructured" if rows == 1 else f"block {rows}x1"), density


def described(kernel: object) -> str:
    """Kind and size of the tile of a kernel, for a person to read."""
    name = type(kernel).__name__.lower()
    if isinstance(kernel, Contract):
        return f"{name} {kernel.rows}x{kernel.vectors}"
    if isinstance(kernel, Across):
        return f"{name} {kernel.rows}x{kernel.pixels}"
    return name
