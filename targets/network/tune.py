"""Which form of a kernel is fastest here: measured once for each distinct step, and remembered.

The forms of one step are compiled together, run in turns on numbers of the right sizes, and compared by their fastest
run (others only ever make a run slower). What was found is a small file in the user's cache, one for each step, written
whole: builds may share the cache, and one that was interrupted goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tvm
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from graphprune import output
from graphprune.targets.kernels.tir import INT32, Kernel, Machine, const, function
from graphprune.targets.network.layout import Storage, View

ROUNDS = 7
ENOUGH = 0.02  # seconds that one form is run for at most


class Times(NamedTuple):
    """Microseconds of the form that was taken, and of the best that ignores zeros (None where there are none)."""

    taken: float
    dense: float | None


Form = tuple[Kernel, Sequence[View]]


@dataclass
class Tuner:
    """Measures on this machine. `target` is what code is made for; `processor` names this machine in the cache."""

    machine: Machine
    target: Mapping[str, Any]
    processor: str
    folder: Path | None = None
    budget: float = 60.0  # seconds; afterwards the first form is taken, which is the one that was estimated the best
    spent: float = 0.0
    measured: int = 0
    remembered: int = 0
    known: dict[str, list[float]] = field(default_factory=dict)

    def best(
        self,
        signature: tuple[int, ...],
        kernels: Sequence[Kernel],
        full: Sequence[bool],
        views: Callable[[], Sequence[Sequence[View]]],
        constants: Mapping[Storage, np.ndarray],
    ) -> tuple[int, Times]:
        """The number of the fastest form, and the times. `views` packs the weights, which only a measurement needs;
        `full` says which forms ignore that weights are zero."""
        key = self.key(signature, kernels)
        seconds = self.known.get(key) or self.load(key)
        if seconds is None or len(seconds) != len(kernels):
            if self.spent > self.budget:
                return 0, Times(float("nan"), None)
            started = time.perf_counter()
            forms = list(zip(kernels, views(), strict=True))
            seconds = timed(forms, self.machine, self.target, constants)
            self.spent += time.perf_counter() - started
            self.measured += 1
            self.save(key, seconds)
        self.known[key] = seconds
        number = min(range(len(seconds)), key=lambda index: seconds[index])
        dense = [value for value, whole in zip(seconds, full, strict=True) if whole]
        return number, Times(1e6 * seconds[number], 1e6 * min(dense) if dense else None)

    def key(self, signature: tuple[int, ...], kernels: Sequence[Kernel]) -> str:
        parts = [
            self.processor,
            str(dict(self.target)),
            str(self.machine),
            version("apache-tvm"),
            sources(),
            str(signature),
        ]
        parts += [repr(kernel) for kernel in kernels]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:40]

    def load(self, key: str) -> list[float] | None:
        if self.folder is None:
            return None
        try:
            found = json.loads((self.folder / f"{key}.json").read_text())
            seconds = [float(value) for value in found["seconds"]]
            if not all(0 < value < float("inf") for value in seconds):
                return None
        except (OSError, ValueError, KeyError, TypeError):
            return None  # not there, or not ours: measured again
        self.remembered += 1
        return seconds

    def save(self, key: str, seconds: Sequence[float]) -> None:
        if self.folder is None:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.folder, suffix=".part") as place:
                path = Path(place, "seconds.json")
                path.write_text(json.dumps({"seconds": list(seconds)}))
                os.replace(path, self.folder / f"{key}.json")
        except OSError:
            self.folder = None  # a cache that cannot be written is no reason to stop


def cache_folder() -> Path:
    """Where measurements are kept."""
    return output.cache_folder("tuned")


@cache
def sources() -> str:
    """Changes when a kernel generator does."""
    from graphprune.targets import kernels

    digest = hashlib.sha256()
    for path in sorted(Path(str(kernels.__file__)).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def timed(
    forms: Sequence[Form], machine: Machine, target: Mapping[str, Any], constants: Mapping[Storage, np.ndarray]
) -> list[float]:
    """Seconds of the fastest run of each form."""
    module = tvm.IRModule({f"kernel_{number}": function(kernel, machine) for number, (kernel, _) in enumerate(forms)})
    for number, (kernel, views) in enumerate(forms):
        module[f"run_{number}"] = entry(kernel, views, module.get_global_var(f"kernel_{number}"), f"run_{number}")
    with tvm.transform.PassContext(config={"tirx.disable_storage_rewrite": True}):
        library = tvm.compile(module, target=tvm.target.Target(dict(target)))
    tensors: dict[Storage, Any] = {}
    runs = []
    for number, (_, views) in enumerate(forms):
        for view in views:
            if view.storage not in tensors:
                tensors[view.storage] = tvm.runtime.tensor(numbers(view.storage, constants))
        runs.append((library[f"run_{number}"], [tensors[view.storage] for view in views]))
    fastest = [float("inf")] * len(forms)
    for _ in range(ROUNDS):
        for number, (run, arguments) in enumerate(runs):
            started = time.perf_counter()
            run(*arguments)
            seconds = time.perf_counter() - started
            repeats = 1 + int(min(8, ENOUGH / ROUNDS / max(seconds, 1e-7)))
            for _ in range(repeats):  # each by itself: of some in a row, one that was interrupted would spoil all
                started = time.perf_counter()
                run(*arguments)
                fastest[number] = min(fastest[number], time.perf_counter() - started)
    return fastest


def numbers(storage: Storage, constants: Mapping[Storage, np.ndarray]) -> np.ndarray:
    """What a storage holds while kernels are timed: its constants, or a number that is no denormal."""
    if storage.kind == "constant":
        return np.ascontiguousarray(constants[storage]).reshape(-1)
    return np.full(storage.size + 64, 0.5, storage.dtype)


def entry(kernel: Kernel, views: Sequence[View], callee: Any, name: str) -> Any:
    """A function of arrays that calls a kernel with the places of its views."""
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        handles = [T.arg(f"array{number}", T.handle()) for number in range(len(views))]
        T.func_attr({"global_symbol": name})
        arguments: list[Any] = []
        for view, handle in zip(views, handles, strict=True):
            size = view.storage.size + (0 if view.storage.kind == "constant" else 64)
            buffer = T.match_buffer(handle, (size,), view.dtype)
            arguments += [T.address_of(buffer[const(0)]), const(view.offset)]
        T.evaluate(tvm.ir.Call(callee, arguments, ret_ty=tvm.ir.PrimType(INT32)))
    return builder.get()
