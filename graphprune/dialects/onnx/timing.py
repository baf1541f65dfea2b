"""Times two ONNX models against each other with onnxruntime (see :mod:`graphprune.latency.stopwatch`)."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping
from typing import Any

from graphprune.dialects.onnx import files
from graphprune.dialects.onnx.reader import read
from graphprune.dialects.onnx.runner import DYNAMIC_SIZES, feeds, onnxruntime_failures
from graphprune.errors import GraphPruneError
from graphprune.latency.stopwatch import in_turns
from graphprune.report import Timing


def compare(
    dense: str | os.PathLike[str],
    pruned: str | os.PathLike[str],
    *,
    seed: int = 0,
    sizes: Mapping[str, int] | None = None,
    seconds: float = 3.0,
) -> Timing:
    """Time one run of each model on the same random inputs, on the CPU, as onnxruntime optimises them.

    Raises GraphPruneError: GP108 without onnxruntime, GP402 where it cannot run a model, others as `load`.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        what = "measuring latency needs onnxruntime"
        raise GraphPruneError("GP108", what, remedy="pip install 'graphprune[ort]'")
    slow, inputs = _dense(dense, seed, dict(sizes or {}))
    fast = _runner(pruned, inputs)
    return in_turns(slow, fast, seconds)


def _dense(
    path: str | os.PathLike[str], seed: int, sizes: Mapping[str, int]
) -> tuple[Callable[[], object], Mapping[str, Any]]:
    """The dense model on inputs that it accepts: dynamic sizes that no one gave are 1, or the first that runs."""
    model = files.load(path)
    read(model).check_sizes(sizes)
    failure: GraphPruneError | None = None
    for dynamic in (1, *DYNAMIC_SIZES):
        inputs = feeds(model, seed, sizes, dynamic)
        try:
            return _runner(path, inputs), inputs
        except GraphPruneError as error:
            failure = failure or error
    raise failure or GraphPruneError("GP402", "it has no inputs to run on", os.fspath(path))


def _runner(path: str | os.PathLike[str], inputs: Mapping[str, Any]) -> Callable[[], object]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    fails = onnxruntime_failures()
    try:
        session = onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
        session.run(None, dict(inputs))
    except fails as error:
        first = str(error).strip().split("\n")[0]
        raise GraphPruneError("GP402", f"onnxruntime cannot run it: {first}", os.fspath(path)) from error
    return lambda: session.run(None, inputs)
