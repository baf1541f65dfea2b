"""Rows of constant tables: embeddings, and products of a few rows with constant weights."""

from __future__ import annotations

from math import prod

import numpy as np

from graphprune.targets.kernels.gather import Gather
from graphprune.targets.kernels.gemv import Gemv
from graphprune.targets.kernels.pairs import Pairs, packed
from graphprune.targets.network.graph import Node
from graphprune.targets.network.layout import Digit, NotMine, View, loops, merged, plain
from graphprune.targets.network.lowering import Lowering
from graphprune.targets.rules.contraction import weights_of
from graphprune.targets.rules.pointwise import Fused, call_fused, others_of, with_most_fused

DENSE = 0.8  # share of entries from which on the table costs more than it saves
LARGE = 1 << 15  # weights from which on half their bytes are worth a step that rounds x
FEW = 4  # rows up to which vectors lie along the outputs; more rows are a run of their own


def gather(at: Lowering, node: Node) -> None:
    """Gather of rows of a constant matrix by numbers that are computed."""
    table, index = node.inputs
    assert table is not None and index is not None
    if table.constant is None or table.constant.ndim != 2 or table.dtype != "float32":
        raise NotMine("not a constant matrix")
    if node.attributes.get("axis", 0) % 2 or index.dtype not in {"int64", "int32"}:
        raise NotMine("not its rows")
    where = at.of(index)
    value = node.outputs[0]
    rank = len(value.shape)
    order = (*range(rank - 2), rank - 1, rank - 2) if rank > 1 else (0,)
    y = at.scratch(value.shape, order)
    tokens = loops([where.axes, y.axes[:-1]])
    feature = y.axes[-1]
    kernel = Gather(
        tokens=plain(tokens),
        features=value.shape[-1],
        rows=table.shape[0],
        pitch=table.shape[1],
        feature=feature[0].stride if feature else 1,
        dtype=index.dtype,
        guarded=True,
    )
    at.call(kernel, [where, at.of(table), y], node, node.op)
    at.views[value] = y


def few(at: Lowering, node: Node) -> None:
    """MatMul and Gemm of a few rows with constant weights."""
    weights, bias = weights_of(node)
    x = node.inputs[0]
    assert x is not None
    rows = prod(x.shape[:-1])
    if rows > FEW:
        raise NotMine(f"{rows} rows")
    with_most_fused(at, node, (8, 2, 0), lambda found: emit(at, node, weights, bias, found))


def emit(at: Lowering, node: Node, weights: np.ndarray, bias: np.ndarray | None, found: Fused) -> None:
    """Few rows of tokens by sparse or dense weights, a vector of outputs at a time. Raises NotMine."""
    x = node.inputs[0]
    assert x is not None
    rows = prod(x.shape[:-1])
    flat = at.of(x)
    inputs = merged(flat.axes[-1])
    if flat.storage.kind != "scratch" or (inputs and (len(inputs) > 1 or inputs[0].stride != 1)):
        flat = at.copied_once(flat, range(len(x.shape)), node, "copy")
    value = found.value
    y = at.scratch(value.shape, tuple(range(len(value.shape))))
    others = others_of(at, found)
    around = loops([view.axes[:-1] for view in (flat, y, *others)])
    if len(around) > 1:
        raise NotMine("rows in pieces")
    strides = around[0].strides if around else (0,) * (2 + len(others))
    operands = []
    for index, view in enumerate(others):
        last = merged(view.axes[-1]) or [Digit(1, 0)]
        if len(last) > 1 or last[0].stride not in {0, 1}:
            raise NotMine("an operand does not lie along the outputs")
        operands.append((strides[2 + index], last[0].stride))
    arrays = columns(weights, at.machine.lanes)
    dense = len(arrays) == 1
    outputs, depth = weights.shape
    x_row, numbers = strides[0], "float32"
    if at.machine.pairs and dense and depth % 2 == 0 and weights.size >= LARGE:
        depth, numbers = depth // 2, "bfloat16"
        arrays = [grouped(words(weights), at.machine.lanes).transpose(0, 2, 1).reshape(-1)]
        flat, x_row = rounded(at, node, flat, (rows, depth), x_row)
    if bias is not None:
        arrays.append(np.asarray(bias, "float32"))
    kernel = Gemv(
        outputs=outputs,
        inputs=depth,
        rows=rows,
        x_row=x_row,
        y_row=strides[1],
        dense=dense,
        bias=bias is not None,
        epilogue=found.expression,
        operands=tuple(operands),
        numbers=numbers,
    )
    at.weights[node] = outputs * depth
    views: list[View] = [flat, *(at.constant(array) for array in arrays), *others, y]
    call_fused(at, node, found, kernel, views)


def words(weights: np.ndarray) -> np.ndarray:
    """Words of bfloat16: every input of the first half with that of the second."""
    outputs, depth = weights.shape
    return packed(weights.reshape(outputs, 2, depth // 2).transpose(0, 2, 1).reshape(outputs, depth))


def rounded(at: Lowering, node: Node, x: View, shape: tuple[int, int], row: int) -> tuple[View, int]:
    """The same words of rows of x, which lie `row` apart, and how far those lie apart."""
    rows, depth = shape
    view = at.scratch(shape, (0, 1), "int32")
    apart = view.axes[0][0].stride if rows > 1 else 0
    at.call(Pairs(depth, depth, ((rows, (row, apart)),)), [x, view], node, "round to bfloat16")
    return view, apart


def grouped(weights: np.ndarray, lanes: int) -> np.ndarray:
    """Weights as [group][lanes][entry], with zeros for outputs that do not exist."""
    outputs, depth = weights.shape
    groups = -(-outputs // lanes)
    padded = np.zeros((groups * lanes, depth), weights.dtype)
    padded[:outputs] = weights
    return padded.reshape(groups, lanes, depth)


def columns(weights: np.ndarray, lanes: int) -> list[np.ndarray]:
    """Weights as groups of `lanes` outputs, [group][entry][lanes]; where many entries have none, only those that are
    there, with their inputs and where the entries of each group begin."""
    blocks = grouped(weights, lanes)
    present = (blocks != 0).any(axis=1)
    if present.mean() > DENSE:
        return [np.ascontiguousarray(blocks.transpose(0, 2, 1)).reshape(-1)]
    group, column = np.nonzero(present)
    pointers = np.zeros(len(blocks) + 1, "int32")
    pointers[1:] = np.cumsum(np.bincount(group, minlength=len(blocks)))
    values = np.ascontiguousarray(blocks[group, :, column]).reshape(-1)
    if not values.size:
        values, column = np.zeros(lanes, "float32"), np.zeros(1, "int64")
    return [values, column.astype("int32"), pointers]
