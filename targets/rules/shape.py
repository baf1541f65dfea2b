"""Operators that only rename places: they move no number as long as digits can say the result, and copy where not."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from graphprune.targets.kernels.functions import Leaf, Number
from graphprune.targets.network.graph import Node, Value
from graphprune.targets.network.layout import Axis, NotMine, View, digits
from graphprune.targets.network.lowering import MAPS, Lowering


def first(at: Lowering, node: Node) -> tuple[Value, View]:
    """The first input and where it lies."""
    value = node.inputs[0]
    assert value is not None
    return value, at.of(value)


def constant(node: Node, index: int, name: str = "") -> list[int] | None:
    """An input that says sizes or axes, or the attribute that said it in older operator sets."""
    if index < len(node.inputs) and node.inputs[index] is not None:
        value = node.inputs[index]
        if value is None or value.constant is None:
            raise NotMine(f"input {index} is not constant")
        return [int(number) for number in value.constant.reshape(-1)]
    if name in node.attributes:
        found = node.attributes[name]
        return [int(number) for number in found] if isinstance(found, Sequence) else [int(found)]
    return None


def renamed(at: Lowering, node: Node, view: View | None, source: View) -> None:
    """The result is a view of the source; numbers are copied only where digits cannot say it."""
    value = node.outputs[0]
    if view is None:
        target = at.scratch(source.shape, tuple(range(len(source.shape))), source.dtype)
        row = View(target.storage, tuple(plain_digits(source.shape)))
        at.copy(source, row, node, f"copy for {node.op}")
        view = row.reshape(value.shape)
        assert view is not None
    at.views[value] = view


def plain_digits(shape: Sequence[int]) -> list[Axis]:
    """Axes of an array that lies in the order of its axes, without gaps."""
    axes = []
    stride = 1
    for size in reversed(shape):
        axes.append(digits(size, stride))
        stride *= size
    return axes[::-1]


def reshape(at: Lowering, node: Node) -> None:
    """Reshape, Flatten, Squeeze, Unsqueeze: the shapes of all values are known, so they are one operator."""
    _, view = first(at, node)
    renamed(at, node, view.reshape(node.outputs[0].shape), view)


def identity(at: Lowering, node: Node) -> None:
    _, view = first(at, node)
    at.views[node.outputs[0]] = view


def transpose(at: Lowering, node: Node) -> None:
    value, view = first(at, node)
    order = node.attributes.get("perm") or tuple(range(len(value.shape)))[::-1]
    at.views[node.outputs[0]] = view.transpose(order)


def slice_(at: Lowering, node: Node) -> None:
    """Slice with constant ends and steps forward: a view, where digits can say it."""
    value, view = first(at, node)
    starts, ends = constant(node, 1, "starts"), constant(node, 2, "ends")
    axes, steps = constant(node, 3, "axes"), constant(node, 4)
    assert starts is not None and ends is not None
    found = view
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        axis = (axes[number] if axes else number) % len(value.shape)
        step = steps[number] if steps else 1
        indices = range(*slice(start, end, step).indices(value.shape[axis])) if step > 0 else None
        if indices is None or not len(indices):
            raise NotMine("steps backwards, or nothing")
        cut = found.slice(axis, indices[0], len(indices), step)
        if cut is None:
            cut = laid_out(at, node, found).slice(axis, indices[0], len(indices), step)
            assert cut is not None
        found = cut
    at.views[node.outputs[0]] = found


def laid_out(at: Lowering, node: Node, view: View) -> View:
    """A copy in which every axis is one digit, so that any part of it is a view."""
    return at.copied_once(view, range(len(view.shape)), node, f"copy for {node.op}")


def split(at: Lowering, node: Node) -> None:
    """Split: each output is a view of its part."""
    value, view = first(at, node)
    axis = node.attributes.get("axis", 0) % len(value.shape)
    start = 0
    parts = []
    for output in node.outputs:
        part = view.slice(axis, start, output.shape[axis])
        if part is None:
            view = laid_out(at, node, view)
            part = view.slice(axis, start, output.shape[axis])
            assert part is not None
        parts.append(part)
        start += output.shape[axis]
    at.views.update(zip(node.outputs, parts, strict=True))


def expand(at: Lowering, node: Node) -> None:
    _, view = first(at, node)
    at.views[node.outputs[0]] = view.expand(node.outputs[0].shape)


def gather(at: Lowering, node: Node) -> None:
    """Gather of constant indices at equal distances: a slice."""
    value, view = first(at, node)
    axis = node.attributes.get("axis", 0) % len(value.shape)
    where = node.inputs[1]
    if where is None or where.constant is None:
        raise NotMine("its indices are not constant")
    size = value.shape[axis]
    indices = [int(index) % size for index in where.constant.reshape(-1)]
    step = indices[1] - indices[0] if len(indices) > 1 else 1
    shape = node.outputs[0].shape
    if step > 0 and all(b - a == step for a, b in pairwise(indices)):
        found = view.slice(axis, indices[0], len(indices), step)
        found = None if found is None else found.reshape(shape)
        if found is not None:
            at.views[node.outputs[0]] = found
            return
    if where.constant.ndim != 1 or len(indices) > 4096:
        raise NotMine("its indices are at no equal distances")
    result = at.place(node.outputs[0], None)
    runs = np.split(np.arange(len(indices)), np.nonzero(np.diff(indices) != 1)[0] + 1)
    if len(runs) > 64:
        raise NotMine(f"its indices are {len(runs)} runs")
    for run in runs:
        source = view.slice(axis, indices[run[0]], len(run))
        target = result.slice(axis, int(run[0]), len(run))
        if source is None or target is None:
            raise NotMine("a run lies in pieces")
        at.copy(source, target, node, "copy for Gather")
    at.views[node.outputs[0]] = result


def concat(at: Lowering, node: Node) -> None:
    """Parts that were made in their place stay; the others are copied there."""
    value = node.outputs[0]
    axis = node.attributes["axis"] % len(value.shape)
    result = at.whole.get(value)
    if result is None:
        like = next((at.of(entry) for entry in node.inputs if entry is not None and entry.constant is None), None)
        result = ordered(at, value, like)
    start = 0
    for entry in node.inputs:
        assert entry is not None
        size = entry.shape[axis]
        if size:
            part = result.slice(axis, start, size)
            source = at.of(entry)
            if part is None:
                raise NotMine("a part lies in pieces")
            if source != part:
                at.copy(source, part, node, "copy for Concat")
        start += size
    at.views[value] = result


def ordered(at: Lowering, value: Value, like: View | None) -> View:
    """A place for `value` with its axes in the order of those of another value of the same rank."""
    if like is None or len(like.shape) != len(value.shape) or (len(value.shape) == 4 and value.dtype in MAPS):
        return at.place(value, None)
    order = sorted(
        range(len(value.shape)), key=lambda axis: -(like.axes[axis][-1].stride if like.axes[axis] else 1 << 60)
    )
    return at.scratch(value.shape, order, value.dtype)


def pad(at: Lowering, node: Node) -> None:
    """Pad with a constant: the result is filled, and the input copied into it."""
    value, view = first(at, node)
    mode = node.attributes.get("mode", "constant")
    if mode != "constant":
        raise NotMine(f"mode {mode}")
    fill = np.zeros(1, value.dtype)
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        if node.inputs[2].constant is None:
            raise NotMine("its value is not constant")
        fill = node.inputs[2].constant.reshape(-1)[:1]
    rank = len(value.shape)
    before, after = padding(node, rank)
    result = ordered(at, node.outputs[0], view)
    if value.dtype == "float32":
        at.map(Number(float(fill[0])), [], result, node, "fill")
    else:
        at.copy(at.constant(fill.reshape((1,) * rank)).expand(result.shape), result, node, "fill")
    source: View | None = view
    target: View | None = result
    for axis in range(rank):
        cut = max(0, -before[axis])
        size = value.shape[axis] - cut - max(0, -after[axis])
        source = None if source is None else source.slice(axis, cut, size)
        target = None if target is None else target.slice(axis, max(0, before[axis]), size)
    if source is None or target is None:
        raise NotMine("it lies in pieces")
    at.copy(source, target, node, "copy for Pad")
    at.views[node.outputs[0]] = result


def padding(node: Node, rank: int) -> tuple[list[int], list[int]]:
    """What a Pad adds before and after each axis."""
    pads, axes = constant(node, 1, "pads"), constant(node, 3)
    assert pads is not None
    before, after = [0] * rank, [0] * rank
    for number, axis in enumerate(axes if axes is not None else range(rank)):
        before[axis % rank] = pads[number]
        after[axis % rank] = pads[number + len(pads) // 2]
    return before, after


def resize(at: Lowering, node: Node) -> None:
    """Resize and Upsample to a whole multiple by the nearest pixel: each pixel is repeated."""
    value, view = first(at, node)
    target = node.outputs[0]
    if node.attributes.get("mode", "nearest") != "nearest":
        raise NotMine("not the nearest pixel")
    if any(big % small for big, small in zip(target.shape, value.shape, strict=True)):
        raise NotMine("not a whole multiple")
    factors = [big // small for big, small in zip(target.shape, value.shape, strict=True)]
    scales = node.inputs[2] if len(node.inputs) > 2 else None
    ratios = None if scales is None else scales.constant
    if ratios is not None and ratios.size and not np.allclose(ratios.reshape(-1), factors):
        raise NotMine("its scales are not the ratio of the sizes")
    transform = str(node.attributes.get("coordinate_transformation_mode", "half_pixel"))
    rounding = str(node.attributes.get("nearest_mode", "round_prefer_floor"))
    exact = {("asymmetric", "floor"), ("half_pixel", "round_prefer_floor"), ("half_pixel", "round_prefer_ceil"),
             ("pytorch_half_pixel", "round_prefer_floor")}  # fmt: skip
    if (transform, rounding) not in exact:
        raise NotMine(f"{transform}, {rounding}")
    result = at.place(target, None)
    shape = [size for pair in zip(value.shape, factors, strict=True) for size in pair]
    split_up = result.reshape(shape)
    source = view.reshape([size for small in value.shape for size in (small, 1)])
    if split_up is None or source is None:
        split_up = apart(result, shape)
        if split_up is None or source is None:
            raise NotMine("it lies in pieces")
    at.map(Leaf(0), [source], split_up, node, "repeat pixels")
    at.views[target] = result


def apart(view: View, shape: Sequence[int]) -> View | None:
    """Each axis of `view` cut in two; unlike a reshape no axis reaches into its neighbour."""
    axes = []
    for number, axis in enumerate(view.axes):
        outer, inner = shape[2 * number], shape[2 * number + 1]
        cut = View(view.storage, (axis,)).reshape((outer, inner))
        if cut is None:
            return None
        axes += list(cut.axes)
    return View(view.storage, tuple(axes), view.offset)
