"""The dimension algebra: what every axis of every tensor is made of, and which axes share their fate.

::

    axis ::= Dim                      a primitive dimension: a size, free or pinned
           | Sum(axis, axis, ...)     concatenation along the axis, in order
           | Prod(axis, axis, ...)    row-major product, outermost first

Two axes that must share their fate are **unified**, as types are in type inference; unification refines. A Linear of
768 that a later reshape views as 12 x 64 *becomes* ``Prod(heads[12], width[64])`` in its weight. Where sizes cannot be
refined, both sides are **pinned** with the reason: a misfit costs prunability, never correctness. Nothing here depends
on how many channels a dimension has, and this module knows nothing of the rest of the product but sizes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import is_
from typing import NamedTuple, Union

import numpy as np
from numpy.typing import NDArray

from graphprune.sizes import Extent, divide, product

Axis = Union["Dim", "Sum", "Prod"]
Keep = Mapping["Dim", NDArray[np.int64]]

# An enumerated product (a split inside a pinned outer factor) may not blow up with the size of that factor.
_MOST_COPIES = 64


class Pin(NamedTuple):
    """Why a dimension must not move: a code of :mod:`graphprune.codes`, the node that says so, and the reason."""

    code: str
    where: str
    reason: str


class Misfit(Exception):
    """Two axes, or an axis and a cut, whose sizes have no common refinement."""


class Dim:
    """A primitive dimension. ``origin`` is where it was first seen, ``pin`` the first reason why it must not move;
    ``is_part`` where a sum or a product was made of it."""

    __slots__ = ("is_part", "origin", "pin", "refined", "size")

    def __init__(self, size: Extent, origin: str = "", pin: Pin | None = None):
        self.size = size
        self.origin = origin
        self.pin = pin
        self.refined: Axis | None = None
        self.is_part = False

    def __repr__(self) -> str:
        axis = find(self)
        return f"{'!' if self.pin else ''}{self.origin or 'd'}[{self.size}]" if axis is self else repr(axis)


class _Parts:
    """Axes put together. The normal form is kept: it holds until a dimension that is a part of something is refined."""

    __slots__ = ("leaves", "normal", "parts", "refinements", "size")

    def __init__(self, parts: Sequence[Axis], size: Extent):
        self.parts: tuple[Axis, ...] = tuple(parts)
        self.size = size
        self.normal: Sum | Prod | None = None
        self.refinements = -1
        self.leaves: list[Dim] = []
        for part in self.parts:
            if isinstance(part, Dim):
                part.is_part = True


class Sum(_Parts):
    """Axes laid end to end; the size is the sum of theirs."""

    __slots__ = ()

    def __init__(self, parts: Sequence[Axis]):
        size: Extent = 0
        for part in parts:
            size = size + part.size
        super().__init__(parts, size)

    def __repr__(self) -> str:
        return "(" + " + ".join(repr(find(p)) for p in self.parts) + ")"


class Prod(_Parts):
    """Axes multiplied in row-major order, outermost first; the size is the product of theirs."""

    __slots__ = ()

    def __init__(self, parts: Sequence[Axis]):
        super().__init__(parts, product(part.size for part in parts))

    def __repr__(self) -> str:
        return "(" + " * ".join(repr(find(p)) for p in self.parts) + ")"


UNIT_PIN = Pin("GP204", "", "an axis of size 1")
UNIT = Dim(1, "unit", UNIT_PIN)
NOTHING = Dim(0, "nothing", Pin("GP204", "", "an empty axis"))


def fresh(size: Extent, origin: str = "", pin: Pin | None = None) -> Dim:
    """A new dimension; axes of size 1 and 0 have nothing to prune and are shared, symbolic ones are pinned."""
    if isinstance(size, int):
        return Dim(size, origin, pin) if size > 1 else UNIT if size == 1 else NOTHING
    return Dim(size, origin, pin or Pin("GP208", origin, f"its size {size} is only known at run time"))


def find(axis: Axis) -> Axis:
    """The normal form: refinements followed, nested sums and products flattened, units and empty parts dropped.

    >>> find(Prod([Dim(2), UNIT, Prod([Dim(3), Dim(4)])]))
    (d[2] * d[3] * d[4])
    """
    if isinstance(axis, Dim):
        return axis if axis.refined is None else _representative(axis)
    if axis.refinements == _Refinements.count and axis.normal is not None:
        return axis.normal
    kind, neutral = (Sum, 0) if isinstance(axis, Sum) else (Prod, 1)
    parts = _flat(axis.parts, kind, neutral)
    if len(parts) < 2:
        return parts[0] if parts else NOTHING if kind is Sum else UNIT
    is_normal = len(parts) == len(axis.parts) and all(map(is_, parts, axis.parts))  # most are
    axis.normal = axis if is_normal else kind(parts)
    axis.refinements = axis.normal.refinements = _Refinements.count
    axis.normal.normal = axis.normal
    return axis.normal


class _Refinements:
    """How many dimensions that are parts of something have been refined so far."""

    count = 0


def _refine(dim: Dim, axis: Axis) -> None:
    """Let a dimension be what an axis is."""
    dim.refined = axis
    _Refinements.count += dim.is_part


def _representative(dim: Dim) -> Axis:
    chain = []
    axis: Axis = dim
    while isinstance(axis, Dim) and axis.refined is not None:
        chain.append(axis)
        axis = axis.refined
    if not isinstance(axis, Dim):
        axis = find(axis)
    for link in chain:  # path compression
        link.refined = axis
    return axis


def _flat(parts: Sequence[Axis], kind: type, neutral: int) -> list[Axis]:
    flat: list[Axis] = []
    for part in parts:
        part = find(part)
        if isinstance(part, kind):
            flat.extend(part.parts)  # type: ignore[union-attr]  # kind is Sum or Prod
        elif part.size != neutral:
            flat.append(part)
    return flat


def leaves(axis: Axis) -> list[Dim]:
    """The primitive dimensions of an axis, in order, repeated where they repeat; to be read, not to be changed."""
    axis = find(axis)
    if isinstance(axis, Dim):
        return [axis]
    if not axis.leaves:
        for part in axis.parts:  # they are in normal form as well
            axis.leaves += (part,) if isinstance(part, Dim) else leaves(part)
    return axis.leaves


def walk(axis: Axis, path: tuple[int, ...] = ()) -> list[tuple[tuple[int, ...], Dim]]:
    """The primitive dimensions of an axis with their places: ``(0, 1)`` is part 1 of part 0 of the normal form."""
    axis = find(axis)
    if isinstance(axis, Dim):
        return [(path, axis)]
    found: list[tuple[tuple[int, ...], Dim]] = []
    for place, part in enumerate(axis.parts):
        found += [((*path, place), part)] if isinstance(part, Dim) else walk(part, (*path, place))
    return found


def is_free(axis: Axis) -> bool:
    """Whether some dimension of the axis may still be pruned."""
    if isinstance(axis, Dim) and axis.refined is None:
        return axis.pin is None
    for leaf in leaves(axis):  # noqa: SIM110  # any() would take twice as long, and this is asked most of all
        if leaf.pin is None:
            return True
    return False


def pin(axis: Axis, why: Pin) -> bool:
    """Pin every dimension of an axis; the first reason given is kept. Returns whether anything was free before."""
    changed = False
    for leaf in leaves(axis):
        if leaf.pin is None:
            leaf.pin, changed = why, True
    return changed


def reason(axis: Axis) -> Pin:
    """Why an axis that is not free stays: the pin of its first part that has more than one entry."""
    for leaf in leaves(axis):
        if leaf.pin is not None and leaf.size != 1:
            return leaf.pin
    return Pin("GP204", "", "it is put together from axes of size 1")


def _bind(dim: Dim, axis: Axis) -> None:
    axis = find(axis)
    if axis is dim:
        return
    if dim in leaves(axis):  # dimensions are equal only to themselves
        raise Misfit(f"an axis of size {dim.size} would be a part of itself")
    if dim.pin is not None:
        pin(axis, dim.pin)
    _refine(dim, axis)


def unify(a: Axis, b: Axis, blame: Pin | None = None) -> bool:
    """Make two axes one: from here on they are pruned together.

    Where their sizes have no common refinement both are pinned with ``blame`` and ``False`` is returned. Symbolic sizes
    are taken to agree: the operator that ties the axes requires it at run time.
    """
    a, b = find(a), find(b)
    if a is b:
        return True
    if a.size == b.size:  # where one side stays, the other stays, and how they are made up no longer matters
        for one, other in ((a, b), (b, a)):
            if not is_free(one):
                pin(other, reason(one))
                return True
    try:
        _unify(a, b)
    except Misfit as misfit:
        why = Pin(blame.code if blame else "GP205", blame.where if blame else "", str(misfit))
        pin(a, why)
        pin(b, why)
        return False
    return True


def _unify(a: Axis, b: Axis) -> None:
    a, b = find(a), find(b)
    if a is b:
        return
    if a.size != b.size:
        if isinstance(a.size, int) and isinstance(b.size, int):
            raise Misfit(f"sizes {a.size} and {b.size} differ")
        pin(a, Pin("GP208", "", f"tied to the run-time size {b.size}"))
        pin(b, Pin("GP208", "", f"tied to the run-time size {a.size}"))
        return
    if isinstance(a, Dim):
        _bind(a, b)
    elif isinstance(b, Dim):
        _bind(b, a)
    elif isinstance(a, Prod) and isinstance(b, Prod):
        outer = _dividing(a.parts[0].size, b.parts[0].size)
        (a_outer, a_inner), (b_outer, b_inner) = factor(a, outer), factor(b, outer)
        _unify(a_outer, b_outer)
        _unify(a_inner, b_inner)
    else:
        _unify_in_pieces(a, b)


def _unify_in_pieces(a: Axis, b: Axis) -> None:
    """Unify a Sum with a Sum or a Prod from left to right, cutting whichever piece is longer."""
    left, right = [a], [b]
    while left and right:
        if isinstance(first := find(left.pop()), Sum):
            left.extend(reversed(first.parts))
            first = find(left.pop())
        if isinstance(second := find(right.pop()), Sum):
            right.extend(reversed(second.parts))
            second = find(right.pop())
        size = _smaller(first.size, second.size)
        if first.size != size:
            first, rest = split(first, size)
            left.append(rest)
        if second.size != size:
            second, rest = split(second, size)
            right.append(rest)
        _unify(first, second)


def _dividing(a: Extent, b: Extent) -> Extent:
    """The one of two sizes that divides the other, run-time sizes included."""
    if divide(b, a) is not None:
        return a
    if divide(a, b) is not None:
        return b
    raise Misfit(f"{a} and {b} have no common blocks")


def _smaller(a: Extent, b: Extent) -> Extent:
    if isinstance(a, int) and isinstance(b, int):
        return min(a, b)
    if a == b:
        return a
    raise Misfit(f"run-time sizes {a} and {b} cannot be ordered")


def split(axis: Axis, size: Extent) -> tuple[Axis, Axis]:
    """Cut an axis open after ``size`` entries: the two sides, whose Sum the axis now is. Raises :class:`Misfit`.

    >>> d = Dim(10); left, right = split(d, 4); (left.size, right.size, find(d))
    (4, 6, (d[4] + d[6]))
    """
    axis = find(axis)
    if size == 0:
        return NOTHING, axis
    if axis.size == 0:
        raise Misfit(f"an empty axis cannot be cut at {size}")
    if size == axis.size:
        return axis, NOTHING
    if isinstance(axis, Dim):
        return _split_dim(axis, size)
    if isinstance(axis, Sum):
        return _split_sum(axis, size)
    return _split_prod(axis, size)


def _split_dim(dim: Dim, size: Extent) -> tuple[Axis, Axis]:
    rest = dim.size - size
    if isinstance(rest, int) and (rest < 0 or (isinstance(size, int) and size < 0)):
        raise Misfit(f"cannot cut an axis of size {dim.size} at {size}")
    left, right = fresh(size, dim.origin, dim.pin), fresh(rest, dim.origin, dim.pin)
    _refine(dim, Sum([left, right]))
    return left, right


def _split_sum(axis: Sum, size: Extent) -> tuple[Axis, Axis]:
    left: list[Axis] = []
    rest, need = list(axis.parts), size
    while need != 0:
        if not rest:
            raise Misfit(f"cannot cut a concatenation of {_sizes(axis)} at {size}")
        part = rest.pop(0)
        over = part.size - need
        if over == 0 or (isinstance(over, int) and over < 0):
            left.append(part)
            need = need - part.size
        elif isinstance(over, int) or not rest:
            inner_left, inner_right = split(part, need)
            left.append(inner_left)
            rest.insert(0, inner_right)
            need = 0
        else:
            raise Misfit(f"cannot tell where {need} lies in the run-time size {part.size}")
    return find(Sum(left)), find(Sum(rest))


def _split_prod(axis: Prod, size: Extent) -> tuple[Axis, Axis]:
    head, rest = axis.parts[0], find(Prod(axis.parts[1:]))
    if not isinstance(size, int) or not isinstance(rest.size, int):
        raise Misfit(f"cannot cut a product at the run-time size {size}")
    if size % rest.size == 0:
        left, right = split(head, size // rest.size)
        return find(Prod([left, rest])), find(Prod([right, rest]))
    if not isinstance(head.size, int) or head.size > _MOST_COPIES:
        raise Misfit(f"a cut at {size} falls inside a block of {rest.size}")
    # The cut falls inside one copy of `rest`: with a pinned head the product is head.size copies in a row.
    pin(head, Pin("GP205", "", f"a cut at {size} falls inside a block of {rest.size}"))
    return split(Sum([rest] * head.size), size)


def factor(axis: Axis, outer: Extent) -> tuple[Axis, Axis]:
    """Take an axis apart into ``outer`` equal blocks: the outer and the inner axis, whose Prod it now is.

    >>> d = Dim(12); factor(d, 3)[1].size, find(d)
    (4, (d[3] * d[4]))
    """
    axis = find(axis)
    if axis.size == 0 or (isinstance(outer, int) and outer < 1):
        raise Misfit(f"an axis of size {axis.size} does not come in {outer} blocks")
    if outer == 1:
        return UNIT, axis
    if outer == axis.size:
        return axis, UNIT
    inner = divide(axis.size, outer)
    if inner is None:
        raise Misfit(f"an axis of size {axis.size} does not come in {outer} equal blocks")
    if isinstance(axis, Dim):
        left, right = fresh(outer, axis.origin, axis.pin), fresh(inner, axis.origin, axis.pin)
        _refine(axis, Prod([left, right]))
        return left, right
    if isinstance(axis, Prod):
        return _factor_prod(axis, outer)
    return _factor_sum(axis, outer, inner)


def _factor_prod(axis: Prod, outer: Extent) -> tuple[Axis, Axis]:
    head, rest = axis.parts[0], find(Prod(axis.parts[1:]))
    if head.size == outer:
        return head, rest
    if divide(head.size, outer) is not None:  # the block border lies inside the head
        left, right = factor(head, outer)
        return left, find(Prod([right, rest]))
    more = divide(outer, head.size)
    if more is None:
        raise Misfit(f"a product of {axis.size} has no block border at {outer}")
    left, right = factor(rest, more)
    return find(Prod([head, left])), right


def _factor_sum(axis: Sum, outer: Extent, inner: Extent) -> tuple[Axis, Axis]:
    if isinstance(inner, int) and all(isinstance(part.size, int) and part.size % inner == 0 for part in axis.parts):
        # Every part comes in blocks of the inner size: (a * i) + (b * i) is (a + b) * i.
        pairs = [factor(part, part.size // inner) for part in axis.parts]
        for _, block in pairs[1:]:
            _unify(pairs[0][1], block)
        return find(Sum([count for count, _ in pairs])), find(pairs[0][1])
    # Equal blocks that cross the parts: all blocks become one axis, and how many there are can no longer change.
    if not isinstance(outer, int) or outer > _MOST_COPIES:
        raise Misfit(f"a concatenation of {_sizes(axis)} does not come in {outer} equal blocks")
    blocks: list[Axis] = []
    rest: Axis = axis
    for _ in range(outer - 1):
        block, rest = split(rest, inner)
        blocks.append(block)
    for block in [*blocks[1:], rest]:
        _unify(blocks[0], block)
    return fresh(outer, "blocks", Pin("GP205", "", f"counts {outer} equal blocks of a concatenation")), find(blocks[0])


def _sizes(axis: Sum) -> str:
    return " + ".join(str(part.size) for part in axis.parts[:6]) + (" + ..." if len(axis.parts) > 6 else "")


def is_cut(axis: Axis, keep: Mapping[Dim, object]) -> bool:
    """Whether a keep-set touches this axis."""
    return bool(keep) and any(leaf in keep for leaf in leaves(axis))
