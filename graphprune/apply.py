"""Applying: a new model without what a keep-set does not keep. Decides nothing; the dialect writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphprune.dialects import tools_of

if TYPE_CHECKING:
    from graphprune.analysis import Analysis
    from graphprune.dims import Keep
    from graphprune.plan import Plan


def apply_keep(analysis: Analysis, keep: Keep) -> Any:
    """A copy of the analysed model in which every dimension of ``keep`` has only the kept entries, in their order."""
    return tools_of(analysis.program.native).write(analysis, keep)


def apply_plan(analysis: Analysis, plan: Plan) -> Any:
    """A copy of the analysed model, cut as a plan says, and then without the blocks that it leaves out.

    Raises GraphPruneError GP501 where the plan was made for another architecture.
    """
    from graphprune.depth.apply import without_blocks

    return without_blocks(apply_keep(analysis, plan.keep(analysis)), plan.blocks, analysis.program.rules)
