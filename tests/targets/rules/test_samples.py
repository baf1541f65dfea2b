"""Runs that go through one sample after the other: the same numbers, and only where samples stay apart."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tvm")

import graphprune as gp
from graphprune.targets.kernels.tir import Machine
from graphprune.targets.network import lowering
from graphprune.targets.rules import samples
from tests.generator import recipe
from tests.targets.network.composed import problem
from tests.targets.network.harness import MACHINES, Built, built, check
from tests.targets.network.net import Net

Op = Callable[[Net, str], str]


@pytest.fixture
def everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing stays close, however small."""
    monkeypatch.setattr(samples, "CACHE", 0)
    monkeypatch.setattr(samples, "CLOSE", 0)


def looped(network: Built) -> list[str]:
    return [call.what for call in network.lowered.calls if call.samples is not None]


def block(net: Net, x: str, channels: int, stride: int = 1) -> str:
    """Two convolutions beside a third one."""
    y = net.op("Relu", net.op("Conv", x, net.weight(channels, channels, 3, 3), pads=[1] * 4, strides=[stride] * 2))
    y = net.op("Conv", y, net.weight(channels, channels, 1, 1), net.weight(channels))
    return net.op(
        "Relu", net.op("Add", y, net.op("Conv", x, net.weight(channels, channels, 1, 1), strides=[stride] * 2))
    )


def classifier(batch: int, size: int, channels: int = 8) -> onnx.ModelProto:
    net = Net()
    y = block(net, block(net, net.input(batch, channels, size, size), channels), channels, 2)
    y = net.op("Flatten", net.op("GlobalAveragePool", y))
    return net.model(net.op("Gemm", y, net.weight(channels, 5), net.weight(5)))


def test_large_maps_go_one_by_one_and_the_classifier_does_not() -> None:
    network = check(classifier(4, 96, 16))
    found = looped(network)
    assert found[0] == network.lowered.calls[0].what and "Gemm" not in found
    assert sum("Conv" in what for what in found) == 6


def test_small_maps_stay_together() -> None:
    assert looped(check(classifier(3, 8))) == []


def test_many_small_samples_stay_together() -> None:
    net = Net()
    x = net.input(3000, 4, 20)
    assert looped(check(net.model(net.op("Sigmoid", net.op("MatMul", x, net.weight(20, 20)))))) == []


@pytest.mark.usefixtures("everything")
@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    machine=st.sampled_from(MACHINES),
    threads=st.sampled_from([1, 2]),
    batch=st.integers(2, 4),
    size=st.sampled_from([5, 8, 17]),
    between=st.booleans(),
)
def test_what_is_read_behind_a_run(machine: Machine, threads: int, batch: int, size: int, between: bool) -> None:
    """Values that cross: from inputs, into a step that mixes samples, from one run into the next, to outputs."""
    net = Net()
    x = net.input(batch, 8, size, size)
    y = block(net, x, 8)
    mixed = net.op("Mul", y, net.op("ReduceMean", y, axes=[0], keepdims=1)) if between else y
    z = block(net, mixed, 8)
    machine = Machine(machine.lanes, machine.registers, threads)
    network = check(net.model(y, net.op("Concat", z, x, axis=1)), machine)
    assert looped(network)


MIXED: dict[str, Op] = {
    "reduce": lambda net, x: net.op("ReduceMean", x, axes=[0], keepdims=0),
    "softmax": lambda net, x: net.op("Softmax", x, axis=0),
    "transpose": lambda net, x: net.op("Transpose", x, perm=[1, 0, 2, 3]),
    "concat": lambda net, x: net.op("Concat", x, x, axis=0),
    "slice": lambda net, x: net.op("Slice", x, *(net.numbers(n) for n in (0, 2, 0))),
    "gather": lambda net, x: net.op("Gather", x, net.numbers(2, 0, 1), axis=0),
    "other constants": lambda net, x: net.op("Add", x, net.weight(3, 1, 1, 1)),
    "another axis": lambda net, x: net.op("Add", net.op("ReduceMax", x, axes=[0], keepdims=0), x),
    "matrices": lambda net, x: net.op(
        "MatMul", net.op("ReduceSum", x, net.numbers(1, 2), keepdims=0), net.weight(7, 7)
    ),
    "reshape": lambda net, x: net.op("Reshape", x, net.numbers(6, 4, 7, 3)),
}


@pytest.mark.usefixtures("everything")
@pytest.mark.parametrize("mix", MIXED.values(), ids=MIXED.keys())
def test_steps_that_mix_samples(mix: Op) -> None:
    net = Net()
    x = net.op("Tanh", net.op("Neg", net.input(3, 6, 4, 7)))
    y = mix(net, net.op("Sigmoid", net.op("Abs", x)))
    network = check(net.model(net.op("Exp", net.op("Cos", y))))
    assert looped(network)


@pytest.mark.usefixtures("everything")
@pytest.mark.parametrize("seed", range(6))
def test_generated_networks(seed: int) -> None:
    wrong, checked = problem(recipe(seed, 4), MACHINES[seed % len(MACHINES)])
    assert not wrong
    assert checked.refused or checked.steps


@pytest.mark.usefixtures("everything")
def test_a_wrong_move_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net()
    model = net.model(block(net, net.input(2, 8, 9, 9), 8))
    check(model)
    network = built(model)
    (loop,) = {call.samples for call in network.lowered.calls if call.samples is not None}
    assert all(loop.moves.values())
    monkeypatch.setattr(samples, "Samples", lambda count: lowering.Samples(count, Still()))
    with pytest.raises(AssertionError, match="run 0"):
        check(model)


class Still(dict):  # type: ignore[type-arg]
    """Moves that are told right while a run is made, and are forgotten when it is compiled."""

    def get(self, key: object, default: object = None) -> object:
        return 0


def test_the_manifest_says_so() -> None:
    made = gp.build(classifier(3, 96, 16), variants=["v3"], tune=0, verify=False)
    reasons = {layer.reason for layer in made.manifest.variants[0].layers}
    assert reasons == {"", "for each of 3 samples"}
    x = np.random.default_rng(0).standard_normal((3, 16, 96, 96), np.float32)
    whole = made.load()(x)
    assert np.array_equal(whole[next(iter(whole))], made.load()(x)[next(iter(whole))])
