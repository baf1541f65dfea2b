"""Channels in another order before zeros are chosen, so that a format which keeps some of every few inputs keeps more
of what counts (Pool & Yu, Channel Permutations for N:M Sparsity, NeurIPS 2021).

The entries of a group may stand in any order, as long as it is the same in every tensor that the group runs through:
the network computes the same, but for the order in which sums are added up. One order serves all layers that read the
group; :mod:`graphprune.sparsity.stripes` looks for the one with which these keep the most together. Which groups there
are, and what moves along, is the analysis' business, so that heads, groups of convolutions and what is shared among
them are moved as they may be moved, or not at all. Knows no framework.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphprune.analysis import Analysis, Group
from graphprune.calibrate import Calibration
from graphprune.criteria import GroupCriterion
from graphprune.dialects import tools_of
from graphprune.dialects.tools import Model
from graphprune.dims import Dim, leaves
from graphprune.errors import GraphPruneError
from graphprune.formats.format import Format
from graphprune.formats.slots import Slots
from graphprune.kept import indices
from graphprune.layers import Layer
from graphprune.plan import named
from graphprune.program import Array
from graphprune.sparsity.choose import Scored, score
from graphprune.sparsity.stripes import Reader, best_order

_ROUNDS = 2
"""How often groups are looked at whose layers read (or make, where outputs share a pattern) several groups."""
_MOST_NAMED = 3


@dataclass(frozen=True, eq=False)
class Ordered:
    """A network in another order.

    model:  of the type that went in, with the same names, shapes and outputs
    keep:   for each dimension that moved, which old entry stands at each place
    orders: the same by the name of the group
    before, after: the importance that zeros would leave in either order, as shares of all
    left:   groups that layers with zeros read and that stay in their order, with the reason
    """

    model: Model
    keep: Mapping[Dim, Array]
    orders: Mapping[str, tuple[int, ...]]
    before: float
    after: float
    left: Mapping[str, str] = field(default_factory=dict)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a report says of it."""
        found = f"{len(self.orders)} of {len(self.orders) + len(self.left)} groups in another order"
        told = [f"permutation: {found}, {self.before:.2%} -> {self.after:.2%} of the importance kept"]
        by_reason: dict[str, list[str]] = {}
        for name, reason in self.left.items():
            by_reason.setdefault(reason, []).append(name)
        for reason, names in by_reason.items():
            more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
            told.append(f"in their order: {', '.join(names[:_MOST_NAMED])}{more}: {reason}")
        return tuple(told)


def slots(form: Format) -> Slots:
    """A format as one whose zeros are worth more in another order of channels. Raises GraphPruneError GP107."""
    if isinstance(form, Slots):
        return form
    what = f"{form} does not keep some of every few inputs, so that their order changes nothing"
    raise GraphPruneError("GP107", what, "option permute", "leave it out, or choose N:M, N:M/V or balanced/M")


def ordered(
    analysis: Analysis,
    *,
    held: Callable[[Group], str] | None = None,
    criterion: Any = "l2",
    seed: int = 0,
    calibration: Calibration | None = None,
    **choice: Any,
) -> Ordered:
    """The order in which the zeros that these options of :func:`graphprune.sparsity.run.sparsify` ask for leave the
    most importance, and the model in it, unverified.

    held: why a group must stay in its order, where more than the analysis speaks against it; empty where nothing does
    Raises GraphPruneError: GP107 where the format or the criterion knows no better order; otherwise as
    :func:`graphprune.sparsity.choose.choose`.
    """
    scored = score(analysis, **choice, criterion=criterion, seed=seed, calibration=calibration)
    form = slots(scored.format)
    if isinstance(scored.worth.criterion, GroupCriterion):
        what = f"the criterion {scored.worth.name} is drawn for places, whatever stands there"
        raise GraphPruneError("GP107", what, "option permute", "leave it out, or choose another criterion")
    search = _Search(analysis, scored, form, held)
    before = search.share
    search.run()
    orders = {name: tuple(search.keep[group.dim].tolist()) for name, group in search.groups if group.dim in search.keep}
    model = tools_of(analysis.program.native).write(analysis, search.keep)
    return Ordered(model, search.keep, orders, before, search.share, search.left)


