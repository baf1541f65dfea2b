"""How important single weights are: what a criterion that scores channels sums up, before the sum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphprune.analysis import Analysis
from graphprune.calibrate import Calibration, Gram, Moments, Statistic, collect
from graphprune.criteria import CRITERIA, GradientCriterion, GroupCriterion, WeightCriterion
from graphprune.criteria.custom import criterion_of, name_of
from graphprune.criteria.obs import damped, inverse
from graphprune.dialects import tools_of
from graphprune.errors import GraphPruneError
from graphprune.layers import Layer
from graphprune.program import Array
from graphprune.sparsity.columns import Columns

_OF_DATA: dict[str, type[Moments] | type[Gram]] = {"wanda": Moments, "obs": Gram}
"""Criteria that look at activations and say something about single weights, and what they collect."""


@dataclass(eq=False)
class Importance:
    """The importance of the weights of some layers.

    together: consecutive inputs that are removed together
    """

    criterion: Any
    statistics: Mapping[Layer, Statistic] = field(default_factory=dict)
    derivatives: Mapping[str, Array] = field(default_factory=dict)
    together: int = 1
    seed: int = 0

    @property
    def name(self) -> str:
        """Of the criterion."""
        return str(getattr(self.criterion, "name", ""))

    def of(self, layer: Layer) -> Array:
        """For every weight, not negative: ``[groups, outputs, taps, channels]`` in float64."""
        assert layer.stored is not None
        weight = layer.stored.read().astype(np.float64)
        if isinstance(self.criterion, WeightCriterion):
            return layer.cubes(np.asarray(self.criterion.elements(weight), np.float64))
        if isinstance(self.criterion, GroupCriterion):
            drawn = self.criterion.group(layer.stored.name, weight.size, self.seed)
            return layer.cubes(np.asarray(drawn, np.float64).reshape(weight.shape))
        if isinstance(self.criterion, GradientCriterion):
            return layer.cubes(self.derivatives[layer.stored.name].reshape(weight.shape))
        groups, _, inputs = layer.shape
        moments = self.statistics[layer]
        if isinstance(moments, Gram):
            return self._surgeon(layer, layer.cubes(weight), moments)
        assert isinstance(moments, Moments)
        norm = np.sqrt(moments.second).reshape(groups, 1, inputs // layer.taps, layer.taps).swapaxes(2, 3)
        cubes: Array = np.abs(layer.cubes(weight)) * norm
        return cubes

    def _surgeon(self, layer: Layer, cubes: Array, gram: Gram) -> Array:
        columns, found = Columns(cubes.shape[2], cubes.shape[3], self.together), np.empty_like(cubes)
        for group, second in enumerate(gram.matrix / max(1, gram.count)):
            inverted = inverse(damped(second, self.criterion.dampening))[np.ix_(columns.order, columns.order)]
            flat = cubes[group].reshape(len(cubes[group]), -1)
            found[group] = columns.losses(flat, inverted).reshape(cubes[group].shape)
        return found


def importance(
    analysis: Analysis,
    layers: Sequence[Layer],
    criterion: Any,
    calibration: Calibration | None,
    seed: int,
    together: int = 1,
) -> Importance:
    """What a criterion makes of single weights.

    criterion: a name of `graphprune.criteria` or an object: a criterion of weights, one of gradients (its score of an
               entry that has this weight alone), ``random`` (drawn for each weight, from the seed and the name of the
               tensor), ``wanda``, ``|w| sqrt(E[x^2])``, or ``obs``, ``w_S' [(H^-1)_SS]^-1 w_S`` for the inputs S that
               are removed together, with ``H = E[x x']`` (of one ``w^2 / (H^-1)_jj``)
    Raises GraphPruneError: GP106 for names that are not known; GP704 where the criterion says nothing about single
    weights, or needs data that is not there; GP402, GP701 and GP703 for the data.
    """
    chosen = criterion_of(criterion)
    if isinstance(chosen, WeightCriterion | GroupCriterion):
        return Importance(chosen, seed=seed)
    if isinstance(chosen, GradientCriterion):
        return Importance(chosen, derivatives=_gradients(analysis, layers, chosen, calibration, seed))
    name = str(getattr(chosen, "name", ""))
    if name not in _OF_DATA:
        what = f"the criterion {name_of(criterion)} scores channels and says nothing about single weights"
        raise GraphPruneError("GP704", what, "option criterion", f"choose one of {', '.join(single_weights())}")
    if calibration is None:
        what = f"the criterion {name} needs calibration data"
        raise GraphPruneError("GP704", what, "option criterion", "give calibration data, or choose l2")
    kind, rows = _OF_DATA[name], calibration.rows
    statistics = collect(analysis, layers, calibration.cases, lambda layer: kind(), rows=rows, seed=seed)
    return Importance(chosen, statistics, together=together)


def single_weights() -> list[str]:
    """The names of the criteria that say something about single weights."""
    kinds = (WeightCriterion, GradientCriterion, GroupCriterion)
    return [name for name in CRITERIA.builtin if name in _OF_DATA or isinstance(CRITERIA.load(name)(), kinds)]


def _gradients(
    analysis: Analysis,
    layers: Sequence[Layer],
    criterion: GradientCriterion,
    calibration: Calibration | None,
    seed: int,
) -> dict[str, Array]:
    """The scores of single weights, by the name of the tensor, averaged over the derivatives there are.

    Formats take numbers from 0 on. Where scores have a sign that means something (GraSP removes what lowers the norm of
    the gradient before what raises it), the lowest of the network is subtracted from all: the order stays, within
    layers and among them.
    """
    stored = {layer.stored.name: layer.stored for layer in layers if layer.stored is not None}
    tools, found, count = tools_of(analysis.program.native), dict[str, Array](), 0
    for count, by_name in enumerate(  # noqa: B007  # it is what the sums are divided by
        tools.derivatives(analysis.program, criterion.derivative, calibration, seed), 1
    ):
        for name, each in stored.items():
            weight = each.read().astype(np.float64)
            products = criterion.products(weight, by_name[name].reshape(weight.shape))
            score = np.asarray(criterion.finish(products.reshape(-1)), np.float64)
            found[name] = found[name] + score if name in found else score
    lowest = min((float(each.min()) for each in found.values() if each.size), default=0.0)
    return {name: (score - min(0.0, lowest)) / max(1, count) for name, score in found.items()}
