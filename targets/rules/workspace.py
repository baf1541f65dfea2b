"""The input of a convolution or pool as a map that a window of stride 1 can slide over, copied where it must be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np

from graphprune.targets.kernels.functions import Apply, Expression, Number
from graphprune.targets.network.graph import Node, Value
from graphprune.targets.network.layout import Axis, NotMine, Storage, View, digits, merged
from graphprune.targets.network.lowering import Lowering, lines, pitch
from graphprune.targets.network.window import Window


@dataclass(frozen=True)
class Workspace:
    """Where tap (0, 0) of output pixel (0, 0) lies, and the distances of rows, channels, images and phases."""

    storage: Storage
    offset: int
    row: int
    channel: int
    image: int
    plane: int
    window: Window

    def tap(self, a: int, b: int) -> int:
        """The distance from tap (0, 0) to tap (a, b), the same for every output pixel."""
        a, b = a * self.window.dilations.rows, b * self.window.dilations.columns
        down, right = self.window.strides
        return ((a % down) * right + b % right) * self.plane + a // down * self.row + b // right


def workspace(at: Lowering, node: Node, x: Value, window: Window, fill: float = 0.0) -> Workspace:
    """The input as it lies, where its rows are rows of pixels and its border is wide enough; else a copy of the phases,
    with `fill` around them."""
    view = at.of(x)
    if window.strides == (1, 1) and view.storage.kind == "scratch" and flat(view):
        zeros = view.storage.zeros
        border = zeros[3] if zeros and fill == 0.0 and whole(view, zeros) else 0
        row = distance(view.axes[2]) or (zeros[2] if zeros else 0)
        if max(*window.before, *window.after) <= border and (row or window.kernel.rows == 1):
            image, channel = distance(view.axes[0]), distance(view.axes[1])
            start = view.offset - window.before.rows * row - window.before.columns
            return Workspace(view.storage, start, row, channel, image, 0, window)
    return copied(at, node, view, window, fill)


def copied(at: Lowering, node: Node, view: View, window: Window, fill: float) -> Workspace:
    """A copy of a map with its border, phase by phase where the window takes steps."""
    n, c, _, _ = view.shape
    row, plane, channel = distances(at, window)
    padded = window.padded()
    zeros = (channel, row, plane, *window.numbers()) if padded and fill == 0.0 else None
    if zeros and view.dtype != "float32":
        zeros = (*zeros, np.dtype(view.dtype).itemsize)
    storage = Storage(n * c * channel, view.dtype, zeros=zeros)
    if padded and fill != 0.0:
        number: Expression = Number(fill)
        if view.dtype != "float32":
            number = Apply(f"cast:{view.dtype}", (number,))
        at.map(number, [], View(storage, (digits(storage.size, 1),)), node, "fill the border")
    for (a, b), part, offset in phases(view, window, row, plane):
        tall, wide = part.shape[2:]
        axes = (digits(n, c * channel), digits(c, channel), digits(tall, row), digits(wide, 1))
        what = f"copy phase {a},{b}" if window.strides != (1, 1) else "copy into a border"
        at.copy(part, View(storage, axes, offset), node, what)
    return Workspace(storage, 0, row, channel, c * channel, plane, window)


def distances(at: Lowering, window: Window) -> tuple[int, int, int]:
    """How far rows, phases and channels of a map lie apart that a window of stride 1 can slide over."""
    row = max(window.row(), window.output.columns + at.gaps.get((window.output.rows, window.output.columns), 0))
    rows = window.rows()
    reach = max(window.part(1, b).reach for _, b in window.phases())
    run = lines((window.output.rows - 1) * row + window.output.columns)
    plane = pitch(max(rows * row + row, (rows - window.output.rows) * row + reach + run))
    return row, plane, plane * prod(window.strides)


def phases(view: View, window: Window, row: int, plane: int) -> Iterator[tuple[tuple[int, int], View, int]]:
    """For each phase its numbers, the part of a map that it holds, and the offset of that part among the phases.

    Raises NotMine where the part is no view.
    """
    down, right = window.strides
    for a, b in window.phases():
        tall, wide = window.part(0, a), window.part(1, b)
        if not tall.held or not wide.held:
            continue
        part = view.slice(2, tall.start, tall.held, down)
        part = None if part is None else part.slice(3, wide.start, wide.held, right)
        if part is None:
            raise NotMine("its input lies in pieces")
        yield (a, b), part, (a * right + b) * plane + tall.first * row + wide.first


def flat(view: View) -> bool:
    """Whether each axis is one digit, and pixels of a row lie side by side."""
    return all(len(merged(axis)) <= 1 for axis in view.axes) and (not view.axes[3] or view.axes[3][-1].stride == 1)


def whole(view: View, zeros: tuple[int, ...]) -> bool:
    """Whether maps of a storage with a border are seen from edge to edge: around a part of one lie other pixels."""
    plane, rows, row, border, columns = zeros
    lie = view.shape[2:] == (rows, columns) and view.offset % plane == border * row + row - columns
    return lie and (rows == 1 or distance(view.axes[2]) == row) and (columns == 1 or distance(view.axes[3]) == 1)


def distance(axis: Axis) -> int:
    """How far neighbours along an axis lie apart."""
    return merged(axis)[0].stride if axis else 0