class _Search:
    """Orders of the groups, one after the other, each as the others are by then.

    keep:   which old entry stands at each place, of the dimensions that moved
    left:   why groups stay in their order
    """

    def __init__(self, analysis: Analysis, scored: Scored, format: Slots, held: Callable[[Group], str] | None):
        self.scored, self.format, self.held = scored, format, held
        self.groups = [(name, group) for name, group in named(analysis).items() if self._reading(group.dim)]
        self.keep: dict[Dim, Array] = {}
        self.left: dict[str, str] = {}
        self.every, self.kept = 0.0, dict[Layer, float]()
        for layer in scored.layers:
            worth = scored.worth.of(layer)
            self.every += float(worth.sum())
            self.kept[layer] = self._kept(layer, worth)

    @property
    def share(self) -> float:
        """The share of all importance that masks leave."""
        return sum(self.kept.values()) / (self.every or 1.0)

    def run(self) -> None:
        """Order every group, and once more those whose best order depends on others."""
        for round in range(_ROUNDS):
            for name, group in self.groups:
                if round == 0 or self._depends(group.dim):
                    reason = self._order(group)
                    if reason and group.dim not in self.keep:
                        self.left[name] = reason
                    elif not reason:
                        self.left.pop(name, None)

    def _order(self, group: Group) -> str:
        """Find the best order of a group; why it stays as it is, where it does."""
        reason = self.held(group) if self.held is not None else ""
        if reason:
            return reason
        dim = group.dim
        reading = self._reading(dim)
        touched = reading if self.format.vector == 1 else [each for each in self.kept if dim in _dims(each)]
        worth = {layer: self.scored.worth.of(layer) for layer in touched}
        readers = [each for layer in reading for each in self._readers(layer, dim, worth[layer])]
        if not readers:
            return f"its entries stand more than once in a group of {self.format.group} inputs"
        now = self.keep.get(dim, np.arange(group.size))
        moved = {**self.keep, dim: now[best_order(readers, group.size)]}
        after = {layer: self._kept(layer, _moved(layer, worth[layer], moved)) for layer in touched}
        if sum(after.values()) <= sum(self.kept[layer] for layer in touched):
            return "no order that was found keeps more"
        self.keep = moved
        self.kept |= after
        return ""

    def _reading(self, dim: Dim) -> list[Layer]:
        """The layers with zeros that sum over a dimension."""
        return [layer for layer in self.scored.layers if layer.entries(dim, layer.inputs)]

    def _depends(self, dim: Dim) -> bool:
        """Whether the best order of a dimension depends on that of others."""
        others = {group.dim for _, group in self.groups} - {dim}
        for layer in self.scored.layers:
            beside = _dims(layer) & others
            if dim in _dims(layer) and beside and self.format.vector > 1:
                return True
            if layer.entries(dim, layer.inputs) and any(layer.entries(each, layer.inputs) for each in beside):
                return True
        return False

    def _kept(self, layer: Layer, worth: Array) -> float:
        """What masks leave of what the weights of a layer are worth."""
        masks = self.scored.masks(layer, worth)
        return sum(float(each[mask].sum()) for each, mask in zip(worth, masks, strict=True))

    def _readers(self, layer: Layer, dim: Dim, worth: Array) -> Iterator[Reader]:
        """The rows of a layer that read the entries of a dimension, for each time that they stand in a row. None where
        what happens at one of them depends on what happens at another: they share stripes."""
        spots = np.concatenate([_spots(each[:: layer.taps]) for each in layer.entries(dim, layer.inputs)])
        stripes = [set((each // self.format.group).tolist()) for each in spots]
        if sum(map(len, stripes)) > len(set().union(*stripes)):
            return
        now = _moved(layer, worth, self.keep)
        for each, share in zip(now, self.scored.shares_of(layer), strict=True):
            sums = self.format.vectors(each, 0.0).sum(axis=1)  # [bands, taps, stripes, M]
            columns = np.ascontiguousarray(sums.transpose(2, 3, 0, 1).reshape(-1, len(sums) * sums.shape[1]))
            quotas = self.format.quotas(each.shape[2], self.format.slots(share))
            for places in spots:
                yield Reader(columns.copy(), quotas, places)


def _dims(layer: Layer) -> set[Dim]:
    return {leaf for axis in layer.contraction.weight_axes for leaf in leaves(axis)}


def _moved(layer: Layer, worth: Array, keep: Mapping[Dim, Array]) -> Array:
    """What the weights of a layer are worth in another order, ``[groups, outputs, taps, channels]``."""
    if not _dims(layer) & keep.keys():
        return worth
    places = [indices(axis, keep) for axis in layer.contraction.weight_axes]
    return layer.cubes(layer.from_cubes(worth)[np.ix_(*places)])


def _spots(label: Array) -> Array:
    """For each time that entries stand in an axis where each of them stands, ``[times, entries]``.

    >>> _spots(np.array([-1, 0, 1, 0, 1])).tolist()
    [[1, 2], [3, 4]]
    """
    at = np.flatnonzero(label >= 0)
    by_entry = at[np.argsort(label[at], kind="stable")]
    return by_entry.reshape(int(label.max()) + 1, -1).T
