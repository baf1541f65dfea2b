"""How far each group may be cut: the widths it may have, by ratio, minimum and alignment, and what is left alone."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from graphprune.analysis import Analysis, Group
from graphprune.dims import Axis, Dim, Prod, Sum, find, is_free
from graphprune.errors import GraphPruneError, did_you_mean

Align = int | Literal["auto"]

HEADS = {"both": {"head", "head width"}, "count": {"head"}, "width": {"head width"}}
"""Of the groups of attention: which kinds may be cut."""


@dataclass(frozen=True)
class Bound:
    """The widths of one group: multiples of ``step`` from ``least`` on, and its full size."""

    least: int
    step: int

    def width(self, size: int, removed: int) -> int:
        """The width after the removal of at most ``removed`` of ``size`` entries.

        >>> [Bound(4, 4).width(14, removed) for removed in (0, 1, 2, 5, 13)]
        [14, 14, 12, 12, 4]
        """
        if removed <= 0:
            return size
        width = -(-(size - removed) // self.step) * self.step
        return min(size, max(width, self.least))

    def below(self, width: int) -> int:
        """The next smaller width, or the same where there is none.

        >>> [Bound(4, 4).below(width) for width in (14, 12, 8, 4)]
        [12, 8, 4, 4]
        """
        lower = (width - 1) // self.step * self.step
        return lower if lower >= self.least else width

    def allows(self, size: int, width: int) -> bool:
        """Whether a group of this size may have this width."""
        return width == size or (self.least <= width < size and width % self.step == 0)


@dataclass(frozen=True)
class Left:
    """What is not cut: a group, by which code, and why."""

    name: str
    code: str
    reason: str


def select(
    groups: Sequence[Group], *, ignore: Sequence[str] = (), only: Sequence[str] = (), heads: str = "both"
) -> tuple[list[Group], list[Left]]:
    """The groups that may be cut, and the others with the reason.

    Patterns are matched as by :mod:`fnmatch` against the name of a group and the names of all tensors in it. Raises
    GraphPruneError GP106 for a pattern that matches nothing: a misspelt name must not be pruned.
    """
    if heads not in HEADS:
        raise GraphPruneError("GP106", f"heads cannot be {heads!r}", "option heads", did_you_mean(heads, HEADS))
    names = [{group.name, *(m.tensor for m in group.members), *(m.name for m in group.members)} for group in groups]
    for option, patterns in (("ignore", ignore), ("only", only)):
        for pattern in patterns:
            if not any(_matches(names_of, [pattern]) for names_of in names):
                known = {group.name for group in groups} | {m.tensor for group in groups for m in group.members}
                remedy = _closest(pattern, known)
                raise GraphPruneError(
                    "GP106", f"nothing that can be pruned matches {pattern!r}", f"option {option}", remedy
                )
    chosen, left = [], []
    for group, names_of in zip(groups, names, strict=True):
        if _matches(names_of, ignore):
            left.append(Left(group.name, "GP211", "ignored"))
        elif only and not _matches(names_of, only):
            left.append(Left(group.name, "GP211", "not among those to be pruned only"))
        elif group.kind in HEADS["both"] and group.kind not in HEADS[heads]:
            left.append(Left(group.name, "GP211", f"of attention heads only the {heads} is pruned"))
        else:
            chosen.append(group)
    return chosen, left


def _closest(pattern: str, known: Collection[str]) -> str:
    # All names of a large model would not help: one that is close does.
    text = did_you_mean(pattern, known)
    return text.split(" known:")[0] if text.startswith("did you mean") else "graphprune inspect lists the groups"


def _matches(names: Collection[str], patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) or name == pattern for pattern in patterns for name in names)


def bounds(
    analysis: Analysis, groups: Sequence[Group], *, max_ratio: float = 0.9, min_width: int = 1, align: Align = 1
) -> dict[Dim, Bound]:
    """The bound of every group. One that may not be cut at all has ``least`` equal to its size.

    align: kept widths are multiples of this. ``auto`` takes 8 for axes of 64 and more, 4 for axes of 16 and more,
    else 1: vector units hold 4 to 16 numbers, and in a small axis rounding costs more channels than full vectors save.
    Parts of a concatenation are axes of their own, but for the 4: one odd part would make the whole odd.
    """
    steps = _steps(analysis, {group.dim for group in groups}, align)
    found = {}
    for group in groups:
        step = steps.get(group.dim, 1)
        # A ratio of 0.9 of 10 entries is 9 of them: the product of floats must not make it 8.
        least = max(min_width, 1, group.size - math.floor(group.size * max_ratio + 1e-9))
        least = -(-least // step) * step
        found[group.dim] = Bound(min(group.size, least), step)
    return found


def _steps(analysis: Analysis, free: set[Dim], align: Align) -> dict[Dim, int]:
    """What the width of each dimension must be a multiple of, so that every stored axis that is cut is aligned: each
    part of a concatenation is; and so that operators get the multiples that they take. What keeps its full size keeps
    the alignment that it had.

    In a product one factor carries the requirement, the largest that may be cut, reduced by what the fixed factors
    bring: of 12 heads * 64 features, 8 | width is enough, and the number of heads is free.
    """
    steps: dict[Dim, int] = {}
    wanted: list[tuple[Axis, Align]] = [*analysis.trace.multiples]
    if align != 1:
        wanted += [(axis, align) for _, _, _, axes in analysis.stored_axes() for axis in axes]
    for axis, multiple in wanted:
        parts = products(axis) if is_free(axis) else []
        whole = sum(math.prod(map(_known, factors)) for factors in parts)
        for factors in parts:
            _require(factors, free, multiple, whole, steps)
    return steps


def products(axis: Axis) -> list[list[Dim]]:
    """The products that an axis is a sum of, each as its factors."""
    axis = find(axis)
    if isinstance(axis, Dim):
        return [[axis]]
    if isinstance(axis, Sum):
        return [product for part in axis.parts for product in products(part)]
    found: list[list[Dim]] = [[]]
    for part in axis.parts if isinstance(axis, Prod) else ():
        found = [[*left, *right] for left in found for right in products(part)]
    return found


def _require(factors: list[Dim], free: set[Dim], align: Align, whole: int, steps: dict[Dim, int]) -> None:
    """One product of an axis whose size is ``whole``."""
    moving = [dim for dim in factors if dim in free]
    if not moving:
        return
    fixed = math.prod(_known(dim) for dim in factors if dim not in free)
    full = fixed * math.prod(map(_known, moving))
    wanted = (8 if full >= 64 else 4 if whole >= 16 else 1) if align == "auto" else align
    wanted = min(wanted, full)  # smaller than the alignment: left uncut
    step = wanted // math.gcd(wanted, fixed)
    # A factor that is not aligned at its full size would undo the alignment where it stays whole.
    carrier = max(moving, key=lambda dim: (_known(dim) % step == 0, _known(dim)))
    steps[carrier] = math.lcm(steps.get(carrier, 1), step)


def _known(dim: Dim) -> int:
    assert isinstance(dim.size, int), "stored axes have sizes"
    return dim.size
