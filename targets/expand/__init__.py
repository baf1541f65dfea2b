"""Nodes that others stand for: operators without a kernel of their own, written with those that have one.

An expansion takes a node and says it in other operators, exactly, or leaves it (None). It sees static shapes and folded
constants. To add one, write a function in a file of its own and a row here.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from graphprune.targets.expand import einsum, gathers, integers, one_axis, patches, pools, recurrent, tile, transposed
from graphprune.targets.expand.maker import Maker

Expansion = Callable[[Maker, ir.Node], list[ir.Value] | None]

EXPANSIONS: dict[str, tuple[Expansion, ...]] = {
    "AveragePool": (pools.whole, one_axis.window),
    "Conv": (one_axis.window, patches.convolution),
    "ConvTranspose": (one_axis.window, transposed.conv_transpose),
    "DynamicQuantizeLinear": (integers.dynamic,),
    "Einsum": (einsum.einsum,),
    "GatherElements": (gathers.gather_elements,),
    "GatherND": (gathers.gather_nd,),
    "GRU": (recurrent.recurrent,),
    "LSTM": (recurrent.recurrent,),
    "MaxPool": (pools.whole, one_axis.window, pools.max_pool),
    "QLinearConv": (integers.convolution,),
    "QLinearMatMul": (integers.matmul,),
    "RNN": (recurrent.recurrent,),
    "Tile": (tile.tile,),
    "com.microsoft:QGemm": (integers.gemm,),
    "com.microsoft:QLinearAdd": (integers.binary,),
    "com.microsoft:QLinearAveragePool": (integers.unary,),
    "com.microsoft:QLinearConcat": (integers.concat,),
    "com.microsoft:QLinearGlobalAveragePool": (integers.unary,),
    "com.microsoft:QLinearLeakyRelu": (integers.unary,),
    "com.microsoft:QLinearMul": (integers.binary,),
    "com.microsoft:QLinearSigmoid": (integers.unary,),
    "com.microsoft:DequantizeLinear": (integers.standard,),
    "com.microsoft:QuantizeLinear": (integers.standard,),
}


def expand(model: ir.Model) -> bool:
    """Expands what can be, in place, and what comes out of that again. Returns whether there was any."""
    found = False
    queue = list(model.graph)
    while queue:
        node = queue.pop(0)
        kind = node.op_type if node.domain in {"", "ai.onnx"} else f"{node.domain}:{node.op_type}"
        for expansion in EXPANSIONS.get(kind, ()):
            maker = Maker(model.graph, node)
            results = expansion(maker, node)
            if results is not None:
                queue = [*maker.replace(results), *queue]
                found = True
                break
    return found
