"""What ONNX operators make of channels that are constant: entry-wise operators compute, others hand on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from graphprune.dialects.onnx.elementwise import BROADCAST, UNARY
from graphprune.program import Array, Node

COMPUTES = frozenset(f"{UNARY} {BROADCAST} Add Sub Mul Div PRelu BatchNormalization Where".split())
_MOVES = """Transpose Reshape Squeeze Unsqueeze Flatten Identity Dropout Cast Concat Slice Split Gather Expand Tile
DepthToSpace SpaceToDepth MaxPool GlobalAveragePool GlobalMaxPool ReduceMean ReduceMax ReduceMin"""
MOVES = frozenset(_MOVES.split())
# These mix entries of a channel with zeros, or weigh them: only zero stays what it is.
_KEEPS_ZERO = "AveragePool LpPool Resize Upsample ReduceSum ReduceL1 ReduceL2 ReduceSumSquare"
KEEPS_ZERO = frozenset(_KEEPS_ZERO.split())

Evaluate = Callable[[Node, list[Array | None]], Array]


def on_channels(node: Node, vectors: list[Array | None], evaluate: Evaluate) -> Array | None:
    """The constants of the output for one dimension, not a number where unknown; ``None`` where nothing is known.

    ``vectors`` holds, per operand, its constant at each entry of the dimension; ``None`` for an operand that is absent
    or does not have the dimension.
    """
    given = [vector for vector in vectors if vector is not None]
    if not given:
        return None
    if node.op in MOVES:
        first = given[0] if node.op != "Concat" else _agreed(given)
        return first
    if node.op in KEEPS_ZERO or (node.op == "Pad" and _pads_zero(vectors)):
        return np.where(given[0] == 0, 0.0, np.nan)
    if node.op not in COMPUTES or (node.op == "BatchNormalization" and len(given) < 5):
        return None
    operands = [
        None if node.inputs[k] is None else np.full_like(given[0], np.nan) if vector is None else vector
        for k, vector in enumerate(vectors)
    ]
    return _computed(node, operands, evaluate)


def _agreed(given: list[Array]) -> Array:
    """The same channels laid end to end twice: constant only where all agree."""
    first: Array = given[0].copy()
    for other in given[1:]:
        first[~(first == other)] = np.nan
    return first


def _pads_zero(vectors: list[Array | None]) -> bool:
    value = vectors[2] if len(vectors) > 2 else None
    return value is None or bool((value == 0).all())


def _computed(node: Node, operands: list[Array | None], evaluate: Evaluate) -> Array:
    present = [operand for operand in operands if operand is not None]
    unknown = np.isnan(present).any(axis=0)
    known = np.flatnonzero(~unknown)
    result = np.full(unknown.shape, np.nan)
    if known.size:
        inputs = [None if operand is None else operand[known].astype(np.float32) for operand in operands]
        if node.op == "BatchNormalization" and inputs[0] is not None:
            inputs[0] = inputs[0][None]
        result[known] = np.asarray(evaluate(node, inputs), np.float64).reshape(-1)
    if node.op == "Mul":
        result[np.any([operand == 0 for operand in present], axis=0)] = 0.0
    return result
