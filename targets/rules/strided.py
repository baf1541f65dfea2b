"""Conv of each channel by itself (depthwise) that takes every second column: the kernel `Strided`, without phases."""

from __future__ import annotations

from math import prod

import numpy as np

from graphprune.targets.kernels.halve import COLUMNS
from graphprune.targets.kernels.strided import Strided
from graphprune.targets.network.graph import Node
from graphprune.targets.network.layout import NotMine, View, digits, loops, plain
from graphprune.targets.network.lowering import Lowering
from graphprune.targets.network.window import window_of
from graphprune.targets.rules.pointwise import Fused, call_fused, with_most_fused
from graphprune.targets.rules.workspace import distance, flat

MOST = 25  # taps that are written out one by one
LIMITS = (6, 3, 2, 1, 0)  # nodes that join the epilogue, from the most that is tried


def depthwise(at: Lowering, node: Node) -> None:
    x, w, *rest = node.inputs
    bias = rest[0] if rest else None
    assert x is not None and w is not None
    window = window_of(node)
    if w.constant is None or w.dtype != "float32" or x.dtype != "float32" or window is None:
        raise NotMine("not constant weights over two axes")
    if bias is not None and bias.constant is None:
        raise NotMine("its bias is not constant")
    channels = x.shape[1]
    if node.attributes.get("group", 1) != channels or w.shape[0] != channels:
        raise NotMine("not one output of each channel by itself")
    if window.strides.columns != 2 or window.dilations != (1, 1):
        raise NotMine("its columns are not every second one, or its taps lie apart")
    if prod(window.kernel) > MOST or window.kernel.columns > COLUMNS:
        raise NotMine("many taps")
    weights = w.constant
    if 2 * np.count_nonzero(weights) < weights.size:
        raise NotMine("most of its weights are zero")
    view = at.of(x)
    if view.storage.kind == "output" or not flat(view):
        raise NotMine("its rows are not rows of pixels")
    added = np.zeros(channels, "float32") if bias is None else np.asarray(bias.constant, "float32").reshape(-1)

    def emit(found: Fused) -> None:
        if found.operands:
            raise NotMine("an epilogue with other arrays")
        y = at.place(found.value)
        if not flat(y):
            raise NotMine("its result does not lie in rows of pixels")
        n = x.shape[0]
        kernel = Strided(
            operation="mean",
            taps=window.kernel,
            size=window.size,
            output=window.output,
            before=window.before,
            down=window.strides.rows,
            rows=(distance(view.axes[2]), distance(y.axes[2])),
            outer=plain(loops([view.axes[:2], (digits(n, 0), digits(channels, 1)), y.axes[:2]])),
            epilogue=found.expression,
        )
        views: list[View] = [view, at.constant(weights), at.constant(added), y]
        at.weights[node] = weights.size
        call_fused(at, node, found, kernel, views)

    with_most_fused(at, node, LIMITS, emit)
