"""Quantised operators: scales per tensor, per axis and per block, and products of integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.rules.laws import MICROSOFT, Operation, check

_random = np.random.default_rng(0)


def draw(*shape: int) -> np.ndarray:
    return _random.normal(size=shape).astype(np.float32)


def whole(*shape: int) -> np.ndarray:
    """Integers of eight bits with sign."""
    return _random.integers(-100, 100, shape).astype(np.int8)


def unsigned(*shape: int) -> np.ndarray:
    return _random.integers(0, 200, shape).astype(np.uint8)


def scale(*shape: int) -> np.ndarray:
    return _random.uniform(0.01, 0.02, shape).astype(np.float32)


ZERO, NONE = np.zeros((), np.int8), np.zeros((), np.uint8)


@pytest.mark.parametrize("shape", [(), (1,)])
def test_a_scale_per_tensor_ties_nothing(shape: tuple[int, ...]) -> None:
    zero = np.zeros(shape, np.int8)
    check(Operation("QuantizeLinear", [draw(4, 6), scale(*shape), zero]), {"x0:0", "x0:1"})
    check(Operation("DequantizeLinear", [whole(4, 6), scale(*shape), zero]), {"x0:0", "x0:1"})


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_a_scale_per_channel_follows_the_channels(axis: int) -> None:
    shape = (4, 6, 5)
    count = shape[axis]
    operation = Operation("DequantizeLinear", [whole(*shape), scale(count), np.zeros(count, np.int8)], axis=axis)
    checked = check(operation, {"x0:0", "x0:1", "x0:2"})
    assert [axis.size for axis in checked.inputs["x1"]] == [count]


def test_blocks_go_whole() -> None:
    operation = Operation("DequantizeLinear", [whole(4, 6), scale(4, 3), None], axis=1, block_size=2)
    checked = check(operation, {"x0:0", "x0:1"})
    assert sorted(leaf.size for leaf in checked.free()) == [3, 4]


def test_a_last_block_that_is_not_full_keeps_the_axis() -> None:
    check(Operation("DequantizeLinear", [whole(4, 5), scale(4, 3), None], axis=1, block_size=2), {"x0:0"})


def test_dynamic_quantisation_is_inexact() -> None:
    checked = check(Operation("DynamicQuantizeLinear", [draw(4, 6)], 3), {"x0:0", "x0:1"})
    assert set(checked.free()) == checked.analysis.inexact


def test_products_of_integers() -> None:
    check(
        Operation("MatMulInteger", [unsigned(5, 6), whole(6, 4), NONE, np.zeros(4, np.int8)]), {"x0:0", "x0:1", "x1:1"}
    )
    operands = [unsigned(5, 6), scale(), NONE, whole(6, 4), scale(4), np.zeros(4, np.int8), np.float32(0.5), NONE]
    check(Operation("QLinearMatMul", operands), {"x0:0", "x0:1", "x3:1"})


@pytest.mark.parametrize("groups", [1, 2])
def test_convolutions_of_integers(groups: int) -> None:
    x, w = unsigned(1, 4, 5, 5), whole(6, 4 // groups, 3, 3)
    free = {"x0:1", "x1:0"}
    check(Operation("ConvInteger", [x, w, NONE, ZERO], group=groups, pads=[1] * 4), free)
    bias = np.arange(6, dtype=np.int32)
    operands = [x, scale(), NONE, w, scale(6), np.zeros(6, np.int8), np.float32(0.3), NONE, bias]
    checked = check(Operation("QLinearConv", operands, group=groups, strides=[2, 2]), {"x0:1", "x3:0"})
    contraction = checked.analysis.contractions[-1]
    assert contraction.scale is not None and contraction.scale.index == 4


def test_packed_bits_of_blocks() -> None:
    inputs, outputs, block = 64, 6, 16
    packed = unsigned(outputs, inputs // block, block // 2)
    given: dict[str, Any] = {"K": inputs, "N": outputs, "bits": 4, "block_size": block}
    for shape in ((outputs, 4), (outputs * 4,)):
        operands = [draw(3, inputs), packed, scale(*shape)]
        checked = check(Operation("MatMulNBits", operands, domain=MICROSOFT, **given), {"x0:0", "x0:1", "x1:0"})
        assert sorted(leaf.size for leaf in checked.free()) == [3, 4, 6]
    zeros = unsigned(outputs, 2)
    check(Operation("MatMulNBits", [*operands, zeros.reshape(-1)], domain=MICROSOFT, **given), {"x0:0", "x1:0"})


X = (np.float32(0.02), NONE)
CONTRIB: list[tuple[str, list[Any], set[str], dict[str, Any]]] = [
    ("QLinearAdd", [unsigned(2, 3, 4), *X, unsigned(3, 1), *X, *X], {"x0:0", "x0:1", "x0:2"}, {}),
    ("QLinearMul", [unsigned(2, 3), *X, unsigned(2, 3), *X, *X], {"x0:0", "x0:1"}, {}),
    ("QLinearConcat", [*X, unsigned(2, 3), *X, unsigned(2, 4), *X], {"x2:0", "x2:1", "x5:1"}, {"axis": 1}),
    ("QLinearLeakyRelu", [unsigned(2, 3), *X, *X], {"x0:0", "x0:1"}, {}),
    ("QLinearSigmoid", [unsigned(2, 3), *X, *X], {"x0:0", "x0:1"}, {}),
    ("QLinearGlobalAveragePool", [unsigned(2, 3, 4, 5), *X, *X], {"x0:0", "x0:1", "x0:2", "x0:3"}, {}),
    ("QLinearAveragePool", [unsigned(2, 3, 4, 5), *X, *X], {"x0:0", "x0:1"}, {"kernel_shape": [2, 2]}),
    ("QLinearSoftmax", [unsigned(2, 3), *X, *X], {"x0:0"}, {"opset": 13, "axis": -1}),
    (
        "QGemm",
        [unsigned(5, 6), scale(), NONE, whole(4, 6), scale(4), np.zeros(4, np.int8), np.arange(4, dtype=np.int32)],
        {"x0:0", "x0:1", "x3:0"},
        {"transB": 1},
    ),
    ("DynamicQuantizeMatMul", [draw(5, 6), whole(6, 4), scale(4), None, draw(4)], {"x0:0", "x0:1", "x1:1"}, {}),
    (
        "MatMulIntegerToFloat",
        [unsigned(5, 6), whole(6, 4), scale(), scale(4), NONE, np.zeros(4, np.int8), draw(4)],
        {"x0:0", "x0:1", "x1:1"},
        {},
    ),
]


@pytest.mark.parametrize(("op", "operands", "free", "given"), CONTRIB, ids=[row[0] for row in CONTRIB])
def test_operators_of_onnxruntime(op: str, operands: list[Any], free: set[str], given: dict[str, Any]) -> None:
    check(Operation(op, operands, domain=MICROSOFT, **given), free)


def test_quantised_attention_ties_column_scales() -> None:
    heads, hidden = 2, 8
    columns = 3 * hidden
    operands = [
        unsigned(2, 5, 6),
        whole(6, columns),
        draw(columns),
        scale(),
        scale(columns),
        None,
        NONE,
        np.zeros(columns, np.int8),
    ]
    operation = Operation("QAttention", operands, domain=MICROSOFT, num_heads=heads)
    check(operation, {"x0:0", "x0:2", "x1:1"})
