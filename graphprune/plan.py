"""A plan: what is kept of every group, decided once, printable, editable by hand, and applied as often as wanted.

Deciding never changes a weight; applying never decides. Groups are named by tensor and axis, so that a plan survives a
reload, a retrained checkpoint, or another format of the same network. The same model, options, seed and versions give
the same bytes. Reading and writing of the file format is :mod:`graphprune.plan_text`.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from graphprune.criteria.custom import criterion_of, name_of
from graphprune.errors import BudgetNotMet, GraphPruneError, did_you_mean, one_line

if TYPE_CHECKING:
    from graphprune.allocate.bounds import Bound, Left
    from graphprune.allocate.problem import Problem
    from graphprune.analysis import Analysis, Group
    from graphprune.calibrate import Calibration
    from graphprune.cost import Costing
    from graphprune.dims import Dim
    from graphprune.latency.stopwatch import Stopwatch
    from graphprune.latency.table import Table
    from graphprune.program import Array

SCHEMA = "graphprune.plan"
VERSION = 1

_MOST_NAMED = 4
_LONGEST_NAME = 40


@dataclass(frozen=True)
class Cut:
    """What is kept of one group: sorted indices into its ``size`` entries, at least one."""

    group: str
    size: int
    keep: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """What is kept of every group of a model; a group that is not listed is kept whole.

    blocks:   the residual blocks that are left out after the cut, by the names of their sums
    options:  what the plan was made with
    model:    ``name`` and ``fingerprint`` (of names, shapes and groups, not of weights) of the model it was made for
    versions: of what made it
    costs:    ``dense`` and ``planned``: parameters, bytes and macs; latency (picoseconds) where that was a budget
    left:     what was not cut although it is a weight's axis: ``name``, ``code``, ``reason``
    """

    groups: tuple[Cut, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    costs: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    left: tuple[Mapping[str, str], ...] = ()
    blocks: tuple[str, ...] = ()
    schema: str = SCHEMA
    version: int = VERSION

    @classmethod
    def of(cls, analysis: Analysis, keep: Mapping[Dim, Array], options: Mapping[str, Any] | None = None) -> Plan:
        """The plan that keeps these entries."""
        return _made(analysis, keep, options or {}, {}, ())

    @classmethod
    def empty(cls, analysis: Analysis) -> Plan:
        """The plan that keeps everything."""
        return cls.of(analysis, {})

    def keep(self, analysis: Analysis) -> dict[Dim, Array]:
        """What to keep of each dimension, only of those that lose something (int64, ascending).

        Raises GraphPruneError GP501 where the model has no such group, or one of another size.
        """
        import numpy as np

        known = named(analysis)
        found = {}
        for cut in self.groups:
            if cut.group not in known:
                what = f"the model has no group {cut.group!r} of {cut.size} entries"
                raise GraphPruneError("GP501", what, "the plan", _nearest(cut.group, known))
            group = known[cut.group]
            if group.size != cut.size:
                what = f"group {cut.group!r} has {cut.size} entries in the plan and {group.size} in the model"
                raise GraphPruneError("GP501", what, cut.group)
            if len(cut.keep) < cut.size:
                found[group.dim] = np.asarray(cut.keep, np.int64)
        return found

    def then(self, other: Plan) -> Plan:
        """This plan, and then one that was made for what it leaves, as one plan for the dense model.

        Raises GraphPruneError GP501 where the other was made for something else.
        """
        names = {cut.group: cut for cut in other.groups}
        for cut in self.groups:
            after = names.get(cut.group)
            if after is not None and after.size != len(cut.keep):
                what = (
                    f"group {cut.group!r} has {len(cut.keep)} entries after one plan and {after.size} before the next"
                )
                raise GraphPruneError("GP501", what, "two plans", "make the second one for what the first one leaves")
        both = [
            Cut(cut.group, cut.size, tuple(cut.keep[place] for place in names[cut.group].keep))
            if cut.group in names
            else cut
            for cut in self.groups
        ]
        unknown = names.keys() - {cut.group for cut in self.groups}
        if unknown:
            what = f"the first plan knows no group {min(unknown)!r}"
            raise GraphPruneError("GP501", what, "two plans", "make the second one for what the first one leaves")
        costs = {name: plan.costs[key] for name, plan, key in (("dense", self, "dense"), ("planned", other, "planned"))
                 if key in plan.costs}  # fmt: skip
        blocks = (*self.blocks, *other.blocks)
        return replace(self, groups=tuple(both), options=other.options, costs=costs, left=other.left, blocks=blocks)

    def translated(self, source: Analysis, target: Analysis) -> Plan:
        """The same plan for another form of the network: its ONNX file, say, where the plan was made for the module.

        source: the analysis of what the plan was made for; target: of the other form, both dense and with one weights
        Raises GraphPruneError GP501 where a group that is cut is none of the other form.
        """
        from graphprune.translate import translate

        return translate(self, source, target)

    def transplant(self, optimizer: Any, model: Any, *, source: Any = None) -> None:
        """Let an optimizer of PyTorch go on with a model that this plan pruned: its state loses what parameters lost.

        model:  the pruned module; source: the dense one, where the optimizer holds the parameters of that
        Raises GraphPruneError GP504 where state does not fit; nothing is changed then.
        """
        from graphprune.torch.transplant import plan_transplant

        plan_transplant(self, model, optimizer, source=source)

    def to_json(self) -> str:
        """The plan as text, a line for each group, the same for the same plan."""
        from graphprune.plan_text import write

        return write(self)

    @staticmethod
    def from_json(text: str) -> Plan:
        """Read a plan. Raises GraphPruneError: GP502 where it is not one, GP503 where it is of a newer schema."""
        from graphprune.plan_text import read

        return read(text)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the plan, whole or not at all. Raises GraphPruneError GP105."""
        from graphprune.output import write_text

        write_text(path, self.to_json())

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Plan:
        """Read a plan file. Raises GraphPruneError: GP101 where it cannot be read, else as :meth:`from_json`."""
        from graphprune.plan_text import load

        return load(path)

    def __str__(self) -> str:
        cut = [each for each in self.groups if len(each.keep) < each.size]
        lines = [f"plan: {len(cut)} of {len(self.groups)} groups cut"]
        if self.costs:
            dense, planned = self.costs["dense"], self.costs["planned"]
            lines.append("  " + ", ".join(f"{name} {dense[name]} -> {planned[name]}" for name in sorted(dense)))
        lines += [f"  {each.group}: {each.size} -> {len(each.keep)}" for each in cut]
        lines += [f"  without the residual block {name}" for name in self.blocks]
        return "\n".join(lines)


