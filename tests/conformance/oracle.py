"""The gather oracle: gather the inputs of a model along a free dimension, and its outputs must be the gathered outputs.

A permutation must hold for every free dimension. A cut must hold for every exact one: where a contraction sums over
the dimension, against the model with the removed entries zeroed.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from graphprune.analysis import analyze_program
from graphprune.dialects.onnx.masks import masked
from graphprune.dialects.onnx.reader import read
from graphprune.dialects.onnx.writer import write
from graphprune.dims import Axis, Dim, Sum, evaluated, find, indices, is_cut, leaves
from graphprune.rules.numbers import later
from graphprune.rules.trace import Typed
from graphprune.sizes import symbols

from .cases import Case

Arrays = list[Any]
Keep = dict[Dim, np.ndarray]

# How often each dimension of a case is permuted and cut.
ROUNDS = 2

# How far two orders of the same sums may drift apart, relative to the largest entry of the output.
TOLERANCE = {"float64": 1e-9, "float32": 2e-5, "float16": 4e-3, "bfloat16": 3e-2}

_ORT = onnxruntime.capi.onnxruntime_pybind11_state
_ORT_FAILURES = tuple(
    getattr(_ORT, name)
    for name in ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NotImplemented", "RuntimeException")
)
# What either evaluator raises for what it does not support or cannot make sense of.
FAILURES = (
    *_ORT_FAILURES,
    ArithmeticError,
    AttributeError,
    ImportError,
    LookupError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)


class CannotRun(Exception):
    """Neither evaluator can run the case as it is shipped."""


def run_onnxruntime(model: onnx.ModelProto, feeds: Mapping[str, Any]) -> Arrays:
    """The outputs, without optimisations, so that the graph runs as it is written."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, dict(feeds)))


class PRelu6(OpRun):
    """PRelu before operator set 7: a slope per channel, which the reference evaluator takes for one per column."""

    op_domain = ""
    op_schema = onnx.defs.get_schema("PRelu", 6)

    def _run(self, x: np.ndarray, slope: np.ndarray) -> tuple[np.ndarray]:  # type: ignore[override]
        return (np.where(x > 0, x, x * slope.reshape(slope.shape + (1,) * (x.ndim - 2))).astype(x.dtype),)


PRelu6.__name__ = "PRelu"  # the reference evaluator finds operators by the name of their class


def run_reference(model: onnx.ModelProto, feeds: Mapping[str, Any]) -> Arrays:
    """The outputs by the reference evaluator of the onnx package."""
    with np.errstate(all="ignore"):
        old = [PRelu6] if model.opset_import[0].version < 7 else []
        return list(ReferenceEvaluator(model, new_ops=old).run(None, dict(feeds)))


@dataclass
class Outcome:
    """What was checked of one case, and what did not hold."""

    checked: int = 0
    free: int = 0
    mismatches: list[str] = field(default_factory=list)


