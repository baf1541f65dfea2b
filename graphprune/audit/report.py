"""What an audit found, as numbers, as text and as plain data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from graphprune.audit.groups import FEWEST, Harm, Slope, slope
from graphprune.errors import one_line
from graphprune.report import table, written

SCHEMA, VERSION = "graphprune.audit", 1
AS_GIVEN = "as given"
_SHOWN = 5
"""Groups that the text names, beside all that lose more than the others."""


@dataclass(frozen=True)
class Distance:
    """How far a network is from the dense one on one kind of inputs; nan stands for what cannot be told.

    error:         ``sum (y' - y)**2 / sum y**2``, the mean over the outputs
    same:          the share of samples whose answer is that of the dense network
    dense, pruned: the shares of samples that are answered rightly
    """

    error: float
    same: float = math.nan
    dense: float = math.nan
    pruned: float = math.nan

    @property
    def lost(self) -> float:
        """Of the answers that are right; of all answers, where it is not known which are; nan where there are none."""
        return 1 - self.same if math.isnan(self.dense) else self.dense - self.pruned


@dataclass(frozen=True)
class Audited:
    """One pruned network.

    macs, parameters: shares of those of the dense one
    distances: by kind of inputs
    unsure:    of the answers that changed, the share among the fifth of the samples that the dense network was least
               sure of (the distance of its two largest numbers); 0.2 would be chance
    groups:    what each class, or group of samples, loses
    """

    name: str
    macs: float
    parameters: float
    distances: Mapping[str, Distance]
    unsure: float = math.nan
    groups: tuple[Harm, ...] = ()

    @property
    def slope(self) -> Slope | None:
        """What groups lose by how rare they are."""
        return slope(self.groups)

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {**asdict(self), "slope": None if self.slope is None else asdict(self.slope)}


@dataclass(frozen=True)
class Audit:
    """Pruned networks beside their dense one.

    data:    what they were run on; drop: how much may be lost; skipped: alterations that have no meaning for the inputs
    """

    dense: str
    data: str
    drop: float
    models: tuple[Audited, ...]
    skipped: tuple[str, ...] = ()

    def potential(self, inputs: str = AS_GIVEN) -> float:
        """The largest share of multiply-accumulates that a network within the drop on these inputs has lost, 0 where
        none is within it: the prune potential of Liebenwein et al. ("Lost in Pruning", MLSys 2021); nan without
        answers."""
        lost = [(1 - each.macs, each.distances[inputs].lost) for each in self.models]
        if all(math.isnan(loss) for _, loss in lost):
            return math.nan
        return max([0.0, *(gone for gone, loss in lost if loss <= self.drop)])

    def to_dict(self) -> dict[str, Any]:
        """As plain data: null stands for what is not a number, "inf" for infinity."""
        potentials = {kind: self.potential(kind) for kind in self.models[0].distances}
        models = [each.to_dict() for each in self.models]
        found: dict[str, Any] = written(
            {"schema": SCHEMA, "version": VERSION, **asdict(self), "models": models, "potential": potentials}
        )
        return found

    def __str__(self) -> str:
        return "\n".join([f"{self.dense} on {self.data}", "", *self._distances(), "", *self._told(), *self._groups()])

    def _distances(self) -> list[str]:
        rows = []
        for each in self.models:
            cells = [one_line(each.name), f"{each.macs:.1%}", f"{each.parameters:.1%}"]
            for kind, far in each.distances.items():
                shares = (far.same, far.pruned, far.dense)
                rows.append([*cells, kind, f"{far.error:.3g}", *map(_share, shares)])
                cells = ["", "", ""]
        heads = ["network", "MACs", "parameters", "inputs", "error", "same answers", "right", "dense"]
        return table(heads, rows, right=(1, 2, 4, 5, 6, 7))

    def _told(self) -> list[str]:
        lines = ["error: relative mean squared error of the outputs; right: answers that are the labels"]
        if self.skipped:
            lines.append(f"not altered by {', '.join(self.skipped)}: no input is an image of floating-point numbers")
        if math.isnan(self.potential()):
            return [*lines, "no answers are counted: the first output is not one row of numbers for each sample"]
        within = (f"{kind} {self.potential(kind):.1%}" for kind in self.models[0].distances)
        lines.append(f"MACs that can go within a loss of {self.drop:.2%} of the answers: {', '.join(within)}")
        for each in self.models:
            if not math.isnan(each.unsure):
                of_changed = f"{one_line(each.name)}: {each.unsure:.0%} of the answers that changed"
                lines.append(f"{of_changed} are among the fifth that the dense network was least sure of")
        return lines

    def _groups(self) -> list[str]:
        return [line for each in self.models for line in _harmed(each)]


def _harmed(model: Audited) -> list[str]:
    """The groups of one network that lose the most."""
    if not model.groups:
        return []
    shown = [each for place, each in enumerate(model.groups) if place < _SHOWN or each.more]
    rows = [
        [each.name, str(each.count), _share(each.dense), _share(each.pruned), f"{each.drop:+.1%}",
         "" if math.isnan(each.error) else f"±{each.error:.1%}", _verdict(each)]
        for each in shown
    ]  # fmt: skip
    left = len(model.groups) - len(shown)
    lines = ["", f"{one_line(model.name)}, by what is lost"]
    lines += table(["group", "samples", "dense", "right", "lost", "", ""], rows, right=range(1, 6))
    if left:
        lines.append(f" and {left} more that lose less")
    if model.slope is not None:
        lines.append(f" half as many samples: {model.slope.value:+.2%} lost, ±{model.slope.error:.2%}")
    return lines


def _verdict(group: Harm) -> str:
    if group.count < FEWEST:
        return "too few to tell"
    return "more than the others" if group.more else ""


def _share(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.1%}"
