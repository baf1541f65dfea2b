"""MatMul, Gemm and Conv of 8-bit numbers: integers are multiplied and summed exactly, and scaled in the epilogue.

    sum of (x - zero) * w * scales = scale[row] * (sum of x * w - zero * sum of w)

The second sum is constant: it goes into the bias, and borders hold the zero point. x is gathered into words of four
channels once for all that read it (see `kernels/quads.py`). What follows is computed on the sums in registers, the
next QuantizeLinear among it, so that numbers of 8 bits are read and written.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from graphprune.targets.kernels.functions import Apply, Expression, Leaf, Number
from graphprune.targets.kernels.quads import FLIP, Quads, packed
from graphprune.targets.network.graph import Node, Value
from graphprune.targets.network.layout import Loop, NotMine, Storage, View, digits, extent, loops, merged
from graphprune.targets.network.lowering import Lowering
from graphprune.targets.network.quantised import quantised
from graphprune.targets.network.window import Window, window_of
from graphprune.targets.rules.contraction import LIMITS, emit, features_order
from graphprune.targets.rules.pointwise import EIGHT, POINTWISE, Fused, quantisation, replaced, with_most_fused
from graphprune.targets.rules.tables import Product
from graphprune.targets.rules.workspace import Workspace, distances, phases

WORD = 4  # numbers of a word
WHOLE = (*EIGHT, "int32")


def dequantise(at: Lowering, node: Node) -> None:
    """Numbers are made of what is stored when somebody asks for them; most read what is stored."""
    value, source = node.outputs[0], node.inputs[0]
    if value.constant is not None:
        return
    known = quantised(value)
    if source is None or known is None or not known.whole or not quantisation(node):
        raise NotMine("its scale is none for all numbers")

    def make() -> View:
        stored = at.of(source)
        result = at.place(value, stored)
        numbers = [Number(float(known.scale[0])), Number(float(known.zero[0]))]
        at.map(POINTWISE[node.op](node, [Leaf(0), *numbers]), [stored], result, node, node.op)
        return result

    at.later[value] = make


@dataclass(frozen=True)
class Factors:
    """What is multiplied: activations as they are stored, the number that is their zero once they are from 0 to 255,
    weights as int8 with outputs first, and what a sum of products of integers is worth, for each output (None where
    integers are wanted). `moving` is a zero point that only a run knows, besides `zero`; `added` a bias of numbers, and
    `bias` one in units of the sums."""

    stored: Value
    zero: int
    weights: np.ndarray
    scale: np.ndarray | None
    bias: np.ndarray | None = None
    moving: Value | None = None
    added: np.ndarray | None = None

    def sums(self) -> np.ndarray:
        """Of the weights of each output."""
        return np.asarray(self.weights.reshape(len(self.weights), -1).sum(axis=1, dtype="int64"))

    def start(self) -> np.ndarray:
        """What sums begin with."""
        total = -self.zero * self.sums()
        total = total if self.bias is None else total + self.bias
        return np.asarray(total & 0xFFFFFFFF, "uint32").view("int32")  # sums may pass the end and come back


def factors(at: Lowering, node: Node, turned: bool) -> Factors:
    """Of a node; `turned` where outputs are the last axis of the weights."""
    if node.op.endswith("Integer"):
        return integers(at, node, turned)
    x, w = quantised(node.inputs[0]), quantised(node.inputs[1])
    if x is None or w is None or w.stored.constant is None or x.stored.constant is not None:
        raise NotMine("not quantised activations times quantised constants")
    if not x.whole or x.stored.dtype not in EIGHT[1:] or not at.ready(x.stored):
        raise NotMine("activations without one scale of 8-bit numbers")
    if not w.whole and w.axis != (w.stored.constant.ndim - 1 if turned else 0):
        raise NotMine("a scale of the weights that is not one of an output")
    weights = eight(w.integers(), turned)
    scale = x.scale * np.broadcast_to(w.scale, len(weights))
    bias, added = bias_of(node, scale)
    return Factors(x.stored, int(x.zero[0]) + flipped(x.stored), weights, scale, bias, added=added)


def integers(at: Lowering, node: Node, turned: bool) -> Factors:
    """Of MatMulInteger and ConvInteger, whose inputs are stored and whose results are sums."""
    x, w, *zeros = [*node.inputs, None, None][:4]
    if x is None or w is None or w.constant is None or x.constant is not None or not at.ready(x):
        raise NotMine("not activations times constants")
    zero, other = zeros
    kept = np.zeros(1, "int32") if other is None else other.constant
    if kept is None or kept.size > 1 or (zero is not None and int(np.prod(zero.shape)) != 1):
        raise NotMine("zero points for each row or column")
    weights = eight(w.constant.astype("int32") - kept.astype("int32").reshape(()), turned)
    known = 0 if zero is None else zero.constant
    fixed = 0 if known is None else int(np.asarray(known).reshape(()))
    return Factors(x, fixed + flipped(x), weights, None, moving=zero if known is None else None)


def eight(weights: np.ndarray, turned: bool) -> np.ndarray:
    """Weights without their zero point as int8, (outputs, inputs) after they are turned. Raises NotMine."""
    if weights.min(initial=0) < -128 or weights.max(initial=0) > 127:
        raise NotMine("weights of more than 8 bits from their zero point")
    return (weights.T if turned else weights).astype("int8")


def flipped(value: Value) -> int:
    """What is added to stored numbers so that they are unsigned, as the instruction wants its left operand."""
    return FLIP if value.dtype == "int8" else 0


def bias_of(node: Node, scale: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The bias in units of the products, where that is how it is stored, or else as numbers."""
    value = node.inputs[2] if len(node.inputs) > 2 else None
    if value is None:
        return None, None
    if value.constant is None or value.dtype != "float32" or value.constant.size not in {1, len(scale)}:
        raise NotMine("its bias is not a constant for each output")
    known = quantised(value)
    if known is not None and known.stored.constant is not None and not known.zero.any():
        whole, units = known.stored.constant.reshape(-1), np.broadcast_to(known.scale, len(scale))
        if whole.size == len(scale) and np.allclose(units, scale, rtol=1e-5):
            return whole.astype("int64"), None
    return None, np.broadcast_to(value.constant.reshape(-1), len(scale))


