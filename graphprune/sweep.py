"""Many cuts of one model side by side: what each criterion and recovery loses at each budget.

The calibration data is split: every fourth batch (see :func:`split`) is held out from criteria and recoveries, and
every cut is measured on it, without training. Controls are always among the criteria: ``random`` says what is lost by
cutting anything at all, ``l1`` what the simplest look at the weights saves of it.

    >>> from graphprune.sweep import sweep                                                  # doctest: +SKIP
    >>> found = sweep(dense, macs=[0.4, 0.6, 0.8], criteria=["obs"], calibration=data)      # doctest: +SKIP
    >>> print(found.table())                                                                # doctest: +SKIP
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from graphprune import api
from graphprune.allocate.bounds import select
from graphprune.analysis import Analysis, Group
from graphprune.calibrate import Calibration
from graphprune.criteria import GroupCriterion
from graphprune.criteria.custom import criterion_of, name_of
from graphprune.criteria.transfer import Scores, score_groups
from graphprune.dims import Dim
from graphprune.errors import GraphPruneError
from graphprune.fidelity import Fidelity, digest_of, digest_of_data
from graphprune.metric import Metric, measured, metric_of
from graphprune.plan import fingerprint
from graphprune.program import Array
from graphprune.recover.run import checked
from graphprune.recover.run import recover as refit
from graphprune.sweep_text import Head, Row, Sweep, load

CONTROLS = ("random", "l1")
BUDGETS = ("macs", "params", "bytes", "latency", "ratio")

# Of one row only: the others go on.
_FAILURES = frozenset({"GP301", "GP302", "GP703", "GP704"})


def sweep(
    model: Any,
    example_inputs: Any = None,
    *,
    calibration: Any,
    criteria: Sequence[str] = ("l2",),
    recover: Sequence[str] = ("none",),
    seeds: Sequence[int] = (0, 1, 2),
    metric: Metric | str | None = None,
    path: str | os.PathLike[str] | None = None,
    resume: bool = False,
    tell: Callable[[str], None] | None = None,
    **options: Any,
) -> Sweep:
    """Cut a model in many ways and measure each on data that was held out.

    calibration: as for :func:`graphprune.api.plan`; at least two batches
    criteria:  names; `random` and `l1` are added
    recover:   one entry for each way to recover: names of `graphprune.recover` with + between them, or none
    seeds:     those that draw anything at random are repeated with each of them, others take the first
    metric:    measured beside the error: a function of outputs and labels, or ``"module:function"`` (see `metric.py`)
    path:      where the rows are written as JSON, each as soon as it is there; resume: go on with the rows of that file
    tell:      is told about every row
    options:   of :func:`graphprune.api.plan`; one of macs, params, bytes, latency and ratio is a sequence of shares

    Raises GraphPruneError: GP106 and GP107 for options and for a file that is of another sweep, GP701 to GP704 for
    data, GP709 for the metric. What one cut cannot do (a budget that cannot be met) is in its row.
    """
    request = _Request.of(criteria, recover, seeds, options)
    judge = None if metric is None else metric_of(metric)
    analysis = model if isinstance(model, Analysis) else api.analyze(model, example_inputs)
    first = request.seeds[0]
    analysis.program.check_sizes(options.get("sizes"))
    data = api.calibrated(analysis, calibration, first, options.get("sizes"))
    checked([name for way in request.recover for name in way.split("+")], data)
    fit, held = split(_given(data))
    asked = {**request.options, "metric": None if metric is None else name_of(metric)}
    head = Head(
        fingerprint(analysis), digest_of(analysis), digest_of_data(data), len(held.cases), request.budget, _plain(asked)
    )
    found = load(path, head) if resume and path is not None and os.path.exists(path) else Sweep(head)
    run = _Run(analysis, fit, Fidelity(analysis, held.cases), judge, held.labels, request)
    found = replace(found, dense_metric=run.metric_of(run.fidelity.dense))
    missing = [key for key in request.wanted() if key not in {row.key for row in found.rows}]
    for place, key in enumerate(missing, 1):
        row = run.row(*key)
        found = replace(found, rows=(*found.rows, row))
        if path is not None:
            found.save(path)
        if tell is not None:
            tell(f"[{place}/{len(missing)}] {row}")
    return found


def split(calibration: Calibration) -> tuple[Calibration, Calibration]:
    """Batches to compute from, and every fourth one (the last of fewer) to judge on. Raises GraphPruneError GP701."""
    count = len(calibration.cases)
    if count < 2:
        what = "one batch of calibration data cannot be divided into one to compute from and one to judge on"
        raise GraphPruneError("GP701", what, "option calibration", "give more data, or smaller batches")
    every = min(4, count)
    held = [place for place in range(count) if place % every == every - 1]
    fit = [place for place in range(count) if place % every != every - 1]
    labels = calibration.labels
    parts = [
        replace(
            calibration,
            cases=[calibration.cases[place] for place in places],
            labels=None if labels is None else [labels[place] for place in places],
        )
        for places in (fit, held)
    ]
    return parts[0], parts[1]


def is_random(criterion: Any) -> bool:
    """Whether scores depend on the seed."""
    chosen = criterion_of(criterion)
    return isinstance(chosen, GroupCriterion) or getattr(chosen, "derivative", "") == "hessian diagonal"


def _given(calibration: Calibration | None) -> Calibration:
    if calibration is None:
        raise GraphPruneError("GP704", "errors are measured on data, and there is none", "option calibration",
                              "give calibration data, or noise")  # fmt: skip
    return calibration


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as they come back from JSON; what measures times, and where they are kept, is none of a cut."""
    asked = {name: value for name, value in sorted(options.items()) if name not in ("latency_table", "stopwatch")}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asked.items()}


