"""Angular distance over a run of blocks (Gromov et al., The Unreasonable Ineffectiveness of the Deeper Layers, 2024,
arXiv 2403.17887)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphprune.criteria.block_influence import cosine
from graphprune.program import Array


@dataclass(frozen=True)
class Angular:
    """``E[arccos(cos(x_in, x_out))] / pi`` of the vectors before and after as many blocks in a row as are to go;
    the run with the lowest goes. The paper looks at the last token alone, this at all vectors.

    >>> before, after = np.array([[1.0, 0.0], [1.0, 1.0]]), np.array([[0.0, 2.0], [-3.0, -3.0]])
    >>> Angular().distance(before, after).round(6).tolist()
    [0.5, 1.0]
    """

    name: ClassVar[str] = "angular"
    consecutive: ClassVar[bool] = True

    def distance(self, before: Array, after: Array) -> Array:
        """``arccos(cos) / pi`` of the rows."""
        found: Array = np.arccos(cosine(before, after)) / np.pi
        return found
