"""One rule against NumPy: gather the operand, run NumPy with the rewritten numbers, and the result is the gathered
result. The axes of the operand are made up at random, and the numbers stand in stored vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from graphprune.dims import Axis, Dim, Keep, Prod, Sum, fresh, leaves
from graphprune.kept import evaluated, indices
from graphprune.program import Node, Stored, Value
from graphprune.rules.numbers import Entry, settle
from graphprune.rules.trace import Operand, Trace, Typed
from tests.algebra import PIN, free_leaves, keeps


@st.composite
def made_of(draw: st.DrawFn, size: int) -> Axis:
    """An axis of this size: one dimension, a product or a sum; some of it may be pinned."""
    divisors = [k for k in range(2, size) if size % k == 0]
    kind = draw(st.integers(0, 4))
    if kind == 1 and divisors:
        outer = draw(st.sampled_from(divisors))
        return Prod([draw(made_of(outer)), draw(made_of(size // outer))])
    if kind == 2 and size > 1:
        left = draw(st.integers(1, size - 1))
        return Sum([draw(made_of(left)), draw(made_of(size - left))])
    return fresh(size, "", PIN if kind == 3 and draw(st.booleans()) else None)


def stored(name: str, array: np.ndarray) -> Value:
    """A value that the file carries."""
    tensor = Stored(name, array.shape, str(array.dtype), array.nbytes, lambda: array)
    return Value(name, array.shape, str(array.dtype), tensor, readers=1)


class Case:
    """A node that reads tensors with axes of any make, and stored vectors of numbers."""

    def __init__(self, shapes: Sequence[Sequence[Axis]], *numbers: Sequence[int]):
        self.arrays = []
        self.trace = Trace(lambda value: value.stored is not None)
        inputs = []
        for place, axes in enumerate(shapes):
            shape = [axis.size if isinstance(axis.size, int) else 2 for axis in axes]
            self.arrays.append(np.arange(np.prod(shape, dtype=np.int64)).reshape(shape) + 10_000 * place)
            inputs.append(value := Value(f"x{place}"))
            self.trace.types[value] = Typed(list(axes))
        self.numbers = [list(each) for each in numbers]
        inputs += [stored(f"n{place}", np.array(each, np.int64)) for place, each in enumerate(numbers)]
        self.trace.node = self.node = Node("node", "op", inputs, [])
        self.shapes = shapes

    def x(self, place: int = 0) -> Operand:
        return self.trace.need(place)

    def entries(self, place: int = 0) -> list[Entry]:
        found = self.trace.entries(self.trace.need(len(self.shapes) + place))
        assert found is not None
        return found

    def settle(self) -> None:
        self.bindings = settle(self.trace.requirements)

    def free(self, results: Sequence[Typed] = ()) -> list[Dim]:
        """The free dimensions of operands and results."""
        more = [axis for typed in results for axis in typed.axes or []]
        return free_leaves(*(axis for shape in self.shapes for axis in shape), *more)

    def rewritten(self, keep: Keep, place: int = 0) -> list[int]:
        """The numbers of a stored vector after a cut."""
        found = list(self.numbers[place])
        for slot, size in self.bindings.items():
            if slot.key == len(self.shapes) + place:
                found[slot.index or 0] = evaluated(size, keep)
        return found

    def gathered(self, keep: Keep, place: int = 0) -> np.ndarray:
        return gather(self.arrays[place], self.shapes[place], keep)


def gather(array: np.ndarray, axes: Sequence[Axis], keep: Keep) -> np.ndarray:
    """The survivors of an array."""
    assert array.shape == tuple(axis.size for axis in axes)
    for place, axis in enumerate(axes):
        array = np.take(array, indices(axis, keep), place)
    return array


def check(data: Any, case: Case, results: Sequence[Typed], run: Any) -> None:
    """``run(arrays, numbers) -> arrays`` is NumPy's version of the rule."""
    case.settle()
    dense = run(case.arrays, case.numbers)
    for _ in range(3):
        keep = data.draw(keeps(case.free(results)))
        arrays = [case.gathered(keep, place) for place in range(len(case.arrays))]
        numbers = [case.rewritten(keep, place) for place in range(len(case.numbers))]
        found = run(arrays, numbers)
        for old, new, typed in zip(dense, found, results, strict=True):
            np.testing.assert_array_equal(new, gather(old, typed.axes or [], keep), str((keep, numbers)))


def is_free(*axes: Axis) -> bool:
    """Whether all of it is."""
    return all(leaf.pin is None for axis in axes for leaf in leaves(axis))
