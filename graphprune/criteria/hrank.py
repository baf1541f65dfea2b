"""The rank of feature maps (Lin et al., HRank, CVPR 2020): maps with little in them go first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphprune.criteria import Part
from graphprune.criteria.maps import Maps
from graphprune.layers import Layer
from graphprune.program import Array


@dataclass(frozen=True)
class HRank:
    """The rank of the map of an entry as a matrix, the mean over images. Of an entry with several channels, such as a
    head, the matrix is channels by positions; numbers without positions have rank one, or none where they are zero.

    images: how many images count

    >>> ranks(np.array([[[[1.0, 2.0], [2.0, 4.0]]], [[[1.0, 0.0], [0.0, 1.0]]]])).tolist()
    [1, 2]
    """

    name: ClassVar[str] = "hrank"
    cost: ClassVar[str] = "slow: singular values of each map of each image"

    images: int = 32

    def statistic(self, layer: Layer) -> Maps:
        """Ranks of the maps of some images."""
        return Maps(layer, ranks, self.images)

    def entries(self, part: Part) -> Array:
        """Their mean."""
        maps: Maps = part.statistic
        return maps.mean(part)


def ranks(maps: Array) -> Array:
    """The rank of the map of each entry of ``[entries, channels of one, *positions]``."""
    entries, channels, *positions = maps.shape
    first = positions[0] if channels == 1 and positions else channels
    plain = maps if maps.dtype.itemsize > 2 else maps.astype(np.float32)  # halves have no singular values
    singular = np.linalg.svd(plain.reshape(entries, first, -1), compute_uv=False)
    short = np.finfo(maps.dtype).eps if maps.dtype.kind == "f" else 0.0
    least = singular.max(axis=-1, initial=0) * (short * max(plain[0].size // first, first))
    found: Array = (singular > least[:, None]).sum(axis=-1)
    return found
