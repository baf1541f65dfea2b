"""The error of removing each weight when the others of its row are refitted, summed over structures (Wang et al.,
Structurally Prune Anything, 2024: OBSPA; the saliency of single weights is that of Hassibi & Stork, NIPS 1992)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphprune.calibrate import Gram
from graphprune.criteria import Part
from graphprune.criteria.obs import damped, inverse
from graphprune.layers import Layer
from graphprune.program import Array


@dataclass(frozen=True)
class OBSPA:
    """``sum_i w_ij**2 / (H^-1)_jj`` over the inputs j of an entry, with ``H = E[x x']``, as a share of the second
    moment of what the layer computes. All at once and input by input, where ``obs`` takes entries one after the other,
    and the inputs of one together. The recovery of the same name is the update that goes with it.

    dampening: added to the diagonal of H, as a share of its mean
    """

    name: ClassVar[str] = "obspa"

    dampening: float = 1e-3

    def statistic(self, layer: Layer) -> Gram:
        """``sum x x'``."""
        return Gram()

    def entries(self, part: Part) -> Array:
        """The errors of the inputs of an entry, summed."""
        gram: Gram = part.statistic
        worth = np.zeros(part.labels.shape)
        scale = 0.0
        for group, second in enumerate(gram.matrix / max(1, gram.count)):
            matrix = part.normalised[group].astype(np.float64)
            worth[group] = np.square(matrix).sum(axis=0) / np.diag(inverse(damped(second, self.dampening)))
            scale += float(((matrix @ second) * matrix).sum())
        return part.summed(worth) / max(scale, 1e-12)
