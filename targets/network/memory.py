"""Where scratch lies in the arena: storages that are never alive together share a place.

Storage with a border of zeros shares only with storage of the same geometry, at whole planes, so that the zeros, which
nobody writes, stay where they are needed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np

from graphprune.targets.network.layout import Storage
from graphprune.targets.network.lowering import Call

ALIGNMENT = 64  # bytes
SLACK = 4096  # bytes behind the last storage that a vector at the end of a run may touch


def place(calls: Sequence[Call]) -> tuple[dict[Storage, int], int]:
    """The byte at which each scratch storage begins, and the size of the arena."""
    first: dict[Storage, int] = {}
    last: dict[Storage, int] = {}
    for samples, found in groupby(enumerate(calls), key=lambda each: each[1].samples):
        steps = list(found)
        for step, call in steps:
            for view in call.views:
                if view.storage.kind == "scratch":
                    shared = samples is not None and view.storage in samples.moves  # alive for all of the loop
                    first.setdefault(view.storage, steps[0][0] if shared else step)
                    last[view.storage] = steps[-1][0] if shared else step
    pools: dict[tuple[int, ...] | None, list[Storage]] = defaultdict(list)
    for storage in first:
        pools[storage.zeros].append(storage)
    places: dict[Storage, int] = {}
    size = 0
    for zeros in sorted(pools, key=lambda key: key or ()):
        base = rounded(size, ALIGNMENT)
        step = ALIGNMENT if zeros is None else period(zeros) * 4
        offsets = packed(pools[zeros], first, last, step)
        for storage, offset in offsets.items():
            places[storage] = base + offset
            size = max(size, base + offset + bytes_of(storage))
    return places, rounded(size, ALIGNMENT) + SLACK


def period(zeros: tuple[int, ...]) -> int:
    """Numbers after which the pattern of zeros of a geometry begins again."""
    return zeros[0]


def bytes_of(storage: Storage) -> int:
    """The size of a storage in bytes."""
    return storage.size * np.dtype(storage.dtype).itemsize


def packed(
    storages: Sequence[Storage], first: Mapping[Storage, int], last: Mapping[Storage, int], step: int
) -> dict[Storage, int]:
    """Large ones first, each at the lowest place where no neighbour in time lies."""
    placed: dict[Storage, int] = {}
    for storage in sorted(storages, key=lambda entry: (-bytes_of(entry), first[entry])):
        rivals = sorted(
            (offset, offset + bytes_of(other))
            for other, offset in placed.items()
            if first[other] <= last[storage] and first[storage] <= last[other]
        )
        offset = 0
        for start, end in rivals:
            if offset + bytes_of(storage) <= start:
                break
            offset = max(offset, rounded(end, step))
        placed[storage] = offset
    return placed


def rounded(size: int, step: int) -> int:
    """The least multiple of `step` that is not below `size`."""
    return -(-size // step) * step
