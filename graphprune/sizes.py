"""Sizes that may be symbolic: integer polynomials over symbols, reduced to plain ``int`` whenever they are constant.

A symbol is the name of a dynamic size ("batch"), or a free dimension whose width is not decided yet: any other object
is known by its identity. This module knows nothing else of the product.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Union

Extent = Union[int, "Size"]
Monomial = tuple[Hashable, ...]


class Size:
    """An integer polynomial, for example ``3*batch*heads + 1``; made by :func:`symbol` and arithmetic, never constant.

    >>> n = symbol("n")
    >>> (n * 12 + n * 4) // 16 == n
    True
    >>> n * 4 - n * 4
    0
    """

    __slots__ = ("_hash", "terms")

    def __init__(self, terms: Mapping[Monomial, int]):
        self.terms = dict(terms)
        self._hash = hash(frozenset(self.terms.items()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Size) and self.terms == other.terms

    def __hash__(self) -> int:
        return self._hash

    def __add__(self, other: Extent) -> Extent:
        terms = dict(self.terms)
        for monomial, factor in _terms(other).items():
            terms[monomial] = terms.get(monomial, 0) + factor
        return _reduced(terms)

    __radd__ = __add__

    def __neg__(self) -> Extent:
        return self * -1

    def __sub__(self, other: Extent) -> Extent:
        return self + other * -1

    def __rsub__(self, other: Extent) -> Extent:
        return self * -1 + other

    def __mul__(self, other: Extent) -> Extent:
        if isinstance(other, int):
            return self if other == 1 else Size({m: c * other for m, c in self.terms.items()}) if other else 0
        terms: dict[Monomial, int] = {}
        for left, a in self.terms.items():
            for right, b in other.terms.items():
                monomial = tuple(sorted(left + right, key=_order))
                terms[monomial] = terms.get(monomial, 0) + a * b
        return _reduced(terms)

    __rmul__ = __mul__

    def __floordiv__(self, other: Extent) -> Extent:
        """The exact quotient; ``ValueError`` where there is none (see :func:`divide`)."""
        return _exact(self, other)

    def __rfloordiv__(self, other: Extent) -> Extent:
        return _exact(other, self)

    def __repr__(self) -> str:
        # In a fixed order: new symbols are named after sizes, and equal sizes must give equal names.
        terms = sorted(self.terms.items(), key=_degree, reverse=True)
        return " + ".join("*".join([*(() if c == 1 and m else (str(c),)), *map(str, m)]) for m, c in terms)


def symbol(name: Hashable) -> Size:
    """The polynomial that is just this symbol."""
    return Size({(name,): 1})


def _order(item: Hashable) -> tuple[str, int]:
    # A stable order within one process is enough: monomials are compared, never printed into results.
    return (item, 0) if isinstance(item, str) else ("", id(item))


def _terms(size: Extent) -> Mapping[Monomial, int]:
    return size.terms if isinstance(size, Size) else {(): size}


def _reduced(terms: Mapping[Monomial, int]) -> Extent:
    kept = {m: c for m, c in terms.items() if c}
    if not kept:
        return 0
    return kept[()] if len(kept) == 1 and () in kept else Size(kept)


def product(sizes: Iterable[Extent]) -> Extent:
    """The product of sizes, 1 for none."""
    result: Extent = 1
    for size in sizes:
        result = result * size
    return result


def divide(size: Extent, by: Extent) -> Extent | None:
    """The exact quotient of two sizes, or ``None`` where the division leaves a remainder (polynomial long division).

    >>> divide(symbol("n") * 12, 4) == symbol("n") * 3, divide(7, 2)
    (True, None)
    """
    if by == 0:
        return None
    if isinstance(size, int) and isinstance(by, int):
        return size // by if size % by == 0 else None
    lead, factor = max(_terms(by).items(), key=_degree)
    rest, quotient = size, 0 * size
    for _ in range(len(_terms(size)) * 4):
        if rest == 0:
            return quotient
        monomial, amount = max(_terms(rest).items(), key=_degree)
        reduced = _without(monomial, lead)
        if reduced is None or amount % factor:
            return None
        part = _reduced({reduced: amount // factor})
        quotient, rest = quotient + part, rest - part * by
    return None


def _degree(term: tuple[Monomial, int]) -> tuple[int, tuple[tuple[str, int], ...]]:
    return len(term[0]), tuple(map(_order, term[0]))


def _without(monomial: Monomial, part: Monomial) -> Monomial | None:
    left = list(monomial)
    for item in part:
        if item not in left:
            return None
        left.remove(item)
    return tuple(left)


def _exact(size: Extent, by: Extent) -> Extent:
    quotient = divide(size, by)
    if quotient is None:
        raise ValueError(f"{size} is not a multiple of {by}")
    return quotient


def evaluate(size: Extent, values: Mapping[Hashable, int], default: int = 1) -> int:
    """The number a size has when its symbols have these values; symbols without a value count as ``default``.

    >>> evaluate(symbol("n") * 3 + 1, {"n": 5})
    16
    """
    if isinstance(size, int):
        return size
    total = 0
    for monomial, factor in size.terms.items():
        for item in monomial:
            factor *= values.get(item, default)
        total += factor
    return total


def symbols(size: Extent) -> set[Hashable]:
    """The symbols a size depends on."""
    return {item for monomial in _terms(size) for item in monomial}
