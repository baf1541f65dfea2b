"""Which formats the zeros of a matrix have, whoever put them there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from graphprune.formats.balanced import Balanced
from graphprune.formats.block import Block
from graphprune.formats.format import Array, Format, cube
from graphprune.formats.nm import NM
from graphprune.formats.pattern import Pattern
from graphprune.formats.slots import Slots
from graphprune.formats.tile import Tile
from graphprune.formats.unstructured import Unstructured
from graphprune.formats.vector_nm import VectorNM

MOST = 0.95
"""The share of the zeros of a matrix that a format has to explain: a few more are there by chance."""
FULL = 0.8
"""The share of the entries that it stores which must not be zero: where nearly all are, many blocks are empty by
chance, but what is left does not fill blocks."""
_SIDES = (1, 2, 4, 8, 16, 32, 64)
_GROUPS = (4, 8, 16)
_VECTORS = (8, 4)
_BANKS = (32, 64, 128)
_TILES = (128, 64, 32)
_PATTERNS = (4, 12)


@dataclass(frozen=True)
class Recognised:
    """A format that a matrix has.

    sparsity:  the share of entries that the format removes
    explained: the share of the zeros that these are; the others are stored like numbers
    filled:    the share of the entries it stores that are not zero
    """

    format: Format
    sparsity: float
    explained: float
    filled: float

    @property
    def is_had(self) -> bool:
        """Whether the zeros are of this format, and not by chance."""
        return self.explained >= MOST and self.filled >= FULL

    def __str__(self) -> str:
        return f"{self.format} ({self.sparsity:.1%})"


def recognise(matrix: Array) -> list[Recognised]:
    """The formats that explain most of the zeros of a matrix, the most structured first; empty where nothing is zero.

    matrix: ``[outputs, inputs]`` or ``[outputs, taps, channels]``; NaN is not zero, and -0.0 is
    """
    mask = cube(matrix != 0)
    if mask.all() or not mask.any():
        return []
    found = [each for format in _candidates(mask) if (each := explained(format, mask)) and each.is_had]
    block = largest_block(mask)
    if block is not None:
        found.append(block)
    return [*sorted(found, key=_structure), Recognised(Unstructured(), _zeros(mask), 1.0, 1.0)]


def explained(format: Format, mask: Array) -> Recognised | None:
    """What a format makes of the zeros of a mask; None where it cannot store the mask."""
    whole = cube(mask)
    covered = format.cover(whole)
    if covered is None or not _zeros(whole):
        return None
    filled = (1 - _zeros(whole)) / max(1e-30, 1 - _zeros(covered))
    return Recognised(format, _zeros(covered), _zeros(covered) / _zeros(whole), filled)


def largest_block(matrix: Array) -> Recognised | None:
    """The block of the largest area, with powers of two as sides, whose zeros are most of the zeros of a matrix; of
    blocks of one area the one that explains more, then the taller one. None where there is none but 1x1."""
    mask = cube(matrix != 0)
    outputs, _, channels = mask.shape
    sides = [(rows, columns) for rows in _SIDES for columns in _SIDES if rows <= outputs and columns <= channels]
    best: Recognised | None = None
    order = (0, 0.0, 0)
    for rows, columns in sides:
        each = explained(Block(rows, columns), mask) if rows * columns > 1 else None
        if each is None or not each.is_had:
            continue
        if (rows * columns, each.explained, rows) > order:
            best, order = each, (rows * columns, each.explained, rows)
    return best


def _candidates(mask: Array) -> Iterator[Format]:
    """Every format but blocks that the mask might have."""
    outputs, taps, channels = mask.shape
    yield from (Tile(rows) for rows in _TILES if rows < outputs)
    if taps > 1:
        entries = int(mask.sum(axis=1).max())
        yield from (Pattern(entries, most) for most in _PATTERNS if entries < taps <= 15)
    for vector in (*_VECTORS, 1):
        for group in _GROUPS:
            if group <= channels and vector <= outputs:
                count = _count(VectorNM(1, group, vector) if vector > 1 else NM(1, group), mask)
                if 0 < count < group:
                    yield VectorNM(count, group, vector) if vector > 1 else NM(count, group)
    yield from (Balanced(bank) for bank in _BANKS if bank <= channels)


def _count(format: Slots, mask: Array) -> int:
    """The most vectors that a group uses."""
    return int(format.used(mask).sum(axis=-1).max())


def _zeros(mask: Array) -> float:
    return 1.0 - np.count_nonzero(mask) / mask.size


def _structure(found: Recognised) -> tuple[float, bool, float]:
    """Most structured first: large blocks and vectors, then fixed counts, then what removes more."""
    needs = found.format.needs
    return -needs.rows * needs.inputs, not needs.fixed, -found.sparsity
