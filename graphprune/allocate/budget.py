"""The first of a family of nested cuts that meets the budget, on exact costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import gcd

import numpy as np

from graphprune.analysis import Analysis, Group
from graphprune.cost import Costing
from graphprune.dims import Dim, Prod, find, leaves
from graphprune.program import Array
from graphprune.sizes import Extent

# What "auto" rounds to: vector lanes of 8 floats where a dimension has room for several vectors, 4 where for a few.
_AUTO = ((64, 8), (16, 4))


@dataclass(frozen=True)
class Limits:
    """How far each group may be cut: at most ``max_ratio`` of it, to no less than ``min_width`` entries, to widths
    whose products in every tensor are multiples of ``align``."""

    max_ratio: float = 0.9
    min_width: int = 1
    align: int | str = 1


def allowed_widths(analysis: Analysis, groups: Sequence[Group], limits: Limits) -> list[Array]:
    """For each group the widths it may be cut to, ascending; its full size is always the last."""
    beside = _factors_beside(analysis)
    found = []
    for group in groups:
        least = max(limits.min_width, group.size - int(np.floor(limits.max_ratio * group.size + 1e-9)), 1)
        step = _step(group.size, limits.align, beside.get(group.dim, []))
        widths = [w for w in range(min(least, group.size), group.size) if w % step == 0]
        found.append(np.array([*widths, group.size]))
    return found


def _factors_beside(analysis: Analysis) -> dict[Dim, list[int]]:
    """For each dimension, by how much its width is multiplied in each stored axis."""
    found: dict[Dim, list[int]] = {}
    for _, _, _, axes in analysis.stored_axes():
        for axis in map(find, axes):
            for dim in set(leaves(axis)):
                if dim.pin is not None:
                    continue
                others = [p.size for p in axis.parts if p is not dim] if isinstance(axis, Prod) else []
                found.setdefault(dim, []).append(_whole(others))
    return found


def _whole(sizes: Sequence[Extent]) -> int:
    total = 1
    for size in sizes:
        total *= size if isinstance(size, int) else 1
    return total


def _step(size: int, align: int | str, beside: Sequence[int]) -> int:
    wanted = next((step for least, step in _AUTO if size >= least), 1) if align == "auto" else int(align)
    if size < wanted:
        wanted = 1
    step = 1
    for factor in beside or [1]:
        each = wanted // gcd(wanted, factor)
        step = step * each // gcd(step, each)
    return step if step <= size else size


@dataclass(frozen=True)
class Allocation:
    """How wide each group is left; ``met`` says whether all budgets are, ``reached`` what share of each is needed."""

    widths: dict[Dim, int]
    met: bool
    reached: dict[str, float]


def allocate(
    costing: Costing,
    groups: Sequence[Group],
    keys: Sequence[Array],
    widths: Sequence[Array],
    budgets: Mapping[str, float],
    ratio: float | None,
) -> Allocation:
    """Remove entries in the order of their keys until every budget is met: the shortest prefix, found by bisection on
    the cost of the whole model, so that what a cut changes around it counts; then widen groups again where all budgets
    still hold. ``budgets`` are shares of the dense macs, parameters or bytes; ``ratio`` is the share of all entries to
    remove instead."""
    order = _order(keys, widths)
    dense = {name: max(1, getattr(costing, name)({})) for name in budgets}

    def at(prefix: int) -> dict[Dim, int]:
        removed = np.bincount(order[:prefix], minlength=len(groups))
        return {
            group.dim: _rounded(group.size - int(gone), each)
            for group, gone, each in zip(groups, removed, widths, strict=True)
        }

    def shares(candidate: dict[Dim, int]) -> dict[str, float]:
        return {name: getattr(costing, name)(candidate) / dense[name] for name in budgets}

    def fits(candidate: dict[Dim, int]) -> bool:
        return all(share <= budgets[name] + 1e-12 for name, share in shares(candidate).items())

    if ratio is not None:
        wanted = min(len(order), round(ratio * sum(group.size for group in groups)))
    elif not fits(at(len(order))):
        tightest = at(len(order))
        return Allocation(tightest, False, shares(tightest))
    else:
        low, wanted = 0, len(order)
        while low < wanted:
            middle = (low + wanted) // 2
            low, wanted = (low, middle) if fits(at(middle)) else (middle + 1, wanted)
    chosen = at(wanted)
    if ratio is None or budgets:
        _widen(chosen, groups, widths, order[:wanted], fits)
    return Allocation(chosen, fits(chosen), shares(chosen))


def _order(keys: Sequence[Array], widths: Sequence[Array]) -> Array:
    """Group numbers in the order in which entries go; each group only down to its least width."""
    events = []
    for place, (key, each) in enumerate(zip(keys, widths, strict=True)):
        lowest = np.sort(key, kind="stable")[: len(key) - int(each[0])]
        events.append(np.stack([lowest, np.full(len(lowest), place), np.arange(len(lowest))]))
    if not events:
        return np.empty(0, np.int64)
    key, group, rank = np.concatenate(events, axis=1)
    order: Array = group[np.lexsort((rank, group, key))].astype(np.int64)
    return order


def _rounded(width: int, allowed: Array) -> int:
    """The least allowed width that is not below the wanted one."""
    return int(allowed[np.searchsorted(allowed, width)])


def _widen(
    chosen: dict[Dim, int],
    groups: Sequence[Group],
    widths: Sequence[Array],
    order: Array,
    fits: Callable[[dict[Dim, int]], bool],
) -> None:
    """Give entries back, last removed first, as long as the budgets hold."""
    for place in dict.fromkeys(int(k) for k in order[::-1]):
        dim, allowed = groups[place].dim, widths[place]
        at = int(np.searchsorted(allowed, chosen[dim]))
        while at + 1 < len(allowed):
            narrower, chosen[dim] = chosen[dim], int(allowed[at + 1])
            if not fits(chosen):
                chosen[dim] = narrower
                break
            at += 1
