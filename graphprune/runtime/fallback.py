"""Steps that no kernel of ours runs: the library calls one function by name, and onnxruntime runs a small model."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graphprune.errors import GraphPruneError
from graphprune.runtime import ffi
from graphprune.runtime.artifact import FALLBACK

_KINDS = {0: "i", 1: "u", 2: "f", 6: "b"}

_running = threading.local()
"""`steps` is the Steps of the session that this thread runs; `error` what a step of it raised."""
_registering = threading.Lock()
_registered = False


class Steps:
    """The fallback models of one loaded artifact. Sessions of onnxruntime may be run by several threads at once."""

    def __init__(self, artifact: str, paths: Sequence[Path], threads: int) -> None:
        self.artifact = artifact
        self.sessions = [_session(path, threads) for path in paths]
        if paths:
            _register()

    def run(self, key: str, tensors: Sequence[ffi.Tensor]) -> None:
        """Run the model that a key names on tensors that lie in the library's memory: inputs, then outputs."""
        artifact, _, index = key.rpartition("/")
        if artifact != self.artifact or not index.isdigit() or int(index) >= len(self.sessions):
            raise GraphPruneError("GP513", f"the library calls the fallback {key!r}, which it has not", self.artifact)
        session = self.sessions[int(index)]
        inputs, outputs = session.get_inputs(), session.get_outputs()
        if len(tensors) != len(inputs) + len(outputs):
            what = (
                f"the fallback {key!r} got {len(tensors)} tensors, not {len(inputs)} inputs and {len(outputs)} outputs"
            )
            raise GraphPruneError("GP513", what, self.artifact)
        views = [view(each) for each in tensors]
        results = session.run(None, {each.name: array for each, array in zip(inputs, views, strict=False)})
        for each, place, result in zip(outputs, views[len(inputs) :], results, strict=True):
            if result.shape != place.shape or result.dtype != place.dtype:
                what = f"{each.name!r} of the fallback {key!r} is {result.dtype}{list(result.shape)}"
                raise GraphPruneError("GP513", f"{what}, not {place.dtype}{list(place.shape)}", self.artifact)
            np.copyto(place, result)


class Running:
    """While a library of these steps runs in this thread; `error` is what a step raised, if one did."""

    def __init__(self, steps: Steps) -> None:
        self.steps = steps
        self.error: BaseException | None = None

    def __enter__(self) -> Running:
        _running.now = self
        return self

    def __exit__(self, *_: object) -> None:
        _running.now = None


def view(tensor: ffi.Tensor) -> np.ndarray[Any, np.dtype[Any]]:
    """The memory of a tensor as an array."""
    if tensor.lanes != 1 or tensor.code not in _KINDS:
        raise GraphPruneError("GP513", f"a fallback got a tensor of the data type code {tensor.code}")
    shape = tuple(tensor.shape[axis] for axis in range(tensor.ndim))
    dtype = np.dtype(f"{_KINDS[tensor.code]}{tensor.bits // 8}")
    count = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    memory = (ctypes.c_uint8 * count).from_address((tensor.data or 0) + tensor.byte_offset)
    return np.ndarray(shape, dtype, buffer=memoryview(memory))


def _session(path: Path, threads: int) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        what = "this network has steps that onnxruntime runs, and it is not installed"
        raise GraphPruneError("GP108", what, path.name, "pip install 'graphprune[ort]'") from error
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    # Its threads would go on spinning while the next kernel runs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    names = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NotImplemented", "RuntimeException")
    failures: tuple[type[Exception], ...] = (ValueError, *(getattr(state, name) for name in names))
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except failures as error:
        first = str(error).strip().split("\n")[0]
        raise GraphPruneError("GP509", f"onnxruntime cannot load {path.name!r}: {first}", str(path.parent)) from error


def _register() -> None:
    global _registered  # noqa: PLW0603  # one function for the whole process, registered once
    with _registering:
        if not _registered:
            ffi.register(FALLBACK, _called)
            _registered = True


def _called(key: str, tensors: Sequence[ffi.Tensor]) -> None:
    now = getattr(_running, "now", None)
    if now is None:
        raise GraphPruneError("GP513", f"the fallback {key!r} was called outside of a session")
    try:
        now.steps.run(key, tensors)
    except BaseException as error:
        now.error = error  # only its text gets through the library
        raise
