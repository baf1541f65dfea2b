"""Times an artifact against other runtimes on the model it was built from, each in a process of its own.

All processes but the one that is measured are stopped (SIGSTOP), because idle threads of these runtimes go on spinning.
Each round runs every runtime once and onnxruntime once more, in turning order; what onnxruntime differs from itself is
the noise that a difference must exceed. The number of threads is given to every runtime when it starts, to TVM by the
environment variable TVM_NUM_THREADS too.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graphprune.errors import GraphPruneError, did_you_mean
from graphprune.latency.stopwatch import bounds
from graphprune.runtime import folder, manifest
from graphprune.runtime.arrays import random_inputs
from graphprune.runtime.cpu import cpu
from graphprune.runtime.executable import choose
from graphprune.verify import difference

BASE = "onnxruntime"
PEERS = (BASE, "openvino")
_OURS = "graphprune"
_LEAST_ROUNDS = 15
_MOST_ROUNDS = 1000
_SHORTEST_SECONDS = 2e-3
_LOAD_SECONDS = 600
_WORKER = Path(__file__).with_name("timing_worker.py")


@dataclass(frozen=True)
class Peer:
    """One runtime at one number of threads.

    p50, p90: seconds of one run
    speedup:  onnxruntime's time over its own, the median of rounds, with the bounds `low` and `high` of its confidence
              interval
    error:    the largest difference of its outputs from onnxruntime's, relative to their largest magnitude
    """

    runtime: str
    version: str
    threads: int
    p50: float
    p90: float
    speedup: float
    low: float
    high: float
    noise: float
    rounds: int
    error: float

    @property
    def differs(self) -> bool:
        """Whether the difference is beyond the noise."""
        return self.low > 1 + self.noise or self.high < 1 - self.noise


def installed(pythons: Mapping[str, str]) -> list[str]:
    """The runtimes that can be compared, without the artifact: those that are installed here, or for which another
    Python was named. Raises GraphPruneError GP106 for unknown ones, GP108 without onnxruntime."""
    for name in pythons:
        if name not in PEERS:
            raise GraphPruneError("GP106", f"there is no runtime {name!r}", "pythons", did_you_mean(name, PEERS))
    found = [name for name in PEERS if name in pythons or importlib.util.find_spec(name) is not None]
    if BASE not in found:
        raise GraphPruneError("GP108", "measuring latency needs onnxruntime", remedy="pip install 'graphprune[ort]'")
    return found


def compare(
    model: str | os.PathLike[str],
    artifact: str | os.PathLike[str],
    *,
    threads: Sequence[int] = (1,),
    pythons: Mapping[str, str] | None = None,
    seed: int = 0,
    seconds: float = 3.0,
) -> list[Peer]:
    """Time every runtime on the same random inputs, for each number of threads.

    pythons: of runtimes that are installed in other environments, the interpreter there
    Raises GraphPruneError: GP108 without onnxruntime, GP402 where a runtime cannot run the model, GP509 and others for
    the artifact, GP103 on systems that cannot stop a process.
    """
    if not hasattr(signal, "SIGSTOP"):
        raise GraphPruneError("GP103", "this system cannot stop processes, and runtimes would take each other's time")
    about = manifest.read(Path(artifact))
    folder.check(Path(artifact), about, [choose(about, cpu(), where=os.fspath(artifact))])
    others = dict(pythons or {})
    names = [*installed(others), _OURS]
    found: list[Peer] = []
    with tempfile.TemporaryDirectory(prefix="graphprune-") as place:
        inputs = random_inputs(about.inputs, np.random.Generator(np.random.PCG64(seed)))
        np.savez(Path(place) / "inputs.npz", *inputs.values())
        (Path(place) / "inputs.json").write_text(json.dumps(list(inputs)))
        for count in threads:
            with ExitStack() as stack:
                paths = {name: os.fspath(artifact if name == _OURS else model) for name in names}
                made = (_Worker(name, paths[name], count, place, others.get(name)) for name in names)
                workers = [stack.enter_context(worker) for worker in made]
                turns = _rounds(workers, seconds)
                found += _results(workers, turns, count, place)
    return found


class _Worker:
    """A runtime in its process, stopped except while it is asked."""

    def __init__(self, name: str, path: str, threads: int, folder: str, python: str | None) -> None:
        self.name = name
        self.path = path
        environment = {**os.environ, "TVM_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
        if python is None:
            # Where graphprune was found by the current folder, the worker has to find it, too.
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        else:
            environment.pop("PYTHONPATH", None)
        command = [python or sys.executable, "-P", str(_WORKER), name, os.path.abspath(path), str(threads), folder]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the worker
        try:
            self.process = subprocess.Popen(command, stderr=self.errors, env=environment, **pipes)
        except OSError as error:
            self.errors.close()
            raise GraphPruneError("GP101", f"{command[0]} cannot be run: {error.strerror}", name) from error
        self.version, self.outputs = "", [""]

    def __enter__(self) -> _Worker:
        try:
            hello = json.loads(self._answer())
            if "error" in hello:
                raise self._failed(hello["error"])
        except BaseException:
            self.__exit__()
            raise
        self.version, self.outputs = str(hello["version"]), list(hello["outputs"])
        self.process.send_signal(signal.SIGSTOP)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()  # works on a stopped one too
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.errors):
            if stream is not None:
                stream.close()

    def seconds(self, repeats: int) -> float:
        """One of some runs."""
        assert self.process.stdin is not None
        self.process.send_signal(signal.SIGCONT)
        try:
            self.process.stdin.write(f"{repeats}\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # the answer says why
        answer = float(self._answer())
        self.process.send_signal(signal.SIGSTOP)
        return answer

    def _answer(self) -> str:
        assert self.process.stdout is not None
        line: str = self.process.stdout.readline()
        if not line:
            self.process.wait(timeout=_LOAD_SECONDS)
            self.errors.seek(0)
            said = self.errors.read().decode(errors="replace").strip().splitlines() or ["it says nothing"]
            raise self._failed(said[-1])
        return line

    def _failed(self, said: str) -> GraphPruneError:
        remedy = "see whether it runs there by itself, with inputs of the shapes that the artifact was built for"
        return GraphPruneError("GP402", f"{self.name} cannot run it: {said}", self.path, remedy)


def _rounds(workers: Sequence[_Worker], seconds: float) -> list[dict[str, list[float]]]:
    """Seconds by runtime, round by round; onnxruntime is there twice."""
    order = [*workers, workers[0]]
    once = [worker.seconds(1) for worker in workers]
    repeats = {w.name: max(1, math.ceil(_SHORTEST_SECONDS / max(t, 1e-9))) for w, t in zip(workers, once, strict=True)}
    each = sum(t * (repeats[w.name] + 1) for w, t in zip(workers, once, strict=True))
    count = int(min(_MOST_ROUNDS, max(_LEAST_ROUNDS, seconds / max(each, 1e-9))))
    turns = []
    for turn in range(count):
        found: dict[str, list[float]] = {worker.name: [] for worker in workers}
        for place in range(len(order)):
            worker = order[(place + turn) % len(order)]
            found[worker.name].append(worker.seconds(repeats[worker.name]))
        turns.append(found)
    return turns


def _results(
    workers: Sequence[_Worker], turns: Sequence[dict[str, list[float]]], threads: int, folder: str
) -> list[Peer]:
    control = sorted(math.log(turn[BASE][1] / turn[BASE][0]) for turn in turns)
    noise = math.expm1(max(map(abs, bounds(control))))
    reference = _outputs(workers[0], folder)
    found = []
    for worker in workers:
        times = [time for turn in turns for time in turn[worker.name]]
        ratios = sorted(math.log(statistics.mean(turn[BASE]) / statistics.mean(turn[worker.name])) for turn in turns)
        low, high = (math.exp(bound) for bound in bounds(ratios))
        p50, p90 = (float(np.quantile(times, share)) for share in (0.5, 0.9))
        outputs = _outputs(worker, folder)
        error = max(difference(array, outputs.get(name, np.empty(0))) for name, array in reference.items())
        speedup = math.exp(statistics.median(ratios))
        numbers: dict[str, Any] = {"p50": p50, "p90": p90, "speedup": speedup, "low": low, "high": high, "error": error}
        found.append(Peer(worker.name, worker.version, threads, noise=noise, rounds=len(turns), **numbers))
    return found


def _outputs(worker: _Worker, folder: str) -> dict[str, np.ndarray[Any, np.dtype[Any]]]:
    with np.load(Path(folder) / f"{worker.name}.npz", allow_pickle=False) as content:
        return {name: content[f"arr_{index}"] for index, name in enumerate(worker.outputs)}
