"""What the removal of entries costs when the weights that stay are refitted (Optimal Brain Surgeon, Hassibi & Stork,
NIPS 1992; for layers and structures: Frantar & Alistarh, Optimal Brain Compression, NeurIPS 2022; Kurtic et al., ZipLM,
NeurIPS 2023; Wang et al., OBSPA, 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import ClassVar

import numpy as np

from graphprune.calibrate import Gram
from graphprune.criteria import Part
from graphprune.layers import Layer
from graphprune.program import Array

# Groups of up to this many entries lose one at a time; larger ones lose a share of what is left in each step.
_ONE_BY_ONE = 128
_SHARE = 64


@dataclass(frozen=True)
class OBS:
    """Entries go one after the other, each time the one whose removal raises the error least, when all weights that
    stay are refitted: ``e = tr(W_S' [(H^-1)_SS]^-1 W_S)`` for the inputs S of an entry and ``H = E[x x']``.

    The score of an entry is what its removal adds to the squared error of the layers that read it, as a share of the
    second moment of their outputs: unlike a norm it can be compared between groups as it is (``normalize="none"``).

    dampening: added to the diagonal of H, as a share of its mean
    """

    name: ClassVar[str] = "obs"

    dampening: float = 1e-3

    def statistic(self, layer: Layer) -> Gram:
        """``sum x x'``."""
        return Gram()

    def together(self, parts: Sequence[Part]) -> Array:
        """Errors in the order of elimination, made non-decreasing so that sorting by score keeps this order."""
        states = [state for part in parts for state in _states(part, self.dampening)]
        size = parts[0].size
        alive = np.ones(size, bool)
        score = np.zeros(size)
        floor = 0.0
        while alive.sum() > 1:
            added = sum((state.errors() for state in states), np.zeros(size))
            added[~alive] = np.inf
            count = 1 if size <= _ONE_BY_ONE else max(1, int(alive.sum()) // _SHARE)
            gone = np.argsort(added, kind="stable")[:count]
            for entry in gone:
                floor = max(floor, float(added[entry]))
                score[entry] = floor
            alive[gone] = False
            for state in states:
                state.remove(gone)
        last = sum((state.errors() for state in states), np.zeros(size))[alive]
        score[alive] = np.maximum(last, floor)
        return score


@dataclass(eq=False)
class _State:
    """One matrix of a layer while entries are taken out of it: the inverse of H and the refitted weight, of the inputs
    that are left. ``blocks`` are the positions of each entry among them."""

    inverse: Array
    weight: Array
    labels: Array
    size: int
    scale: float
    blocks: list[Array] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._index()

    def _index(self) -> None:
        order = np.argsort(self.labels, kind="stable")
        ends = np.searchsorted(self.labels[order], np.arange(self.size + 1))
        self.blocks = [order[a:b] for a, b in pairwise(ends)]

    def errors(self) -> Array:
        """What the removal of each entry adds to the error, next."""
        found = np.zeros(self.size)
        by_width: dict[int, list[int]] = {}
        for entry, block in enumerate(self.blocks):
            if len(block):
                by_width.setdefault(len(block), []).append(entry)
        for entries in by_width.values():
            places = np.stack([self.blocks[entry] for entry in entries])
            squares = self.inverse[places[:, :, None], places[:, None, :]]
            weights = self.weight[places]  # [entries, inputs of one, outputs]
            found[entries] = np.einsum("eio,eio->e", weights, np.linalg.solve(squares, weights))
        return found / self.scale

    def remove(self, gone: Sequence[int] | Array) -> None:
        """Take entries out, and refit what is left."""
        out = np.concatenate([self.blocks[entry] for entry in gone])
        if not len(out):
            return
        stays = np.setdiff1d(np.arange(len(self.labels)), out)
        right = np.hstack([self.weight[out], self.inverse[np.ix_(out, stays)]])
        step = np.linalg.solve(self.inverse[np.ix_(out, out)], right)
        outputs = self.weight.shape[1]
        across = self.inverse[np.ix_(stays, out)]
        self.weight = self.weight[stays] - across @ step[:, :outputs]
        self.inverse = self.inverse[np.ix_(stays, stays)] - across @ step[:, outputs:]
        self.labels = self.labels[stays]
        self._index()


def _states(part: Part, dampening: float) -> list[_State]:
    """A state for each matrix of a layer that has the group among its inputs."""
    found = []
    gram: Gram = part.statistic
    for matrix, second, labels in zip(part.matrices, gram.matrix / max(1, gram.count), part.labels, strict=True):
        if not (labels >= 0).any():
            continue
        scale = float(np.einsum("or,rs,os->", matrix, second, matrix))
        damped = second + (dampening * np.diag(second).mean() + 1e-12) * np.eye(len(second))
        found.append(_State(np.linalg.inv(damped), matrix.T.copy(), labels, part.size, max(scale, 1e-12)))
    return found
