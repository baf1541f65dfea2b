"""From the worth of single weights to the scores of groups: the one place that knows which weights an entry owns.

An entry of a group runs through many weights: as an output channel of some, an input channel of others. For each
contraction and each axis of its weight that holds the dimension, the worths of all numbers at that entry are summed
(``finish`` of the criterion makes a norm of the sum); :data:`REDUCTIONS` combines these over the contractions, and
:data:`NORMALIZATIONS` makes groups comparable.

Each weight is read once, in slices, and never more than one of them is held.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphprune.analysis import Analysis, Group
from graphprune.calibrate import Calibration, collect
from graphprune.criteria import (
    AnalysisCriterion,
    BlockCriterion,
    DataCriterion,
    FilterCriterion,
    GradientCriterion,
    GroupCriterion,
    JointCriterion,
    Part,
    WeightCriterion,
)
from graphprune.criteria.custom import criterion_of, name_of
from graphprune.criteria.effect import by_effect
from graphprune.dequantise import factors, unpacked
from graphprune.dialects import tools_of
from graphprune.dims import Axis, Dim, leaves
from graphprune.errors import GraphPruneError, did_you_mean
from graphprune.kept import labels
from graphprune.layers import gains, layers
from graphprune.program import Array, Contraction, Use, Value

Scores = dict[Dim, Array]

# Numbers converted at a time: large enough for NumPy to be at full speed, small enough to stay in a cache.
_SLICE = 1 << 18


def _mean(parts: Array) -> Array:
    mean: Array = parts.mean(axis=0)
    return mean


def _l2(parts: Array) -> Array:
    root: Array = np.sqrt(np.square(parts).sum(axis=0))
    return root


REDUCTIONS: dict[str, Callable[[Array], Array]] = {
    "sum": lambda parts: np.asarray(parts.sum(axis=0)),
    "mean": _mean,
    "max": lambda parts: np.asarray(parts.max(axis=0)),
    "l2": _l2,
}
"""How the scores of coupled weights become one; each takes an array ``[weights, size]``. ``mean`` is Torch-Pruning's
default; ``l2`` is ``sqrt(sum s**2)``."""


def _over(score: Array, scale: float) -> Array:
    return score / scale if scale > 0 else np.zeros_like(score)


def lamp(score: Array) -> Array:
    """``s_i**2 / sum(s_j**2 for all s_j that are not below s_i)``: the share of an entry in what is left when all
    smaller ones are gone (Lee et al., Layer-adaptive Sparsity for the Magnitude-based Pruning, ICLR 2021).

    >>> lamp(np.array([1.0, 2.0, 3.0])).round(3).tolist()
    [0.071, 0.308, 1.0]
    """
    return share_of_rest(np.square(score), np.argsort(score, kind="stable"))


def share_of_rest(worth: Array, order: Array) -> Array:
    """What each is worth of itself and all that go after it in the order; worths are not negative.

    >>> share_of_rest(np.array([3.0, 1.0]), np.array([1, 0])).tolist()
    [1.0, 0.25]
    """
    left = np.cumsum(worth[order][::-1])[::-1]
    found = np.zeros_like(worth)
    found[order] = np.divide(worth[order], left, out=np.zeros_like(left), where=left > 0)
    return found


NORMALIZATIONS: dict[str, Callable[[Array], Array]] = {
    "none": lambda score: score,
    "sum": lambda score: _over(score, float(np.abs(score).sum())),
    "mean": lambda score: _over(score, float(np.abs(score).mean())),
    "max": lambda score: _over(score, float(np.abs(score).max())),
    "standard": lambda score: _over(score - score.mean(), float(score.std())),
    "lamp": lamp,
}
"""How the scores of different groups are made comparable; each takes and gives the scores of one group. Some scores
have signs: what they are divided by is taken without."""


EFFECT = "effect"
"""The normalisation that is measured: see :mod:`graphprune.criteria.effect`."""


def score_groups(
    analysis: Analysis,
    groups: Sequence[Group],
    *,
    criterion: Any = "l2",
    reduction: str = "mean",
    normalize: str = "mean",
    seed: int = 0,
    calibration: Calibration | None = None,
) -> Scores:
    """A score for every entry of every group (float64, shape ``[size]``): the lower, the sooner it goes.

    criterion: as :func:`graphprune.criteria.custom.criterion_of` takes it

    Groups of which no weight is constant get zeros: nothing says that one entry matters more than another. Groups of
    which the criterion can know nothing (the data, a derivative, a batch norm) get no scores at all.

    Raises GraphPruneError: GP106 for names that are not known, GP107 where weights are not finite, GP704 where the
    criterion needs what is not there.
    """
    normalizations = (*NORMALIZATIONS, EFFECT)
    for name, known, what in ((reduction, REDUCTIONS, "reduction"), (normalize, normalizations, "normalization")):
        if name not in known:
            raise GraphPruneError("GP106", f"there is no {what} {name!r}", remedy=did_you_mean(name, known))
    chosen = criterion_of(criterion)
    if isinstance(chosen, BlockCriterion):
        what = f"the criterion {chosen.name} needs the option depth: it scores residual blocks, not channels"
        raise GraphPruneError("GP704", what, "option criterion", "give it as depth_by (--depth-by) beside depth")
    if isinstance(chosen, GroupCriterion):
        raw = {group.dim: np.asarray(chosen.group(group.name, group.size, seed), np.float64) for group in groups}
    elif isinstance(chosen, AnalysisCriterion):
        scored = {group.dim: chosen.score(analysis, group) for group in groups}
        raw = {dim: np.asarray(score, np.float64) for dim, score in scored.items() if score is not None}
    elif isinstance(chosen, FilterCriterion):
        parts = _filter_parts(analysis, groups, chosen)
        raw = {dim: REDUCTIONS[reduction](np.stack(each)) for dim, each in parts.items()}
    elif isinstance(chosen, WeightCriterion):
        raw = _reduced(_parts(analysis, groups, chosen), groups, REDUCTIONS[reduction])
    elif isinstance(chosen, GradientCriterion):
        parts = _gradient_parts(analysis, groups, chosen, calibration, seed)
        raw = {dim: REDUCTIONS[reduction](np.stack(each)) for dim, each in parts.items()}
    elif isinstance(chosen, DataCriterion | JointCriterion):
        found = read_parts(analysis, groups, chosen, _needed(name_of(criterion), calibration), seed)
        raw = {dim: _scored(chosen, parts, REDUCTIONS[reduction]) for dim, parts in found.items()}
        if normalize == EFFECT:
            return by_effect(analysis, raw, found, _needed(name_of(criterion), calibration))
    else:
        raise GraphPruneError("GP111", f"criterion {name_of(criterion)!r} is of no kind that there is")
    if normalize == EFFECT:
        what = f"criteria that look at activations measure the effect of entries, and {name_of(criterion)!r} does not"
        raise GraphPruneError("GP704", what, "option normalize", "take criterion='obs', or another normalization")
    return {dim: NORMALIZATIONS[normalize](score) for dim, score in raw.items()}


def _needed(criterion: str, calibration: Calibration | None) -> Calibration:
    if calibration is None:
        raise GraphPruneError("GP704", f"the criterion {criterion!r} needs calibration data", "option calibration")
    return calibration


def _scored(
    criterion: DataCriterion | JointCriterion, parts: Sequence[Part], reduce: Callable[[Array], Array]
) -> Array:
    if isinstance(criterion, JointCriterion):
        return np.asarray(criterion.together(parts), np.float64)
    return reduce(np.stack([np.asarray(criterion.entries(part), np.float64) for part in parts]))


def read_parts(
    analysis: Analysis,
    groups: Sequence[Group],
    criterion: DataCriterion | JointCriterion,
    calibration: Calibration,
    seed: int,
) -> dict[Dim, list[Part]]:
    """The layers that read each group, with what the criterion collects of their inputs."""
    wanted = {group.dim for group in groups}
    readers = [layer for layer in layers(analysis) if wanted & set(layer.read)]
    statistics = collect(analysis, readers, calibration.cases, criterion.statistic, rows=calibration.rows, seed=seed)
    norms = gains(analysis)
    found: dict[Dim, list[Part]] = {}
    for layer, statistic in statistics.items():
        weight = analysis.program.dialect.constant(layer.weight)
        matrices = layer.matrices(np.asarray(weight)).astype(np.float64)
        gain = norms.get(layer.result)
        gain = None if gain is None else gain.reshape(layer.shape[:2])
        for group in groups:
            if group.dim in layer.read:
                part = Part(layer, matrices, statistic, layer.labels(group.dim), group.size, gain)
                found.setdefault(group.dim, []).append(part)
    return found


def _gradient_parts(
    analysis: Analysis,
    groups: Sequence[Group],
    criterion: GradientCriterion,
    calibration: Calibration | None,
    seed: int,
) -> dict[Dim, list[Array]]:
    """As :func:`_parts`, for sums of products with derivatives, averaged over them where there are several."""
    total: dict[Place, Array] = {}
    count = 0
    for count, sums in enumerate(gradient_sums(analysis, groups, criterion, calibration, seed), 1):  # noqa: B007
        for place, each in sums.items():
            total[place] = total.get(place, 0) + criterion.finish(each)
    found: dict[Dim, list[Array]] = {}
    for place, score in total.items():
        found.setdefault(place[2], []).append(score / count)
    return found


Place = tuple[Value, int, Dim]
"""A weight, one of its axes, and the dimension in it."""


def gradient_sums(
    analysis: Analysis,
    groups: Sequence[Group],
    criterion: GradientCriterion,
    calibration: Calibration | None,
    seed: int,
) -> Iterator[dict[Place, Array]]:
    """For each derivative that the criterion asks for: the sums of its products with the weights, by entry ``[size]``.
    Where the criterion ``reads``, what computes an entry counts only if nothing reads it."""
    wanted = {group.dim for group in groups}
    reads = getattr(criterion, "reads", False)
    tools = tools_of(analysis.program.native)
    for derivatives in tools.derivatives(analysis.program, criterion.derivative, calibration, seed):
        found: dict[Place, Array] = {}
        reading: set[Place] = set()
        for value, contractions in _by_weight(analysis).items():
            once = _once(contractions, wanted)
            weight = analysis.program.dialect.constant(value) if once and value.name in derivatives else None
            if weight is None:
                continue
            products = criterion.products(weight, derivatives[value.name])
            for (place, dim), axis in once.items():
                others = tuple(k for k in range(products.ndim) if k != place)
                found[value, place, dim] = _entries(products.sum(axis=others, dtype=np.float64), axis, dim)
                if reads and not any(_is_output(each, place) for each in contractions):
                    reading.add((value, place, dim))
        read = {dim for _, _, dim in reading}
        yield {key: each for key, each in found.items() if key in reading or key[2] not in read}


def _once(contractions: Sequence[Contraction], wanted: set[Dim]) -> dict[tuple[int, Dim], Axis]:
    """Where the dimensions stand in a weight; one that several nodes read in the same way is one weight."""
    return {
        (place, dim): each.weight_axes[place]
        for each in contractions
        for place in range(len(each.weight_axes))
        for dim in _dims(each, place, wanted)
    }


def _filter_parts(analysis: Analysis, groups: Sequence[Group], criterion: FilterCriterion) -> dict[Dim, list[Array]]:
    """As :func:`_parts`, for scores of all numbers of an entry at once."""
    wanted = {group.dim for group in groups}
    found: dict[Dim, list[Array]] = {}
    for value, contractions in _by_weight(analysis).items():
        once = _once(contractions, wanted)
        weight = analysis.program.dialect.constant(value) if once else None
        if weight is None or weight.dtype.kind not in "fiuV" or weight.size == 0:
            continue
        bits = contractions[0].bits
        numbers = (unpacked(weight, bits) if bits else weight).astype(np.float64)
        scale, zero = factors(analysis, contractions[0])
        numbers = (numbers if zero is None else numbers - zero) * (1 if scale is None else scale)
        _check_finite(numbers, value)
        for (place, dim), axis in once.items():
            if not criterion.outputs or any(_is_output(each, place) for each in contractions):
                rows = _rows(np.moveaxis(numbers, place, 0).reshape(numbers.shape[place], -1), axis, dim)
                found.setdefault(dim, []).append(np.asarray(criterion.filters(rows), np.float64))
    return found


def _is_output(contraction: Contraction, place: int) -> bool:
    """Whether an axis of a weight is one of its outputs (or groups), as far as it is known."""
    if contraction.terms is None:
        return True
    result = {letter for axis in contraction.terms.result for letter in axis}
    return not result.isdisjoint(contraction.terms.weight[place])


def _rows(numbers: Array, axis: Axis, dim: Dim) -> Array:
    """``[positions, numbers]`` of an axis as ``[size, numbers of an entry]``."""
    assert isinstance(dim.size, int)
    found = []
    for label in labels(axis, dim):
        order = np.argsort(label, kind="stable")[np.count_nonzero(label < 0) :]
        found.append(numbers[order].reshape(dim.size, -1))
    return np.hstack(found)


def _check_finite(numbers: Array, value: Value) -> None:
    if not np.isfinite(numbers).all():
        what = "a weight has numbers that are not finite, or overflow"
        raise GraphPruneError("GP107", what, value.name, "repair it: no score can be computed")


def _reduced(parts: Mapping[Dim, list[Array]], groups: Sequence[Group], reduce: Callable[[Array], Array]) -> Scores:
    return {
        group.dim: reduce(np.stack(parts[group.dim])) if parts.get(group.dim) else np.zeros(group.size)
        for group in groups
    }


def _parts(analysis: Analysis, groups: Sequence[Group], criterion: WeightCriterion) -> dict[Dim, list[Array]]:
    """For every dimension: one vector for each axis of a contraction's weight that it runs through."""
    wanted = {group.dim for group in groups}
    found: dict[Dim, list[Array]] = {}
    for value, contractions in _by_weight(analysis).items():
        axes = [
            (contraction, place)
            for contraction in contractions
            for place, axis in enumerate(contraction.weight_axes)
            if not wanted.isdisjoint(leaves(axis))
        ]
        weight = analysis.program.dialect.constant(value) if axes else None
        if weight is None or weight.dtype.kind not in "fiuV" or weight.size == 0:
            continue
        stored = _Stored(weight, *factors(analysis, contractions[0]), contractions[0].bits)
        with np.errstate(over="ignore", invalid="ignore"):  # what comes of it is looked at in the next line
            sums = _marginals(stored, criterion, sorted({place for _, place in axes}))
        for each in sums.values():
            _check_finite(each, value)
        for (place, dim), axis in _once(contractions, wanted).items():
            found.setdefault(dim, []).append(criterion.finish(_entries(sums[place], axis, dim)))
    return found


