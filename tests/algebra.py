"""The dimension algebra again, by enumeration: what the laws of :mod:`graphprune.dims` are checked against.

An axis is the list of its entries, each named by the dimensions it lies on; a keep-set filters and reorders that list.
Nothing here uses normal forms or index arithmetic of the module under test; only what dimensions were refined to.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from graphprune.dims import Axis, Dim, Keep, Pin, Prod, Sum, fresh, leaves

PIN = Pin("GP204", "", "pinned by the test")

# The same cases in every run, and as many as the time of a commit allows.
LAWS = settings(derandomize=True, deadline=None, max_examples=200)
FEW = settings(LAWS, max_examples=60)

LARGEST = 60  # of a product that is enumerated

Entry = tuple[tuple[Dim, int], ...]


def entries(axis: Axis, keep: Keep) -> list[tuple[int, Entry]]:
    """The surviving entries in their new order: old position, and the entry of every dimension on the way."""
    if isinstance(axis, Dim):
        if axis.refined is not None:
            return entries(axis.refined, keep)
        kept = keep[axis].tolist() if axis in keep else range(axis.size)
        return [(place, ((axis, place),)) for place in kept]
    if isinstance(axis, Sum):
        found, offset = [], 0
        for part in axis.parts:
            found += [(offset + place, name) for place, name in entries(part, keep)]
            offset += whole(part)
        return found
    sizes = [whole(part) for part in axis.parts]
    found = []
    for choice in product(*(entries(part, keep) for part in axis.parts)):
        place, name = 0, ()
        for size, (inner, more) in zip(sizes, choice, strict=True):
            place, name = place * size + inner, name + more
        found.append((place, name))
    return found


def whole(axis: Axis) -> int:
    """How many entries an axis has before any cut."""
    sizes = [axis.size] if isinstance(axis, Dim) else [whole(part) for part in axis.parts]
    return sum(sizes) if isinstance(axis, Sum) else int(np.prod(sizes))


def positions(axis: Axis, keep: Keep) -> list[int]:
    """The old positions that survive, in their new order."""
    return [place for place, _ in entries(axis, keep)]


def free_leaves(*axes: Axis) -> list[Dim]:
    """The dimensions of axes that may be cut, each once."""
    return list(dict.fromkeys(leaf for axis in axes for leaf in leaves(axis) if leaf.pin is None))


@st.composite
def axes(draw: st.DrawFn, most: int = 4, deep: int = 2) -> Axis:
    """Any axis of up to two levels: free and pinned dimensions of sizes 0 to 6."""
    if deep == 0 or draw(st.integers(0, 2)) == 0:
        return fresh(draw(st.integers(0, 6)), "", draw(st.sampled_from([None, None, None, PIN])))
    parts = draw(st.lists(axes(most, deep - 1), min_size=1, max_size=most if deep == 1 else 2))
    if draw(st.booleans()):
        parts.append(draw(st.sampled_from(parts)))  # the same dimension twice
    made = draw(st.sampled_from([Sum, Prod]))(parts)
    return made if made.size <= LARGEST else Sum(parts)


@st.composite
def keeps(draw: st.DrawFn, dims: list[Dim]) -> dict[Dim, np.ndarray]:
    """Some entries of some dimensions, in any order; never none of them."""
    found = {}
    for dim in dims:
        if draw(st.integers(0, 3)):
            order = draw(st.permutations(range(dim.size)))
            found[dim] = np.array(order[: draw(st.integers(1, dim.size))], np.int64)
    return found
