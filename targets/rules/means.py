"""Means of quantised numbers: what is stored is summed exactly, and rounded where the mean is scaled.

    mean of scale * (x - zero) = scale * ((sum of x - n * zero) / n)

The QuantizeLinear behind a mean joins its step, so that bytes are read and written.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

from graphprune.targets.kernels.functions import Apply, Leaf, Number
from graphprune.targets.network.graph import Node
from graphprune.targets.network.layout import NotMine
from graphprune.targets.network.lowering import Lowering
from graphprune.targets.network.quantised import Quantised, quantised
from graphprune.targets.network.window import window_of
from graphprune.targets.rules.pointwise import EIGHT, Fused, call_fused, replaced, with_most_fused
from graphprune.targets.rules.pooling import slide
from graphprune.targets.rules.reductions import axes_of, reducing, smaller, walk
from graphprune.targets.rules.workspace import workspace

LIMITS = (3, 2, 1, 0)  # nodes that join the step
MOST = 1 << 14  # numbers of one mean: their sum is exact in float32, and a mean that is none is not rounded to a tie


def stored(at: Lowering, node: Node, count: int) -> Quantised:
    """What a mean of `count` numbers is over. Raises NotMine where these are not of 8 bits with one scale."""
    known = quantised(node.inputs[0])
    if known is None or not known.whole or known.stored.dtype not in EIGHT[1:] or not at.ready(known.stored):
        raise NotMine("not quantised numbers with one scale")
    if known.stored.constant is not None or count > MOST:
        raise NotMine("a constant, or too many numbers for an exact sum")
    return known


def scaled(found: Fused, known: Quantised) -> Fused:
    """What joins the step behind the scale, which comes first."""
    if found.operands:
        raise NotMine("other numbers join its step")
    factor = Apply("mul", (Leaf(0), Number(float(known.scale[0]))))
    return replace(found, expression=replaced(found.expression, factor, []))


def pool(at: Lowering, node: Node) -> None:
    """AveragePool over two axes."""
    window = window_of(node)
    if window is None:
        raise NotMine("not over two axes")
    known = stored(at, node, prod(window.kernel))
    zero = int(known.zero[0])
    work = workspace(at, node, known.stored, window, float(zero))
    dtype = known.stored.dtype
    with_most_fused(
        at, node, LIMITS, lambda found: slide(at, node, window, work, scaled(found, known), dtype, zero), EIGHT
    )


def reduce(at: Lowering, node: Node) -> None:
    """GlobalAveragePool and ReduceMean."""
    known = quantised(node.inputs[0])
    if known is None:
        raise NotMine("not quantised numbers")
    axes = axes_of(node, len(known.stored.shape))
    count = prod(known.stored.shape[axis] for axis in axes)
    known = stored(at, node, count)
    x = at.of(known.stored)
    if x.storage.kind != "scratch":
        raise NotMine("an input of the network")

    def emit(found: Fused) -> None:
        joined = scaled(found, known)
        y = smaller(at, x, axes, joined.value.dtype)
        result = y.reshape(joined.value.shape)
        if result is None:
            raise NotMine("a result in pieces")
        kernel = replace(
            reducing("mean", walk([x, y.expand(x.shape)], axes)),
            epilogue=joined.expression,
            dtype=x.dtype,
            result=y.dtype,
            taken=count * int(known.zero[0]),
        )
        call_fused(at, node, joined, kernel, [x, y])
        at.views[joined.value] = result

    with_most_fused(at, node, LIMITS, emit, EIGHT)