def _by_weight(analysis: Analysis) -> dict[Value, list[Contraction]]:
    found: dict[Value, list[Contraction]] = {}
    for contraction in analysis.contractions:
        value = _operand(contraction.weight)
        if value is not None:
            found.setdefault(value, []).append(contraction)
    return found


def _operand(use: Use | None) -> Value | None:
    return None if use is None else use.node.inputs[use.index]


def _dims(contraction: Contraction, place: int, wanted: set[Dim]) -> list[Dim]:
    return [dim for dim in dict.fromkeys(leaves(contraction.weight_axes[place])) if dim in wanted]


def _entries(sums: Array, axis: Axis, dim: Dim) -> Array:
    """The sums over the positions of an axis, added up by entries of a dimension in it."""
    assert isinstance(dim.size, int)
    total = np.zeros(dim.size)
    for label in labels(axis, dim):
        inside = label >= 0
        total += np.bincount(label[inside], sums[inside], dim.size)
    return total


@dataclass(frozen=True)
class _Stored:
    """A weight as it is stored, and what makes numbers of it (see :mod:`graphprune.dequantise`)."""

    weight: Array
    scale: Array | None
    zero: Array | None
    bits: int


def _marginals(stored: _Stored, criterion: WeightCriterion, places: Sequence[int]) -> dict[int, Array]:
    """For each axis in ``places``: the worths summed over all other axes, in float64."""
    weight, factors = stored.weight, (stored.scale, stored.zero)
    sums = {place: np.zeros(weight.shape[place]) for place in places}
    for begin, end, rows in _slices(weight):
        scale, zero = (part if part is None or part.shape[0] == 1 else part[begin:end] for part in factors)
        rows = unpacked(rows, stored.bits) if stored.bits else rows
        numbers = rows.astype(np.float32, copy=False) if rows.dtype != np.float64 else rows
        if zero is not None:
            numbers = numbers - zero
        if scale is not None:
            numbers = numbers * scale
        worth = criterion.elements(numbers)
        for place in places:
            part = _over_others(worth, place)
            if place == 0:
                sums[place][begin:end] = part
            else:
                sums[place] += part
    return sums


def _over_others(worth: Array, place: int) -> Array:
    """The sums over all axes but one, in float64: first over those before it, which lie side by side in memory. NumPy
    takes three times as long for all at once where the last axes are short, as those of a kernel are."""
    before = worth.reshape(-1, math.prod(worth.shape[place:])).sum(axis=0, dtype=np.float64) if place else worth
    found: Array = before.reshape(worth.shape[place], -1).sum(axis=1, dtype=np.float64)
    return found


def _slices(weight: Array) -> Iterator[tuple[int, int, Array]]:
    rows = max(1, _SLICE // max(1, weight.size // weight.shape[0]))
    for begin in range(0, weight.shape[0], rows):
        yield begin, begin + rows, weight[begin : begin + rows]
