"""MatMul, Gemm and Conv with constant weights: tables for the kernel `Contract`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from graphprune.targets.kernels.contract import Contract, Operand
from graphprune.targets.kernels.functions import Number
from graphprune.targets.network.graph import Node, Value
from graphprune.targets.network.layout import Axis, Loop, Storage, View, digits, extent, loops, merged, together
from graphprune.targets.network.lowering import Lowering, NotMine, fast_axis, lines, pitch
from graphprune.targets.rules.pointwise import Fused, fused


@dataclass
class Product:
    """A contraction in the form of the kernel: weights [outputs, inputs], the offset of each input row from the first,
    the run (and what is around it) in x, and how many outputs share a set of inputs (those of one group)."""

    weights: np.ndarray
    offsets: np.ndarray
    bias: np.ndarray | None
    x: View  # with the axes of the run and around it only
    axis: int  # of the output rows in the result
    group: int


def matmul(at: Lowering, node: Node) -> None:
    weights, bias = weights_of(node)
    x = node.inputs[0]
    assert x is not None
    view = features_first(at, x, node)
    depth = view.axes[-1]
    step = depth[0].stride if depth else 0
    offsets = np.arange(weights.shape[1], dtype=np.int64) * step
    spread = View(view.storage, view.axes[:-1], view.offset)
    rank = len(node.outputs[0].shape)
    if rank == 1:
        raise NotMine("a vector times a matrix")
    contraction(at, node, Product(weights, offsets, bias, spread, rank - 1, weights.shape[0]))


def weights_of(node: Node) -> tuple[np.ndarray, np.ndarray | None]:
    """Constant weights of a MatMul or Gemm as [outputs, inputs], and its bias."""
    w = node.inputs[1]
    assert w is not None
    if w.constant is None or w.constant.ndim != 2 or w.dtype != "float32":
        raise NotMine("its weights are not a constant matrix")
    bias = None
    weights = w.constant.T
    if node.op == "Gemm":
        if node.attributes.get("transA", 0):
            raise NotMine("transA")
        if node.attributes.get("transB", 0):
            weights = w.constant
        weights = weights * np.float32(node.attributes.get("alpha", 1.0))
        c = node.inputs[2] if len(node.inputs) > 2 else None
        if c is not None:
            if c.constant is None or c.constant.size not in {1, weights.shape[0]}:
                raise NotMine("its bias is not a constant for each output")
            bias = np.broadcast_to(c.constant.reshape(-1), (weights.shape[0],)) * np.float32(node.attributes.get("beta", 1.0))
    return weights, bias


def features_first(at: Lowering, x: Value, node: Node) -> View:
    """x with its tokens side by side and its features as rows; copied where it lies otherwise."""
    view = at.of(x)
    row = merged(view.axes[-1])
    fast = fast_axis(view)
    tokens = len(x.shape) - 2
    if len(row) <= 1 and view.storage.kind == "scratch" and (fast == tokens or x.shape[tokens] == 1):
        return View(view.storage, (*view.axes[:-1], tuple(row)), view.offset)
    order = (*range(tokens), len(x.shape) - 1, tokens)
    target = at.scratch(x.shape, order)
    at.copy(view, target, node, "copy to features x tokens")
    return target


def convolution(at: Lowering, node: Node) -> None:
    x, w, *rest = node.inputs
    assert x is not None and w is not None
    if w.constant is None or len(x.shape) != 4 or x.dtype != "float32":
        raise NotMine("not a convolution over two axes with constant weights")
    attributes = node.attributes
    if attributes.get("auto_pad", "NOTSET") not in {"NOTSET", b"NOTSET", "VALID"}:
        pads = same_pads(node, w.constant.shape[2:])
    else:
        pads = tuple(attributes.get("pads", (0, 0, 0, 0)))
    strides = tuple(attributes.get("strides", (1, 1)))
    dilations = tuple(attributes.get("dilations", (1, 1)))
    groups = attributes.get("group", 1)
    bias = None
    if rest and rest[0] is not None:
        if rest[0].constant is None:
            raise NotMine("its bias is not constant")
        bias = rest[0].constant
    outputs, inner, kh, kw = w.constant.shape
    n, _, ho, wo = node.outputs[0].shape
    work = workspace(at, node, x, (kh, kw), strides, dilations, pads, (ho, wo))
    taps = np.array([[work.tap(a, b) for b in range(kw)] for a in range(kh)]).reshape(-1)
    channels = np.arange(inner, dtype=np.int64) * work.channel
    per = outputs // groups
    weights = w.constant.transpose(0, 2, 3, 1).reshape(outputs, -1)
    offsets = (taps[:, None] + channels[None, :]).reshape(-1)
    if groups > 1:  # the offsets of group g begin at its own channels
        shift = np.arange(groups, dtype=np.int64) * inner * work.channel
        offsets = offsets[None, :] + shift[:, None]
    spread = View(work.storage, (digits(n, work.image), digits(ho, work.row), digits(wo, 1)), work.offset)
    contraction(at, node, Product(weights, offsets, bias, spread, 1, per))


def same_pads(node: Node, kernel: Sequence[int]) -> tuple[int, int, int, int]:
    x = node.inputs[0]
    assert x is not None
    before, after = [], []
    for axis in range(2):
        step = node.attributes.get("strides", (1, 1))[axis]
        reach = (kernel[axis] - 1) * node.attributes.get("dilations", (1, 1))[axis] + 1
        total = max(0, (node.outputs[0].shape[2 + axis] - 1) * step + reach - x.shape[2 + axis])
        half = total // 2
        upper = node.attributes["auto_pad"] in {"SAME_UPPER", b"SAME_UPPER"}
        before.append(half if upper else total - half)
        after.append(total - half if upper else half)
    return before[0], before[1], after[0], after[1]


@dataclass
class Workspace:
    """A map that a window of stride 1 can slide over: where tap (a, b) of output pixel (0, 0) lies, and the distances of
    rows, channels and images. A strided window slides over its phases: every s-th row and column, each a map."""

    storage: Storage
    offset: int
    row: int
    channel: int
    image: int
    phase: tuple[int, int] = (1, 1)
    plane: int = 0
    dilations: tuple[int, int] = (1, 1)

    def tap(self, a: int, b: int) -> int:
        a, b = a * self.dilations[0], b * self.dilations[1]
        sh, sw = self.phase
        return ((a % sh) * sw + b % sw) * self.plane + a // sh * self.row + b // sw


def workspace(
    at: Lowering,
    node: Node,
    x: Value,
    kernel: tuple[int, int],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    pads: Sequence[int],
    output: tuple[int, int],
    fill: float = 0.0,
) -> Workspace:
    """The input as it lies, where its rows are rows of pixels and its border is wide enough; else a copy."""
    n, c, h, w = x.shape
    view = at.of(x)
    top, left, bottom, right = pads
    if strides == (1, 1) and view.storage.kind == "scratch" and fill == 0.0 and flat(view):
        zeros = view.storage.zeros
        border = zeros[3] if zeros else 0
        if max(pads) <= border:
            image, channel, row, _ = (distance(axis) for axis in view.axes)
            row = row or distance_of_rows(view)
            return Workspace(view.storage, view.offset - top * row - left, row, channel, image, dilations=tuple(dilations))  # type: ignore[arg-type]
    sh, sw = strides
    ho, wo = output
    reach = [(kernel[axis] - 1) * dilations[axis] for axis in range(2)]
    row = max(wo + max(at.gaps.get(output, 0), reach[1] // sw), wo + reach[1] // sw)
    rows = ho + reach[0] // sh
    plane = pitch(max((rows - 1) * row + row, reach[0] // sh * row + reach[1] // sw + lines((ho - 1) * row + wo)))
    used = sorted({((a * dilations[0]) % sh, (b * dilations[1]) % sw) for a in range(kernel[0]) for b in range(kernel[1])})
    channel = plane * sh * sw
    key = (h, w, row, plane, sh, sw, top, left, ho, wo, *(number for phase in used for number in phase))
    padded = top or left or (rows * sh - top > h) or (row * sw - left > w)
    storage = Storage(n * c * channel, zeros=key if padded and fill == 0.0 else None)
    if padded and fill != 0.0:
        whole = View(storage, (digits(storage.size, 1),))
        at.map(Number(fill), [], whole, node, "fill the border")
    for a, b in used:
        # row i of the phase is row i * sh + a - top of x
        first_row = max(0, -((a - top) // sh) if a < top else 0)
        first_column = max(0, -((b - left) // sw) if b < left else 0)
        start_row, start_column = first_row * sh + a - top, first_column * sw + b - left
        count_rows = min(rows - first_row, -(-(h - start_row) // sh))
        count_columns = min(row - first_column, -(-(w - start_column) // sw))
        if count_rows < 1 or count_columns < 1:
            continue
        part = view.slice(2, start_row, count_rows, sh)
        part = part.slice(3, start_column, count_columns, sw) if part is not None else None
        if part is None:
            raise NotMine("its input lies in pieces")
        offset = (a * sw + b) * plane + first_row * row + first_column
        axes = (digits(n, c * channel), digits(c, channel), digits(count_rows, row), digits(count_columns, 1))
        at.copy(part, View(storage, axes, offset), node, f"copy phase {a},{b}" if (sh, sw) != (1, 1) else "copy into a border")
    return Workspace(storage, 0, row, channel, c * channel, (sh, sw), plane, tuple(dilations))  # type: ignore[arg-type]


def flat(view: View) -> bool:
    """Whether each axis is one digit, and pixels of a row lie side by side."""
    return all(len(merged(axis)) <= 1 for axis in view.axes) and (not view.axes[3] or view.axes[3][-1].stride == 1)


def distance(axis: Axis) -> int:
    return axis[0].stride if axis else 0


def distance_of_rows(view: View) -> int:
    """A map of one row has no distance of rows of its own; its border still has."""
    zeros = view.storage.zeros
    return zeros[2] if zeros else 0


def contraction(at: Lowering, node: Node, product: Product) -> None:
    """Chooses what joins the epilogue, places the result, and emits the call."""
    value = node.outputs[0]
    for limit in (12, 6, 3, 2, 1, 0):
        found = fused(at, value, 1, limit)
        try:
            emit(at, node, product, found)
            return
        except NotMine:
            if not found.nodes:
                raise
    raise NotMine("no form of it fits")


def result_place(at: Lowering, product: Product, value: Value) -> View:
    """A result whose run is the run of x: a map, or rows of features over the tokens."""
    joined = at.inside(value)
    if joined is not None:
        return joined
    if product.axis == 1 and len(value.shape) == 4:
        return at.map_of(value.shape, at.borders.get(value, 0))
    rank = len(value.shape)
    return at.scratch(value.shape, (*range(rank - 2), rank - 1, rank - 2))


def emit(at: Lowering, node: Node, product: Product, found: Fused) -> None:
    value = found.value
    y = result_place(at, product, value)
    axis = product.axis
    others = [at.of(entry).expand(value.shape) for entry in found.operands]
    if any(view.dtype != "float32" or view.storage.kind == "input" for view in others):
        raise NotMine("an operand of another type, or an input of the network")
    rows = together([y.axes[axis], *(view.axes[axis] for view in others)]) if y.shape[axis] > 1 else []
    if len(rows) > 1:
        raise NotMine("output rows lie in pieces")
    row_strides = rows[0].strides if rows else (0,) * (1 + len(others))
    around = [product.x.axes, *((*view.axes[:axis], *view.axes[axis + 1 :]) for view in (y, *others))]
    walked = loops(around)
    outer, length, masked, guarded = run_of(walked, y, value)
    operands = []
    run_strides = walked[-1].strides[2:] if walked else (0,) * len(others)
    for index, step in enumerate(run_strides):
        if step not in {0, 1}:
            raise NotMine("an operand does not lie along the run")
        operands.append(Operand(row_strides[1 + index], step, tuple(loop.strides[2 + index] for loop in outer)))
    outputs = product.weights.shape[0]
    rows_per, vectors = blocking(product, length, at.machine)
    values, entries, pointers = table(product, rows_per)
    kernel = Contract(
        outputs=outputs,
        length=length,
        row=row_strides[0],
        rows=rows_per,
        vectors=vectors,
        outer=tuple((loop.extent, loop.strides[0], loop.strides[1]) for loop in outer),
        bias=product.bias is not None,
        masked=masked is not None,
        guarded=guarded,
        epilogue=found.expression,
        operands=tuple(operands),
        block=block(product, vectors * at.machine.lanes, length),
        chunks=chunks(outer, length, vectors, outputs // rows_per, at.machine),
    )
    views = [product.x, at.constant(values), at.constant(entries), at.constant(pointers)]
    if product.bias is not None:
        views.append(at.constant(np.asarray(product.bias, "float32")))
    if masked is not None:
        views.append(at.constant(masked))
    what = "+".join([node.op, *(other.op for other in found.nodes)])
    at.weights[node] = product.weights.size
    at.call(kernel, [*views, *others, y], node, what)
    at.views[value] = y
    at.done.update(found.nodes)


def run_of(walked: list, y: View, value: Value) -> tuple[list, int, np.ndarray | None, bool]:
    """Loops around the run, its length, the mask of places that may be written, and whether others own what is behind.

    Rows of pixels with the same gap in all arrays are one run; the gap is written too, unless it is a border of zeros.
    """
    if not walked:
        return [], 1, None, True
    *outer, run = walked
    if any(stride not in {0, 1} for stride in run.strides) or run.strides[:2] != (1, 1):
        raise NotMine("tokens or pixels do not lie side by side")
    zeros = y.storage.zeros
    if outer and len(value.shape) == 4:
        rows = outer[-1]
        gap = rows.strides[1]
        same = all(big == gap and small == 1 or big == small == 0 for big, small in zip(rows.strides, run.strides, strict=True))
        if same and run.extent <= gap <= 2 * run.extent and rows.extent == value.shape[2]:
            length = (rows.extent - 1) * gap + run.extent
            mask = None
            if zeros:
                mask = np.zeros(lines(length) + 64, "float32")
                mask[:length].reshape(-1)[np.arange(length) % gap < run.extent] = 1
            return outer[:-1], length, mask, False
    ends = extent(y.axes[-1]) == run.extent and len(value.shape) == 4 and not outer_rows(outer, value)
    alone = not zeros and (ends or (len(value.shape) < 4 and y.storage.zeros is None))
    return outer, run.extent, None, not alone


def outer_rows(outer: list, value: Value) -> bool:
    return len(value.shape) == 4 and value.shape[2] > 1


def blocking(product: Product, length: int, machine) -> tuple[int, int]:
    """Rows and vectors of the register tile: the weights' own pattern decides the rows, the run the vectors."""
    lanes, registers = machine.lanes, machine.registers
    needed = -(-length // lanes)
    per = product.group
    best = (0.0, 1, 1)
    dense_entries = product.weights.size
    for rows in (1, 2, 4, 6, 8, 12, 16):
        if rows > 1 and (rows > product.weights.shape[0] or (product.offsets.ndim > 1 and per % rows)):
            continue
        stored = entries_of(product.weights, rows) * rows if rows > 1 else np.count_nonzero(product.weights)
        for vectors in (1, 2, 3, 4, 6):
            if rows * vectors + vectors + 1 > registers or vectors > needed:
                continue
            waste = -(-needed // vectors) * vectors / needed
            loads = rows + vectors
            work = rows * vectors
            # fused multiply-adds and loads share the ports; a chain of adds needs eight in flight
            cycles = (max(work / 2, loads / 2, 4.0) + 1.0) / work
            cost = stored * cycles * waste + dense_entries * 1e-9
            if best[0] == 0.0 or cost < best[0]:
                best = (cost, rows, vectors)
    return best[1], best[2]


def entries_of(weights: np.ndarray, rows: int) -> int:
    outputs, inputs = weights.shape
    whole = outputs // rows * rows
    count = int(np.any(weights[:whole].reshape(-1, rows, inputs) != 0, axis=1).sum())
    return count + (int(np.any(weights[whole:] != 0, axis=0).sum()) if whole < outputs else 0)


def table(product: Product, rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights [entries][rows], the offset of each entry, and where the entries of each group of rows begin."""
    outputs, inputs = product.weights.shape
    groups = -(-outputs // rows)
    padded = np.zeros((groups * rows, inputs), "float32")
    padded[:outputs] = product.weights
    blocks = padded.reshape(groups, rows, inputs)
    present, columns = np.nonzero((blocks != 0).any(axis=1))
    values = np.ascontiguousarray(blocks[present, :, columns]).reshape(-1)
    if product.offsets.ndim > 1:
        offsets = product.offsets[present * rows // product.group, columns]
    else:
        offsets = product.offsets[columns]
    pointers = np.zeros(groups + 1, "int32")
    pointers[1:] = np.cumsum(np.bincount(present, minlength=groups))
    if offsets.size and offsets.max() >= 1 << 31:
        raise NotMine("more than 2^31 numbers")
    if not values.size:
        values, offsets = np.zeros(rows, "float32"), np.zeros(1, "int64")
    return values, offsets.astype("int32"), pointers


def block(product: Product, tile: int, length: int) -> int:
    """Tiles that a group of rows walks in a row: as much of x as half of a second-level cache holds."""
    channels = len(np.unique(product.offsets)) if product.offsets.ndim == 1 else 1
    return max(1, min(-(-length // tile), (1 << 18) // (channels * tile * 4)))


def chunks(outer: list, length: int, vectors: int, groups: int, machine) -> int:
    """Pieces of the output rows, where there are too few strips of the run to keep the threads busy."""
    if machine.threads == 1:
        return 1
    strips = prod(loop.extent for loop in outer) * -(-length // (vectors * machine.lanes))
    return max(1, min(groups, -(-4 * machine.threads // strips)))

