"""Lowers a model, compiles it in this process, and runs it as hard as the contract allows.

The arena is filled with NaN everywhere but where a border has to be zero: what scratch holds before a run must not
matter. It is run twice on one arena: a run must leave nothing behind that the next one sees. Inputs end (as nearly as
their alignment of 64 bytes lets them) where memory begins that nobody may touch, and outputs lie between numbers that
must not change.
"""

from __future__ import annotations

import ctypes
import mmap
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

pytest.importorskip("tvm")

from graphprune.runtime import fallback
from graphprune.targets.kernels.tir import Machine
from graphprune.targets.network.alone import alone
from graphprune.targets.network.driver import Program, compiled
from graphprune.targets.network.graph import read
from graphprune.targets.network.lowering import Lowering
from graphprune.targets.network.memory import bytes_of, place
from graphprune.targets.rules import rules_for
from tests import execution
from tests.targets.kernels.harness import MACHINES, target_of

# Products of float32 in another order than onnxruntime's, relative to the largest number of an output.
TOLERANCE = 2e-5
GARBAGE = 0xFF  # every byte of the arena: NaN as a float, -1 as an integer
LINE = 64
IDENTITY = "network under test"

__all__ = ["MACHINES", "TOLERANCE", "Built", "built", "check", "compare"]


@dataclass(frozen=True)
class Built:
    """A compiled network."""

    model: onnx.ModelProto
    lowered: Lowering
    program: Program

    @property
    def fallbacks(self) -> list[str]:
        """The operators that no kernel of ours runs."""
        return [call.node.op for call in self.program.fallbacks]

    @property
    def copies(self) -> list[str]:
        """The steps that only move numbers."""
        return [call.what for call in self.lowered.calls if call.what.startswith(("copy", "fill", "repeat"))]

    def arena(self) -> np.ndarray:
        """Garbage, but zeros where a border is."""
        arena = aligned(self.program.arena)
        arena[:] = GARBAGE
        for storage, start in place(self.lowered.calls)[0].items():
            if storage.zeros is not None:
                arena[start : start + bytes_of(storage)] = 0
        return arena

    def run(self, *cases: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
        """The outputs of each case, one after the other on one arena."""
        arena, constants = self.arena(), aligned(self.program.constants.size)
        constants[:] = self.program.constants
        graph = self.lowered.graph
        with tempfile.TemporaryDirectory() as folder:
            paths = []
            for number, call in enumerate(self.program.fallbacks):
                paths.append(Path(folder, f"{number}.onnx"))
                paths[-1].write_bytes(alone(call.node, graph))
            steps = fallback.Steps(IDENTITY, paths, 1)
        found = []
        for case in cases:
            inputs = [before_a_wall(case[value.name]) for value in graph.inputs]
            places = [margins(value.shape, value.dtype) for value in graph.outputs]
            kept = [array.tobytes() for array, _ in inputs]
            with fallback.Running(steps) as running:
                arguments = [constants, arena, *(array for array, _ in inputs), *(array for array, _ in places)]
                try:
                    self.program.library["main"](*arguments)
                except RuntimeError:
                    raise running.error or AssertionError("the library failed") from None
            assert [array.tobytes() for array, _ in inputs] == kept, "an input was changed"
            found.append({value.name: array.copy() for value, (array, _) in zip(graph.outputs, places, strict=True)})
            for array, whole in places:
                whole[LINE : LINE + array.nbytes] = 7
                assert (whole == 7).all(), "written outside of an output"
        assert (constants == self.program.constants).all(), "a constant was changed"
        return found


def aligned(count: int) -> np.ndarray:
    whole = np.zeros(count + LINE, np.uint8)
    start = -whole.ctypes.data % LINE
    return whole[start : start + count]


def margins(shape: Sequence[int], dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """An output, and the bytes around it, all of them 7."""
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    whole = aligned(count + 2 * LINE)
    whole[:] = 7
    return whole[LINE : LINE + count].view(dtype).reshape(shape), whole


def before_a_wall(array: np.ndarray) -> tuple[np.ndarray, Any]:
    """A copy in the last whole cache lines of memory behind which nothing may be read, and its owner."""
    array = np.asarray(array, order="C")  # which keeps a number without axes as it is
    page = mmap.PAGESIZE
    pages = -(-max(array.nbytes, 1) // page)
    memory = mmap.mmap(-1, (pages + 1) * page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    protect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    if protect(start + pages * page, page, 0):
        raise OSError(ctypes.get_errno(), "mprotect")
    first = (pages * page - array.nbytes) // LINE * LINE
    placed = np.frombuffer(memory, array.dtype, array.size, first).reshape(array.shape)
    placed[...] = array
    return placed, memory


def built(
    model: onnx.ModelProto,
    machine: Machine = MACHINES[0],
    shapes: Mapping[str, Sequence[int]] | None = None,
    tuner: Any = None,
) -> Built:
    graph = read(ir.from_proto(model), shapes or {})
    lowered = Lowering(graph, machine, rules_for, tuner=tuner)
    lowered.run()
    return Built(model, lowered, compiled(lowered, target_of(machine), IDENTITY))


def check(
    model: onnx.ModelProto,
    machine: Machine = MACHINES[0],
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    cases: Sequence[Mapping[str, np.ndarray]] = (),
    tolerance: float = TOLERANCE,
    fallbacks: Sequence[str] = (),
) -> Built:
    """Builds the model, and runs it on some inputs twice; raises AssertionError where onnxruntime says otherwise, or
    where other steps than `fallbacks` have no kernel."""
    network = built(model, machine, shapes)
    cases = list(cases) or [execution.feeds(model, seed=seed) for seed in (0, 1)]
    compare(network, [*cases, *cases], tolerance)
    assert network.fallbacks == list(fallbacks), [refusal.reasons for refusal in network.lowered.refusals]
    return network


def compare(network: Built, cases: Sequence[Mapping[str, np.ndarray]], tolerance: float = TOLERANCE) -> None:
    """Integers and flags have to be equal, numbers up to the tolerance."""
    session = execution.session(network.model)
    names = [output.name for output in session.get_outputs()]
    for number, (case, found) in enumerate(zip(cases, network.run(*cases), strict=True)):
        wanted = dict(zip(names, session.run(names, dict(case)), strict=True))
        assert list(found) == names
        for name in names:
            exact = wanted[name].dtype.kind != "f"
            error = execution.difference({name: wanted[name]}, {name: found[name]})
            what = f"run {number}, {name}: {error:.3g} of {wanted[name].shape} {wanted[name].dtype}"
            assert error <= (0.0 if exact else tolerance), what
