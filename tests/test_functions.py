"""Functions of one entry: values are those of the runtimes, slopes those of differences, in both dialects."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

import graphprune as gp
from graphprune.analysis import Analysis
from graphprune.dialects import tools_of
from graphprune.functions import CONSTANT_SECOND, FUNCTIONS, Dual, Place, erf
from graphprune.program import Node
from tests.recover.networks import model

POINTS = np.linspace(-7, 7, 1408, dtype=np.float32)
CORNERS = 8
"""The most of these points that may lie at the corners of a function, where there is no slope to compare with."""


def called(analysis: Analysis, node: Node, points: np.ndarray) -> Dual:
    """What our function makes of an operator; stored operands as they are."""
    dialect = analysis.program.dialect
    function = dialect.function(node)
    assert function is not None, node
    operands = []
    for each in function.operands:
        value = node.inputs[each.index] if isinstance(each, Place) else None
        constant = None if value is None else dialect.constant(value)
        number = each if value is None else constant
        operands.append(Dual(points, 1.0) if isinstance(each, Place) and constant is None else Dual(number))
    found: Dual = FUNCTIONS[function.name](*operands, **function.numbers)
    return found


def check(analysis: Analysis, node: Node, expected: np.ndarray) -> None:
    """The value is that of the runtime; the slope that of our values in double precision."""
    exact, step = POINTS.astype(np.float64), 1e-5
    found = called(analysis, node, exact)
    assert np.allclose(found.value, expected, rtol=2e-5, atol=2e-5)
    left, right = (np.asarray(called(analysis, node, exact + each).value) for each in (-step, step))
    below, above = (found.value - left) / step, (right - found.value) / step
    smooth = np.abs(above - below) < 1e-2 * np.maximum(1, np.abs(above))
    assert (~smooth).sum() <= CORNERS
    slope = np.broadcast_to(np.asarray(found.slope, np.float64), exact.shape)
    assert np.allclose(slope[smooth], ((above + below) / 2)[smooth], rtol=1e-2, atol=1e-3)


OPERATORS: list[tuple[str, dict[str, Any], dict[str, float]]] = [
    ("Relu", {}, {}), ("LeakyRelu", {"alpha": 0.3}, {}), ("LeakyRelu", {}, {}), ("Elu", {"alpha": 0.7}, {}),
    ("Celu", {"alpha": 1.5}, {}), ("Selu", {}, {}), ("Sigmoid", {}, {}), ("Tanh", {}, {}), ("Erf", {}, {}),
    ("Exp", {}, {}), ("Softplus", {}, {}), ("Mish", {}, {}), ("Gelu", {}, {}), ("Gelu", {"approximate": "tanh"}, {}),
    ("HardSigmoid", {"alpha": 0.3, "beta": 0.4}, {}), ("HardSigmoid", {}, {}), ("HardSwish", {}, {}), ("Abs", {}, {}),
    ("Neg", {}, {}), ("Identity", {}, {}), ("Clip", {}, {"low": -1.25, "high": 2.5}), ("Mul", {}, {"c": 0.7}),
    ("Add", {}, {"c": 0.7}), ("Sub", {}, {"c": 0.7}), ("Div", {}, {"c": 0.7}), ("PRelu", {}, {"c": 0.2}),
    ("Pow", {}, {"c": 3.0}),
]  # fmt: skip


@pytest.mark.parametrize(("op", "attributes", "constants"), OPERATORS)
def test_onnx_operators(op: str, attributes: dict[str, Any], constants: dict[str, float]) -> None:
    node = helper.make_node(op, ["x", *constants], ["y"], **attributes)
    tensors = [numpy_helper.from_array(np.array(each, np.float32), name) for name, each in constants.items()]
    network = model([node], tensors, (len(POINTS),))
    network.graph.opset_imports[""] = 20
    analysis = gp.analyze(network)
    (expected,) = tools_of(network).runner(network)({"x": POINTS})
    check(analysis, analysis.program.main.nodes[0], expected)


NAMES = """relu relu6 leaky_relu elu celu selu sigmoid tanh softplus mish gelu silu hardswish hardsigmoid hardtanh"""
MODULES = {each: getattr(nn.functional, each) for each in NAMES.split()} | {
    "gelu tanh": lambda x: nn.functional.gelu(x, approximate="tanh"),
    "leaky_relu 0.3": lambda x: nn.functional.leaky_relu(x, 0.3),
    "elu 0.7": lambda x: nn.functional.elu(x, 0.7),
    "softplus 2": lambda x: nn.functional.softplus(x, 2.0),
    "clamp": lambda x: x.clamp(-1.25, 2.5),
    "clamp below": lambda x: x.clamp(min=0.3),
    "in place": lambda x: torch.relu_(x + 0.0),
    "number": lambda x: x * 0.7,
    "erf": torch.erf,
    "square": torch.square,
    "abs": torch.abs,
}


class Called(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.function(x)
        return out


@pytest.mark.parametrize("name", sorted(MODULES))
def test_aten_operators(name: str) -> None:
    points = torch.from_numpy(POINTS)
    analysis = gp.analyze(Called(MODULES[name]).eval(), points)
    node = analysis.program.main.nodes[-1]
    check(analysis, node, MODULES[name](points).numpy())


@pytest.mark.parametrize("name", ["sqrt", "power"])
def test_those_of_positive_numbers(name: str) -> None:
    points = np.linspace(0.5, 4, 50)
    others = [Dual(1.7)] if name in CONSTANT_SECOND else []
    found = FUNCTIONS[name](Dual(points, 1.0), *others)
    moved = FUNCTIONS[name](Dual(points + 1e-6, 1.0), *others)
    assert np.allclose((moved.value - found.value) / 1e-6, found.slope, rtol=1e-4)


def test_a_product_of_two_functions_of_the_same_entry() -> None:
    x = Dual(POINTS.astype(np.float64), 1.0)
    made, known = FUNCTIONS["mul"](x, FUNCTIONS["sigmoid"](x)), FUNCTIONS["silu"](x)
    assert np.allclose(made.value, known.value) and np.allclose(made.slope, known.slope)
    ratio = FUNCTIONS["div"](FUNCTIONS["square"](x), FUNCTIONS["add"](x, Dual(20.0)))
    points = np.asarray(x.value)
    assert np.allclose(ratio.slope, (points**2 + 40 * points) / (points + 20) ** 2)


def test_the_error_function() -> None:
    assert np.abs(erf(POINTS.astype(np.float64)) - [math.erf(each) for each in POINTS]).max() < 2e-7


@pytest.mark.parametrize("op", ["Sin", "Softmax", "Ceil"])
def test_others_are_not_taken_for_functions_with_a_slope(op: str) -> None:
    network = model([helper.make_node(op, ["x"], ["y"])], [], (4, 5))
    analysis = gp.analyze(network)
    assert analysis.program.dialect.function(analysis.program.main.nodes[0]) is None
