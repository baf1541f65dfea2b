"""A plan: what is kept of every group, named so that it survives a reload, a retraining and another framework.

Deciding never touches a weight, applying never decides: a plan is all that passes between them. It is immutable, prints
itself, and is written as JSON that can be read, edited by hand and applied again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from graphprune.allocate import RANKINGS
from graphprune.allocate.budget import Allocation, Limits, allocate, allowed_widths
from graphprune.analysis import Analysis, Group
from graphprune.cost import Costing
from graphprune.criteria import CRITERIA
from graphprune.criteria.transfer import NORMALIZATIONS, REDUCTIONS, group_scores
from graphprune.dims import Dim
from graphprune.errors import BudgetNotMet, GraphPruneError, did_you_mean
from graphprune.output import write_text
from graphprune.patterns import matching
from graphprune.program import Array

SCHEMA, VERSION = "graphprune.plan", 1
HEADS = {"both": (), "count": ("head width",), "width": ("head",)}


@dataclass(frozen=True)
class Cut:
    """What is kept of one group of ``size`` entries: their numbers, in ascending order."""

    group: str
    size: int
    keep: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.group}: {self.size} -> {len(self.keep)}"


@dataclass(frozen=True)
class Plan:
    """Cuts by group, with what they were decided from. Groups that are not named are kept whole."""

    cuts: tuple[Cut, ...]
    model: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    reached: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return "\n".join(map(str, self.cuts)) or "nothing is cut"

    @classmethod
    def empty(cls, analysis: Analysis) -> Plan:
        """The plan that keeps everything."""
        return cls((), fingerprint(analysis))

    @classmethod
    def of(cls, analysis: Analysis, keep: Mapping[Dim, Array], **told: Any) -> Plan:
        """The plan that keeps these entries; groups kept whole are left out."""
        cuts = [
            Cut(group.name, group.size, tuple(int(k) for k in keep[group.dim]))
            for group in analysis.groups
            if group.dim in keep and len(keep[group.dim]) < group.size
        ]
        return cls(tuple(cuts), fingerprint(analysis), **told)

    def keep(self, analysis: Analysis) -> dict[Dim, Array]:
        """The keep-set for a model. Raises ``GP501`` where a group is missing or of another size."""
        groups = {group.name: group for group in analysis.groups}
        found: dict[Dim, Array] = {}
        for cut in self.cuts:
            group = groups.get(cut.group)
            if group is None:
                remedy = did_you_mean(cut.group, groups)
                raise GraphPruneError("GP501", "the model has no such group", cut.group, remedy)
            if group.size != cut.size:
                what = f"the group has {group.size} entries, the plan was made for {cut.size}"
                raise GraphPruneError("GP501", what, cut.group)
            found[group.dim] = np.array(cut.keep, np.int64)
        return found

    def to_json(self) -> str:
        """The plan as text; the same plan gives the same bytes."""
        content = {
            "schema": SCHEMA,
            "version": VERSION,
            "model": self.model,
            "options": dict(self.options),
            "reached": dict(self.reached),
            "groups": [{"group": c.group, "size": c.size, "keep": ranges(c.keep)} for c in self.cuts],
        }
        return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read a plan. Raises ``GP502`` where it is not one, ``GP503`` where it is of a newer version."""
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise GraphPruneError("GP502", f"it is not JSON: {error}") from error
        if not isinstance(content, dict) or content.get("schema") != SCHEMA:
            raise GraphPruneError("GP502", f'it does not say "schema": "{SCHEMA}"')
        version = content.get("version")
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            raise GraphPruneError("GP502", f"its version is {version!r}")
        if version > VERSION:
            raise GraphPruneError("GP503", f"it is of version {version}; this graphprune reads up to {VERSION}")
        groups, told = content.get("groups"), {k: content.get(k, {}) for k in ("options", "reached")}
        if not isinstance(groups, list) or not all(isinstance(each, dict) for each in told.values()):
            raise GraphPruneError("GP502", "its groups are not a list, or its options not a table")
        cuts = tuple(_cut(group, place) for place, group in enumerate(groups))
        if len({cut.group for cut in cuts}) < len(cuts):
            raise GraphPruneError("GP502", "it names a group twice")
        return cls(cuts, str(content.get("model", "")), **told)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the plan, whole or not at all. Raises ``GP105``."""
        write_text(path, self.to_json())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Plan:
        """Read a plan from a file. Raises ``GP101``, ``GP502`` or ``GP503``."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise GraphPruneError("GP101", f"cannot read: {error.strerror or error}", os.fspath(path)) from error
        except UnicodeDecodeError as error:
            raise GraphPruneError("GP502", "it is not text", os.fspath(path)) from error
        try:
            return cls.from_json(text)
        except GraphPruneError as error:
            raise GraphPruneError(error.code, error.what, error.where or os.fspath(path), error.remedy) from error


