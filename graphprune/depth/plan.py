"""A plan that leaves out residual blocks, alone or beside narrower layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from graphprune.analysis import Analysis
from graphprune.cost import LATENCY
from graphprune.criteria.custom import name_of
from graphprune.depth.divide import Competition
from graphprune.errors import GraphPruneError
from graphprune.plan import Plan
from graphprune.steps import BUDGETS, check_share
from graphprune.sweep import split

if TYPE_CHECKING:
    from graphprune.calibrate import Calibration


def depth_plan(
    analysis: Analysis,
    depth: int | str,
    *,
    depth_by: Any = "block_influence",
    depth_unit: int = 1,
    calibration: Calibration | None = None,
    seed: int = 0,
    sizes: Mapping[str, int] | None = None,
    refit: Sequence[str] = (),
    tell: Callable[[str], None] | None = None,
    **others: Any,
) -> Plan:
    """The plan that leaves out so many units of residual blocks, and cuts widths where a budget is given.

    depth:  how many; ``"auto"`` searches for the number of the least error on held-out data
    refit:  recoveries of the network without the blocks, before its widths are cut; for a search also after that
    others: options about widths
    Raises GraphPruneError: GP107 for a search without a budget, and for shares of channels; GP701 and GP704 where data
    is missing; as plans, recoveries and :func:`graphprune.depth.choose.choose` do.
    """
    budgets = {name: others.pop(name) for name in BUDGETS if others.get(name) is not None}
    others = {name: value for name, value in others.items() if name not in BUDGETS}
    _check(depth, budgets, others)
    options = {
        "depth": depth, "depth_by": name_of(depth_by), "depth_unit": depth_unit, "seed": seed,
        "sizes": dict(sizes or {}), "calibration": calibration.source if calibration else None,
    }  # fmt: skip
    asked = {"depth_by": depth_by, "depth_unit": depth_unit}
    shared: dict[str, Any] = {"seed": seed, "sizes": dict(sizes or {})}
    if depth != "auto":
        one = Competition(analysis, budgets, others, refit, calibration, None, asked, **shared)
        made = one.plan(int(depth))
        return replace(made, options={**made.options, **options, **budgets})
    fit, judge = split(_given(calibration))
    found = Competition(analysis, budgets, others, refit, fit, judge, asked, **shared).divided(tell)
    told = {
        "blocks": found.best.blocks,
        "tried": [f"tried: {each}" for each in found.trials],
        "divided": list(found.notes),
    }
    return replace(found.best.plan, options={**found.best.plan.options, **options, **budgets, **told})


def _check(depth: int | str, budgets: Mapping[str, float], others: Mapping[str, Any]) -> None:
    """Raises GraphPruneError GP107."""
    if depth != "auto" and (not isinstance(depth, int) or isinstance(depth, bool) or depth < 1):
        what = f"{depth!r} is neither a whole number from 1 on nor auto"
        raise GraphPruneError("GP107", what, "option depth", "write 2, or auto beside a budget")
    if others.get("ratio") is not None:
        what = "a ratio is a share of channels, and blocks are no channels"
        raise GraphPruneError("GP107", what, "option depth", "give macs, params or bytes")
    if others.get(LATENCY) is not None:
        what = "a table has the times of layers at their widths, and not of a network without some"
        raise GraphPruneError("GP107", what, "option depth", "give macs, params or bytes")
    if not budgets and depth == "auto":
        what = "how many blocks go is searched for within a budget, and there is none"
        raise GraphPruneError("GP107", what, "option depth", "add macs=0.6, params or bytes, or give a number")
    if not budgets and others.get("steps", 1) != 1:
        what = "steps cut widths, and no budget was given beside depth"
        raise GraphPruneError("GP107", what, "option steps", "leave it out, or add macs=0.6")
    for name, share in budgets.items():
        check_share(share, name)


def _given(calibration: Calibration | None) -> Calibration:
    if calibration is None:
        what = "how many blocks go is measured on data, and there is none"
        raise GraphPruneError("GP704", what, "option depth", "give calibration data, or a number of blocks")
    return calibration
