"""Blocks and widths in one budget: how many residual blocks go is searched for, and widths make up for the rest.

Leaving out a whole block and narrowing every layer are two ways to the same budget. Some numbers of blocks are tried,
from none to as many as meet the budget alone; each network is refitted, its widths are cut to what the blocks leave of
the budget, it is refitted again, and the one with the least error of the outputs on held-out data is taken
(:mod:`graphprune.division`). What comes out is one plan for the dense network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from graphprune.analysis import Analysis, Group, analyze_program
from graphprune.apply import apply_plan
from graphprune.calibrate import Calibration
from graphprune.cost import MEASURES, Costing
from graphprune.depth.apply import without_blocks
from graphprune.depth.choose import Chosen, choose
from graphprune.depth.residual import residuals
from graphprune.dialects import tools_of
from graphprune.dialects.tools import Model
from graphprune.division import STEPS, Division, best_division
from graphprune.errors import BudgetNotMet, GraphPruneError
from graphprune.fidelity import Fidelity
from graphprune.plan import Cut, Plan, named
from graphprune.recover.run import refitted
from graphprune.steps import BUDGETS, planned

_TOLD = {"macs": "MACs", "params": "parameters", "bytes": "bytes"}


@dataclass(frozen=True)
class Trial:
    """One division: how many units of blocks go, the share of the multiply-accumulates that they leave, the share that
    widths leave of all, and the relative error of the outputs; or why it cannot be. ``plan`` does it."""

    blocks: int
    depth: float = 1.0
    macs: float = math.nan
    error: float = math.inf
    failure: str = ""
    plan: Plan = field(default=Plan(), repr=False, compare=False)

    def __str__(self) -> str:
        told = self.failure or f"widths to {self.macs:.1%}, error {self.error:.3g}"
        return f"{self.blocks} left out, which leaves {self.depth:.1%} of the MACs: {told}"


@dataclass(eq=False)
class Competition:
    """Tries divisions of budgets of one network.

    budgets: shares of costs that may remain, by the names of options
    width:   the other options of a plan; recoveries: for what stays
    fit, judge: the data to compute from, and what errors are measured on; without it nothing is measured
    depth:   options of :func:`graphprune.depth.choose.choose`
    """

    analysis: Analysis
    budgets: Mapping[str, float]
    width: Mapping[str, Any]
    recoveries: Sequence[str]
    fit: Calibration | None
    judge: Calibration | None
    depth: Mapping[str, Any]
    seed: int = 0
    sizes: Mapping[str, int] = field(default_factory=dict)
    known: dict[int, tuple[Chosen, Model, Analysis]] = field(default_factory=dict)
    scores: dict[tuple[str, ...], float] = field(default_factory=dict)

    def divided(self, tell: Callable[[str], None] | None = None) -> Division[Trial]:
        """How many blocks go. Raises BudgetNotMet: GP302 where no division meets the budgets, or there is no block."""
        most = self._most()
        counts = sorted({round(most * step / STEPS) for step in range(STEPS + 1)})
        told = " and ".join(f"{share:.1%} of the {_TOLD[name]}" for name, share in self.budgets.items())
        return best_division(counts, _halfway, self.trial, told, tell)

    def trial(self, count: int) -> Trial:
        """What so many blocks less and the widths that the budgets then ask for come to."""
        trial = Trial(count)
        try:
            trial = replace(trial, depth=self._left(count)["macs"])
            trial = replace(trial, plan=self.plan(count))
            costs = trial.plan.costs
            trial = replace(trial, macs=costs["planned"]["macs"] / max(1, costs["dense"]["macs"]))
            if self.fidelity is None:
                return trial
            model = self._refitted(trial.plan, apply_plan(self.analysis, trial.plan))
            return replace(trial, error=self.fidelity.error(self.fidelity.outputs(model)))
        except GraphPruneError as error:
            if not isinstance(error, BudgetNotMet) and error.code != "GP501":
                raise
            return replace(trial, failure=f"{error.code} {error.what}")

    def plan(self, count: int) -> Plan:
        """The plan for the dense network. Raises GraphPruneError as plans and recoveries do."""
        chosen, small, analysis = self._without(count)
        names = tuple(each.name for each in chosen.blocks)
        whole = replace(Plan.of(self.analysis, {}), blocks=names)
        left = self._left(count)
        asked: dict[str, Any] = {name: min(1.0, share / left[name]) for name, share in self.budgets.items()}
        if any(share < 1 for share in asked.values()):
            if count and self.recoveries:
                small = self._refitted(whole, small)
                analysis = analyze_program(tools_of(small).read(small, self.analysis.program.rules))
            options = {**self.width, "seed": self.seed, "sizes": self.sizes, "calibration": self.fit}
            made = planned(analysis, **options, **asked, refit=self.recoveries)
        else:
            made = replace(Plan.of(analysis, {}), costs={"planned": self._costs(analysis)})
        return replace(
            whole.then(replace(made, groups=renamed(analysis, self.analysis, made))),
            options={**made.options, "scores": {name: float(score) for name, score in chosen.scores.items()}},
        )

    @cached_property
    def fidelity(self) -> Fidelity | None:
        return None if self.judge is None else Fidelity(self.analysis, self.judge.cases)

    def _refitted(self, plan: Plan, small: Model) -> Model:
        return refitted(self.analysis, plan.keep(self.analysis), small, self.recoveries, self.fit, self.seed)

    def _without(self, count: int) -> tuple[Chosen, Model, Analysis]:
        """The blocks that go, and the network without them. Raises GraphPruneError as `choose` does."""
        if count not in self.known:
            chosen = Chosen(())
            if count:
                shared: dict[str, Any] = {"calibration": self.fit, "seed": self.seed, "known": self.scores}
                chosen = choose(self.analysis, count, **self.depth, **shared)
            program = self.analysis.program
            small = without_blocks(program.native, [each.name for each in chosen.blocks], program.rules)
            self.known[count] = chosen, small, analyze_program(tools_of(small).read(small, program.rules))
        return self.known[count]

    def _costs(self, analysis: Analysis) -> dict[str, int]:
        costing = Costing(analysis, self.sizes)
        return {name: costing.cost(name, {}) for name in MEASURES}

    def _left(self, count: int) -> dict[str, float]:
        """The shares of the costs that the network has without so many blocks."""
        found = self._costs(self._without(count)[2])
        return {option: found[name] / max(1, self._dense[name]) for option, name in BUDGETS.items()}

    @cached_property
    def _dense(self) -> dict[str, int]:
        return self._costs(self.analysis)

    def _most(self) -> int:
        """The fewest blocks without which the budgets are met, or all that can go. Raises GraphPruneError GP302 where
        there is none."""
        low, high = 0, len(residuals(self.analysis)) + 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._enough(middle) else (middle, high)
        try:
            self._without(high)
        except BudgetNotMet as error:
            if error.code != "GP301" or low == 0:
                raise
            return low  # so many are not there
        return high

    def _enough(self, count: int) -> bool:
        """Whether the budgets are met without so many blocks, or there are fewer."""
        try:
            left = self._left(count)
        except BudgetNotMet as error:
            if error.code != "GP301":
                raise
            return True
        return all(left[name] <= share for name, share in self.budgets.items())


def _halfway(a: int, b: int) -> int | None:
    """The number between two, where there is one."""
    return (a + b) // 2 if abs(a - b) > 1 else None


def renamed(source: Analysis, target: Analysis, plan: Plan) -> tuple[Cut, ...]:
    """The cuts of a plan for a network without some blocks, with the names that groups have in the whole one: they are
    coupled to more there.

    Raises GraphPruneError GP501 where a group that is cut is none of the whole network.
    """
    known, own = named(target), named(source)
    found: dict[str, Cut] = {}
    for cut in plan.groups:
        same = [name for name, group in known.items() if _within(own[cut.group], group) and name not in found]
        name = cut.group if cut.group in same else next(iter(same), "")
        if name:
            found[name] = replace(cut, group=name)
        elif len(cut.keep) < cut.size:
            what = f"the group {cut.group!r} of the network without blocks is none of the whole one"
            raise GraphPruneError("GP501", what, "blocks and widths in one plan", "cut them in two calls")
    return tuple(found.values())


def _within(small: Group, whole: Group) -> bool:
    """Whether a group of the network without blocks is one of the whole network."""
    members = {each.name for each in small.members}
    return small.kind == whole.kind and small.size == whole.size and members <= {each.name for each in whole.members}