def named(analysis: Analysis) -> dict[str, Group]:
    """The groups of a model by name; where several have the same name, the later ones get a number: ``bias:0#2``."""
    found: dict[str, Group] = {}
    for group in analysis.groups:
        name, count = group.name, 1
        while name in found:
            count += 1
            name = f"{group.name}#{count}"
        found[name] = group
    return found


def _nearest(name: str, known: Iterable[str]) -> str:
    text = did_you_mean(name, known)
    return text.split(" known:")[0] if text.startswith("did you mean") else ""


def fingerprint(analysis: Analysis) -> str:
    """A digest of the structure of a model: stored names, shapes and groups, not the numbers in its weights."""
    digest = hashlib.sha256()
    for stored in analysis.program.stored:
        digest.update(repr((stored.name, stored.shape)).encode())
    for name, group in named(analysis).items():
        digest.update(repr((name, group.size, [member.name for member in group.members])).encode())
    return digest.hexdigest()[:16]


def make_plan(
    analysis: Analysis,
    *,
    macs: float | None = None,
    params: float | None = None,
    bytes: float | None = None,
    latency: float | None = None,
    ratio: float | None = None,
    criterion: Any = "l2",
    reduction: str = "mean",
    normalize: str = "mean",
    allocate: str = "global",
    max_ratio: float = 0.9,
    min_width: int = 1,
    align: int | Literal["auto"] = 1,
    ignore: Sequence[str] = (),
    only: Sequence[str] = (),
    heads: str = "both",
    seed: int = 0,
    sizes: Mapping[str, int] | None = None,
    calibration: Calibration | None = None,
    latency_table: Table | str | os.PathLike[str] | None = None,
    threads: int | None = None,
    stopwatch: Stopwatch | None = None,
) -> Plan:
    """Decide what to keep; the arguments are those of :func:`graphprune.api.plan`.

    Raises GraphPruneError: GP106 and GP107 for options; BudgetNotMet: GP301, and GP302 where nothing can be pruned.
    """
    fractions = _fractions({"macs": macs, "parameters": params, "bytes": bytes, "latency": latency}, ratio)
    _check_bounds(max_ratio, min_width, align, seed, sizes or {}, threads)
    if latency is not None and align == 1:
        align = "auto"  # runtimes work in blocks of channels, and tables have no other widths
    options = {
        "macs": macs, "params": params, "bytes": bytes, "ratio": ratio, "criterion": name_of(criterion),
        "reduction": reduction, "normalize": normalize, "allocate": allocate, "max_ratio": max_ratio,
        "min_width": min_width, "align": align, "ignore": list(ignore), "only": list(only), "heads": heads,
        "seed": seed, "sizes": dict(sizes or {}), "calibration": calibration.source if calibration else None,
        **({} if latency is None else {"latency": latency}),
    }  # fmt: skip
    measuring = {"table": latency_table, "threads": threads, "stopwatch": stopwatch}
    return _decided(analysis, fractions, options, criterion, calibration, measuring)


