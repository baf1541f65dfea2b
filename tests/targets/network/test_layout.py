"""Views against explicit positions: what numpy does to an array of positions, a view has to say in digits."""

from __future__ import annotations

from itertools import pairwise, product
from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphprune.targets.network.layout import Digit, NotMine, Storage, View, dense, digits, extent, loops, overlaps


def moved(data: st.DataObject, view: View, array: np.ndarray) -> tuple[View, np.ndarray, bool]:
    """A view after one operation, what numpy makes of the positions, and whether digits could say it."""
    kind = data.draw(st.sampled_from(["transpose", "reshape", "slice", "expand"]))
    if kind == "transpose":
        order = data.draw(st.permutations(range(array.ndim)))
        return view.transpose(order), array.transpose(order), True
    if kind == "expand":
        wide = tuple(3 if size == 1 and data.draw(st.booleans()) else size for size in array.shape)
        shape = data.draw(st.sampled_from([wide, (2, *wide)]))
        return (view.expand(shape), np.broadcast_to(array, shape), True) if array.size < 300 else (view, array, True)
    found: View | None
    if kind == "reshape":
        shape, left = [], array.size
        while left > 1:
            shape.append(data.draw(st.sampled_from([d for d in range(2, left + 1) if left % d == 0])))
            left //= shape[-1]
        shape.insert(data.draw(st.integers(0, len(shape))), 1)
        found, array = view.reshape(shape), array.reshape(shape)
    else:
        if not array.ndim:
            return view, array, True
        axis = data.draw(st.integers(0, array.ndim - 1))
        size = array.shape[axis]
        start = data.draw(st.integers(0, size - 1))
        step = data.draw(st.sampled_from([1, 1, 2, 3]))
        length = data.draw(st.integers(1, 1 + (size - 1 - start) // step))
        found = view.slice(axis, start, length, step)
        array = np.take(array, range(start, start + length * step, step), axis)
    return (view, array, False) if found is None else (found, array, True)


shapes = st.lists(st.sampled_from([1, 2, 3, 4, 6, 8]), min_size=1, max_size=4)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(shape=shapes, data=st.data())
def test_views_say_what_numpy_says(shape: list[int], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(shape))))
    view = View(Storage(prod(shape)), dense(shape, order), offset=data.draw(st.integers(0, 5)))
    array = np.array(view.positions()).reshape(shape)
    assert sorted(array.ravel() - view.offset) == list(range(prod(shape)))
    assert not overlaps(view)
    for _ in range(4):
        view, wanted, said = moved(data, view, array)
        if not said:
            continue
        array = wanted
        assert view.shape == array.shape
        assert view.positions() == list(array.ravel())
        if len(set(array.ravel())) < array.size:
            assert overlaps(view)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(shape=shapes, count=st.integers(1, 3), data=st.data())
def test_loops_walk_views_together(shape: list[int], count: int, data: st.DataObject) -> None:
    views = [
        View(Storage(prod(shape)), dense(shape, data.draw(st.permutations(range(len(shape)))))) for _ in range(count)
    ]
    found = loops([view.axes for view in views])
    places = [
        tuple(sum(step * loop.strides[v] for step, loop in zip(steps, found, strict=True)) for v in range(count))
        for steps in product(*(range(loop.extent) for loop in found))
    ]
    assert places == list(zip(*(view.positions() for view in views), strict=True))
    for outer, inner in pairwise(found):  # neighbours that are one loop are joined
        assert any(a != inner.extent * b for a, b in zip(outer.strides, inner.strides, strict=True))


def test_a_slice_of_a_dense_axis_is_always_digits() -> None:
    for size in range(1, 9):
        view = View(Storage(size), dense((size,)))
        for start in range(size):
            for step in (1, 2, 3):
                for length in range(1, 2 + (size - 1 - start) // step):
                    cut = view.slice(0, start, length, step)
                    assert cut is not None
                    assert cut.positions() == list(range(start, start + length * step, step))


def test_an_axis_in_panels() -> None:
    """128 tokens in panels of 64 with 10 features: whole panels and parts of one are views, parts of two are not."""
    axes = ((Digit(2, 640), Digit(64, 1)), digits(10, 64))
    view = View(Storage(1280), axes)
    assert view.shape == (128, 10)
    assert extent(axes[0]) == 128
    for start, length in ((0, 64), (64, 64), (10, 20), (70, 58)):
        cut = view.slice(0, start, length)
        assert cut is not None
        assert cut.positions() == [p for i, p in enumerate(view.positions()) if start <= i // 10 < start + length]
    assert view.slice(0, 60, 10) is None
    assert view.reshape((64, 20)) is not None
    assert view.reshape((5, 256)) is None
    with pytest.raises(NotMine, match="walked together"):
        loops([((Digit(2, 3), Digit(3, 1)),), ((Digit(3, 2), Digit(2, 1)),)])
