"""Proof that a pruned model is right: oracles that compare it with the dense model, each able to fail.

- *permutation*: every free dimension is permuted at random in all tensors; the outputs must not change. Proves that
  the coupling is complete, also through norms and softmax.
- *mask*: the dense model with the removed entries zeroed where they are summed over, and with zeros in the place of
  residual branches that are left out, computes what the pruned model computes. Where a statistic is taken over a cut
  axis (*slice*), the dense model computes it over the survivors alone.
- *same*: what the exact pass ``clean`` removed makes no difference, so nothing is masked.
- *control*: the same comparison after one tensor was deliberately permuted out of step must find a difference; a check
  that cannot fail proves nothing.

Errors are relative to the largest magnitude of an output. The tolerance is what rounding can do: the machine epsilon
of the output's data type, times the square root of all terms summed over on the way (rounding errors add up like a
random walk, Higham 2002, section 2.8), times a safety factor of 8; or 8 roundings of the coarsest type on the way,
where that is float16 or bfloat16. Where an output is ill conditioned at the inputs tried, the tolerance is 8 times what
it moves when every weight moves by its own rounding error; other inputs are tried first where that is so much that it
would hide a wrong result, as where the two largest of some scores are equal. That is measured where a check fails
without it. Quantised models may differ by two steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from graphprune.analysis import Analysis, analyze_program
from graphprune.depth.apply import with_silent_blocks
from graphprune.dialects import tools_of
from graphprune.dims import Dim, Keep, leaves
from graphprune.errors import GraphPruneError
from graphprune.program import Array
from graphprune.sizes import evaluate

if TYPE_CHECKING:
    from graphprune.dialects.tools import Case, Runner

SAFETY = 8.0
_CASES = 2
_DRAWS = 4
_BLIND = 0.1
"""A tolerance above this share of an output would hide most of what can go wrong."""


@dataclass(frozen=True)
class Check:
    """One comparison: ``error`` is relative to the largest magnitude of the output, ``ok`` whether it holds."""

    oracle: str
    output: str
    error: float
    tolerance: float
    ok: bool
    note: str = ""

    def __str__(self) -> str:
        verdict = "ok" if self.ok else "FAILED"
        error = f"{self.error:.1e} (tolerance {self.tolerance:.1e})"
        return f"{verdict:6} {self.oracle:12} {self.output}: {error} {self.note}".rstrip()


@dataclass(frozen=True)
class Verification:
    """The outcome of all checks; ``ok`` when every one holds."""

    checks: tuple[Check, ...] = field(default=())

    @property
    def ok(self) -> bool:
        return bool(self.checks) and all(check.ok for check in self.checks)

    def __str__(self) -> str:
        return "\n".join(map(str, self.checks))


def difference(expected: Array, found: Array) -> float:
    """The largest difference, relative to the largest finite magnitude expected; infinite where shapes differ, or one
    is not a number (or infinite) where the other is.

    >>> difference(np.array([1.0, 2.0]), np.array([1.0, 2.5]))
    0.25
    >>> difference(np.zeros(2), np.zeros(3))
    inf
    """
    if expected.shape != found.shape or expected.dtype != found.dtype:
        return float("inf")
    if expected.dtype.kind not in "fiubc" and expected.dtype.name not in {"bfloat16", "float8_e4m3fn", "float8_e5m2"}:
        return 0.0 if np.array_equal(expected, found) else float("inf")
    if expected.dtype.kind == "c":  # as pairs of real numbers
        expected, found = (np.stack([x.real, x.imag]) for x in (expected, found))
    a, b = expected.astype(np.float64), found.astype(np.float64)
    finite = np.isfinite(a)
    if not np.array_equal(finite, np.isfinite(b)) or not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return float("inf")
    if not finite.any():
        return 0.0
    largest = float(np.abs(a[finite]).max())
    return float(np.abs(a[finite] - b[finite]).max()) / max(largest, np.finfo(np.float64).tiny * 2**52)


def tolerance(analysis: Analysis, dtype: np.dtype[Any]) -> float:
    """How far two orders of the same sums may drift apart for an output of this data type."""
    terms = 1.0
    for contraction in analysis.contractions:
        reduced = 1
        for axis in contraction.reduced:
            reduced *= evaluate(axis.size, {})
        terms += reduced
    if any("Quantize" in node.op or "QLinear" in node.op or "Integer" in node.op for node in analysis.program.nodes()):
        return 2.0 / 255 * 2
    exact = float(np.finfo(dtype if dtype.kind == "f" and dtype.itemsize > 2 else np.float32).eps)
    types = tools_of(analysis.program.native).short_types(analysis.program)
    short = max([0.0, *(_SHORT[name] for name in {*types, dtype.name} & set(_SHORT))])
    return SAFETY * max(exact * float(np.sqrt(terms)), short)


# Epsilons of short types. Sums of them run in float32, so what counts is that results are rounded to them.
_SHORT = {"float16": 2.0**-10, "bfloat16": 2.0**-7}


def verify_models(
    dense: Any,
    pruned: Any,
    plan: Any = None,
    *,
    seed: int = 0,
    sizes: Mapping[str, int] | None = None,
    rules: Mapping[str, str] | None = None,
) -> Verification:
    """Run all oracles on a dense and a pruned model of one dialect. With a plan the pruned model is held against the
    masked dense one; without, only the interface and the coupling of the pruned model are. ``rules`` are those that
    the dense model was analysed with. Raises ``GP402`` where the models cannot be run, ``GP103`` where they are not
    models of one dialect."""
    tools = tools_of(dense)
    if tools_of(pruned) is not tools:
        what = f"a {type(dense).__name__} cannot be compared with a {type(pruned).__name__}"
        raise GraphPruneError("GP103", what, "", "compare models of one kind")
    if plan is not None and dict(plan.options).get("recover"):
        plan = None  # its weights were refitted: only that it is coupled rightly can be told from outside
    if plan is not None:
        dense = with_silent_blocks(dense, plan.blocks, rules)
    analysis = analyze_program(tools.read(tools.inlined(pruned if plan is None else dense), rules))
    analysis.program.check_sizes(sizes)
    interface, found = _interface(dense, pruned), Verification()
    for conditioned in (False, True):  # the second allows more, and costs twice as many runs
        session = _Session(analysis, seed, dict(sizes or {}), conditioned)
        checks = session.permutation()
        if plan is not None:
            exact = dict(plan.options).get("pass") == "clean"
            checks += session.compare("same", pruned, session.expected) if exact else session.masked(plan, pruned)
        found = Verification((interface, *checks))
        if all(check.ok for check in checks):
            break
    return found


def verify_order(
    dense: Analysis, other: Any, keep: Keep, *, seed: int = 0, sizes: Mapping[str, int] | None = None
) -> Verification:
    """Hold a model whose entries stand in another order, the dense one written with ``keep``, against the dense one:
    the outputs must be the same; and as the control they must not, once one tensor is as it was. Raises ``GP402`` where
    a model cannot be run."""
    interface, found = _interface(dense.program.native, other), Verification()
    for conditioned in (False, True):
        session = _Session(dense, seed, dict(sizes or {}), conditioned)
        checks = [*session.compare("permutation", other, session.expected), session.control(keep, other)]
        found = Verification((interface, *checks))
        if all(check.ok for check in checks):
            break
    return found


def _interface(dense: Any, pruned: Any) -> Check:
    same = tools_of(dense).signature(dense) == tools_of(pruned).signature(pruned)
    return Check("interface", "inputs, outputs, opset", 0.0 if same else float("inf"), 0.0, same)


class _Session:
    """The dense model, its inputs and its outputs; run once, compared often. Where it is not ``conditioned``, nothing
    but rounding is allowed for."""

    def __init__(self, analysis: Analysis, seed: int, sizes: dict[str, int], conditioned: bool = True):
        self.analysis = analysis
        self.conditioned = conditioned
        self.tools = tools_of(analysis.program.native)
        self.rng = np.random.Generator(np.random.PCG64(seed))
        self.run = self.tools.runner(analysis.program.native)
        self.seed = seed
        self.cases, self.expected, self.sensitivity = self._inputs(sizes)
        self.free = list(dict.fromkeys(leaf for leaf in _stored_leaves(analysis) if leaf.pin is None))

    def _inputs(self, sizes: dict[str, int]) -> tuple[list[Case], list[list[Array]], list[float]]:
        """Inputs, what the dense model makes of them, and how far each output moves there; of the draws before one that
        is conditioned well, the best."""
        native, best = self.analysis.program.native, None
        for draw in range(_DRAWS):
            batches = self.tools.cases(
                native, self.seed + draw * _CASES, {**self.analysis.program.sizes, **sizes}, _CASES
            )
            try:
                self.cases, expected = runnable_cases(batches, self.run)
            except GraphPruneError:
                if best is None:
                    raise
                continue  # what it accepts depends on the numbers
            found = self.cases, expected, self._sensitivity(native, expected, self.seed)
            if best is None or max(found[2], default=0.0) < max(best[2], default=0.0):
                best = found
            if SAFETY * max(best[2], default=0.0) <= _BLIND:
                break
        assert best is not None
        return best

    def _sensitivity(self, model: Any, expected: Sequence[Sequence[Array]], seed: int) -> list[float]:
        """How far each output of a model moves when its weights move by their rounding error."""
        if not self.conditioned:
            return [0.0] * len(self.run.outputs)
        run = self.tools.runner(self.tools.jittered(model, seed))
        worst = [0.0] * len(self.run.outputs)
        for case, outputs in zip(self.cases, expected, strict=True):
            moved = [difference(a, b) for a, b in zip(outputs, run(case), strict=True)]
            worst = [max(old, new) if np.isfinite(new) else old for old, new in zip(worst, moved, strict=True)]
        return worst

    def permutation(self) -> list[Check]:
        """Permute all free dimensions; then, as the control, all but those of one tensor."""
        if not self.free:
            return []
        keep = {dim: self.rng.permutation(_known(dim)) for dim in self.free}
        permuted = self.tools.write(self.analysis, keep)
        checks = self.compare("permutation", permuted, self.expected)
        return [*checks, self.control(keep, permuted)]

    def control(self, keep: Keep, permuted: Any) -> Check:
        """One tensor is left out of the permutation: some output must change by more than the tolerance. Fails where
        outputs do change, but so little that the tolerance for bad conditioning hides it: nothing would be found."""
        worst, hidden = 0.0, False
        for model in self.tools.out_of_step(self.analysis, keep, permuted):
            for case, expected in zip(self.cases, self.expected, strict=True):  # one by one: the first mostly does
                try:
                    checks = self.compare("control", model, [expected], [case])
                except GraphPruneError:
                    break
                worst = max(worst, *(check.error for check in checks))
                hidden |= any(
                    check.error > tolerance(self.analysis, y.dtype) for check, y in zip(checks, expected, strict=True)
                )
                if any(not check.ok for check in checks):
                    return Check("control", "a tensor out of step", worst, 0.0, True, "must differ, and does")
        if hidden:
            note = "the outputs move less than their conditioning allows: these inputs cannot tell right from wrong"
            return Check("control", "a tensor out of step", worst, 0.0, False, note)
        note = "no output depends on the tensors that could be put out of step, so agreement proves little"
        return Check("control", "a tensor out of step", worst, 0.0, True, note)

    def masked(self, plan: Any, pruned: Any) -> list[Check]:
        """The pruned model against the dense one with the removed entries masked. Masks are as long as the axes they
        lie on, so the dense model is taken at the sizes of the inputs that were tried."""
        sized = self.tools.at_sizes(self.analysis.program.native, self.cases[0])
        analysis = analyze_program(self.tools.read(sized, self.analysis.program.rules))
        keep = plan.keep(analysis)
        model = self.tools.masked(analysis, keep)
        reference = self.tools.runner(model)
        expected = [reference(case) for case in self.cases]
        own = self._sensitivity(model, expected, self.seed)  # with fewer entries it may be worse conditioned
        self.sensitivity = [max(pair) for pair in zip(self.sensitivity, own, strict=True)]
        inexact = any(dim in analysis.inexact for dim in keep)
        return self.compare("slice" if inexact else "mask", pruned, expected)

    def compare(
        self, oracle: str, model: Any, expected: Sequence[Sequence[Array]], cases: Sequence[Case] | None = None
    ) -> list[Check]:
        """One check per output, the worst of all cases."""
        run = self.tools.runner(model)
        found = [run(case) for case in (self.cases if cases is None else cases)]
        checks = []
        for place, name in enumerate(self.run.outputs):
            error = max(difference(a[place], b[place]) for a, b in zip(expected, found, strict=True))
            rounding, conditioned = tolerance(self.analysis, expected[0][place].dtype), SAFETY * self.sensitivity[place]
            note = "ill conditioned at these inputs" if conditioned > rounding else ""
            allowed = max(rounding, conditioned)
            checks.append(Check(oracle, name, error, allowed, error <= allowed, note))
        return checks


def _known(dim: Dim) -> int:
    assert isinstance(dim.size, int)
    return dim.size


def _stored_leaves(analysis: Analysis) -> Iterator[Dim]:
    for _, _, _, axes in analysis.stored_axes():
        for axis in axes:
            yield from leaves(axis)


def runnable_cases(batches: Iterator[list[Case]], run: Runner) -> tuple[list[Case], list[list[Array]]]:
    """The inputs that the dense model accepts, and its outputs: those of the first batch that it accepts as a whole,
    else of the one of which it accepts most. Raises ``GP402`` where it accepts none."""
    failure: GraphPruneError | None = None
    best: tuple[list[Case], list[list[Array]]] = ([], [])
    for cases in batches:
        ran: tuple[list[Case], list[list[Array]]] = ([], [])
        for case in cases:
            try:
                outputs = run(case)
            except GraphPruneError as error:
                failure = failure or error
                continue
            if any(output.size for output in outputs):
                ran[0].append(case)
                ran[1].append(outputs)
        if len(ran[0]) > len(best[0]):
            best = ran
        if len(ran[0]) == len(cases):
            break
    if best[0]:
        return best
    raise failure or GraphPruneError("GP402", "its outputs are empty for every size tried")
