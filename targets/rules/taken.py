"""Operators that take entries of an axis by numbers known beforehand: Gather, mirrored borders, Resize, ScatterND."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphprune.targets.kernels.take import Take
from graphprune.targets.network.graph import Node
from graphprune.targets.network.layout import NotMine, View, loops, merged
from graphprune.targets.network.lowering import Lowering
from graphprune.targets.rules.shape import first, laid_out, ordered, padding


def taken(
    at: Lowering, node: Node, view: View, axis: int, places: np.ndarray, result: View, weights: np.ndarray | None = None
) -> None:
    """Writes into `result` the entries `places` [taps, count] of an axis of `view`, summed by `weights` if given."""
    digits = merged(view.axes[axis])
    if len(digits) > 1:
        view = laid_out(at, node, view)
        digits = merged(view.axes[axis])
    stride = digits[0].stride if digits else 0
    along = merged(result.axes[axis])
    if len(along) > 1:
        raise NotMine("the entries of its result lie in pieces")
    step = along[0].stride if along else 1
    around = loops([(*each.axes[:axis], *each.axes[axis + 1 :]) for each in (view, result)])
    run = next((loop for loop in around if loop.strides[1] == 1), None)
    if run is None and step != 1 and around:
        run = max(around, key=lambda loop: loop.extent)
    outer = tuple((loop.extent, tuple(loop.strides)) for loop in around if loop is not run)
    kernel = Take(
        count=places.shape[1],
        step=step,
        outer=outer,
        run=None if run is None else (run.extent, tuple(run.strides)),
        taps=len(places),
        weighed=weights is not None,
        dtype=view.dtype,
    )
    arrays = [at.constant((places * stride).astype("int32").reshape(-1))]
    if weights is not None:
        arrays.append(at.constant(weights.astype("float32").reshape(-1)))
    at.call(kernel, [view, *arrays, result], node, f"{node.op} of an axis")


def gather(at: Lowering, node: Node) -> None:
    """Gather of constant indices of any kind."""
    value, view = first(at, node)
    axis = node.attributes.get("axis", 0) % len(value.shape)
    where = node.inputs[1]
    if where is None or where.constant is None:
        raise NotMine("its indices are not constant")
    indices = where.constant.reshape(1, -1).astype("int64") % value.shape[axis]
    shape = (*value.shape[:axis], indices.size, *value.shape[axis + 1 :])
    target = at.scratch(shape, tuple(range(len(shape))), value.dtype)
    taken(at, node, view, axis, indices, target)
    result = target.reshape(node.outputs[0].shape)
    if result is None:
        raise NotMine("its result lies in pieces")
    at.views[node.outputs[0]] = result


def pad(at: Lowering, node: Node) -> None:
    """Pad whose border repeats the edge, mirrors the inside or comes from the other end."""
    value, view = first(at, node)
    mode = node.attributes.get("mode", "constant")
    if mode not in {"reflect", "edge", "wrap"}:
        raise NotMine(f"mode {mode}")
    rank = len(value.shape)
    for axis, (before, after) in enumerate(zip(*padding(node, rank), strict=True)):
        size = view.shape[axis]
        if not before and not after:
            continue
        numbers = np.arange(-before, size + after)
        if mode == "edge":
            numbers = numbers.clip(0, size - 1)
        elif mode == "wrap":
            numbers = numbers % size
        elif size > 1:
            numbers = np.abs((numbers + size - 1) % (2 * size - 2) - size + 1)
        else:
            numbers = numbers * 0
        shape = (*view.shape[:axis], numbers.size, *view.shape[axis + 1 :])
        done = shape == node.outputs[0].shape
        target = ordered(at, node.outputs[0], view) if done else at.scratch(shape, tuple(range(rank)), value.dtype)
        taken(at, node, view, axis, numbers[None], target)
        view = target
    at.views[node.outputs[0]] = view


def resize(at: Lowering, node: Node) -> None:
    """Resize to any size, by the nearest entry or between the two nearest, one axis after the other."""
    value, view = first(at, node)
    result = node.outputs[0]
    mode = node.attributes.get("mode", "nearest")
    if value.dtype != "float32" or mode not in {"nearest", "linear"} or node.attributes.get("antialias", 0):
        raise NotMine(f"mode {mode}")
    if node.attributes.get("keep_aspect_ratio_policy", "stretch") != "stretch" or "axes" in node.attributes:
        raise NotMine("some axes only")
    if node.attributes.get("exclude_outside", 0):
        raise NotMine("without what is outside")
    scales = scales_of(node, value.shape, result.shape)
    changed = [axis for axis in range(len(value.shape)) if value.shape[axis] != result.shape[axis] or scales[axis] != 1]
    if not changed:
        raise NotMine("nothing changes")
    for axis in changed:
        size, length = view.shape[axis], result.shape[axis]
        places, weights = neighbours(node, mode, size, length, scales[axis])
        shape = (*view.shape[:axis], length, *view.shape[axis + 1 :])
        last = axis == changed[-1]
        target = at.place(result, None) if last else at.scratch(shape, tuple(range(len(shape))))
        taken(at, node, view, axis, places, target, weights)
        view = target
    at.views[result] = view


def scales_of(node: Node, size: Sequence[int], result: Sequence[int]) -> list[float]:
    """The scale of each axis: as it is given, else the ratio of the sizes."""
    place = 1 if node.op == "Upsample" or len(node.inputs) == 2 else 2
    given = node.inputs[place] if len(node.inputs) > place else None
    if given is not None and given.constant is not None and given.constant.size:
        return [float(scale) for scale in given.constant.reshape(-1)]
    if "scales" in node.attributes:
        return [float(scale) for scale in node.attributes["scales"]]
    return [float(np.float32(big) / np.float32(small)) for big, small in zip(result, size, strict=True)]


def neighbours(node: Node, mode: str, size: int, length: int, scale: float) -> tuple[np.ndarray, np.ndarray | None]:
    """Which entries, [taps, length], each new entry is made from, and by which weights."""
    legacy = node.op == "Upsample" or len(node.inputs) == 2
    transform = "asymmetric" if legacy else node.attributes.get("coordinate_transformation_mode", "half_pixel")
    rounding = "floor" if legacy else node.attributes.get("nearest_mode", "round_prefer_floor")
    at = coordinates(transform, size, length, scale)
    if mode == "nearest":
        half = at - np.floor(at) == 0.5
        chosen = {
            "floor": np.floor(at),
            "ceil": np.ceil(at),
            "round_prefer_floor": np.where(half, np.floor(at), np.floor(at + np.float32(0.5))),
            "round_prefer_ceil": np.floor(at + np.float32(0.5)),
        }[rounding]
        return chosen.clip(0, size - 1).astype("int64")[None], None
    low = np.floor(at)
    share = (at - low).astype("float32")
    places = np.stack([low, low + 1]).clip(0, size - 1).astype("int64")
    return places, np.stack([1 - share, share])


def coordinates(transform: str, size: int, length: int, scale: float) -> np.ndarray:
    """Where each new entry lies among the old ones (ONNX, Resize, coordinate_transformation_mode), in float32, as
    onnxruntime computes it: what is nearest may hang on the last bit."""
    entry, ratio, half = np.arange(length, dtype=np.float32), np.float32(scale), np.float32(0.5)
    middle = (entry + half) / ratio - half
    match transform:
        case "half_pixel":
            return middle
        case "pytorch_half_pixel":
            return middle if length > 1 else np.zeros(1, np.float32)
        case "align_corners":
            return entry * np.float32(size - 1) / np.float32(max(length - 1, 1))
        case "asymmetric":
            return entry / ratio
        case "half_pixel_symmetric":
            adjusted = np.float32(length) / (ratio * np.float32(size))
            return np.float32(size / 2) * (1 - adjusted) + (entry + half) / ratio - half
    raise NotMine(f"coordinates by {transform}")


def scatter(at: Lowering, node: Node) -> None:
    """ScatterND whose constant indices are a box of the data: a copy, and another one into the box."""
    value, view = first(at, node)
    where, updates = node.inputs[1], node.inputs[2]
    if where is None or where.constant is None or updates is None:
        raise NotMine("its indices are not constant")
    if node.attributes.get("reduction", "none") != "none":
        raise NotMine("it adds or multiplies")
    indices = where.constant.reshape(-1, where.constant.shape[-1]).astype("int64")
    indices = indices % np.array(value.shape[: indices.shape[1]])
    low, high = indices.min(0), indices.max(0) + 1
    box = np.stack(np.meshgrid(*(np.arange(a, b) for a, b in zip(low, high, strict=True)), indexing="ij"), -1)
    if box.size != indices.size or not np.array_equal(box.reshape(indices.shape), indices):
        raise NotMine("its indices are no box")
    result = at.place(node.outputs[0], view)
    target: View | None = result
    for axis, (start, end) in enumerate(zip(low, high, strict=True)):
        target = None if target is None else target.slice(axis, int(start), int(end - start))
    if target is None:
        raise NotMine("the box lies in pieces")
    source = at.of(updates).reshape(target.shape)
    if source is None:
        source = laid_out(at, node, at.of(updates)).reshape(target.shape)
    if source is None:
        raise NotMine("its updates lie in pieces")
    at.copy(view, result, node, "copy for ScatterND")
    at.copy(source, target, node, "copy into the box")
    at.views[node.outputs[0]] = result
