"""Engines in processes of their own: one at a time runs, the others are stopped, so that no thread spins beside it."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from measure import Spread, machine, note, spread  # noqa: E402

Array = np.ndarray[Any, Any]
CLOCK = "GRAPHPRUNE_BENCHMARK_CLOCK"
"""What `engine_worker.py` tells the time by: `processor` for that of its process, on a machine that does other work."""
PEERS = {
    "openvino": ("openvino", "numpy"),
    "deepsparse": ("deepsparse==1.8.0",),
}
"""What pip installs for the engines that have environments of their own."""


class Failed(Exception):
    """An engine that cannot load or run a model; the last lines that it printed."""


@dataclass(frozen=True)
class Environments:
    """The Python of each engine. One that is None is left out; onnxruntime and graphprune run in this one."""

    openvino: str | None = None
    deepsparse: str | None = None

    def python(self, engine: str) -> str | None:
        if engine.startswith("openvino"):
            return self.openvino
        return self.deepsparse if engine == "deepsparse" else sys.executable


class Engine:
    """A model in an engine. Stopped (SIGSTOP) whenever it is not asked."""

    def __init__(self, python: str, engine: str, model: Path, threads: int, cores: Sequence[int]):
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        script = str(HERE / "engine_worker.py")
        command = [python, "-W", "ignore", script, engine, str(model), str(threads), ",".join(map(str, cores))]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True
        )
        first = self._answer()
        self.about: str = first["about"]
        self.load_seconds: float = first["load"]

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            lines = self._errors.read().decode(errors="replace").strip().splitlines()
            raise Failed(f"exit code {self._process.returncode}: {' '.join(lines[-3:])[-300:]}")
        answer: dict[str, Any] = json.loads(line)
        os.kill(self._process.pid, signal.SIGSTOP)
        return answer

    def _ask(self, **request: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        os.kill(self._process.pid, signal.SIGCONT)
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def run(self, inputs: Path, to: Path) -> Array:
        """The first output; these inputs are those that are timed from now on."""
        self._ask(run=str(inputs), to=str(to))
        result: Array = np.load(to)
        return result

    def seconds(self, budget: float) -> list[float]:
        found: list[float] = self._ask(time=budget)["seconds"]
        return found

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._errors.close()


@contextmanager
def alone() -> Iterator[None]:
    """Nobody else who asks for the same is timed meanwhile: of benchmarks that run at once, one has the core."""
    path = Path(tempfile.gettempdir()) / "graphprune-benchmark.lock"
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@dataclass(frozen=True)
class Contender:
    """An engine on a model, by the name under which its times are told."""

    name: str
    engine: str
    model: Path


@dataclass(frozen=True)
class Row:
    """Times of one contender, and the largest difference of its output from the reference, over the largest number."""

    seconds: Spread
    error: float
    about: str


def raced(
    contenders: Sequence[Contender],
    references: Mapping[str, Array],
    inputs: Path,
    environments: Environments,
    *,
    threads: int,
    cores: Sequence[int],
    rounds: int,
    budget: float,
) -> tuple[dict[str, Row], dict[str, str]]:
    """Times of all contenders in interleaved rounds, and why some are missing. Outputs are compared before.

    references: the right output by the name of a contender
    budget: seconds of one turn; its number is the median of the calls that fit
    """
    engines: dict[str, Engine] = {}
    errors: dict[str, float] = {}
    missing: dict[str, str] = {}
    try:
        for each in contenders:
            python = environments.python(each.engine)
            if python is None:
                missing[each.name] = "no environment was given"
                continue
            try:
                engine = Engine(python, each.engine, each.model, threads, cores[:threads])
                engines[each.name] = engine
                found = engine.run(inputs, inputs.with_suffix(".found.npy"))
            except Failed as error:
                missing[each.name] = str(error)
                note(f"{each.name} is left out: {error}")
                engines.pop(each.name, None)
                continue
            errors[each.name] = difference(references[each.name], found)
        times: dict[str, list[float]] = {name: [] for name in engines}
        with alone():
            for turn in range(rounds + 1):
                for name, engine in engines.items():
                    seconds = statistics.median(engine.seconds(budget))
                    if turn:
                        times[name].append(seconds)
        rows = {name: Row(spread(times[name]), errors[name], engine.about) for name, engine in engines.items()}
    finally:
        for engine in engines.values():
            engine.close()
    return rows, missing


def difference(wanted: Array, found: Array) -> float:
    """The largest difference over the largest magnitude; infinite for other shapes, or what is not finite."""
    if wanted.shape != found.shape or not np.isfinite(found).all():
        return float("inf")
    return float(np.abs(wanted - found).max() / max(float(np.abs(wanted).max()), 1e-30))


def reference(model: Path, inputs: Path) -> Array:
    """The first output of onnxruntime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    with np.load(inputs) as file:
        result: Array = session.run(None, {key: file[key] for key in file.files})[0]
    return result


