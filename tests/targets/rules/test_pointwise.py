"""Elementwise operators: each alone, with broadcasting in every direction, in chains, in other types, at the edges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tvm")

from graphprune.targets.kernels.tir import Machine
from graphprune.targets.rules.pointwise import POINTWISE
from tests.execution import feeds, run
from tests.targets.network.harness import MACHINES, built, check, compare
from tests.targets.network.net import Net

UNARY = [
    "Abs", "Ceil", "Cos", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "Neg",
    "Relu", "Round", "Sigmoid", "Sin", "Softplus", "Softsign", "Tanh",
]  # fmt: skip
POSITIVE = ["Log", "Reciprocal", "Sqrt"]  # and those that have no result elsewhere
BINARY = ["Add", "Div", "Max", "Min", "Mul", "PRelu", "Pow", "Sub", "Sum"]
COMPARE = ["Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"]
FLAGS = ["And", "Not", "Or", "Xor"]
SHAPES = [(), (1,), (7,), (16,), (33,), (3, 1), (1, 5), (3, 5), (2, 1, 17), (2, 3, 4, 5), (1, 3, 1, 1), (2, 3, 1, 5)]
EDGES = np.array(
    [
        0.0, -0.0, 1.0, -1.0, 1e-40, -1e-40, 3.4e38, -3.4e38, math.inf, -math.inf, math.nan, 0.5, -0.5, 1.5, 2.5, 88.8,
        -88.8, -104.0, 20.0, -20.0, 9.0, -9.0, 4.1, -4.1,
    ],
    np.float32,
)  # fmt: skip


def test_every_row_is_tested() -> None:
    others = {"Cast", "Clip", "IsNaN", "Where", "com.microsoft:Gelu", "QuantizeLinear", "DequantizeLinear"}
    assert set(POINTWISE) <= {*UNARY, *POSITIVE, *BINARY, *COMPARE, *FLAGS, *others}


@pytest.mark.parametrize("kind", UNARY + POSITIVE)
@pytest.mark.parametrize("machine", MACHINES[::2], ids=str)
def test_one_operand(kind: str, machine: Machine) -> None:
    net = Net(opset=20)
    x = net.input(3, 37)
    x = net.op("Abs", x) if kind in POSITIVE else net.op("Mul", x, net.constant(3.0, "float32"))
    check(net.model(net.op(kind, x)), machine)


@pytest.mark.parametrize("kind", UNARY + POSITIVE)
def test_edges(kind: str) -> None:
    """NaN, infinities and numbers next to them; each alone, because one wrong lane must not hide behind a large one."""
    net = Net(opset=20)
    model = net.model(net.op(kind, net.input(1)))
    cases = [{"input1": np.array([number])} for number in EDGES if telling(kind, number)]
    for case, found in zip(cases, built(model).run(*cases), strict=True):
        (wanted,) = run(model, case).values()
        np.testing.assert_allclose(*found.values(), wanted, rtol=2e-5, atol=5e-7, err_msg=f"{kind} of {case}")


def telling(kind: str, number: float) -> bool:
    """Sines of large numbers are noise, and below 2^-126 processors may count with zero."""
    return not (kind in {"Sin", "Cos"} and abs(number) > 1e6) and not 0 < abs(number) < 1e-38


@pytest.mark.parametrize("attributes", [{}, {"alpha": 0.3}], ids=str)
@pytest.mark.parametrize("kind", ["Elu", "LeakyRelu", "HardSigmoid"])
def test_attributes(kind: str, attributes: dict[str, float]) -> None:
    net = Net()
    check(net.model(net.op(kind, net.input(5, 9), **attributes)))


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu(approximate: str) -> None:
    net = Net(opset=20)
    x = net.op("Mul", net.input(5, 9), net.constant(4.0, "float32"))
    check(net.model(net.op("Gelu", x, approximate=approximate)))


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    machine=st.sampled_from(MACHINES),
    kind=st.sampled_from([*BINARY, *COMPARE, "Where"]),
    shapes=st.lists(st.sampled_from(SHAPES), min_size=3, max_size=3),
    constant=st.sampled_from([None, None, 0, 1, 2]),
    before=st.lists(st.sampled_from([None, "Abs", "turned"]), min_size=3, max_size=3),
    behind=st.sampled_from([None, "Relu", "Cast"]),
)
def test_broadcasting(
    machine: Machine, kind: str, shapes: list[tuple[int, ...]], constant: int | None, before: list[str | None],
    behind: str | None,
) -> None:  # fmt: skip
    count = 3 if kind in {"Where", "Max", "Min", "Sum"} else 2
    shapes = shapes[:count]
    try:
        wide = np.broadcast_shapes(*shapes)
    except ValueError:  # the first alone, in all its rows
        shapes = [shapes[0], *(shapes[0][:1] and (shapes[0][-1],) for _ in shapes[1:])]
        wide = shapes[0]
    if kind == "PRelu":
        shapes = [wide, shapes[1]] if np.broadcast_shapes(*shapes) == wide else [wide, wide]
    net = Net()
    operands = [
        operand(net, shape, number == constant, before[number], kind, number) for number, shape in enumerate(shapes)
    ]
    y = net.op(kind, *operands)
    compares = kind in COMPARE
    if behind == "Cast":
        y = net.op("Cast", y, to=1 if compares else 7)
    elif behind == "Relu" and not compares:
        y = net.op("Relu", y)
    model = net.model(y)
    compare(built(model, machine), [feeds(model, seed=seed) for seed in (0, 1)])


def operand(net: Net, shape: tuple[int, ...], constant: bool, before: str | None, kind: str, number: int) -> str:
    if kind == "Where" and number == 0:
        flags = net.generator.random(shape) < 0.5
        return net.constant(flags) if constant else net.op("Less", net.input(*shape), net.constant(0.1, "float32"))
    if constant:
        return net.constant(net.generator.uniform(0.5, 2.0, shape), "float32")
    if before == "turned":
        return net.op("Abs", net.op("Transpose", net.input(*shape[::-1])))
    x = net.input(*shape)
    return net.op("Abs", x) if before == "Abs" or kind in {"Pow", "Div"} else x


@pytest.mark.parametrize("kind", ["Add", "Div", "Max", "Min", "Mul", "Sub"])
def test_edges_of_two(kind: str) -> None:
    """Every one with every other; NaN from either side."""
    net = Net()
    model = net.model(net.op(kind, net.input(len(EDGES)), net.input(len(EDGES), 1)))
    numbers = np.array([number for number in EDGES if telling(kind, number)])
    numbers = np.concatenate([numbers, np.ones(len(EDGES) - len(numbers), np.float32)])
    case = {"input1": numbers, "input2": numbers[:, None]}
    (wanted,), (found,) = (list(each.values()) for each in (run(model, case), built(model).run(case)[0]))
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


@pytest.mark.parametrize("exponent", [2.0, 3.0, 0.5, -1.0, 1.0, 0.0, 2.5, -2.0])
def test_powers(exponent: float) -> None:
    net = Net()
    x = net.op("Abs", net.input(4, 19))
    check(net.model(net.op("Pow", x, net.constant(exponent, "float32"))))


@pytest.mark.parametrize("bounds", [(None, None), (-0.5, None), (None, 0.5), (-0.5, 0.5), (0.5, -0.5)], ids=str)
@pytest.mark.parametrize("opset", [6, 17])
def test_clip(bounds: tuple[float | None, float | None], opset: int) -> None:
    net = Net(opset=opset)
    x = net.input(4, 19)
    if opset == 6 and bounds == (0.5, -0.5):
        return  # onnxruntime refuses it
    if opset == 6:
        named = {name: value for name, value in zip(("min", "max"), bounds, strict=True) if value is not None}
        check(net.model(net.op("Clip", net.op("Neg", x), **named)))
        return
    given_ = [None if bound is None else net.constant(bound, "float32") for bound in bounds]
    check(net.model(net.op("Clip", x, *given_)))


TYPES = ["float32", "int32", "int64", "bool", "uint8", "int8", "float16", "float64"]


@pytest.mark.parametrize("source", TYPES)
@pytest.mark.parametrize("target", TYPES)
def test_casts(source: str, target: str) -> None:
    from onnx import helper

    net = Net()
    to = helper.np_dtype_to_tensor_dtype(np.dtype(target))
    model = net.model(net.op("Cast", net.input(3, 21, dtype=source), to=to))
    case = {"input1": (np.random.default_rng(0).standard_normal((3, 21)) * 3).astype(source)}
    if target in {"uint8", "int8"} or source == "uint8":
        case = {name: np.abs(array) if array.dtype.kind in "if" else array for name, array in case.items()}
    compare(built(model), [case])


@pytest.mark.parametrize("kind", [*COMPARE, "Add", "Mul", "Sub", "Div", "Max", "Neg", "Abs"])
@pytest.mark.parametrize("dtype", ["int64", "int32", "float16"])
def test_other_types(kind: str, dtype: str) -> None:
    net = Net()
    operands = [net.input(3, 21, dtype=dtype) for _ in range(1 if kind in {"Neg", "Abs"} else 2)]
    model = net.model(net.op(kind, *operands))
    case = {name: np.random.default_rng(7).integers(1, 9, (3, 21)).astype(dtype) for name in operands}
    compare(built(model), [case])


@pytest.mark.parametrize("machine", MACHINES[::2], ids=str)
@pytest.mark.parametrize("dtype", ["int32", "int64"])
@pytest.mark.parametrize("kind", ["Add", "Mul", "Sub"])
@pytest.mark.parametrize("shapes", [((), ()), ((3, 21), (21,)), ((2, 1, 5), (3, 1))], ids=str)
def test_integers(shapes: Sequence[tuple[int, ...]], kind: str, dtype: str, machine: Machine) -> None:
    """In their own type: float32 would lose the low bits of what is used here."""
    net = Net()
    operands = [net.input(*shape, dtype=dtype) for shape in shapes]
    model = net.model(net.op("Add", net.op(kind, *operands), net.constant(3, dtype)))
    most = 40_000 if dtype == "int32" else 2_000_000_000
    draw = np.random.default_rng(1)
    case = {name: draw.integers(-most, most, shape, dtype) for name, shape in zip(operands, shapes, strict=True)}
    check(model, machine, cases=[case])


@pytest.mark.parametrize("machine", MACHINES, ids=str)
@pytest.mark.parametrize("kind", FLAGS)
def test_flags(kind: str, machine: Machine) -> None:
    """Between steps, from and to memory, one by one and in vectors."""
    net = Net()
    operands = [net.op("Less", net.input(3, 21), net.constant(0.2, "float32")) for _ in range(1 + (kind != "Not"))]
    inner = net.op("Where", net.op(kind, *operands), net.input(3, 21), net.weight(21))
    stored = [net.input(3, 21, dtype="bool"), net.input(3, 1, dtype="bool")][: len(operands)]
    model = net.model(inner, net.op(kind, *stored), operands[0])
    cases = [feeds(model, seed=seed) for seed in (0, 1)]
    for case, seed in zip(cases, (0, 1), strict=True):
        draw = np.random.default_rng(seed)
        case.update({name: draw.random(case[name].shape) < 0.5 for name in stored})
    check(model, machine, cases=cases)


@pytest.mark.parametrize("machine", MACHINES, ids=str)
def test_softmax_that_is_zero_where_all_is_masked(machine: Machine) -> None:
    """As torch.onnx exports attention: what is NaN behind a softmax is zero. One step, and none that stays NaN."""
    net = Net()
    scores, mask = net.input(2, 5, 9), net.input(2, 5, 9)
    x = net.op("Softmax", net.op("Add", net.op("Mul", scores, net.constant(3.0, "float32")), mask), axis=-1)
    model = net.model(net.op("Where", net.op("IsNaN", x), net.constant(0.0, "float32"), x))
    cases = [feeds(model, seed=seed) for seed in (0, 1)]
    for case in cases:
        case[mask][0, 3] = case[mask][1, :2] = case[mask][0, 1, 2:] = -np.inf
    made = check(model, machine, cases=cases)
    assert [call.what for call in made.lowered.calls if "IsNaN" in call.what] == ["Softmax+IsNaN+Where"]


def test_operands_in_pieces_of_other_sizes() -> None:
    """One axis is 3 by 4 in one operand and 4 by 3 in the other."""
    net = Net()
    a = net.op("Transpose", net.op("Sin", net.input(2, 4, 3)), perm=[0, 2, 1])
    b = net.op("Transpose", net.op("Cos", net.input(2, 3, 4)), perm=[0, 2, 1])
    rows = [net.op("Reshape", each, net.numbers(2, 12)) for each in (a, b)]
    check(net.model(net.op("Relu", net.op("Add", *rows))))


@pytest.mark.parametrize("reader", ["Cos", "Where"])
def test_flags_on_the_way_are_results_too(reader: str) -> None:
    """A step that passes a flag on ends where somebody else reads the flag."""
    net = Net()
    x = net.op("Sin", net.input(3, 21))
    low = net.op("Less", x, net.constant(0.0, "float32"))
    y = net.op("Where", low, net.op("Neg", x), x)
    other = net.op("Cos", x) if reader == "Cos" else net.op("Where", low, net.constant(1.0, "float32"), x)
    check(net.model(y, low, other))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    machine=st.sampled_from(MACHINES),
    shape=st.sampled_from([(33,), (3, 5), (2, 3, 4, 5), (1, 4, 7, 7), (1, 1)]),
    kinds=st.lists(
        st.sampled_from([*UNARY[:4], "Relu", "HardSwish", "LeakyRelu", *BINARY[:-1]]), min_size=2, max_size=9
    ),
    readers=st.sets(st.integers(0, 8)),
    seed=st.integers(0, 99),
)
def test_chains(machine: Machine, shape: tuple[int, ...], kinds: list[str], readers: set[int], seed: int) -> None:
    """Some of what is made on the way is an output too, or read again later."""
    net = Net(seed=seed)
    x = net.input(*shape)
    made, results = [x], []
    for number, kind in enumerate(kinds):
        y = step(net, kind, made, shape)
        made.append(y)
        if number in readers:
            results.append(y)
    model = net.model(*dict.fromkeys([*results, made[-1]]))
    compare(built(model, machine), [feeds(model, seed=each) for each in (0, 1)])


def step(net: Net, kind: str, made: Sequence[str], shape: tuple[int, ...]) -> str:
    last = made[-1]
    if kind not in BINARY:
        return net.op(kind, last)
    other = made[int(net.generator.integers(len(made)))] if net.generator.random() < 0.5 else net.weight(*shape[-1:])
    if kind in {"Div", "Pow"}:
        other = net.constant(2.0, "float32")
    return net.op(kind, last, other)


@pytest.mark.parametrize("kind", ["LeakyRelu", "HardSwish", "Elu", "Mish", "Gelu"])
def test_long_chains_take_no_longer_than_short_ones(kind: str) -> None:
    """An operator that reads its input twice must not make a chain of twenty a million operators."""
    net = Net(opset=20)
    y = net.op("MatMul", net.input(6, 8), net.weight(8, 8))
    attributes: dict[str, Any] = {"approximate": "tanh"} if kind == "Gelu" else {}
    for _ in range(20):
        y = net.op("Add", net.op(kind, y, **attributes), net.weight(8))
    network = check(net.model(y))
    assert len(network.lowered.calls) < 20
