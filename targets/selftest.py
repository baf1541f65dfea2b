"""What works on this machine: a small network, dense, with zeros in every format and quantised, built for every variant
that is for such networks, and run.

The network has what products come in: a 3x3 convolution, a 1x1 convolution and a fully connected layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import graphprune as gp
from graphprune.errors import GraphPruneError
from graphprune.formats import FORMATS, parse
from graphprune.runtime.cpu import cpu
from graphprune.targets import TARGETS
from graphprune.targets.target import Processor

CHANNELS = 64
SPARSITY = 0.75
INTEGERS = "int8"


@dataclass(frozen=True)
class Checked:
    """One network on one variant. `error` is the largest of any output, over its largest magnitude, where it was run;
    `failure` says why it was not, or what was wrong."""

    target: str
    variant: str
    format: str
    error: float | None
    failure: str = ""


def selftest(seed: int = 0) -> Iterator[Checked]:
    """A row for every variant that this machine can run and every kind of format. Raises GraphPruneError GP108 where
    TVM or onnxruntime is missing."""
    for name in TARGETS.names():
        target: Any = TARGETS.load(name)()
        here = cpu()
        variants = [each for each in target.processors if each.runs_on(here) and target.machine == here.machine]
        for text in ("dense", *(FORMATS.load(kind).examples[0] for kind in FORMATS.names())):
            yield from _built(name, [each for each in variants if not each.integers], text, seed)
        yield from _built(name, variants, INTEGERS, seed)


def _built(target: str, variants: list[Processor], text: str, seed: int) -> Iterator[Checked]:
    model: Any = network(seed, text == INTEGERS)
    if text not in {"dense", INTEGERS}:
        fixed = parse(text).sparsity
        model = gp.sparsify(model, format=text, sparsity=SPARSITY if fixed is None else None, verify=False).model
    for each in variants:
        try:
            rows = gp.build(model, target=target, variants=[each.name], seed=seed).manifest.verification
            yield Checked(target, each.name, text, max(row["error"] for row in rows))
        except GraphPruneError as error:
            if error.code == "GP108":
                raise
            yield Checked(target, each.name, text, None, f"{error.code} {error.what}")


def network(seed: int, integers: bool = False) -> Any:
    """[1, 64, 14, 14] to [1, 64], as an ONNX model; with what is multiplied as numbers of 8 bits."""
    import onnx_ir as ir
    from onnx import TensorProto, helper, numpy_helper

    generator = np.random.default_rng(seed)
    stored = [numpy_helper.from_array(np.array([1, CHANNELS, 196], np.int64), "rows")]
    nodes = []

    def constant(name: str, array: Any) -> str:
        stored.append(numpy_helper.from_array(array, name))
        return name

    def weights(name: str, *shape: int) -> str:
        numbers = generator.standard_normal(shape) * np.prod(shape[1:]) ** -0.5
        if not integers:
            return constant(name, numbers.astype(np.float32))
        step = np.float32(np.abs(numbers).max() / 127)
        names = constant(f"{name}/stored", np.rint(numbers / step).astype(np.int8)), constant(f"{name}/step", step)
        nodes.append(helper.make_node("DequantizeLinear", names, [name]))
        return name

    def read(name: str) -> str:
        if not integers:
            return name
        ends = constant(f"{name}/step", np.float32(0.037)), constant(f"{name}/zero", np.uint8(128))
        nodes.append(helper.make_node("QuantizeLinear", [name, *ends], [f"{name}/stored"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"{name}/stored", *ends], [f"{name}/read"]))
        return f"{name}/read"

    square = (CHANNELS, CHANNELS)
    nodes.append(helper.make_node("Conv", [read("x"), weights("w3", *square, 3, 3)], ["a"], pads=[1] * 4))
    nodes.append(helper.make_node("Relu", ["a"], ["b"]))
    nodes.append(helper.make_node("Conv", [read("b"), weights("w1", *square, 1, 1)], ["c"]))
    nodes.append(helper.make_node("Reshape", ["c", "rows"], ["d"]))
    nodes.append(helper.make_node("Transpose", ["d"], ["e"], perm=[0, 2, 1]))
    nodes.append(helper.make_node("MatMul", [read("e"), weights("w", *square)], ["y"]))
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, CHANNELS, 14, 14])]
    made = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 196, CHANNELS])]
    graph = helper.make_graph(nodes, "selftest", given, made, stored)
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
