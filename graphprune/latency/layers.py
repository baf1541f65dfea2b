"""The layers whose time depends on widths, and the widths at which it is asked for.

A layer is a node that contracts: its time is a function of what it reduces, of what it makes, and of what both operands
carry. Each of these is a *side*, a product of extents, which all its dimensions move together. The grid of a layer is
the product of those of its sides.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from graphprune.allocate.bounds import Bound
from graphprune.analysis import Group
from graphprune.cost import Costing
from graphprune.dims import Axis, Dim, leaves
from graphprune.program import Contraction, Node, Slot, Use, Value
from graphprune.sizes import Extent

STEPS = 8
"""Widths of a group that are looked at: its eighths."""
_MANY, _COARSE = 3, 4
"""Where a layer has so many sides, it is looked at at fewer widths."""

Widths = Mapping[Dim, int]


@dataclass(frozen=True, eq=False)
class Layer:
    """One node at certain sizes.

    shapes:  of its inputs, by place; None where one is absent
    numbers: those of its attributes that follow a cut
    """

    node: Node
    shapes: tuple[tuple[int, ...] | None, ...]
    numbers: Mapping[Slot, int] = field(default_factory=dict)

    @property
    def attributes(self) -> dict[str, object]:
        """The attributes of the node, with its numbers at these sizes."""
        found = dict(self.node.attributes)
        for slot, number in self.numbers.items():
            name, value = str(slot.key), found.get(str(slot.key))
            if slot.index is None:
                found[name] = number
            elif isinstance(value, list | tuple):
                found[name] = [number if place == slot.index else each for place, each in enumerate(value)]
        return found

    def __str__(self) -> str:
        """What a table calls it: all that its time depends on, and no name."""
        given = [f"{name}={value}" for name, value in sorted(self.attributes.items()) if _is_plain(value)]
        inputs = [
            "-" if shape is None or value is None else f"{_dtype(value)}[{','.join(map(str, shape))}]"
            for value, shape in zip(self.node.inputs, self.shapes, strict=True)
        ]
        return " ".join([f"{self.node.op}-{self.node.version}", *given, *inputs])


def _is_plain(value: object) -> bool:
    """Whether an attribute is made of numbers and text, and does not refer to an input."""
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return isinstance(value, int | float | str)


def _dtype(value: Value) -> str:
    return (value.stored.dtype if value.stored is not None else value.dtype).lower()


@dataclass(frozen=True, eq=False)
class Side:
    """Dimensions that move together. axes: those whose sizes, multiplied, are its extent; grid: widths, ascending."""

    axes: tuple[Axis, ...]
    dims: frozenset[Dim]
    grid: tuple[Widths, ...] = ()


@dataclass(frozen=True, eq=False)
class Shape:
    """A node and its sides: the layers that it can become."""

    node: Node
    sides: tuple[Side, ...]
    numbers: Mapping[Slot, Extent] = field(repr=False)
    costing: Costing = field(repr=False)

    @cached_property
    def dims(self) -> frozenset[Dim]:
        """Everything that its time depends on."""
        return frozenset().union(*(side.dims for side in self.sides))

    @cached_property
    def extents(self) -> list[list[int]]:
        """By side: its extent at each point of its grid, ascending."""
        return [[self.costing.product(side.axes, widths) for widths in side.grid] for side in self.sides]

    @cached_property
    def _factors(self) -> list[tuple[int, ...]]:
        return [self.costing.factors(side.axes) for side in self.sides]

    def at(self, widths: Widths) -> tuple[int, ...]:
        """The extents of its sides."""
        return tuple(self.costing.multiplied(factors, widths) for factors in self._factors)

    def layers(self) -> Iterator[Layer]:
        """The layer at every point of the grid, the last side fastest."""
        for points in itertools.product(*(side.grid for side in self.sides)):
            yield self.layer({dim: width for point in points for dim, width in point.items()})

    def layer(self, widths: Widths) -> Layer:
        """The layer at these widths."""
        analysis = self.costing.analysis
        shapes = []
        for place, value in enumerate(self.node.inputs):
            axes = None if value is None else analysis.trace.typed(value, Use(self.node, place)).axes
            shapes.append(None if axes is None else tuple(self.costing.product([axis], widths) for axis in axes))
        numbers = {slot: self.costing.product([size], widths) for slot, size in self.numbers.items()}
        return Layer(self.node, tuple(shapes), numbers)


def shapes_of(costing: Costing, groups: Sequence[Group], bounds: Mapping[Dim, Bound]) -> list[Shape]:
    """Every node that contracts and depends on the width of a group, in file order.

    bounds: of the groups, as :func:`coarser` makes them
    Nodes with bodies, and those whose sizes stand in stored tensors, are none: what they take is part of the rest.
    """
    sizes = {group.dim: group.size for group in groups}
    numbers: dict[Node, dict[Slot, Extent]] = {}
    for slot, size in costing.analysis.bindings.items():
        numbers.setdefault(slot.node, {})[slot] = size
    by_node: dict[Node, list[Contraction]] = {}
    for contraction in costing.analysis.contractions:
        by_node.setdefault(contraction.node, []).append(contraction)
    found = []
    for node, contractions in by_node.items():
        own = numbers.get(node, {})
        sides = _merged(side for each in contractions for side in _sides(each, sizes.keys()))
        if sides and not node.blocks and all(isinstance(slot.key, str) for slot in own):
            steps = STEPS if len(sides) < _MANY else _COARSE
            with_grids = tuple(replace(side, grid=_grid(side, sizes, bounds, steps)) for side in sides)
            found.append(Shape(node, with_grids, own, costing))
    return found


def coarser(groups: Sequence[Group], bounds: Mapping[Dim, Bound]) -> dict[Dim, Bound]:
    """Bounds that allow only widths that are in a grid: about :data:`STEPS` of each group."""
    found = {}
    for group in groups:
        bound = bounds[group.dim]
        step = -(-math.ceil(group.size / STEPS) // bound.step) * bound.step
        found[group.dim] = Bound(min(group.size, -(-bound.least // step) * step), step)
    return found


def _sides(contraction: Contraction, known: Collection[Dim]) -> Iterator[Side]:
    for axes in (contraction.reduced, contraction.out, contraction.stationary):
        moving = tuple(axis for axis in axes if any(leaf in known for leaf in leaves(axis)))
        if moving:
            yield Side(moving, frozenset(leaf for axis in moving for leaf in leaves(axis) if leaf in known))


def _merged(sides: Iterable[Side]) -> list[Side]:
    """Sides that have a dimension in common are one, and so are all beyond the third."""
    found: list[Side] = []
    for side in sides:
        joined = [each for each in found if each.dims & side.dims] or found[_MANY - 1 :]
        found = [each for each in found if each not in joined]
        axes = dict.fromkeys(axis for each in (*joined, side) for axis in each.axes)
        found.append(Side(tuple(axes), side.dims.union(*(each.dims for each in joined))))
    return found


def _grid(side: Side, sizes: Mapping[Dim, int], bounds: Mapping[Dim, Bound], most: int) -> tuple[Widths, ...]:
    """From the narrowest to the full size: the dimension of the least share of its size goes one width up, in turns. A
    side of several has more widths than each of them, and is looked at at twice as many."""
    widths = {dim: bounds[dim].least for dim in sorted(side.dims, key=list(sizes).index)}
    found = [dict(widths)]
    while narrower := [dim for dim in widths if widths[dim] < sizes[dim]]:
        dim = min(narrower, key=lambda each: widths[each] / sizes[each])
        widths[dim] = min(sizes[dim], widths[dim] + bounds[dim].step)
        found.append(dict(widths))
    most *= 1 if len(widths) == 1 else 2
    places = range(len(found)) if len(found) <= most else np.linspace(0, len(found) - 1, most).round().astype(int)
    return tuple(found[place] for place in places)
