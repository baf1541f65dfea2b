"""Weights are moved by their rounding errors wherever a file keeps them."""

import numpy as np
import onnx_ir as ir
import pytest
from onnx import parser

from graphprune.dialects.onnx.tools import ONNX
from graphprune.verify import difference


@pytest.mark.parametrize(
    "text",
    [
        "y = MatMul (x, first)",
        "held = Constant <value = float[5, 3] {NUMBERS}> () y = MatMul (x, held)",
        "condition = Constant <value = bool {1}> () y = If (condition) <"
        "then_branch = then () => (float[N, 3] a) <float[5, 3] w = {NUMBERS}> { a = MatMul (x, w) }, "
        "else_branch = other () => (float[N, 3] b) "
        "{ v = Constant <value = float[5, 3] {NUMBERS}> () b = MatMul (x, v) }>",
        "y = own.Product (x)",
    ],
    ids=["initializer", "Constant", "body", "function"],
)
def test_conditioning_is_seen_wherever_weights_are_stored(text: str) -> None:
    numbers = "{" + ", ".join(f"{number:.7f}" for number in np.random.default_rng(0).standard_normal(15)) + "}"
    parsed = parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 21, "own" : 1]>
        stored (float[N, 5] x) => (float[N, 3] y) <float[5, 3] first = {NUMBERS}> { BODY }
        <domain: "own", opset_import: ["" : 21]>
        Product (x) => (y) { w = Constant <value = float[5, 3] {NUMBERS}> () y = MatMul (x, w) }
        """.replace("BODY", text).replace("{NUMBERS}", numbers)
    )
    dense = ir.serde.deserialize_model(parsed)
    case = {"x": np.ones((2, 5), np.float32)}
    moved = difference(*(ONNX.runner(each)(case)[0] for each in (dense, ONNX.jittered(dense, 0))))
    assert 0.0 < moved < 1e-5
