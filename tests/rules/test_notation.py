"""Rows in axis notation, against NumPy, and what they declare."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphprune.dims import UNIT, Axis, Dim, Prod, Sum, find, fresh, leaves
from graphprune.program import Slot
from graphprune.rules.notation import Row
from graphprune.rules.numbers import Number, settle
from graphprune.rules.trace import Typed
from graphprune.sizes import symbol
from tests.algebra import FEW, PIN, keeps
from tests.rules.numeric import Case, check, gather, is_free, made_of

SIZES = st.integers(1, 4)


def typed(row: Row, *shapes: list[Axis], numbers: Any = None, window: Any = ()) -> tuple[Typed, Case]:
    case = Case(shapes)
    out = row(case.trace, [case.x(place) for place in range(len(shapes))], numbers, window)
    case.settle()
    return out, case


@FEW
@given(st.data())
def test_a_product_with_any_batch(data: Any) -> None:
    def axis(size: int) -> Axis:
        return data.draw(made_of(size))

    i, o, batch = data.draw(SIZES), data.draw(SIZES), data.draw(st.lists(SIZES, max_size=2))
    case = Case([[*map(axis, batch), axis(i)], [axis(i), axis(o)], [axis(o)]])
    row = Row("... i, i o, o -> ... o", weight=1)
    out = row(case.trace, [case.x(place) for place in range(3)])
    case.settle()
    dense = case.arrays[0] @ case.arrays[1] + case.arrays[2]
    keep = data.draw(keeps(case.free([out])))
    cut = {leaf for reduced in case.trace.contractions[0].reduced for leaf in leaves(reduced)} & set(keep)
    if not cut:  # what is summed over is only the same where zeros are removed
        found = case.gathered(keep) @ case.gathered(keep, 1) + case.gathered(keep, 2)
        np.testing.assert_array_equal(found, gather(dense, out.axes or [], keep))


@FEW
@given(st.data())
def test_products_are_taken_apart_and_put_together(data: Any) -> None:
    """``b (h w) -> h b w``, a view as heads; the number of heads is stored."""
    b, h, w = (data.draw(SIZES) for _ in range(3))
    case = Case([[data.draw(made_of(b)), data.draw(made_of(h * w))]], [h])
    (count,) = case.entries()
    out = Row("b (h w) -> h b w")(case.trace, [case.x()], {"h": count})

    def run(arrays: list[np.ndarray], numbers: list[list[int]]) -> list[np.ndarray]:
        x, heads = arrays[0], numbers[0][0]
        return [x.reshape(len(x), heads, -1).transpose(1, 0, 2)]

    check(data, case, [out], run)
    back = Row("h b w -> b (h w)")
    case = Case([[data.draw(made_of(size)) for size in (h, b, w)]])
    check(
        data,
        case,
        [back(case.trace, [case.x()])],
        lambda arrays, _: [arrays[0].transpose(1, 0, 2).reshape(arrays[0].shape[1], -1)],
    )


def test_the_same_letter_is_the_same_axis() -> None:
    a, b, c = Dim(4), Dim(4), Dim(4)
    out, _ = typed(Row("c, c, c -> c"), [a], [b], [c])
    assert find(a) is find(b) is find(c) and (out.axes or [])[0] is find(a)
    d, e = Dim(4), Dim(5)
    typed(Row("c, c -> c"), [d], [e])  # not what the row says: both stay
    assert not is_free(d) and not is_free(e)


def test_dots_are_broadcast() -> None:
    a, b = Dim(4), Dim(3)
    out, _ = typed(Row("..., ... -> ..."), [a, UNIT], [b])
    assert [find(axis) for axis in out.axes or []] == [a, b] and is_free(a, b)


def test_a_window_stays_and_is_not_tied() -> None:
    a, b, c = Dim(5), Dim(3), Dim(4)
    out, case = typed(Row("c *, c * -> c *", weight=1), [c, a], [Dim(4), b], window=[3])
    assert not is_free(a) and not is_free(b) and is_free(c)
    assert {leaf.pin.code for axis in (a, b) for leaf in leaves(axis) if leaf.pin} == {"GP214"}
    assert [axis.size for axis in out.axes or []] == [4, 3]
    assert case.trace.contractions[0].window == 1


def test_a_window_in_the_middle() -> None:
    batch, channels = Dim(2), Dim(4)
    out, _ = typed(Row("n * c -> n * c"), [batch, Dim(5), Dim(6), channels], window=[5, 6])
    assert [axis.size for axis in out.axes or []] == [2, 5, 6, 4]
    assert (out.axes or [])[0] is batch and (out.axes or [])[-1] is channels and is_free(batch, channels)


def test_letters_that_stay_and_letters_that_are_inexact() -> None:
    a, b = Dim(4), Dim(3)
    _, case = typed(Row("a b -> a b", whole="a", inexact="b"), [a, b])
    assert not is_free(a) and is_free(b)
    assert [axis for _, axis in case.trace.inexact_uses] == [b]


def test_ones() -> None:
    out, _ = typed(Row("a 1 -> 1 a"), [Dim(4), UNIT])
    assert [axis.size for axis in out.axes or []] == [1, 4]
    a = Dim(3)
    typed(Row("1 b -> b"), [a, Dim(4)])
    assert not is_free(a)


def test_operands_that_are_absent() -> None:
    case = Case([[Dim(2), Dim(4)], [Dim(4), Dim(5)]])
    row = Row("... i, i o, o? -> ... o", weight=1, roles={"bias": 2})
    row(case.trace, [case.x(), case.x(1), None])
    assert case.trace.contractions[0].bias is None
    row(case.trace, [case.x(), case.x(1)])
    assert case.trace.contractions[1].bias is None


def test_a_missing_weight_is_an_error() -> None:
    case = Case([[Dim(2), Dim(4)]])
    with pytest.raises(ValueError, match="weight"):
        Row("... i, i o -> ... o", weight=1)(case.trace, [case.x(), None])
    with pytest.raises(ValueError, match="weight"):
        Row("... i, i o -> ... o", weight=1)(case.trace, [case.x()])


def test_what_does_not_come_in_blocks_stays() -> None:
    d, free = Dim(10), Dim(3)
    out, _ = typed(Row("(g i) c -> g i c"), [d, free], numbers={"g": Number(4)})
    assert not is_free(d) and is_free(free)
    assert (out.axes or [])[0].size == 4


def test_a_factor_is_known_from_another_operand() -> None:
    a, b = Dim(12), Dim(3)
    out, _ = typed(Row("g, (g i) -> i"), [b], [a])
    assert leaves(a)[0] is find(b) and (out.axes or [])[0].size == 4


def test_the_size_of_a_factor_follows_from_the_others() -> None:
    a = Dim(24)
    out, _ = typed(Row("i, (g i j) -> g"), [Dim(3)], [a], numbers={"j": Number(2)})
    assert [leaf.size for leaf in leaves(a)] == [4, 3, 2] and (out.axes or [])[0].size == 4


def test_a_stored_number_is_bound_to_its_factor() -> None:
    d = Dim(12)
    case = Case([[d]])
    case.trace.node.attributes["groups"] = 3
    Row("(g i) -> g i")(case.trace, [case.x()], {"g": case.trace.attribute("groups")})
    numbers = settle(case.trace.requirements)
    assert numbers == {Slot(case.node, "groups", None): symbol(leaves(d)[0])}


def test_what_a_row_declares() -> None:
    x = [Dim(2, pin=PIN), Dim(7), Dim(12)]
    weight = [Dim(6), Dim(6), Dim(3)]
    row = Row("n ... (g i), (g o) i *, (g o)? -> n ... (g o)", weight=1, roles={"bias": 2, "scale": 3})
    out, case = typed(row, list(x), list(weight), [Dim(6)], [UNIT], numbers={"g": Number(2)})
    (contraction,) = case.trace.contractions
    assert [axis.size for axis in contraction.reduced] == [6]
    assert [axis.size for axis in contraction.out] == [3]
    assert [axis.size for axis in contraction.stationary] == [2]
    assert [axis.size for axis in contraction.weight_axes] == [6, 6, 3]
    sizes = [axis if isinstance(axis, int) else axis.size for axis in contraction.macs]
    assert np.prod(sizes) == 2 * 7 * 2 * 3 * 6 * 3  # n, dots, g, o, i, kernel
    uses = (contraction.weight, contraction.activation, contraction.bias, contraction.scale)
    assert [use.index if use else None for use in uses] == [1, 0, 2, 3]
    assert [(use.index, place) for use, place, _ in contraction.masks] == [(1, 1)]
    assert [axis.size for axis in out.axes or []] == [2, 7, 6]


def test_run_time_sizes_pass_through_rows() -> None:
    n, heads, width = symbol("n"), Dim(3), Dim(4)
    out, _ = typed(Row("b (h w) -> h b w"), [fresh(n), Prod([heads, width])], numbers={"h": Number(3)})
    assert [axis.size for axis in out.axes or []] == [3, n, 4] and is_free(width) and not is_free(heads)
    parts = Sum([Dim(6), Dim(6)])
    typed(Row("b (h w) -> h b w"), [fresh(n), parts], numbers={"h": Number(4)})
    assert is_free(list(leaves(parts))[-1])
