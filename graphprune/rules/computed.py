"""Sizes computed at run time: Shape, and the arithmetic that turns shapes into reshape targets.

These rules work on the *entries* of small integer tensors (see :mod:`graphprune.rules.numbers`); the same operators on
ordinary tensors are typed by the rules of their family.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphprune.dims import Axis, is_free
from graphprune.rules.numbers import Arith, Entry, Number, Opaque, SizeOf, now
from graphprune.rules.trace import MOST_ENTRIES, Operand, Trace, Typed


def carries_sizes(operands: Sequence[Operand | None]) -> bool:
    """Whether some operand has entries that a rule computed (rather than numbers read from the file)."""
    return any(operand is not None and operand.typed.entries is not None for operand in operands)


def shape_of(trace: Trace, x: Operand, start: int = 0, end: int | None = None) -> Typed:
    """Shape: one entry per axis; sizes of fixed axes are plain numbers."""
    entries: list[Entry] = [
        SizeOf(axis) if is_free(axis) or not isinstance(axis.size, int) else Number(axis.size) for axis in x.axes
    ]
    return vector(trace, entries[start:end])


def size_of(trace: Trace, x: Operand) -> Typed:
    """Size: the product of all axes."""
    entry: Entry = Number(1)
    for each in shape_of(trace, x).entries or []:
        entry = Arith("*", entry, each)
    return Typed([], [entry])


def vector(trace: Trace, entries: list[Entry]) -> Typed:
    """A one-dimensional tensor of entries."""
    return Typed([trace.fixed(len(entries))], entries)


def listed(trace: Trace, operand: Operand) -> list[Entry] | None:
    """The entries of an operand, opaque ones where nothing is known but how many there are."""
    entries = trace.entries(operand)
    if entries is not None:
        return entries
    count = 1
    for axis in operand.axes:
        trace.whole(axis, "its entries are sizes or positions")
        if not isinstance(axis.size, int):
            return None
        count *= axis.size
    return [Opaque(trace.unknown()) for _ in range(count)] if operand.rank <= 1 and count <= MOST_ENTRIES else None


def arithmetic(trace: Trace, op: str, a: Operand, b: Operand, axes: list[Axis]) -> Typed:
    """``+ - * /`` entry by entry, a single entry stretching."""
    left, right = trace.entries(a), trace.entries(b)
    if left is None or right is None or {len(left), len(right)} - {1, max(len(left), len(right))}:
        return Typed(axes)
    count = max(len(left), len(right))
    left, right = left * (count // len(left)), right * (count // len(right))
    return Typed(axes, [_folded(Arith(op, x, y)) for x, y in zip(left, right, strict=True)])


def _folded(entry: Arith) -> Entry:
    """Arithmetic on numbers without slots is a number."""
    plain = all(isinstance(part, Number) and part.slot is None for part in (entry.left, entry.right))
    value = now(entry)
    return Number(value) if plain and isinstance(value, int) else entry


def concatenated(trace: Trace, operands: Sequence[Operand]) -> list[Entry] | None:
    """The entries of one-dimensional operands, one after the other, where they are not too many to be sizes."""
    found: list[Entry] = []
    for operand in operands:
        entries = listed(trace, operand)
        if entries is None or len(found) + len(entries) > MOST_ENTRIES:
            return None
        found.extend(entries)
    return found


def picked(entries: list[Entry], positions: Sequence[int]) -> list[Entry] | None:
    """Entries at positions, negative ones from the end."""
    if not all(-len(entries) <= k < len(entries) for k in positions):
        return None
    return [entries[k] for k in positions]


def equal(trace: Trace, a: Operand, b: Operand, axes: list[Axis]) -> Typed:
    """Whether entries are equal, where that is certain under every cut: a size never equals -1 or 0."""
    left, right = trace.entries(a), trace.entries(b)
    if left is None or right is None:
        return Typed(axes)
    count = max(len(left), len(right))
    left, right = left * (count // max(1, len(left))), right * (count // max(1, len(right)))
    answers = [_equal(x, y) for x, y in zip(left, right, strict=True)]
    known: list[Entry] = [Number(int(answer)) for answer in answers if answer is not None]
    return Typed(axes, known if len(known) == len(answers) else None)


def _equal(a: Entry, b: Entry) -> bool | None:
    x, y = now(a), now(b)
    if isinstance(a, Number) and isinstance(b, Number):
        fixed = a.slot is None and b.slot is None
        return x == y if fixed or a.value <= 0 or b.value <= 0 else None  # a cut makes sizes of sizes
    for value, other in ((x, b), (y, a)):
        if isinstance(other, SizeOf) and isinstance(value, int) and value <= 0:
            return False
    return None


def where(trace: Trace, condition: Operand, a: Operand, b: Operand, axes: list[Axis]) -> Typed:
    """Entries chosen by known answers."""
    answers, left, right = trace.constants(condition), trace.entries(a), trace.entries(b)
    if answers is None or left is None or right is None:
        return Typed(axes)
    count = max(len(answers), len(left), len(right))
    answers, left, right = (x * (count // max(1, len(x))) for x in (answers, left, right))  # type: ignore[assignment]
    return Typed(axes, [x if answer else y for answer, x, y in zip(answers, left, right, strict=True)])


def product(entries: Sequence[Entry]) -> Entry:
    """The product of entries."""
    result: Entry = Number(1)
    for entry in entries:
        result = _folded(Arith("*", result, entry))
    return result


def filled(trace: Trace, axes: list[Axis], value: int | None) -> Typed:
    """A constant vector, where it is small enough to be one of sizes."""
    if value is None or len(axes) > 1 or any(not isinstance(a.size, int) or a.size > MOST_ENTRIES for a in axes):
        return Typed(axes)
    count = axes[0].size if axes else 1
    return Typed(axes, [Number(value)] * count if isinstance(count, int) else None)
