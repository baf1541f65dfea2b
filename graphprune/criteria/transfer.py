"""From elements to groups: the one place where saliencies of weights become scores of coupled entries.

For each contraction of a group the elements of its weight that belong to an entry are summed; the contractions of the
group are then reduced to one score, and the scores of a group normalised, so that groups can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from graphprune.analysis import Analysis, Group
from graphprune.criteria.criterion import Criterion
from graphprune.dims import Axis, Dim, labels, leaves
from graphprune.program import Array, Contraction, Use

REDUCTIONS: dict[str, Callable[[Array], Array]] = {
    "sum": lambda each: each.sum(axis=0),
    "mean": lambda each: each.mean(axis=0),
    "max": lambda each: each.max(axis=0),
    "l2": lambda each: np.sqrt(np.square(each).sum(axis=0)),
}


def _lamp(scores: Array) -> Array:
    """``s_i^2 / sum of s_j^2 over all j with s_j >= s_i`` (Lee et al. 2021, "Layer-adaptive Sparsity")."""
    order = np.argsort(scores, kind="stable")
    squares = np.square(scores[order])
    result = np.empty_like(scores)
    result[order] = squares / np.maximum(np.cumsum(squares[::-1])[::-1], np.finfo(np.float64).tiny)
    return result


def _scaled(by: Callable[[Array], Any]) -> Callable[[Array], Array]:
    return lambda scores: scores / max(float(by(scores)), np.finfo(np.float64).tiny)


NORMALIZATIONS: dict[str, Callable[[Array], Array]] = {
    "none": lambda scores: scores,
    "sum": _scaled(np.sum),
    "mean": _scaled(np.mean),
    "max": _scaled(np.max),
    "standard": lambda scores: (scores - scores.mean()) / max(float(scores.std()), 1e-12),
    "lamp": _lamp,
}


def group_scores(
    analysis: Analysis,
    groups: Iterable[Group],
    criterion: Criterion,
    *,
    reduction: str = "mean",
    normalize: str = "mean",
    seed: int = 0,
) -> dict[Dim, Array]:
    """Scores of every entry of every group, shape ``[size]``; entries with low scores go first."""
    found: dict[Dim, list[Array]] = {group.dim: [] for group in groups}
    for contraction in analysis.contractions:
        dims = {leaf for axis in contraction.weight_axes for leaf in leaves(axis)} & set(found)
        if contraction.weight is None or not dims:
            continue
        weight = weight_of(analysis, contraction)
        elements = None if weight is None else criterion.elements(weight)
        if elements is not None:
            for dim, sums in _sums(elements, contraction.weight_axes, dims).items():
                found[dim].append(criterion.entry(sums))
    scores = {}
    for group in groups:
        each = found[group.dim] or [criterion.scores(group.name, group.size, seed)]
        scores[group.dim] = NORMALIZATIONS[normalize](REDUCTIONS[reduction](np.stack(each)))
    return scores


def weight_of(analysis: Analysis, contraction: Contraction) -> Array | None:
    """The weight of a contraction as real numbers, in the layout of its axes; quantised weights are dequantised."""
    constant = analysis.program.dialect.constant

    def operand(use: Use | None) -> Array | None:
        value = None if use is None else use.node.inputs[use.index]
        return None if value is None else constant(value)

    weight = operand(contraction.weight)
    if weight is None or weight.ndim != len(contraction.weight_axes):
        return None
    weight = weight.astype(np.float64)
    for use, apply in ((contraction.zero_point, np.subtract), (contraction.scale, np.multiply)):
        number = operand(use)
        if number is not None and number.size == 1:
            weight = apply(weight, float(number.reshape(())))
        elif number is not None:
            place = next((k for k, size in enumerate(weight.shape) if size == number.size), None)
            if place is not None:
                weight = apply(weight, number.reshape([-1 if k == place else 1 for k in range(weight.ndim)]))
    return weight


def _sums(elements: Array, axes: tuple[Axis, ...], dims: set[Dim]) -> dict[Dim, Array]:
    """The sum over the elements of every entry of every dimension, each axis summed once."""
    found: dict[Dim, Array] = {}
    for place, axis in enumerate(axes):
        present = dims & set(leaves(axis))
        if not present:
            continue
        along = elements.sum(axis=tuple(k for k in range(elements.ndim) if k != place))
        for dim in present:
            assert isinstance(dim.size, int)
            for label in labels(axis, dim):
                inside = label >= 0
                sums = np.bincount(label[inside], along[inside], minlength=dim.size)
                found[dim] = found[dim] + sums if dim in found else sums
    return found
