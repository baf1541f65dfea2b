"""Settling stored numbers: under every cut, what the graph computes is what the rules require."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphprune.dims import NOTHING, Axis, Dim, Keep, Pin, Prod, Sum, fresh, is_free, leaves
from graphprune.kept import evaluated, width
from graphprune.program import Node, Slot
from graphprune.rules.numbers import (
    Arith,
    Entry,
    Number,
    Opaque,
    Requirement,
    SizeOf,
    axes_in,
    later,
    now,
    settle,
    slots_in,
)
from graphprune.sizes import Extent, evaluate, symbol
from tests.algebra import LAWS, PIN, free_leaves, keeps

NODE = Node("node", "op", [], [])
SLOTS = [Slot(NODE, 1, place) for place in range(5)]
N = symbol("n")


def run(entry: Entry, keep: Keep, numbers: dict[Slot, Extent]) -> int:
    """What the graph computes at run time after a cut (run-time sizes are 7)."""
    if isinstance(entry, Number):
        known = entry.slot is not None and entry.slot in numbers
        return evaluated(numbers[entry.slot], keep) if known else entry.value  # type: ignore[index]
    if isinstance(entry, SizeOf):
        return evaluate(width(entry.axis, keep), {"n": 7})
    if isinstance(entry, Opaque):
        return evaluate(entry.size, {"n": 7})
    left, right = run(entry.left, keep, numbers), run(entry.right, keep, numbers)
    if entry.op == "/":
        return left // right if right else 0
    return {"+": left + right, "-": left - right, "*": left * right}[entry.op]


def requirement(entry: Entry, axis: Axis, sign: int = 1) -> Requirement:
    return Requirement(entry, axis, sign, NODE)


def check(requirements: list[Requirement], keep: Keep) -> None:
    numbers = settle(requirements)
    keep = {dim: kept for dim, kept in keep.items() if dim.pin is None and dim.refined is None}
    for size in numbers.values():
        assert not isinstance(size, int)
    for each in requirements:
        for number in slots_in(each.entry):
            if number.slot in numbers:
                assert evaluated(numbers[number.slot], {}) == number.value
        want = evaluate(width(each.axis, keep), {"n": 7}) * each.sign
        assert run(each.entry, keep, numbers) == want, (each, numbers)


class World:
    """A few dimensions and stored numbers, and requirements over them that hold before any cut."""

    def __init__(self, data: st.DataObject):
        self.data = data
        pins = st.sampled_from([None, None, None, PIN])
        self.dims: list[Axis] = [
            fresh(data.draw(st.integers(2, 6)), f"d{k}", data.draw(pins)) for k in range(data.draw(st.integers(1, 4)))
        ]
        self.dims.append(fresh(N))
        self.values = [data.draw(st.integers(-3, 12)) for _ in SLOTS]

    def axis(self) -> Axis:
        draw = self.data.draw
        a, b = (draw(st.sampled_from(self.dims)) for _ in range(2))
        return draw(st.sampled_from([a, a, Sum([a, b]), Prod([a, b])]))

    def entry(self, deep: int = 2) -> Entry:
        draw = self.data.draw
        kind = draw(st.integers(0, 5 if deep else 2))
        if kind == 0:
            return SizeOf(self.axis())
        if kind <= 2:
            place = draw(st.integers(0, len(SLOTS) - 1))
            return Number(self.values[place], draw(st.sampled_from([SLOTS[place], SLOTS[place], None])))
        op = draw(st.sampled_from("+-*/"))
        return Arith(op, self.entry(deep - 1), self.entry(deep - 1))

    def requirement(self) -> Requirement | None:
        entry = self.entry()
        value = now(entry)
        if isinstance(value, int) and abs(value) > 200:
            return None
        sign = -1 if isinstance(value, int) and value < 0 else 1
        same = [axis for axis in (self.axis() for _ in range(6)) if axis.size * sign == value]
        if same:
            return requirement(entry, same[0], sign)
        if not isinstance(value, int):
            return None
        self.dims.append(made := fresh(value * sign, f"e{len(self.dims)}"))
        return requirement(entry, made, sign)


@LAWS
@given(st.data())
def test_what_is_required_holds_under_every_cut(data: st.DataObject) -> None:
    world = World(data)
    found = [world.requirement() for _ in range(data.draw(st.integers(1, 5)))]
    requirements = [each for each in found if each is not None]
    dims = [axis for each in requirements for axis in (each.axis, *axes_in(each.entry))]
    settle(requirements)
    for _ in range(3):
        check(requirements, data.draw(keeps(free_leaves(*dims, *world.dims))))


@LAWS
@given(st.data())
def test_later_is_what_the_graph_will_compute(data: st.DataObject) -> None:
    world = World(data)
    entry = world.entry()
    size = later(entry)
    if size is not None and all(isinstance(axis.size, int) for axis in axes_in(entry)):
        keep = data.draw(keeps(free_leaves(*axes_in(entry))))
        assert evaluated(size, keep) == run(entry, keep, {})


# ---------------------------------------------------------------- single cases: what stays free


@pytest.mark.parametrize(
    ("op", "left", "right", "size"),
    [
        ("+", SizeOf(Dim(6)), Number(4, SLOTS[0]), 10),
        ("-", SizeOf(Dim(12)), Number(4, SLOTS[0]), 8),
        ("-", Number(12, SLOTS[0]), SizeOf(Dim(4)), 8),
        ("*", SizeOf(Dim(3)), Number(4, SLOTS[0]), 12),
        ("*", Number(4, SLOTS[0]), SizeOf(Dim(3)), 12),
        ("/", Number(12, SLOTS[0]), SizeOf(Dim(3)), 4),
    ],
)
def test_each_operator_is_solved_for_the_stored_number(op: str, left: Entry, right: Entry, size: int) -> None:
    entry = Arith(op, left, right)
    part = next(iter(axes_in(entry)))
    rest = Dim(size)
    axis: Axis = {"+": Sum([part, rest]), "*": Prod([part, rest])}.get(op, rest)
    if op in "+*":
        axis = Sum([part, Dim(4)]) if op == "+" else Prod([part, Dim(4)])
    numbers = settle([requirement(entry, axis)])
    assert all(is_free(leaf) for leaf in (*leaves(axis), *leaves(part)))
    keep = {leaf: np.arange(2) for leaf in free_leaves(axis, part)}
    assert set(numbers) == {SLOTS[0]} and run(entry, keep, numbers) == width(axis, keep)


def test_the_number_of_blocks_is_a_quotient() -> None:
    heads, wide = Dim(4), Dim(8)
    entry = Arith("/", SizeOf(Prod([heads, wide])), Number(4, SLOTS[0]))
    numbers = settle([requirement(entry, wide)])
    assert numbers == {SLOTS[0]: symbol(heads)} and is_free(wide)


def test_counted_from_the_end() -> None:
    d = Dim(5)
    assert settle([requirement(Number(-5, SLOTS[0]), d, -1)]) == {SLOTS[0]: symbol(d) * -1}


def test_a_number_without_a_place_pins() -> None:
    d = Dim(5)
    assert settle([requirement(Number(5), d)]) == {}
    assert d.pin is not None and d.pin.code == "GP209" and d.pin.where == str(NODE)


def test_one_number_for_two_axes_makes_them_one() -> None:
    a, b, c = Dim(5), Dim(5), Dim(5)
    entries = [requirement(Number(5, SLOTS[0]), axis) for axis in (a, b, c)]
    numbers = settle([*entries, requirement(Arith("*", Number(5, SLOTS[0]), Number(1)), c)])
    (dim,) = {leaf for axis in (a, b, c) for leaf in leaves(axis)}
    assert dim.pin is None and numbers == {SLOTS[0]: symbol(dim)}


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("computed", [False, True])
def test_a_number_of_an_axis_that_stays_is_not_bound(order: int, computed: bool) -> None:
    free, fixed = Dim(6), Dim(6, pin=PIN)
    number = Number(6, SLOTS[0])
    there = Arith("+", number, Number(0)) if computed else number
    requirements = [requirement(number, free), requirement(there, fixed)]
    assert settle(requirements[::order]) == {} and not is_free(free)


@pytest.mark.parametrize("order", [1, -1])
def test_a_number_that_was_computed_with_is_not_bound_to_anything_else(order: int) -> None:
    d, e = Dim(5), Dim(2)
    left, right = Number(2, SLOTS[0]), Number(3, SLOTS[1])
    requirements = [requirement(Arith("+", left, right), d), requirement(left, e)][::order]
    check(requirements, {d: np.arange(3), e: np.arange(1)})
    assert is_free(d) and is_free(e)


def test_a_number_that_is_used_twice_in_one_entry() -> None:
    d, number = Dim(6), Number(3, SLOTS[0])
    requirements = [requirement(Arith("+", number, number), d)]
    check(requirements, {d: np.arange(3)})


def test_a_number_is_not_bound_to_a_run_time_size() -> None:
    """The file says 24 where the run computes 6 n: only the run knows whether that holds."""
    d = Dim(6)
    assert settle([requirement(Number(24, SLOTS[0]), Prod([fresh(N), d]))]) == {} and not is_free(d)


def test_a_number_that_is_not_the_size_today_stays_as_it_is() -> None:
    d = Dim(3)
    entry = Arith("/", Number(7, SLOTS[0]), Number(2))  # 3, rounded down: twice 3 is not 7
    assert settle([requirement(entry, d)]) == {} and not is_free(d)


def test_giving_up_on_one_axis_keeps_the_others() -> None:
    """A tie in the middle of a round must not make later requirements look broken."""
    a, b, c = Dim(4), Dim(4), Dim(8)
    number = Number(4, SLOTS[0])
    twice = Arith("*", number, Number(2, SLOTS[1]))
    numbers = settle(
        [
            requirement(number, a),
            requirement(number, b),
            requirement(twice, Prod([b, Dim(2)])),
            requirement(Number(8), c),
        ]
    )
    assert is_free(a) and is_free(b) and not is_free(c) and len(numbers) == 2


def test_empty_axes_need_nothing() -> None:
    assert settle([requirement(Number(0, SLOTS[0]), NOTHING)]) == {}


def test_the_reason_names_the_number() -> None:
    d = Dim(6)
    settle([requirement(Arith("-", SizeOf(d), Number(1)), Dim(5, pin=Pin("GP204", "", "")))])
    assert d.pin is not None and "number" in d.pin.reason
