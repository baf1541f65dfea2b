"""Block influence (Men et al., ShortGPT, 2024, arXiv 2403.03853): blocks that hardly turn what goes through them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphprune.program import Array


@dataclass(frozen=True)
class BlockInfluence:
    """``1 - E[cos(x_in, x_out)]`` of the vectors before and after a block; the lowest go first, each by itself.

    >>> before, after = np.array([[1.0, 0.0], [1.0, 1.0]]), np.array([[0.0, 2.0], [3.0, 3.0]])
    >>> BlockInfluence().distance(before, after).round(6).tolist()
    [1.0, 0.0]
    """

    name: ClassVar[str] = "block_influence"
    consecutive: ClassVar[bool] = False

    def distance(self, before: Array, after: Array) -> Array:
        """``1 - cos`` of the rows."""
        return 1 - cosine(before, after)


def cosine(before: Array, after: Array) -> Array:
    """The cosine of the angles between rows ``[vectors, features]``; 1 where both are zero, 0 where one is.

    >>> cosine(np.zeros((1, 2)), np.zeros((1, 2))).tolist()
    [1.0]
    """
    a, b = before.astype(np.float64), after.astype(np.float64)
    long, short = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    product = np.einsum("vf,vf->v", a, b)
    found: Array = np.divide(product, long * short, out=((long == 0) & (short == 0)).astype(np.float64),
                             where=(long > 0) & (short > 0))  # fmt: skip
    return np.clip(found, -1, 1)
