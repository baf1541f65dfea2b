"""Networks whose products are of tiles, against onnxruntime; AMX is emulated where this machine has none."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tvm")

from graphprune.targets.kernels.tiles import Tiles
from graphprune.targets.network.tune import Tuner
from graphprune.targets.rules.deep import cycles, depths
from tests import execution
from tests.targets.kernels import amx
from tests.targets.kernels.harness import target_of
from tests.targets.network.harness import Built, Machine, built, check, compare
from tests.targets.network.net import Net
from tests.targets.network.steps import bias, integers, rounded, stored, weight, within
from tests.targets.rules.test_products import Chosen

MACHINES = amx.MACHINES
ROUNDING = 8 * 2.0**-8

pytestmark = pytest.mark.skipif(not MACHINES, reason="this processor has no AVX512_BF16")


def tiled(network: Built) -> list[Tiles]:
    return [call.kernel for call in network.lowered.calls if isinstance(call.kernel, Tiles)]


def blocks(net: Net, outputs: int, inputs: int, *taps: int, density: float) -> np.ndarray:
    """Which weights are there, in blocks of 16 outputs by 16 inputs."""
    there = net.generator.random((-(-outputs // 16), -(-inputs // 16), *taps)) < density
    return np.repeat(np.repeat(there, 16, 0), 16, 1)[:outputs, :inputs]


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    machine=st.sampled_from(MACHINES),
    batch=st.integers(1, 2),
    groups=st.sampled_from([1, 1, 2]),
    inner=st.sampled_from([16, 17, 24, 40, 64]),
    outputs=st.sampled_from([16, 20, 40]),
    size=st.tuples(st.integers(4, 20), st.integers(4, 20)),
    kernel=st.sampled_from([1, 3]),
    stride=st.integers(1, 2),
    density=st.sampled_from([1.0, 0.3]),
    seed=st.integers(0, 99),
)
def test_convolutions_of_bfloat16(
    machine: Machine, batch: int, groups: int, inner: int, outputs: int, size: tuple[int, int], kernel: int,
    stride: int, density: float, seed: int,
) -> None:  # fmt: skip
    net = Net(seed=seed)
    x = net.op("Relu", net.input(batch, groups * inner, *size))
    there = blocks(net, groups * outputs, inner, kernel, kernel, density=density)
    numbers = net.generator.standard_normal(there.shape) * there * (inner * kernel**2) ** -0.5
    given = net.constant(numbers, "float32"), net.weight(groups * outputs)
    y = net.op("Relu", net.op("Conv", x, *given, group=groups, strides=[stride] * 2, pads=[kernel // 2] * 4))
    with amx.emulated(machine):
        network = check(net.model(y), machine, tolerance=ROUNDING)
    for kernel_ in tiled(network):
        assert kernel_.numbers == "bfloat16" and -(-inner // 2) % kernel_.depth == 0


@pytest.mark.parametrize(
    ("shape", "depth"), [((128, 64), 16), ((2, 40, 96), 16), ((1, 3, 20, 48), 12), ((30, 1, 16), 8)]
)
@pytest.mark.parametrize("machine", MACHINES[::2], ids=str)
def test_features_of_bfloat16(shape: tuple[int, ...], depth: int, machine: Machine) -> None:
    net = Net()
    x = net.op("Tanh", net.input(*shape))
    y = net.op("Relu", net.op("Add", net.op("MatMul", x, net.weight(shape[-1], 50)), net.weight(50)))
    with amx.emulated(machine):
        network = check(net.model(y), machine, tolerance=ROUNDING)
    assert [kernel.depth for kernel in tiled(network)] == [depth]


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    machine=st.sampled_from(MACHINES),
    groups=st.sampled_from([1, 1, 2]),
    inner=st.sampled_from([3, 16, 30, 64, 80]),
    outputs=st.sampled_from([16, 40]),
    size=st.tuples(st.integers(4, 12), st.integers(4, 20)),
    kernel=st.sampled_from([1, 3]),
    stride=st.integers(1, 2),
    zero=st.sampled_from([("uint8", 0), ("uint8", 131), ("int8", -128), ("int8", 17)]),
    density=st.sampled_from([1.0, 0.3]),
    seed=st.integers(0, 99),
)
def test_convolutions_of_integers(
    machine: Machine, groups: int, inner: int, outputs: int, size: tuple[int, int], kernel: int, stride: int,
    zero: tuple[str, int], density: float, seed: int,
) -> None:  # fmt: skip
    net = Net(seed=seed)
    dtype, point = zero
    x = rounded(net, net.input(1, groups * inner, *size), 0.03, point, dtype)
    there = blocks(net, groups * outputs, inner, kernel, kernel, density=density)
    w, scale = weight(net, integers(net, *there.shape) * there.astype(np.int8), 0)
    given = x, w, bias(net, groups * outputs, 0.03, scale)
    y = net.op("Relu", net.op("Conv", *given, group=groups, strides=[stride] * 2, pads=[kernel // 2] * 4))
    with amx.emulated(machine):
        network = within(net.model(stored(net, y, 0.0811, 120)), machine)
    for kernel_ in tiled(network):
        assert kernel_.numbers == "int8" and -(-inner // 4) % kernel_.depth == 0


@pytest.mark.parametrize("machine", MACHINES, ids=str)
def test_features_of_integers(machine: Machine) -> None:
    net = Net(opset=20)
    x = rounded(net, net.op("Tanh", net.input(2, 33, 64)), 0.02, 131)
    w, _ = weight(net, integers(net, 64, 48), 1)
    y = net.op("Gelu", net.op("Add", net.op("MatMul", x, w), net.weight(48)))
    with amx.emulated(machine):
        network = within(net.model(y), machine, scale=1e-4)
    assert [(kernel.numbers, kernel.depth) for kernel in tiled(network)] == [("int8", 16)]


def square(density: float = 1.0) -> onnx.ModelProto:
    """64 tokens of 128 features; weights in blocks of 16x16."""
    net = Net()
    there = blocks(net, 128, 64, density=density)
    given = net.constant(net.generator.standard_normal((128, 64)) * there / 11, "float32")
    return net.model(net.op("MatMul", net.op("Tanh", net.input(1, 64, 128)), given))


def test_what_is_not_there_is_not_in_the_table() -> None:
    with amx.emulated(MACHINES[0]):
        few, all_ = (check(square(density), MACHINES[0], tolerance=ROUNDING) for density in (0.1, 1.0))
    assert tiled(few) and tiled(all_)
    sizes = [
        each.lowered.constants[call.views[1].storage].size
        for each in (few, all_)
        for call in each.lowered.calls
        if isinstance(call.kernel, Tiles)
    ]
    assert sizes[0] < 0.6 * sizes[1]


@pytest.mark.parametrize("number", range(7))
def test_every_form_is_right(number: int) -> None:
    """What is measured to be the fastest may be any of them."""
    chosen = Chosen(number)
    model = square(0.3)
    with amx.emulated(MACHINES[0]):
        compare(built(model, MACHINES[0], tuner=chosen), [execution.feeds(model)], ROUNDING)
    assert len(chosen.seen) == 1 and chosen.seen[0] > 3


def test_forms_are_measured_as_any_form_is() -> None:
    machine = MACHINES[0]
    tuner = Tuner(machine, target_of(machine), "emulated")
    with amx.emulated(machine):
        network = built(square(0.3), machine, tuner=tuner)
    assert tuner.measured == 1
    (times,) = network.lowered.times.values()
    assert times.taken > 0 and times.dense is not None


def test_a_machine_without_tiles_has_none() -> None:
    plain = Machine(16, 32, 1, pairs=True)
    assert not tiled(check(square(), plain, tolerance=ROUNDING))


@given(st.integers(1, 3000))
def test_depths_leave_no_word_over(channels: int) -> None:
    found = list(depths(channels))
    assert all(4 <= depth <= 16 and channels % depth == 0 for depth in found)
    assert (16 in found) == (channels % 16 == 0) and found == sorted(found, reverse=True)


def test_estimates_prefer_tiles_that_share_what_is_loaded() -> None:
    assert cycles(100, 4, 2, 8, 2) < cycles(200, 8, 1, 8, 2) < cycles(200, 8, 1, 8, 1)
    assert cycles(0, 4, 2, 8, 2) > 0
