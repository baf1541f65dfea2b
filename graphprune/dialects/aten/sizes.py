"""Sizes of traced shapes as polynomials."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import sympy

from graphprune.sizes import Extent, symbol


def size_of(size: Any, fixed: Mapping[str, int] | None = None) -> Extent:
    """A size of a traced shape as a polynomial: symbols keep their names, and what is not a polynomial (a floor, a
    maximum) is one symbol for the whole expression. ``fixed`` gives numbers for symbols by name."""
    if isinstance(size, int):
        return size
    expression = size.node.expr
    if fixed:
        known = {each: fixed[str(each)] for each in expression.free_symbols if str(each) in fixed}
        expression = expression.subs(known)
    return _expanded(expression)


@lru_cache(maxsize=4096)
def _expanded(expression: Any) -> Extent:
    """The same few sizes stand at thousands of axes, and sympy takes its time for each."""
    return _polynomial(sympy.expand(expression))


def _polynomial(expression: Any) -> Extent:
    if expression.is_Integer:
        return int(expression)
    if expression.is_Symbol:
        return symbol(str(expression))
    parts = [_polynomial(each) for each in expression.args] if expression.is_Add or expression.is_Mul else []
    if parts and expression.is_Add:
        total: Extent = 0
        for part in parts:
            total = total + part
        return total
    if parts:
        product: Extent = 1
        for part in parts:
            product = product * part
        return product
    if expression.is_Pow and expression.exp.is_Integer and 0 < int(expression.exp) < 8:
        base, power = _polynomial(expression.base), 1
        result: Extent = 1
        while power <= int(expression.exp):
            result, power = result * base, power + 1
        return result
    return symbol(str(expression))
