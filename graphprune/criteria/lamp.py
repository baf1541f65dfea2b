"""Layer-adaptive magnitude (Lee et al., Layer-adaptive Sparsity for the Magnitude-based Pruning, ICLR 2021), for
channels: the sum of the scores of their weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphprune.program import Array


@dataclass(frozen=True)
class LAMP:
    """``sum of w_u**2 / sum(w_v**2 for all v of the layer that are not below u)`` over the weights u of an entry.

    The score of the largest weight of a layer is 1, and the scale of a layer makes no difference: layers can be
    compared as they are (``normalize="none"``).

    >>> LAMP().filters(np.array([[1.0], [2.0], [-3.0]])).round(3).tolist()
    [0.071, 0.308, 1.0]
    """

    name: ClassVar[str] = "lamp"
    outputs: ClassVar[bool] = False

    def filters(self, rows: Array) -> Array:
        """Sums of the shares of all numbers in what is left when smaller ones are gone."""
        from graphprune.criteria.transfer import lamp

        sums: Array = lamp(np.abs(rows).ravel()).reshape(rows.shape).sum(axis=1)
        return sums
