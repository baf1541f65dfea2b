"""MatMul and Gemm with constant weights, of every size, format and form, and with what is fused into them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tvm")

from graphprune.formats import parse
from graphprune.targets.kernels.tir import Kernel, Machine
from graphprune.targets.network.layout import Storage, View
from graphprune.targets.network.tune import Times
from tests.execution import feeds
from tests.targets.network.harness import MACHINES, built, check, compare
from tests.targets.network.net import Net

BATCHES = [(), (1,), (2,), (3, 2), (1, 4)]
ROWS = [1, 1, 2, 4, 5, 8, 17, 33]
INNER = [1, 2, 5, 16, 37, 64]
OUTPUTS = [1, 2, 3, 7, 8, 15, 16, 17, 32, 50]
BEHIND = ["bias", "Relu", "Sigmoid", "Gelu", "residual", "gate", "scale", "norm", "number", "column"]
FORMATS = ["unstructured", "2:4", "1:4", "2:4/4", "1:8/8", "4x1", "8x1", "16x1", "16x16", "balanced/32", "tile/64"]


@settings(max_examples=45, deadline=None, derandomize=True)
@given(
    machine=st.sampled_from(MACHINES),
    batch=st.sampled_from(BATCHES),
    rows=st.sampled_from(ROWS),
    inner=st.sampled_from(INNER),
    outputs=st.sampled_from(OUTPUTS),
    density=st.sampled_from([1.0, 0.3, 0.05, 0.0]),
    behind=st.lists(st.sampled_from(BEHIND), max_size=3),
    before=st.sampled_from([None, "Relu", "turned"]),
    seed=st.integers(0, 99),
)
def test_matmul(
    machine: Machine, batch: tuple[int, ...], rows: int, inner: int, outputs: int, density: float,
    behind: list[str], before: str | None, seed: int,
) -> None:  # fmt: skip
    net = Net(opset=20, seed=seed)
    sides = [beside(net, kind, (*batch, rows, outputs)) for kind in behind]
    y = net.op("MatMul", given_as(net, before, (*batch, rows, inner)), matrix(net, inner, outputs, density))
    for kind, side in zip(behind, sides, strict=True):
        y = appended(net, kind, y, outputs, side)
    check(net.model(y), machine)


def matrix(net: Net, inner: int, outputs: int, density: float = 1.0) -> str:
    """Weights of a MatMul: numbers that keep the variance, some of them zero."""
    array = net.generator.standard_normal((inner, outputs)) / inner**0.5
    return net.constant(array * (net.generator.random(array.shape) < density), "float32")


def given_as(net: Net, before: str | None, shape: tuple[int, ...]) -> str:
    """The user's tensor, one of our own, or one whose last axes lie the other way round."""
    if before == "turned":
        x = net.op("Relu", net.input(*shape[:-2], shape[-1], shape[-2]))
        return net.op("Transpose", x, perm=[*range(len(shape) - 2), len(shape) - 1, len(shape) - 2])
    x = net.input(*shape)
    return net.op(before, x) if before else x


def beside(net: Net, kind: str | None, shape: tuple[int, ...]) -> str:
    """What a sum or product behind a layer reads that was made before it."""
    if kind == "column":
        shape = (*shape[:-1], 1)
    return net.op("Abs", net.input(*shape)) if kind in {"residual", "column"} else ""


def appended(net: Net, kind: str, y: str, outputs: int, side: str) -> str:
    match kind:
        case "bias":
            return net.op("Add", net.weight(outputs), y)
        case "residual":
            return net.op("Add", y, side)
        case "column":
            return net.op("Mul", side, y)
        case "gate":
            return net.op("Mul", net.op("Sigmoid", y), y)
        case "scale":
            return net.op("Mul", y, net.constant(net.generator.uniform(0.5, 1.5, outputs), "float32"))
        case "norm":
            return net.op("LayerNormalization", y, net.weight(outputs), net.weight(outputs))
        case "number":
            return net.op("Sub", net.constant(0.5, "float32"), y)
    return net.op(kind, y)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    machine=st.sampled_from(MACHINES),
    rows=st.sampled_from(ROWS),
    inner=st.sampled_from(INNER),
    outputs=st.sampled_from(OUTPUTS),
    turned=st.tuples(st.booleans(), st.booleans()),
    factors=st.tuples(st.sampled_from([None, 1.0, 0.5]), st.sampled_from([None, 1.0, -2.0])),
    bias=st.sampled_from([None, "row", "number", "wide", "matrix", "computed"]),
    behind=st.sampled_from([None, "Relu", "residual", "gate"]),
    density=st.sampled_from([1.0, 0.2, 0.0]),
)
def test_gemm(
    machine: Machine, rows: int, inner: int, outputs: int, turned: tuple[bool, bool],
    factors: tuple[float | None, float | None], bias: str | None, behind: str | None, density: float,
) -> None:  # fmt: skip
    net = Net()
    weights = matrix(net, *((outputs, inner) if turned[1] else (inner, outputs)), density)
    shapes = {"row": (outputs,), "number": (), "wide": (1, outputs), "matrix": (rows, outputs)}
    added = None if bias is None else net.input(outputs) if bias == "computed" else net.weight(*shapes[bias])
    attributes: dict[str, Any] = {"transA": int(turned[0]), "transB": int(turned[1])}
    attributes |= {name: value for name, value in zip(("alpha", "beta"), factors, strict=True) if value is not None}
    x = net.input(*((inner, rows) if turned[0] else (rows, inner)))
    side = beside(net, behind, (rows, outputs))
    y = net.op("Gemm", x, weights, *([added] if added else []), **attributes)
    y = appended(net, behind, y, outputs, side) if behind else y
    model = net.model(y)
    compare(built(model, machine), [feeds(model, seed=seed) for seed in (0, 1)])


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("rows", [1, 40])
def test_every_format(name: str, rows: int) -> None:
    net = Net()
    kept = parse(name)
    array = net.generator.standard_normal((96, 128))
    array *= kept.project(np.abs(array), None if kept.sparsity is not None else 0.8)
    y = net.op("MatMul", net.input(rows, 128), net.constant(array.T, "float32"))
    network = check(net.model(net.op("Relu", y)))
    weights = [call.views[1].storage for call in network.lowered.calls if call.node in network.lowered.weights]
    stored = sum(network.lowered.constants[storage].size for storage in weights if storage.kind == "constant")
    assert np.count_nonzero(array) <= stored
    few = rows > 1 and np.count_nonzero(array) < 0.4 * array.size  # else ignoring zeros may well be faster
    assert stored < array.size or not few, "its zeros are not made use of"


