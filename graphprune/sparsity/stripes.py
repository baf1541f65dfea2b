"""In which order columns keep the most where a format keeps some of every few: swaps between stripes, with exact gains.

A stripe is M consecutive columns of which every row keeps the q largest. Columns that trade places change only the
stripes that they stand in, and what a stripe keeps when one column takes the place of another is, summed over rows,
``t + max(v, h) - h``: v of the new column, t the q largest of those that stay in the stripe, h the q-th of them. So
every swap of two columns is known from one sum for each place and column. The best swap is made, then the best among
stripes that it did not touch, and so on; until no swap gains anything (Pool & Yu, Channel Permutations for N:M
Sparsity, NeurIPS 2021). That is an optimum among swaps, not among orders. Knows NumPy and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphprune.program import Array

_WINDOW = 512
"""Columns that may trade places at a time: what is compared grows with their square."""
_WORK = 2**36
"""Numbers that are compared at most for one group: some two minutes on one core."""
_CACHE = 2**17
"""Numbers that are compared at once, so that they stay near the processor."""
_GAIN = 1e-9
"""The least share of all that is kept for which columns are swapped: above rounding, so that it ends."""


@dataclass(frozen=True, eq=False)
class Reader:
    """One set of rows that read the columns.

    columns: what their entries are worth, ``[columns, rows]``, not negative; whole stripes, with zeros at the end
    quotas:  how many each stripe keeps of every row, ``[stripes]``
    places:  the columns that are to be ordered, as they stand, ``[n]``; the others stay where they are
    """

    columns: Array
    quotas: Array
    places: Array

    @property
    def size(self) -> int:
        """M: columns of a stripe."""
        return len(self.columns) // len(self.quotas)

    @property
    def stripes(self) -> Array:
        """The stripe of each place."""
        found: Array = self.places // self.size
        return found

    def swapped(self, a: int, b: int) -> None:
        """The columns at two of the places trade them."""
        self.columns[self.places[[a, b]]] = self.columns[self.places[[b, a]]]

    def rest(self, place: int) -> tuple[float, Array]:
        """Without the column at a place: what its stripe keeps, and the least that is kept of each row, ``[rows]``; 0
        where another column would be kept as well."""
        stripe, at = divmod(int(self.places[place]), self.size)
        others = np.delete(self.columns[stripe * self.size : (stripe + 1) * self.size], at, axis=0)
        quota = int(self.quotas[stripe])
        if quota > len(others):
            return float(others.sum()), np.zeros(others.shape[1])
        ranked = -np.sort(-others, axis=0)
        return float(ranked[:quota].sum()), ranked[quota - 1]


def best_order(readers: Sequence[Reader], count: int) -> Array:
    """Which of ``count`` columns each place gets, ``[count]``, so that all readers together keep the most; as far as
    swaps and the time go. The readers are in that order afterwards."""
    order, work, windows = np.arange(count), _WORK, -(-count // _WINDOW)
    dealt, calm = 0, 0
    while calm < (2 if windows > 1 else 1) and work > 0:
        moved = False
        for places in _windows(readers[0].stripes, windows, scattered=dealt % 2 == 0):
            search = _Swaps(readers, places, order)
            work = search.run(work)
            moved |= search.moved
        dealt, calm = dealt + 1, 0 if moved and windows > 1 else calm + 1
    return order


def _windows(stripes: Array, count: int, scattered: bool) -> list[Array]:
    """Places in so many parts, whole stripes each: every so many-th stripe, or neighbours."""
    _, rank = np.unique(stripes, return_inverse=True)
    part = rank % count if scattered else rank * count // (rank.max() + 1)
    return [each for k in range(count) if len(each := np.flatnonzero(part == k)) > 1]


class _Swaps:
    """The gains of all swaps among some places, as they are after each swap."""

    def __init__(self, readers: Sequence[Reader], places: Array, order: Array):
        self.readers, self.places, self.order = readers, places, order
        self.apart = [each.stripes[places][:, None] != each.stripes[places] for each in readers]
        self.near = ~np.logical_and.reduce(self.apart)
        self.kept = [np.zeros((len(places), len(places))) for _ in readers]
        self.moved = False

    def run(self, work: int) -> int:
        """Swap for as long as it gains something; what is left of the work."""
        stale = np.ones(len(self.places), bool)
        while stale.any() and work > 0:
            work -= self._compare(np.flatnonzero(stale))
            stale = self._swap(self._gains())
        return work

    def _compare(self, stale: Array) -> int:
        """What the stripes of these places keep with each of the columns instead of their own."""
        work = 0
        for reader, kept in zip(self.readers, self.kept, strict=True):
            rests = [reader.rest(place) for place in self.places[stale]]
            least = np.stack([each for _, each in rests])
            kept[stale] = (np.array([total for total, _ in rests]) - least.sum(axis=1))[:, None]
            rows = reader.columns.shape[1]
            step = max(1, _CACHE // len(self.places))
            for begin in range(0, rows, step):
                part = reader.columns[reader.places[self.places], begin : begin + step]
                space = np.empty_like(part)
                for at, bound in zip(stale, least[:, begin : begin + step], strict=True):
                    kept[at] += np.maximum(part, bound, out=space).sum(axis=1)
            work += len(stale) * len(self.places) * rows
        return work

    def _gains(self) -> Array:
        """What is kept more after each swap; as much as nothing where that is rounding."""
        total, gains = 0.0, np.zeros(self.near.shape)
        for kept, apart in zip(self.kept, self.apart, strict=True):
            own = np.diag(kept)
            gains += np.where(apart, kept + kept.T - own[:, None] - own, 0.0)
            total += float(own.sum())
        gains[gains <= _GAIN * total] = 0.0
        return np.triu(gains, 1)

    def _swap(self, gains: Array) -> Array:
        """Make the best swaps that do not touch each other's stripes; the places whose stripes are others now."""
        stale = np.zeros(len(self.places), bool)
        while gains.size and (best := int(gains.argmax())) >= 0 and gains.flat[best] > 0:
            pair = list(divmod(best, len(self.places)))
            touched = self.near[pair].any(axis=0)
            stale |= touched
            gains[touched], gains[:, touched] = 0.0, 0.0
            a, b = self.places[pair]
            for reader, kept in zip(self.readers, self.kept, strict=True):
                reader.swapped(a, b)
                kept[:, pair] = kept[:, pair[::-1]]
            self.order[[a, b]] = self.order[[b, a]]
        self.moved |= bool(stale.any())
        return stale