def _decided(
    analysis: Analysis,
    fractions: Mapping[str, float],
    options: dict[str, Any],
    criterion: Any,
    calibration: Calibration | None,
    measuring: Mapping[str, Any],
) -> Plan:
    """The plan for options that were checked; measuring: how, where the time of a run is a budget."""
    # Here, not above: a plan can be read and printed without NumPy.
    from graphprune.allocate.bounds import bounds, select
    from graphprune.allocate.problem import Problem, limits_of
    from graphprune.cost import LATENCY, Costing
    from graphprune.criteria.transfer import score_groups

    def given(*names: str) -> dict[str, Any]:
        return {name: options[name] for name in names}

    groups, left = select(analysis.groups, **given("ignore", "only", "heads"))
    sizes, ratio = options["sizes"], options["ratio"]
    costing, measured = Costing(analysis, sizes), None
    if not groups:
        raise _nothing(analysis, costing, bool(left))
    allowed = bounds(analysis, groups, **given("max_ratio", "min_width", "align"))
    if LATENCY in fractions:
        from graphprune.latency.measure import Measurements

        measured = Measurements(costing, groups, allowed, **measuring, **given("seed", "sizes"))
        allowed = measured.bounds
        options |= {"machine": measured.table.machine}
    scores = score_groups(
        analysis, groups, criterion=criterion, calibration=calibration, **given("reduction", "normalize", "seed")
    )
    left += _unscored(analysis, groups, scores, options["criterion"])
    groups = [group for group in groups if group.dim in scores]
    limits = limits_of(costing, groups, allowed, fractions, ratio or 0.0)
    problem = Problem(analysis, groups, scores, allowed, costing, limits, ratio)

    def allocate() -> dict[Dim, int]:
        return _allocated(problem, options["allocate"], fractions)

    widths = allocate() if measured is None else measured.settle(allocate, problem.loss, limits[LATENCY])
    left += [*_limited(groups, allowed, widths), *_refused(analysis)]
    keep = _kept(problem, widths, criterion, calibration, options["seed"])
    return _made(analysis, keep, options, sizes, left, costing)


def _allocated(problem: Problem, name: str, fractions: Mapping[str, float]) -> dict[Dim, int]:
    """The widths that an allocator chooses, checked. Raises BudgetNotMet GP301."""
    from graphprune.allocate import ALLOCATORS

    allocator = ALLOCATORS.load(name)
    if not problem.holds(problem.least):
        raise _not_met(problem, fractions)
    widths: dict[Dim, int] = allocator(problem)
    problem.check(widths, name)
    return widths


