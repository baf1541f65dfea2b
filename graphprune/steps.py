"""Cutting in steps: a little, then the scores of what is left are computed anew, and so on to the budget.

Scores of a dense network say little about the network that a large cut leaves: what two channels share is lost only
when both are gone (Molchanov et al., ICLR 2017; Verdenius et al., 2020). The shares after each step are a geometric
sequence, so that each step removes the same part of what is there. Every step decides on the dense network, with the
scores of the network that the step before it left; what is gone has lower scores than all that is there. So the last
plan is one plan of the dense network, with its bounds and its exact costs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from graphprune.cost import LATENCY
from graphprune.criteria.custom import name_of
from graphprune.errors import GraphPruneError, did_you_mean
from graphprune.plan import Plan, make_plan, named

if TYPE_CHECKING:
    from graphprune.analysis import Analysis, Group
    from graphprune.calibrate import Calibration
    from graphprune.dims import Dim
    from graphprune.program import Array

BUDGETS = {"macs": "macs", "params": "parameters", "bytes": "bytes"}
"""Options that say how much may remain, and the measures of cost that they are shares of."""


_OPTIONS = (
    *tuple(inspect.signature(make_plan).parameters)[1:], "steps", "refit", "depth", "depth_by", "depth_unit", "tell",
)  # fmt: skip


def check_share(share: object, option: str) -> None:
    """Raises GraphPruneError GP107 for what is no share of a cost that may remain."""
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        raise GraphPruneError("GP107", f"{share!r} is not a share above 0 and at most 1", f"option {option}")


def named_recoveries(refit: str | Sequence[str]) -> tuple[str, ...]:
    """The names in an option, without `none`.

    >>> named_recoveries("bias, batch_norm"), named_recoveries(["none"])
    (('bias', 'batch_norm'), ())
    """
    listed = refit.split(",") if isinstance(refit, str) else refit
    return tuple(name.strip() for name in listed if name.strip() not in ("", "none"))


def planned(
    analysis: Analysis,
    *,
    steps: int = 1,
    refit: str | Sequence[str] = (),
    depth: int | str | None = None,
    depth_by: Any = "block_influence",
    depth_unit: int = 1,
    tell: Callable[[str], None] | None = None,
    **options: Any,
) -> Plan:
    """A plan in so many steps; the options are those of :func:`graphprune.plan.make_plan`.

    refit: recoveries of the network between two steps, before it is scored; they need calibration data
    depth, depth_by, depth_unit: of :func:`graphprune.depth.plan.depth_plan`, for a plan that leaves out residual blocks
    tell:  is told what such a search tries
    Raises GraphPruneError as `make_plan` does, GP106 for other options, GP107 for steps, and as recoveries and `choose`
    do.
    """
    for name in options:
        if name not in _OPTIONS:
            raise GraphPruneError("GP106", f"there is no option {name!r}", "gp.plan", did_you_mean(name, _OPTIONS))
    analysis.program.check_sizes(options.get("sizes"))
    if depth is not None:
        from graphprune.depth.plan import depth_plan

        of_depth: dict[str, Any] = {"depth_by": depth_by, "depth_unit": depth_unit, "tell": tell}
        return depth_plan(analysis, depth, **of_depth, refit=_checked(refit, options), steps=steps, **options)
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        what = f"{steps!r} is not a whole number from 1 on"
        raise GraphPruneError("GP107", what, "option steps", "write a number such as 4")
    if steps == 1:
        return make_plan(analysis, **options)
    make_plan(analysis, **options)  # what cannot be met is told before the work
    names = _checked(refit, options)
    run, plan = _Steps(analysis, options, names), Plan()
    for step in range(1, steps + 1):
        plan = run.cut(plan, step / steps)
    told = {"steps": steps, **({"refit": list(names)} if names else {})}
    return replace(plan, options={**plan.options, **run.told, **told})


def _checked(refit: str | Sequence[str], options: Mapping[str, Any]) -> tuple[str, ...]:
    """The recoveries between cuts. Raises GraphPruneError as :func:`graphprune.recover.run.checked` does."""
    from graphprune.recover.run import checked

    names = named_recoveries(refit)
    return checked(names, options.get("calibration")) if names else ()


@dataclass(frozen=True)
class Rescored:
    """Scores of the groups of the dense network, as a criterion."""

    name: str
    scores: Mapping[Dim, Array] = field(repr=False)

    def score(self, analysis: Analysis, group: Group) -> Array | None:
        """See :class:`graphprune.criteria.AnalysisCriterion`."""
        return self.scores.get(group.dim)


@dataclass(eq=False)
class _Steps:
    """One cut after the other."""

    analysis: Analysis
    options: Mapping[str, Any]
    refit: tuple[str, ...]
    scores: dict[Dim, Array] = field(default_factory=dict)

    @property
    def told(self) -> dict[str, Any]:
        """What the plan says it was made with."""
        asked = {"criterion": name_of(self.options.get("criterion", "l2"))}
        names = (*BUDGETS, LATENCY, "ratio", "normalize")
        return asked | {name: self.options[name] for name in names if name in self.options}

    def cut(self, before: Plan, part: float) -> Plan:
        """The plan after this part of all steps, from the one before it."""
        keep = before.keep(self.analysis)
        self._score(keep)
        scored = Rescored(self.told["criterion"], self.scores)
        asked = {**self.options, "criterion": scored, "normalize": "none"}
        for name in (*BUDGETS, LATENCY):
            if asked.get(name) is not None:
                asked[name] = asked[name] ** part
        if asked.get("ratio") is not None:
            asked["ratio"] = 1 - (1 - asked["ratio"]) ** part
        return make_plan(self.analysis, **asked)

    def _score(self, keep: Mapping[Dim, Array]) -> None:
        """Score what is left; what is gone comes below."""
        from graphprune.allocate.bounds import select
        from graphprune.criteria.transfer import score_groups

        current = self._current(keep) if keep else self.analysis
        narrowed = {name: self.options[name] for name in ("ignore", "only", "heads") if name in self.options}
        groups, _ = select(current.groups, **narrowed)
        chosen = {name: self.options[name] for name in ("criterion", "reduction", "normalize", "seed", "calibration")
                  if name in self.options}  # fmt: skip
        found = score_groups(current, groups, **chosen)
        dense = named(self.analysis)
        every = [each for each in found.values() if len(each)]
        lowest = min((float(each.min()) for each in every), default=0.0)
        largest = max((float(np.abs(each).max()) for each in every), default=1.0)
        for name, group in named(current).items():
            if group.dim not in found or name not in dense:
                continue  # it has the scores of the step before
            kept = keep.get(dense[name].dim, np.arange(dense[name].size))
            if len(kept) == len(found[group.dim]):
                spread = np.full(dense[name].size, min(lowest, 0.0) - 1e-6 * largest - 1e-30)
                spread[kept] = found[group.dim]
                self.scores[dense[name].dim] = spread

    def _current(self, keep: Mapping[Dim, Array]) -> Analysis:
        """The network without what is gone, refitted."""
        from graphprune.analysis import analyze_program
        from graphprune.dialects import tools_of
        from graphprune.recover.run import cut

        calibration: Calibration | None = self.options.get("calibration")
        model = cut(self.analysis, dict(keep), self.refit, calibration, self.options.get("seed", 0))
        return analyze_program(tools_of(model).read(model, self.analysis.program.rules))
