"""Where the taps of a map lie in a copy of which every vector is one cache line (`kernels/packed.py`)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from graphprune.targets.rules.tables import Product

SPLIT = 0.3  # the share of vectors in two lines from which on a copy may pay
SIZES = (3 << 13, 3 << 15)  # bytes of the copy of one part, from and to


@dataclass(frozen=True)
class Packing:
    """Of the channels of a product: how far apart they lie, the spans that are copied of each (where they begin, and
    how many vectors they have more than a tile), the place of each tap in the copy, and how long that is."""

    channel: int
    spans: tuple[tuple[int, int], ...]
    places: tuple[int, ...]
    size: int

    def offsets(self, product: Product, parts: int) -> np.ndarray:
        """Of all inputs in the copy of their part."""
        inside = np.arange(product.channels) % (product.channels // parts) * self.size
        return np.asarray((np.array(self.places)[:, None] + inside).reshape(-1), "int64")

    def parts(self, channels: int) -> list[int]:
        """Numbers of parts that divide the channels and give copies of a good size."""
        low, high = (size / (4 * self.size * channels) for size in SIZES)
        return [parts for parts in range(1, channels + 1) if channels % parts == 0 and low <= 1 / parts <= high]


def packing(product: Product, vectors: int, lanes: int, least: float = SPLIT) -> Packing | None:
    """For tiles of so many vectors; None where nothing is gained, or channels do not lie at one distance."""
    if product.offsets.ndim > 1 or product.channels < 2 or product.split(lanes) < least:
        return None
    taps = product.offsets.reshape(-1, product.channels)
    channel = int(taps[0, 1] - taps[0, 0])
    if (taps != taps[:, :1] + channel * np.arange(product.channels)).any():
        return None
    starts = [int(tap) for tap in taps[:, 0]]
    spans: list[tuple[int, int]] = []
    places: dict[int, int] = {}
    size = 0
    for residue in sorted({tap % lanes for tap in starts}):
        row = sorted({tap for tap in starts if tap % lanes == residue})
        cuts = [index for index, (low, high) in enumerate(pairwise(row), 1) if high - low > vectors * lanes]
        for first, last in pairwise([0, *cuts, len(row)]):
            begin, more = row[first], (row[last - 1] - row[first]) // lanes
            spans.append((begin, more))
            places |= {tap: size + tap - begin for tap in row[first:last]}
            size += (more + vectors) * lanes
    return Packing(channel, tuple(spans), tuple(places[tap] for tap in starts), size)
