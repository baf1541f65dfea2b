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

import numpy as np

from graphprune.analysis import Analysis
from graphprune.dialects import tools_of
from graphprune.dialects.tools import Case, Model, Staged, finished
from graphprune.program import Array, Program, Stored
from graphprune.sparsity.choose import LayerMask
from graphprune.verify import Check, Verification, difference, runnable_cases, tolerance

_CASES = 2


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
    program = tools.read(sparse)
    found = {stored.name: stored for stored in program.stored}
    checks.append(_weights(dense, found, {**(others or {}), **{each.tensor: each.weights() for each in masks}}))
    checks += _formats(found, masks)
    checks += _Outputs(dense, masks, others or {}, seed, dict(sizes or {})).compared(program)
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
    """The dense model, run in one stage whose weights can be overwritten. The sparse one is run in one stage as well:
    what overwrites weights is built in a way of its own, and may add up in another order than the model as it is."""

    def __init__(
        self, dense: Analysis, masks: Sequence[LayerMask], others: Mapping[str, Array], seed: int, sizes: dict[str, int]
    ):
        self.dense, self.masks = dense, masks
        self.tools = tools_of(dense.program.native)
        run = self.tools.runner(dense.program.native)
        batches = self.tools.cases(dense.program.native, seed, {**dense.program.sizes, **sizes}, _CASES)
        self.names, (self.cases, _) = run.outputs, runnable_cases(batches, run)
        self.staged = self.tools.staged(dense.program, [])
        self.outputs = [_computed(self.staged, case) for case in self.cases]
        self.others = [(each, others[each.name], each.read()) for each in dense.program.stored if each.name in others]
        for each in masks:
            self._write(each, each.weights())
        for stored, array, _ in self.others:
            self.staged.write(stored, array)
        self.expected = [_computed(self.staged, case) for case in self.cases]

    def _write(self, mask: LayerMask, array: Array) -> None:
        assert mask.layer.stored is not None
        self.staged.write(mask.layer.stored, array)

    def compared(self, sparse: Program) -> list[Check]:
        """One check for each output, and the control."""
        self.tools.runner(sparse.native)(self.cases[0])  # that it runs as it is, too
        staged = self.tools.staged(sparse, [])
        found = [_computed(staged, case) for case in self.cases]
        checks = []
        for place, name in enumerate(self.names):
            error = max(difference(a[place], b[place]) for a, b in zip(self.expected, found, strict=True))
            allowed = self._allowed(place)
            checks.append(Check("output", name, error, allowed, error <= allowed))
        return [*checks, self._control(found)]

    def _allowed(self, place: int) -> float:
        return tolerance(self.dense, self.outputs[0][place].dtype)

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
                for place, (a, b) in enumerate(zip(_computed(self.staged, case), outputs, strict=True))
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
            for place, (a, b) in enumerate(zip(outputs, _computed(self.staged, case), strict=True)):
                error, allowed = difference(a, b), self._allowed(place)
                if error > allowed:
                    note = "with its own weights the dense model computes something else"
                    return Check("control", "all layers left dense", error, allowed, False, note)
        note = "no output tells a dense layer from a sparse one, so that their agreement proves little"
        return Check("control", "a layer left dense", worst, 0.0, True, note)


def _computed(staged: Staged, case: Case) -> list[Array]:
    return finished(staged, staged.begin(case))


def _read(mask: LayerMask) -> Array:
    assert mask.layer.stored is not None
    return mask.layer.stored.read()
