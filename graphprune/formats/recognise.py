"""Which formats the zeros of a matrix have, whoever put them there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
FULL = 0.9
"""The share of the entries that it stores which must not be zero: where nearly all are, many blocks are empty by
chance, but what is left does not fill blocks."""
_SIDES = 64
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
    blocks = list(_blocks(mask))
    # the largest one, and where zeros by chance make it too large the one that was meant
    chosen = {each.format: each for least in (MOST, 1.0) if (each := _largest(blocks, least)) is not None}
    found += chosen.values()
    return [*sorted(found, key=_structure), Recognised(Unstructured(), _zeros(mask), 1.0, 1.0)]


def explained(format: Format, mask: Array) -> Recognised | None:
    """What a format makes of the zeros of a mask; None where it cannot store the mask."""
    whole = cube(mask)
    stored = format.stored(whole)
    nonzeros = int(np.count_nonzero(whole))
    return None if stored is None or nonzeros == whole.size else _recognised(format, whole.size, nonzeros, stored)


def largest_block(matrix: Array) -> Recognised | None:
    """The block of the largest area, with powers of two as sides, whose zeros are most of the zeros of a matrix; of
    blocks of one area the one that explains more, then the taller one. None where there is none but 1x1."""
    return _largest(list(_blocks(cube(matrix != 0))), MOST)


def _recognised(format: Format, size: int, nonzeros: int, stored: int) -> Recognised:
    zeros = (size - stored) / size
    return Recognised(format, zeros, (size - stored) / (size - nonzeros), nonzeros / max(1, stored))


def _blocks(mask: Array) -> Iterator[Recognised]:
    """Every block with powers of two as sides, each counted from one half its size."""
    outputs, _, channels = mask.shape
    nonzeros = int(np.count_nonzero(mask))
    tall, rows = mask, 1
    while rows <= min(outputs, _SIDES):
        heights = _sizes(outputs, rows)
        wide, columns = tall, 1
        while columns <= min(channels, _SIDES):
            widths = _sizes(channels, columns)
            stored = int(heights @ wide.sum(axis=1, dtype=np.int64) @ widths)
            if rows * columns > 1 and nonzeros < mask.size:
                yield _recognised(Block(rows, columns), mask.size, nonzeros, stored)
            wide, columns = _halved(wide, 2), columns * 2
        tall, rows = _halved(tall, 0), rows * 2


def _halved(mask: Array, axis: int) -> Array:
    """Two neighbours along an axis as one, kept where either is."""
    even = (slice(None),) * axis + (slice(None, None, 2),)
    odd = (slice(None),) * axis + (slice(1, None, 2),)
    found = mask[even].copy()
    paired = (slice(None),) * axis + (slice(0, mask.shape[axis] // 2),)
    found[paired] |= mask[odd]
    return found


def _sizes(size: int, step: int) -> Array:
    """The entries of each block along an axis."""
    return np.minimum(step, size - np.arange(0, size, step)).astype(np.int64)


def _largest(blocks: Sequence[Recognised], least: float) -> Recognised | None:
    had = [each for each in blocks if each.is_had and each.explained >= least]
    return max(had, key=_area, default=None)


def _area(found: Recognised) -> tuple[int, float, int]:
    needs = found.format.needs
    return needs.rows * needs.inputs, found.explained, needs.rows


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
