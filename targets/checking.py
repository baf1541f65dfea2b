"""Is what was built what the model computes? Every variant that this machine can run, against onnxruntime.

Inputs are random. Errors are relative to the largest magnitude of an output (absolute where that is zero), and the
tolerance is that of `graphprune.verify`: what rounding can do, or eight times what the output moves when every weight
moves by its own rounding error. For a variant that rounds values to a shorter type on the way, it is eight roundings of
that type, and for an output that is quantised two of its steps. A number that is rounded to another step early in a
network goes a long way: twice what onnxruntime differs from itself, with and without its fused operators of integers,
is allowed as well. As the control, outputs for other inputs have to differ by more than what is allowed; where they do
not, agreement proves little, and the row says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphprune import api
from graphprune.dialects import tools_of
from graphprune.dialects.onnx.runner import Runner, has_onnxruntime
from graphprune.errors import GraphPruneError
from graphprune.program import Array
from graphprune.runtime.arrays import random_inputs
from graphprune.runtime.artifact import Tensor
from graphprune.targets.quantised import is_quantised, steps
from graphprune.verify import SAFETY, difference, tolerance

if TYPE_CHECKING:
    from graphprune.runtime import Executable

_CASES = 2
_STEPS = 2.0
_TENTH = 0.1  # of a step, for what is rounded where steps are made numbers
_ROUNDING = {"float32": 0.0, "bfloat16": 2.0**-8, "float16": 2.0**-11}


class Reference:
    """A model with random inputs and what it makes of them. Raises GraphPruneError GP402 where it cannot be run."""

    def __init__(self, model: Any, inputs: Sequence[Tensor], seed: int) -> None:
        tools = tools_of(model)
        self.analysis = api.analyze(model)
        rng = np.random.Generator(np.random.PCG64(seed))
        self.cases = [random_inputs(inputs, rng) for _ in range(_CASES)]
        run = tools.runner(model)
        self.names = run.outputs
        self.expected = [run(case) for case in self.cases]
        jittered = tools.runner(tools.jittered(model, seed))
        moved = [[difference(a, b) for a, b in zip(outputs, jittered(case), strict=True)] for case, outputs in self]
        self.sensitivity = [max(each) for each in zip(*moved, strict=True)]
        self.steps = steps(model)
        self.scatter = self._scatter(model)

    def __iter__(self) -> Any:
        return iter(zip(self.cases, self.expected, strict=True))

    def compare(self, network: Executable, rounding: str) -> list[dict[str, Any]]:
        """One row for each output of a variant: `error`, `tolerance`, `ok`. Raises GraphPruneError GP403 where the
        outputs are not those of the model at all."""
        session = network.session()
        results = [session.run(case) for case in self.cases]
        if list(results[0]) != list(self.names):
            what = f"its outputs are {', '.join(results[0])}, not {', '.join(self.names)}"
            raise GraphPruneError("GP403", what, f"variant {network.variant}")
        rows = []
        for place, name in enumerate(self.names):
            wanted = [outputs[place] for outputs in self.expected]
            found = [result[name] for result in results]
            pairs = list(zip(wanted, found, strict=True))
            error = max(apart(a, b) for a, b in pairs)
            allowed = max(self._tolerance(place, wanted[0]), SAFETY * _ROUNDING[rounding], 2 * self.scatter[place])
            step = self.steps.get(name)
            if step is not None and np.isfinite(error):
                largest = max(float(np.abs(each.astype(float)).max(initial=step)) for each in wanted)
                error = max(float(np.abs(a.astype(float) - b).max(initial=0.0)) for a, b in pairs) / largest
                allowed = max(allowed, (_STEPS + _TENTH) * step / largest)
            other = max(apart(a, b) for a, b in zip(wanted, found[::-1], strict=True))
            note = "" if other > allowed else "the output hardly depends on the inputs, so agreement proves little"
            note = note or counted(wanted, found, step)
            row = {"variant": network.variant, "output": name, "error": finite(error), "tolerance": allowed}
            rows.append({**row, "ok": error <= allowed, "note": note})
        return rows

    def _scatter(self, model: Any) -> list[float]:
        """How far a quantised model is from itself when onnxruntime says it in integers, as it does by default."""
        if not is_quantised(model) or not has_onnxruntime():
            return [0.0] * len(self.names)
        run = Runner(model, optimised=True)
        found = [[difference(a, b) for a, b in zip(outputs, run(case), strict=True)] for case, outputs in self]
        return [max(each) for each in zip(*found, strict=True)]

    def _tolerance(self, place: int, output: Array) -> float:
        moved = self.sensitivity[place]
        return max(tolerance(self.analysis, output.dtype), SAFETY * moved if np.isfinite(moved) else 0.0)


def apart(wanted: Array, found: Array) -> float:
    """The largest difference over the largest magnitude. Of an output that is zero everywhere (a sigmoid far below
    zero, which onnxruntime cuts off) it is the difference itself."""
    if wanted.shape == found.shape and wanted.dtype.kind == "f" and wanted.size and not np.any(wanted):
        return float(np.abs(found).max()) if np.isfinite(found).all() else float("inf")
    return difference(wanted, found)


def counted(wanted: Sequence[Array], found: Sequence[Array], step: float | None) -> str:
    """How many numbers of a quantised output are another step, and how far."""
    if step is None or any(a.shape != b.shape for a, b in zip(wanted, found, strict=True)):
        return ""
    apart = [np.rint(np.abs(a.astype(float) - b) / step) for a, b in zip(wanted, found, strict=True)]
    others, all_ = sum(int(np.count_nonzero(each)) for each in apart), sum(each.size for each in apart)
    most = max(int(each.max(initial=0)) for each in apart)
    return f"{others} of {all_} numbers are off by up to {most} steps" if others else "every number is the same step"


def finite(error: float) -> float | None:
    """An error as JSON can hold it: None where an output is not finite, or has another shape."""
    return error if np.isfinite(error) else None
