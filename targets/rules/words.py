"""Products of bfloat16: the same product with neighbouring channels of x and of the weights as words of two numbers.

x is rounded once, by a step of its own that all products with it share. The step is emitted only where a form with
words is taken: which form is fastest is measured.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import prod

import numpy as np

from graphprune.targets.kernels.pairs import Pairs, packed
from graphprune.targets.network.graph import Node
from graphprune.targets.network.layout import View, digits, loops, merged
from graphprune.targets.network.lowering import Lowering
from graphprune.targets.rules.tables import Product
from graphprune.targets.rules.workspace import Workspace

LEAST = 16  # channels (or weights that meet a number), and numbers of a run, from which on rounding pays


@dataclass
class Words:
    """Words of two neighbours of an axis, and the steps that make them, until they are emitted."""

    view: View
    steps: list[tuple[Pairs, View, View]] = field(default_factory=list)

    def emit(self, at: Lowering, node: Node) -> None:
        for kernel, source, target in self.steps:
            at.call(kernel, [source, target], node, "round to bfloat16")
        self.steps.clear()


def wanted(at: Lowering, product: Product) -> bool:
    """Whether a product is large enough for bfloat16 to pay, on a machine that has its dot products: few channels do
    where many weights meet each number."""
    meets = product.group * product.weights.shape[1] // product.channels
    many = product.channels > 2 and max(product.channels, meets) >= LEAST
    return at.machine.pairs and many and prod(product.x.shape) >= LEAST


def words_of(at: Lowering, x: View, axis: int, run: int) -> Words | None:
    """Words of the numbers of x, with `axis` half as long and `run` side by side; None where x lies otherwise."""
    key = (x.storage, x.offset, x.axes)
    known: Words | None = at.words.get(key)
    if known is not None:
        return known
    size = x.shape[axis]
    shape = [*x.shape]
    shape[axis] = -(-size // 2)
    around = [index for index in range(len(shape)) if index not in {axis, run}]
    words = Words(at.scratch(shape, (*around, axis, run), "int32"))
    stride = merged(x.axes[axis])
    if len(stride) != 1:
        return None
    for first, count, single in ((0, size // 2, False), (size - 1, size % 2, True)):
        source = x.slice(axis, first, count, 2) if count else None
        target = words.view.slice(axis, first // 2, count) if count else None
        if source is None or target is None:
            continue
        walked = loops([source.axes, target.axes])
        side = next((loop for loop in walked if loop.strides == (1, 1)), None)
        if side is None:
            return None
        outer = tuple((loop.extent, loop.strides) for loop in walked if loop is not side)
        words.steps.append((Pairs(side.extent, stride[0].stride, outer, single), source, target))
    at.words[key] = words
    return words


def of_features(at: Lowering, product: Product, x: View, run: int) -> tuple[Product, Words] | None:
    """A product with features, which are the last axis of x; tokens of the axis `run` lie side by side."""
    words = words_of(at, x, len(x.shape) - 1, run) if wanted(at, product) else None
    if words is None:
        return None
    view = words.view
    offsets = np.arange(view.shape[-1], dtype=np.int64) * merged(view.axes[-1])[0].stride
    spread = View(view.storage, view.axes[:-1], view.offset)
    return halved(product, packed(product.weights), offsets, spread), words


def of_map(
    at: Lowering, product: Product, work: Workspace, taps: np.ndarray, groups: int
) -> tuple[Product, Words] | None:
    """A convolution: all that belongs to a channel, borders and phases, is one axis of x."""
    inner = product.channels
    start = work.offset % work.channel if work.channel else 0
    around, rows, columns = product.x.axes
    reach = start + int(taps.max()) + sum((digit.extent - 1) * digit.stride for digit in (*rows, *columns))
    if not wanted(at, product) or (groups > 1 and inner % 2) or reach >= work.channel:
        return None
    axes = (around, digits(groups * inner, work.channel), digits(work.channel, 1))
    words = words_of(at, View(work.storage, axes, work.offset - start), 1, 2)
    if words is None:
        return None
    view, half = words.view, -(-inner // 2)
    channel = merged(view.axes[1])[0].stride if view.axes[1] else 0
    weights = product.weights.reshape(-1, len(taps), inner)
    offsets = (taps[:, None] + np.arange(half, dtype=np.int64)[None, :] * channel).reshape(-1)
    if groups > 1:
        offsets = offsets[None, :] + np.arange(groups, dtype=np.int64)[:, None] * half * channel
    x = View(view.storage, (view.axes[0], rows, columns), view.offset + start)
    return halved(product, packed(weights).reshape(len(weights), -1), offsets, x), words


def halved(product: Product, weights: np.ndarray, offsets: np.ndarray, x: View) -> Product:
    """The product over pairs of channels in bfloat16."""
    channels = -(-product.channels // 2)
    return replace(product, weights=weights, offsets=offsets, x=x, channels=channels, numbers="bfloat16", _stored={})
