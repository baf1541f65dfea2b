"""Numbers in a graph that encode sizes and positions, and how they follow a cut.

What a model computes from Shape at run time follows the cut by itself; a number that is stored (an attribute, an entry
of a reshape target) must be rewritten where it stands. Both are *entries*::

    entry ::= Number(value, slot)        a stored number; ``slot`` says where, ``None`` where it cannot be changed
            | SizeOf(axis)               the run-time size of an axis
            | Arith(op, entry, entry)    what the graph computes from them
            | Opaque(size)               a number nothing is known about

A rule *requires* that an entry equals the extent of an axis; :func:`settle` solves these requirements once all axes
are refined: it binds the stored numbers to extents, and pins what the arithmetic cannot follow.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Union

from graphprune.dims import Axis, Dim, Pin, find, is_free, pin, unify
from graphprune.kept import evaluated, extent
from graphprune.program import Node, Slot
from graphprune.sizes import Extent, Size, divide, symbol, symbols

Entry = Union["Number", "SizeOf", "Arith", "Opaque"]

MOST_STEPS = 256
"""Real models take a dozen steps from one size to another. A file of 30 nodes can take thousands of millions."""


@dataclass(frozen=True)
class Number:
    """A constant of the graph and the place it is stored at."""

    value: int
    slot: Slot | None = None


@dataclass(frozen=True, eq=False)
class SizeOf:
    """The size of an axis, computed at run time."""

    axis: Axis


@dataclass(frozen=True, eq=False)
class Arith:
    """``left op right`` with op one of ``+ - * /`` (exact or flooring division). ``ValueError`` where that would take
    more than :data:`MOST_STEPS` steps: what reads entries walks through all of them, shared ones each time."""

    op: str
    left: Entry
    right: Entry
    steps: int = field(init=False)

    def __post_init__(self) -> None:
        steps = 1 + sum(part.steps for part in (self.left, self.right) if isinstance(part, Arith))
        if steps > MOST_STEPS:
            raise ValueError(f"a size that takes more than {MOST_STEPS} steps to compute")
        object.__setattr__(self, "steps", steps)


@dataclass(frozen=True, eq=False)
class Opaque:
    """A number that only the run knows; ``size`` is a symbol for it."""

    size: Extent


def now(entry: Entry) -> Extent:
    """What the entry is before any cut."""
    if isinstance(entry, Number):
        return entry.value
    if isinstance(entry, SizeOf):
        return entry.axis.size
    if isinstance(entry, Opaque):
        return entry.size
    return _apply(entry.op, now(entry.left), now(entry.right), entry)


def later(entry: Entry) -> Extent | None:
    """What the entry is under any cut, as a polynomial over free dimensions; ``None`` where that is not a polynomial.

    Stored numbers count as they stand: they are what :func:`settle` may change.
    """
    if isinstance(entry, Number):
        return entry.value
    if isinstance(entry, SizeOf):
        return extent(entry.axis)
    if isinstance(entry, Opaque):
        return entry.size
    left, right = later(entry.left), later(entry.right)
    if left is None or right is None:
        return None
    if entry.op == "/":
        return divide(left, right) if not _constant(left, right) else _apply("/", left, right, entry)
    return _apply(entry.op, left, right, entry)


def _constant(*sizes: Extent) -> bool:
    return all(isinstance(size, int) for size in sizes)


def _apply(op: str, left: Extent, right: Extent, entry: Entry) -> Extent:
    if op == "+":
        return left + right
    if op == "-":
        return left - right
    if op == "*":
        return left * right
    if isinstance(left, int) and isinstance(right, int):
        return left // right if right else 0
    quotient = divide(left, right)
    return symbol(("quotient", str(left), str(right))) if quotient is None else quotient


def axes_in(entry: Entry) -> Iterable[Axis]:
    """The axes whose run-time sizes an entry depends on."""
    if isinstance(entry, SizeOf):
        yield entry.axis
    elif isinstance(entry, Arith):
        yield from axes_in(entry.left)
        yield from axes_in(entry.right)


def slots_in(entry: Entry) -> Iterable[Number]:
    """The stored numbers that an entry depends on."""
    if isinstance(entry, Number) and entry.slot is not None:
        yield entry
    elif isinstance(entry, Arith):
        yield from slots_in(entry.left)
        yield from slots_in(entry.right)


@dataclass(frozen=True, eq=False)
class Requirement:
    """``entry == sign * extent(axis)`` must hold after every cut; ``node`` needs it."""

    entry: Entry
    axis: Axis
    sign: int
    node: Node


def settle(requirements: list[Requirement]) -> dict[Slot, Extent]:
    """Bind stored numbers so that every requirement holds under every cut, pinning what cannot be followed.

    Returns the polynomial to evaluate for each slot that a cut may change. A number that serves several axes ties them.
    A round first ties what it can, and gives up only where there was nothing to tie: what was worked out before a tie
    or a pin is out of date after it. Every round leaves fewer free entries, so the loop ends; two rounds are usual.
    """
    while True:
        bindings: dict[Slot, Extent] = {}
        direct: dict[Slot, Axis] = {}
        tied = False
        failed: list[Requirement] = []
        for requirement in sorted(requirements, key=_order):
            if not _holds(requirement, bindings):
                if _tie(requirement, direct, bindings):
                    tied = True
                else:
                    failed.append(requirement)
            elif isinstance(requirement.entry, Number) and requirement.entry.slot is not None and requirement.sign > 0:
                direct.setdefault(requirement.entry.slot, requirement.axis)
        if tied:
            continue
        failed = failed or [requirement for requirement in requirements if not _came_true(requirement, bindings)]
        if not any([_give_up(requirement, bindings) for requirement in failed]):
            return {slot: size for slot, size in bindings.items() if not isinstance(size, int)}


def _order(requirement: Requirement) -> int:
    """What cannot change comes first, so that nothing is bound to anything else; then numbers that are just a size."""
    return 0 if not _moves(requirement) else 1 if isinstance(requirement.entry, Number) else 2


def _moves(requirement: Requirement) -> bool:
    return is_free(requirement.axis) or any(is_free(axis) for axis in axes_in(requirement.entry))


def _came_true(requirement: Requirement, bindings: dict[Slot, Extent]) -> bool:
    """Whether a requirement holds with everything that was bound after it."""
    if not _moves(requirement):
        return True
    return _bound(requirement.entry, bindings) == extent(requirement.axis) * requirement.sign


def _tie(requirement: Requirement, direct: dict[Slot, Axis], bindings: dict[Slot, Extent]) -> bool:
    """A number that is the size of two axes, be it stored or computed, makes them one dimension."""
    entry, axis = requirement.entry, requirement.axis
    other: Axis | None = None
    if isinstance(entry, Number):
        other = None if entry.slot is None else direct.get(entry.slot)
    elif isinstance(entry, SizeOf):
        other = entry.axis
    else:
        size = _bound(entry, bindings)
        named = symbols(size) if isinstance(size, Size) else set()
        other = next((item for item in named if isinstance(item, Dim) and symbol(item) == size), None)
    if other is None or requirement.sign < 0 or other.size != axis.size or find(other) is find(axis):
        return False
    return unify(other, axis) and extent(other) == extent(axis)


def _holds(requirement: Requirement, bindings: dict[Slot, Extent]) -> bool:
    target = extent(requirement.axis) * requirement.sign
    if not _moves(requirement):
        # Nothing can change here; remember that a stored number must stay, so that no other reader changes it.
        return _stays(requirement.entry, bindings)
    return _solve(requirement.entry, target, bindings)


def _stays(entry: Entry, bindings: dict[Slot, Extent]) -> bool:
    return all(bindings.setdefault(n.slot, n.value) == n.value for n in slots_in(entry) if n.slot is not None)


def _solve(entry: Entry, target: Extent, bindings: dict[Slot, Extent]) -> bool:
    if isinstance(entry, Number):
        if entry.slot is None:
            return target == entry.value
        if evaluated(target, {}) != entry.value or not _known(target):
            return False  # it is not that size today, or only the run knows whether it is
        return bindings.setdefault(entry.slot, target) == target
    current = _bound(entry, bindings)
    if current == target:
        return _freeze(entry, bindings)
    if not isinstance(entry, Arith):
        return False
    left, right = _bound(entry.left, bindings), _bound(entry.right, bindings)
    if _adjustable(entry.right) and left is not None:
        wanted = _inverse_right(entry.op, left, target)
        if wanted is not None:
            return _solve(entry.right, wanted, bindings) and _freeze(entry.left, bindings)
    if _adjustable(entry.left) and right is not None:
        wanted = _inverse_left(entry.op, right, target)
        if wanted is not None:
            return _solve(entry.left, wanted, bindings) and _freeze(entry.right, bindings)
    return False


def _bound(entry: Entry, bindings: dict[Slot, Extent]) -> Extent | None:
    if isinstance(entry, Number) and entry.slot is not None:
        return bindings.get(entry.slot, entry.value)
    if isinstance(entry, Arith):
        left, right = _bound(entry.left, bindings), _bound(entry.right, bindings)
        if left is None or right is None:
            return None
        if entry.op == "/":
            return divide(left, right) if not _constant(left, right) else _apply("/", left, right, entry)
        return _apply(entry.op, left, right, entry)
    return later(entry)


def _freeze(entry: Entry, bindings: dict[Slot, Extent]) -> bool:
    """The numbers an accepted entry was computed with may not be bound to anything else by a later requirement."""
    for number in slots_in(entry):
        if number.slot is not None:
            bindings.setdefault(number.slot, number.value)
    return True


def _known(size: Extent) -> bool:
    return all(isinstance(item, Dim) and isinstance(item.size, int) for item in symbols(size))


def _adjustable(entry: Entry) -> bool:
    if isinstance(entry, Number):
        return entry.slot is not None
    return isinstance(entry, Arith) and (_adjustable(entry.left) or _adjustable(entry.right))


def _inverse_right(op: str, left: Extent, target: Extent) -> Extent | None:
    """x in ``left op x == target``."""
    if op == "+":
        return target - left
    if op == "-":
        return left - target
    if op == "*":
        return divide(target, left)
    return divide(left, target)


def _inverse_left(op: str, right: Extent, target: Extent) -> Extent | None:
    """x in ``x op right == target``."""
    if op == "+":
        return target - right
    if op == "-":
        return target + right
    if op == "*":
        return divide(target, right)
    return target * right


def _give_up(requirement: Requirement, bindings: dict[Slot, Extent]) -> bool:
    why = Pin("GP209", str(requirement.node), "a number computed from sizes cannot follow a cut of this axis")
    changed = pin(requirement.axis, why)
    for axis in axes_in(requirement.entry):
        changed |= pin(axis, why)
    sizes = [extent(requirement.axis)]
    sizes += [bindings.get(number.slot, 0) for number in slots_in(requirement.entry) if number.slot is not None]
    for item in (item for size in sizes for item in symbols(size)):
        if isinstance(item, Dim):
            changed |= pin(item, why)
    return changed
