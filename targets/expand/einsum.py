"""Einsum as products of matrices: letters that stay on both sides are the batch, those that go are summed over.

"bhqd,bhkd->bhqk" = MatMul(a, b^T)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from string import ascii_letters

import numpy as np
import onnx_ir as ir

from graphprune.targets.expand.maker import Maker, array, is_float, number, sizes


@dataclass(frozen=True)
class Term:
    """A tensor and a letter for each of its axes."""

    value: ir.Value
    letters: str


def einsum(make: Maker, node: ir.Node) -> list[ir.Value] | None:
    """Two terms at a time, from the left; None where a term has a letter twice (a diagonal) or another data type."""
    shapes = [sizes(entry) for entry in node.inputs]
    if any(shape is None for shape in shapes) or not all(is_float(entry) for entry in node.inputs):
        return None
    spelled = spell(number(node, "equation", ""), [len(shape or ()) for shape in shapes])
    if spelled is None:
        return None
    given, wanted = spelled
    extents: dict[str, int] = {}
    for letters, shape in zip(given, shapes, strict=True):
        for letter, size in zip(letters, shape or (), strict=True):
            if extents.setdefault(letter, size) != size:
                return None  # an axis of one entry that is repeated
    write = _Writer(make, extents)
    first, *rest = (Term(entry, letters) for entry, letters in zip(node.inputs, given, strict=True) if entry)
    for place, term in enumerate(rest):
        first = write.product(first, term, {*wanted, *"".join(each.letters for each in rest[place + 1 :])})
    return [write.turned(write.summed(first, set(wanted)), wanted).value]


def spell(equation: str, ranks: Sequence[int]) -> tuple[list[str], str] | None:
    """A letter for each axis of each term and of the result, dots spelled out; None where that is not possible."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    free = [letter for letter in ascii_letters if letter not in equation]
    terms = left.split(",")
    longest = max((rank - len(term) + 3 for term, rank in zip(terms, ranks, strict=True) if "..." in term), default=0)
    dots = "".join(free[:longest])

    def whole(term: str, rank: int) -> str:
        return term.replace("...", dots[longest - (rank - len(term) + 3) :]) if "..." in term else term

    found = [whole(term, rank) for term, rank in zip(terms, ranks, strict=True)]
    once = [letter for letter in sorted({*left} - {*",."}) if left.count(letter) == 1]
    result = right.replace("...", dots) if arrow else dots + "".join(once)
    fits = all(len(term) == rank == len({*term}) for term, rank in zip(found, ranks, strict=True))
    return (found, result) if fits and {*result} <= {*"".join(found)} else None


@dataclass(frozen=True)
class _Writer:
    """Writes what terms become, with the extent of each letter."""

    make: Maker
    extents: dict[str, int]

    def product(self, a: Term, b: Term, keep: set[str]) -> Term:
        """One term of two, with the letters that are kept; a constant comes second, as weights do."""
        a, b = self.summed(a, keep | {*b.letters}), self.summed(b, keep | {*a.letters})
        if array(a.value) is not None:
            a, b = b, a
        shared = [letter for letter in a.letters if letter in b.letters]
        batch = "".join(letter for letter in shared if letter in keep)
        inner = "".join(letter for letter in shared if letter not in keep)
        left = "".join(letter for letter in a.letters if letter not in shared)
        right = "".join(letter for letter in b.letters if letter not in shared)
        around, rows, columns = self.sizes(batch), self.sizes(left), self.sizes(right)
        a, b = self.turned(a, batch + left + inner), self.turned(b, batch + inner + right)
        if inner:
            depth = prod(self.sizes(inner))
            x = self.reshaped(a.value, (*around, prod(rows), depth))
            y = self.reshaped(b.value, (*around, depth, prod(columns)))
            value = self.make.op("MatMul", x, y, shape=(*around, prod(rows), prod(columns)))
            value = self.make.reshape(value, (*around, *rows, *columns))
        else:
            x = self.reshaped(a.value, (*around, *rows, *(1,) * len(right)))
            y = self.reshaped(b.value, (*around, *(1,) * len(left), *columns))
            value = self.make.op("Mul", x, y, shape=(*around, *rows, *columns))
        return Term(value, batch + left + right)

    def summed(self, term: Term, keep: set[str]) -> Term:
        """Without the letters that are not kept."""
        axes = [axis for axis, letter in enumerate(term.letters) if letter not in keep]
        if not axes:
            return term
        letters = "".join(letter for letter in term.letters if letter in keep)
        known = array(term.value)
        if known is not None:
            return Term(self.make.constant(known.sum(tuple(axes), dtype=known.dtype)), letters)
        listed = self.make.constant(np.array(axes, np.int64))
        return Term(self.make.op("ReduceSum", term.value, listed, shape=self.sizes(letters), keepdims=0), letters)

    def turned(self, term: Term, letters: str) -> Term:
        """With its axes in this order."""
        order = [term.letters.index(letter) for letter in letters]
        if order == sorted(order):
            return term
        known = array(term.value)
        if known is not None:
            return Term(self.make.constant(known.transpose(order)), letters)
        return Term(self.make.op("Transpose", term.value, shape=self.sizes(letters), perm=order), letters)

    def reshaped(self, value: ir.Value, shape: Sequence[int]) -> ir.Value:
        known = array(value)
        return self.make.reshape(value, shape) if known is None else self.make.constant(known.reshape(shape))

    def sizes(self, letters: str) -> tuple[int, ...]:
        return tuple(self.extents[letter] for letter in letters)
