"""The gather oracle: gather the inputs of a model along a free dimension, and its outputs must be the gathered outputs.

A permutation must hold for every free dimension. A cut must hold for every exact one: where a contraction sums over
the dimension, against the model with the removed entries zeroed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
from graphprune.dims import Dim, is_cut, leaves
from graphprune.rules.trace import Typed

from .cases import Case
from .law import Arrays, Keep, Outcome, difference, gathered, keeps, removing

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
        for what, keep in keeps(self.case.name, free, self.analysis.inexact):
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

    def _compare(self, dense: Arrays, keep: Keep) -> str | None:
        removes = removing(keep)
        try:
            pruned = self.run(ir.to_proto(write(self.analysis, keep)), self._gathered_feeds(keep))
        except FAILURES as error:
            return f"it no longer runs: {type(error).__name__}: {str(error).strip().splitlines()[0][:300]}"
        if removes and self._reduces(removes):
            dense = self._masked({dim: np.sort(kept) for dim, kept in removes.items()})
        for value, before, after in zip(self.analysis.program.main.outputs, dense, pruned, strict=True):
            typed = Typed(None) if value is None else self.analysis.trace.types[value]
            problems = [difference(expected, after) for expected in gathered(before, typed, keep)]
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
        return {name: gathered(array, types[name], keep)[0] for name, array in self.feeds.items()}

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


def _agree(found: Any, expected: Any) -> bool:
    """Whether an evaluator made what a case expects, as closely as the cases themselves ask."""
    if isinstance(expected, np.ndarray) and isinstance(found, np.ndarray):
        if expected.shape != found.shape or expected.dtype.kind in "OUSb":
            return expected.shape == found.shape
        return np.allclose(found.astype(np.float64), expected.astype(np.float64), rtol=1e-2, atol=1e-4, equal_nan=True)
    return True
