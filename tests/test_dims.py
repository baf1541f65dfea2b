"""Laws of the dimension algebra, each held against the enumeration of :mod:`tests.algebra`."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphprune.dims import (
    NOTHING,
    UNIT,
    Axis,
    Dim,
    Misfit,
    Pin,
    Prod,
    Sum,
    factor,
    find,
    fresh,
    is_cut,
    is_free,
    leaves,
    pin,
    reason,
    split,
    unify,
    walk,
)
from graphprune.kept import evaluated, extent, indices, labels, whole_size, width
from graphprune.sizes import symbol
from tests.algebra import FEW, LAWS, PIN, axes, entries, free_leaves, keeps, positions

# ---------------------------------------------------------------- evaluation


@LAWS
@given(st.data())
def test_survivors_and_widths_are_those_of_the_enumeration(data: st.DataObject) -> None:
    axis = data.draw(axes())
    keep = data.draw(keeps(free_leaves(axis)))
    found = indices(axis, keep)
    assert found.dtype == np.int64
    assert found.tolist() == positions(axis, keep)
    assert width(axis, keep) == len(found) == evaluated(extent(axis), keep)
    assert is_cut(axis, keep) == any(leaf in keep for leaf in leaves(axis))
    assert indices(axis, {}).tolist() == list(range(whole_size(axis)))


@LAWS
@given(st.data())
def test_labels_are_those_of_the_enumeration(data: st.DataObject) -> None:
    axis = find(data.draw(axes()))
    for dim in dict.fromkeys(leaves(axis)):
        found = labels(axis, dim)
        assert len(found) == sum(leaf is dim for leaf in leaves(axis))
        # Every occurrence says for each position which entry of the dimension it belongs to.
        for place, (_, names) in enumerate(entries(axis, {})):
            expected = [number for each, number in names if each is dim]
            assert [int(label[place]) for label in found if label[place] >= 0] == expected


@LAWS
@given(axes())
def test_the_normal_form_changes_nothing_and_is_one(axis: Axis) -> None:
    before = [tuple((d, k) for d, k in name if d.size > 1) for _, name in entries(axis, {})]
    normal = find(axis)
    assert normal.size == axis.size
    assert [tuple((d, k) for d, k in name if d.size > 1) for _, name in entries(normal, {})] == before
    assert repr(find(normal)) == repr(normal)
    if not isinstance(normal, Dim):
        assert len(normal.parts) > 1
        assert not any(isinstance(part, type(normal)) for part in normal.parts)
    assert [leaf for _, leaf in walk(axis)] == list(leaves(axis))


# ---------------------------------------------------------------- split and factor


@LAWS
@given(st.data())
def test_a_split_axis_is_the_sum_of_its_sides(data: st.DataObject) -> None:
    axis = data.draw(axes())
    size = data.draw(st.integers(-1, axis.size + 1))
    before = [leaf for leaf in leaves(axis) if leaf.pin]
    try:
        left, right = split(axis, size)
    except Misfit:
        assert size < 0 or size > axis.size or axis.size > 6
        return
    assert (left.size, left.size + right.size, find(axis).size) == (size, axis.size, axis.size)
    keep = data.draw(keeps(free_leaves(axis)))
    assert indices(Sum([left, right]), keep).tolist() == indices(axis, keep).tolist() == positions(axis, keep)
    assert not any(is_free(leaf) for leaf in before)


@LAWS
@given(st.data())
def test_a_factored_axis_is_the_product_of_its_factors(data: st.DataObject) -> None:
    axis = data.draw(axes())
    outer = data.draw(st.sampled_from([k for k in range(1, axis.size + 1) if axis.size % k == 0] or [1]))
    before = [leaf for leaf in leaves(axis) if leaf.pin]
    try:
        left, right = factor(axis, outer)
    except Misfit:
        assert not isinstance(find(axis), Dim) or axis.size == 0
        return
    assert (left.size, left.size * right.size, find(axis).size) == (outer, axis.size, axis.size)
    keep = data.draw(keeps(free_leaves(axis)))
    assert indices(Prod([left, right]), keep).tolist() == indices(axis, keep).tolist() == positions(axis, keep)
    assert not any(is_free(leaf) for leaf in before)


@pytest.mark.parametrize("outer", [-3, 0, 5, 24])
def test_what_does_not_come_in_blocks_is_a_misfit(outer: int) -> None:
    for axis in (Dim(12), Prod([Dim(3), Dim(4)]), Sum([Dim(8), Dim(4)]), NOTHING):
        with pytest.raises(Misfit):
            factor(axis, outer)


# ---------------------------------------------------------------- unify


class System:
    """Axes over shared dimensions, tied and taken apart at random; remembers what must stay true."""

    def __init__(self, data: st.DataObject):
        self.data = data
        self.axes: list[Axis] = [data.draw(axes(3, 2)) for _ in range(data.draw(st.integers(2, 5)))]
        self.pairs: list[tuple[Axis, Axis]] = []
        self.pinned: list[Dim] = []

    def step(self) -> None:
        self.pinned += [leaf for axis in self.axes for leaf in leaves(axis) if leaf.pin]
        a = self.data.draw(st.sampled_from(self.axes))
        move = self.data.draw(st.sampled_from(["split", "factor", "sum", "prod", "unify", "unify", "unify", "unify"]))
        try:
            if move == "split":
                self.pairs.append((Sum(split(a, self.data.draw(st.integers(0, a.size)))), a))
            elif move == "factor":
                sizes = [k for k in range(1, a.size + 1) if a.size % k == 0]
                self.pairs.append((Prod(factor(a, self.data.draw(st.sampled_from(sizes or [1])))), a))
            elif move in {"sum", "prod"} and a.size <= 24:
                b = self.data.draw(st.sampled_from([b for b in self.axes if b.size <= 24]))
                self.axes.append(Sum([a, b]) if move == "sum" else Prod([a, b]))
            else:
                b = self.data.draw(st.sampled_from([b for b in self.axes if b.size == a.size]))
                if a.size and self.data.draw(st.booleans()):  # an axis of the same size, made up differently
                    b = self.data.draw(made_of(a.size))
                    self.axes.append(b)
                unify(a, b)
                self.pairs.append((a, b))
        except Misfit:
            pin(a, PIN)


@st.composite
def made_of(draw: st.DrawFn, size: int) -> Axis:
    """An axis of this size: one dimension, a product or a sum."""
    divisors = [k for k in range(2, size) if size % k == 0]
    kind = draw(st.integers(0, 2))
    if kind == 1 and divisors:
        outer = draw(st.sampled_from(divisors))
        return Prod([draw(made_of(outer)), draw(made_of(size // outer))])
    if kind == 2 and size > 1:
        left = draw(st.integers(1, size - 1))
        return Sum([draw(made_of(left)), draw(made_of(size - left))])
    return fresh(size)


@LAWS
@given(st.data())
def test_unified_axes_share_their_fate_whatever_happens_to_them(data: st.DataObject) -> None:
    system = System(data)
    sizes = [axis.size for axis in system.axes]
    for _ in range(data.draw(st.integers(1, 8))):
        system.step()
    for size, axis in zip(sizes, system.axes, strict=False):
        assert size == axis.size == find(axis).size
    assert not any(is_free(leaf) for leaf in system.pinned)
    for _ in range(3):
        keep = data.draw(keeps(free_leaves(*system.axes)))
        for a, b in system.pairs:
            assert indices(a, keep).tolist() == indices(b, keep).tolist(), (a, b)
            assert evaluated(extent(a), keep) == evaluated(extent(b), keep) == width(a, keep)
        for axis in system.axes:
            assert indices(axis, keep).tolist() == positions(axis, keep)


@FEW
@given(st.data())
def test_ties_are_symmetric_and_tying_again_changes_nothing(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 12))
    shapes = [data.draw(made_of(size)) for _ in range(2)]
    (a, b), (c, d) = (copied(shapes) for _ in range(2))
    assert unify(a, b) == unify(d, c)
    assert outline([a, b]) == outline([c, d])
    before = outline([a, b])
    assert (unify(a, b) and outline([a, b]) == before) or not is_free(a)
    assert (unify(b, a) and outline([a, b]) == before) or not is_free(a)


@LAWS
@given(st.data())
def test_the_order_of_ties_does_not_matter(data: st.DataObject) -> None:
    """Concatenations of one total size have a common refinement, and it is the same in any order."""
    size = data.draw(st.integers(2, 12))
    count = data.draw(st.integers(2, 5))
    shapes = [data.draw(laid_out(size)) for _ in range(count)]
    ties = data.draw(st.lists(st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)), max_size=6))
    found = []
    for order in (ties, data.draw(st.permutations(ties)), [(b, a) for a, b in ties]):
        system = copied(shapes)
        assert all([unify(system[a], system[b]) for a, b in order])
        found.append(outline(system))
    assert found[0] == found[1] == found[2]


@LAWS
@given(st.data())
def test_the_order_of_ties_does_not_matter_for_products(data: st.DataObject) -> None:
    """Products of powers of two always have a common refinement."""
    count = data.draw(st.integers(2, 4))
    shapes = [data.draw(powers(5)) for _ in range(count)]
    ties = data.draw(st.lists(st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)), max_size=6))
    found = []
    for order in (ties, data.draw(st.permutations(ties)), [(b, a) for a, b in ties]):
        system = copied(shapes)
        assert all([unify(system[a], system[b]) for a, b in order])
        found.append(outline(system))
    assert found[0] == found[1] == found[2]


@st.composite
def laid_out(draw: st.DrawFn, size: int) -> Axis:
    cuts = sorted(draw(st.sets(st.integers(1, size - 1), max_size=3)))
    ends = [0, *cuts, size]
    return Sum([fresh(b - a, "", draw(st.sampled_from([None, None, PIN]))) for a, b in pairwise(ends)])


@st.composite
def powers(draw: st.DrawFn, exponent: int) -> Axis:
    ends = [0, *sorted(draw(st.sets(st.integers(1, exponent - 1), max_size=3))), exponent]
    return Prod([fresh(2 ** (b - a)) for a, b in pairwise(ends)])


def copied(shapes: list[Axis]) -> list[Axis]:
    """Unrelated axes of the same make; a dimension that two share is shared again."""
    twins: dict[Dim, Dim] = {UNIT: UNIT, NOTHING: NOTHING}

    def copy(axis: Axis) -> Axis:
        if isinstance(axis, Dim):
            return twins.setdefault(axis, Dim(axis.size, axis.origin, axis.pin))
        return type(axis)([copy(part) for part in axis.parts])

    return [copy(axis) for axis in shapes]


def outline(system: list[Axis]) -> list[list[object]]:
    """What can be told about axes without names: which entries share their fate (numbered), and which stay."""
    numbers: dict[object, int] = {}
    found: list[list[object]] = []
    for axis in system:
        free = [frozenset(part for part in name if part[0].pin is None) for _, name in entries(axis, {})]
        found.append([numbers.setdefault(name, len(numbers)) if name else None for name in free])
    return found


# ---------------------------------------------------------------- single cases


def test_a_misfit_pins_both_sides_with_the_reason() -> None:
    a, b, blame = Prod([Dim(4), Dim(3)]), Prod([Dim(6), Dim(2)]), Pin("GP205", "node", "")
    assert not unify(a, b, blame)
    assert not is_free(a) and not is_free(b)
    assert {(leaf.pin.code, leaf.pin.where) for leaf in leaves(a) if leaf.pin} == {("GP205", "node")}
    a, b = Dim(4), Dim(5)
    assert not unify(a, b)
    assert reason(a).reason == reason(b).reason == "sizes 4 and 5 differ"


def test_the_first_reason_is_kept() -> None:
    later = Pin("GP209", "", "later")
    d = Dim(4, pin=PIN)
    assert not pin(d, later)
    free = Dim(4)
    assert unify(free, d) and reason(free) == PIN


def test_what_stays_passes_its_reason_on_but_only_where_it_is() -> None:
    whole = Dim(12)
    unify(whole, Prod([Dim(3, pin=PIN), Dim(4)]))
    heads, width_ = list(leaves(whole))
    assert (heads.pin, width_.pin) == (PIN, None)
    other = Sum([Dim(6), Dim(6)])
    fixed = Dim(12, pin=PIN)
    unify(other, fixed)
    assert all(leaf.pin == PIN for leaf in leaves(other))


def test_a_product_of_a_dimension_with_itself() -> None:
    d, e, f = Dim(4), Dim(2), Dim(2)
    unify(Prod([e, f]), d)
    assert unify(Prod([d, e]), Prod([f, d]))  # e f e == f e f: all one
    assert find(e) is find(f)
    keep = {find(e): np.array([1])}
    assert indices(d, keep).tolist() == [3]


def test_a_shuffle_tied_to_itself_is_one_dimension_or_none() -> None:
    a, b = Dim(2), Dim(3)
    assert not unify(Prod([a, b]), Prod([b, a]))
    assert not is_free(a) and not is_free(b)


def test_a_cut_inside_one_of_few_copies_keeps_what_is_copied_free() -> None:
    copies, block = Dim(3), Dim(10)
    left, right = split(Prod([copies, block]), 14)
    assert (left.size, right.size, copies.pin is None) == (14, 16, False)
    assert [leaf.size for leaf in leaves(block)] == [4, 6] and all(is_free(leaf) for leaf in leaves(block))


def test_equal_blocks_that_cross_the_parts() -> None:
    parts = [Dim(4), Dim(8)]
    outer, inner = factor(Sum(parts), 2)
    assert [leaf.size for leaf in leaves(inner)] == [4, 2] and outer.size == 2 and not is_free(outer)
    keep = {leaf: np.arange(1) for leaf in free_leaves(*parts)}
    assert indices(Prod([outer, inner]), keep).tolist() == indices(Sum(parts), keep).tolist()


def test_blocks_of_parts_are_one_and_their_counts_independent() -> None:
    q, k, v = Dim(12), Dim(8), Dim(4)
    counts, inner = factor(Sum([q, k, v]), 6)
    assert [leaf.size for leaf in leaves(counts)] == [3, 2, 1]
    assert [leaf is find(inner) for leaf in leaves(q)] == [False, True] and find(v) is find(inner)


def test_an_axis_cannot_be_a_part_of_itself() -> None:
    d = Dim(symbol("n"))
    assert unify(Sum([d, Dim(4)]), d) and not is_free(d)  # run-time sizes: pinned, no loop
    e = Dim(4)
    assert unify(Sum([e, NOTHING]), e) and is_free(e)


def test_empty_parts_have_no_say() -> None:
    a, b = Dim(4), Dim(4)
    assert unify(Sum([NOTHING, a]), Sum([b, NOTHING])) and find(a) is find(b)
    empty = Prod([Dim(4), NOTHING])
    assert empty.size == 0 and indices(empty, {}).tolist() == []
    assert split(empty, 0)[0] is NOTHING
    with pytest.raises(Misfit):
        split(empty, 1)


def test_sizes_1_and_0_are_shared_and_never_refined() -> None:
    d = Dim(10)
    left, right = split(d, 1)
    assert left is UNIT and not is_free(left) and is_free(right)
    assert fresh(1) is UNIT and fresh(0) is NOTHING
    unify(Dim(1), UNIT)
    unify(UNIT, Dim(1))
    unify(Prod([Dim(3), NOTHING]), NOTHING)
    assert UNIT.refined is None and NOTHING.refined is None


# ---------------------------------------------------------------- run-time sizes


def test_run_time_sizes_stay() -> None:
    n = symbol("n")
    d, e = fresh(n), Dim(12)
    assert not is_free(d)
    assert unify(d, e) and not is_free(e)  # the run must have n == 12
    with pytest.raises(Misfit):
        indices(d, {})
    with pytest.raises(Misfit):
        whole_size(d)


def test_equal_factors_of_run_time_sizes_cancel() -> None:
    n, m = symbol("n"), symbol("m")
    channels = Dim(12)
    flat = Prod([fresh(n), fresh(m), channels])
    for outer, inner in ((n, m * 12), (n * m, 12), (n * m * 3, 4)):
        left, right = factor(flat, outer)
        assert (left.size, right.size) == (outer, inner)
    assert [leaf.size for leaf in leaves(channels)] == [3, 4] and all(map(is_free, leaves(channels)))
    with pytest.raises(Misfit):
        factor(flat, m * 5)


def test_blocks_inside_a_run_time_factor() -> None:
    n, m = symbol("n"), symbol("m")
    channels, same = Dim(8), Dim(8)
    left, right = factor(Prod([fresh(n), fresh(m * 4), channels]), n * m)
    assert (left.size, right.size) == (n * m, 32)
    assert unify(Prod([fresh(n * m * 4), same]), Prod([fresh(n), fresh(m * 4), channels]))
    assert find(same) is find(channels) and is_free(same)


def test_widths_and_extents_with_run_time_sizes() -> None:
    n, d = symbol("n"), Dim(6)
    axis = Sum([Prod([fresh(n), d]), fresh(n)])
    assert width(axis, {d: np.arange(2)}) == n * 3
    assert extent(axis) == n * symbol(d) + n
    left, right = split(axis, n * 6)
    assert (left.size, right.size) == (n * 6, n)
    with pytest.raises(Misfit):
        split(axis, 5)


# ---------------------------------------------------------------- cost


def count_of_dims(scale: int, monkeypatch: pytest.MonkeyPatch) -> int:
    made = 0
    old = Dim.__init__

    def counted(self: Dim, *given: object, **named: object) -> None:
        nonlocal made
        made += 1
        old(self, *given, **named)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Dim, "__init__", counted)
        qkv, rows, joined = fresh(3 * 4 * scale), fresh(4 * scale), Sum([fresh(2 * scale), fresh(2 * scale)])
        q, rest = split(qkv, 4 * scale)
        k, v = split(rest, 4 * scale)
        for each in (q, k, v):
            unify(each, rows)
        heads, _ = factor(rows, 4)
        split(heads, 2)
        unify(joined, rows)
        unify(fresh(8 * scale), Prod([fresh(2), rows]))
        factor(Sum([rows, joined]), 8)
    assert is_free(qkv)
    return made


def test_cost_does_not_depend_on_widths(monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = (count_of_dims(scale, monkeypatch) for scale in (4, 4096))
    assert small == large


def test_a_long_concatenation_is_tied_in_linear_time(monkeypatch: pytest.MonkeyPatch) -> None:
    made = 0
    old = Sum.__init__

    def counted(self: Sum, *given: object) -> None:
        nonlocal made
        made += 1
        old(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(Sum, "__init__", counted)
    whole = Dim(4000)
    unify(whole, Sum([Dim(4) for _ in range(1000)]))
    unify(Sum([Dim(2) for _ in range(2000)]), whole)
    assert made < 20_000


def test_a_normal_form_is_renewed_when_a_part_is_refined() -> None:
    """What is kept of a sum and of the product around it holds no longer once a dimension inside is split."""
    a, b, c = Dim(4), Dim(6), Dim(3)
    whole = Sum([a, b])
    outer = Prod([c, whole])
    assert find(whole) is whole and find(outer) is outer and leaves(outer) == [c, a, b]
    left, right = split(a, 1)
    assert leaves(whole) == [left, right, b] and leaves(outer) == [c, left, right, b]
    assert find(whole) is find(whole) and find(outer) is find(outer)


def test_a_normal_form_of_one_part_follows_that_part() -> None:
    a = Dim(4)
    alone = Sum([NOTHING, a])
    assert find(alone) is a
    b = Dim(4)
    unify(a, b)
    left, right = split(b, 1)
    assert leaves(alone) == [left, right]
