"""What axes become when dimensions lose entries: sizes, positions that survive, and sizes under any cut.

Writing a pruned model needs nothing of the algebra but this.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

import numpy as np
from numpy.typing import NDArray

from graphprune.dims import Axis, Dim, Keep, Misfit, Prod, Sum, find
from graphprune.sizes import Extent, evaluate, product, symbol, symbols


def width(axis: Axis, keep: Keep) -> Extent:
    """The new size of an axis under a keep-set."""
    return _size(axis, lambda dim: len(keep[dim]) if dim in keep else dim.size)


def extent(axis: Axis) -> Extent:
    """The size of an axis as a polynomial over its free dimensions: what it will be under any keep-set."""
    return _size(axis, lambda dim: dim.size if dim.pin is not None else symbol(dim))


def _size(axis: Axis, of: Callable[[Dim], Extent]) -> Extent:
    """The size of an axis whose primitive dimensions have these sizes."""
    axis = find(axis)
    if isinstance(axis, Dim):
        return of(axis)
    sizes = [_size(part, of) for part in axis.parts]
    if isinstance(axis, Prod):
        return product(sizes)
    total: Extent = 0
    for size in sizes:
        total = total + size
    return total


def evaluated(size: Extent, keep: Keep) -> int:
    """The number a polynomial over dimensions (see :func:`extent`) has under a keep-set."""
    known: dict[Hashable, int] = {
        item: len(keep[item]) if item in keep else _known(item.size) for item in symbols(size) if isinstance(item, Dim)
    }
    return evaluate(size, known)


def indices(axis: Axis, keep: Keep) -> NDArray[np.int64]:
    """The old positions along an axis that survive a keep-set, in their new order (shape ``[width]``).

    >>> h, w = Dim(2), Dim(3); indices(Prod([h, w]), {w: np.array([0, 2])}).tolist()
    [0, 2, 3, 5]
    """
    axis = find(axis)
    if isinstance(axis, Dim):
        return np.asarray(keep[axis], np.int64) if axis in keep else np.arange(_known(axis.size), dtype=np.int64)
    if isinstance(axis, Sum):
        found, offset = [], 0
        for part in axis.parts:
            found.append(indices(part, keep) + offset)
            offset += _known(part.size)
        return np.concatenate(found)
    result = np.zeros(1, np.int64)
    for part in axis.parts:
        result = (result[:, None] * _known(part.size) + indices(part, keep)[None]).reshape(-1)
    return result


def labels(axis: Axis, dim: Dim) -> list[NDArray[np.int64]]:
    """For each occurrence of ``dim`` in the axis: the entry of ``dim`` each position belongs to, or -1.

    >>> a, b = Dim(2), Dim(2); [x.tolist() for x in labels(Sum([a, Prod([b, a])]), a)]
    [[0, 1, -1, -1, -1, -1], [-1, -1, 0, 1, 0, 1]]
    """
    axis = find(axis)
    if isinstance(axis, Dim):
        return [np.arange(_known(dim.size), dtype=np.int64)] if axis is dim else []
    sizes = [_known(part.size) for part in axis.parts]
    found = []
    for place, part in enumerate(axis.parts):
        for label in labels(part, dim):
            before, after = sizes[:place], sizes[place + 1 :]
            if isinstance(axis, Sum):
                label = np.concatenate([np.full(sum(before), -1), label, np.full(sum(after), -1)])
            else:
                label = np.tile(np.repeat(label, int(np.prod(after))), int(np.prod(before)))
            found.append(label)
    return found


def whole_size(axis: Axis) -> int:
    """The size of an axis that can be enumerated. Raises :class:`Misfit` for run-time sizes."""
    return _known(axis.size)


def _known(size: Extent) -> int:
    if isinstance(size, int):
        return size
    raise Misfit(f"the run-time size {size} has no positions to enumerate")
