"""Which residual blocks go: those that change least what goes through them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from graphprune.analysis import Analysis
from graphprune.calibrate import Calibration
from graphprune.criteria import BlockCriterion, GroupCriterion
from graphprune.criteria.custom import criterion_of, name_of
from graphprune.depth.residual import Residual, features, residuals
from graphprune.dialects import tools_of
from graphprune.dims import find
from graphprune.errors import BudgetNotMet, GraphPruneError
from graphprune.program import Array, Value

Run = tuple[Residual, ...]
"""Blocks in a row: what comes out of one goes into the next."""


@dataclass(frozen=True)
class Chosen:
    """What goes.

    blocks: in running order
    scores: of the runs that went, by the names of their blocks
    """

    blocks: tuple[Residual, ...]
    scores: Mapping[str, float] = field(default_factory=dict)


def choose(
    analysis: Analysis,
    depth: int,
    *,
    depth_by: Any = "block_influence",
    depth_unit: int = 1,
    calibration: Calibration | None = None,
    seed: int = 0,
    known: dict[tuple[str, ...], float] | None = None,
) -> Chosen:
    """Choose what to leave out.

    depth:      how many units
    depth_by:   a criterion of blocks, or ``random``
    depth_unit: consecutive blocks that go together: 2 for the layers of a transformer, of attention and feed-forward
    known:      scores from an earlier call with the same options, by the names of blocks; it gets those that are new
    Raises GraphPruneError: GP106 and GP107 for options, GP704 without data, GP701 to GP703 for the data; BudgetNotMet
    GP302 where there is no block, GP301 where there are fewer.
    """
    for option, value in (("depth", depth), ("depth_unit", depth_unit)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise GraphPruneError("GP107", f"{value!r} is not a whole number from 1 on", f"option {option}")
    criterion = criterion_of(depth_by)
    if not isinstance(criterion, BlockCriterion | GroupCriterion):
        what = f"the criterion {name_of(depth_by)} does not score residual blocks"
        raise GraphPruneError("GP704", what, "option depth_by", "choose block_influence, angular or random")
    found = residuals(analysis)
    if not found:
        what = "there is no residual block that could be left out"
        raise BudgetNotMet("GP302", what, analysis.program.name, "graphprune inspect lists the blocks that there are")
    consecutive = isinstance(criterion, BlockCriterion) and criterion.consecutive
    runs = _runs(analysis, found, depth_unit * depth if consecutive else depth_unit, depth_unit)
    if known is None:
        known = {}
    fresh = [run for run in runs if _names(run) not in known]
    if fresh:
        known.update(zip(map(_names, fresh), _scores(analysis, fresh, criterion, calibration, seed), strict=True))
    scores = [known[_names(run)] for run in runs]
    chosen = _lowest(runs, scores, 1 if consecutive else depth)
    if len(chosen) < (1 if consecutive else depth):
        row = " in a row" if consecutive or depth_unit > 1 else ""
        what = f"{depth * depth_unit} residual blocks{row} are to go, and there are {len(found)} in all"
        raise BudgetNotMet("GP301", what, analysis.program.name, "ask for fewer")
    kept = {each for place in chosen for each in runs[place]}
    told = {" ".join(each.name for each in runs[place]): scores[place] for place in chosen}
    return Chosen(tuple(each for each in found if each in kept), told)


def _names(run: Run) -> tuple[str, ...]:
    return tuple(each.name for each in run)


def _lowest(runs: Sequence[Run], scores: Sequence[float], count: int) -> list[int]:
    """The runs of the lowest scores that have nothing in common; of equal ones the first."""
    gone: set[object] = set()
    chosen: list[int] = []
    for place in sorted(range(len(runs)), key=lambda each: scores[each]):
        nodes = {node for block in runs[place] for node in (block.node, *block.dropped)}
        if len(chosen) < count and not nodes & gone:
            chosen.append(place)
            gone |= nodes
    return chosen


def _runs(analysis: Analysis, found: Sequence[Residual], length: int, unit: int) -> list[Run]:
    """All runs of so many blocks. Those of units begin where a unit does, counted from the first block of a row."""
    after = {block: each for block, each in pairwise(found) if _follows(analysis, block, each)}
    firsts = [block for block in found if block not in after.values()]
    runs = []
    for first in firsts:
        row = [first]
        while row[-1] in after:
            row.append(after[row[-1]])
        runs += [tuple(row[place : place + length]) for place in range(0, len(row) - length + 1, unit)]
    return runs


def _follows(analysis: Analysis, block: Residual, other: Residual) -> bool:
    """Whether a block begins with what comes out of another, of the same shape, entry by entry functions between them
    or none; then the vectors before the one and after the other can be compared."""
    types = analysis.trace.types
    shapes = [[find(axis).size for axis in types[value].axes or []] for value in (block.after, other.after)]
    weighted = {each.node for each in analysis.contractions}
    pending, seen = [other.before], set[Value]()
    while pending:
        value = pending.pop()
        if value is block.after:
            return shapes[0] == shapes[1]
        if value in seen or value.producer is None or value.producer in weighted:
            continue
        seen.add(value)
        pending += [each for each in value.producer.inputs if each is not None]
    return False


def _scores(
    analysis: Analysis, runs: Sequence[Run], criterion: Any, calibration: Calibration | None, seed: int
) -> list[float]:
    if isinstance(criterion, GroupCriterion):
        drawn: list[float] = criterion.group("residual blocks", len(runs), seed).tolist()
        return drawn
    if calibration is None:
        what = f"the criterion {criterion.name} needs calibration data"
        raise GraphPruneError("GP704", what, "option depth_by", "give calibration data")
    ends = dict.fromkeys(value for run in runs for value in (run[0].before, run[-1].after))
    staged = tools_of(analysis.program.native).staged(analysis.program, [], list(ends))
    totals, counts, cases = np.zeros(len(runs)), np.zeros(len(runs)), 0
    for cases, case in enumerate(calibration.cases, 1):
        state = staged.begin(case)
        staged.step(state)
        for place, run in enumerate(runs):
            axes = features(run[-1], analysis)
            before, after = (_rows(staged.read(state, each), axes) for each in (run[0].before, run[-1].after))
            if not (np.isfinite(before).all() and np.isfinite(after).all()):
                what = f"batch {cases} of the calibration data makes activations that are not finite"
                raise GraphPruneError("GP703", what, run[-1].name)
            distances = criterion.distance(before, after)
            totals[place] += distances.sum(dtype=np.float64)
            counts[place] += len(distances)
    if not cases:
        raise GraphPruneError("GP701", "there is not one batch of calibration data")
    means: list[float] = (totals / np.maximum(1, counts)).tolist()
    return means


def _rows(array: Array, axes: Sequence[int]) -> Array:
    """``[vectors, features]`` of a value."""
    rest = [place for place in range(array.ndim) if place not in axes]
    moved = array.transpose([*rest, *axes])
    size = int(np.prod([array.shape[axis] for axis in axes], dtype=np.int64))
    return moved.reshape(-1, size)
