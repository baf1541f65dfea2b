"""Whose absence the next layer notices least (Luo et al., ThiNet, ICCV 2017): channels go one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphprune.calibrate import Gram
from graphprune.criteria import Part
from graphprune.layers import Layer
from graphprune.program import Array


@dataclass(frozen=True)
class ThiNet:
    """Entries T go greedily, each time the one that leaves ``sum |W_T x_T|**2`` least: the error of the layers that
    read them when nothing is refitted. All samples and outputs count, where the paper draws some.

    The score is that error, as a share of the second moment of the outputs, when the entry goes, made increasing so
    that sorting by score keeps this order.
    """

    name: ClassVar[str] = "thinet"

    def statistic(self, layer: Layer) -> Gram:
        """``sum x x'``."""
        return Gram()

    def together(self, parts: Sequence[Part]) -> Array:
        """Errors in the order of elimination."""
        size = parts[0].size
        return elimination(sum((_contributions(part) for part in parts), np.zeros((size, size))))


def elimination(products: Array) -> Array:
    """The error at which each entry goes, for the products of their contributions ``[size, size]``.

    >>> elimination(np.array([[1.0, -0.9, 0.0], [-0.9, 1.0, 0.0], [0.0, 0.0, 2.0]])).round(2).tolist()
    [1.0, 1.0, 2.2]
    """
    added, score = np.diag(products).copy(), np.zeros(len(products))
    error, floor = 0.0, -np.inf
    for _ in range(len(products)):
        gone = int(np.argmin(added))
        error += float(added[gone])
        score[gone] = floor = max(error, float(np.nextafter(floor, np.inf)))
        added += 2 * products[gone]
        added[gone] = np.inf
    return score


def _contributions(part: Part) -> Array:
    """The products of what the entries of a group contribute to the outputs, summed over outputs and samples, as a
    share of the second moment of all outputs."""
    gram: Gram = part.statistic
    found = np.zeros((part.size, part.size))
    scale = 0.0
    for matrix, second, labels in zip(part.matrices, gram.matrix, part.labels, strict=True):
        products = (matrix.T @ matrix) * second
        scale += float(products.sum())
        inside = np.flatnonzero(labels >= 0)
        places = labels[inside][:, None] * part.size + labels[inside]
        summed = np.bincount(places.ravel(), products[np.ix_(inside, inside)].ravel(), part.size**2)
        found += summed.reshape(found.shape)
    return found / max(scale, 1e-300)