def _kept(
    problem: Problem, widths: Mapping[Dim, int], criterion: Any, calibration: Calibration | None, seed: int
) -> dict[Dim, Array]:
    """The entries with the highest scores, or what the criterion makes of them once their number is known."""
    keep, chosen = problem.keep(widths), criterion_of(criterion)
    if not getattr(chosen, "rearranges", False):
        return keep
    from graphprune.criteria.rearrange import rearranged

    return rearranged(problem.analysis, problem.groups, keep, chosen, calibration, seed)


def _made(
    analysis: Analysis,
    keep: Mapping[Dim, Array],
    options: Mapping[str, Any],
    sizes: Mapping[str, int],
    left: Sequence[Left],
    costing: Costing | None = None,
) -> Plan:
    from importlib.metadata import version

    from graphprune import __version__
    from graphprune.cost import LATENCY, MEASURES, Costing

    costing = costing or Costing(analysis, sizes)
    widths = {dim: len(kept) for dim, kept in keep.items()}
    measures = MEASURES if costing.latency is None else (*MEASURES, LATENCY)
    cuts = tuple(
        Cut(name, group.size, tuple(keep[group.dim].tolist()) if group.dim in keep else tuple(range(group.size)))
        for name, group in named(analysis).items()
    )
    return Plan(
        groups=cuts,
        options=dict(options),
        model={"name": analysis.program.name, "fingerprint": fingerprint(analysis)},
        versions={"graphprune": __version__, "numpy": version("numpy")},
        costs={
            "dense": {name: costing.cost(name, {}) for name in measures},
            "planned": {name: costing.cost(name, widths) for name in measures},
        },
        left=tuple({"name": each.name, "code": each.code, "reason": each.reason} for each in left),
    )


# -------------------------------------------------------------------- options
def _fractions(budgets: Mapping[str, float | None], ratio: float | None) -> dict[str, float]:
    """The budgets that were given. Raises GraphPruneError GP107."""
    asked = {name: fraction for name, fraction in budgets.items() if fraction is not None}
    for name, fraction in asked.items():
        option = "params" if name == "parameters" else name
        if not _is_number(fraction) or not 0 < fraction <= 1:
            raise _not_a_share(option, fraction, "the share that remains, above 0 and at most 1")
    if ratio is not None:
        if not _is_number(ratio) or not 0 <= ratio < 1:
            raise _not_a_share("ratio", ratio, "the share that is removed, from 0 to below 1")
        if asked:
            raise GraphPruneError("GP107", "both a ratio and a budget were given", "option ratio", "give one of them")
    elif not asked:
        remedy = "give macs=0.6 to keep 60 % of the multiplications, or params, bytes, latency or ratio"
        raise GraphPruneError("GP107", "it was not said how far to prune", "", remedy)
    return asked


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _not_a_share(option: str, value: object, meaning: str) -> GraphPruneError:
    guess = f"{value / 100:g}" if isinstance(value, int | float) and 1 < value <= 100 else "a fraction in (0,1)"
    return GraphPruneError("GP107", f"{value!r} is not {meaning}", f"option {option}", f"write {guess}")


def _check_bounds(
    max_ratio: float, min_width: int, align: int | str, seed: int, sizes: Mapping[str, int], threads: int | None
) -> None:
    if not _is_number(max_ratio) or not 0 <= max_ratio < 1:
        raise _not_a_share("max_ratio", max_ratio, "a share of a group, from 0 to below 1")
    wholes: dict[str, tuple[object, int]] = {"min_width": (min_width, 1), "seed": (seed, 0)}
    if align != "auto":
        wholes["align"] = (align, 1)
    if threads is not None:
        wholes["threads"] = (threads, 1)
    wholes.update((f"sizes[{name!r}]", (size, 1)) for name, size in sizes.items())
    for option, (value, least) in wholes.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise GraphPruneError("GP107", f"{value!r} is not a whole number from {least} on", f"option {option}")


