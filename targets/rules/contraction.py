"""MatMul, Gemm and Conv with constant weights: tables for the kernel `Contract`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod

import numpy as np

from graphprune.targets.kernels.across import Across
from graphprune.targets.kernels.contract import WHOLE, Contract, Operand
from graphprune.targets.kernels.packed import Packed
from graphprune.targets.kernels.sliding import Sliding
from graphprune.targets.kernels.terms import TERMS
from graphprune.targets.kernels.tiles import Tiles
from graphprune.targets.kernels.tir import Machine
from graphprune.targets.network.graph import Node, Value
from graphprune.targets.network.layout import Loop, NotMine, View, digits, extent, loops, merged, together
from graphprune.targets.network.lowering import Lowering, fast_axis, lines
from graphprune.targets.network.window import window_of
from graphprune.targets.rules import words
from graphprune.targets.rules.pointwise import EIGHT, Fused, call_fused, others_of, with_most_fused
from graphprune.targets.rules.tables import Product, Run, Tile, close, division, signature, table, tiles
from graphprune.targets.rules.workspace import workspace

LIMITS = (12, 6, 3, 2, 1, 0)  # nodes that join an epilogue, from the most that is tried
MOST = 8  # cache lines that are asked for at the same time
SURE = 0.7  # what is estimated to take less than this of another form is not measured against it


def matmul(at: Lowering, node: Node) -> None:
    """MatMul or Gemm of tokens (..., inputs) with constant weights (outputs, inputs)."""
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
    product = Product(weights, offsets, bias, spread, rank - 1, weights.shape[0], weights.shape[1])
    contraction(at, node, product, words.of_features(at, product, view, run_axis(x.shape)))


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
            if c.constant is None or c.constant.squeeze().shape not in {(), c.constant.shape[-1:]}:
                raise NotMine("its bias is not a constant for each output")
            if c.constant.size not in {1, weights.shape[0]}:
                raise NotMine("its bias is not a constant for each output")
            bias = np.broadcast_to(c.constant.reshape(-1), (weights.shape[0],)) * np.float32(
                node.attributes.get("beta", 1.0)
            )
    return weights, bias


def features_first(at: Lowering, x: Value, node: Node) -> View:
    """x with its tokens side by side and its features as rows; copied where it lies otherwise."""
    view = at.of(x)
    row = merged(view.axes[-1])
    fast = fast_axis(view)
    tokens = run_axis(x.shape)
    if len(row) <= 1 and view.storage.kind == "scratch" and (fast == tokens or x.shape[tokens] == 1):
        return View(view.storage, (*view.axes[:-1], tuple(row)), view.offset)
    return at.copied_once(view, features_order(x.shape), node, "copy to features x tokens")


def run_axis(shape: Sequence[int]) -> int:
    """The axis of tokens that lie side by side: the last one before the features that has more than one."""
    return next((axis for axis in range(len(shape) - 2, -1, -1) if shape[axis] > 1), len(shape) - 2)


def features_order(shape: Sequence[int]) -> tuple[int, ...]:
    """Axes, slowest first: what is around the tokens, features, tokens."""
    tokens = run_axis(shape)
    return (*(axis for axis in range(len(shape) - 1) if axis != tokens), len(shape) - 1, tokens)


def convolution(at: Lowering, node: Node) -> None:
    """Conv over two axes, (n, c, h, w) with constant weights: a product over the channels and taps of a workspace."""
    x, w, *rest = node.inputs
    assert x is not None and w is not None
    if w.constant is None or len(x.shape) != 4 or x.dtype != "float32":
        raise NotMine("not a convolution over two axes with constant weights")
    window = window_of(node)
    if window is None:
        raise NotMine("not a window over two axes")
    groups = node.attributes.get("group", 1)
    bias = None
    if rest and rest[0] is not None:
        if rest[0].constant is None:
            raise NotMine("its bias is not constant")
        bias = rest[0].constant
    outputs, inner, kh, kw = w.constant.shape
    n, _, ho, wo = node.outputs[0].shape
    work = workspace(at, node, x, window)
    taps = np.array([[work.tap(a, b) for b in range(kw)] for a in range(kh)]).reshape(-1)
    channels = np.arange(inner, dtype=np.int64) * work.channel
    per = outputs // groups
    weights = w.constant.transpose(0, 2, 3, 1).reshape(outputs, -1)
    offsets = (taps[:, None] + channels[None, :]).reshape(-1)
    if groups > 1:  # the offsets of group g begin at its own channels
        shift = np.arange(groups, dtype=np.int64) * inner * work.channel
        offsets = offsets[None, :] + shift[:, None]
    spread = View(work.storage, (digits(n, work.image), digits(ho, work.row), digits(wo, 1)), work.offset)
    product = Product(weights, offsets, bias, spread, 1, per, inner)
    contraction(at, node, product, words.of_map(at, product, work, taps, groups))


Paired = tuple[Product, words.Words]


def contraction(at: Lowering, node: Node, product: Product, paired: Paired | None) -> None:
    """Chooses what joins the epilogue, places the result, and emits the call; `paired` is the product in bfloat16."""
    with_most_fused(at, node, LIMITS, lambda found: emit(at, node, product, paired, found), EIGHT)


def result_place(at: Lowering, product: Product, value: Value) -> View:
    """A result whose run is the run of x: a map, or rows of features over the tokens."""
    joined = at.inside(value)
    if joined is not None:
        return joined
    if product.axis == 1 and len(value.shape) == 4:
        return at.map_of(value.shape, at.borders.get(value, 0), value.dtype)
    return at.scratch(value.shape, features_order(value.shape), value.dtype)


@dataclass(frozen=True)
class Walk:
    """How a product goes over its run: `outer` loops around `length` places, some of them gaps between rows of pixels
    (`masked` says which may be written), or `around` rows without gaps. Strides of output rows are in `rows`: of the
    result, and of the other operands."""

    rows: tuple[int, ...]
    outer: tuple[Loop, ...]
    length: int
    masked: np.ndarray | None
    guarded: bool
    around: tuple[Loop, ...]
    row: Loop
    types: tuple[str, ...]

    @property
    def run(self) -> Run:
        return Run(self.length, count(self.outer), self.row.extent, count(self.around))

    def operands(self, outer: Sequence[Loop]) -> tuple[Operand, ...]:
        return tuple(
            Operand(self.rows[1 + index], step, tuple(loop.strides[2 + index] for loop in outer), self.types[index])
            for index, step in enumerate(self.row.strides[2:])
        )


def walk(product: Product, value: Value, y: View, others: Sequence[View]) -> Walk:
    """How the loops around a product go over its input, its result and the operands of its epilogue. Raises NotMine."""
    axis = product.axis
    rows = together([y.axes[axis], *(view.axes[axis] for view in others)]) if y.shape[axis] > 1 else []
    if len(rows) > 1:
        raise NotMine("output rows lie in pieces")
    strides = rows[0].strides if rows else (0,) * (1 + len(others))
    around = [product.x.axes, *((*view.axes[:axis], *view.axes[axis + 1 :]) for view in (y, *others))]
    walked = with_run(loops(around))
    outer, length, masked, guarded = run_of(walked, y, value)
    *slow, row = walked or [Loop(1, (1,) * (2 + len(others)))]
    if any(step not in {0, 1} for step in row.strides[2:]):
        raise NotMine("an operand does not lie along the run")
    types = tuple(view.dtype for view in others)
    return Walk(tuple(strides), tuple(outer), length, masked, guarded, tuple(slow), row, types)


@dataclass(frozen=True)
class Form:
    """One way to compute a product. `words` where it reads x as words."""

    tile: Tile
    product: Product
    way: Walk
    words: words.Words | None = None

    @property
    def full(self) -> bool:
        return self.tile.full

    def kernel(self, machine: Machine, found: Fused) -> Contract | Across:
        product, way, tile = self.product, self.way, self.tile
        outputs = product.weights.shape[0]
        if tile.pixels:
            return Across(
                outputs=outputs,
                length=way.row.extent,
                row=way.rows[0],
                rows=tile.rows,
                pixels=tile.pixels,
                outer=tuple((loop.extent, loop.strides[0], loop.strides[1]) for loop in way.around),
                bias=product.bias is not None,
                epilogue=found.expression,
                operands=way.operands(way.around),
                numbers=product.numbers,
                scaled=product.scale is not None,
                result=found.value.dtype,
            )
        wide = tile.vectors * machine.lanes
        block, chunks = division(
            count(way.outer),
            -(-way.length // wide),
            1 if tile.parts > 1 or tile.packed else close(product, wide),
            -(-outputs // tile.rows),
            machine.threads,
        )
        kind: Callable[..., Contract] = Contract
        if tile.depth:
            kind = partial(Tiles, depth=tile.depth, down=product.down(tile.depth))
        if tile.slides:
            kind = partial(Sliding, taps=product.taps())
        if tile.packed:
            kind = partial(
                Packed,
                lanes=machine.lanes,
                channels=product.channels,
                channel=tile.packed.channel,
                spans=tile.packed.spans,
            )
        return kind(
            outputs=outputs,
            length=way.length,
            row=way.rows[0],
            rows=tile.rows,
            vectors=tile.vectors,
            outer=tuple((loop.extent, loop.strides[0], loop.strides[1]) for loop in way.outer),
            bias=product.bias is not None,
            masked=way.masked is not None,
            guarded=way.guarded,
            epilogue=found.expression,
            operands=way.operands(way.outer),
            block=block,
            chunks=chunks,
            ahead=asked(product, tile, count(way.outer) * -(-way.length // (wide * block))),
            parts=tile.parts,
            numbers=product.numbers,
            scaled=product.scale is not None,
            result=found.value.dtype,
        )

    def views(self, at: Lowering, others: Sequence[View], y: View) -> list[View]:
        arrays = list(table(self.product, self.tile))
        if self.product.bias is not None:
            arrays.append(np.asarray(self.product.bias, TERMS[self.product.numbers].total))
        if self.product.scale is not None:
            arrays.append(np.asarray(self.product.scale, "float32"))
        if self.way.masked is not None and not self.tile.pixels:
            arrays.append(self.way.masked)
        return [self.product.x, *(at.constant(array) for array in arrays), *others, y]


def emit(at: Lowering, node: Node, product: Product, paired: Paired | None, found: Fused) -> None:
    """Emits the call of the best form of a product with this epilogue, as measured or estimated. Raises NotMine."""
    value = found.value
    y = result_place(at, product, value)
    others = others_of(at, found, EIGHT)
    way = walk(product, value, y, others)
    least, known = tiles(product, way.run, at.machine)
    forms = [Form(tile, product, way) for tile in known]
    if paired is not None:
        short, rounded = paired
        way = walk(short, value, y, others)
        cost, known = tiles(short, way.run, at.machine)
        shorter = [Form(tile, short, way, rounded) for tile in known]
        forms = shorter if cost < SURE * least else [*shorter, *forms]
    form, kernel, views = at.choose(
        node,
        signature(product),
        forms,
        lambda form: form.kernel(at.machine, found),
        lambda form: form.views(at, others, y),
    )
    if form.words is not None:
        form.words.emit(at, node)
    at.weights[node] = form.product.weights.size
    call_fused(at, node, found, kernel, views)


def asked(product: Product, tile: Tile, walks: int) -> int:
    """Cache lines of weights that are asked for ahead: as many as a list of entries has, roughly, so that like layers
    have one kernel. Weights are far away once; to ask costs time in each of the walks over them, the less so the more
    rows share an entry."""
    if walks > tile.rows or tile.depth:
        return 0
    if tile.rows >= WHOLE:
        return 1
    lists = -(-product.weights.shape[0] // tile.rows) * tile.parts
    lines = int(product.weights.size if tile.full else product.stored(tile.rows)) // (16 * lists)
    return min(MOST, int(2 ** (max(1, lines).bit_length() - 1)))


def count(loops: Sequence[Loop]) -> int:
    """How often the innermost statement of these loops runs."""
    return prod(loop.extent for loop in loops)


def with_run(walked: list[Loop]) -> list[Loop]:
    """The loops, and a run of one number inside of them where no numbers lie side by side (maps of one pixel)."""
    if walked and walked[-1].strides[:2] != (1, 1):
        return [*walked, Loop(1, (1,) * len(walked[-1].strides))]
    return walked


def run_of(walked: list[Loop], y: View, value: Value) -> tuple[list[Loop], int, np.ndarray | None, bool]:
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
        same = all(
            (big == gap and small == 1) or big == small == 0
            for big, small in zip(rows.strides, run.strides, strict=True)
        )
        if same and run.extent <= gap <= 2 * run.extent and rows.extent == value.shape[2]:
            length = (rows.extent - 1) * gap + run.extent
            mask = None
            if zeros:
                mask = np.zeros(lines(length) + 64, "float32")
                mask[:length].reshape(-1)[np.arange(length) % gap < run.extent] = 1
            return outer[:-1], length, mask, False
    # Vectors may write past the run only where it is all of an axis whose neighbours are whole lines apart.
    fast = fast_axis(y)
    whole = fast is not None and extent(y.axes[fast]) == run.extent
    alone = not zeros and whole and (fast != 3 or not outer_rows(outer, value))
    return outer, run.extent, None, not alone


def outer_rows(outer: list[Loop], value: Value) -> bool:
    """Whether the innermost of the loops around the run may be the rows of a map."""
    return len(value.shape) == 4 and value.shape[2] > 1
