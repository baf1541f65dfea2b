"""A plan that leaves out residual blocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from graphprune.analysis import Analysis, analyze_program
from graphprune.cost import MEASURES, Costing
from graphprune.criteria.custom import name_of
from graphprune.depth.apply import without_blocks
from graphprune.depth.choose import choose
from graphprune.dialects import tools_of
from graphprune.errors import GraphPruneError
from graphprune.plan import Plan

if TYPE_CHECKING:
    from graphprune.calibrate import Calibration

_OF_WIDTHS = ("macs", "params", "bytes", "ratio")


def depth_plan(
    analysis: Analysis,
    depth: int,
    *,
    depth_by: Any = "block_influence",
    depth_unit: int = 1,
    calibration: Calibration | None = None,
    seed: int = 0,
    sizes: Mapping[str, int] | None = None,
    **others: Any,
) -> Plan:
    """The plan that leaves out so many units of residual blocks and cuts no width.

    others: options about widths; of these no budget may be given
    Raises GraphPruneError GP107 for a budget beside `depth`, and as :func:`graphprune.depth.choose.choose` does.
    """
    given = [name for name in _OF_WIDTHS if others.get(name) is not None]
    if given or others.get("steps", 1) != 1:
        what = f"blocks are left out and widths are cut in two calls, but {[*given, 'steps'][0]} was given beside depth"
        raise GraphPruneError("GP107", what, "option depth", "prune the result once more")
    chosen = choose(analysis, depth, depth_by=depth_by, depth_unit=depth_unit, calibration=calibration, seed=seed)
    names = tuple(each.name for each in chosen.blocks)
    options = {
        "depth": depth, "depth_by": name_of(depth_by), "depth_unit": depth_unit, "seed": seed,
        "sizes": dict(sizes or {}), "calibration": calibration.source if calibration else None,
        "scores": {name: float(score) for name, score in chosen.scores.items()},
    }  # fmt: skip
    made = replace(Plan.of(analysis, {}, options), blocks=names)
    small = without_blocks(analysis.program.native, names)
    costing = Costing(analyze_program(tools_of(small).read(small)), sizes or {})
    dense = Costing(analysis, sizes or {})
    costs = {
        "dense": {name: dense.cost(name, {}) for name in MEASURES},
        "planned": {name: costing.cost(name, {}) for name in MEASURES},
    }
    return replace(made, costs=costs)