@dataclass(frozen=True)
class _Request:
    """What is asked for, checked; ``options`` are those that all rows share."""

    budget: str
    targets: tuple[float, ...]
    criteria: tuple[str, ...]
    recover: tuple[str, ...]
    seeds: tuple[int, ...]
    options: Mapping[str, Any]

    @classmethod
    def of(
        cls, criteria: Sequence[str], recover: Sequence[str], seeds: Sequence[int], options: Mapping[str, Any]
    ) -> _Request:
        given = [name for name in BUDGETS if options.get(name) is not None]
        if len(given) != 1 or not isinstance(options[given[0]], Sequence) or not options[given[0]]:
            remedy = "give one of macs, params, bytes, latency and ratio, as macs=[0.4, 0.6, 0.8]"
            raise GraphPruneError("GP107", "a sweep goes over one budget", "", remedy)
        if not seeds or not all(isinstance(seed, int) and seed >= 0 for seed in seeds):
            raise GraphPruneError("GP107", f"{list(seeds)!r} are not seeds", "option seeds", "write 0,1,2")
        for name in ("seed", "criterion"):
            if name in options:
                raise GraphPruneError("GP107", f"there are several in a sweep: {name}", f"option {name}", "see sweep")
        if options.get("steps", 1) != 1:
            what = "a sweep scores the dense model once for all its budgets"
            raise GraphPruneError("GP107", what, "option steps", "prune in steps, with the criterion that was best")
        names = tuple(dict.fromkeys([*criteria, *CONTROLS]))
        for name in names:
            criterion_of(name)
        ways = tuple(dict.fromkeys(recover)) or ("none",)
        shared = {name: value for name, value in options.items() if name not in BUDGETS}
        return cls(given[0], tuple(options[given[0]]), names, ways, tuple(dict.fromkeys(seeds)), shared)

    def wanted(self) -> Iterator[tuple[str, int, float, str]]:
        """Criterion, seed, budget and recovery of every row: in the order in which most can be used again."""
        for criterion in self.criteria:
            for seed in self.seeds if is_random(criterion) else self.seeds[:1]:
                for target, way in product(self.targets, self.recover):
                    yield criterion, seed, target, way


@dataclass(frozen=True)
class _Scored:
    """Scores that were computed before, as a criterion."""

    name: str
    scores: Scores = field(repr=False)

    def score(self, analysis: Analysis, group: Group) -> Array | None:
        """See :class:`graphprune.criteria.AnalysisCriterion`."""
        return self.scores.get(group.dim)


@dataclass(eq=False)
class _Run:
    """Computes rows; what the one before computed is used again where it is the same."""

    analysis: Analysis
    fit: Calibration
    fidelity: Fidelity
    metric: Metric | None
    labels: Any
    request: _Request
    _scores: tuple[Any, Any] = (None, None)
    _cut: tuple[Any, Any] = (None, None)

    def row(self, criterion: str, seed: int, target: float, way: str) -> Row:
        """One cut, recovered in one way and measured."""
        started = time.perf_counter()
        empty = Row(criterion, seed, target, way)
        try:
            result = self._result(criterion, seed, target)
            model, names = result.model, [name for name in way.split("+") if name != "none"]
            if names:
                keep = result.plan.keep(self.analysis)
                model = refit(self.analysis, keep, model, names, self.fit, seed).model
            outputs = self.fidelity.outputs(model)
        except GraphPruneError as error:
            if error.code not in _FAILURES:
                raise
            return replace(empty, failure=f"{error.code} {error.what}")
        costs = result.plan.costs
        share = {name: costs["planned"][name] / max(1, costs["dense"][name]) for name in ("macs", "parameters")}
        lost, seconds = self.fidelity.error(outputs), time.perf_counter() - started
        return replace(
            empty, macs=share["macs"], parameters=share["parameters"], error=lost, metric=self.metric_of(outputs),
            seconds=round(seconds, 3),
        )  # fmt: skip

    def metric_of(self, outputs: list[list[Array]]) -> float:
        """What the metric says about these outputs; not a number where there is none. Raises GraphPruneError GP709."""
        return math.nan if self.metric is None else measured(self.metric, outputs, self.labels)

    def _result(self, criterion: str, seed: int, target: float) -> api.Result:
        key = (criterion, seed, target)
        if self._cut[0] != key:
            options = {**self.request.options, self.request.budget: target, "normalize": "none", "seed": seed}
            chosen = _Scored(criterion, self._scored(criterion, seed))
            plan = api.plan(self.analysis, **options, criterion=chosen)
            self._cut = (key, api.result_of(self.analysis, plan, sizes=self.request.options.get("sizes")))
        result: api.Result = self._cut[1]
        return result

    def _scored(self, criterion: str, seed: int) -> Scores:
        if self._scores[0] != (criterion, seed):
            options = self.request.options
            chosen = {name: options[name] for name in ("reduction", "normalize") if name in options}
            narrowed = {name: options[name] for name in ("ignore", "only", "heads") if name in options}
            groups, _ = select(self.analysis.groups, **narrowed)
            made: dict[Dim, Array] = score_groups(
                self.analysis, groups, criterion=criterion, seed=seed, calibration=self.fit, **chosen
            )
            self._scores = ((criterion, seed), made)
        found: Scores = self._scores[1]
        return found
