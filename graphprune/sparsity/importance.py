"""How important single weights are: what a criterion that scores channels sums up, before the sum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphprune.analysis import Analysis
from graphprune.calibrate import Calibration, Moments, Statistic, collect
from graphprune.criteria import CRITERIA, GradientCriterion, WeightCriterion
from graphprune.criteria.custom import criterion_of, name_of
from graphprune.dialects import tools_of
from graphprune.errors import GraphPruneError
from graphprune.layers import Layer
from graphprune.program import Array


@dataclass(eq=False)
class Importance:
    """The importance of the weights of some layers."""

    criterion: Any
    statistics: Mapping[Layer, Statistic] = field(default_factory=dict)
    derivatives: Mapping[str, Array] = field(default_factory=dict)

    def of(self, layer: Layer) -> Array:
        """For every weight, not negative: ``[groups, outputs, taps, channels]`` in float64."""
        assert layer.stored is not None
        weight = layer.stored.read().astype(np.float64)
        if isinstance(self.criterion, WeightCriterion):
            return layer.cubes(np.asarray(self.criterion.elements(weight), np.float64))
        if isinstance(self.criterion, GradientCriterion):
            return layer.cubes(self.derivatives[layer.stored.name].reshape(weight.shape))
        groups, _, inputs = layer.shape
        moments = self.statistics[layer]
        assert isinstance(moments, Moments)
        norm = np.sqrt(moments.second).reshape(groups, 1, inputs // layer.taps, layer.taps).swapaxes(2, 3)
        cubes: Array = np.abs(layer.cubes(weight)) * norm
        return cubes


def importance(
    analysis: Analysis, layers: Sequence[Layer], criterion: Any, calibration: Calibration | None, seed: int
) -> Importance:
    """What a criterion makes of single weights.

    criterion: a name of `graphprune.criteria` or an object: a criterion of weights, one of gradients (the size of its
               products, averaged over derivatives), or ``wanda``, ``|w| sqrt(E[x^2])``
    Raises GraphPruneError: GP106 for names that are not known; GP704 where the criterion says nothing about single
    weights, or needs data that is not there; GP402, GP701 and GP703 for the data.
    """
    chosen = criterion_of(criterion)
    if isinstance(chosen, WeightCriterion):
        return Importance(chosen)
    if isinstance(chosen, GradientCriterion):
        return Importance(chosen, derivatives=_gradients(analysis, layers, chosen, calibration, seed))
    if getattr(chosen, "name", "") != "wanda":
        what = f"the criterion {name_of(criterion)} scores channels and says nothing about single weights"
        raise GraphPruneError("GP704", what, "option criterion", f"choose one of {', '.join(single_weights())}")
    if calibration is None:
        what = "the criterion wanda needs calibration data"
        raise GraphPruneError("GP704", what, "option criterion", "give calibration data, or choose l2")
    statistics = collect(analysis, layers, calibration.cases, lambda layer: Moments(), rows=calibration.rows, seed=seed)
    return Importance(chosen, statistics)


def single_weights() -> list[str]:
    """The names of the criteria that say something about single weights."""
    kinds = (WeightCriterion, GradientCriterion)
    return [name for name in CRITERIA.builtin if name == "wanda" or isinstance(CRITERIA.load(name)(), kinds)]


def _gradients(
    analysis: Analysis,
    layers: Sequence[Layer],
    criterion: GradientCriterion,
    calibration: Calibration | None,
    seed: int,
) -> dict[str, Array]:
    """The size of the criterion's products, by the name of the weight, averaged over the derivatives there are."""
    stored = {layer.stored.name: layer.stored for layer in layers if layer.stored is not None}
    tools, found, count = tools_of(analysis.program.native), dict[str, Array](), 0
    for count, by_name in enumerate(  # noqa: B007  # it is what the sums are divided by
        tools.derivatives(analysis.program, criterion.derivative, calibration, seed), 1
    ):
        for name, each in stored.items():
            weight = each.read().astype(np.float64)
            worth = np.abs(criterion.products(weight, by_name[name].reshape(weight.shape)))
            found[name] = found[name] + worth if name in found else worth
    return {name: worth / max(1, count) for name, worth in found.items()}
