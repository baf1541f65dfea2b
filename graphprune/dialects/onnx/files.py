"""Reads ONNX files and writes them, with the weights inside or in a file beside the model.

A model read here remembers its files in `model.meta`, which is never written: what is saved must not overwrite them.
Weights in external data are mapped, not loaded, and written one tensor at a time.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError, EncodeError  # type: ignore[import-untyped]

from graphprune.dialects.onnx.checks import Findings, check
from graphprune.errors import GraphPruneError
from graphprune.output import Outputs

MOST_BYTES_OF_A_MESSAGE = 2**31 - 1
"""A protobuf message cannot be longer; weights beyond this go to external data."""
_ROOM_FOR_THE_GRAPH = 2**26
_PATH = "graphprune.path"
_FILES = "graphprune.files"
_EXTERNAL = "graphprune.external"

# What parsing and deserialising raise on damaged files, as found by mutating files; none of them is a defect here.
_DAMAGED = (
    DecodeError,
    ir.serde.SerdeError,
    RecursionError,
    TypeError,
    ValueError,
)


def load(path: str | os.PathLike[str]) -> ir.Model:
    """Read an ONNX model (protobuf); external data stays in its files until it is needed.

    Raises GraphPruneError: GP101 where a file is missing or unreadable, GP102 where it is not a valid model, GP103 for
    features that cannot be kept, GP109 for a model that is hostile or beyond the limits.
    """
    shown = os.fspath(path)
    folder = os.path.dirname(os.path.abspath(shown))
    proto = _parsed(shown)
    try:
        findings = check(proto, folder)
        model = ir.serde.deserialize_model(proto)
        if findings.unsorted:
            model.graph.sort()
            for function in model.functions.values():
                function.sort()
    except GraphPruneError as error:
        error.where = f"{shown}: {error.where}" if error.where else shown
        raise
    except _DAMAGED as error:
        raise GraphPruneError("GP102", f"the model cannot be read: {_reason(error)}", shown) from error
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        ir.external_data.set_base_dir(graph, folder)
    _remember(model, shown, findings)
    return model


def _parsed(path: str) -> onnx.ModelProto:
    try:
        if os.path.isdir(path):
            remedy = "give the model file; what gp.save wrote of a module is read by gp.load(its_class, folder)"
            raise GraphPruneError("GP101", "it is a folder, not a model file", path, remedy)
        if not os.path.exists(path):
            raise GraphPruneError("GP101", "there is no such file", path)
        if not os.path.isfile(path):
            raise GraphPruneError("GP101", "it is a device or a pipe, not a file", path)
        size = os.path.getsize(path)
        if size > MOST_BYTES_OF_A_MESSAGE:
            remedy = "store the weights as external data"
            raise GraphPruneError("GP102", f"{size} bytes are more than an ONNX file can have (2 GiB)", path, remedy)
        content = Path(path).read_bytes()
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise GraphPruneError("GP101", f"the file cannot be read: {reason}", path) from error
    if not content:
        raise GraphPruneError("GP102", "the file is empty", path)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except (DecodeError, RecursionError) as error:
        what = "it is not an ONNX file, or is cut off or damaged"
        raise GraphPruneError("GP102", what, path) from error
    return model


def _reason(error: BaseException) -> str:
    """The innermost message: onnx-ir wraps errors once per nesting."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _remember(model: ir.Model, path: str, findings: Findings) -> None:
    model.meta[_PATH] = path
    model.meta[_FILES] = (os.path.realpath(path), *sorted(findings.data_files))
    model.meta[_EXTERNAL] = bool(findings.data_files)


def carry(source: ir.Model, target: ir.Model) -> None:
    """Let a model made from another remember that one's files."""
    for key in (_PATH, _FILES, _EXTERNAL):
        if key in source.meta:
            target.meta[key] = source.meta[key]


def path_of(model: ir.Model) -> str | None:
    """The file that a model was read from, or that the model it was made from was read from."""
    return model.meta.get(_PATH)


def size_of(model: ir.Model) -> int | None:
    """The bytes of the files that a model was read from; None where it was not read or they are gone."""
    try:
        return sum(os.path.getsize(name) for name in model.meta[_FILES]) if _FILES in model.meta else None
    except OSError:
        return None


def save(model: ir.Model, path: str | os.PathLike[str], *, overwrite: bool = False) -> list[Path]:
    """Write a model, whole or not at all; the files written, the model last.

    External data stays external, in a file called after the model with `.data` added; so do weights that together
    exceed 2 GiB. An older file at `path` is replaced. Raises GraphPruneError: GP104 where this would overwrite a file
    that the model was read from (unless `overwrite`), GP105 where it cannot be written.
    """
    with Outputs(path) as outputs:
        return outputs.commit(stage(model, outputs, overwrite=overwrite))


def stage(
    model: ir.Model,
    outputs: Outputs,
    *,
    overwrite: bool = False,
    progress: Callable[[int, int], object] | None = None,
) -> list[str]:
    """Write a model into `outputs` without showing it yet; the names of its files, the model last.

    progress: called with the number of tensors written to external data and their total. Raises as :func:`save`.
    """
    name = outputs.destination.name
    external = bool(model.meta.get(_EXTERNAL)) or _bytes_inside(model) > MOST_BYTES_OF_A_MESSAGE - _ROOM_FOR_THE_GRAPH
    names = [f"{name}.data", name] if external else [name]
    if not overwrite:
        _refuse_inputs(model, outputs, names)

    def told(_: ir.TensorProtocol, info: Any) -> None:
        if progress is not None:
            progress(info.index + 1, info.total)

    try:
        if external:
            ir.save(model, outputs.path(name), format="protobuf", external_data=f"{name}.data", callback=told)
        else:
            ir.save(model, outputs.path(name), format="protobuf")
    except (EncodeError, ir.serde.SerdeError, ValueError) as error:
        raise GraphPruneError("GP105", f"the format cannot hold the model: {_reason(error)}", outputs.shown) from error
    finally:
        gc.collect()  # the message and the model refer to each other; a second copy of the weights must not linger
    return [each for each in names if outputs.path(each).exists()]


def _refuse_inputs(model: ir.Model, outputs: Outputs, names: list[str]) -> None:
    inputs = set(model.meta.get(_FILES, ()))
    for name in names:
        if os.path.realpath(outputs.folder / name) in inputs:
            what = f"writing {name!r} would overwrite a file of the input model"
            remedy = "choose another output path, or ask for it with --in-place (overwrite=True in Python)"
            raise GraphPruneError("GP104", what, outputs.shown, remedy)


def _tensors(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None:
                yield value.const_value


def _bytes_inside(model: ir.Model) -> int:
    """The bytes of the initializers as they would stand in the message."""
    return sum(tensor.nbytes for tensor in _tensors(model) if tensor.dtype != ir.DataType.STRING)
