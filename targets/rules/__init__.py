"""Which rules are asked for which operator, from specific to general. A new rule is a function and a row here."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphprune.targets.network.graph import Node
from graphprune.targets.network.lowering import Lowering
from graphprune.targets.rules import contraction, pointwise, product, shape

Rule = Callable[[Lowering, Node], None]

RULES: dict[str, tuple[Rule, ...]] = {
    **{op: (pointwise.elementwise,) for op in pointwise.POINTWISE},
    "BatchNormalization": (pointwise.batch_norm,),
    "Concat": (shape.concat,),
    "Conv": (contraction.convolution,),
    "Dropout": (shape.identity,),
    "Expand": (shape.expand,),
    "Flatten": (shape.reshape,),
    "Gather": (shape.gather,),
    "Gemm": (contraction.matmul,),
    "Identity": (shape.identity,),
    "MatMul": (contraction.matmul, product.matmul),
    "Pad": (shape.pad,),
    "Reshape": (shape.reshape,),
    "Resize": (shape.resize,),
    "Slice": (shape.slice_,),
    "Split": (shape.split,),
    "Squeeze": (shape.reshape,),
    "Transpose": (shape.transpose,),
    "Unsqueeze": (shape.reshape,),
    "Upsample": (shape.resize,),
}


def rules_for(node: Node) -> Sequence[Rule]:
    return RULES.get(node.op, ())
