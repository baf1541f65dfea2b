"""Which forms of a product tiles can have (`kernels/tiles.py`), and what they should cost.

An entry is a block of some outputs by `depth` neighbouring words of x, at one distance. Depths divide the words of all
channels, so that no word is left over. Cycles are assumed, and have not been held against a processor: those of a
product follow from the peak that Intel publishes for Sapphire Rapids (1,024 multiply-adds of 8 bits a cycle), those of
a load from two lines a cycle; the others are guesses. Where the network is built on such a processor, measurements
decide.
"""

from __future__ import annotations

from collections.abc import Iterator

from graphprune.targets.kernels.tiles import SIDE

SHAPES = ((2, 2), (2, 1), (1, 3), (1, 2), (1, 1))  # tiles of outputs, and of places
LEAST = 4  # words of an entry: shorter ones leave most of a tile empty
DOT = 16  # cycles to the next product of tiles
WAIT = 52  # and to the next one that adds to the same sums
LOAD = 8  # cycles of a load of a tile
SUMS = 32  # cycles to clear a tile of sums, to store it and to read it again


def depths(channels: int) -> Iterator[int]:
    """Words that an entry may have, of so many words that follow each other."""
    return (depth for depth in range(SIDE, LEAST - 1, -1) if channels % depth == 0)


def cycles(entries: float, lists: int, tall: int, vectors: int, wide: int) -> float:
    """Of so many entries in so many lists, on a run of so many vectors, `tall` by `wide` tiles at a time."""
    whole, rest = divmod(vectors, wide)
    total = 0.0
    for count, here in ((whole, wide), (1, rest)):
        if here:
            total += count * (entries * max(DOT * tall * here, LOAD * (tall + here), WAIT) + lists * SUMS * tall * here)
    return total