def random_inputs(model: Path, to: Path, seed: int = 0) -> None:
    """Normal numbers, and integers from 0 to 1 for inputs of integers; all sizes must be fixed."""
    import onnxruntime

    rng = np.random.default_rng(seed)
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    arrays: dict[str, Array] = {}
    for each in session.get_inputs():
        shape = [size if isinstance(size, int) else 1 for size in each.shape]
        kind = np.int64 if "int64" in each.type else np.int32 if "int32" in each.type else np.float32
        if kind is np.float32:
            arrays[each.name] = rng.standard_normal(shape).astype(np.float32)
        else:
            arrays[each.name] = rng.integers(0, 2, shape).astype(kind)
    np.savez(to, **arrays)  # type: ignore[arg-type]


def settings(threads: Sequence[int], cores: Sequence[int], rounds: int, budget: float) -> dict[str, Any]:
    """What a reader must know of the processor and of how it was timed."""
    import onnxruntime
    import tvm

    import graphprune
    from graphprune.runtime.cpu import cpu

    versions = {"graphprune": graphprune.__version__, "tvm": tvm.__version__, "onnxruntime": onnxruntime.__version__}
    timing = {"threads": list(threads), "cores": list(cores), "rounds": rounds, "seconds of a turn": budget}
    return {"processor": processor(), "features": str(cpu()), "versions": versions, "timing": timing, **machine()}


def processor() -> str:
    """The model of the processor with its family and number, as Linux has it."""
    wanted = ("model name", "cpu family", "model")
    found: dict[str, str] = {}
    path = Path("/proc/cpuinfo")
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        key, _, value = line.partition(":")
        if key.strip() in wanted:
            found.setdefault(key.strip(), value.strip())
    return ", ".join(f"{key} {found[key]}" for key in wanted if key in found)


def built(model: Path, to: Path, threads: int, variants: Sequence[str], **options: Any) -> tuple[Any, float]:
    """`gp.build` with its seconds."""
    import time

    import graphprune as gp

    start = time.perf_counter()
    result = gp.build(model, to, threads=threads, variants=variants, force=True, **options)
    return result, time.perf_counter() - start


def best_variant() -> str:
    """The best of float32 that this processor can run; building only that saves time."""
    from graphprune.runtime.cpu import cpu
    from graphprune.targets.x86.processors import PROCESSORS

    return next(
        each.name for each in PROCESSORS if (each.rounding, each.integers) == ("float32", False) and each.runs_on(cpu())
    )


def milliseconds(each: Spread) -> str:
    return f"{each.median * 1e3:.3g}" if each.median < 0.1 else f"{each.median * 1e3:.0f}"


def ratio(rows: Mapping[str, Row], over: str, ours: str = "graphprune") -> str:
    """How many times as long as ours another takes; an empty cell where one is missing."""
    if over not in rows or ours not in rows:
        return ""
    return f"{rows[over].seconds.median / rows[ours].seconds.median:.2f}"
