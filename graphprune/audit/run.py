"""Runs dense and pruned networks side by side, on inputs as they were given and as they may come in use."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphprune import api
from graphprune.analysis import Analysis
from graphprune.audit.alter import ALTERATIONS, altered
from graphprune.audit.groups import Harm, harms
from graphprune.audit.report import AS_GIVEN, Audit, Audited, Distance
from graphprune.calibrate import Calibration
from graphprune.cost import Costing
from graphprune.data.calibration import NOISE, Request
from graphprune.dialects import tools_of
from graphprune.errors import GraphPruneError, did_you_mean
from graphprune.fidelity import Gap, check_finite, widen
from graphprune.program import Array

_ALL = 2**62
"""Samples: what is reported is that of all data, unless it is said otherwise."""
_UNSURE = 0.2


def audit(
    dense: Any,
    pruned: Any,
    example_inputs: Any = None,
    *,
    data: Any,
    labels: Any = None,
    groups: Any = None,
    drop: float = 0.01,
    alter: Sequence[str] = tuple(ALTERATIONS),
    seed: int = 0,
    sizes: Mapping[str, int] | None = None,
) -> Audit:
    """How far pruned networks are from the dense one, on which samples, and for whom.

    pruned: a model, or several by name
    data:   as `source` of :func:`graphprune.calibration`, all of it; best what nothing was calibrated or chosen with
    labels: the class of each sample, a whole number, as for :func:`graphprune.calibration`. Without them, answers are
            held against those of the dense network alone. Answers are the largest numbers of the first output, where
            that is one row for each sample
    groups: which group each sample belongs to, an array of names or numbers in the order of the data; its class where
            not given
    drop:   the share of the answers that may be lost, for :meth:`Audit.potential`
    alter:  what is done to the inputs for further comparisons: names of :data:`graphprune.audit.alter.ALTERATIONS`

    Raises GraphPruneError: GP106 and GP107 for options, GP402 where a model cannot be run, GP701 to GP703 for data,
    GP709 for labels that do not go with the outputs; as :func:`graphprune.api.analyze` does.
    """
    _check(drop, alter)
    analyses = {name: _analysed(each, example_inputs) for name, each in ({"": dense} | _named(pruned)).items()}
    first = analyses.pop("")
    calibration = _data(first, data, labels, seed, sizes)
    run = _Run(first, analyses, calibration, seed)
    applied = [name for name in alter if run.alters(name)]
    plain = run.compared(None)
    known = _known(groups, plain)
    compared = {AS_GIVEN: plain, **{name: run.compared(name) for name in applied}}
    whole, counted = Costing(first, sizes or {}), [Costing(each, sizes or {}) for each in analyses.values()]
    models = tuple(
        Audited(
            name=name,
            macs=_share(small, whole, "macs"),
            parameters=_share(small, whole, "parameters"),
            distances={kind: each.distance(place) for kind, each in compared.items()},
            unsure=plain.unsure(place),
            groups=plain.harmed(place, known),
        )
        for place, (name, small) in enumerate(zip(analyses, counted, strict=True))
    )
    skipped = tuple(name for name in alter if name not in applied)
    name = tools_of(first.program.native).origin(first.program.native) or first.program.name
    return Audit(name, calibration.source, drop, models, skipped)


def _check(drop: float, alter: Sequence[str]) -> None:
    if isinstance(drop, bool) or not isinstance(drop, int | float) or not 0 <= drop <= 1:
        what = f"{drop!r} is not a share of answers from 0 to 1"
        raise GraphPruneError("GP107", what, "option drop", "write 0.01 for one point")
    for name in alter:
        if name not in ALTERATIONS:
            what = f"inputs are not altered by {name!r}"
            raise GraphPruneError("GP106", what, "option alter", did_you_mean(name, ALTERATIONS))


def _named(pruned: Any) -> dict[str, Any]:
    found = dict(pruned) if isinstance(pruned, Mapping) else {"pruned": pruned}
    if not found or "" in found:
        raise GraphPruneError("GP107", "there is no pruned model, or one without a name", "argument pruned")
    return found


def _analysed(model: Any, example_inputs: Any) -> Analysis:
    return model if isinstance(model, Analysis) else api.analyze(model, example_inputs)


def _share(small: Costing, dense: Costing, measure: str) -> float:
    return small.cost(measure, {}) / max(1, dense.cost(measure, {}))


def _data(analysis: Analysis, data: Any, labels: Any, seed: int, sizes: Mapping[str, int] | None) -> Calibration:
    if not isinstance(data, Calibration | Request):
        data = Request(data, {} if labels is None else {"labels": labels})
    elif labels is not None:
        raise GraphPruneError("GP107", "labels come with this data", "option labels", "give them to gp.calibration")
    if isinstance(data, Request):
        if data.source is None or (isinstance(data.source, str) and data.source == NOISE):
            remedy = "give inputs like those of use, which nothing was calibrated with"
            raise GraphPruneError("GP701", "what networks answer to noise says nothing", "option data", remedy)
        data = Request(data.source, {"samples": _ALL, **data.options})
    found: Calibration = api.calibrated(analysis, data, seed, sizes)
    return found


def _known(groups: Any, plain: _Compared) -> Array | None:
    """The group of each sample; None where it is not known. Raises GraphPruneError GP702."""
    if groups is None:
        return plain.labels
    found = np.asarray(groups).reshape(-1)
    if not plain.answered or plain.labels is None:
        what = "groups are compared by answers that are right, and there are no labels, or no answers"
        raise GraphPruneError("GP107", what, "option groups", "give labels, or leave groups out")
    if len(found) != len(plain.labels):
        what = f"there are {len(found)} groups for {len(plain.labels)} samples"
        raise GraphPruneError("GP702", what, "option groups", "one for each sample, in the order of the data")
    return found


@dataclass(eq=False)
class _Compared:
    """Outputs on one kind of inputs: the dense network's, then those of the others, in their order.

    answered: whether the first outputs are answers; answers: one array for each network; margins: of the dense one
    labels:   of all samples, None where there are none
    """

    gaps: list[list[Gap]]
    answers: list[list[Array]] = field(default_factory=list)
    margins: list[Array] = field(default_factory=list)
    labels: Array | None = None
    answered: bool = True

    def distance(self, place: int) -> Distance:
        """Of the network at a place."""
        error = float(np.mean([gap.relative for gap in self.gaps[place]]))
        if not self.answered:
            return Distance(error)
        dense, found = self._of(0), self._of(1 + place)
        same = float(np.mean(dense == found))
        if self.labels is None:
            return Distance(error, same)
        return Distance(error, same, float(np.mean(dense == self.labels)), float(np.mean(found == self.labels)))

    def unsure(self, place: int) -> float:
        """See :class:`graphprune.audit.report.Audited`; nan where no answer changed."""
        if not self.answered:
            return math.nan
        changed, margins = self._of(0) != self._of(1 + place), np.concatenate(self.margins)
        least = np.argsort(margins, kind="stable")[: round(_UNSURE * len(margins))]
        return float(changed[least].sum() / changed.sum()) if changed.any() else math.nan

    def harmed(self, place: int, names: Array | None) -> tuple[Harm, ...]:
        """What each group loses."""
        if names is None or self.labels is None or not self.answered:
            return ()
        return harms(names, self._of(0) == self.labels, self._of(1 + place) == self.labels)

    def _of(self, place: int) -> Array:
        return np.concatenate([each[place] for each in self.answers])


class _Run:
    """The networks, ready to be run on all cases."""

    def __init__(self, dense: Analysis, others: Mapping[str, Analysis], data: Calibration, seed: int):
        self.dense, self.data, self.seed = dense, data, seed
        self.tools = tools_of(dense.program.native)
        for name, each in others.items():
            if type(each.program.native) is not type(dense.program.native):
                what = f"{name} is a model of another framework than the dense one"
                raise GraphPruneError("GP107", what, "argument pruned", "export one of them")
        self.names = list(others)
        self.labels: Array | None = None
        if data.labels is not None:
            self.labels = np.concatenate([np.asarray(each).reshape(-1) for each in data.labels])
        natives = [each.program.native for each in (dense, *others.values())]
        self.runners = [tools_of(each).runner(each) for each in natives]

    def alters(self, name: str) -> bool:
        """Whether an input can be altered by this."""
        return altered(self.data.cases[0], ALTERATIONS[name], np.random.default_rng(0))[1]

    def compared(self, name: str | None) -> _Compared:
        """All networks on inputs altered by this, or as they were given."""
        found = _Compared([[] for _ in self.names], labels=self.labels)
        with self.tools.workers(self.dense.program) as each_of:
            for number, outputs in enumerate(each_of(self._outputs, self._cases(name))):
                self._take(found, number, outputs)
        return found

    def _cases(self, name: str | None) -> Iterator[Any]:
        if name is None:
            yield from self.data.cases
            return
        place = list(ALTERATIONS).index(name)
        for number, case in enumerate(self.data.cases):
            yield altered(case, ALTERATIONS[name], np.random.default_rng((self.seed, place, number)))[0]

    def _outputs(self, case: Any) -> list[list[Array]]:
        return [run(case) for run in self.runners]

    def _take(self, found: _Compared, number: int, outputs: Sequence[Sequence[Array]]) -> None:
        dense, *others = outputs
        check_finite(dense, f"batch {number + 1}")
        for name, other, gaps in zip(self.names, others, found.gaps, strict=True):
            if [each.shape for each in other] != [each.shape for each in dense]:
                what = f"{name} has outputs of other shapes than the dense model"
                raise GraphPruneError("GP107", what, "argument pruned", "compare models with the same interface")
            widen(gaps, dense, other)
        scores = [_scores(each[0]) for each in outputs]
        found.answered = found.answered and all(each is not None for each in scores)
        if self.data.labels is not None:
            self._check_labels(scores[0], np.asarray(self.data.labels[number]), number)
        if found.answered:
            rows = [each for each in scores if each is not None]
            found.answers.append([each.argmax(axis=1) for each in rows])
            best = np.partition(rows[0], -2, axis=1)[:, -2:]
            found.margins.append(best[:, 1] - best[:, 0])

    def _check_labels(self, scores: Array | None, labels: Array, number: int) -> None:
        if scores is None:
            what, remedy = "the first output is not one row of numbers for each sample", "leave labels out"
        elif labels.size != len(scores) or labels.dtype.kind not in "iu":
            what = f"batch {number + 1} has {len(scores)} samples, and labels {labels.dtype} of {labels.shape}"
            remedy = "give one whole number for each sample"
        else:
            return
        raise GraphPruneError("GP709", what, self.dense.program.name, remedy)


def _scores(output: Array) -> Array | None:
    """One row of at least two numbers for each sample; None where the output is something else."""
    shape = output.shape
    while len(shape) > 2 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 2 or shape[1] < 2 or output.dtype.kind not in "fV":
        return None
    return output.reshape(shape).astype(np.float64)
