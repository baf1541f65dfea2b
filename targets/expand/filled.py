"""ConstantOfShape of a known shape: its numbers, which constant folding leaves out."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphprune.targets.expand.maker import Maker, array, number

MOST = 1 << 24  # numbers


def constant_of_shape(make: Maker, node: ir.Node) -> list[ir.Value] | None:
    """The numbers themselves, where the shape is known and small."""
    shape = array(node.inputs[0])
    if shape is None or int(np.prod(shape)) > MOST:
        return None
    given = number(node, "value", None)
    value = np.zeros(1, np.float32) if given is None else given.numpy()
    return [make.constant(np.full(tuple(int(size) for size in shape), value.reshape(-1)[0], value.dtype))]
