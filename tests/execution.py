"""Run models in onnxruntime: the judge that knows nothing of the product.

May import onnx, onnxruntime and numpy. Must never import graphprune.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

# What a named size is when a model is run; every other name is 2.
SIZES = {"batch": 2, "length": 7, "sequence": 7, "width": 6, "height": 6}

onnxruntime.set_default_logger_severity(3)


def graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """The main graph and every graph inside it."""
    stack = [model.graph]
    while stack:
        graph = stack.pop()
        yield graph
        for node in graph.node:
            stack.extend(attribute.g for attribute in node.attribute if attribute.type == onnx.AttributeProto.GRAPH)


def session(model: onnx.ModelProto, *, optimise: bool = False) -> onnxruntime.InferenceSession:
    """A single-threaded session; without optimisations, unless asked, so that the graph runs as it is written."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimise else level.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def feeds(model: onnx.ModelProto, *, seed: int = 0, sizes: Mapping[str, int] | None = None) -> dict[str, np.ndarray]:
    """Seeded inputs: normal numbers, token ids below 4, true flags. `sizes` says how large named sizes are."""
    generator = np.random.default_rng(seed)
    sizes = {**SIZES, **(sizes or {})}
    stored = {tensor.name for tensor in model.graph.initializer}
    found = {}
    for value in model.graph.input:
        if value.name in stored:
            continue
        tensor = value.type.tensor_type
        shape = [d.dim_value if d.HasField("dim_value") else sizes.get(d.dim_param, 2) for d in tensor.shape.dim]
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        if tensor.elem_type == TensorProto.BOOL:
            found[value.name] = np.ones(shape, bool)
        elif np.issubdtype(dtype, np.integer):
            found[value.name] = generator.integers(0, 4, shape).astype(dtype)
        else:
            found[value.name] = generator.standard_normal(shape).astype(dtype)
    return found


def run(model: onnx.ModelProto, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Outputs by name."""
    names = [output.name for output in model.graph.output]
    return dict(zip(names, session(model).run(names, dict(inputs)), strict=True))


def difference(expected: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]) -> float:
    """The largest difference of any output, relative to the largest magnitude of that output.

    Infinite where names, shapes or the places of NaN differ.
    """
    if list(expected) != list(found):
        return math.inf
    worst = 0.0
    for name, reference in expected.items():
        other = found[name]
        if reference.shape != other.shape or reference.dtype != other.dtype:
            return math.inf
        if reference.size == 0:
            continue
        a, b = reference.astype(np.float64), other.astype(np.float64)
        if not np.array_equal(np.isfinite(a), np.isfinite(b)):
            return math.inf
        finite = np.isfinite(a)
        gap, scale = np.abs(a[finite] - b[finite]), np.abs(a[finite])
        if gap.size:
            worst = max(worst, float(gap.max() / max(scale.max(), 1e-6)))
    return worst


def degenerate(outputs: Mapping[str, np.ndarray]) -> list[str]:
    """Names of the floating-point outputs on which no comparison means anything: not finite, or all but constant."""
    bad = []
    for name, array in outputs.items():
        if not np.issubdtype(array.dtype, np.floating):
            continue
        finite = array.size > 0 and bool(np.isfinite(array).all())
        if not finite or (array.size > 1 and not 1e-4 < float(array.std()) < 1e4):
            bad.append(name)
    return bad
