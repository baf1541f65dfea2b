"""What a form of a product should cost, in cycles, roughly: which forms are worth a measurement, and which is taken
where nothing is measured.

A cycle has two multiply-adds and two loads, of which one that is of two cache lines takes both. What does not stay in
the first-level cache is read from the next at a line a cycle, and from the one behind it at half of that. Each list of
entries has its own end, which the processor does not foresee. (Measured on a Zen 5; only the order of forms depends on
it.)
"""

from __future__ import annotations

from collections.abc import Sequence

LINE = 64  # bytes
CLOSE = 1 << 15  # bytes of x that stay in a first-level cache beside what is written
CACHE = 1 << 19  # bytes that stay close: a part of any second-level cache
ENDS = 15.0  # cycles at the end of a list of entries
SEEN = 40  # entries that the processor works on at the same time: sums of shorter lists overlap with the next ones
COPY = 1.5  # cycles to copy a vector
CHAIN = 4.0  # cycles of an addition


def entries(count: float, lists: int, rows: int, vectors: int, read: float) -> float:
    """Cycles of `count` entries in so many lists, for `rows` by `vectors` sums; `read` of each vector of x."""
    waiting = CHAIN if count > SEEN * lists else CHAIN / 2
    each = max(rows * vectors / 2, rows / 2 + vectors * read, waiting) + 1.0
    return count * each + lists * (ENDS + rows * vectors)


def read(held: float, split: float, lanes: int) -> float:
    """Cycles to read a vector of what `held` bytes are walked over again and again; the share `split` lies in two
    cache lines."""
    far = max(0.0, 1 - CLOSE / held) * 0.5 + max(0.0, 1 - 2 * CACHE / held) * 0.5 if held else 0.0
    return (1 + split) / 2 + far * lanes * 4 / LINE


def sliding(rows: Sequence[tuple[int, Sequence[tuple[int, int]]]], vectors: int, split: float) -> float:
    """Cycles of one list whose taps share vectors row by row (`kernels/sliding.py`); a shuffle takes the place of an
    addition."""
    shifts = [sum(shift > 0 for _, shift in members) for _, members in rows]
    reads = sum(vectors + (count > 0) for count in shifts) * (1 + split) / 2
    sums = vectors * (sum(len(members) for _, members in rows) + sum(shifts)) / 2
    return max(reads, sums) + ENDS + vectors
