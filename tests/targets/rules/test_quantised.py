"""Quantised networks against onnxruntime: at most one step of an output, and nearly all of them equal."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tvm")

from graphprune.targets.kernels.across import Across
from graphprune.targets.kernels.contract import Contract
from tests import execution
from tests.targets.kernels.harness import DOTS, MACHINES
from tests.targets.network.harness import Built, Machine
from tests.targets.network.net import Net
from tests.targets.network.steps import bias, compare, integers, numbers, rounded, stored, weight, within

EVERY = [machine for machine in [*DOTS, *MACHINES] if machine.threads == 1]


def products(network: Built) -> int:
    """How many products are of integers."""
    kernels = [call.kernel for call in network.lowered.calls]
    return sum(isinstance(kernel, Contract | Across) and kernel.numbers == "int8" for kernel in kernels)


@settings(max_examples=35, deadline=None, derandomize=True)
@given(
    machine=st.sampled_from(EVERY),
    batch=st.integers(1, 2),
    groups=st.sampled_from([1, 1, 2, 5]),
    inner=st.sampled_from([1, 2, 3, 4, 9, 16]),
    outputs=st.sampled_from([1, 4, 10]),
    size=st.tuples(st.integers(3, 12), st.integers(4, 20)),
    kernel=st.sampled_from([1, 3, 5]),
    stride=st.integers(1, 2),
    zero=st.sampled_from([("uint8", 0), ("uint8", 131), ("uint8", 255), ("int8", 0), ("int8", -128), ("int8", 17)]),
    one=st.booleans(),
    after=st.sampled_from(["", "Relu", "Add", "bias"]),
    density=st.sampled_from([1.0, 0.1]),
    seed=st.integers(0, 99),
)
def test_convolutions(
    machine: Machine, batch: int, groups: int, inner: int, outputs: int, size: tuple[int, int], kernel: int,
    stride: int, zero: tuple[str, int], one: bool, after: str, density: float, seed: int,
) -> None:  # fmt: skip
    net = Net(seed=seed)
    dtype, point = zero
    x = rounded(net, net.input(batch, groups * inner, *size), 0.03, point, dtype)
    array = integers(net, groups * outputs, inner, kernel, kernel, density=density)
    w, scale = weight(net, array, 0, one)
    given = [x, w, bias(net, groups * outputs, 0.03, scale)] if after != "" else [x, w]
    y = net.op("Conv", *given, group=groups, strides=[stride] * 2, pads=[kernel // 2] * 4)
    if after == "Relu":
        y = net.op("Relu", y)
    elif after == "Add":
        other = rounded(net, net.input(batch, groups * outputs, *(-(-each // stride) for each in size)), 0.0997, 100)
        y = net.op("Add", rounded(net, y, 0.0713), other)
    network = within(net.model(stored(net, y, 0.0811, 120)), machine)
    assert products(network) == 1


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    machine=st.sampled_from(EVERY),
    shape=st.sampled_from([(1, 9), (30, 64), (2, 17, 33), (1, 3, 20, 8), (5, 1, 16)]),
    outputs=st.sampled_from([1, 7, 48]),
    zero=st.sampled_from([("uint8", 0), ("uint8", 131), ("int8", 3)]),
    one=st.booleans(),
    operator=st.sampled_from(["MatMul", "Gemm"]),
    after=st.sampled_from(["stored", "gelu"]),
    seed=st.integers(0, 99),
)
def test_features(
    machine: Machine, shape: tuple[int, ...], outputs: int, zero: tuple[str, int], one: bool, operator: str,
    after: str, seed: int,
) -> None:  # fmt: skip
    """Numbers come from a step in float32, as they do after a norm, and go on in float32 where nobody rounds them."""
    net = Net(opset=20, seed=seed)
    dtype, point = zero
    x = rounded(net, net.op("Tanh", net.input(*shape)), 0.02, point, dtype)
    w, scale = weight(net, integers(net, shape[-1], outputs), 1, one)
    if operator == "Gemm" and len(shape) == 2:
        y = net.op("Gemm", x, w, bias(net, outputs, 0.02, scale))
    else:
        y = net.op("Add", net.op("MatMul", x, w), net.weight(outputs))
    y = stored(net, y, 0.05, 3) if after == "stored" else net.op("Gelu", y)
    step = 1.0 if after == "stored" else 1e-4
    network = within(net.model(y), machine, scale=step)
    assert products(network) == 1


@pytest.mark.parametrize("groups", [5, 6, 7])
@pytest.mark.parametrize("per", [1, 3])
def test_groups_of_one_channel(groups: int, per: int) -> None:
    """Four share a word, and the last word has fewer."""
    net = Net(seed=groups)
    x = rounded(net, net.input(1, groups, 5, 6))
    w, scale = weight(net, integers(net, groups * per, 1, 3, 3), 0)
    y = net.op("Conv", x, w, bias(net, groups * per, 0.05, scale), group=groups, pads=[1] * 4)
    assert products(within(net.model(stored(net, y, 0.0811)), EVERY[0])) == 1


def operator_form(net: Net, x: str, shape: tuple[int, ...]) -> str:
    """A QLinearConv of stored integers with scale 0.05 and zero point 3."""
    array = integers(net, *shape)
    scale = net.generator.uniform(0.5, 2.0, shape[0]).astype(np.float32) / 500
    names = net.constant(array), net.constant(scale), net.constant(np.zeros(shape[0], np.int8))
    ends = net.constant(0.05, "float32"), net.constant(3, "uint8")
    added = net.constant(net.generator.integers(-3000, 3000, shape[0]).astype(np.int32))
    return net.op("QLinearConv", x, *ends, *names, *ends, added, pads=[shape[2] // 2] * 4)


@pytest.mark.parametrize("machine", EVERY, ids=str)
def test_operators_of_integers(machine: Machine) -> None:
    net = Net()
    x = stored(net, net.input(1, 8, 9, 10), 0.05, 3)
    a, b = operator_form(net, x, (12, 8, 3, 3)), operator_form(net, x, (12, 8, 1, 1))
    ends = net.constant(0.05, "float32"), net.constant(3, "uint8")
    total = net.op("QLinearAdd", a, *ends, b, *ends, net.constant(0.09, "float32"), ends[1], domain="com.microsoft")
    joined = net.op("Concat", total, a, axis=1)
    pooled = net.op("MaxPool", joined, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    y = operator_form(net, pooled, (5, 24, 1, 1))
    mean = net.op("QLinearGlobalAveragePool", y, *ends, net.constant(0.04, "float32"), ends[1], domain="com.microsoft")
    flat = net.op("Reshape", mean, net.numbers(1, 5))
    names = net.constant(integers(net, 5, 7)), net.constant(0.01, "float32"), net.constant(0, "int8")
    z = net.op("QLinearMatMul", flat, net.constant(0.04, "float32"), ends[1], *names, *ends)
    network = within(net.model(total, y, mean, z), machine)
    assert products(network) == 4


def test_a_shuffle_of_channels_moves_bytes_and_no_number() -> None:
    """What is quantised behind a shuffle is quantised where it is made; parts of other scales are rounded again."""
    net = Net()
    x = rounded(net, net.input(1, 8, 6, 7))
    halves = []
    for scale in (0.05, 0.03):
        w, scales = weight(net, integers(net, 10, 8, 1, 1), 0)
        y = net.op("Relu", net.op("Conv", x, w, bias(net, 10, 0.05, scales)))
        halves.append(rounded(net, y, scale, 0))
    joined = net.op("Reshape", net.op("Concat", *halves, axis=1), net.numbers(1, 2, 10, 6, 7))
    turned = net.op("Reshape", net.op("Transpose", joined, perm=[0, 2, 1, 3, 4]), net.numbers(1, 20, 6, 7))
    left, right = net.ops("Split", rounded(net, turned, 0.05, 0), outputs=2, axis=1)
    w, scales = weight(net, integers(net, 4, 10, 1, 1), 0)
    y = stored(net, net.op("Conv", right, w, bias(net, 4, 0.05, scales)))
    network = within(net.model(y, stored(net, left, 0.05, 0)), EVERY[0])
    assert products(network) == 3
    kinds = {view.dtype for call in network.lowered.calls[1:] for view in call.views if view.storage.kind == "scratch"}
    assert kinds == {"uint8", "int32"}


@pytest.mark.parametrize("machine", EVERY, ids=str)
@pytest.mark.parametrize("shape", [(30, 64), (1, 9)])
def test_scales_that_only_a_run_knows(machine: Machine, shape: tuple[int, ...]) -> None:
    """What quantize_dynamic of onnxruntime makes."""
    net = Net()
    x, scale, zero = net.ops("DynamicQuantizeLinear", net.op("Sin", net.input(*shape)), outputs=3)
    total = net.op("MatMulInteger", x, net.constant(integers(net, shape[-1], 20)), zero, net.constant(0, "int8"))
    factor = net.op("Mul", scale, net.constant(0.01, "float32"))
    y = net.op("Add", net.op("Mul", net.op("Cast", total, to=1), factor), net.weight(20))
    network = within(net.model(net.op("Relu", y)), machine, scale=0.01)
    assert products(network) == 1


@pytest.mark.parametrize("machine", EVERY, ids=str)
def test_sums_of_integers(machine: Machine) -> None:
    net = Net()
    x = stored(net, net.input(1, 6, 7, 8), 0.05, 130)
    padded = net.op("ConvInteger", x, net.constant(integers(net, 5, 6, 3, 3)), net.constant(130, "uint8"), pads=[1] * 4)
    moving = net.op("QuantizeLinear", net.input(), net.constant(0.1, "float32"), net.constant(3, "uint8"))
    plain = net.op("ConvInteger", x, net.constant(integers(net, 5, 6, 3, 3)), moving)
    network = within(net.model(padded, plain), machine, steps=0)
    assert products(network) == 2


def test_weights_beyond_eight_bits_stay_numbers() -> None:
    net = Net()
    x = rounded(net, net.input(1, 8, 5, 6))
    w = net.op(
        "DequantizeLinear", net.constant(integers(net, 4, 8, 1, 1)), net.constant(0.01, "float32"),
        net.constant(50, "int8"),
    )  # fmt: skip
    network = within(net.model(stored(net, net.op("Conv", x, w))), EVERY[0])
    assert products(network) == 0


@pytest.mark.parametrize("machine", EVERY, ids=str)
def test_a_bias_in_other_units_is_added_as_numbers(machine: Machine) -> None:
    """As PyTorch exports it."""
    net = Net()
    x = rounded(net, net.input(1, 8, 5, 6))
    w, _ = weight(net, integers(net, 4, 8, 1, 1), 0)
    y = stored(net, net.op("Relu", net.op("Conv", x, w, net.weight(4))), 0.0811, 7)
    flat = net.op("Reshape", rounded(net, x, 0.0517), net.numbers(2, 120))
    v, _ = weight(net, integers(net, 120, 9), 1)
    z = stored(net, net.op("Gemm", rounded(net, flat, 0.0517), v, net.weight(9)), 0.0911)
    assert products(within(net.model(y, z), machine)) == 2


def test_saturation() -> None:
    """Sums far beyond the last step on either side."""
    net = Net()
    x = net.input(1, 64, 4, 5)
    w = net.op("DequantizeLinear", net.constant(np.repeat([[127], [-128]], 64, 1).reshape(2, 64, 1, 1).astype(np.int8)),
               net.constant(0.01, "float32"))  # fmt: skip
    y = stored(net, net.op("Conv", numbers(net, stored(net, x, 0.01, 0), 0.01, 0), w), 0.001, 128)
    cases = [{"input1": np.full((1, 64, 4, 5), value, np.float32)} for value in (9.0, -9.0, 0.0)]
    for machine in EVERY:
        within(net.model(y), machine, cases=cases, steps=0)
        (found,) = within(net.model(y), machine, cases=cases).run(cases[0])[0].values()
        assert (found[0, 0] == 255).all() and (found[0, 1] == 0).all()


def test_one_step_is_told_from_two_and_few_from_many() -> None:
    def model(added: int) -> onnx.ModelProto:
        net = Net()
        return net.model(net.op("QuantizeLinear", net.input(4, 5), net.constant(0.1, "float32"),
                                net.constant(100 + added, "uint8")))  # fmt: skip

    cases = [execution.feeds(model(0), seed=0)]
    network = within(model(0), EVERY[0], cases=cases, steps=0)
    compare(network, model(1), cases, most=1.0)
    with pytest.raises(AssertionError, match=r"100\.00% differ"):
        compare(network, model(1), cases)
    with pytest.raises(AssertionError, match=r"2\.0 steps"):
        compare(network, model(2), cases, most=1.0)