class Subject:
    """One case with all its tensors stored (constants), or fed (activations). Nothing is pinned for being an input or
    an output of the graph."""

    def __init__(self, case: Case, *, stored: bool):
        self.case, self.stored = case, stored
        self.model, self.feeds = _prepared(case, stored)
        self.analysis = analyze_program(read(self.model), pin_interface=False)

    @property
    def free(self) -> list[Dim]:
        """The free dimensions of everything that goes in."""
        axes = [axis for _, _, _, each in self.analysis.stored_axes() for axis in each]
        for value in self.analysis.program.main.inputs:
            axes += self.analysis.trace.types[value].axes or []
        return list(dict.fromkeys(leaf for axis in axes for leaf in leaves(axis) if leaf.pin is None))

    def check(self) -> Outcome:
        """Everything there is to check. Raises :class:`CannotRun`."""
        outcome, free = Outcome(), self.free
        outcome.free = len(free)
        proto = ir.to_proto(self.model)
        dense = self._dense(proto)
        outcome.mismatches += self._wrong_sizes(dense)
        if outcome.mismatches:  # there are no positions to gather
            return outcome
        for what, keep in self._keeps(free):
            outcome.checked += 1
            problem = self._compare(dense, keep)
            if problem:
                outcome.mismatches.append(f"{self.case.name} ({self._mode}), {what}: {problem}")
        return outcome

    @property
    def _mode(self) -> str:
        return "stored" if self.stored else "fed"

    def _dense(self, proto: onnx.ModelProto) -> Arrays:
        """The outputs of the case, by the first evaluator that makes of it what the case says it must."""
        for run in (run_onnxruntime, run_reference):
            self.run = run
            try:
                outputs = run(proto, self.feeds)
            except FAILURES:
                continue
            if all(map(_agree, outputs, self.case.outputs)):
                return outputs
        raise CannotRun(self.case.name)

    def _keeps(self, free: list[Dim]) -> Iterator[tuple[str, Keep]]:
        """Each dimension permuted, each exact one cut, then all at once; seeded by the name of the case."""
        rng = np.random.default_rng(zlib.crc32(self.case.name.encode()))
        for _ in range(ROUNDS):
            yield from self._round(free, rng)

    def _round(self, free: list[Dim], rng: np.random.Generator) -> Iterator[tuple[str, Keep]]:
        permuted: Keep = {}
        cut: Keep = {}
        for dim in free:
            order = rng.permutation(_size(dim))
            permuted[dim] = order
            yield f"permuting {dim}", {dim: order}
            if dim not in self.analysis.inexact:
                cut[dim] = order[: rng.integers(1, _size(dim))]
                yield f"cutting {dim}", {dim: cut[dim]}
        if len(free) > 1:
            yield "permuting all", permuted
        if len(cut) > 1:
            yield "cutting all", {**permuted, **cut}

    def _compare(self, dense: Arrays, keep: Keep) -> str | None:
        removes = {dim: kept for dim, kept in keep.items() if len(kept) < _size(dim)}
        try:
            pruned = self.run(ir.to_proto(write(self.analysis, keep)), self._gathered_feeds(keep))
        except FAILURES as error:
            return f"it no longer runs: {type(error).__name__}: {str(error).strip().splitlines()[0][:300]}"
        if removes and self._reduces(removes):
            dense = self._masked({dim: np.sort(kept) for dim, kept in removes.items()})
        for value, before, after in zip(self.analysis.program.main.outputs, dense, pruned, strict=True):
            typed = Typed(None) if value is None else self.analysis.trace.types[value]
            problems = [_difference(expected, after) for expected in _gathered(before, typed, keep)]
            if all(problems):
                return f"output {value and value.name}: {problems[0]}"
        return None

    def _masked(self, keep: Keep) -> Arrays:
        """The outputs with the removed entries masked."""
        proto = ir.to_proto(masked(self.analysis, keep))
        try:
            return self.run(proto, self.feeds)
        except _ORT_FAILURES:  # onnxruntime lacks a multiplication of this type, or of this operator set
            return run_reference(proto, self.feeds)

    def _reduces(self, keep: Keep) -> bool:
        return any(is_cut(axis, keep) for contraction in self.analysis.contractions for _, _, axis in contraction.masks)

    def _gathered_feeds(self, keep: Keep) -> dict[str, Any]:
        types = {value.name: self.analysis.trace.types[value] for value in self.analysis.program.main.inputs}
        return {name: _gathered(array, types[name], keep)[0] for name, array in self.feeds.items()}

    def _wrong_sizes(self, outputs: Arrays) -> Iterator[str]:
        """Ranks and sizes that the rules promise and the run does not show."""
        for value, array in zip(self.analysis.program.main.outputs, outputs, strict=True):
            typed = Typed(None) if value is None else self.analysis.trace.types[value]
            if typed.axes is None or not isinstance(array, np.ndarray | np.generic):
                continue
            promised = [axis.size for axis in typed.axes]
            kept = len(promised) == array.ndim and all(
                size == now or not isinstance(size, int) for size, now in zip(promised, array.shape, strict=True)
            )
            if not kept:
                yield f"{self.case.name} ({self._mode}): output {value and value.name} is {array.shape}, not {promised}"


