"""Runs ONNX models: onnxruntime where it is installed, else the reference evaluator of the onnx package, which also
runs what onnxruntime cannot load of bfloat16.

Optimisations are off unless asked for, so that what is compared is the graph that was written.
"""

from __future__ import annotations

import importlib.util
import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from graphprune.errors import GraphPruneError
from graphprune.program import Array

# Above this a model cannot be one protobuf message, and goes through a file.
_MOST_BYTES = 2**31 - 2**20
# Declared sizes come from the file, and a file can declare any.
_MOST_NUMBERS = 2**28
_MOST_AXES = 64
_INTEGERS = {"INT64": np.int64, "INT32": np.int32, "INT16": np.int16, "INT8": np.int8, "UINT8": np.uint8}


def has_onnxruntime() -> bool:
    """Whether onnxruntime is installed (the extra ``ort``)."""
    return importlib.util.find_spec("onnxruntime") is not None


class Runner:
    """One model, ready to run; as it is written unless ``optimised``. ``GP402`` where it cannot be loaded or run."""

    def __init__(self, model: ir.Model, optimised: bool = False):
        self.outputs = [value.name or "" for value in model.graph.outputs]
        self.run_feeds = _ready(model, optimised)

    def __call__(self, feeds: Mapping[str, Array]) -> list[Array]:
        return [np.asarray(each) for each in self.run_feeds(dict(feeds))]


def _ready(model: ir.Model, optimised: bool):  # type: ignore[no-untyped-def]  # a callable: feeds -> outputs
    if not has_onnxruntime():
        return _reference(model)
    try:
        return _onnxruntime(model, optimised)
    except GraphPruneError:
        if optimised:  # what onnxruntime fuses, it cannot always load
            return _ready(model, False)
        if not has_bfloat16(model):
            raise
        return _reference(model)  # onnxruntime has hardly any kernels of this type for processors


def has_bfloat16(model: ir.Model) -> bool:
    """Whether numbers of bfloat16 go in, are stored, come out or are made by a Cast."""
    graph = model.graph
    values = {value.dtype for value in (*graph.inputs, *graph.initializers.values(), *graph.outputs)}
    casts = (node.attributes.get("to") for node in graph.all_nodes() if node.op_type == "Cast")
    return ir.DataType.BFLOAT16 in values | {to.value for to in casts if to is not None}


def _onnxruntime(model: ir.Model, optimised: bool):  # type: ignore[no-untyped-def]  # a callable: feeds -> outputs
    import onnxruntime

    options = onnxruntime.SessionOptions()
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_EXTENDED if optimised else levels.ORT_DISABLE_ALL
    options.log_severity_level = 4
    failures = onnxruntime_failures()
    session = session_of(model, options)

    def run(feeds: dict[str, Array]) -> Sequence[Array]:
        try:
            return session.run(None, feeds)  # type: ignore[no-any-return]
        except failures as error:
            raise cannot_run(error, str(model.graph.name)) from error

    return run


def session_of(model: ir.Model, options: Any) -> Any:
    """A session of onnxruntime with these options, on the processor. Raises GraphPruneError GP402."""
    import onnxruntime

    size = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)
    providers = ["CPUExecutionProvider"]
    try:
        if size > _MOST_BYTES or _has_files(model):
            with tempfile.TemporaryDirectory(prefix="graphprune-") as folder:
                path = os.path.join(folder, "model.onnx")
                ir.save(model, path, external_data="model.data")
                return onnxruntime.InferenceSession(path, options, providers=providers)
        return onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=providers)
    except onnxruntime_failures() as error:
        what = f"onnxruntime cannot load it: {_first_line(error)}"
        raise GraphPruneError("GP402", what, str(model.graph.name), "see that onnxruntime can load it") from error


_FAILURES = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NotImplemented", "RuntimeException")


