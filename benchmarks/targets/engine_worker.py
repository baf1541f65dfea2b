"""One network in one engine, in a process of its own that is driven over pipes: a line of JSON in, a line of JSON out.

    python engine_worker.py ENGINE MODEL THREADS CORES        CORES such as 0 or 0,1

Needs NumPy and the engine only, so that it runs in the engine's own environment. Requests: {"run": INPUTS.npz, "to":
OUTPUTS.npy} stores the first output; {"time": SECONDS} answers the seconds of single calls, the first few left out.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import version
from typing import Any

import numpy as np

Inputs = Mapping[str, Any]
Run = Callable[[], Any]
"""Runs on the inputs that were given, and returns the first output, not yet as an array of NumPy perhaps."""

Engine = tuple[str, Callable[[Inputs], Run]]
"""Its version, and what makes a run of inputs."""

_CLOCK = time.process_time if os.environ.get("GRAPHPRUNE_BENCHMARK_CLOCK") == "processor" else time.perf_counter
_WARM = 2
_MOST = 200


def by_graphprune(model: str, threads: int) -> Engine:
    """An artifact that gp.build wrote; only the loader is needed."""
    import graphprune
    from graphprune.runtime import load

    network = load(model, threads=threads)
    first = network.outputs[0].name

    def bound(inputs: Inputs) -> Run:
        session = network.session()
        return lambda: session.run(inputs)[first]

    return f"graphprune {graphprune.__version__} {network.variant}", bound


def by_onnxruntime(model: str, threads: int) -> Engine:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    first = session.get_outputs()[0].name

    def bound(inputs: Inputs) -> Run:
        return lambda: session.run([first], dict(inputs))[0]

    return f"onnxruntime {onnxruntime.__version__}", bound


def by_openvino(model: str, threads: int, precision: str) -> Engine:
    openvino: Any = import_module("openvino")

    options = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": precision,
    }
    compiled = openvino.Core().compile_model(model, "CPU", options)
    used = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()

    def bound(inputs: Inputs) -> Run:
        request = compiled.create_infer_request()
        request.infer(dict(inputs))

        def run() -> Any:
            request.infer()
            return request.get_output_tensor(0).data

        return run

    return f"openvino {version('openvino')} {used}", bound


def by_deepsparse(model: str, threads: int) -> Engine:
    deepsparse: Any = import_module("deepsparse")
    onnx: Any = import_module("onnx")

    first = onnx.load(model).graph.input[0].type.tensor_type.shape.dim[0]
    engine = deepsparse.Engine(model, batch_size=first.dim_value or 1, num_cores=threads)

    def bound(inputs: Inputs) -> Run:
        given = [np.ascontiguousarray(inputs[name]) for name in engine.input_names]
        return lambda: engine.run(given, val_inp=False)[0]

    share = f"{engine.fraction_of_supported_ops:.0%} of the operators"
    return f"deepsparse {deepsparse.__version__} {share}", bound


def engine_of(name: str, model: str, threads: int) -> Engine:
    if name.startswith("openvino"):
        return by_openvino(model, threads, "bf16" if name.endswith("bf16") else "f32")
    makers = {"graphprune": by_graphprune, "onnxruntime": by_onnxruntime, "deepsparse": by_deepsparse}
    return makers[name](model, threads)


def seconds_of(run: Run, budget: float) -> list[float]:
    """Seconds of single calls, for about so many seconds, but two calls at least after those to warm up."""
    for _ in range(_WARM):
        run()
    found: list[float] = []
    end = time.perf_counter() + budget
    while len(found) < 2 or (time.perf_counter() < end and len(found) < _MOST):
        start = _CLOCK()
        run()
        found.append(_CLOCK() - start)
    return found


def main() -> None:
    name, model, threads, cores = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what engines print goes to the standard error
    os.sched_setaffinity(0, {int(core) for core in cores.split(",")})

    def answer(**content: Any) -> None:
        print(json.dumps(content), file=answers, flush=True)

    start = time.perf_counter()
    about, bound = engine_of(name, model, int(threads))
    answer(about=about, load=time.perf_counter() - start)
    run: Run | None = None
    for line in sys.stdin:
        request = json.loads(line)
        if "run" in request:
            with np.load(request["run"]) as file:
                run = bound({key: file[key] for key in file.files})
            np.save(request["to"], np.asarray(run()))
            answer(done=True)
        else:
            assert run is not None
            answer(seconds=seconds_of(run, request["time"]))


if __name__ == "__main__":
    main()
