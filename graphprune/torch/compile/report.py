"""What `torch.compile(backend="graphprune")` did to a module, over all its graphs. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from graphprune.cost import Cost
from graphprune.plan import Plan
from graphprune.report import Report, Skipped


@dataclass(frozen=True)
class Part:
    """One graph of a module.

    where:   the function whose code it is
    outcome: costs and reasons; None where the graph is run as it was
    breaks:  the line at which the graph had to end, and why
    then:    the backend that it was handed on to
    failure: why it is run as it was
    """

    where: str
    outcome: Report | None
    plan: Plan | None
    breaks: str = ""
    then: str = ""
    failure: str = ""

    @classmethod
    def whole(cls, where: str, failure: str) -> Part:
        """A graph that is run as it was."""
        return cls(where, None, None, failure=failure)

    @property
    def notes(self) -> tuple[str, ...]:
        """A line for each thing worth one."""
        found = list(self.outcome.notes) if self.outcome else []
        if self.failure:
            found.append(f"run as it is: {' '.join(self.failure.split())}")
        if self.breaks:
            found.append(f"the graph ends at {self.breaks}; what is passed on from there is kept whole")
        return tuple(f"{self.where}: {note}" for note in found)


@dataclass(frozen=True)
class CompileReport:
    """The outcome over all graphs of a module; `print` it. parts: the graphs, compiled for other sizes counted once."""

    parts: tuple[Part, ...]

    @property
    def plan(self) -> Plan:
        """What is kept of every group of every graph; applies to the module as well where it is one graph."""
        plans = [part.plan for part in self.parts if part.plan is not None]
        if len(plans) == 1:
            return plans[0]
        groups = {cut.group: cut for plan in reversed(plans) for cut in plan.groups}
        return Plan(tuple(groups.values()), plans[0].options if plans else {})

    @property
    def total(self) -> Report:
        """The costs of all graphs together, and what was kept and why. Weights of two graphs count in each."""
        outcomes = [part.outcome for part in self.parts if part.outcome is not None]
        none = Cost(0, 0, 0, 0, 0)
        skipped: dict[str, Skipped] = {}
        for each in (each for outcome in outcomes for each in outcome.skipped):
            before = skipped.get(each.code)
            skipped[each.code] = each if before is None else _joined(before, each)
        checked = [outcome.verification for outcome in outcomes if outcome.verification is not None]
        return Report(
            model=outcomes[0].model if outcomes else self.parts[0].where,
            dense=_sum([outcome.dense for outcome in outcomes]) if outcomes else none,
            pruned=_sum([outcome.pruned for outcome in outcomes]) if outcomes else none,
            groups=sum(outcome.groups for outcome in outcomes),
            cut=sum(outcome.cut for outcome in outcomes),
            skipped=tuple(skipped.values()),
            verification=None if len(checked) != 1 else checked[0],
            notes=tuple(dict.fromkeys(note for part in self.parts for note in part.notes)),
        )

    def to_text(self) -> str:
        """The table of costs, what was kept and why, and a line for each graph where there are several."""
        lines = [self.total.to_text()]
        if len(self.parts) > 1:
            lines += ["", f"{len(self.parts)} graphs:"]
            lines += [f"  {part.where}: {_change(part)}" for part in self.parts]
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.to_text()

    def to_dict(self) -> dict[str, Any]:
        """The same as plain data."""
        graphs = [
            {"where": part.where, "breaks": part.breaks, "then": part.then, "failure": part.failure}
            | {"report": None if part.outcome is None else part.outcome.to_dict()}
            for part in self.parts
        ]
        return {"total": self.total.to_dict(), "graphs": graphs}


def _joined(a: Skipped, b: Skipped) -> Skipped:
    places = tuple(dict.fromkeys((*a.places, *b.places)))
    return Skipped(a.code, a.title, a.axes + b.axes, places, a.reason, a.remedy)


def _sum(costs: list[Cost]) -> Cost:
    """All graphs run one after another, so that of activations the largest counts."""
    return Cost(
        parameters=sum(each.parameters for each in costs),
        nonzeros=sum(each.nonzeros for each in costs),
        bytes=sum(each.bytes for each in costs),
        macs=sum(each.macs for each in costs),
        peak_activation_bytes=max(each.peak_activation_bytes for each in costs),
    )


def _change(part: Part) -> str:
    if part.outcome is None:
        return "run as it is"
    dense, pruned = part.outcome.dense, part.outcome.pruned
    share = f", {pruned.macs / dense.macs:.1%} of its MACs" if dense.macs else ""
    return f"{part.outcome.cut} of {part.outcome.groups} groups cut{share}"
