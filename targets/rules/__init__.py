"""Which rules are asked for which operator, from specific to general. A new rule is a function and a row here."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphprune.targets.network.graph import Node
from graphprune.targets.network.lowering import Lowering
from graphprune.targets.rules import (
    contraction,
    means,
    pointwise,
    pooling,
    product,
    quantised,
    reductions,
    rows,
    samples,
    scans,
    shape,
    strided,
    taken,
)

Rule = Callable[[Lowering, Node], None]

RULES: dict[str, tuple[Rule, ...]] = {
    **{op: (pointwise.elementwise,) for op in pointwise.POINTWISE},
    **{op: (reductions.reduce,) for op in reductions.OPERATIONS},
    **{op: (means.reduce, reductions.reduce) for op in ("GlobalAveragePool", "ReduceMean")},
    "AveragePool": (means.pool, pooling.halve, pooling.pool),
    "BatchNormalization": (pointwise.batch_norm,),
    "Concat": (shape.concat,),
    "ConvInteger": (quantised.convolution,),
    "Conv": (quantised.convolution, strided.depthwise, contraction.convolution),
    "CumSum": (scans.cumulative,),
    "DequantizeLinear": (quantised.dequantise, pointwise.elementwise),
    "Dropout": (shape.identity,),
    "Expand": (shape.expand,),
    "Flatten": (shape.reshape,),
    "Gather": (shape.gather, taken.gather, rows.gather),
    "Gemm": (quantised.matmul, rows.few, contraction.matmul),
    "Identity": (shape.identity,),
    "InstanceNormalization": (reductions.instance_norm,),
    "LayerNormalization": (reductions.layer_norm,),
    "LogSoftmax": (reductions.softmax,),
    "MatMul": (quantised.matmul, rows.few, contraction.matmul, product.matmul),
    "MatMulInteger": (quantised.matmul,),
    "MaxPool": (pooling.halve, pooling.pool),
    "Pad": (shape.pad, taken.pad),
    "Reshape": (shape.reshape,),
    "Resize": (shape.resize, taken.resize),
    "RMSNormalization": (reductions.layer_norm,),
    "ScatterND": (taken.scatter,),
    "Slice": (shape.slice_,),
    "Softmax": (reductions.softmax,),
    "Split": (shape.split,),
    "Squeeze": (shape.reshape,),
    "Transpose": (shape.transpose,),
    "Unsqueeze": (shape.reshape,),
    "Upsample": (shape.resize, taken.resize),
}


def rules_for(node: Node) -> Sequence[Rule]:
    """The rules for an operator, in the order in which they are tried."""
    found = RULES.get(node.op, ())
    return (samples.one_by_one, *found) if node.op in samples.APART else found
