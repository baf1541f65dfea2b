"""The harness finds what it is there to find: wrong numbers, what scratch held before, and what a run leaves behind."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("tvm")

from tests import execution
from tests.targets.network.harness import MACHINES, Built, built, check, compare
from tests.targets.network.net import Net


def chain(shift: float = 0.0) -> Net:
    net = Net()
    x = net.op("Conv", net.input(1, 3, 7, 9), net.weight(4, 3, 3, 3), pads=[1, 1, 1, 1])
    y = net.op("Conv", net.op("Relu", x), net.weight(4, 4, 3, 3), pads=[1, 1, 1, 1])
    net.op("Add", y, net.constant(np.float32(shift)))
    return net


def model(shift: float = 0.0):  # type: ignore[no-untyped-def]
    net = chain(shift)
    return net.model(net.nodes[-1].output[0])


@pytest.mark.parametrize("machine", MACHINES, ids=str)
def test_two_convolutions(machine) -> None:  # type: ignore[no-untyped-def]
    check(model(), machine)


def test_other_numbers_are_found() -> None:
    network = replace(built(model(0.0)), model=model(1e-3))
    with pytest.raises(AssertionError, match="run 0, add"):
        compare(network, [execution.feeds(network.model)])


def test_a_border_that_is_not_zero_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    network = built(model())
    compare(network, [execution.feeds(network.model)])
    arena = network.arena()
    arena[:] = 0xFF
    monkeypatch.setattr(Built, "arena", lambda self: arena)
    with pytest.raises(AssertionError, match="run 0, add"):
        compare(network, [execution.feeds(network.model)])


def test_steps_without_a_kernel_are_named() -> None:
    net = Net()
    wanted = net.model(net.op("Det", net.input(2, 3, 3)))
    check(wanted, fallbacks=["Det"])
    with pytest.raises(AssertionError):
        check(wanted)
