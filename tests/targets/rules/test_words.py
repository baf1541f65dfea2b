"""Networks whose products are of bfloat16, against onnxruntime in float32: eight roundings are allowed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tvm")

from graphprune.targets.kernels.across import Across
from graphprune.targets.kernels.contract import Contract
from graphprune.targets.kernels.gemv import Gemv
from graphprune.targets.kernels.pairs import Pairs
from graphprune.targets.rules.words import LEAST
from tests.targets.kernels.harness import MACHINES, PAIRS
from tests.targets.network.harness import Built, Machine, check
from tests.targets.network.net import Net

pytestmark = pytest.mark.skipif(not PAIRS, reason="this processor has no AVX512_BF16")
ROUNDING = 8 * 2.0**-8


def rounded(network: Built) -> int:
    """How many products are of words."""
    kernels = [call.kernel for call in network.lowered.calls]
    return sum(isinstance(kernel, Contract | Across) and kernel.numbers == "bfloat16" for kernel in kernels)


def roundings(network: Built) -> int:
    return sum(isinstance(call.kernel, Pairs) for call in network.lowered.calls)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    machine=st.sampled_from(PAIRS or MACHINES),
    batch=st.integers(1, 2),
    groups=st.sampled_from([1, 1, 2]),
    inner=st.sampled_from([2, 3, 5, 16, 17, 24, 33]),
    outputs=st.sampled_from([4, 20, 32]),
    size=st.tuples(st.integers(3, 20), st.integers(4, 20)),
    kernel=st.sampled_from([1, 3, 5]),
    stride=st.integers(1, 2),
    density=st.sampled_from([1.0, 0.1]),
    before=st.booleans(),
    seed=st.integers(0, 99),
)
def test_convolutions(
    machine: Machine, batch: int, groups: int, inner: int, outputs: int, size: tuple[int, int], kernel: int,
    stride: int, density: float, before: bool, seed: int,
) -> None:  # fmt: skip
    net = Net(seed=seed)
    x = net.input(batch, groups * inner, *size)
    x = net.op("Relu", x) if before else x
    weight = net.weight(groups * outputs, inner, kernel, kernel, density=density)
    pads = [kernel // 2] * 4
    y = net.op("Conv", x, weight, net.weight(groups * outputs), group=groups, strides=[stride] * 2, pads=pads)
    network = check(net.model(net.op("Relu", y)), machine, tolerance=ROUNDING)
    pixels = batch * ((size[0] + stride - 1) // stride) * ((size[1] + stride - 1) // stride)
    many = inner > 2 and max(inner, outputs * kernel**2) >= LEAST
    assert rounded(network) == (0 if (groups > 1 and inner % 2) or pixels < LEAST or not many else 1)


@pytest.mark.parametrize("shape", [(128, 64), (2, 40, 33), (1, 3, 20, 48), (30, 1, 16)])
def test_features(shape: tuple[int, ...]) -> None:
    net = Net()
    x = net.op("Tanh", net.input(*shape))
    y = net.op("Relu", net.op("Add", net.op("MatMul", x, net.weight(shape[-1], 50)), net.weight(50)))
    network = check(net.model(y), PAIRS[0], tolerance=ROUNDING)
    assert rounded(network) == roundings(network) - shape[-1] % 2 == 1


@pytest.mark.parametrize(("rows", "inputs", "outputs", "words"), [(1, 512, 100, 1), (3, 300, 257, 1), (1, 511, 100, 0)])
def test_few_rows(rows: int, inputs: int, outputs: int, words: int) -> None:
    """Large matrices of an even number of inputs are words; a row is rounded once."""
    net = Net()
    x = net.op("Tanh", net.input(rows, inputs))
    y = net.op("Relu", net.op("Add", net.op("MatMul", x, net.weight(inputs, outputs)), net.weight(outputs)))
    network = check(net.model(y), PAIRS[0], tolerance=ROUNDING)
    (kernel,) = [call.kernel for call in network.lowered.calls if isinstance(call.kernel, Gemv)]
    assert kernel.numbers == ("bfloat16" if words else "float32")
    assert roundings(network) == words


def test_what_several_products_read_is_rounded_once() -> None:
    net = Net()
    x = net.op("Tanh", net.input(1, 32, 64))
    ys = [net.op("MatMul", x, net.weight(64, 64)) for _ in range(3)]
    network = check(net.model(*ys), PAIRS[0], tolerance=ROUNDING)
    assert rounded(network) == 3 and roundings(network) == 1


def test_parts_of_a_concat_are_rounded_with_the_others() -> None:
    """A map that is made in pieces, and read whole and in part."""
    net = Net()
    x = net.op("Relu", net.input(1, 16, 9, 10))
    parts = [net.op("Conv", x, net.weight(20, 16, 3, 3), pads=[1] * 4) for _ in range(3)]
    joined = net.op("Concat", *parts, axis=1)
    whole = net.op("Conv", joined, net.weight(8, 60, 3, 3), pads=[1] * 4)
    part = net.op("Conv", parts[1], net.weight(8, 20, 1, 1))
    network = check(net.model(whole, part), PAIRS[0], tolerance=ROUNDING)
    assert rounded(network) == 5


@pytest.mark.parametrize("order", [(0, 2, 1, 3), (1, 0, 2, 3), (0, 1, 3, 2), (0, 3, 1, 2)])
def test_turned_maps(order: tuple[int, ...]) -> None:
    net = Net()
    x = net.op("Relu", net.input(16, 16, 16, 16))
    turned = net.op("Transpose", net.op("Conv", x, net.weight(16, 16, 1, 1)), perm=order)
    check(net.model(net.op("Conv", turned, net.weight(8, 16, 3, 3), pads=[1] * 4)), PAIRS[0], tolerance=ROUNDING)


def test_few_channels_stay_as_they_are() -> None:
    """Those of a picture are words where many weights meet each number, as in a first layer."""
    net = Net()
    x = net.op("Relu", net.input(1, 3, 20, 20))
    y = net.op("Conv", x, net.weight(15, 3, 1, 1))
    z = net.op("Conv", y, net.weight(15, 1, 3, 3), group=15)
    assert rounded(check(net.model(z), PAIRS[0])) == 0
    net = Net()
    y = net.op("Conv", net.input(1, 3, 20, 20), net.weight(32, 3, 7, 7), strides=[2, 2], pads=[3] * 4)
    assert rounded(check(net.model(y), PAIRS[0], tolerance=ROUNDING)) == 1


def test_the_error_is_that_of_rounding() -> None:
    """More than float32 would have, so that the numbers were rounded, and less than is allowed."""
    net = Net()
    model = net.model(net.op("MatMul", net.op("Tanh", net.input(1, 64, 256)), net.weight(256, 64)))
    with pytest.raises(AssertionError, match="run 0"):
        check(model, PAIRS[0])
    check(model, PAIRS[0], tolerance=ROUNDING)
