"""The time of a network at any widths, by a table: that of the dense one, less what its layers save.

A layer can always be run wider than it is asked for, with zeros, so it is worth no more than the fastest layer in its
table that is at least as wide: going from the wide end, a width counts as faster only where it is (by more than
:data:`NOISE`). Times are monotone in widths then, a width that is slower than a larger one never pays, and what
allocators are given back for nothing takes them to the right-most point of a step. Extents between points of the grid
are interpolated.

What is in no table (pools, sums that the runtime does not fuse, changes of layout) is taken for proportional to the
number of activations. And layers in a network are not layers alone: how much of what they save is saved in the network
is one number, measured on whole networks, at last on the one that was planned.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence

import numpy as np

from graphprune.cost import Costing
from graphprune.dims import Axis, Dim
from graphprune.latency.layers import Shape, Widths
from graphprune.latency.table import Table
from graphprune.program import Array
from graphprune.sizes import Extent

NOISE = 0.03
"""The share by which a narrower layer has to be faster, to count as faster at all."""

_ACTIVATIONS = "activations"


class Latency:
    """Picoseconds at any widths: whole numbers, so that a cost and its changes agree.

    shapes: the layers, all of whose times are in the table
    dense:  picoseconds of the whole network, uncut
    """

    def __init__(self, costing: Costing, shapes: Sequence[Shape], table: Table, dense: int):
        self.machine = table.machine
        self.dense = dense
        self.share = 1.0
        """How much of what the layers save is saved in the network."""
        self._costing = costing
        self._shapes = shapes
        self._alone = _envelopes(shapes, table)
        self._users: dict[Dim, list[int]] = {}
        for place, shape in enumerate(shapes):
            for dim in shape.dims:
                self._users.setdefault(dim, []).append(place)
        costing.count(_ACTIVATIONS, _results(costing))
        layers = sum(int(times.flat[-1]) for times in self._alone)
        self._beside = max(0.0, (dense - layers) / max(1, costing.cost(_ACTIVATIONS, {})))
        self.scale(min(1.0, dense / max(1, layers)))

    def fit(self, widths: Widths, measured: int) -> None:
        """From here on, the network of these widths takes what was measured; no width makes it slower for that."""
        saved = self.dense - self.cost(widths)
        if saved > 0:
            self.scale(max(0.0, self.share * (self.dense - measured) / saved))

    def scale(self, share: float) -> None:
        """From here on, so much of what layers save is saved in the network."""
        self.share = share
        self._times = [np.rint(times * share).astype(np.int64) for times in self._alone]
        self._slope = round(self._beside * share)
        self._known: list[dict[tuple[int, ...], int]] = [{} for _ in self._shapes]
        self._constant = 0
        self._constant = self.dense - self.cost({})

    def cost(self, widths: Widths) -> int:
        """The time of one run at these widths."""
        beside = self._constant + self._slope * self._costing.cost(_ACTIVATIONS, widths)
        return beside + sum(self.layer(place, widths) for place in range(len(self._shapes)))

    def change(self, dim: Dim, width: int, widths: Widths) -> int:
        """What it changes by when one dimension goes from its width in ``widths`` to ``width``."""
        changed = {**widths, dim: width}
        total = self._slope * self._costing.change(_ACTIVATIONS, dim, width, widths)
        for place in self._users.get(dim, ()):
            total += self.layer(place, changed) - self.layer(place, widths)
        return total

    def layer(self, place: int, widths: Widths) -> int:
        """What one of the layers takes of it."""
        known, extents = self._known[place], self._shapes[place].at(widths)
        if extents not in known:
            known[extents] = _interpolated(self._times[place], self._shapes[place].extents, extents)
        return known[extents]


def _results(costing: Costing) -> Iterator[Sequence[Axis | Extent]]:
    """The axes of all that is computed."""
    for value, typed in costing.analysis.trace.types.items():
        if value.stored is None and value.producer is not None and typed.axes is not None:
            yield typed.axes


def _envelopes(shapes: Sequence[Shape], table: Table) -> list[Array]:
    """For each shape its times on the grid, those of a wider one where they are not faster; equal ones once."""
    found: dict[tuple[str, ...], Array] = {}
    made = []
    for shape in shapes:
        keys = tuple(map(str, shape.layers()))
        if keys not in found:
            times = np.array([table.picoseconds(key) for key in keys], np.int64)
            times = times.reshape([len(side.grid) for side in shape.sides])
            for axis in range(times.ndim):
                times = np.apply_along_axis(steps, axis, times)
            for axis in range(times.ndim):  # what is noise in one axis must not undo the order in another
                times = np.maximum.accumulate(times, axis)
            found[keys] = times
        made.append(found[keys])
    return made


def steps(times: Array) -> Array:
    """Times by width, ascending, as a staircase.

    >>> steps(np.array([40, 55, 50, 80, 99, 98, 100])).tolist()
    [40, 50, 50, 80, 100, 100, 100]
    """
    found = times.copy()
    for place in range(len(times) - 2, -1, -1):
        if found[place] > found[place + 1] * (1 - NOISE):
            found[place] = found[place + 1]
    return found


def _interpolated(times: Array, grid: Sequence[Sequence[int]], extents: Sequence[int]) -> int:
    """Linear between two points in each axis; beyond the ends as at the ends."""
    found: Array = times.astype(np.float64)
    for known, extent in zip(grid, extents, strict=True):
        above = min(bisect.bisect_left(known, extent), len(known) - 1)
        below = above if known[above] <= extent else max(above - 1, 0)
        share = (extent - known[below]) / (known[above] - known[below]) if above > below else 0.0
        found = found[below] * (1 - share) + found[above] * share if share else found[above]
    return round(float(found))