def onnxruntime_failures() -> tuple[type[Exception], ...]:
    """What onnxruntime raises when it cannot load or run a model, or is fed the wrong inputs."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return (ValueError, *(getattr(state, name) for name in _FAILURES))


def cannot_run(error: Exception | None, where: str) -> GraphPruneError:
    """What to raise where onnxruntime fails on the inputs that it is given."""
    remedy = "give sizes for the symbolic axes of the inputs, such as --size batch=1"
    return GraphPruneError("GP402", f"onnxruntime cannot run it: {_first_line(error)}", where, remedy)


def _first_line(error: Exception | None) -> str:
    return str(error).strip().split("\n")[0][:300]


# The reference evaluator is plain NumPy code: what a model does wrong surfaces as whatever NumPy raises.
_REFERENCE_FAILS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def _reference(model: ir.Model):  # type: ignore[no-untyped-def]  # a callable: feeds -> outputs
    from onnx.reference import ReferenceEvaluator

    def guarded(step: Callable[[], Any]) -> Any:
        try:
            with np.errstate(all="ignore"):  # saturated sigmoids overflow on purpose
                return step()
        except _REFERENCE_FAILS as error:
            what = f"the reference evaluator cannot run it: {_first_line(error)}"
            raise GraphPruneError("GP402", what, str(model.graph.name)) from error

    evaluator = guarded(lambda: ReferenceEvaluator(ir.to_proto(_in_memory(model))))
    return lambda feeds: guarded(lambda: evaluator.run(None, feeds))


def _in_memory(model: ir.Model) -> ir.Model:
    """The model without files of its own."""
    if not _has_files(model):
        return model
    copy = model.clone()
    for value in copy.graph.initializers.values():
        if value.const_value is not None:
            value.const_value = loaded(value.const_value, value.name or "")
    return copy


def _has_files(model: ir.Model) -> bool:
    """Whether weights lie in files beside that of the model."""
    return any(isinstance(each.const_value, ir.ExternalTensor) for each in model.graph.initializers.values())


def loaded(tensor: ir.TensorProtocol, name: str) -> ir.TensorProtocol:
    """A tensor that is in no file: as a proto it would name the file, and not in which folder it is."""
    if not isinstance(tensor, ir.ExternalTensor):
        return tensor
    return ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=name)


# Tried in turn for dynamic axes that nobody gave a size for: many networks only run from some size on.
DYNAMIC_SIZES = (16, 64, 256, 512, 640, 1, 224, 4096, 16000)


def integer_choices(model: ir.Model, case: Mapping[str, Array]) -> list[tuple[str, Array]]:
    """Other values for scalar integer inputs, taken from the constants they are compared with: so that both sides of
    a conditional are run."""
    constants = [
        value.const_value.numpy()
        for node in model.graph
        if node.op_type == "Equal"
        for value in node.inputs
        if value is not None and value.const_value is not None
    ]
    scalars = [c.reshape(()) for c in constants if c.size == 1 and c.dtype.kind == "i"]
    names = [name for name, array in case.items() if array.size == 1 and array.dtype.kind == "i"]
    return [(name, c.astype(case[name].dtype).reshape(case[name].shape)) for name in names for c in scalars[:4]]


def feeds(model: ir.Model, seed: int, sizes: Mapping[str, int], dynamic: int = 1) -> dict[str, Array]:
    """Seeded standard normal inputs (integers 0 or 1, booleans true); dynamic axes as given, else ``dynamic``, but 1
    for a leading axis."""
    rng = np.random.Generator(np.random.PCG64(seed))
    found: dict[str, Array] = {}
    types = {value.name: value.dtype or ir.DataType.FLOAT for value in model.graph.inputs}
    for name, shape in shapes(model, sizes, dynamic).items():
        if math.prod(shape) > _MOST_NUMBERS or len(shape) > _MOST_AXES:
            what = f"the input {name!r} asks for {math.prod(shape)} numbers in {len(shape)} axes"
            raise GraphPruneError("GP402", what, str(model.graph.name), "give smaller sizes, such as --size batch=1")
        dtype = types[name]
        if dtype == ir.DataType.BOOL:
            found[name] = np.ones(shape, bool)
        elif dtype.name in _INTEGERS:
            found[name] = rng.integers(0, 2, shape).astype(_INTEGERS[dtype.name])
        else:
            found[name] = rng.standard_normal(shape).astype(dtype.numpy())
    return found


def shapes(model: ir.Model, sizes: Mapping[str, int], dynamic: int = 1) -> dict[str, list[int]]:
    """The shapes of the inputs that have one, with numbers for dynamic axes: by name, else ``dynamic``, but 1 for a
    leading axis."""
    inputs = [each for each in model.graph.inputs if each.name not in model.graph.initializers]
    declared = {each.name or "": each.shape for each in inputs if each.shape is not None}
    leading = {str(shape[0].value) for shape in declared.values() if shape and not isinstance(shape[0], int)}
    known = {**dict.fromkeys(leading, 1), **sizes}
    return {
        name: [_chosen(size, place, known, dynamic) for place, size in enumerate(shape)]
        for name, shape in declared.items()
    }


def _chosen(size: object, place: int, sizes: Mapping[str, int], dynamic: int) -> int:
    if isinstance(size, int) and size >= 0:
        return size
    name = getattr(size, "value", None)
    return sizes.get(str(name), 1 if place == 0 else dynamic)