def convolution(at: Lowering, node: Node) -> None:
    """A quantised Conv over two axes as a product of words of four channels, (n, c, h, w)."""
    found = factors(at, node, turned=False)
    window = window_of(node)
    if window is None or len(found.weights.shape) != 4:
        raise NotMine("not a window over two axes")
    if found.moving is not None and window.padded():
        raise NotMine("a border whose zero point only a run knows")
    groups = node.attributes.get("group", 1)
    outputs = len(found.weights)
    shared = outputs // groups
    weights, groups = joined_groups(found.weights, groups)
    shared *= weights.shape[1] // found.weights.shape[1]
    inner = weights.shape[1]
    quads = -(-inner // WORD)
    work = workspace(at, node, found, window, groups, quads, inner)
    taps = [work.tap(a, b) for a in range(window.kernel.rows) for b in range(window.kernel.columns)]
    words = packed(np.ascontiguousarray(weights.transpose(0, 2, 3, 1))).reshape(outputs, -1)
    offsets = (np.array(taps)[:, None] + np.arange(quads)[None, :] * work.channel).reshape(-1)
    if groups > 1:
        offsets = offsets[None, :] + np.arange(groups)[:, None] * quads * work.channel
    n, _, ho, wo = node.outputs[0].shape
    spread = View(work.storage, (digits(n, work.image), digits(ho, work.row), digits(wo, 1)), work.offset)
    product = Product(words, offsets, found.start(), spread, 1, shared, quads, "int8", found.scale)
    contraction(at, node, product, found)


def joined_groups(weights: np.ndarray, groups: int) -> tuple[np.ndarray, int]:
    """Groups of few channels, some of them together, so that a word of channels belongs to one: each output has zeros
    for the channels of the others. The last group may have fewer outputs."""
    outputs, inner = weights.shape[:2]
    count = WORD // inner if inner < WORD and groups > 1 else 1
    if count == 1:
        return weights, groups
    per = outputs // groups
    wide = np.zeros((outputs, count * inner, *weights.shape[2:]), weights.dtype)
    for output in range(outputs):
        first = output // per % count * inner
        wide[output, first : first + inner] = weights[output]
    return wide, -(-groups // count)


def workspace(
    at: Lowering, node: Node, found: Factors, window: Window, groups: int, quads: int, inner: int
) -> Workspace:
    """Words of the map that a window of stride 1 can slide over: its phases, with the zero point around them."""
    view = at.of(found.stored)
    n, channels, _, _ = view.shape
    row, plane, channel = distances(at, window)
    image = groups * quads * channel
    key = (view.storage, view.offset, view.axes, window.numbers(), row, groups, quads, found.zero)
    if key in at.copies:
        return Workspace(at.copies[key].storage, 0, row, channel, image, plane, window)
    padded = window.padded()
    zeros = (channel, row, plane, *window.numbers()) if padded and not found.zero else None
    storage = Storage(n * image, "int32", zeros=zeros)
    whole = View(storage, (digits(storage.size, 1),))
    if padded and found.zero:
        filled = np.array([found.zero * 0x01010101], "uint32").view("int32")
        at.map(Leaf(0), [at.constant(filled)], whole, node, "fill the border")
    # bytes without a channel meet weights of zero
    table = np.minimum(
        np.arange(groups)[:, None] * inner + np.minimum(np.arange(quads * WORD), inner - 1), channels - 1
    )
    for _, part, offset in phases(view, window, row, plane):
        tall, wide = part.shape[2:]
        axes = (digits(n, image), digits(groups * quads, channel), digits(tall, row), digits(wide, 1))
        words(at, node, part, View(storage, axes, offset), 1, table.reshape(-1), padded)
    at.copies[key] = whole
    return Workspace(storage, 0, row, channel, image, plane, window)


def words(
    at: Lowering, node: Node, source: View, target: View, axis: int, table: np.ndarray, kept: bool = False
) -> None:
    """Words of four places of `axis`, which the table names; every other axis is the same in source and target. Gaps
    between rows of pixels are written where rows are as far apart in both, unless they are `kept`."""
    places = np.array(View(source.storage, (source.axes[axis],)).positions())
    others = [(*view.axes[:axis], *view.axes[axis + 1 :]) for view in (source, target)]
    walked = loops(others)
    run = next((each for each in walked if each.strides[1] == 1), Loop(1, (1, 1)))
    around = [each for each in walked if each is not run]
    rows = max(around, key=lambda each: each.extent, default=Loop(1, (0, 0)))
    if not kept and source.storage.kind == "scratch" and run.strides == (1, 1) and rows.extent > 1:
        gap = rows.strides[1]
        if rows.strides[0] == gap >= run.extent:
            run = Loop((rows.extent - 1) * gap + run.extent, (1, 1))
            around = [each for each in around if each is not rows]
            rows = Loop(1, (0, 0))
    stride = merged(target.axes[axis])
    kernel = Quads(
        words=extent(target.axes[axis]),
        rows=rows.extent,
        length=run.extent,
        down=rows.strides[0],
        step=run.strides[0],
        word=stride[0].stride if stride else 0,
        row=rows.strides[1],
        outer=tuple((each.extent, each.strides) for each in around if each is not rows),
        dtype=source.dtype,
        guarded=source.storage.kind == "input",
    )
    offsets = at.constant(places[table].astype("int32"))
    at.call(kernel, [source, offsets, target], node, "words of four")


def matmul(at: Lowering, node: Node) -> None:
    """A quantised MatMul or Gemm with constant weights as a product of words of four inputs."""
    turned = not node.attributes.get("transB", 0)
    if node.attributes.get("transA", 0) or any(node.attributes.get(name, 1.0) != 1.0 for name in ("alpha", "beta")):
        raise NotMine("transA, alpha or beta")
    found = factors(at, node, turned)
    shape = found.stored.shape
    rank = len(shape)
    if found.weights.ndim != 2 or rank < 2 or len(node.outputs[0].shape) != rank:
        raise NotMine("its weights are no matrix")
    view = at.of(found.stored)
    outputs, inputs = found.weights.shape
    quads = -(-inputs // WORD)
    key = (view.storage, view.offset, view.axes, "words")
    if key not in at.copies:
        order = features_order(shape)
        target = at.scratch((*shape[:-1], quads), order, "int32")
        words(at, node, view, target, rank - 1, np.minimum(np.arange(quads * WORD), inputs - 1))
        at.copies[key] = target
    target = at.copies[key]
    stride = merged(target.axes[-1])
    offsets = np.arange(quads, dtype=np.int64) * (stride[0].stride if stride else 0)
    spread = View(target.storage, target.axes[:-1], target.offset)
    weights = packed(found.weights)
    product = Product(weights, offsets, found.start(), spread, rank - 1, outputs, quads, "int8", found.scale)
    contraction(at, node, product, found)


def contraction(at: Lowering, node: Node, product: Product, known: Factors) -> None:
    """As `contraction.contraction`, with the scale of a QuantizeLinear behind the product as a part of its own."""

    def make(found: Fused) -> None:
        emit(at, node, *scaled(product, completed(found, known, product.axis)))

    with_most_fused(at, node, LIMITS, make, WHOLE)


def completed(found: Fused, known: Factors, axis: int) -> Fused:
    """Takes off what a zero point that only the run knows has added to the sums, and adds a bias of numbers."""
    shape = [1] * len(found.value.shape)
    shape[axis] = -1
    operands = list(found.operands)
    inside: Expression = Leaf(0)

    def along(array: np.ndarray) -> Leaf:
        array = np.ascontiguousarray(array).reshape(shape)
        operands.append(Value(f"{found.value.name}/{len(operands)}", array.shape, array.dtype.name, array))
        return Leaf(len(operands))

    if known.moving is not None:
        operands.append(known.moving)
        zero = Apply("cast:int32", (Leaf(len(operands)),))
        inside = Apply("sub", (inside, Apply("mul", (zero, along(known.sums().astype("int32"))))))
    if known.added is not None:
        inside = Apply("add", (inside, along(known.added)))
    places = list(range(1, 1 + len(found.operands)))
    return replace(found, expression=replaced(found.expression, inside, places), operands=operands)


def scaled(product: Product, found: Fused) -> tuple[Product, None, Fused]:
    """Divisions by constants as products, which are faster: a number next to the middle of two steps may become the
    other one. Where all that is done to sums is to divide them by one number, it is a part of their scale instead, as
    onnxruntime has it."""
    divisors: set[float] = set()
    expression = without_division(found.expression, divisors)
    if len(divisors) == 1 and product.scale is not None and 0.0 not in divisors:
        product = replace(product, scale=(product.scale / np.float32(divisors.pop())).astype("float32"), _stored={})
        found = replace(found, expression=expression)
    return product, None, replace(found, expression=multiplied(found.expression))


def without_division(expression: Expression, divisors: set[float]) -> Expression:
    """The expression of sums that are divided already; adds by what, and 0 where something else is done to them."""
    match expression:
        case Apply("div", (Leaf(0) | Apply("relu", (Leaf(0),)) as sums, Number(value))) if value > 0:
            divisors.add(value)
            return sums
        case Apply(function, arguments):
            return Apply(function, tuple(without_division(argument, divisors) for argument in arguments))
        case Leaf(0):
            divisors.add(0.0)
    return expression


def multiplied(expression: Expression) -> Expression:
    """The expression with divisions by constants as products: a scale is applied once for each output."""
    match expression:
        case Apply("div", (x, Number(value))) if value:
            return Apply("mul", (multiplied(x), Number(float(np.float32(1.0 / value)))))
        case Apply(function, arguments):
            return Apply(function, tuple(multiplied(argument) for argument in arguments))
    return expression