def _prepared(case: Case, stored: bool) -> tuple[ir.Model, dict[str, Any]]:
    """The model with the inputs of the case made stored tensors, or with the shapes of the inputs declared."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    values = list(model.graph.input)
    tensors = {
        value.name: case.inputs[value.name]
        for value in values
        if value.type.HasField("tensor_type") and isinstance(case.inputs.get(value.name), np.ndarray)
    }
    if stored:
        known = {tensor.name for tensor in model.graph.initializer}
        del model.graph.input[:]
        model.graph.input.extend(v for v in values if v.name not in tensors and v.name not in known)
        model.graph.initializer.extend(
            numpy_helper.from_array(array, name) for name, array in tensors.items() if name not in known
        )
        feeds = {name: value for name, value in case.inputs.items() if name not in tensors}
    else:
        for value in values:
            if value.name in tensors:
                _declare(value.type.tensor_type.shape, tensors[value.name].shape)
        feeds = dict(case.inputs)
    return ir.from_proto(model), feeds


def _declare(shape: onnx.TensorShapeProto, sizes: tuple[int, ...]) -> None:
    del shape.dim[:]
    for size in sizes:
        shape.dim.add().dim_value = size


def _size(dim: Dim) -> int:
    assert isinstance(dim.size, int)
    return dim.size


def _gathered(array: Any, typed: Typed, keep: Keep) -> list[Any]:
    """What becomes of an array of this type: more than one answer where the position of a part is only known to the
    run. Entries that are sizes are worked out anew."""
    if typed.entries is not None and isinstance(array, np.ndarray):
        sizes = [later(entry) for entry in typed.entries]
        numbers = [
            old if new is None or not all(isinstance(item, Dim) for item in symbols(new)) else evaluated(new, keep)
            for old, new in zip(array.flat, sizes, strict=True)
        ]
        return [np.asarray(numbers, array.dtype).reshape(array.shape)]
    found = [array]
    for place, axis in enumerate(typed.axes or []):
        if is_cut(axis, keep):
            ways = [indices(way, keep) for way in _resolved(axis, array.shape[place])]
            found = [np.take(each, kept, place) for each in found for kept in ways]
    return found


def _resolved(axis: Axis, total: int) -> list[Axis]:
    """The axis with run-time sizes filled in so that it has ``total`` entries, in every way there is."""
    axis = find(axis)
    if isinstance(axis.size, int) or isinstance(axis, Dim):
        return [axis]
    unknown = [place for place, part in enumerate(axis.parts) if not isinstance(part.size, int)]
    known = [part.size for part in axis.parts if isinstance(part.size, int)]
    rest = total - sum(known) if isinstance(axis, Sum) else total // math.prod(known)
    found: list[Axis] = []
    for sizes in itertools.product(range(rest + 1), repeat=len(unknown)):
        if (sum(sizes) if isinstance(axis, Sum) else math.prod(sizes)) == rest:
            parts = list(axis.parts)
            for place, size in zip(unknown, sizes, strict=True):
                parts[place] = Dim(size)
            found.append(type(axis)(parts))
    return found


def _agree(found: Any, expected: Any) -> bool:
    """Whether an evaluator made what a case expects, as closely as the cases themselves ask."""
    if isinstance(expected, np.ndarray) and isinstance(found, np.ndarray):
        if expected.shape != found.shape or expected.dtype.kind in "OUSb":
            return expected.shape == found.shape
        return np.allclose(found.astype(np.float64), expected.astype(np.float64), rtol=1e-2, atol=1e-4, equal_nan=True)
    return True


def _difference(a: Any, b: Any) -> str | None:
    """Why two outputs are not the same, ``None`` where they are."""
    if isinstance(a, list | tuple) or isinstance(b, list | tuple):
        problems = [_difference(x, y) for x, y in zip(a, b, strict=True)]
        return next((problem for problem in problems if problem), None)
    if a is None or b is None:
        return None if a is b else f"{a} became {b}"
    a, b = np.asarray(a), np.asarray(b)
    if a.size == 0 or b.size == 0:
        return None if a.shape == b.shape else f"{a.shape} became {b.shape}"
    if a.shape != b.shape or a.dtype != b.dtype:
        return f"{a.dtype}{a.shape} became {b.dtype}{b.shape}"
    if a.dtype.kind in "OUSb" or np.issubdtype(a.dtype, np.integer):
        return None if np.array_equal(a, b) else f"{int((a != b).sum())} of {a.size} entries differ"
    kind = np.complex128 if a.dtype.kind == "c" else np.float64
    allowed, x, y = TOLERANCE.get(a.dtype.name, 0.0), a.astype(kind), b.astype(kind)
    finite = np.isfinite(x)
    if not np.array_equal(finite, np.isfinite(y)) or not np.array_equal(x[~finite], y[~finite], equal_nan=True):
        return "the places of infinity and NaN differ"
    error, scale = np.abs(x[finite] - y[finite]).max(initial=0.0), np.abs(x[finite]).max(initial=0.0)
    return None if error <= allowed * scale else f"off by {error:.3g} where the largest entry is {scale:.3g}"
