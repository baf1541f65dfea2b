"""LSTM, GRU and RNN in steps against onnxruntime."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tvm")

from graphprune.targets.kernels.tir import Machine
from tests.targets.network.harness import MACHINES, check
from tests.targets.network.net import Net

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    machine=st.sampled_from(MACHINES),
    kind=st.sampled_from(sorted(GATES)),
    steps=st.sampled_from([1, 2, 5]),
    batch=st.sampled_from([1, 3, 20]),
    width=st.sampled_from([1, 4, 17]),
    hidden=st.sampled_from([1, 3, 16]),
    direction=st.sampled_from(["forward", "reverse", "bidirectional"]),
    biased=st.booleans(),
    started=st.booleans(),
    linear=st.booleans(),
    peephole=st.booleans(),
    seed=st.integers(0, 99),
)
def test_cells(
    machine: Machine, kind: str, steps: int, batch: int, width: int, hidden: int, direction: str, biased: bool,
    started: bool, linear: bool, peephole: bool, seed: int,
) -> None:  # fmt: skip
    net = Net(seed=seed)
    gates, directions = GATES[kind], 2 if direction == "bidirectional" else 1
    x = net.input(steps, batch, width)
    w, r = net.weight(directions, gates * hidden, width), net.weight(directions, gates * hidden, hidden)
    b = net.weight(directions, 2 * gates * hidden) if biased else None
    start = net.input(directions, batch, hidden) if started else None
    inputs = [x, w, r, b, None, start]
    attributes: dict[str, object] = {"hidden_size": hidden, "direction": direction}
    if kind == "LSTM":
        inputs += [net.input(directions, batch, hidden) if started else None]
        inputs += [net.weight(directions, 3 * hidden)] if peephole else []
    if kind == "GRU":
        attributes["linear_before_reset"] = int(linear)
    outputs = net.ops(kind, *inputs, outputs=3 if kind == "LSTM" else 2, **attributes)
    check(net.model(*outputs), machine)


def test_only_the_last_state_is_read() -> None:
    net = Net()
    x, w, r = net.input(4, 1, 3), net.weight(1, 20, 3), net.weight(1, 20, 5)
    _, last, _ = net.ops("LSTM", x, w, r, outputs=3, hidden_size=5)
    check(net.model(net.op("Relu", last)))


@pytest.mark.parametrize("attributes", [{"activations": ["Relu"]}, {"clip": 0.5}], ids=str)
def test_cells_of_another_kind_fall_back(attributes: dict[str, object]) -> None:
    net = Net()
    x, w, r = net.input(2, 2, 3), net.weight(1, 5, 3), net.weight(1, 5, 5)
    check(net.model(*net.ops("RNN", x, w, r, outputs=1, hidden_size=5, **attributes)), fallbacks=["RNN"])


def test_long_sequences_and_lengths_fall_back() -> None:
    net = Net()
    w, r = net.weight(1, 5, 3), net.weight(1, 5, 5)
    long = net.ops("RNN", net.input(200, 1, 3), w, r, outputs=1, hidden_size=5)
    lengths = net.constant([2, 1], "int32")
    short = net.ops("RNN", net.input(2, 2, 3), w, r, None, lengths, outputs=1, hidden_size=5)
    check(net.model(*long, *short), fallbacks=["RNN", "RNN"])
