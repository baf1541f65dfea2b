"""What the removal of entries costs when the weights that stay are refitted (Optimal Brain Surgeon, Hassibi & Stork,
NIPS 1992; for layers and structures: Frantar & Alistarh, Optimal Brain Compression, NeurIPS 2022; Kurtic et al., ZipLM,
NeurIPS 2023; Wang et al., OBSPA, 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from graphprune.calibrate import Gram
from graphprune.criteria import Part
from graphprune.layers import Layer
from graphprune.program import Array
from graphprune.workers import lone_products

# Groups of up to this many entries lose one at a time; larger ones lose a share of what is left in each step.
_ONE_BY_ONE = 128
_SHARE = 64
# What is gone is left out when it is more than one of these shares of all rows.
_WASTE = 8
_GONE = -2
_LEAF = 256
_SMALL = 1024


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
        # Steps on small matrices are too short to be divided among threads.
        small = max(part.matrices.shape[2] for part in parts) <= _SMALL
        with lone_products() if small else nullcontext():
            return self._eliminated([state for part in parts for state in _states(part, self.dampening)], parts[0].size)

    @staticmethod
    def _eliminated(states: Sequence[_State], size: int) -> Array:
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
class _Block:
    """The entries that have the same number of inputs: ``[entries]``, which inputs ``[entries, inputs of one]``, and
    the inverse of H at those, ``[entries, inputs of one, inputs of one]``."""

    entries: Array
    places: Array
    squares: Array


@dataclass(eq=False)
class _State:
    """One matrix of a layer while entries are taken out of it: the refitted weight, and the inverse of H.

    The squares that errors are computed from are always those of now. The inverse as a whole is behind by ``late``,
    products to subtract from it, until enough is gone for a copy of what is left to pay. Rows that are gone are zero,
    and have the label ``_GONE``.
    """

    inverse: Array
    weight: Array
    labels: Array
    size: int
    scale: float
    late: list[tuple[Array, Array]] = field(default_factory=list)
    blocks: list[_Block] = field(default_factory=list)
    gone: int = 0

    def __post_init__(self) -> None:
        order = np.argsort(self.labels, kind="stable")
        order = order[self.labels[order] >= 0]
        widths = np.bincount(self.labels[order], minlength=self.size)
        starts = np.cumsum(widths) - widths
        self.blocks = []
        for width in np.unique(widths[widths > 0]).tolist():
            entries = np.flatnonzero(widths == width)
            places = order[starts[entries][:, None] + np.arange(width)]
            self.blocks.append(_Block(entries, places, self.inverse[places[:, :, None], places[:, None, :]]))

    def errors(self) -> Array:
        """What the removal of each entry adds to the error, next; nothing for what is gone."""
        found = np.zeros(self.size)
        for block in self.blocks:
            if block.places.shape[1] == 1:
                norms = np.einsum("ro,ro->r", self.weight, self.weight)
                found[block.entries] = (norms[block.places] / block.squares[:, 0])[:, 0]
                continue
            weights = self.weight[block.places]  # [entries, inputs of one, outputs]
            found[block.entries] = np.einsum("eio,eio->e", weights, np.linalg.solve(block.squares, weights))
        return found / self.scale

    def remove(self, gone: Array) -> None:
        """Take entries out, and refit what is left."""
        out = np.flatnonzero(np.isin(self.labels, gone))
        if not len(out):
            return
        across = self._columns(out)
        step = np.linalg.solve(across[out], np.hstack([self.weight[out], across.T]))
        refit, change = step[:, : self.weight.shape[1]], step[:, self.weight.shape[1] :]
        self.weight -= across @ refit
        self.weight[out] = 0
        for block in self.blocks:
            block.squares -= np.einsum("eik,ejk->eij", across[block.places], change.T[block.places])
            block.squares[np.isin(block.entries, gone)] = np.eye(block.places.shape[1])
        self.late.append((across, change))
        self.labels[out] = _GONE
        self.gone += len(out)
        if self.gone * _WASTE > len(self.labels):
            self._catch_up()

    def _columns(self, out: Array) -> Array:
        """Some columns of the inverse as it is now."""
        found: Array = self.inverse[:, out]
        for across, change in self.late:
            found -= across @ change[:, out]
        found[self.labels == _GONE] = 0
        return found

    def _catch_up(self) -> None:
        """Leave out what is gone."""
        stays = np.flatnonzero(self.labels != _GONE)
        across = np.hstack([each[stays] for each, _ in self.late])
        change = np.vstack([each[:, stays] for _, each in self.late])
        self.inverse = self.inverse[stays].take(stays, axis=1)
        self.inverse -= across @ change
        self.weight, self.labels = self.weight[stays], self.labels[stays]
        self.late, self.gone = [], 0
        self.__post_init__()


def _states(part: Part, dampening: float) -> list[_State]:
    """A state for each matrix of a layer that has the group among its inputs."""
    found = []
    gram: Gram = part.statistic
    for matrix, second, labels in zip(part.normalised, gram.matrix / max(1, gram.count), part.labels, strict=True):
        if not (labels >= 0).any():
            continue
        scale = float(((matrix @ second) * matrix).sum())
        found.append(
            _State(inverse(damped(second, dampening)), matrix.T.copy(), labels.copy(), part.size, max(scale, 1e-12))
        )
    return found


def damped(second: Array, dampening: float) -> Array:
    """A second moment with this share of its mean diagonal added to the diagonal, so that it has an inverse."""
    found: Array = second + (dampening * np.diag(second).mean() + 1e-12) * np.eye(len(second))
    return found


def inverse(matrix: Array) -> Array:
    """The inverse of a positive definite matrix, by halves: half the work of the inverse of any matrix.

    >>> inverse(np.array([[2.0, 1.0], [1.0, 2.0]])).round(3).tolist()
    [[0.667, -0.333], [-0.333, 0.667]]
    """
    if len(matrix) <= _LEAF:
        found: Array = np.linalg.inv(matrix)
        return found
    half = len(matrix) // 2
    first = inverse(matrix[:half, :half])
    over = first @ matrix[:half, half:]
    second = inverse(matrix[half:, half:] - matrix[half:, :half] @ over)
    corner = over @ second
    return np.block([[first + corner @ over.T, -corner], [-corner.T, second]])
