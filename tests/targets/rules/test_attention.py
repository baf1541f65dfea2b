"""Products of two activations, and attention: scores, masks, softmax and values, with heads as strides."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tvm")

from graphprune.targets.kernels.tir import Machine
from tests.targets.network.harness import MACHINES, check
from tests.targets.network.net import Net

SIZES = [1, 2, 3, 7, 8, 15, 16, 17, 33]
BATCHES = [((), ()), ((2,), (2,)), ((2, 3), (2, 3)), ((1, 3), (2, 1)), ((3,), ()), ((), (2, 3)), ((4, 1), (1, 2))]


@settings(max_examples=45, deadline=None, derandomize=True)
@given(
    machine=st.sampled_from(MACHINES),
    batch=st.sampled_from(BATCHES),
    sizes=st.tuples(*[st.sampled_from(SIZES)] * 3),
    turned=st.tuples(st.booleans(), st.booleans()),
    before=st.tuples(*[st.sampled_from([None, "Relu"])] * 2),
    behind=st.lists(st.sampled_from(["number", "Relu", "row", "residual", "softmax"]), max_size=3),
)
def test_products(
    machine: Machine, batch: tuple[tuple[int, ...], tuple[int, ...]], sizes: tuple[int, int, int],
    turned: tuple[bool, bool], before: tuple[str | None, str | None], behind: list[str],
) -> None:  # fmt: skip
    """Batches are broadcast; what is turned lies as [columns, rows]."""
    net = Net()
    rows, inner, columns = sizes
    a = side(net, (*batch[0], rows, inner), turned[0], before[0])
    b = side(net, (*batch[1], inner, columns), turned[1], before[1])
    shape = (*np.broadcast_shapes(*batch), rows, columns)
    others = {"row": net.op("Abs", net.input(columns)), "residual": net.op("Abs", net.input(*shape))}
    y = net.op("MatMul", a, b)
    for kind in behind:
        if kind == "number":
            y = net.op("Mul", y, net.constant(0.125, "float32"))
        elif kind == "softmax":
            y = net.op("Softmax", y, axis=-1)
        else:
            y = net.op("Add", y, others[kind]) if kind in others else net.op(kind, y)
    check(net.model(y), machine)


def side(net: Net, shape: tuple[int, ...], turned: bool, before: str | None) -> str:
    x = net.input(*(shape[:-2] + shape[:-3:-1] if turned else shape))
    x = net.op(before, x) if before else x
    order = [*range(len(shape) - 2), len(shape) - 1, len(shape) - 2]
    return net.op("Transpose", x, perm=order) if turned else x


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    machine=st.sampled_from(MACHINES),
    batch=st.sampled_from([1, 1, 2]),
    tokens=st.sampled_from([1, 2, 7, 16, 17, 33]),
    heads=st.sampled_from([1, 2, 3]),
    width=st.sampled_from([1, 4, 5, 16]),
    shared=st.sampled_from(["apart", "joined", "grouped"]),
    mask=st.sampled_from([None, "number", "row", "whole", "where"]),
    keys=st.sampled_from(["transposed", "split"]),
    other=st.sampled_from([None, 1, 5]),
)
def test_attention(
    machine: Machine, batch: int, tokens: int, heads: int, width: int, shared: str, mask: str | None, keys: str,
    other: int | None,
) -> None:  # fmt: skip
    """Heads beside features; keys and values of the tokens themselves or of others, one product for all three or three,
    with fewer heads of keys than of queries or as many."""
    net = Net()
    dim, kept = heads * width, width if shared == "grouped" else heads * width
    x = net.op("LayerNormalization", net.input(batch, tokens, dim), net.weight(dim), net.weight(dim))
    context = x if other is None else net.op("Relu", net.input(batch, other, dim))
    length = tokens if other is None else other
    if shared == "joined" and other is None:
        joined = net.op("Add", net.op("MatMul", x, net.weight(dim, 3 * dim)), net.weight(3 * dim))
        q, k, v = net.ops("Split", joined, net.numbers(dim, dim, dim), outputs=3, axis=2)
    else:
        q = net.op("Add", net.op("MatMul", x, net.weight(dim, dim)), net.weight(dim))
        k = net.op("MatMul", context, net.weight(dim, kept))
        v = net.op("Add", net.op("MatMul", context, net.weight(dim, kept)), net.weight(kept))
    q = by_head(net, q, (batch, tokens, heads, width), [0, 2, 1, 3])
    few = kept // width
    v = by_head(net, v, (batch, length, few, width), [0, 2, 1, 3])
    if keys == "transposed":
        k = by_head(net, k, (batch, length, few, width), [0, 2, 3, 1])
    else:
        k = net.op("Transpose", by_head(net, k, (batch, length, few, width), [0, 2, 1, 3]), perm=[0, 1, 3, 2])
    scores = net.op("Mul", net.op("MatMul", q, k), net.constant(width**-0.5, "float32"))
    scores = masked(net, mask, scores, (batch, heads, tokens, length))
    y = net.op("MatMul", net.op("Softmax", scores, axis=-1), v)
    y = net.op("Reshape", net.op("Transpose", y, perm=[0, 2, 1, 3]), net.numbers(batch, tokens, dim))
    y = net.op("Add", x, net.op("Add", net.op("MatMul", y, net.weight(dim, dim)), net.weight(dim)))
    check(net.model(y), machine)


def by_head(net: Net, x: str, shape: tuple[int, int, int, int], order: list[int]) -> str:
    return net.op("Transpose", net.op("Reshape", x, net.numbers(*shape)), perm=order)


def masked(net: Net, mask: str | None, scores: str, shape: tuple[int, int, int, int]) -> str:
    if mask == "where":
        hidden = net.generator.random((1, 1, *shape[2:])) < 0.3
        return net.op("Where", net.constant(hidden), net.constant(-1e4, "float32"), scores)
    sizes = {"number": (), "row": (shape[0], 1, 1, shape[3]), "whole": (1, 1, shape[2], shape[3])}
    if mask is None:
        return scores
    added = net.input(*sizes[mask]) if mask == "row" else net.weight(*sizes[mask])
    return net.op("Add", scores, net.op("Mul", added, net.constant(2.0, "float32")) if mask == "row" else added)


def test_a_product_with_itself() -> None:
    net = Net()
    x = net.op("Relu", net.input(2, 9, 5))
    check(net.model(net.op("MatMul", x, net.op("Transpose", x, perm=[0, 2, 1]))))


def test_two_readers_of_scores() -> None:
    """What is behind a product joins it only where nobody else needs the product."""
    net = Net()
    a, b = (net.op("Relu", net.input(2, 6, 6)) for _ in range(2))
    y = net.op("MatMul", a, b)
    half = net.op("Mul", y, net.constant(0.5, "float32"))
    check(net.model(net.op("Softmax", half, axis=-1), net.op("Add", y, half), half))
