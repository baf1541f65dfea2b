"""What each group is worth alone: a part of it is removed, nothing else, and the outputs are compared.

>>> from graphprune.sensitivity import sensitivity                                  # doctest: +SKIP
>>> for row in sensitivity(dense, calibration=data): print(row.group, row.errors)   # doctest: +SKIP
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphprune import api
from graphprune.allocate.bounds import select
from graphprune.analysis import Analysis, Group
from graphprune.apply import apply_keep
from graphprune.cost import Costing
from graphprune.criteria.transfer import score_groups
from graphprune.errors import GraphPruneError
from graphprune.fidelity import Fidelity
from graphprune.plan import named
from graphprune.program import Array

SHARES = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class Sensitivity:
    """One group.

    errors: the relative mean squared error of the outputs for each share of the group that is removed; nan where it is
            too small to lose as much
    saved:  the share of all multiply-accumulates of the model that this saves
    """

    group: str
    size: int
    kind: str
    errors: Mapping[float, float]
    saved: Mapping[float, float]


def sensitivity(
    model: Any,
    example_inputs: Any = None,
    *,
    calibration: Any,
    criterion: Any = "l2",
    shares: Sequence[float] = SHARES,
    reduction: str = "mean",
    ignore: Sequence[str] = (),
    only: Sequence[str] = (),
    heads: str = "both",
    seed: int = 0,
    sizes: Mapping[str, int] | None = None,
    tell: Callable[[str], None] | None = None,
) -> list[Sensitivity]:
    """The groups of a model, the most sensitive first (by the error of the middle share).

    calibration: as for :func:`graphprune.api.plan`; errors are measured on all of it
    criterion:  which entries of a group go first; shares: how many of them, each above 0 and below 1
    tell:       is told about every group
    Raises GraphPruneError: GP106 and GP107 for options, GP302 where there is no group, GP402 where the model cannot be
    run, GP701 to GP704 for data.
    """
    if not shares or not all(0 < share < 1 for share in shares):
        raise GraphPruneError("GP107", f"{list(shares)!r} are not shares between 0 and 1", "option shares")
    analysis = model if isinstance(model, Analysis) else api.analyze(model, example_inputs)
    analysis.program.check_sizes(sizes)
    data = api.calibrated(analysis, calibration, seed, sizes)
    if data is None:
        raise GraphPruneError("GP704", "errors are measured on data, and there is none", "option calibration",
                              "give calibration data, or noise")  # fmt: skip
    groups, _ = select(analysis.groups, ignore=ignore, only=only, heads=heads)
    if not groups:
        raise GraphPruneError("GP302", "no dimension can be pruned", analysis.program.name)
    scores = score_groups(
        analysis, groups, criterion=criterion, reduction=reduction, normalize="none", seed=seed, calibration=data
    )
    fidelity, costing = Fidelity(analysis, data.cases), Costing(analysis, sizes or {})
    names = {group.dim: name for name, group in named(analysis).items()}
    found = []
    scored = [group for group in groups if group.dim in scores]
    for place, group in enumerate(scored, 1):
        found.append(_measured(analysis, group, names[group.dim], scores[group.dim], shares, fidelity, costing))
        if tell is not None:
            tell(f"[{place}/{len(scored)}] {found[-1].group}")
    middle = sorted(shares)[len(shares) // 2]
    return sorted(found, key=lambda each: -_or_zero(each.errors[middle]))


def _measured(
    analysis: Analysis,
    group: Group,
    name: str,
    score: Array,
    shares: Sequence[float],
    fidelity: Fidelity,
    costing: Costing,
) -> Sensitivity:
    order = np.argsort(score, kind="stable")
    errors: dict[float, float] = {}
    saved: dict[float, float] = {}
    known: dict[int, tuple[float, float]] = {0: (math.nan, 0.0)}
    dense = max(1, costing.cost("macs", {}))
    for share in shares:
        count = min(group.size - 1, round(share * group.size))
        if count not in known:
            keep = {group.dim: np.sort(order[count:])}
            error = fidelity.error(fidelity.outputs(apply_keep(analysis, keep)))
            known[count] = (error, 1 - costing.cost("macs", {group.dim: group.size - count}) / dense)
        errors[share], saved[share] = known[count]
    return Sensitivity(name, group.size, group.kind, errors, saved)


def _or_zero(value: float) -> float:
    return 0.0 if math.isnan(value) else value