@dataclass
class Chosen:
    """In place of measurements: the form with this number, counted over."""

    number: int
    seen: list[int] = field(default_factory=list)

    def best(
        self,
        signature: tuple[int, ...],
        kernels: Sequence[Kernel],
        full: Sequence[bool],
        views: Callable[[], Sequence[Sequence[View]]],
        constants: Mapping[Storage, np.ndarray],
    ) -> tuple[int, Times]:
        assert len(views()) == len(kernels) == len(full)
        self.seen.append(len(kernels))
        return self.number % len(kernels), Times(1.0, None)


@pytest.mark.parametrize("machine", MACHINES[::3], ids=str)
@pytest.mark.parametrize("number", range(9))
def test_every_form_of_a_product_is_right(machine: Machine, number: int) -> None:
    """What is measured to be the fastest may be any of them."""
    net = Net(seed=number)
    x = net.op("Relu", net.input(21, 1030))
    y = net.op("Relu", net.op("MatMul", x, matrix(net, 1030, 26, 0.1)))
    y = net.op("Add", net.op("MatMul", y, matrix(net, 26, 23, 0.5)), net.weight(23))
    image = net.op("Relu", net.input(1, 6, 9, 9))
    map_ = net.op("Relu", net.op("Conv", image, net.weight(24, 6, 3, 3, density=0.3), net.weight(24), pads=[1] * 4))
    map_ = net.op("Conv", map_, net.weight(24, 4, 3, 3, density=0.3), group=6, strides=[2, 2])
    model = net.model(y, map_)
    chosen = Chosen(number)
    network = built(model, machine, tuner=chosen)
    assert max(chosen.seen) > 3
    compare(network, [feeds(model)])


def test_a_vector_times_a_matrix_and_a_matrix_times_a_vector() -> None:
    net = Net()
    x = net.input(19)
    left = net.op("MatMul", x, matrix(net, 19, 5))
    right = net.op("MatMul", net.input(6, 19), net.op("Relu", x))
    model = net.model(left, right, net.op("MatMul", x, x), net.op("MatMul", net.input(2, 7, 19), net.weight(19)))
    compare(built(model), [feeds(model)])


def test_weights_with_axes_of_their_own() -> None:
    """A constant matrix for each batch."""
    net = Net()
    x = net.op("Relu", net.input(3, 1, 6, 10))
    weights = net.constant(net.generator.standard_normal((3, 4, 10, 7)), "float32")
    check(net.model(net.op("MatMul", x, weights), net.op("MatMul", net.weight(3, 4, 5, 6), x)))


@pytest.mark.parametrize("rows", [1, 2, 30])
def test_one_weight_for_several_products(rows: int) -> None:
    net = Net()
    weights, bias = matrix(net, 24, 24, 0.3), net.weight(24)
    x = net.input(rows, 24)
    ys = []
    for _ in range(4):
        x = net.op("Tanh", net.op("Add", net.op("MatMul", x, weights), bias))
        ys.append(x)
    check(net.model(*ys))


@pytest.mark.parametrize("rows", [1, 40])
def test_nan_and_inf_stay_in_their_rows(rows: int) -> None:
    """And reach all outputs of a dense layer; where weights are zero, products of them with inf may be NaN or left
    out, as for other sparse kernels, so that only dense ones are held to it."""
    net = Net()
    model = net.model(net.op("Add", net.op("MatMul", net.input(rows, 20), matrix(net, 20, 18)), net.weight(18)))
    case = feeds(model)
    (array,) = case.values()
    array[0, 3], array[rows // 2, 5] = float("nan"), float("inf")
    compare(built(model), [case, feeds(model)])


def test_axes_in_pieces_are_laid_out() -> None:
    """Interleaved positions leave the inner axis as two, in another order in each operand."""
    net = Net()
    a = net.op("Transpose", net.op("Sin", net.input(2, 5, 4, 3)), perm=[0, 1, 3, 2])
    b = net.op("Transpose", net.op("Sin", net.input(2, 3, 4, 5)), perm=[0, 2, 1, 3])
    rows = net.op("Reshape", a, net.numbers(2, 5, 12))
    columns = net.op("Reshape", b, net.numbers(2, 12, 5))
    check(net.model(net.op("Relu", net.op("MatMul", rows, columns))))
