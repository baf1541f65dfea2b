"""The Fisher information of masks on heads and neurons (Kwon et al., A Fast Post-Training Pruning Framework for
Transformers, NeurIPS 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphprune.program import Array


@dataclass(frozen=True)
class Kwon:
    """The mean over samples of ``(dL/dm)**2``, for a mask m on what a head or a neuron gives: ``(sum g w)**2`` over the
    weights that read it, with the gradient of one sample at a time. One pass through the model for each sample.

    >>> Kwon().finish(Kwon().products(np.array([2.0, 1.0]), np.array([3.0, -1.0])).sum()).item()
    25.0
    """

    name: ClassVar[str] = "kwon"
    derivative: ClassVar[str] = "gradient of each sample"
    reads: ClassVar[bool] = True

    def products(self, weight: Array, derivative: Array) -> Array:
        """``g w``."""
        return weight * derivative

    def finish(self, sums: Array) -> Array:
        """The squares of the sums."""
        found: Array = np.square(sums)
        return found