def _cut(group: Any, place: int) -> Cut:
    where = f"group {place}"
    if not isinstance(group, dict) or not isinstance(group.get("group"), str):
        raise GraphPruneError("GP502", "it has no name", where)
    name, size, keep = group["group"], group.get("size"), group.get("keep")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 < size < 2**31:
        raise GraphPruneError("GP502", f"its size is {size!r}", name)
    numbers = listed(keep, size) if isinstance(keep, str) else keep
    if not isinstance(numbers, list) or not all(isinstance(k, int) and not isinstance(k, bool) for k in numbers):
        raise GraphPruneError("GP502", 'what it keeps is neither ranges like "0-7 9" nor a list of numbers', name)
    if not numbers or numbers != sorted(set(numbers)) or numbers[0] < 0 or numbers[-1] >= size:
        raise GraphPruneError("GP502", f"what it keeps is not ascending numbers from 0 to {size - 1}", name)
    return Cut(name, size, tuple(numbers))


def ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers as text.

    >>> ranges([0, 1, 2, 5, 7, 8])
    '0-2 5 7-8'
    """
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][-1] + 1:
            found[-1][-1] = number
        else:
            found.append([number, number])
    return " ".join(str(a) if a == b else f"{a}-{b}" for a, b in found)


def listed(text: str, size: int) -> list[int] | None:
    """The numbers that :func:`ranges` wrote, ``None`` where the text is something else.

    >>> listed("0-2 5", 8)
    [0, 1, 2, 5]
    """
    found: list[int] = []
    for part in text.split():
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or len(part) > 24:
            return None
        start, stop = int(first), int(last or first)
        if not start <= stop < size:
            return None
        found.extend(range(start, stop + 1))
    return found


def fingerprint(analysis: Analysis) -> str:
    """A digest of the structure of a model: its groups and what they run through, not its weights."""
    digest = hashlib.sha256()
    for group in analysis.groups:
        digest.update(f"{group.name}:{group.size}:{','.join(m.name for m in group.members)}\n".encode())
    return digest.hexdigest()[:16]


def make_plan(
    analysis: Analysis,
    *,
    macs: float | None = None,
    params: float | None = None,
    bytes: float | None = None,
    ratio: float | None = None,
    criterion: str = "l2",
    reduction: str = "mean",
    normalize: str = "mean",
    ranking: str = "global",
    max_ratio: float = 0.9,
    min_width: int = 1,
    align: int | str = 1,
    ignore: Sequence[str] = (),
    only: Sequence[str] = (),
    heads: str = "both",
    seed: int = 0,
    sizes: Mapping[str, int] | None = None,
) -> Plan:
    """Decide what to keep; see :func:`graphprune.api.plan` for the options. Raises ``GP106``, ``GP107``, ``GP302``, and
    :class:`BudgetNotMet` with what stands in the way."""
    options = {name: value for name, value in locals().items() if name != "analysis"}
    _check(options)
    budgets = {n: v for n, v in (("macs", macs), ("parameters", params), ("bytes", bytes)) if v is not None}
    if not budgets and ratio is None:
        raise GraphPruneError("GP107", "no budget is given", remedy="give one, such as macs=0.6 (--macs 0.6)")
    groups = _chosen(analysis, ignore, only, heads)
    if not groups:
        raise BudgetNotMet("GP302", "no group is left to prune", _standing_in_the_way(analysis), _hint(analysis))
    scores = group_scores(
        analysis, groups, CRITERIA.load(criterion)(), reduction=reduction, normalize=normalize, seed=seed
    )
    ordered = [scores[group.dim] for group in groups]
    widths = allowed_widths(analysis, groups, Limits(max_ratio, min_width, align))
    keys = RANKINGS[ranking](groups, ordered)
    costing = Costing(analysis, sizes)
    result = allocate(costing, groups, keys, widths, budgets, ratio)
    if not result.met:
        raise _not_met(analysis, result, budgets)
    keep = {g.dim: _strongest(scores[g.dim], result.widths[g.dim]) for g in groups}
    told = {k: list(v) if isinstance(v, tuple) else v for k, v in options.items() if v not in (None, (), [], {})}
    costs = {name: (getattr(costing, name)(result.widths), getattr(costing, name)({})) for name in _COSTS}
    reached = {name: round(planned / max(1, dense), 6) for name, (planned, dense) in costs.items()}
    return Plan.of(analysis, keep, options=told, reached=reached)


_COSTS = ("macs", "parameters", "bytes")


def _strongest(scores: Array, width: int) -> Array:
    """The entries with the highest scores in ascending order; among equals the first stay."""
    return np.sort(np.lexsort((np.arange(len(scores)), -scores))[:width])


def _chosen(analysis: Analysis, ignore: Sequence[str], only: Sequence[str], heads: str) -> list[Group]:
    groups = [group for group in analysis.groups if group.kind not in HEADS[heads]]
    if only:
        wanted = matching(analysis, only)
        groups = [group for group in groups if group in wanted]
    unwanted = matching(analysis, ignore) if ignore else set()
    return [group for group in groups if group not in unwanted]


def _check(options: Mapping[str, Any]) -> None:
    for name in ("macs", "params", "bytes", "ratio", "max_ratio"):
        value = options[name]
        if value is None:
            continue
        number = isinstance(value, int | float) and not isinstance(value, bool)
        least_ok = number and (value >= 0 if name in {"ratio", "max_ratio"} else value > 0)
        if not least_ok or not value <= 1:
            hint = f"write {value / 100:g}" if number and 1 < value <= 100 else "0.6 means 60 %"
            raise GraphPruneError("GP107", f"{name} is {value!r}, not a fraction between 0 and 1", remedy=hint)
    known: dict[str, Sequence[str]] = {
        "reduction": list(REDUCTIONS),
        "normalize": list(NORMALIZATIONS),
        "ranking": list(RANKINGS),
        "heads": list(HEADS),
        "criterion": CRITERIA.names(),
    }
    for name, names in known.items():
        if options[name] not in names:
            what = f"{name} is {options[name]!r}, which there is not"
            raise GraphPruneError("GP106", what, remedy=did_you_mean(str(options[name]), names))
    for name in ("min_width", "align"):
        value = options[name]
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        if not whole and not (name == "align" and value == "auto"):
            raise GraphPruneError("GP107", f"{name} is {value!r}, not a whole number from 1 on")
    if options["ratio"] is not None and any(options[name] is not None for name in ("macs", "params", "bytes")):
        raise GraphPruneError("GP107", "ratio is given together with a budget", remedy="give one or the other")


def _hint(analysis: Analysis) -> str:
    if analysis.groups:
        return "ignore, only and heads leave nothing; loosen them"
    codes = sorted({refusal.code for refusal in analysis.refusals})
    return f"see `graphprune inspect` for why every dimension stays ({', '.join(codes) or 'no weights were found'})"


def _not_met(analysis: Analysis, result: Allocation, budgets: Mapping[str, float]) -> BudgetNotMet:
    over = [name for name in budgets if result.reached[name] > budgets[name]]
    missed = [f"{name} {result.reached[name]:.1%} where {budgets[name]:.1%} is wanted" for name in over]
    what = f"the least that can be reached is {', '.join(missed)}"
    return BudgetNotMet("GP301", what, _standing_in_the_way(analysis))


def _standing_in_the_way(analysis: Analysis) -> str:
    """The reasons that keep most axes of weights as they are, with the first tensors of each."""
    reasons: dict[str, list[str]] = {}
    for refusal in analysis.refusals:
        reasons.setdefault(f"{refusal.code} {refusal.where}", []).append(f"{refusal.tensor}:{refusal.axis}")
    worst = sorted(reasons.items(), key=lambda item: -len(item[1]))[:4]
    return "; ".join(f"{why} keeps {', '.join(names[:2])}{' ...' if len(names) > 2 else ''}" for why, names in worst)
