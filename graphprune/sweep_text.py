"""What a sweep found: its rows, as a table, and as JSON that it can go on from."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from graphprune.errors import GraphPruneError, one_line
from graphprune.report import table, written

SCHEMA = "graphprune.sweep"
VERSION = 1
_POINTS, _SEEDS = 5, 3
"""Budgets on a curve, and seeds of what is drawn, that a comparison should have at least."""


@dataclass(frozen=True)
class Head:
    """What all rows have in common; rows of different ones do not belong into one table.

    model:   the fingerprint of its structure; weights: of its numbers; data: of the calibration data
    held_out: how many batches of it are judged on
    budget:  what the targets are shares of
    options: what every plan was made with, and the metric
    """

    model: str
    weights: str
    data: str
    held_out: int
    budget: str
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """One cut.

    target:  the budget that was asked for; macs, parameters: the shares of the dense model that are left
    error:   the relative mean squared error of the outputs on held-out data; metric: what was measured beside it
    seconds: what it took, without what it shares with the rows before it
    failure: why there is nothing to measure; empty where there is
    """

    criterion: str
    seed: int
    target: float
    recover: str
    macs: float = math.nan
    parameters: float = math.nan
    error: float = math.nan
    metric: float = math.nan
    seconds: float = 0.0
    failure: str = ""

    @property
    def key(self) -> tuple[str, int, float, str]:
        """What tells it from others."""
        return self.criterion, self.seed, self.target, self.recover

    def __str__(self) -> str:
        text = f"{self.criterion}, seed {self.seed}, {self.target:.0%}, recover {self.recover}: "
        return text + (self.failure or f"error {self.error:.3g} at {self.macs:.1%} of the MACs")


@dataclass(frozen=True)
class Mean:
    """Rows that differ in their seeds only: means, and standard deviations (nan for one row)."""

    criterion: str
    recover: str
    target: float
    count: int
    macs: float
    error: float
    spread: float
    metric: float
    metric_spread: float
    failure: str = ""


@dataclass(frozen=True)
class Sweep:
    """All rows, in the order in which they were computed."""

    head: Head
    rows: tuple[Row, ...] = ()
    dense_metric: float = math.nan

    def means(self) -> list[Mean]:
        """One entry for all seeds of a cut: by the budget, the smallest error first."""
        cuts: dict[tuple[str, str, float], list[Row]] = {}
        for row in self.rows:
            cuts.setdefault((row.criterion, row.recover, row.target), []).append(row)
        means = [_mean(rows) for rows in cuts.values()]
        return sorted(means, key=lambda each: (-each.target, math.inf if each.failure else each.error))

    def lacks(self) -> tuple[str, ...]:
        """What it would take to compare with others' results, by the list of Blalock et al. ("What is the State of
        Neural Network Pruning?", MLSys 2020), and is not there."""
        means, found = self.means(), []
        targets = {each.target for each in means}
        if len(targets) < _POINTS:
            found.append(f"{_POINTS} budgets ({len(targets)})")
        for control in ("random", "l1"):
            if {each.target for each in means if each.criterion == control} < targets:
                found.append(f"{control} at each budget")
        seeds = min((each.count for each in means if each.criterion == "random"), default=0)
        if 0 < seeds < _SEEDS:
            found.append(f"{_SEEDS} seeds of what is drawn ({seeds})")
        if math.isnan(self.dense_metric):
            found.append("a metric")
        if any(each.failure for each in means):
            found.append("a number in every row")
        return tuple(found)

    def table(self) -> str:
        """The means, a line each, and what a comparison with others' results would lack."""
        measured = not math.isnan(self.dense_metric)
        heads = [
            self.head.budget,
            "criterion",
            "recover",
            "MACs",
            "error",
            "",
            *(["metric", ""] if measured else []),
            "n",
        ]
        rows = []
        for each in self.means():
            cells = [f"{each.target:.0%}", each.criterion, each.recover]
            if each.failure:
                cells += ["", one_line(each.failure)[:60], "", *(["", ""] if measured else []), "0"]
            else:
                cells += [f"{each.macs:.1%}", f"{each.error:.3g}", _spread(each.spread)]
                cells += [f"{each.metric:.4g}", _spread(each.metric_spread)] if measured else []
                cells.append(str(each.count))
            rows.append(cells)
        lines = table(heads, rows, right=(0, 3, 4))
        told = "error: relative mean squared error of the outputs on held-out batches; ± standard deviation over seeds"
        dense = [f"the metric of the dense model is {self.dense_metric:.4g}"] if measured else []
        lacking = ", ".join(self.lacks())
        left = [f"to compare with results of others (Blalock et al., MLSys 2020) it lacks {lacking}"] if lacking else []
        return "\n".join([*lines, "", told, *dense, *left])

    def to_dict(self) -> dict[str, Any]:
        """As plain data: null stands for what is not a number, "inf" for infinity."""
        return {
            "schema": SCHEMA, "version": VERSION, **asdict(self.head),
            "dense_metric": written(self.dense_metric), "lacks": list(self.lacks()),
            "rows": [written(asdict(row)) for row in self.rows],
        }  # fmt: skip

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it, whole or not at all. Raises GraphPruneError GP105."""
        from graphprune.output import write_text

        write_text(path, json.dumps(self.to_dict(), indent=1, allow_nan=False, default=str) + "\n")


def load(path: str | os.PathLike[str], head: Head | None = None) -> Sweep:
    """Read a sweep; only one of this head, where given. Raises GraphPruneError: GP101 where it cannot be read, GP107
    where it is none, or another one."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
        heads = {each.name: data[each.name] for each in fields(Head)}
        rows = tuple(Row(**{name: _read(name, value) for name, value in row.items()}) for row in data["rows"])
        found = Sweep(Head(**heads), rows, _read("dense_metric", data["dense_metric"]))
        known = (data["schema"], data["version"]) == (SCHEMA, VERSION)
    except OSError as error:
        raise GraphPruneError("GP101", f"it cannot be read: {error.strerror}", str(path)) from error
    except (ValueError, KeyError, TypeError) as error:
        raise GraphPruneError("GP107", "it is not a sweep that could go on", str(path), "name another file") from error
    if not known:
        raise GraphPruneError("GP107", "it is a sweep of another version", str(path), "name another file")
    if head is not None:
        wanted = json.loads(json.dumps(asdict(head), default=str))
        other = [name for name, value in asdict(found.head).items() if value != wanted[name]]
        if other:
            what = f"it is a sweep with other {', '.join(other)}, and its rows do not compare with new ones"
            raise GraphPruneError("GP107", what, str(path), "name another file, or leave out --resume")
    return found


def _mean(rows: list[Row]) -> Mean:
    first, done = rows[0], [row for row in rows if not row.failure]
    if not done:
        nan = math.nan
        return Mean(first.criterion, first.recover, first.target, 0, nan, nan, nan, nan, nan, first.failure)
    return Mean(
        first.criterion, first.recover, first.target, len(done), _average(row.macs for row in done),
        *_average_and_spread([row.error for row in done]), *_average_and_spread([row.metric for row in done]),
    )  # fmt: skip


def _average(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _average_and_spread(values: list[float]) -> tuple[float, float]:
    several = len(values) > 1 and bool(np.isfinite(values).all())
    return _average(values), float(np.std(values, ddof=1)) if several else math.nan


def _spread(value: float) -> str:
    return "" if math.isnan(value) else f"±{value:.2g}"


_NUMBERS = frozenset({"target", "macs", "parameters", "error", "metric", "seconds", "dense_metric"})


def _read(name: str, value: Any) -> Any:
    if name not in _NUMBERS:
        return value
    return math.nan if value is None else float(value)
