"""Rules that put together, take apart and address, each against NumPy on random shapes, makes of axes and cuts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphprune.dims import UNIT, Axis, Dim, Sum, find, fresh, leaves, pin
from graphprune.kept import evaluated, indices, width
from graphprune.program import Slot
from graphprune.rules import indexing
from graphprune.rules.numbers import Arith, Number, Opaque, SizeOf
from graphprune.rules.trace import Typed
from graphprune.sizes import symbol
from tests.algebra import FEW, LAWS, PIN, keeps
from tests.rules.numeric import Case, check, is_free, made_of, stored

SIZES = st.integers(1, 9)
LARGE = 2**31


def axis(data: Any, size: int | None = None) -> Axis:
    return data.draw(made_of(size or data.draw(SIZES)))


@LAWS
@given(st.data())
def test_slice(data: Any) -> None:
    sizes = data.draw(st.lists(SIZES, min_size=1, max_size=2))
    bounds = st.one_of(st.integers(-10, 10), st.sampled_from([0, 0, LARGE, -LARGE]))
    steps = [data.draw(st.sampled_from([1, 1, 1, 2, 3, -1, -2])) for _ in sizes]
    case = Case([[axis(data, size) for size in sizes]], *([data.draw(bounds) for _ in sizes] for _ in range(2)))
    starts, ends = case.entries(), case.entries(1)
    out = [
        indexing.slice_axis(case.trace, each, start, end, step)
        for each, start, end, step in zip(case.x().axes, starts, ends, steps, strict=True)
    ]

    def run(arrays: list[np.ndarray], numbers: list[list[int]]) -> list[np.ndarray]:
        stops = [None if step < 0 and b < -20 else b for b, step in zip(numbers[1], steps, strict=True)]
        return [arrays[0][tuple(map(slice, numbers[0], stops, steps))]]

    check(data, case, [Typed(out)], run)


def sliced(size: Axis, start: int, end: int, step: int = 1) -> tuple[Axis, Case]:
    case = Case([[size]], [start], [end])
    out = indexing.slice_axis(case.trace, size, case.entries()[0], case.entries(1)[0], step)
    case.settle()
    return out, case


@pytest.mark.parametrize(
    ("start", "end", "parts"),
    [
        (0, 10, [10]),
        (0, LARGE, [10]),
        (-20, LARGE, [10]),
        (2, LARGE, [2, 8]),
        (-8, 100, [2, 8]),
        (2, 6, [2, 4, 4]),
        (-8, -4, [2, 4, 4]),
        (0, -4, [6, 4]),
    ],
)
def test_a_slice_cuts_open_and_leaves_all_free(start: int, end: int, parts: list[int]) -> None:
    d = Dim(10)
    sliced(d, start, end)
    assert [leaf.size for leaf in leaves(d)] == parts and is_free(d)


def test_a_strided_slice_takes_the_same_entry_of_each_block() -> None:
    d = Dim(12)
    out, _ = sliced(d, 1, LARGE, 3)
    (blocks, step) = leaves(d)
    assert out is blocks and is_free(blocks) and not is_free(step)
    assert not is_free(sliced(Dim(12), -11, LARGE, 3)[0])  # counted from the end: it would lie elsewhere after a cut


def test_a_bound_computed_from_another_axis_ties_the_two() -> None:
    """x[:, :y.shape[1]] of the same size today: after a cut of y alone it would take less of x."""
    x, y = Dim(6), Dim(6)
    case = Case([[x]])
    indexing.slice_axis(case.trace, x, Number(0), SizeOf(y), 1)
    case.settle()
    assert find(x) is find(y) and is_free(x)


def test_a_bound_computed_from_the_axis_itself_costs_nothing() -> None:
    x = Dim(6)
    case = Case([[x]])
    indexing.slice_axis(case.trace, x, Number(0), SizeOf(x), 1)
    half = indexing.slice_axis(case.trace, x, Number(0), Number(3, Slot(case.node, 1, 0)), 1)
    case.settle()
    assert is_free(x, half)


def test_a_bound_of_an_axis_that_stays_must_stay() -> None:
    table, free = Dim(8, pin=PIN), Dim(6)
    case = Case([[table]])
    out = indexing.slice_axis(case.trace, table, Number(0), SizeOf(free), 1)
    case.settle()
    assert out.size == 6 and not is_free(free)


def test_a_bound_beyond_the_end_is_not_bound_to_something_smaller() -> None:
    """The number 8 serves a slice over the border of x, and is the size of y: y would move the border into x."""
    x, y = Dim(6), Dim(8)
    case = Case([[x], [y]])
    number = Number(8, Slot(case.node, 1, 0))
    indexing.slice_axis(case.trace, x, Number(0), number, 1)
    case.trace.require(number, y)
    case.settle()
    assert is_free(x) and not is_free(y) and case.bindings == {}


def test_run_time_bounds_pin() -> None:
    d = Dim(6)
    case = Case([[d]])
    indexing.slice_axis(case.trace, d, Opaque(symbol("u")), Number(6), 1)
    assert not is_free(d)
    e = Dim(6)
    indexing.slice_axis(case.trace, e, Number(0), Opaque(symbol("u")), 1)
    assert not is_free(e)
    n = fresh(symbol("n"))
    assert indexing.slice_axis(case.trace, n, Number(0), Number(LARGE), 1) is n
    assert indexing.slice_axis(case.trace, n, Number(1), Number(LARGE), 1).size == symbol("n") - 1


@st.composite
def pieces(draw: st.DrawFn, size: int) -> list[int]:
    cuts = sorted(draw(st.lists(st.integers(0, size), max_size=3)))
    return [b - a for a, b in zip([0, *cuts], [*cuts, size], strict=True)]


@LAWS
@given(st.data())
def test_split_into_sizes(data: Any) -> None:
    whole = axis(data)
    case = Case([[axis(data), whole]], data.draw(pieces(whole.size)))
    typed = indexing.split_into(case.trace, case.x(), data.draw(st.sampled_from([1, -1])), case.entries())

    def run(arrays: list[np.ndarray], numbers: list[list[int]]) -> list[np.ndarray]:
        assert sum(numbers[0]) == arrays[0].shape[1]
        return np.split(arrays[0], np.cumsum(numbers[0])[:-1], axis=1)

    check(data, case, typed, run)


@FEW
@given(st.data(), st.booleans())
def test_split_into_equal_pieces(data: Any, writable: bool) -> None:
    count = data.draw(st.integers(1, 4))
    size = data.draw(st.sampled_from([size for size in range(1, 10) if -(-size // count) * (count - 1) < size]))
    case = Case([[axis(data, size)]])
    typed = indexing.split_equally(case.trace, case.x(), 0, count, case.node if writable else None)
    case.settle()

    found = [(each.axes or [])[0] for each in typed]
    step = -(-size // count)
    assert [piece.size for piece in found] == [min(step, size - k * step) for k in range(count)]
    keep = data.draw(keeps(case.free(typed)))
    expected = np.concatenate([step * k + indices(piece, keep) for k, piece in enumerate(found)])
    np.testing.assert_array_equal(case.gathered(keep), expected)
    sizes = [evaluated(case.bindings.get(Slot(case.node, "split", k), p.size), keep) for k, p in enumerate(found)]
    assert sizes == [width(piece, keep) for piece in found]


@LAWS
@given(st.data())
def test_concat(data: Any) -> None:
    other = data.draw(SIZES)
    parts = data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=4))
    case = Case([[axis(data, part) if part else fresh(0), axis(data, other)] for part in parts])
    operands = [case.x(place) for place in range(len(parts))]
    at = data.draw(st.sampled_from([0, -2]))
    typed = indexing.concat(case.trace, operands, at)
    check(data, case, [typed], lambda arrays, _: [np.concatenate(arrays, 0)])


@FEW
@given(st.data())
def test_stack(data: Any) -> None:
    sizes = data.draw(st.lists(SIZES, min_size=1, max_size=2))
    count = data.draw(st.integers(1, 3))
    case = Case([[axis(data, size) for size in sizes] for _ in range(count)])
    at = data.draw(st.integers(-len(sizes) - 1, len(sizes)))
    typed = indexing.stack(case.trace, [case.x(place) for place in range(count)], at)
    check(data, case, [typed], lambda arrays, _: [np.stack(arrays, at)])


@LAWS
@given(st.data())
def test_pad(data: Any) -> None:
    axes = [axis(data) for _ in range(data.draw(st.integers(1, 3)))]
    chosen = sorted(data.draw(st.sets(st.integers(0, len(axes) - 1), min_size=1)))
    low = data.draw(st.sampled_from([0, 0, -1]))
    amounts = [data.draw(st.integers(low if axes[k % len(axes)].size > 2 else 0, 3)) for k in [*chosen, *chosen]]
    case = Case([axes], amounts)
    typed = indexing.pad(case.trace, case.x(), case.entries(), chosen, constant=True)

    def run(arrays: list[np.ndarray], numbers: list[list[int]]) -> list[np.ndarray]:
        begins, ends = numbers[0][: len(chosen)], numbers[0][len(chosen) :]
        wide, inner = [(0, 0)] * len(axes), [slice(None)] * len(axes)
        for k, begin, end in zip(chosen, begins, ends, strict=True):
            wide[k] = (max(begin, 0), max(end, 0))
            inner[k] = slice(max(-begin, 0), None if end >= 0 else end)
        return [np.pad(arrays[0], wide, constant_values=-7)[tuple(inner)]]

    check(data, case, [typed], run)


def test_what_padding_leaves_free() -> None:
    d = Dim(6)
    case = Case([[d]], [2, 3])
    typed = indexing.pad(case.trace, case.x(), case.entries(), [0], constant=True)
    case.settle()
    assert is_free(*(typed.axes or [])) and len(case.bindings) == 2
    copied = Dim(6)
    case = Case([[copied]], [2, 3])
    indexing.pad(case.trace, case.x(), case.entries(), [0], constant=False)
    assert not is_free(copied)
    unknown = Dim(6)
    case = Case([[unknown]], [2, 3])
    indexing.pad(case.trace, case.x(), None, [0], constant=True)
    assert not is_free(unknown)


def test_padding_that_is_nothing_today_must_stay_nothing() -> None:
    d, a, b = Dim(6, pin=PIN), Dim(4), Dim(4)
    case = Case([[d]])
    none = Arith("-", SizeOf(a), SizeOf(b))
    indexing.pad(case.trace, case.x(), [none, Number(0)], [0], constant=True)
    one = Arith("+", none, Number(1))
    free = Dim(6)
    case.trace.types[case.x().value] = Typed([free])
    indexing.pad(case.trace, case.x(), [Number(0), one], [0], constant=True)
    case.settle()
    assert not is_free(a) or find(a) is find(b)


@LAWS
@given(st.data())
def test_gather_by_a_pattern(data: Any) -> None:
    whole = axis(data, data.draw(st.integers(2, 12)))
    size = whole.size
    kind = data.draw(st.integers(0, 3))
    divisors = [k for k in range(1, size + 1) if size % k == 0]
    if kind == 0:
        start = data.draw(st.integers(0, size - 2))
        positions = list(range(start, data.draw(st.integers(start + 2, size))))
    elif kind == 1:
        step = data.draw(st.sampled_from(divisors))
        positions = list(range(data.draw(st.integers(0, step - 1)), size, step))
    elif kind == 2:
        step = data.draw(st.sampled_from(divisors))
        positions = [k + step * row for k in range(step) for row in range(size // step)]
    else:
        positions = data.draw(st.lists(st.integers(-size, size - 1), min_size=1, max_size=6))
    if data.draw(st.booleans()):
        positions = [k - size if k > 0 else k for k in positions]
    case = Case([[axis(data), whole]], positions)
    operand = case.trace.need(1)
    typed = indexing.gather(case.trace, case.x(), operand, -1)
    places = case.trace.positions.get(operand.use)
    case.settle()

    def run(arrays: list[np.ndarray], numbers: list[list[int]]) -> list[np.ndarray]:
        return [np.take(arrays[0], numbers[0], 1, mode="wrap")]

    (out,) = run(case.arrays, case.numbers)
    keep = data.draw(keeps(case.free([typed])))
    left, right = typed.axes or []
    expected = out[indices(left, keep)][:, indices(right, keep)]
    pruned = case.gathered(keep)
    if places is None:
        np.testing.assert_array_equal(run([pruned], [np.take(positions, indices(right, keep))])[0], expected)
    else:  # the positions are worked out anew: where the survivors of the result now lie
        kept = indices(places[0], keep).tolist()
        anew = [kept.index(positions[k] % size) for k in indices(places[1], keep)]
        np.testing.assert_array_equal(run([pruned], [anew])[0], expected)


@pytest.mark.parametrize(
    ("positions", "free"),
    [
        ([0, 1, 2], True),
        ([3, 4, 5], True),
        ([-6, -5, -4], True),
        ([1, 3, 5], True),
        ([0, 2, 4, 1, 3, 5], True),
        ([0, 3, 1, 4, 2, 5], True),
        ([5, 4, 3], False),
        ([0, 0], False),
        ([2], True),
        ([0, 1, 3], False),
        ([1, 3], False),
        ([0, 7], False),
    ],
)
def test_which_positions_are_a_pattern(positions: list[int], free: bool) -> None:
    d = Dim(6)
    case = Case([[d]], positions)
    typed = indexing.gather(case.trace, case.x(), case.trace.need(1), 0)
    assert any(map(is_free, leaves(d))) == free
    assert len(typed.axes or []) == 1 and (typed.axes or [])[0].size == len(positions)


def test_positions_from_elsewhere_need_the_axis_whole() -> None:
    d, rows = Dim(6), Dim(4)
    case = Case([[d, Dim(3)], [rows]])
    typed = indexing.gather(case.trace, case.x(), case.x(1), 0)
    assert not is_free(d) and is_free(*(typed.axes or [])) and (typed.axes or [])[0] is rows


@FEW
@given(st.data())
def test_gather_and_scatter_of_tuples(data: Any) -> None:
    batch = data.draw(st.integers(0, 1))
    last = data.draw(st.integers(1, 2))
    sizes = data.draw(st.lists(st.integers(1, 4), min_size=batch + last, max_size=4))
    lead = [*sizes[:batch], data.draw(st.integers(1, 3))]
    case = Case([[axis(data, size) for size in sizes], [axis(data, size) for size in [*lead, last]]])
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    places = np.stack([random.integers(0, size, lead) for size in sizes[batch : batch + last]], -1)
    case.arrays[1] = places
    typed = indexing.gather_nd(case.trace, case.x(), case.x(1), batch)

    def run(arrays: list[np.ndarray], _: object) -> list[np.ndarray]:
        x, where = arrays
        if not batch:
            return [x[tuple(np.moveaxis(where, -1, 0))]]
        return [np.stack([a[tuple(np.moveaxis(b, -1, 0))] for a, b in zip(x, where, strict=True)])]

    check(data, case, [typed], run)


@FEW
@given(st.data())
def test_scatter_of_tuples(data: Any) -> None:
    last = data.draw(st.integers(1, 2))
    sizes = data.draw(st.lists(st.integers(1, 4), min_size=last, max_size=3))
    rows = data.draw(st.integers(1, 3))
    shapes = [sizes, [rows, last], [rows, *sizes[last:]]]
    case = Case([[axis(data, size) for size in shape] for shape in shapes])
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    flat = random.permutation(int(np.prod(sizes[:last])))[:rows]
    case.arrays[1] = np.stack(np.unravel_index(np.resize(flat, rows), sizes[:last]), -1)
    if len(flat) < rows:
        case.arrays[2][...] = 5  # the same place twice: whichever comes last
    typed = indexing.scatter_nd(case.trace, *(case.x(k) for k in range(3)))
    for leaf in case.free():  # as the walk does with all that goes in and does not come out
        if not any(leaf is each for out in typed.axes or [] for each in leaves(out)):
            pin(leaf, PIN)

    def run(arrays: list[np.ndarray], _: object) -> list[np.ndarray]:
        y = arrays[0].copy()
        for where, row in zip(arrays[1], arrays[2], strict=True):
            y[tuple(where)] = row
        return [y]

    check(data, case, [typed], run)


@FEW
@given(st.data())
def test_elements(data: Any) -> None:
    sizes = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    at = data.draw(st.integers(0, len(sizes) - 1))
    some = [data.draw(st.sampled_from([size, size, 1])) for size in sizes]
    some[at] = data.draw(st.integers(1, 4))
    case = Case([[axis(data, size) for size in shape] for shape in (sizes, some)])
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    case.arrays[1] = random.integers(0, sizes[at], some)
    typed = indexing.elements(case.trace, case.x(), case.x(1), at - data.draw(st.sampled_from([0, len(sizes)])))

    def run(arrays: list[np.ndarray], _: object) -> list[np.ndarray]:
        x, where = arrays
        inner = tuple(slice(0, size) if k != at else slice(None) for k, size in enumerate(where.shape))
        return [np.take_along_axis(x[inner], where, at)]

    check(data, case, [typed], run)


def test_a_cut_where_it_cannot_be_pins() -> None:
    d = Dim(6)
    case = Case([[d]])
    before, middle, after = indexing.cut(case.trace, d, 4, 4)
    assert not is_free(d) and (before.size, middle.size, after.size) == (4, 4, 0)


def test_a_concatenation_of_what_stays_is_one_axis_that_stays() -> None:
    case = Case([[Dim(3, pin=PIN)], [Dim(4, pin=PIN)], [UNIT]])
    typed = indexing.concat(case.trace, [case.x(k) for k in range(3)], 0)
    (whole,) = typed.axes or []
    assert isinstance(find(whole), Dim) and whole.size == 8 and not is_free(whole)
    case = Case([[Dim(3)], [Dim(4, pin=PIN)]])
    assert isinstance(find((indexing.concat(case.trace, [case.x(), case.x(1)], 0).axes or [])[0]), Sum)


def test_stored_positions_are_read_from_the_file() -> None:
    value = stored("p", np.array([0, 2], np.int32))
    assert value.stored is not None and value.stored.elements == 2
