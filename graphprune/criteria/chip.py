"""How much less there is in the feature maps without one of them (Sui et al., CHIP: CHannel Independence-based Pruning,
NeurIPS 2021): maps that others nearly combine to go first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphprune.criteria import Part
from graphprune.criteria.maps import Maps
from graphprune.layers import Layer
from graphprune.program import Array

_MOST_NUMBERS = 1 << 24


@dataclass(frozen=True)
class CHIP:
    """``|A|_* - |A without row i|_*`` for the matrix A of all maps of an image, a row for each entry; the mean over
    images. The nuclear norm ``|A|_*`` is the sum of the singular values.

    images: how many images count; the cost grows with them, and with the cube of the channels or positions

    >>> independence(np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 2.0]])).round(3).tolist()
    [0.414, 0.414, 2.0]
    """

    name: ClassVar[str] = "chip"
    cost: ClassVar[str] = "slow: eigenvalues for each channel of each image"

    images: int = 16

    def statistic(self, layer: Layer) -> Maps:
        """Independences of the maps of some images."""
        return Maps(layer, lambda maps: independence(maps.reshape(len(maps), -1)), self.images)

    def entries(self, part: Part) -> Array:
        """Their mean."""
        maps: Maps = part.statistic
        return maps.mean(part)


def independence(rows: Array) -> Array:
    """What each row adds to the nuclear norm of a matrix, ``[rows]``, from the smaller of its two Gram matrices."""
    rows = rows.astype(np.float64)
    count, width = rows.shape
    gram = rows @ rows.T if count <= width else rows.T @ rows
    step = max(1, _MOST_NUMBERS // max(1, gram.size))
    found = np.zeros(count)
    for begin in range(0, count, step):
        gone = np.arange(begin, min(count, begin + step))
        less = np.repeat(gram[None], len(gone), axis=0)
        if count <= width:
            less[np.arange(len(gone)), gone, :] = 0
            less[np.arange(len(gone)), :, gone] = 0
        else:
            less -= rows[gone][:, :, None] * rows[gone][:, None, :]
        found[gone] = _nuclear(gram) - _nuclear(less)
    return found


def _nuclear(gram: Array) -> Array:
    """The nuclear norms of matrices with these Gram matrices."""
    norm: Array = np.sqrt(np.maximum(np.linalg.eigvalsh(gram), 0)).sum(axis=-1)
    return norm
