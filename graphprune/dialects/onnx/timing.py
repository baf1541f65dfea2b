"""Times two ONNX models against each other with onnxruntime, so that the answer does not depend on the machine's mood.

Each round runs the dense model, the pruned one and the dense one again, in turning order, so that drifts of clock and
load hit all alike; what the dense model differs from itself is the noise that a difference must exceed.
"""

from __future__ import annotations

import importlib.util
import math
import os
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

from graphprune.dialects.onnx import files
from graphprune.dialects.onnx.runner import DYNAMIC_SIZES, feeds, onnxruntime_failures
from graphprune.errors import GraphPruneError
from graphprune.report import Timing

_LEAST_ROUNDS = 15
_MOST_ROUNDS = 2000
_SHORTEST_SECONDS = 2e-4
"""Runs shorter than this are repeated within a measurement: the clock and the call would dominate."""


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
    for run in (slow, fast, slow, fast):
        run()
    once = _seconds(slow, 1)
    repeats = max(1, math.ceil(_SHORTEST_SECONDS / max(once, 1e-9)))
    rounds = int(min(_MOST_ROUNDS, max(_LEAST_ROUNDS, seconds / max(3 * once * repeats, 1e-9))))
    turns = [_round(slow, fast, repeats, turn) for turn in range(rounds)]
    control = sorted(math.log(again / first) for first, _, again in turns)
    ratios = sorted(math.log((first + again) / 2 / other) for first, other, again in turns)
    low, high = bounds(ratios)
    return Timing(
        dense=statistics.median([first for first, _, _ in turns] + [again for _, _, again in turns]),
        pruned=statistics.median(other for _, other, _ in turns),
        speedup=math.exp(statistics.median(ratios)),
        low=math.exp(low),
        high=math.exp(high),
        noise=math.expm1(max(map(abs, bounds(control)))),
        rounds=rounds,
    )


def _dense(
    path: str | os.PathLike[str], seed: int, sizes: Mapping[str, int]
) -> tuple[Callable[[], object], Mapping[str, Any]]:
    """The dense model on inputs that it accepts: dynamic sizes that no one gave are 1, or the first that runs."""
    model = files.load(path)
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


def _round(
    slow: Callable[[], object], fast: Callable[[], object], repeats: int, turn: int
) -> tuple[float, float, float]:
    """Dense, pruned, dense again; which comes first changes from turn to turn."""
    runs = (slow, fast, slow)
    times = [0.0] * 3
    for place in range(3):
        each = (place + turn) % 3
        times[each] = _seconds(runs[each], repeats)
    return times[0], times[1], times[2]


def _seconds(run: Callable[[], object], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - start) / repeats


def bounds(ordered: list[float]) -> tuple[float, float]:
    """The 99 % confidence interval of the median by order statistics: no assumption about how times are spread."""
    count = len(ordered)
    margin = math.ceil(2.576 * math.sqrt(count) / 2)
    return ordered[max(0, count // 2 - margin)], ordered[min(count - 1, (count - 1) // 2 + margin)]
