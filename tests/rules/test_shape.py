"""Rules that rearrange, each against NumPy on random shapes, makes of axes and cuts."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from graphprune.dims import UNIT, Axis, Dim, Prod, Sum, factor, find, fresh, leaves, unify
from graphprune.rules import shape
from graphprune.rules.numbers import Arith, Number, Opaque, SizeOf
from graphprune.rules.trace import Typed
from graphprune.sizes import symbol
from tests.algebra import FEW, LAWS, PIN
from tests.rules.numeric import Case, check, is_free, made_of

SIZES = st.integers(1, 8)


@st.composite
def shapes(draw: st.DrawFn, low: int = 0, high: int = 4) -> list[Axis]:
    return [draw(made_of(draw(SIZES))) for _ in range(draw(st.integers(low, high)))]


@st.composite
def targets(draw: st.DrawFn, old: list[int]) -> list[int]:
    """Another shape of as many entries, with 0 where the old size is copied and -1 for one that is left."""
    total, new = int(np.prod(old)), []
    while total > 1 and len(new) < 4:
        divisors = [k for k in range(1, total + 1) if total % k == 0]
        new.append(draw(st.sampled_from([old[len(new)], *divisors] if len(new) < len(old) else divisors)))
        if total % new[-1]:
            new[-1] = 1
        total //= new[-1]
    new.append(total)
    new = [0 if k < len(old) and size == old[k] and draw(st.booleans()) else size for k, size in enumerate(new)]
    if draw(st.booleans()):
        new[draw(st.integers(0, len(new) - 1))] = -1
    return new


def reshaped(arrays: list[np.ndarray], numbers: list[list[int]]) -> list[np.ndarray]:
    (x,), (target,) = arrays, numbers
    return [x.reshape([x.shape[k] if size == 0 else size for k, size in enumerate(target)])]


@LAWS
@given(st.data())
def test_reshape(data: Any) -> None:
    axes = data.draw(shapes())
    case = Case([axes], data.draw(targets([axis.size for axis in axes])))
    typed = shape.reshape(case.trace, case.x(), case.entries())
    check(data, case, [typed], reshaped)


@FEW
@given(st.data())
def test_reshape_there_and_back_costs_nothing(data: Any) -> None:
    sizes = data.draw(st.lists(st.integers(2, 6), min_size=1, max_size=4))
    axes = [Dim(size) for size in sizes]
    case = Case([axes], [-1], sizes)
    flat = shape.reshape(case.trace, case.x(), case.entries())
    case.trace.types[case.node.inputs[0]] = flat  # type: ignore[index]
    back = shape.reshape(case.trace, case.x(), case.entries(1))
    case.settle()
    assert [find(axis) for axis in back.axes or []] == axes and is_free(*axes)


def free_case(*axes: Axis, target: list[int]) -> Typed:
    case = Case([axes], target)
    typed = shape.reshape(case.trace, case.x(), case.entries())
    case.settle()
    return typed


def test_what_reshape_leaves_free() -> None:
    wide, batch = Dim(12), fresh(symbol("n"))
    n, m = symbol("n"), symbol("m")
    typed = free_case(batch, Dim(5, pin=PIN), wide, target=[0, -1, 3, 4])
    heads, width = (typed.axes or [])[2:]
    assert [leaf.size for leaf in leaves(wide)] == [3, 4] and is_free(heads, width, wide)
    grouped = Prod([Dim(4), Dim(3)])
    typed = free_case(UNIT, grouped, Dim(7, pin=PIN), Dim(7, pin=PIN), target=[0, 0, -1])
    assert is_free(grouped) and (typed.axes or [])[1].size == 12  # a copied product is still that product
    parts = Sum([Dim(8), Dim(4)])
    assert is_free((free_case(parts, target=[3, 4]).axes or [])[1], *list(leaves(parts))[1:2])
    channels = Dim(6)
    case = Case([[fresh(n), fresh(m), channels]], [0])
    sizes = [Arith("*", SizeOf(case.shapes[0][0]), SizeOf(case.shapes[0][1])), Number(2), Number(3)]
    with_numbers = shape.reshape(case.trace, case.x(), sizes)
    case.settle()
    assert [axis.size for axis in with_numbers.axes or []] == [n * m, 2, 3] and not is_free(channels)


def test_reshape_by_a_number_nobody_knows_pins() -> None:
    d = Dim(6)
    case = Case([[fresh(4, pin=PIN), d]], [0])
    shape.reshape(case.trace, case.x(), [Opaque(symbol("u")), Number(1)])
    assert not is_free(d)
    e = Dim(6)
    case = Case([[e]], [0])
    shape.reshape(case.trace, case.x(), None, rank=2)
    assert not is_free(e)


def test_reshape_to_sizes_that_do_not_meet_pins() -> None:
    for target in ([4, 1], [1, 1], [5], [4, 4]):
        d = Dim(12)
        free_case(d, target=target)
        assert not is_free(d)


def test_empty_tensors_keep_their_shape() -> None:
    typed = free_case(fresh(0), Dim(6), target=[0, 2, 3])
    assert [axis.size for axis in typed.axes or []][1:] == [2, 3]


def test_a_copied_size_that_is_also_regrouped_stays() -> None:
    a, b = Dim(6), Dim(6)
    typed = free_case(a, b, target=[0, -1])
    assert [find(axis) for axis in typed.axes or []] == [find(a), find(b)] and is_free(a, b)
    c = Dim(6)
    typed = free_case(Dim(2), c, Dim(4), target=[4, 0, 2])  # 2 * 3 is copied to a place that is made of 3 * 2
    assert (typed.axes or [])[1].size == 6 and not any(map(is_free, leaves(c)))


@LAWS
@given(st.data())
def test_flatten_and_transpose(data: Any) -> None:
    axes = data.draw(shapes(1))
    at = data.draw(st.integers(-len(axes), len(axes)))
    case = Case([axes])
    place = at if at >= 0 else at + len(axes)
    check(
        data,
        case,
        [shape.flatten(case.trace, case.x(), at)],
        lambda arrays, _: [arrays[0].reshape(int(np.prod(arrays[0].shape[:place])), -1)],
    )
    order = data.draw(st.permutations(range(len(axes))))
    check(data, case, [shape.transpose(case.trace, case.x(), order)], lambda arrays, _: [arrays[0].transpose(order)])


@FEW
@given(st.data())
def test_squeeze_and_unsqueeze(data: Any) -> None:
    axes = data.draw(shapes(1))
    case = Case([axes])
    check(data, case, [shape.squeeze(case.trace, case.x(), None)], lambda arrays, _: [np.squeeze(arrays[0])])
    ones = tuple(k - data.draw(st.sampled_from([0, len(axes)])) for k, axis in enumerate(axes) if axis.size == 1)
    check(data, case, [shape.squeeze(case.trace, case.x(), ones)], lambda arrays, _: [np.squeeze(arrays[0], ones)])
    new = tuple(data.draw(st.sets(st.integers(0, len(axes) + 1), min_size=2, max_size=2)))
    check(data, case, [shape.unsqueeze(case.trace, case.x(), new)], lambda arrays, _: [np.expand_dims(arrays[0], new)])


@LAWS
@given(st.data())
def test_expand(data: Any) -> None:
    axes = data.draw(shapes())
    target = [data.draw(st.sampled_from([1, axis.size] if axis.size > 1 else [1, 4, 6])) for axis in axes]
    target = data.draw(st.lists(SIZES, max_size=2)) + target
    target = target[data.draw(st.integers(0, len(target))) :] if axes else target  # may be shorter than the rank
    case = Case([axes], target)
    typed = shape.expand(case.trace, case.x(), case.entries())

    def run(arrays: list[np.ndarray], numbers: list[list[int]]) -> list[np.ndarray]:
        return [arrays[0] * np.ones(numbers[0], np.int64)]

    check(data, case, [typed], run)


def test_a_stretched_axis_is_new_and_free() -> None:
    case = Case([[UNIT, Dim(3)]], [5, 3])
    typed = shape.expand(case.trace, case.x(), case.entries())
    case.settle()
    assert is_free(*(typed.axes or []))


def test_expanding_to_a_size_that_only_the_run_knows_pins() -> None:
    d = Dim(4)
    case = Case([[d]], [1])
    shape.expand(case.trace, case.x(), [Opaque(symbol("u"))])
    assert not is_free(d)


def test_a_computed_one_must_stay_one() -> None:
    """12 / 12 is 1 today: what would make it anything else after a cut must stay."""
    for rule in (shape.expand, shape.tile):
        d, c = Dim(5), Dim(12)
        case = Case([[d]], [1])
        rule(case.trace, case.x(), [Arith("/", SizeOf(c), Number(12))])  # type: ignore[operator]
        case.settle()
        assert is_free(d) and not is_free(c)


@LAWS
@given(st.data())
def test_tile(data: Any) -> None:
    axes = data.draw(shapes(1, 3))
    case = Case([axes], [data.draw(st.integers(0, 3)) for _ in axes])
    typed = shape.tile(case.trace, case.x(), case.entries())
    check(data, case, [typed], lambda arrays, numbers: [np.tile(arrays[0], numbers[0])])


def shuffled(x: np.ndarray, block: int, crd: bool) -> np.ndarray:
    """DepthToSpace as the ONNX specification writes it out."""
    n, c, h, w = x.shape
    if crd:
        y = x.reshape(n, c // block**2, block, block, h, w).transpose(0, 1, 4, 2, 5, 3)
    else:
        y = x.reshape(n, block, block, c // block**2, h, w).transpose(0, 3, 4, 1, 5, 2)
    return y.reshape(n, c // block**2, h * block, w * block)


def unshuffled(x: np.ndarray, block: int, crd: bool) -> np.ndarray:
    n, c, h, w = x.shape
    y = x.reshape(n, c, h // block, block, w // block, block)
    y = y.transpose(0, 1, 3, 5, 2, 4) if crd else y.transpose(0, 3, 5, 1, 2, 4)
    return y.reshape(n, c * block**2, h // block, w // block)


@LAWS
@given(st.data(), st.integers(1, 3), st.booleans())
def test_pixel_shuffles(data: Any, block: int, crd: bool) -> None:
    def axis(multiple: int) -> Axis:
        return data.draw(made_of(multiple * data.draw(st.integers(1, 3))))

    case = Case([[axis(1), axis(block * block), axis(1), axis(1)]])
    typed = shape.depth_to_space(case.trace, case.x(), block, crd)
    check(data, case, [typed], lambda arrays, _: [shuffled(arrays[0], block, crd)])
    case = Case([[axis(1), axis(1), axis(block), axis(block)]])
    typed = shape.space_to_depth(case.trace, case.x(), block, crd)
    check(data, case, [typed], lambda arrays, _: [unshuffled(arrays[0], block, crd)])


def test_the_block_of_a_pixel_shuffle_stays_and_the_rest_moves() -> None:
    channels = Dim(12)
    case = Case([[UNIT, channels, Dim(2, pin=PIN), Dim(2, pin=PIN)]])
    shape.depth_to_space(case.trace, case.x(), 2, crd=True)
    assert [(leaf.size, leaf.pin.code if leaf.pin else "") for leaf in leaves(channels)] == [
        (3, ""),
        (2, "GP214"),
        (2, "GP214"),
    ]


@FEW
@given(st.data())
def test_a_constant_of_a_shape(data: Any) -> None:
    sizes = data.draw(st.lists(SIZES, max_size=3))
    case = Case([], sizes)
    typed = shape.from_entries(case.trace, case.entries(), None)
    check(data, case, [typed], lambda _, numbers: [np.zeros(numbers[0])])


def test_a_product_that_is_tied_after_it_was_reshaped() -> None:
    """The numbers follow whatever the axes turn out to be."""
    d, other = Dim(12), Dim(4)
    case = Case([[d]], [3, 4])
    typed = shape.reshape(case.trace, case.x(), case.entries())
    unify((typed.axes or [])[1], Prod([Dim(2), Dim(2)]))
    unify(other, (typed.axes or [])[1])
    factor((typed.axes or [])[0], 3)
    case.settle()
    assert is_free(d) and len(case.bindings) == 2
    keep = {leaf: np.arange(1) for leaf in leaves(other)}
    assert case.rewritten(keep) == [3, 1]
