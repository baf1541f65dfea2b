"""One runtime in a process of its own, driven over pipes: `python -P timing_worker.py KIND MODEL THREADS FOLDER`.

Thread pools of several runtimes in one process take each other's time. The parent says how often to run, and is told
how long that took; see `graphprune.dialects.onnx.peers`. Run as a file, because the Python that has a runtime need not
have graphprune: only numpy.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Run = Callable[[], dict[str, Any]]


def main(kind: str, model: str, threads: int, folder: str) -> None:
    """Serve lines `N` from stdin until it ends: each is answered with the seconds of one of N runs. The first line out
    names the version; the outputs are in `<kind>.npz` then."""
    # Whatever a runtime prints goes to stderr: stdout is for the parent.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    with np.load(Path(folder) / "inputs.npz", allow_pickle=False) as content:
        inputs = [content[f"arr_{index}"] for index in range(len(content.files))]
    names = json.loads((Path(folder) / "inputs.json").read_text())
    try:
        version, run = RUNTIMES[kind](model, threads, dict(zip(names, inputs, strict=True)))
        found = run()
    except Exception as error:  # noqa: BLE001  # whatever a runtime raises, the parent has to say it
        what = " ".join(str(error).split())[:400]
        print(json.dumps({"error": f"{type(error).__name__}: {what}"}), file=answers)
        return
    np.savez(Path(folder) / f"{kind}.npz", *found.values())
    print(json.dumps({"version": version, "outputs": list(found)}), file=answers)
    for line in sys.stdin:
        repeats = int(line)
        run()  # caches were cold: another process ran in between
        start = time.perf_counter()
        for _ in range(repeats):
            run()
        print((time.perf_counter() - start) / repeats, file=answers)


def _artifact(path: str, threads: int, inputs: dict[str, Any]) -> tuple[str, Run]:
    import graphprune
    from graphprune.runtime import load
    from graphprune.runtime.arrays import aligned

    network = load(path, threads=threads)
    session = network.session()
    placed = {each.name: aligned(each) for each in network.inputs}
    for name, array in placed.items():
        array[...] = inputs[name]
    return f"{graphprune.__version__} {network.variant}", lambda: session.run(placed)


def _onnxruntime(path: str, threads: int, inputs: dict[str, Any]) -> tuple[str, Run]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    return onnxruntime.__version__, lambda: dict(zip(names, session.run(None, inputs), strict=True))


def _openvino(path: str, threads: int, inputs: dict[str, Any]) -> tuple[str, Run]:
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    model.reshape({name: list(array.shape) for name, array in inputs.items()})
    options = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": threads}
    compiled = core.compile_model(model, "CPU", {**options, "INFERENCE_PRECISION_HINT": "f32"})
    request = compiled.create_infer_request()
    names = [each.get_any_name() for each in compiled.outputs]

    def run() -> dict[str, Any]:
        found = request.infer(inputs)
        return {name: found[index] for index, name in enumerate(names)}

    return str(openvino.__version__), run


RUNTIMES: dict[str, Callable[[str, int, dict[str, Any]], tuple[str, Run]]] = {
    "graphprune": _artifact,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
}
"""What can be timed: path, threads and inputs to a version and a function that runs it once."""


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
