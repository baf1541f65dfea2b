"""Two layers fitted together through an activation: exact where that can be, refused where it does not hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

import graphprune as gp
from graphprune.calibrate import Calibration
from graphprune.dialects import tools_of
from graphprune.recover import RECOVERIES
from graphprune.recover.gauss_newton import GaussNewton
from graphprune.recover.pair import Outcome, Pair
from tests.recover.networks import data, model, residual, stored
from tests.recover.test_recover import output_error, pair_of


def cut(network: Any, example: Any, name: str, kept: list[int], cases: list[Any]) -> Pair:
    """A network of which a group keeps some entries."""
    analysis = gp.analyze(network, example) if example is not None else gp.analyze(network)
    (group,) = [each for each in analysis.groups if name in {member.name for member in each.members}]
    keep = {group.dim: np.array(kept)}
    return Pair.of(analysis, keep, tools_of(analysis.program.native).write(analysis, keep), Calibration(cases))


def error_of(pair: Pair, recovery: str, cases: list[Any], **options: Any) -> tuple[float, tuple[Outcome, ...]]:
    """The error of the outputs on other data, after a recovery."""
    made = RECOVERIES.load(recovery)(**options).run(pair)
    native = pair.dense.program.native
    better = tools_of(native).with_stored(pair.small.program, made.arrays)
    return output_error(native, better, cases), made.outcomes


# ---------------------------------------------------------------- an exact solution exists
# The inputs 2k and 2k + 1 have the same sign, so that relu(a) + relu(b) = relu(a + b): two channels can become one, if
# the weights *in front* of the activation change. Behind it nothing can be done: neither channel tells the other.


def same_signs(rng: np.random.Generator, *shape: int) -> np.ndarray:
    sizes = rng.uniform(0.1, 2, (shape[0], 6, *shape[1:]))
    signs = rng.choice([-1, 1], (shape[0], 3)).repeat(2, axis=1)
    found: np.ndarray = (sizes * signs.reshape(shape[0], 6, *[1] * len(shape[1:]))).astype(np.float32)
    return found


def planted() -> ir.Model:
    rng = np.random.default_rng(0)
    last = np.repeat(rng.standard_normal((3, 4)), 2, axis=0).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "last"], ["y"]),
    ]
    first = numpy_helper.from_array(np.eye(6, dtype=np.float32), "first")
    return model(nodes, [first, numpy_helper.from_array(last, "last")], ("n", 6))


class Planted(nn.Module):
    """The same with windows, a BatchNorm, and a residual connection."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(6, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.last = nn.Conv2d(6, 6, 3, padding=1, bias=False)
        with torch.no_grad():
            window = torch.rand(3, 1, 3, 3).repeat_interleave(2, 0)
            self.first.weight.copy_(window * torch.eye(6).reshape(6, 6, 1, 1))
            self.norm.weight.copy_(torch.tensor([0.7, 0.7, 1.5, 1.5, 0.3, 0.3]))
            self.norm.running_var.uniform_(1, 1).mul_(4)  # type: ignore[union-attr]
            self.last.weight.copy_(torch.randn(6, 3, 3, 3).repeat_interleave(2, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.last(torch.relu_(self.norm(self.first(x)))) + x
        return out


def test_two_channels_become_one_exactly_onnx() -> None:
    rng = np.random.default_rng(1)
    cases, others = [[{"x": same_signs(rng, 64)} for _ in range(count)] for count in (6, 2)]
    pair = cut(planted(), None, "first:1", [0, 2, 4], cases)
    options = {"ridge": 1e-8, "steps": 20, "directions": 10}
    behind, _ = error_of(pair, "least_squares", others, ridge=1e-8)
    through, outcomes = error_of(pair, "gauss_newton", others, **options)
    assert behind > 1e-2
    assert through < 1e-5
    assert any(each.layer == "first" and each.applied for each in outcomes)


def test_two_channels_become_one_exactly_torch() -> None:
    rng = np.random.default_rng(1)
    cases, others = [[((torch.from_numpy(same_signs(rng, 16, 7, 7)),), {}) for _ in range(count)] for count in (6, 2)]
    pair = cut(Planted().eval(), cases[0][0][0], "first.weight:0", [1, 3, 5], cases)
    behind, _ = error_of(pair, "least_squares", others, ridge=1e-8)
    through, _ = error_of(pair, "gauss_newton", others, ridge=1e-8, steps=20, directions=10)
    assert behind > 1e-2
    assert through < 1e-4


# ---------------------------------------------------------------- what is held out decides
def shallow(op: str = "Relu") -> ir.Model:
    """Two layers, the first of which reads the input: least squares has nothing to do for it."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["h"]),
        helper.make_node(op, ["h"], ["r"], name="activation"),
        helper.make_node("MatMul", ["r", "last"], ["y"]),
    ]
    return model(nodes, [stored(rng, "first", 20, 12), stored(rng, "last", 12, 5)], ("n", 20))


def noise(count: int, size: int) -> list[dict[str, np.ndarray]]:
    return [{"x": np.random.default_rng(k).standard_normal((size, 20)).astype(np.float32)} for k in range(count)]


@pytest.mark.parametrize(("size", "applied"), [(3, False), (400, True)])
def test_a_step_that_does_not_hold_on_other_data_is_not_taken(size: int, applied: bool) -> None:
    """Nine samples cannot tell 240 weights apart: what fits them is worse for others. 1,600 can."""
    made = GaussNewton(ridge=1e-12, damping=1e-9).run(pair_of(shallow(), 0.5, noise(4, size)))
    (first,) = [each for each in made.outcomes if each.layer == "first"]
    assert first.applied == applied == ("first" in made.arrays)
    assert ("GP705" in first.note) != applied
    assert first.after < first.before or not applied


# ---------------------------------------------------------------- what it can and cannot express
@pytest.mark.parametrize("op", ["Relu", "Gelu", "Sigmoid", "HardSwish"])
def test_it_is_closer_than_least_squares_through(op: str) -> None:
    dense = shallow(op)
    dense.graph.opset_imports[""] = 20
    pair = pair_of(dense, 0.4, noise(6, 200))
    behind, _ = error_of(pair, "least_squares", noise(2, 311))
    through, outcomes = error_of(pair, "gauss_newton", noise(2, 311))
    assert through < 0.95 * behind
    assert all(each.applied for each in outcomes if each.layer == "first")


def test_what_has_no_slope_is_left_to_least_squares() -> None:
    pair = pair_of(shallow("Sin"), 0.4, cases := noise(6, 50))
    through, outcomes = error_of(pair, "gauss_newton", cases)
    (left,) = [each for each in outcomes if not each.applied]
    assert left.layer == "last"
    assert "GP706" in left.note and "Sin activation" in left.note
    assert through == error_of(pair, "least_squares", cases)[0]


def test_a_result_that_others_read_is_left_alone() -> None:
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "last"], ["y"]),
        helper.make_node("MatMul", ["r", "other"], ["z"]),
    ]
    tensors = [stored(rng, "first", 20, 12), stored(rng, "last", 12, 5), stored(rng, "other", 12, 5)]
    network = model(nodes, tensors, ("n", 20))
    made = GaussNewton().run(pair_of(network, 0.4, noise(4, 50)))
    assert "first" not in made.arrays
    assert {"last", "other"} <= set(made.arrays)
    assert sum("GP706" in each.note and "read by others" in each.note for each in made.outcomes) == 2


def test_an_activation_written_out_in_small_steps() -> None:
    """GELU as exporters write it: divided, erf, one more, times the input, halved."""
    rng = np.random.default_rng(0)
    constants = {"root": np.sqrt(2), "one": 1.0, "half": 0.5}
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["m"]),
        helper.make_node("Add", ["m", "bias"], ["h"]),
        helper.make_node("Div", ["h", "root"], ["d"]),
        helper.make_node("Erf", ["d"], ["e"]),
        helper.make_node("Add", ["e", "one"], ["p"]),
        helper.make_node("Mul", ["h", "p"], ["t"]),
        helper.make_node("Mul", ["t", "half"], ["g"]),
        helper.make_node("MatMul", ["g", "last"], ["y"]),
    ]
    tensors = [stored(rng, "first", 20, 12), stored(rng, "bias", 12, scale=0.5), stored(rng, "last", 12, 5)]
    tensors += [numpy_helper.from_array(np.array(each, np.float32), name) for name, each in constants.items()]
    pair = pair_of(model(nodes, tensors, (None, 5, 20)), 0.4, [{"x": c["x"].reshape(-1, 5, 20)} for c in noise(6, 200)])
    made = GaussNewton().run(pair)
    assert {"first", "bias", "last"} <= set(made.arrays)
    assert all(each.applied for each in made.outcomes)


@pytest.mark.parametrize("biases", [True, False])
def test_residual_blocks_come_closer_than_by_least_squares(biases: bool) -> None:
    pair = pair_of(residual(biases), 0.4, data(12, 32))
    behind, _ = error_of(pair, "least_squares", data(seed=1))
    through, _ = error_of(pair, "gauss_newton", data(seed=1))
    assert through < behind


def test_grouped_layers() -> None:
    """A depthwise convolution between two others: its channels are groups, and each is its own couple."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["h"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Conv", ["r", "d"], ["k"], group=12, pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("LeakyRelu", ["k"], ["q"]),
        helper.make_node("Conv", ["q", "b"], ["y"]),
    ]
    tensors = [stored(rng, "a", 12, 3, 3, 3), stored(rng, "d", 12, 1, 3, 3), stored(rng, "b", 5, 12, 1, 1)]
    pair = pair_of(model(nodes, tensors, ("n", 3, 8, 8)), 0.4, data(12, 32))
    behind, _ = error_of(pair, "least_squares", data(seed=1))
    through, outcomes = error_of(pair, "gauss_newton", data(seed=1))
    assert through < behind
    assert any(each.layer == "d" and each.applied for each in outcomes)


def test_one_batch_is_split() -> None:
    made = GaussNewton().run(pair_of(shallow(), 0.4, noise(1, 800)))
    assert "first" in made.arrays


def test_nothing_cut_changes_nothing() -> None:
    made = GaussNewton().run(pair_of(residual(), 0.0, data()))
    assert made.arrays == {} and made.outcomes == ()


def test_what_was_not_fitted_together_is_told_apart() -> None:
    result = gp.prune(shallow("Sin"), ratio=0.4, calibration=noise(6, 50), recover="gauss_newton")
    (note,) = [each for each in result.report.notes if each.startswith("gauss_newton")]
    assert "1 of 1 fits applied" in note and "1 layers fitted by themselves: last: GP706" in note
    assert "left as they were" not in note


def test_curvature_of_every_second_case_stands_for_all() -> None:
    """Where cases come in pairs that are the same, it is the same."""
    first, second, held = data(3)
    doubled = [first, first, second, second, held]
    pairs = [pair_of(residual(), 0.4, doubled) for _ in range(3)]
    every, some = (GaussNewton(thin=thin).run(pair) for thin, pair in zip((1, 2), pairs, strict=False))
    assert [each.applied for each in every.outcomes] == [each.applied for each in some.outcomes]
    for one, two in zip(every.outcomes, some.outcomes, strict=True):
        np.testing.assert_allclose(two.after, one.after, rtol=1e-3)
    other = GaussNewton(thin=4).run(pairs[2])
    gaps = [abs(a.after / b.after - 1) for a, b in zip(every.outcomes, other.outcomes, strict=True) if a.applied]
    assert max(gaps) > 1e-3


def test_it_is_deterministic() -> None:
    first, again = (GaussNewton().run(pair_of(residual(), 0.4, data())).arrays for _ in range(2))
    assert first.keys() == again.keys()
    assert all(array.tobytes() == again[name].tobytes() for name, array in first.items())
