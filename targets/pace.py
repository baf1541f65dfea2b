"""Is a built network faster than what the user has already? Beside onnxruntime on its model, in turns, in this process.

This is a hint of some tenths of a second, not a benchmark: `graphprune bench` gives every runtime a process of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from graphprune.dialects.onnx.runner import has_onnxruntime

if TYPE_CHECKING:
    from graphprune.runtime import Executable

TURNS = 21  # at most, after one that is not counted
SECONDS = 2.0  # for all of them together, but three
SLOWER = 0.95  # a ratio below this is more than noise


def pace(network: Executable, model: Path, case: dict[str, Any], threads: int) -> dict[str, float]:
    """Median seconds of a call, `graphprune` and `onnxruntime`; nothing where that is not installed."""
    if not has_onnxruntime():
        return {}
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # its threads would spin in our turn
    theirs = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    session = network.session()
    calls = {"graphprune": lambda: session.run(case), "onnxruntime": lambda: theirs.run(None, case)}
    return in_turns(calls)


def in_turns(calls: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """The median seconds of each call."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + SECONDS
    for turn in range(TURNS + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if turn:
                times[name].append(time.perf_counter() - start)
        if turn >= 3 and time.perf_counter() > end:
            break
    return {name: median(each) for name, each in times.items()}


def ratio(found: Mapping[str, float]) -> float | None:
    """How many times faster than onnxruntime; None where that was not measured."""
    return found["onnxruntime"] / found["graphprune"] if found.get("graphprune") else None
