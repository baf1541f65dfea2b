"""Gathers by constant indices along several axes, as a Gather along one; of constants, as their numbers."""

from __future__ import annotations

from math import prod

import numpy as np
import onnx_ir as ir

from graphprune.targets.expand.maker import Maker, array, number, sizes


def gather_nd(make: Maker, node: ir.Node) -> list[ir.Value] | None:
    """y[i, ..] = x[index[i, 0], index[i, 1], .., ..]: the first axes as one, and their places in it."""
    source, index = node.inputs[0], array(node.inputs[1])
    x = sizes(source)
    if source is None or x is None or index is None or number(node, "batch_dims", 0):
        return None
    first = x[: index.shape[-1]]
    places = [index[..., axis] % size for axis, size in enumerate(first)]
    flat = np.ravel_multi_index(places, first) if first else np.zeros(index.shape[:-1], np.int64)
    rows = make.reshape(source, (prod(first), *x[len(first) :]))
    return [make.op("Gather", rows, make.constant(flat.astype(np.int64)), axis=0)]


def gather_elements(make: Maker, node: ir.Node) -> list[ir.Value] | None:
    """y[.., i, ..] = x[.., index[.., i, ..], ..] along one axis: a Gather of one axis as well, which first axes over
    which the index repeats itself stay out of. Of a constant, the numbers (constant folding fails where there are fewer
    indices than entries)."""
    source, index = node.inputs[0], array(node.inputs[1])
    x, given = sizes(source), array(source)
    if source is None or x is None or index is None:
        return None
    axis = number(node, "axis", 0) % len(x)
    places: list[np.ndarray] = list(np.indices(index.shape, np.int64, sparse=True))
    places[axis] = index % x[axis]
    if given is not None:
        return [make.constant(given[tuple(places)])]
    outer = 0
    while outer < axis and index.shape[outer] == x[outer] and (index == index.take([0], outer)).all():
        index, places = index.take([0], outer), [each.take([0], outer) for each in places]
        outer += 1
    flat = np.ravel_multi_index([np.broadcast_to(each, index.shape) for each in places[outer:]], x[outer:])
    rows = make.reshape(source, (*x[:outer], prod(x[outer:])))
    return [make.op("Gather", rows, make.constant(flat.reshape(index.shape[outer:])), axis=outer)]
