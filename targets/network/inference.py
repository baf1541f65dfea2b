"""The shape of every value, where the inputs have theirs.

ONNX infers them for its own operators. Of others (those of onnxruntime, or GroupNormalization of operator set 21)
onnxruntime knows the results, where it is installed; results of loops are tried out. One thing ONNX gets wrong: a
window of a pool with ceil_mode that begins behind the map is none, and every runtime leaves it out; such pools are said
in a way that leaves no doubt.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from graphprune.dialects.onnx.runner import has_onnxruntime, onnxruntime_failures
from graphprune.runtime.arrays import random_inputs
from graphprune.runtime.artifact import Tensor

POOLS = {"AveragePool", "LpPool", "MaxPool"}
TYPES = {f"tensor({kind.name.lower()})": kind for kind in ir.DataType}  # as onnxruntime calls them


def infer(model: ir.Model) -> None:
    """Sets shapes and types in place; what nobody knows stays unknown."""
    ShapeInferencePass()(model)
    while any([settle(node) for node in model.graph if node.op_type in POOLS and not node.domain]):
        for node in model.graph:
            for value in node.outputs:
                value.shape = None
        ShapeInferencePass()(model)
    missing = [value for node in model.graph for value in node.outputs if value.name and unknown(value)]
    if missing and has_onnxruntime():
        ask(model, missing)
        ShapeInferencePass()(model)


def ask(model: ir.Model, values: Sequence[ir.Value]) -> None:
    """What onnxruntime says about values, as far as it does."""
    import onnxruntime

    copy = model.clone()
    names = {value.name for value in values}
    outputs = [value for node in copy.graph for value in node.outputs if value.name in names]
    copy.graph.outputs.extend(value for value in outputs if value not in copy.graph.outputs)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    with tempfile.TemporaryDirectory(prefix="graphprune-") as folder:
        path = os.path.join(folder, "model.onnx")
        ir.save(copy, path, external_data="model.data")
        try:
            session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except onnxruntime_failures():
            return  # a build will say of which value nothing is known
    told = {output.name: output for output in session.get_outputs()}
    for value in values:
        shape, kind = told[value.name].shape, told[value.name].type
        if shape and all(isinstance(size, int) for size in shape):  # none is that of a number, or of what is unknown
            value.shape = ir.Shape(shape)
        if kind in TYPES:
            value.dtype = TYPES[kind]
    left = [value for value in values if made_by_graphs(value) and unknown(value)]
    if left:
        try_out(session, left)


def unknown(value: ir.Value) -> bool:
    """Whether somebody else may know more; open sizes of other operators depend on the data."""
    shape = value.shape
    return shape is None or value.dtype is None or (made_by_graphs(value) and not shape.is_static())


def made_by_graphs(value: ir.Value) -> bool:
    """Whether a value comes out of control flow."""
    maker = value.producer()
    return maker is not None and maker.op_type in {"If", "Loop", "Scan"} and not maker.domain


def try_out(session: Any, values: Sequence[ir.Value]) -> None:
    """The sizes that results of loops and branches have for some inputs, where they are the same for others. (When such
    a build runs, a result of another size is an error: nothing is written outside of its place.)"""
    found = []
    for seed in (0, 1):
        feeds: dict[str, Any] = {}
        for entry in session.get_inputs():
            if entry.type not in TYPES or not all(isinstance(size, int) for size in entry.shape):
                return
            tensor = Tensor(entry.name, TYPES[entry.type].numpy().name, tuple(entry.shape))
            feeds |= random_inputs([tensor], np.random.default_rng(seed))
        try:
            results = session.run([value.name for value in values], feeds)
        except onnxruntime_failures():
            return
        found.append([getattr(result, "shape", None) for result in results])
    for value, *shapes in zip(values, *found, strict=True):
        if shapes[0] is not None and shapes[0] == shapes[1]:
            value.shape = ir.Shape(shapes[0])


def settle(node: ir.Node) -> bool:
    """Says a pool without ceil_mode where ONNX would count a window too many; whether that was so."""
    x, result = node.inputs[0], node.outputs[0]
    ceiling = node.attributes.get("ceil_mode")
    if "auto_pad" in node.attributes and node.attributes["auto_pad"].as_string() != "NOTSET":
        return False
    if ceiling is None or not ceiling.as_int() or x is None or x.shape is None or not x.shape.is_static():
        return False
    sizes = [int(size) for size in x.shape[2:]]  # type: ignore[arg-type]
    kernel = ints(node, "kernel_shape", [])
    ones = [1] * len(kernel)
    strides, dilations = ints(node, "strides", ones), ints(node, "dilations", ones)
    pads = ints(node, "pads", [0, 0] * len(kernel))
    counts, ends = [], []
    wrong = False
    for axis, size in enumerate(sizes):
        before, after = pads[axis], pads[len(sizes) + axis]
        reach, step = (kernel[axis] - 1) * dilations[axis] + 1, strides[axis]
        count = -(-(size + before + after - reach) // step) + 1
        if (count - 1) * step >= size + before:
            count -= 1
            wrong = True
        counts.append(count)
        ends.append(max(after, (count - 1) * step + reach - before - size))
    if wrong:
        node.attributes["ceil_mode"] = ir.AttrInt64("ceil_mode", 0)
        node.attributes["pads"] = ir.AttrInt64s("pads", [*pads[: len(sizes)], *ends])
        result.shape = None
    return wrong


def ints(node: ir.Node, name: str, default: list[int]) -> list[int]:
    """An attribute that lists numbers, or what it is when it is not given."""
    return list(node.attributes[name].as_ints()) if name in node.attributes else default
