"""The distance of a filter from all others: one that is close to their geometric median can be replaced by them (He et
al., Filter Pruning via Geometric Median, CVPR 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphprune.program import Array


@dataclass(frozen=True)
class FPGM:
    """``sum_j |w_i - w_j|`` over the filters of a layer, as vectors; of the layers that compute a group alone.

    >>> FPGM().filters(np.array([[0.0], [1.0], [5.0]])).tolist()
    [6.0, 5.0, 9.0]
    """

    name: ClassVar[str] = "fpgm"
    outputs: ClassVar[bool] = True

    def filters(self, rows: Array) -> Array:
        """Sums of distances, from products of the filters with each other: no array of differences is made."""
        centred = rows - rows.mean(axis=0)
        products = centred @ centred.T
        lengths = np.diag(products)
        squares = lengths[:, None] + lengths[None, :] - 2 * products
        np.fill_diagonal(squares, 0)
        distances: Array = np.sqrt(np.maximum(squares, 0)).sum(axis=1)
        return distances
