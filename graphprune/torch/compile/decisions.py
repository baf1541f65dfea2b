"""What is kept of each tensor of a module, decided graph by graph and never in two ways. Knows no framework."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphprune.analysis import Analysis, Member
from graphprune.cost import Costing
from graphprune.dims import Keep
from graphprune.errors import BudgetNotMet
from graphprune.plan import Plan, named
from graphprune.program import Array
from graphprune.steps import BUDGETS


@dataclass(eq=False)
class Decisions:
    """The decisions of the graphs so far, by tensor, axis and part of the axis.

    seen: the tensors of these graphs
    kept: what is kept; what is not named of a seen tensor is kept whole
    options: of the last plan that was made, as plans have them
    """

    seen: set[str] = field(default_factory=set)
    kept: dict[tuple[str, int, tuple[int, ...]], tuple[int, ...]] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    def remember(self, analysis: Analysis, keep: Keep) -> None:
        """Take note of what one graph keeps. What was decided before stays."""
        new = {stored.name for stored in analysis.program.stored} - self.seen
        for group in analysis.groups:
            if group.dim in keep:
                entries = tuple(keep[group.dim].tolist())
                self.kept.update({_place(member): entries for member in group.members if member.tensor in new})
        self.seen |= new

    def made(
        self, analysis: Analysis, plan: Callable[..., Plan], options: Mapping[str, Any]
    ) -> tuple[Plan, tuple[str, ...]]:
        """A plan that follows what is decided, and decides the rest by `plan(**options)`; and notes for the report.

        Raises GraphPruneError as `plan` does, unless there is something that is decided.
        """
        fixed, notes = self._fixed(analysis)
        free = [name for name in named(analysis) if name not in fixed]
        keep = {named(analysis)[name].dim: kept for name, kept in fixed.items() if kept is not None}
        if not fixed:
            made = plan(**options)
            self.options = made.options
            return made, tuple(notes)
        if free and (left := _left(analysis, keep, options)) is not None:
            try:
                more = plan(**{**left, "ignore": [*left.get("ignore", ()), *fixed]})
                keep = {**more.keep(analysis), **keep}
            except BudgetNotMet as error:
                notes.append(f"what earlier graphs do not decide is kept whole: {error.what}")
        return Plan.of(analysis, keep, dict(self.options)), tuple(notes)

    def given(self, analysis: Analysis, plan: Plan, partial: bool) -> tuple[Plan, tuple[str, ...]]:
        """The part of a plan that is about this graph; of a whole model all of it.

        partial: whether the graph is a part of the model only
        Raises GraphPruneError GP501 where the plan does not fit.
        """
        known = named(analysis)
        if not partial:
            plan.keep(analysis)
            return plan, ()
        stored = {each.name for each in analysis.program.stored}
        here = tuple(cut for cut in plan.groups if cut.group in known)
        wanting = [
            cut.group
            for cut in plan.groups
            if cut.group not in known and len(cut.keep) < cut.size and cut.group.rpartition(":")[0] in stored
        ]
        notes = [f"the plan cuts {name}, which cannot be cut in this graph" for name in wanting]
        chosen = Plan(here, plan.options, plan.model, plan.versions)
        keep = chosen.keep(analysis)
        fixed, more = self._fixed(analysis)
        for name, kept in fixed.items():
            keep.pop(known[name].dim, None)
            if kept is not None:
                keep[known[name].dim] = kept
        return Plan.of(analysis, keep, plan.options), (*notes, *more)

    def _fixed(self, analysis: Analysis) -> tuple[dict[str, Array | None], list[str]]:
        """The groups that earlier graphs decide: what they keep, `None` for all."""
        found: dict[str, Array | None] = {}
        notes = []
        for name, group in named(analysis).items():
            before = {self.kept.get(_place(each)) for each in group.members if each.tensor in self.seen}
            if not before:
                continue
            one = next(iter(before))
            agreed = len(before) == 1 and (one is None or max(one) < group.size)
            found[name] = np.asarray(one, np.int64) if agreed and one is not None else None
            if not agreed:
                notes.append(f"{name} is kept whole: earlier graphs cut the tensors that it ties together differently")
        notes += [
            f"{tensor}:{axis} is kept whole here, although it is cut in an earlier graph"
            for tensor, axis in self._lost(analysis)
        ]
        return found, notes

    def _lost(self, analysis: Analysis) -> list[tuple[str, int]]:
        """Axes that earlier graphs cut and that are not free in this one."""
        free = {_place(member) for group in analysis.groups for member in group.members}
        stored = {each.name for each in analysis.program.stored}
        return sorted({place[:2] for place in self.kept if place[0] in stored and place not in free})


def _place(member: Member) -> tuple[str, int, tuple[int, ...]]:
    return member.tensor, member.axis, member.path


def _left(analysis: Analysis, keep: Keep, options: Mapping[str, Any]) -> dict[str, Any] | None:
    """The options for what is not decided, with budgets that count what is saved already; `None` where all is met."""
    found = dict(options)
    costing = Costing(analysis, options.get("sizes") or {})
    widths = {dim: len(kept) for dim, kept in keep.items()}
    for option, measure in BUDGETS.items():
        if found.get(option) is not None:
            saved = 1 - costing.cost(measure, widths) / max(1, costing.cost(measure, {}))
            found[option] = min(1.0, float(found[option]) + saved)
    asked = [found[option] for option in BUDGETS if found.get(option) is not None]
    return None if asked and all(share >= 1 for share in asked) else found
