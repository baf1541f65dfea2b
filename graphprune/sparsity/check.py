"""Proof that a sparse model is the dense one with exactly the chosen weights zeroed; each check can fail.

- *interface*: inputs, outputs and operator sets are the same.
- *weights*: every stored tensor of the dense model is there, bit by bit, but for positive zeros where a mask removes
  something, and for the numbers that a recovery gave; the error counts the numbers that differ.
- *format*: what is not zero in a sparse weight lies within its mask, and the mask is one of the format.
- *output*: the model computes what the dense one does when these weights are overwritten while it runs.
- *control*: the same comparison with one layer left dense must find a difference; where the outputs depend on no layer
  that much, a note says so, and overwriting all layers with their own weights must give the dense outputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from graphprune.analysis import Analysis, analyze_program
from graphprune.dialects import tools_of
from graphprune.dialects.tools import Case, Model
from graphprune.program import Array, Stored
from graphprune.sparsity.choose import LayerMask
from graphprune.verify import SAFETY, Check, Verification, difference, runnable_cases, tolerance

_CASES = 2
_DRAWS = 3


def verify_sparse(
    dense: Analysis,
    sparse: Model,
    masks: Sequence[LayerMask],
    *,
    others: Mapping[str, Array] | None = None,
    seed: int = 0,
    sizes: Mapping[str, int] | None = None,
) -> Verification:
    """Hold a sparse model against the dense one, the masks, and new numbers of other tensors by name. Raises
    GraphPruneError GP402 where a model cannot run."""
    tools = tools_of(dense.program.native)
    same = tools.signature(dense.program.native) == tools.signature(sparse)
    checks = [Check("interface", "inputs, outputs, opset", 0.0 if same else float("inf"), 0.0, same)]
    found = {stored.name: stored for stored in analyze_program(tools.read(sparse)).program.stored}
    checks.append(_weights(dense, found, {**(others or {}), **{each.tensor: each.weights() for each in masks}}))
    checks += _formats(found, masks)
    checks += _Outputs(dense, masks, others or {}, seed, dict(sizes or {})).compared(sparse)
    return Verification(tuple(checks))


def _weights(dense: Analysis, found: Mapping[str, Stored], numbers: Mapping[str, Array]) -> Check:
    wrong, first = 0, ""
    for stored in dense.program.stored:
        if stored.empty:
            continue
        expected = numbers.get(stored.name)
        expected = stored.read() if expected is None else expected
        other = found.get(stored.name)
        count = expected.size if other is None else differing(expected, other.read())
        wrong += count
        first = first or (stored.name if count else "")
    return Check("weights", first or "all stored tensors", float(wrong), 0.0, wrong == 0)


def differing(a: Array, b: Array) -> int:
    """How many numbers of two arrays differ in any bit; all where their shapes or types differ.

    >>> differing(np.array([0.0, 1.0]), np.array([-0.0, 1.0]))
    1
    """
    if a.shape != b.shape or a.dtype != b.dtype:
        return max(1, a.size)
    if a.dtype.kind in "OSU":
        return int(np.count_nonzero(a != b))
    bits = [np.ascontiguousarray(each).reshape(-1).view(np.uint8).reshape(a.size, a.itemsize) for each in (a, b)]
    return int(np.count_nonzero((bits[0] != bits[1]).any(axis=1)))


def _formats(found: Mapping[str, Stored], masks: Sequence[LayerMask]) -> Iterator[Check]:
    for each in masks:
        stored = found.get(each.tensor)
        outside = float("inf")
        if stored is not None and stored.elements == each.kept.size:
            outside = float(np.count_nonzero((each.layer.cubes(stored.read()) != 0) & ~each.kept))
        valid = all(each.format.holds(kept) for kept in each.kept)
        note = "" if valid else f"the mask is not one of the format {each.format}"
        yield Check("format", each.tensor, outside, 0.0, outside == 0 and valid, note)


class _Outputs:
    """The dense model, run in one stage whose weights can be overwritten."""

    def __init__(
        self, dense: Analysis, masks: Sequence[LayerMask], others: Mapping[str, Array], seed: int, sizes: dict[str, int]
    ):
        self.dense, self.masks, self.seed = dense, masks, seed
        self.tools = tools_of(dense.program.native)
        self.run = self.tools.runner(dense.program.native)
        self.moved = [0.0] * len(self.run.outputs)
        batches = self.tools.cases(dense.program.native, seed, {**dense.program.sizes, **sizes}, _CASES)
        self.cases, self.outputs = runnable_cases(batches, self.run)
        self.staged = self.tools.staged(dense.program, [])
        self.others = [(each, others[each.name], each.read()) for each in dense.program.stored if each.name in others]
        for each in masks:
            self._write(each, each.weights())
        for stored, array, _ in self.others:
            self.staged.write(stored, array)
        self.expected = [self._computed(case) for case in self.cases]

    def _write(self, mask: LayerMask, array: Array) -> None:
        assert mask.layer.stored is not None
        self.staged.write(mask.layer.stored, array)

    def _computed(self, case: Case) -> list[Array]:
        state: Any = self.staged.begin(case)
        for _ in range(self.staged.stages):
            self.staged.step(state)
        return self.staged.outputs(state)

    def compared(self, sparse: Model) -> list[Check]:
        """One check for each output, and the control."""
        run = self.tools.runner(sparse)
        found = [run(case) for case in self.cases]
        errors = [
            max(difference(a[place], b[place]) for a, b in zip(self.expected, found, strict=True))
            for place in range(len(self.run.outputs))
        ]
        if any(error > self._rounding(place) for place, error in enumerate(errors)):
            self.moved = self._moved(sparse, found)
        checks = []
        for place, (name, error) in enumerate(zip(self.run.outputs, errors, strict=True)):
            allowed = self._allowed(place)
            note = "ill conditioned at these inputs" if allowed > self._rounding(place) else ""
            checks.append(Check("output", name, error, allowed, error <= allowed, note))
        return [*checks, self._control(found)]

    def _rounding(self, place: int) -> float:
        return tolerance(self.dense, self.outputs[0][place].dtype)

    def _allowed(self, place: int) -> float:
        """Rounding, or what the output moves with it where that is more: a model that is run in stages may add up in
        another order."""
        return max(self._rounding(place), SAFETY * self.moved[place])

    def _moved(self, sparse: Model, found: Sequence[Sequence[Array]]) -> list[float]:
        """How far each output moves when the weights move by their rounding error, the most of a few times."""
        worst = [0.0] * len(self.run.outputs)
        for draw in range(_DRAWS):
            run = self.tools.runner(self.tools.jittered(sparse, self.seed + draw))
            for case, outputs in zip(self.cases, found, strict=True):
                moved = [difference(a, b) for a, b in zip(outputs, run(case), strict=True)]
                worst = [max(old, new) if np.isfinite(new) else old for old, new in zip(worst, moved, strict=True)]
        return worst

    def _control(self, found: Sequence[Sequence[Array]]) -> Check:
        """One layer keeps its dense weights, those nearest to the outputs first: some output must differ from those of
        the sparse model by more than the tolerance."""
        worst = 0.0
        for each in reversed(self.masks):
            assert each.layer.stored is not None
            dense = each.layer.stored.read()
            if not np.any(dense[~each.mask()] != 0):
                continue
            self._write(each, dense)
            errors = [
                (difference(a, b), self._allowed(place))
                for case, outputs in zip(self.cases, found, strict=True)
                for place, (a, b) in enumerate(zip(self._computed(case), outputs, strict=True))
            ]
            self._write(each, each.weights())
            worst = max([worst, *(error for error, _ in errors)])
            if any(error > allowed for error, allowed in errors):
                return Check("control", "a layer left dense", worst, 0.0, True, "must differ, and does")
        return self._blind(worst)

    def _blind(self, worst: float) -> Check:
        """Where no layer alone makes a difference: with all of them dense, the outputs must be those of the dense
        model. If not, the zeros never reached the model that the sparse one was held against."""
        for each in self.masks:
            self._write(each, _read(each))
        for stored, _, dense in self.others:
            self.staged.write(stored, dense)
        for case, outputs in zip(self.cases, self.outputs, strict=True):
            for place, (a, b) in enumerate(zip(outputs, self._computed(case), strict=True)):
                error, allowed = difference(a, b), self._allowed(place)
                if error > allowed:
                    note = "with its own weights the dense model computes something else"
                    return Check("control", "all layers left dense", error, allowed, False, note)
        note = "no output tells a dense layer from a sparse one, so that their agreement proves little"
        return Check("control", "a layer left dense", worst, 0.0, True, note)


def _read(mask: LayerMask) -> Array:
    assert mask.layer.stored is not None
    return mask.layer.stored.read()
