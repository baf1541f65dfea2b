"""The model without some residual blocks, and the dense one in which their branches add nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from graphprune.analysis import analyze_program
from graphprune.depth.residual import Residual, residuals
from graphprune.dialects import tools_of
from graphprune.errors import GraphPruneError, did_you_mean

if TYPE_CHECKING:
    from graphprune.plan import Plan
    from graphprune.report import Report

Rules = Mapping[str, str] | None


def without_blocks(model: Any, names: Sequence[str], rules: Rules = None) -> Any:
    """A copy of a model in which these blocks are what goes into them; the same model where there are none.

    rules: rows in axis notation that the model was analysed with
    Raises GraphPruneError GP501 where the model has no such block.
    """
    return tools_of(model).without(*_found(model, names, rules)) if names else model


def with_silent_blocks(model: Any, names: Sequence[str], rules: Rules = None) -> Any:
    """A copy of a model in which the branches of these blocks are computed, and add zeros: what :func:`without_blocks`
    is held against. The same model where there are none. Raises GraphPruneError GP501."""
    return tools_of(model).silenced(*_found(model, names, rules)) if names else model


def _found(model: Any, names: Sequence[str], rules: Rules) -> tuple[Any, list[Residual]]:
    analysis = analyze_program(tools_of(model).read(model, rules))
    known = {each.name: each for each in residuals(analysis)}
    for name in names:
        if name not in known:
            what = f"the model has no residual block {name!r} that could be left out"
            raise GraphPruneError("GP501", what, "the plan", did_you_mean(name, known))
    return analysis, [known[name] for name in names]


def reported(report: Report, plan: Plan, small: Any, sizes: Mapping[str, int] | None = None) -> Report:
    """The report of a cut with what leaving out blocks saves; as it is where there are none."""
    from graphprune.cost import measure

    if not plan.blocks:
        return report
    analysis = analyze_program(tools_of(small).read(small))
    return report.with_(blocks=plan.blocks, pruned=measure(analysis, {}, sizes or {}, count_nonzeros=True))