# -------------------------------------------------------------------- what was left
def _unscored(analysis: Analysis, groups: Sequence[Group], scores: Mapping[Dim, Array], criterion: str) -> list[Left]:
    """The groups that the criterion says nothing about. Raises GraphPruneError GP704 where those are all."""
    from graphprune.allocate.bounds import Left

    if not any(group.dim in scores for group in groups):
        raise GraphPruneError("GP704", f"{criterion} can score no group of it", analysis.program.name)
    return [Left(each.name, "GP704", f"{criterion} cannot score it") for each in groups if each.dim not in scores]


def _limited(groups: Sequence[Group], limits: Mapping[Dim, Bound], widths: Mapping[Dim, int]) -> list[Left]:
    """The groups that are as narrow as their bound allows."""
    from graphprune.allocate.bounds import Left

    found = []
    for group in groups:
        bound, width = limits[group.dim], widths[group.dim]
        if bound.least == group.size > 1:
            found.append(Left(group.name, "GP303", f"all {group.size} entries are within the bounds"))
        elif width == bound.least:
            found.append(Left(group.name, "GP303", f"stopped at {width} of {group.size} entries"))
    return found


def _refused(analysis: Analysis) -> list[Left]:
    from graphprune.allocate.bounds import Left

    return [Left(f"{each.tensor}:{each.axis}", each.code, each.reason) for each in analysis.refusals]


def _not_met(problem: Problem, fractions: Mapping[str, float]) -> BudgetNotMet:
    """GP301 with how far it could go, the groups that cost most at their bounds and the refusals that cost most."""
    analysis, costing, widths = problem.analysis, problem.costing, problem.least
    missed = []
    for name, fraction in fractions.items():
        reached = costing.cost(name, widths) / max(1, costing.cost(name, {}))
        if reached > fraction:
            missed.append(f"{name}: {fraction:.1%} were asked for, {reached:.1%} is the least possible")
    measure = next(iter(fractions))
    weighty = sorted(
        problem.groups,
        key=lambda group: -costing.marginal(measure, group.dim, widths) * widths[group.dim],
    )
    bounded = ", ".join(
        f"{one_line(group.name, _LONGEST_NAME)} ({widths[group.dim]} of {group.size} kept)"
        for group in weighty[:_MOST_NAMED]
    )
    refused = _costliest(analysis, costing, widths)
    where = f"at their bounds: {bounded}" + (f"; kept: {refused}" if refused else "")
    return BudgetNotMet("GP301", "; ".join(missed), where)


def _nothing(analysis: Analysis, costing: Costing, left: bool) -> BudgetNotMet:
    """GP302 with the refusals that cost most, or with what the caller left alone."""
    remedy = "change what is ignored or selected" if left else "graphprune inspect lists what is kept, and why"
    if not left and any(each.code == "GP203" for each in analysis.refusals):
        remedy = ""  # that of the code: a rule would help
    refused = "" if left else _costliest(analysis, costing, {})
    return BudgetNotMet("GP302", "no dimension can be pruned", f"kept: {refused}" if refused else "", remedy)


def _costliest(analysis: Analysis, costing: Costing, widths: Mapping[Dim, int]) -> str:
    """Why axes cannot be pruned, with one axis for each reason: those of what costs most at these widths first."""
    macs: dict[str, int] = {}
    for contraction in analysis.contractions:
        value = contraction.weight.node.inputs[contraction.weight.index] if contraction.weight else None
        if value is not None:
            macs[value.name] = macs.get(value.name, 0) + costing.product(contraction.macs, widths)
    reasons: dict[str, dict[str, None]] = {}
    for each in sorted(analysis.refusals, key=lambda each: -macs.get(each.tensor, 0)):
        why = ", ".join(filter(None, (f"{each.code} {each.reason}", one_line(each.where, _LONGEST_NAME))))
        reasons.setdefault(why, {})[f"{one_line(each.tensor, _LONGEST_NAME)}:{each.axis}"] = None
    found = []
    for why, axes in list(reasons.items())[:_MOST_NAMED]:
        more = f" and {len(axes) - 1} more" if len(axes) > 1 else ""
        found.append(f"{next(iter(axes))}{more} ({why})")
    return ", ".join(found) + (f" and {len(reasons) - _MOST_NAMED} more reasons" if len(reasons) > _MOST_NAMED else "")
