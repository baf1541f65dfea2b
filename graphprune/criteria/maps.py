"""Scores of whole feature maps, averaged over images: what criteria that look at maps share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from graphprune.criteria import Part
from graphprune.dims import Dim
from graphprune.layers import Layer, Rows
from graphprune.program import Array


@dataclass(eq=False)
class Maps:
    """The sum over images of a score of the maps that a layer reads, for each dimension that it reads.

    score:  from the maps of one image, ``[entries, channels of one, *positions]``, a number for each entry
    images: how many count; the first ones
    """

    layer: Layer
    score: Callable[[Array], Array]
    images: int
    count: int = 0
    sums: dict[Dim, Array] = field(default_factory=dict)

    def update(self, rows: Rows, chosen: Array | None) -> None:
        """See :class:`graphprune.calibrate.Statistic`. Maps are whole: ``chosen`` does not apply."""
        assert rows.maps is not None, "these are the inputs of a layer"
        for image in rows.maps[: max(0, self.images - self.count)]:
            self.count += 1
            for dim in self.layer.read:
                found = self.score(arranged(image, self.layer.labels(dim)))
                self.sums[dim] = self.sums.get(dim, np.zeros(len(found))) + found

    def mean(self, part: Part) -> Array:
        """The mean score of the entries of a group."""
        for dim, total in self.sums.items():
            if len(total) == part.size and np.array_equal(self.layer.labels(dim), part.labels):
                return total / max(1, self.count)
        return np.zeros(part.size)


def arranged(image: Array, labels: Array) -> Array:
    """The maps of one image ``[groups, channels, *positions]`` by entry, ``[entries, channels of one, *positions]``;
    zeros where an entry has fewer channels than others.

    >>> arranged(np.array([[[1], [2], [3]]]), np.array([[1, 0, 1]])).squeeze(-1).tolist()
    [[2, 0], [1, 3]]
    """
    channels = image.shape[0] * image.shape[1]
    of_channel = labels.reshape(channels, -1)[:, 0]
    entries: list[list[int]] = [[] for _ in range(int(of_channel.max(initial=-1)) + 1)]
    for place, entry in enumerate(of_channel.tolist()):
        if entry >= 0:
            entries[entry].append(place)
    width = max(map(len, entries), default=0)
    places = np.array([each + [channels] * (width - len(each)) for each in entries], np.int64).reshape(-1, width)
    flat = image.reshape(channels, *image.shape[2:])
    return np.concatenate([flat, np.zeros_like(flat[:1])])[places]
