"""LSTM, GRU and RNN, step by step: products with constant weights, functions of one number, and sums.

Equations and the order of gates are those of the ONNX operators. Products with inputs are taken for all steps at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from graphprune.targets.expand.maker import Maker, array, is_float, number, sizes

STEPS = 128  # more of them are a program too long
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
USUAL = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}


@dataclass(frozen=True)
class Cell:
    """The constants of one direction: what joins the inputs to each gate, what joins the state to it, and biases."""

    w: list[np.ndarray]  # of each gate, [hidden, inputs]
    r: list[np.ndarray]  # [hidden, hidden]
    wb: list[np.ndarray]  # [hidden]
    rb: list[np.ndarray]
    p: list[np.ndarray]  # peepholes of an LSTM, or none


def recurrent(make: Maker, node: ir.Node) -> list[ir.Value] | None:
    """RNN, GRU or LSTM over a known number of steps, one after another, as products and elementwise operators."""
    x, w, r, b, lengths, h0, c0, p = optional(node)
    shape = sizes(x)
    if shape is None or lengths is not None or not is_float(x) or not usual(node):
        return None
    constants = [array(each) for each in (w, r, b, p)]
    weights, inner, biases, peepholes = constants
    if (
        weights is None
        or inner is None
        or any(each is not None and found is None for each, found in zip((b, p), constants[2:], strict=True))
    ):
        return None
    directions, hidden = inner.shape[0], inner.shape[2]
    steps, batch, _ = shape
    if steps * directions > STEPS:
        return None
    assert x is not None
    runs = []
    for d in range(directions):
        cell = cell_of(
            node.op_type, weights[d], inner[d], None if biases is None else biases[d],
            None if peepholes is None else peepholes[d],
        )  # fmt: skip
        backwards = number(node, "direction", "forward") == "reverse" or d == 1
        states = [state(make, start, d, (batch, hidden)) for start in (h0, c0)]
        runs.append(run(make, node, cell, x, states, backwards))
    value = joined(make, [[stepped[t] for stepped, _, _ in runs] for t in range(steps)], (batch, hidden))
    last = [stacked(make, [h for _, h, _ in runs], (batch, hidden))]
    if node.op_type == "LSTM":
        last.append(stacked(make, [c for _, _, c in runs], (batch, hidden)))
    return [value, *last][: len(node.outputs)]


def optional(node: ir.Node) -> list[ir.Value | None]:
    """The eight inputs of a cell, None for those left out."""
    return [*node.inputs, *[None] * (8 - len(node.inputs))]


def usual(node: ir.Node) -> bool:
    """Whether it has the functions that recurrent cells have everywhere, and axes in the usual order."""
    functions = number(node, "activations", None)
    expected = USUAL[node.op_type]
    known = functions is None or list(functions) == expected * (len(functions) // len(expected))
    return (
        known
        and "clip" not in node.attributes
        and not number(node, "layout", 0)
        and not number(node, "input_forget", 0)
    )


def cell_of(kind: str, w: np.ndarray, r: np.ndarray, b: np.ndarray | None, p: np.ndarray | None) -> Cell:
    """W, R, B and P of one direction (ONNX: rows gate by gate) as matrices and vectors of each gate."""
    gates, hidden = GATES[kind], r.shape[1]
    bias = np.zeros(2 * gates * hidden, w.dtype) if b is None else b
    return Cell(
        np.split(w, gates), np.split(r, gates), np.split(bias[: gates * hidden], gates),
        np.split(bias[gates * hidden :], gates), [] if p is None else np.split(p, 3),
    )  # fmt: skip


def state(make: Maker, start: ir.Value | None, direction: int, shape: tuple[int, int]) -> ir.Value:
    """Where a direction begins, [batch, hidden]; zeros, where nothing is said."""
    if start is None:
        return make.constant(np.zeros(shape, np.float32))
    place = make.constant(np.array(direction, np.int64))
    return make.op("Gather", start, place, shape=shape, axis=0)


def run(
    make: Maker, node: ir.Node, cell: Cell, x: ir.Value, states: list[ir.Value], backwards: bool
) -> tuple[list[ir.Value], ir.Value, ir.Value]:
    """The state after every step, in the order of the inputs, the last state, and the last cell state."""
    shape = sizes(x)
    assert shape is not None
    steps, batch, width = shape
    hidden = cell.r[0].shape[0]
    linear = bool(number(node, "linear_before_reset", 0))
    biases = [first + second for first, second in zip(cell.wb, cell.rb, strict=True)]
    if node.op_type == "GRU" and linear:  # the bias of the last gate's state stands inside of its reset
        biases[2] = cell.wb[2]
    flat = make.reshape(x, (steps * batch, width))
    given = []
    for weights, bias in zip(cell.w, biases, strict=True):
        gate = affine(make, flat, weights, bias, (steps * batch, hidden))
        given.append(gate if steps == 1 else make.reshape(gate, (steps, batch, hidden)))
    h, c = states
    found: dict[int, ir.Value] = {}
    for t in range(steps)[:: -1 if backwards else 1]:
        now = given
        if steps > 1:
            place = make.constant(np.array(t, np.int64))
            now = [make.op("Gather", each, place, shape=(batch, hidden), axis=0) for each in given]
        h, c = STEP[node.op_type](make, cell, now, h, c, linear)
        found[t] = h
    return [found[t] for t in range(steps)], h, c


def affine(make: Maker, x: ir.Value, weights: np.ndarray, bias: np.ndarray | None, shape: tuple[int, ...]) -> ir.Value:
    """x W^T + b, where W is (outputs, inputs) as recurrent operators store it."""
    y = make.op("MatMul", x, make.constant(weights.T), shape=shape)
    return y if bias is None else make.op("Add", y, make.constant(bias), shape=shape)


def lstm(
    make: Maker, cell: Cell, now: list[ir.Value], h: ir.Value, c: ir.Value, linear: bool
) -> tuple[ir.Value, ir.Value]:
    """Gates i, o, f, c. Peepholes: i and f see the state before the step, o the one after it."""
    shape = sizes(h)
    assert shape is not None

    def gate(which: int, function: str, seen: ir.Value | None = None, peephole: int = 0) -> ir.Value:
        total = make.op("Add", affine(make, h, cell.r[which], None, shape), now[which], shape=shape)
        if seen is not None and cell.p:
            weighed = make.op("Mul", seen, make.constant(cell.p[peephole]), shape=shape)
            total = make.op("Add", total, weighed, shape=shape)
        return make.op(function, total, shape=shape)

    entered = make.op("Mul", gate(0, "Sigmoid", c, 0), gate(3, "Tanh"), shape=shape)
    kept = make.op("Mul", gate(2, "Sigmoid", c, 2), c, shape=shape)
    after = make.op("Add", kept, entered, shape=shape)
    shown = make.op("Mul", gate(1, "Sigmoid", after, 1), make.op("Tanh", after, shape=shape), shape=shape)
    return shown, after


def gru(
    make: Maker, cell: Cell, now: list[ir.Value], h: ir.Value, c: ir.Value, linear: bool
) -> tuple[ir.Value, ir.Value]:
    """Gates z, r, h."""
    shape = sizes(h)
    assert shape is not None

    def gate(which: int) -> ir.Value:
        total = make.op("Add", affine(make, h, cell.r[which], None, shape), now[which], shape=shape)
        return make.op("Sigmoid", total, shape=shape)

    update, reset = gate(0), gate(1)
    if linear:
        held = make.op("Mul", reset, affine(make, h, cell.r[2], cell.rb[2], shape), shape=shape)
    else:
        held = affine(make, make.op("Mul", reset, h, shape=shape), cell.r[2], None, shape)
    proposed = make.op("Tanh", make.op("Add", held, now[2], shape=shape), shape=shape)
    # (1 - z) n + z h
    moved = make.op("Mul", update, make.op("Sub", h, proposed, shape=shape), shape=shape)
    return make.op("Add", moved, proposed, shape=shape), c


def rnn(
    make: Maker, cell: Cell, now: list[ir.Value], h: ir.Value, c: ir.Value, linear: bool
) -> tuple[ir.Value, ir.Value]:
    """The next state of an RNN: tanh(W x + R h + b); the second state is an LSTM's and stays."""
    shape = sizes(h)
    assert shape is not None
    total = make.op("Add", affine(make, h, cell.r[0], None, shape), now[0], shape=shape)
    return make.op("Tanh", total, shape=shape), c


STEP: dict[str, Callable[..., tuple[ir.Value, ir.Value]]] = {"LSTM": lstm, "GRU": gru, "RNN": rnn}


def joined(make: Maker, rows: list[list[ir.Value]], shape: tuple[int, int]) -> ir.Value:
    """States of all steps and directions as [steps, directions, batch, hidden]."""
    flat = [make.reshape(each, (1, 1, *shape)) for row in rows for each in row]
    total = len(rows) * len(rows[0])
    whole = flat[0] if total == 1 else make.op("Concat", *flat, shape=(total, 1, *shape), axis=0)
    return make.reshape(whole, (len(rows), len(rows[0]), *shape))


def stacked(make: Maker, values: list[ir.Value], shape: tuple[int, int]) -> ir.Value:
    """The states of all steps as one tensor, steps first."""
    flat = [make.reshape(each, (1, *shape)) for each in values]
    return flat[0] if len(flat) == 1 else make.op("Concat", *flat, shape=(len(flat), *shape), axis=0)
