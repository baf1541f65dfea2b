"""Where the numbers of a value lie: every axis is a list of digits, and every view of a value is a choice of digits.

A digit is an extent and a stride. An axis of 128 tokens that lie in panels of 64 is the two digits `(2, stride of a
panel), (64, 1)`; heads that share an axis with their features are the digits of that axis. Reshape, Transpose, Slice,
Split, Squeeze, Expand and the like then move no number: they regroup digits, and where digits cannot say it the caller
copies. (CuTe calls the same thing a hierarchical layout: NVIDIA, CUTLASS documentation, "CuTe Layouts".)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import prod
from typing import NamedTuple


class Digit(NamedTuple):
    """One loop over an axis: how many steps, and how many numbers lie between two neighbours. Stride 0 repeats."""

    extent: int
    stride: int


Axis = tuple[Digit, ...]  # from the slowest digit to the fastest; an axis of one is ()


@dataclass(eq=False)
class Storage:
    """A run of numbers of one type that has one owner: an input or output of the network, a constant, or scratch.

    `zeros` names the geometry of a border that has to be zero: scratch is shared only with storage of that geometry,
    it is zero when a session starts, and nobody writes there.
    """

    size: int
    dtype: str = "float32"
    kind: str = "scratch"
    name: str = ""
    zeros: tuple[int, ...] | None = None


@dataclass(frozen=True)
class View:
    """A value of shape `shape` in `storage`: number [i, j, ...] lies at `offset` plus the digits of each index."""

    storage: Storage
    axes: tuple[Axis, ...]
    offset: int = 0
    shape: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(extent(axis) for axis in self.axes))

    @property
    def dtype(self) -> str:
        return self.storage.dtype

    def transpose(self, order: Sequence[int]) -> View:
        return replace(self, axes=tuple(self.axes[index] for index in order))

    def reshape(self, shape: Sequence[int]) -> View | None:
        """The same numbers in the same order under another shape, or None where digits cannot say it."""
        axes = regrouped([digit for axis in self.axes for digit in axis], shape)
        return None if axes is None else replace(self, axes=axes)

    def slice(self, axis: int, start: int, length: int, step: int = 1) -> View | None:
        """`length` entries of an axis from `start`, every `step`-th; None where they do not lie at equal distances."""
        digits = self.axes[axis]
        cut = sliced(digits, start, length, step)
        if cut is None:
            return None
        offset, kept = cut
        return replace(self, axes=(*self.axes[:axis], kept, *self.axes[axis + 1 :]), offset=self.offset + offset)

    def expand(self, shape: Sequence[int]) -> View:
        """Broadcast to `shape` by the rules of numpy: new axes and axes of one repeat."""
        missing = len(shape) - len(self.axes)
        axes = (((),) * missing + self.axes) if missing > 0 else self.axes
        wide = [
            (Digit(size, 0),) if extent(axis) == 1 and size != 1 else axis
            for axis, size in zip(axes, shape, strict=True)
        ]
        return replace(self, axes=tuple(wide))

    def positions(self) -> list[int]:
        """Where each number lies, in row-major order of the shape; for tests and for small constants."""
        places = [self.offset]
        for axis in self.axes:
            for digit in axis:
                places = [place + step * digit.stride for place in places for step in range(digit.extent)]
        return places


def extent(axis: Axis) -> int:
    """How many entries an axis has."""
    return prod(digit.extent for digit in axis)


def dense(shape: Sequence[int], order: Sequence[int] | None = None) -> tuple[Axis, ...]:
    """Digits of numbers without gaps; `order` lists the axes from the slowest to the fastest (row-major by default)."""
    axes: list[Axis] = [()] * len(shape)
    stride = 1
    for index in reversed(order if order is not None else range(len(shape))):
        axes[index] = digits(shape[index], stride)
        stride *= shape[index]
    return tuple(axes)


def digits(size: int, stride: int) -> Axis:
    """An axis of entries that lie `stride` apart: no digit where there is one entry."""
    return (Digit(size, stride),) if size != 1 else ()


def regrouped(row: Sequence[Digit], shape: Sequence[int]) -> tuple[Axis, ...] | None:
    """The digits of all axes, slowest first, dealt out to the axes of `shape`; None where one would have to be cut."""
    left = [digit for digit in merged(row) if digit.extent != 1]
    axes: list[Axis] = []
    for size in reversed(shape):
        taken: list[Digit] = []
        wanted = size
        while wanted > 1:
            if not left:
                return None
            digit = left.pop()
            if wanted % digit.extent == 0:
                taken.append(digit)
                wanted //= digit.extent
            elif digit.extent % wanted == 0:
                taken.append(Digit(wanted, digit.stride))
                left.append(Digit(digit.extent // wanted, digit.stride * wanted))
                wanted = 1
            else:
                return None
        axes.append(tuple(reversed(taken)))
    return tuple(reversed(axes)) if not left else None


def merged(row: Sequence[Digit]) -> list[Digit]:
    """Neighbouring digits that are one run become one digit."""
    found: list[Digit] = []
    for digit in row:
        if digit.extent == 1:
            continue
        if found and found[-1].stride == digit.extent * digit.stride:
            found[-1] = Digit(found[-1].extent * digit.extent, digit.stride)
        else:
            found.append(digit)
    return found


def sliced(axis: Axis, start: int, length: int, step: int) -> tuple[int, Axis] | None:
    """Offset and digits of entries start, start + step, ... of an axis."""
    if length == extent(axis) and step == 1:
        return 0, axis
    offset, rest = 0, start
    for position, digit in enumerate(axis):
        inner = extent(axis[position + 1 :])
        index, rest = divmod(rest, inner)
        offset += index * digit.stride
    if length == 1:
        return offset, ()
    row = merged(axis)
    for position in range(len(row) - 1, -1, -1):
        digit, faster = row[position], row[position + 1 :]
        inner = extent(tuple(faster))
        first = start // inner % digit.extent
        if step == 1 and start % inner == 0 and length % inner == 0 and first + length // inner <= digit.extent:
            return offset, (*digits(length // inner, digit.stride), *faster)
        if step % inner == 0 and first + (length - 1) * (step // inner) < digit.extent:
            return offset, digits(length, digit.stride * (step // inner))
    return None


class Loop(NamedTuple):
    """One loop that several views share: its extent, and the stride of each view."""

    extent: int
    strides: tuple[int, ...]


def loops(views: Sequence[tuple[Axis, ...]]) -> list[Loop]:
    """Loops, slowest first, that walk views of one shape together; runs that all of them share are one loop."""
    found: list[Loop] = []
    for axes in zip(*views, strict=True):
        found += together(axes)
    joined: list[Loop] = []
    for loop in found:
        if joined and all(
            outer == loop.extent * inner for outer, inner in zip(joined[-1].strides, loop.strides, strict=True)
        ):
            joined[-1] = Loop(joined[-1].extent * loop.extent, loop.strides)
        else:
            joined.append(loop)
    return joined


def plain(found: Sequence[Loop]) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """Loops as kernels take them: extents and strides."""
    return tuple((loop.extent, loop.strides) for loop in found)


class NotMine(Exception):
    """Why a rule does not take a node."""


def together(axes: Sequence[Axis]) -> list[Loop]:
    """The digits of one axis in several views, cut until they agree.

    Raises NotMine where they never do: 3 by 4 in one view and 4 by 3 in another.
    """
    left = [list(axis) for axis in axes]
    found: list[Loop] = []
    while any(left):
        step = min((row[-1].extent if row else 1) for row in left)
        fastest = []
        for row in left:
            digit = row.pop()
            if digit.extent % step:
                raise NotMine(f"digits {axes} cannot be walked together")
            fastest.append(digit.stride)
            if digit.extent != step:
                row.append(Digit(digit.extent // step, digit.stride * step))
        found.append(Loop(step, tuple(fastest)))
    return found[::-1]


def overlaps(view: View) -> bool:
    """Whether two entries of the view may lie in one place (a repeated axis, for one)."""
    row = sorted((digit for axis in view.axes for digit in axis), key=lambda digit: digit.stride)
    return any(digit.stride == 0 for digit in row) or any(
        faster.stride * faster.extent > slower.stride for faster, slower in pairwise(row)
    )
