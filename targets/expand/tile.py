"""Tile as a view: axes of repetitions beside those that are repeated, which are then one."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphprune.targets.expand.maker import Maker, array, sizes


def tile(make: Maker, node: ir.Node) -> list[ir.Value] | None:
    """x (a, b) by (r, s) is x as (1, a, 1, b), expanded to (r, a, s, b), as (r a, s b)."""
    x, repeats = node.inputs[0], array(node.inputs[1])
    shape = sizes(x)
    if x is None or shape is None or repeats is None or len(node.inputs) != 2:
        return None
    narrow = [size for extent in shape for size in (1, extent)]
    wide = [size for pair in zip(repeats.tolist(), shape, strict=True) for size in pair]
    whole = [size * count for size, count in zip(shape, repeats.tolist(), strict=True)]
    repeated = make.op("Expand", make.reshape(x, narrow), make.constant(np.array(wide, np.int64)))
    repeated.type = x.type
    return [make.reshape(repeated, whole)]
