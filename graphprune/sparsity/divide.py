"""Channels and zeros in one budget: how much each of them gets is measured.

The budget counts multiply-accumulates with weights that are not zero, as a share of those of the dense network. It can
be reached by cutting channels alone, by zeros alone, or by both: a network of ``width`` of the multiply-accumulates,
whose weights keep ``macs / width``. Widths are tried at ``macs ** (k / 4)``, from the dense network each time, and the
one with the least error of the outputs on held-out data is taken (:mod:`graphprune.division`). Knows no framework.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from inspect import signature
from typing import Any

from graphprune import api
from graphprune.analysis import Analysis, analyze_program
from graphprune.calibrate import Calibration
from graphprune.cost import Costing
from graphprune.dialects import tools_of
from graphprune.dialects.tools import Model
from graphprune.division import STEPS, Division, best_division
from graphprune.drop import divided
from graphprune.errors import BudgetNotMet, GraphPruneError, did_you_mean
from graphprune.fidelity import Fidelity
from graphprune.formats import parse
from graphprune.plan import Plan, make_plan
from graphprune.recover.run import cut
from graphprune.sparsity.candidates import candidates
from graphprune.sparsity.choose import Choice, applied, choose
from graphprune.sparsity.permute import slots
from graphprune.sparsity.recover import checked, recovered
from graphprune.sparsity.run import Sparsified, sparsify
from graphprune.steps import BUDGETS, check_share, planned

ROUNDS = 8
"""Times that a sparsity is raised until a format that rounds it meets the budget."""


@dataclass(frozen=True)
class Trial:
    """One division: the share of the multiply-accumulates that cut channels are to leave (1: none are cut), the
    sparsity of what is left (0: no zeros), the share that both leave, and the relative error of the outputs; or why it
    cannot be."""

    width: float
    sparsity: float = 0.0
    macs: float = math.nan
    error: float = math.inf
    failure: str = ""

    def __str__(self) -> str:
        told = self.failure or f"error {self.error:.3g} at {self.macs:.1%} of the MACs"
        return f"channels to {self.width:.1%}, sparsity {self.sparsity:.1%}: {told}"


def divide(
    analysis: Analysis,
    macs: float,
    validation: Calibration,
    *,
    format: Any,
    calibration: Calibration | None = None,
    recover: Sequence[str] = (),
    width: Mapping[str, Any] | None = None,
    seed: int = 0,
    sizes: Mapping[str, int] | None = None,
    tell: Callable[[str], None] | None = None,
    **choice: Any,
) -> Division[Trial]:
    """How to divide a budget; see :func:`graphprune.sparsity.run.sparsify` for the options.

    Raises GraphPruneError: GP107 for options, GP302 where no division meets the budget; as plans and recoveries do.
    """
    check_share(macs, "macs")
    _check_width(width or {})
    names = checked(recover, calibration)
    run = _Run(analysis, float(macs), validation, {"format": parse(str(format)), **choice}, calibration, names,
               dict(width or {}), seed, dict(sizes or {}))  # fmt: skip
    shares = [macs ** (step / STEPS) for step in range(STEPS + 1)]
    return best_division(shares, lambda a, b: math.sqrt(a * b), run.trial, f"{macs:.1%} of the MACs", tell)


def _check_width(width: Mapping[str, Any]) -> None:
    """Raises GraphPruneError: GP107 for what the search itself decides, GP106 for what is no option of a plan."""
    known = set(signature(make_plan).parameters) - {"analysis", "calibration", "seed", "sizes"}
    for name in width:
        if name in (*BUDGETS, "ratio"):
            what = f"width has the budget {name!r}, and how much of one channels get is searched for"
            raise GraphPruneError("GP107", what, "option width", "leave it out")
        if name not in known:
            raise GraphPruneError("GP106", f"width has no option {name!r}", "option width", did_you_mean(name, known))


@dataclass(eq=False)
class _Run:
    """Tries divisions of one budget of one network."""

    analysis: Analysis
    macs: float
    validation: Calibration
    choice: dict[str, Any]
    calibration: Calibration | None
    recover: Sequence[str]
    width: dict[str, Any]
    seed: int
    sizes: dict[str, int]
    fidelity: Fidelity = field(init=False)

    def __post_init__(self) -> None:
        self.fidelity = Fidelity(self.analysis, self.validation.cases)

    @cached_property
    def whole(self) -> float:
        """Multiply-accumulates of the dense network."""
        return left(self.analysis, None, self.sizes)

    def trial(self, width: float) -> Trial:
        trial = Trial(width)
        try:
            small, model = self._narrow(width)
            zeros = self._zeros(small)
            trial = replace(trial, sparsity=0.0 if zeros is None else zeros[0])
            if zeros is not None:
                model = applied(small, self._recovered(small, zeros[1]))
            share = left(small, None if zeros is None else zeros[1], self.sizes) / self.whole
            return replace(trial, macs=share, error=self.fidelity.error(self.fidelity.outputs(model)))
        except BudgetNotMet as error:
            return replace(trial, failure=f"{error.code} {error.what}")

    def _recovered(self, small: Analysis, made: Choice) -> Choice:
        """With the numbers beside the zeros that recoveries give."""
        if not self.recover or self.calibration is None:
            return made
        return recovered(small, made, self.recover, self.calibration, self.seed)

    def _narrow(self, width: float) -> tuple[Analysis, Model]:
        """The network whose channels leave this share, with its analysis."""
        if width >= 1:
            return self.analysis, self.analysis.program.native
        options = {**self.width, "macs": width, "seed": self.seed, "sizes": self.sizes}
        plan = planned(self.analysis, **options, calibration=self.calibration)
        model = cut(self.analysis, plan.keep(self.analysis), of_channels(self.recover), self.calibration, self.seed)
        return analyze_program(tools_of(model).read(model, self.analysis.program.rules)), model

    def _zeros(self, small: Analysis) -> tuple[float, Choice] | None:
        """The least sparsity that meets the budget, and the masks; None where none is needed. Raises GraphPruneError
        GP302 where what stays dense is too much."""
        room = self.macs * self.whole
        excess = left(small, None, self.sizes) - room
        if excess <= 0:
            return None
        costing = Costing(small, self.sizes)
        chosen, _ = candidates(small, self.choice["format"], self.choice.get("only", ()), self.choice.get("ignore", ()))
        part = sum(costing.product(layer.contraction.macs, {}) for layer in chosen)
        sparsity = excess / max(part, 1)
        for _ in range(ROUNDS):
            if sparsity >= 1:
                break
            made = choose(small, **{**self.choice, "sparsity": sparsity}, seed=self.seed, calibration=self.calibration)
            over = left(small, made, self.sizes) - room
            if over <= 0:
                return sparsity, made
            sparsity += max(over / part, 1e-3)
        raise BudgetNotMet("GP302", "layers that stay dense need more than the budget", small.program.name)


def left(analysis: Analysis, choice: Choice | None, sizes: Mapping[str, int]) -> float:
    """Multiply-accumulates of one run with weights that the masks keep."""
    costing = Costing(analysis, sizes)
    kept = {each.layer.contraction: float(each.kept.mean()) for each in (choice.layers if choice else ())}
    return sum(costing.product(each.macs, {}) * kept.get(each, 1.0) for each in analysis.contractions)


def of_channels(recover: Sequence[str]) -> tuple[str, ...]:
    """What recoveries of weights with zeros are for cut channels."""
    return tuple(dict.fromkeys("least_squares" if name == "sparsegpt" else name for name in recover))


def sparsify_to(
    model: Any,
    example_inputs: Any = None,
    *,
    macs: float,
    validation: Any = None,
    width: Mapping[str, Any] | None = None,
    tell: Callable[[str], None] | None = None,
    calibration: Any = None,
    seed: int = 0,
    sizes: Mapping[str, int] | None = None,
    verify: bool = True,
    **choice: Any,
) -> Sparsified:
    """See :func:`graphprune.sparsity.run.sparsify`; the channels go first, and what is left is sparsified."""
    for_capture: dict[str, Any] = {name: choice.pop(name) for name in ("dynamic", "rules") if name in choice}
    masks = {name: choice.pop(name) for name in ("masks",) if name in choice}
    shared: dict[str, Any] = {"seed": seed, "sizes": sizes}
    narrow = prune_to(
        model, example_inputs, macs=macs, validation=validation, width=width, tell=tell, calibration=calibration,
        verify=verify, for_capture=for_capture, **shared, **choice,
    )  # fmt: skip
    asked = {**choice, "sparsity": narrow.division.best.sparsity, "calibration": narrow.calibration}
    result = sparsify(narrow.model, example_inputs, **asked, **shared, **masks, **for_capture, verify=verify)
    report = result.report.with_(notes=(*narrow.notes, *result.report.notes))
    return replace(result, report=report, plan=narrow.plan)


@dataclass(frozen=True, eq=False)
class Narrow:
    """A model on its way: its channels are cut, and zeros will follow.

    plan:        what was cut; None: nothing
    calibration: the data to compute the zeros from
    notes:       what a report says of it
    """

    model: Model
    plan: Plan | None
    division: Division[Trial]
    calibration: Calibration | None
    notes: tuple[str, ...]


def prune_to(
    model: Any,
    example_inputs: Any = None,
    *,
    macs: float,
    validation: Any = None,
    width: Mapping[str, Any] | None = None,
    calibration: Any = None,
    recover: str | Sequence[str] = (),
    seed: int = 0,
    sizes: Mapping[str, int] | None = None,
    verify: bool = True,
    for_capture: Mapping[str, Any] | None = None,
    **options: Any,
) -> Narrow:
    """Find how to divide the budget, and cut the channels. Raises GraphPruneError as :func:`divide`,
    :func:`graphprune.drop.divided` and :func:`graphprune.api.prune` do."""
    if options.pop("sparsity", None) is not None:
        raise GraphPruneError("GP107", "the sparsity follows from the budget", "option sparsity", "give one of them")
    form = parse(str(options["format"]))
    if form.sparsity is not None:
        what = f"the format {form} fixes its sparsity, which leaves nothing to divide"
        raise GraphPruneError(
            "GP107", what, "option format", "choose another, or prune first and sparsify what is left"
        )
    if options.pop("permute", None):  # divisions are compared as the channels stand
        slots(form)
    captured = dict(for_capture or {})
    analysis = model if isinstance(model, Analysis) else api.analyze(model, example_inputs, **captured)
    given, held = (api.calibrated(analysis, each, seed, sizes) for each in (calibration, validation))
    fit, judge = divided(given, held)
    names = checked(recover, fit)
    shared: dict[str, Any] = {"seed": seed, "sizes": sizes}
    division = divide(analysis, macs, judge, calibration=fit, recover=names, width=width, **shared, **options)
    if division.best.width >= 1:
        return Narrow(model, None, division, fit, division.notes)
    asked = {**(width or {}), "macs": division.best.width, "recover": of_channels(names), "calibration": fit}
    result = api.prune(model, example_inputs, **asked, **shared, **captured, verify=verify)
    told = api.plan_notes(result.plan)  # the report of the zeros says it, too
    notes = (*division.notes, *(note for note in result.report.notes if note not in told))
    return Narrow(result.model, result.plan, division, fit, notes)
