"""Integer polynomials: the laws of arithmetic, and evaluation as the model they are held against."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from graphprune.dims import Dim
from graphprune.sizes import Extent, Size, divide, evaluate, product, symbol, symbols
from tests.algebra import LAWS

NAMES: list[object] = ["batch", "n", "sequence", Dim(3, "d"), Dim(5, "e")]
VALUES = st.fixed_dictionaries({}, optional={name: st.integers(0, 9) for name in NAMES})


@st.composite
def sizes(draw: st.DrawFn) -> Extent:
    """A polynomial of up to three terms in up to three symbols."""
    total: Extent = draw(st.integers(-4, 20))
    for _ in range(draw(st.integers(0, 3))):
        names = draw(st.lists(st.sampled_from(NAMES), max_size=3))
        total = total + product(map(symbol, names)) * draw(st.integers(-4, 20))
    return total


@LAWS
@given(sizes(), sizes(), VALUES)
def test_arithmetic_and_evaluation_commute(a: Extent, b: Extent, values: dict[object, int]) -> None:
    x, y = evaluate(a, values), evaluate(b, values)
    assert evaluate(a + b, values) == x + y
    assert evaluate(a - b, values) == x - y
    assert evaluate(a * b, values) == x * y


@LAWS
@given(sizes(), sizes(), sizes())
def test_the_laws_of_a_ring(a: Extent, b: Extent, c: Extent) -> None:
    for left, right in (
        (a + b, b + a),
        (a * b, b * a),
        ((a + b) + c, a + (b + c)),
        ((a * b) * c, a * (b * c)),
        (a * (b + c), a * b + a * c),
        (a - b, -1 * (b - a)),
        (a + 0, a),
        (a * 1, a),
    ):
        assert left == right and hash(left) == hash(right) and repr(left) == repr(right)
    assert a - a == 0 and a * 0 == 0 and isinstance(a - a, int)


@LAWS
@given(sizes(), sizes())
def test_a_product_divides_by_its_factors(a: Extent, b: Extent) -> None:
    assume(b != 0)
    assert divide(a * b, b) == a
    assert (a * b) // b == a


@LAWS
@given(sizes(), sizes(), VALUES)
def test_a_quotient_is_exact(a: Extent, b: Extent, values: dict[object, int]) -> None:
    quotient = divide(a, b)
    if quotient is not None:
        assert quotient * b == a
        assert evaluate(quotient, values) * evaluate(b, values) == evaluate(a, values)
    elif b != 0:
        with pytest.raises(ValueError, match="not a multiple"):
            if isinstance(a, Size) or isinstance(b, Size):
                a // b
            raise ValueError("not a multiple")


def test_what_leaves_a_remainder_has_no_quotient() -> None:
    n, m = symbol("n"), symbol("m")
    for a, b in ((n * 7, 2), (n + 1, n), (n, m), (7, n), (n, n * n), (7, 2), (n, 0), (0, 0)):
        assert divide(a, b) is None
    assert divide(0, n) == 0


def test_constants_are_plain_numbers() -> None:
    n = symbol("n")
    assert type(n - n) is int and type(n * 0 + 3) is int and type(divide(n * 6, n)) is int


def test_symbols_without_a_value_take_the_default() -> None:
    n = symbol("n")
    assert evaluate(n * 3 + 1, {}) == 4
    assert evaluate(n * 3 + 1, {}, default=0) == 1
    assert symbols(n * symbol("m") + 2) == {"n", "m"} and symbols(5) == set()


def test_equal_sizes_are_printed_alike() -> None:
    """Symbols are named after sizes (`Trace.derived`): two branches that add in another order must meet again."""
    n, m = symbol("n"), symbol("m")
    assert str(n + m * 2 + 1) == str(1 + m * 2 + n)
    assert str((n + 1) * (m + 1)) == str(n * m + m + n + 1)
