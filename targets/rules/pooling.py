"""MaxPool and AveragePool: windows that slide over a workspace, as convolutions do."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from graphprune.targets.kernels.functions import RESULT
from graphprune.targets.kernels.halve import COLUMNS, Halve
from graphprune.targets.kernels.window import Window as Pool
from graphprune.targets.network.graph import Node, Value
from graphprune.targets.network.layout import NotMine, View, digits, loops, plain
from graphprune.targets.network.lowering import Lowering, lines
from graphprune.targets.network.window import Window, window_of
from graphprune.targets.rules.contraction import run_of, with_run
from graphprune.targets.rules.pointwise import Fused, call_fused
from graphprune.targets.rules.workspace import Workspace, distance, flat, workspace

MOST = 32  # taps that are written out one by one


def halve(at: Lowering, node: Node) -> None:
    """A pool that takes every second column, from the map as it lies."""
    value, window = pooled(node)
    result = node.outputs[0]
    view = at.of(value)
    if window.strides.columns != 2 or value.dtype != "float32" or not flat(view):
        raise NotMine("its columns are not every second one of rows of pixels")
    if prod(window.kernel) > MOST or window.kernel.columns > COLUMNS or window.dilations != (1, 1):
        raise NotMine("many taps, or taps that lie apart")
    last = (window.output.rows - 1) * window.strides.rows - window.before.rows
    if node.op == "MaxPool" and (window.before.rows >= window.kernel.rows or last >= window.size.rows):
        raise NotMine("windows outside of the map")
    if node.op == "AveragePool" and window.padded():
        raise NotMine("means at a border, which are of less numbers")
    y = at.place(result)
    kernel = Halve(
        operation="max" if node.op == "MaxPool" else "mean",
        taps=window.kernel,
        size=window.size,
        output=window.output,
        before=window.before,
        down=window.strides.rows,
        rows=(distance(view.axes[2]), distance(y.axes[2])),
        outer=plain(loops([view.axes[:2], y.axes[:2]])),
    )
    at.call(kernel, [view, y], node, node.op)
    at.views[result] = y


def pool(at: Lowering, node: Node) -> None:
    """MaxPool and AveragePool over two axes; what lies outside of the map is not counted unless the node asks."""
    value, window = pooled(node)
    work = workspace(at, node, value, window)
    slide(at, node, window, work, Fused(node.outputs[0], RESULT), value.dtype)


def slide(
    at: Lowering, node: Node, window: Window, work: Workspace, found: Fused, dtype: str = "float32", zero: int = 0
) -> None:
    """A pool over a workspace of `dtype`, and what joins its step; `zero` is the integer that means nothing there."""
    result = found.value
    n, c = result.shape[:2]
    ho, wo = window.output
    kernel = window.kernel
    same = str(node.attributes.get("auto_pad", "NOTSET")).startswith("SAME")
    after = window.after if same else node.attributes.get("pads", (0, 0, 0, 0))[2:]
    offsets = [work.tap(a, b) for a in range(kernel[0]) for b in range(kernel[1])]
    x = View(
        work.storage, (digits(n, work.image), digits(c, work.channel), digits(ho, work.row), digits(wo, 1)), work.offset
    )
    y = at.place(result)
    walked = with_run(loops([x.axes, y.axes]))
    outer, length, mask, guarded = run_of(walked, y, result)
    closed = length > wo
    rows = work.row if closed else wo
    padded = window.padded()
    include = bool(node.attributes.get("count_include_pad", 0))
    hang = any(reach > pad for reach, pad in zip(window.after, after, strict=True))
    bordered = node.op == "MaxPool" and padded and dtype == "float32"  # no step is below a border of zeros
    counted = node.op == "AveragePool" and padded and (not include or hang)
    there = taps(window, after if include else None)
    extra: list[np.ndarray] = []
    if bordered:
        if len(offsets) > 32:
            raise NotMine("more than 32 taps at a border")
        bits = (there.astype("int64") << np.arange(len(offsets))[:, None, None]).sum(0)
        extra.append(laid(bits.astype("uint32").view("int32").astype("int32"), rows, closed))
    if counted:
        extra.append(laid(np.maximum(there.sum(0), 1).astype("float32"), rows, closed))
    arrays = [at.constant(array) for array in extra]
    if mask is not None:
        arrays.append(at.constant(mask))

    # arrays of the run repeat over channels and images; where rows are loops they have a row each
    def along(loop_extent: int, loop_strides: Sequence[int]) -> tuple[int, ...]:
        step = wo if not closed and loop_extent == ho and loop_strides[0] == work.row and ho > 1 else 0
        return (loop_strides[0], *(step,) * len(arrays), loop_strides[1])

    pooling = Pool(
        operation="max" if node.op == "MaxPool" else ("sum" if counted else "mean"),
        offsets=tuple(offsets),
        length=length,
        steps=(1,) * (2 + len(arrays)),
        outer=tuple((loop.extent, along(loop.extent, loop.strides)) for loop in outer),
        bordered=bordered,
        counted=counted,
        masked=mask is not None,
        guarded=guarded,
        epilogue=found.expression,
        dtype=dtype,
        result=result.dtype,
        taken=zero * len(offsets),
    )
    call_fused(at, node, found, pooling, [x, *arrays, y])


def pooled(node: Node) -> tuple[Value, Window]:
    """What a pool reads, and how. Raises NotMine for what no kernel knows."""
    value, window = node.inputs[0], window_of(node)
    if value is None or window is None or len(value.shape) != 4 or len(node.outputs) > 1:
        raise NotMine("not over two axes, or with indices")
    if value.dtype != "float32" and (node.op, value.dtype) != ("MaxPool", "uint8"):
        raise NotMine(f"{node.op} of {value.dtype}")
    return value, window


def taps(window: Window, after: Sequence[int] | None) -> np.ndarray:
    """Which taps of each window exist, [taps, rows, columns]; those in the padding too where it is given."""
    along = []
    for axis in range(2):
        steps = np.arange(window.output[axis])[None, :] * window.strides[axis]
        places = steps + np.arange(window.kernel[axis])[:, None] * window.dilations[axis] - window.before[axis]
        low, high = 0, window.size[axis]
        if after is not None:
            low, high = -window.before[axis], window.size[axis] + after[axis]
        along.append((places >= low) & (places < high))
    both = along[0][:, None, :, None] & along[1][None, :, None, :]
    return both.reshape(-1, *window.output)


def laid(array: np.ndarray, rows: int, closed: bool) -> np.ndarray:
    """Numbers of each place of the run; gaps between rows hold ones."""
    if not closed:
        return np.concatenate([array.reshape(-1), np.ones(64, array.dtype)])
    wide = np.ones((array.shape[0], rows), array.dtype)
    wide[:, : array.shape[1]] = array
    return np.concatenate([wide.reshape(-1), np.ones(lines(64), array.dtype)])
