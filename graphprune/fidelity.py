"""How far the outputs of a model are from those of the dense one, on given inputs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphprune.analysis import Analysis
from graphprune.calibrate import Calibration
from graphprune.dialects import tools_of
from graphprune.dialects.tools import Case, Model
from graphprune.errors import GraphPruneError
from graphprune.program import Array


class Fidelity:
    """The dense model, run once on some inputs; what others compute there is held against that."""

    def __init__(self, analysis: Analysis, cases: Sequence[Case]):
        """Raises GraphPruneError: GP402 where the model cannot be run, GP703 for outputs that are not finite."""
        self.cases = cases
        self.dense = self.outputs(analysis.program.native)
        for outputs in self.dense:
            check_finite(outputs, analysis.program.name)

    def outputs(self, model: Model) -> list[list[Array]]:
        """What a model returns for every case. Raises GraphPruneError GP402 where it cannot be run."""
        run = tools_of(model).runner(model)
        return [run(case) for case in self.cases]

    def error(self, found: Sequence[Sequence[Array]]) -> float:
        """See :func:`relative_error`; the mean over the outputs of the model."""
        errors = [
            relative_error(dense, other)
            for dense, other in zip(zip(*self.dense, strict=True), zip(*found, strict=True), strict=True)
        ]
        return float(np.mean(errors))


def relative_error(dense: Sequence[Array], found: Sequence[Array]) -> float:
    """``sum (y' - y)**2 / sum y**2`` over all batches of one output; of whole numbers the share that differs; infinite
    where shapes differ, or numbers are not finite.

    >>> relative_error([np.array([3.0, 4.0])], [np.array([3.0, 3.0])])
    0.04
    >>> relative_error([np.array([1, 2])], [np.array([1, 3])])
    0.5
    """
    gap = Gap()
    for a, b in zip(dense, found, strict=True):
        gap.add(a, b)
    return gap.relative


@dataclass
class Gap:
    """What :func:`relative_error` is made of, batch by batch."""

    above: float = 0.0
    below: float = 0.0

    def add(self, dense: Array, found: Array) -> None:
        """One batch more."""
        if dense.shape != found.shape:
            self.above = float("inf")
        elif dense.dtype.kind not in "fcV":
            self.above, self.below = self.above + float(np.sum(dense != found)), self.below + dense.size
        else:
            wide = np.complex128 if dense.dtype.kind == "c" else np.float64
            one, two = dense.astype(wide), found.astype(wide)
            self.above += float(np.square(np.abs(two - one)).sum())
            self.below += float(np.square(np.abs(one)).sum())

    @property
    def relative(self) -> float:
        """The error of all that was added."""
        if not np.isfinite(self.above):
            return float("inf")
        return self.above / self.below if self.below else (0.0 if self.above == 0 else float("inf"))


def widen(gaps: list[Gap], dense: Sequence[Array], found: Sequence[Array]) -> None:
    """One batch more, of a gap for each output; none yet before the first."""
    gaps += [Gap() for _ in dense[len(gaps) :]]
    for gap, one, two in zip(gaps, dense, found, strict=True):
        gap.add(one, two)


def check_finite(outputs: Sequence[Array], where: str) -> None:
    """Raises GraphPruneError GP703 for outputs of the dense model that nothing can be held against."""
    if any(each.dtype.kind == "f" and not np.isfinite(each).all() for each in outputs):
        raise GraphPruneError("GP703", "the dense model has outputs that are not finite", where)


def errors_of(analysis: Analysis, models: Sequence[Model], cases: Iterable[Case]) -> list[float]:
    """The error of each model, as :meth:`Fidelity.error` has it, with the outputs of a few cases at a time in memory.
    Raises GraphPruneError GP402 where a model cannot be run."""
    dense, *others = (tools_of(each).runner(each) for each in (analysis.program.native, *models))
    gaps: list[list[Gap]] = [[] for _ in others]
    with tools_of(analysis.program.native).workers(analysis.program) as each_of:
        for expected, *results in each_of(lambda case: [run(case) for run in (dense, *others)], cases):
            for result, found in zip(results, gaps, strict=True):
                widen(found, expected, result)
    return [float(np.mean([gap.relative for gap in found])) for found in gaps]


def digest_of(analysis: Analysis) -> str:
    """A digest of the numbers in a model; those that are not there count by their shape."""
    digest = hashlib.sha256()
    for stored in analysis.program.stored:
        digest.update(repr((stored.name, stored.shape, stored.dtype)).encode())
        if not stored.empty:
            digest.update(np.ascontiguousarray(stored.read()).tobytes())
    return digest.hexdigest()[:16]


def digest_of_data(calibration: Calibration) -> str:
    """A digest of inputs and labels, in order."""
    digest = hashlib.sha256()
    _feed(digest, calibration.cases)
    _feed(digest, calibration.labels)
    return digest.hexdigest()[:16]


def _feed(digest: Any, value: Any) -> None:
    if isinstance(value, Mapping):
        for key in sorted(value, key=str):
            digest.update(repr(key).encode())
            _feed(digest, value[key])
    elif isinstance(value, list | tuple):
        digest.update(f"[{len(value)}]".encode())
        for each in value:
            _feed(digest, each)
    elif hasattr(value, "shape"):
        array = np.ascontiguousarray(value.float() if str(value.dtype) == "torch.bfloat16" else value)
        digest.update(repr((array.dtype.name, array.shape)).encode())
        digest.update(array.tobytes())
    else:
        digest.update(repr(value).encode())
