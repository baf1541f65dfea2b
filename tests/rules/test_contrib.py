"""Operators that onnxruntime's optimizer fuses: norms with residuals and embeddings, products with activations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.rules.laws import MICROSOFT, Operation, check

_random = np.random.default_rng(0)


def draw(*shape: int) -> np.ndarray:
    return _random.normal(size=shape).astype(np.float32)


IDS = np.array([[0, 3, 5, 1], [2, 2, 0, 4]], np.int32)
ROWS: list[tuple[str, list[Any], int, set[str], dict[str, Any]]] = [
    ("Gelu", [draw(2, 3)], 1, {"x0:0", "x0:1"}, {}),
    ("QuickGelu", [draw(2, 3)], 1, {"x0:0", "x0:1"}, {}),
    ("BiasGelu", [draw(2, 3), draw(3)], 1, {"x0:0", "x0:1"}, {}),
    ("FastGelu", [draw(2, 3), draw(3)], 1, {"x0:0", "x0:1"}, {}),
    ("FusedMatMul", [draw(6, 5), draw(4, 6)], 1, {"x0:0", "x0:1", "x1:0"}, {"transA": 1, "transB": 1, "alpha": 0.5}),
    ("FusedGemm", [draw(5, 6), draw(4, 6), draw(4)], 1, {"x0:0", "x0:1", "x1:0"}, {"transB": 1, "activation": "Relu"}),
    (
        "FusedConv",
        [draw(1, 4, 5, 5), draw(6, 2, 3, 3), draw(6), draw(1, 6, 3, 3)],
        1,
        {"x0:1", "x1:0"},
        {"group": 2, "activation": "Relu"},
    ),
    (
        "SkipLayerNormalization",
        [draw(2, 5, 6), draw(2, 5, 6), draw(6), draw(6), draw(6)],
        1,
        {"x0:0", "x0:1", "x0:2"},
        {},
    ),
    ("SkipSimplifiedLayerNormalization", [draw(2, 5, 6), draw(2, 5, 6), draw(6)], 1, {"x0:0", "x0:1", "x0:2"}, {}),
    (
        "EmbedLayerNormalization",
        [IDS, np.zeros_like(IDS), draw(7, 6), draw(9, 6), draw(2, 6), draw(6), draw(6)],
        2,
        {"x0:0", "x2:1"},  # positions are counted, so the sequence stays
        {},
    ),
]


@pytest.mark.parametrize(("op", "operands", "outputs", "free", "given"), ROWS, ids=[row[0] for row in ROWS])
def test_fused_operators(op: str, operands: list[Any], outputs: int, free: set[str], given: dict[str, Any]) -> None:
    check(Operation(op, operands, outputs, domain=MICROSOFT, **given), free)


def test_simplified_norm_stands_in_the_standard_domain() -> None:
    check(Operation("SimplifiedLayerNormalization", [draw(2, 6), draw(6)], version=17), {"x0:0", "x0:1"})
