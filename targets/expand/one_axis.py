"""Convolutions and pools over one axis: the same over two, the first of which has one place.

Conv(x [N, C, W], w [O, I, K]) = Conv(x [N, C, 1, W], w [O, I, 1, K])
"""

from __future__ import annotations

import onnx_ir as ir

from graphprune.targets.expand.maker import Maker, array, is_float, sizes

PAIRS = {"kernel_shape": 1, "strides": 1, "dilations": 1, "output_padding": 0, "output_shape": 1}
SAME = ("auto_pad", "group", "ceil_mode", "count_include_pad", "storage_order")


def window(make: Maker, node: ir.Node) -> list[ir.Value] | None:
    """A convolution or pool over one axis as one over two, of which the first has size 1."""
    x, *rest = node.inputs
    shape, result = sizes(x), sizes(node.outputs[0])
    if shape is None or len(shape) != 3 or result is None or len(node.outputs) > 1 or not is_float(x):
        return None
    assert x is not None
    attributes = {name: node.attributes[name].value for name in SAME if name in node.attributes}
    for name, one in PAIRS.items():
        if name in node.attributes:
            attributes[name] = [one, *node.attributes[name].value]
    if "pads" in node.attributes:
        before, after = node.attributes["pads"].value
        attributes["pads"] = [0, before, 0, after]
    inputs = [make.reshape(x, (*shape[:2], 1, shape[2]))]
    if rest:
        weights = array(rest[0])
        if weights is None:
            return None
        inputs += [make.constant(weights[:, :, None, :]), *(each for each in rest[1:] if each is not None)]
    wide = make.op(node.op_type, *inputs, shape=(*result[:2], 1, result[2]), **attributes)
    return [make.reshape(wide, result)]
