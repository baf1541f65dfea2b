"""The largest weight of an entry: one strong connection is enough to keep it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphprune.program import Array


@dataclass(frozen=True)
class Linf:
    """``max |w|`` over the weights of an entry.

    >>> Linf().filters(np.array([[3.0, -4.0], [1.0, 2.0]])).tolist()
    [4.0, 2.0]
    """

    name: ClassVar[str] = "linf"
    outputs: ClassVar[bool] = False

    def filters(self, rows: Array) -> Array:
        """The largest absolute number of each row."""
        largest: Array = np.abs(rows).max(axis=1)
        return largest
