"""The smallest network that loses no more than so much: the budget is found by bisection, on data of its own.

A cut is tried at the lowest share that is allowed, and then halfway between the largest share that lost too much and
the smallest that did not, until they are as near as a hundredth. Accuracy is no monotone function of the share, so that
a smaller one might do as well: every probe is told. Everything runs on the graph, the same for ONNX and PyTorch.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from graphprune import api
from graphprune.analysis import Analysis
from graphprune.calibrate import Calibration
from graphprune.cost import LATENCY
from graphprune.criteria.custom import name_of
from graphprune.errors import BudgetNotMet, GraphPruneError
from graphprune.fidelity import Fidelity, digest_of, digest_of_data
from graphprune.metric import Metric, measured, metric_of
from graphprune.plan import fingerprint
from graphprune.recipes import followed
from graphprune.recover.run import checked, cut
from graphprune.steps import BUDGETS, check_share, planned

SCHEMA = "graphprune.probes"
LEAST = 0.05
"""The lowest share that is tried where no budget was given."""
NEAR = 0.01
"""How near to each other the shares are between which the bisection ends."""


@dataclass(frozen=True)
class Probe:
    """One cut that was tried: the share that was asked for, that of the multiply-accumulates which is left, and what
    the metric says; or why there is nothing to measure."""

    target: float
    macs: float = math.nan
    metric: float = math.nan
    seconds: float = 0.0
    failure: str = ""

    def __str__(self) -> str:
        return f"{self.target:.1%}: " + (self.failure or f"metric {self.metric:.5g} at {self.macs:.1%} of the MACs")


@dataclass(frozen=True)
class Found:
    """The smallest share within the drop, what the dense model has, and all probes in their order."""

    budget: str
    target: float
    dense: float
    probes: tuple[Probe, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """What a report says of it."""
        told = "; ".join(map(str, self.probes))
        return (f"{self.budget} {self.target:.1%} was found: metric of the dense model {self.dense:.5g}; {told}",)


@dataclass(frozen=True)
class Request:
    """What is asked for.

    max_drop: how much the metric may fall, in its own unit
    metric:   `accuracy` (a share), `module:function`, or a function of outputs and labels; more is better
    path:     where probes are written as JSON, each as soon as it is there; resume: go on with those of that file
    tell:     is told about every probe
    """

    max_drop: float
    metric: str | Metric = "accuracy"
    path: str | os.PathLike[str] | None = None
    resume: bool = False
    tell: Callable[[str], None] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.max_drop, bool) or not isinstance(self.max_drop, int | float) or not self.max_drop >= 0:
            what = f"{self.max_drop!r} is not a drop of a metric, a number from 0 on"
            raise GraphPruneError("GP107", what, "option max_drop", "write 0.005 for half a point of an accuracy")
        metric_of(self.metric)
        if self.resume and self.path is None:
            raise GraphPruneError("GP107", "there is nothing to go on from", "option resume", "name the file of probes")


def prune_within(
    model: Any,
    example_inputs: Any = None,
    *,
    max_drop: float,
    metric: str | Metric = "accuracy",
    validation: Any = None,
    probes: str | os.PathLike[str] | None = None,
    resume: bool = False,
    tell: Callable[[str], None] | None = None,
    calibration: Any = None,
    recover: str | Sequence[str] = (),
    recipe: str | None = None,
    verify: bool = True,
    **options: Any,
) -> api.Result:
    """See :func:`graphprune.api.prune`; what is found is pruned to as any other budget is."""
    request = Request(max_drop, metric, probes, resume, tell)
    for_capture = {name: options[name] for name in ("dynamic", "rules") if name in options}
    analysis = model if isinstance(model, Analysis) else api.analyze(model, example_inputs, **for_capture)
    seed, sizes = options.get("seed", 0), options.get("sizes")
    given, held = (api.calibrated(analysis, each, seed, sizes) for each in (calibration, validation))
    fit, judge = divided(given, held)
    options, recover, told = followed(recipe, options, recover, fit)
    planning = {name: value for name, value in options.items() if name not in ("dynamic", "rules", "as_graph")}
    found = find(analysis, request, judge, calibration=fit, recover=recover, **planning)
    options = {**options, found.budget: found.target, "calibration": fit}
    result = api.prune(model, example_inputs, verify=verify, recover=recover, **options)
    return replace(result, report=result.report.with_(notes=(*told, *found.notes, *result.report.notes)))


def divided(calibration: Calibration | None, validation: Calibration | None) -> tuple[Calibration | None, Calibration]:
    """What to compute from, and what to judge on: every fourth batch of the calibration data where there is no other.

    Raises GraphPruneError: GP701 where there is nothing to judge on, GP711 where a batch is in both.
    """
    from graphprune.sweep import split

    if validation is None and calibration is None:
        remedy = "give validation data, or calibration data, a part of which is held out"
        raise GraphPruneError("GP701", "there is no data to measure a drop on", "option validation", remedy)
    if validation is None:
        assert calibration is not None
        return split(calibration)
    if calibration is not None:
        known = {digest_of_data(replace(calibration, cases=[each], labels=None)) for each in calibration.cases}
        for place, each in enumerate(validation.cases, 1):
            if digest_of_data(replace(validation, cases=[each], labels=None)) in known:
                raise GraphPruneError("GP711", f"batch {place} of the validation data is one of the calibration data")
    return calibration, validation


def find(
    analysis: Analysis,
    request: Request,
    validation: Calibration,
    *,
    calibration: Calibration | None = None,
    recover: str | Sequence[str] = (),
    seed: int = 0,
    **options: Any,
) -> Found:
    """The smallest share of a budget within the drop; the options are those of :func:`graphprune.api.plan`, of whose
    budgets at most one is given: the lowest share that is tried.

    Raises GraphPruneError: GP107 for options and files of probes, GP709 for the metric, GP304 where no cut is within
    the drop; as plans and recoveries do.
    """
    budget, lowest = _budget(options)
    options = {name: value for name, value in options.items() if name not in (*BUDGETS, "ratio")}
    fidelity = Fidelity(analysis, validation.cases)
    options, names = api.stepped(options, recover), checked(recover, calibration)
    run = _Run(analysis, fidelity, validation, request, calibration, names, seed, options, budget)
    run.begin()
    low, high = lowest, 1.0
    if run.within(low):
        return run.found(low)
    while high - low > NEAR:
        middle = (low + high) / 2
        low, high = (low, middle) if run.within(middle) else (middle, high)
    if high == 1.0:
        tried = max((each for each in run.probes if not each.failure), key=lambda each: each.target, default=None)
        where = "" if tried is None else f"dense {run.dense:.5g}, at {tried}"
        raise BudgetNotMet("GP304", f"no cut keeps the metric within {request.max_drop:g} of the dense model", where)
    return run.found(high)


def _budget(options: Mapping[str, Any]) -> tuple[str, float]:
    given = {name: options[name] for name in (*BUDGETS, LATENCY, "ratio") if options.get(name) is not None}
    if len(given) > 1 or not given.keys() <= BUDGETS.keys():
        remedy = "give one of macs, params and bytes as the lowest share, or none"
        raise GraphPruneError("GP107", "a drop is searched along one budget", "option max_drop", remedy)
    if not given:
        return "macs", LEAST
    name, lowest = next(iter(given.items()))
    check_share(lowest, name)
    return name, float(lowest)


@dataclass(eq=False)
class _Run:
    """Tries cuts, and remembers them."""

    analysis: Analysis
    fidelity: Fidelity
    validation: Calibration
    request: Request
    calibration: Calibration | None
    recover: tuple[str, ...]
    seed: int
    options: Mapping[str, Any]
    budget: str
    dense: float = math.nan
    probes: tuple[Probe, ...] = ()

    def begin(self) -> None:
        """Measure the dense model, and read the probes to go on from."""
        self.dense = measured(self.request.metric, self.fidelity.dense, self.validation.labels)
        path = self.request.path
        if self.request.resume and path is not None and os.path.exists(path):
            self.probes = _load(path, self._head())

    def within(self, target: float) -> bool:
        """Whether a cut to this share stays within the drop."""
        known = [each for each in self.probes if each.target == target]
        probe = known[0] if known else self._tried(target)
        return self.dense - probe.metric <= self.request.max_drop  # false where there is no number

    def found(self, target: float) -> Found:
        return Found(self.budget, target, self.dense, self.probes)

    def _tried(self, target: float) -> Probe:
        started = time.perf_counter()
        try:
            probe = self._cut(target)
        except BudgetNotMet as error:
            probe = Probe(target, failure=f"{error.code} {error.what}")
        probe = replace(probe, seconds=round(time.perf_counter() - started, 3))
        self.probes = (*self.probes, probe)
        if self.request.path is not None:
            from graphprune.output import write_text

            rows = [{name: None if value != value else value for name, value in asdict(each).items()}
                    for each in self.probes]  # fmt: skip
            content = {"schema": SCHEMA, **self._head(), "dense": self.dense, "probes": rows}
            write_text(self.request.path, json.dumps(content, indent=1) + "\n")
        if self.request.tell is not None:
            self.request.tell(f"[{len(self.probes)}] {probe}")
        return probe

    def _cut(self, target: float) -> Probe:
        plan = planned(
            self.analysis, **{**self.options, self.budget: target}, seed=self.seed, calibration=self.calibration
        )
        model = cut(self.analysis, plan.keep(self.analysis), self.recover, self.calibration, self.seed)
        value = measured(self.request.metric, self.fidelity.outputs(model), self.validation.labels)
        return Probe(target, plan.costs["planned"]["macs"] / max(1, plan.costs["dense"]["macs"]), value)

    def _head(self) -> dict[str, Any]:
        """What all probes of a file have in common; the drop is not among it."""
        data = "" if self.calibration is None else digest_of_data(self.calibration)
        asked = {
            **self.options,
            "recover": list(self.recover),
            "seed": self.seed,
            "metric": name_of(self.request.metric),
        }
        asked["criterion"] = name_of(asked.get("criterion", "l2"))
        head = {
            "model": fingerprint(self.analysis), "weights": digest_of(self.analysis), "calibration": data,
            "validation": digest_of_data(self.validation), "budget": self.budget, "options": asked,
        }  # fmt: skip
        plain: dict[str, Any] = json.loads(json.dumps(head, default=str, sort_keys=True))
        return plain


def _load(path: str | os.PathLike[str], head: Mapping[str, Any]) -> tuple[Probe, ...]:
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
        other = [name for name, value in head.items() if data[name] != value]
        rows: list[dict[str, Any]] = data["probes"]
        found = tuple(_probe(row) for row in rows)
    except OSError as error:
        raise GraphPruneError("GP101", f"it cannot be read: {error.strerror}", str(path)) from error
    except (ValueError, KeyError, TypeError) as error:
        what = "these are not probes that one could go on from"
        raise GraphPruneError("GP107", what, str(path), "name another file") from error
    if other:
        what = f"these are probes with other {', '.join(other)}"
        raise GraphPruneError("GP107", what, str(path), "name another file, or do not resume")
    return found


def _probe(row: Mapping[str, Any]) -> Probe:
    numbers: dict[str, Any] = {name: math.nan if value is None else value for name, value in row.items()}
    return Probe(**numbers)
