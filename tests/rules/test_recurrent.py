"""LSTM, GRU and RNN: one hidden axis through every gate, state and output."""

from __future__ import annotations

import numpy as np
import pytest

from tests.rules.laws import MICROSOFT, Checked, Operation, check

STEPS, BATCH, INPUTS, HIDDEN = 5, 2, 6, 4
FREE = {"x0:1", "x0:2", "x1:1"}  # batch, inputs, hidden units; directions and gates stay


def _operands(gates: int, directions: int, peephole: bool = False) -> list[np.ndarray | None]:
    random = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray:
        return random.normal(size=shape).astype(np.float32)

    found = [
        draw(STEPS, BATCH, INPUTS),
        draw(directions, gates * HIDDEN, INPUTS),
        draw(directions, gates * HIDDEN, HIDDEN),
        draw(directions, 2 * gates * HIDDEN),
        np.array([5, 3], np.int32),
        draw(directions, BATCH, HIDDEN),
    ]
    if gates != 4:
        return found
    return [*found, draw(directions, BATCH, HIDDEN), draw(directions, 3 * HIDDEN) if peephole else None]


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(("op", "gates", "outputs"), [("LSTM", 4, 3), ("GRU", 3, 2), ("RNN", 1, 2)])
def test_hidden_units_go_everywhere_at_once(op: str, gates: int, outputs: int, direction: str) -> None:
    operands = _operands(gates, 2 if direction == "bidirectional" else 1)
    operation = Operation(op, operands, outputs, version=21, hidden_size=HIDDEN, direction=direction)
    checked = check(operation, FREE)
    assert [len(c.masks) for c in checked.analysis.contractions] == [1, 1]
    assert {group.size for group in checked.analysis.groups} == {INPUTS, HIDDEN}


def test_peepholes_follow_the_hidden_axis() -> None:
    check(Operation("LSTM", _operands(4, 1, peephole=True), 3, version=21, hidden_size=HIDDEN), FREE)


def test_cost_counts_every_gate_at_every_step() -> None:
    checked = check(Operation("GRU", _operands(3, 1), 2, version=21, hidden_size=HIDDEN), FREE)
    macs = [
        np.prod([axis if isinstance(axis, int) else axis.size for axis in c.macs])
        for c in checked.analysis.contractions
    ]
    assert macs == [STEPS * BATCH * 3 * HIDDEN * INPUTS, STEPS * BATCH * 3 * HIDDEN * HIDDEN]


@pytest.mark.parametrize("directions", [1, 2])
def test_quantised_lstm_keeps_scales_per_direction_or_per_row(directions: int) -> None:
    x, w, r, b, lengths, h, c, _ = _operands(4, directions)
    assert w is not None and r is not None
    for shape in ((directions,), (directions, 4 * HIDDEN)):
        scale, zero = np.full(shape, 0.02, np.float32), np.zeros(shape, np.int8)
        packed = [(np.swapaxes(each, 1, 2) * 20).astype(np.int8) for each in (w, r)]
        operands = [x, *packed, b, lengths, h, c, None, scale, zero, scale, zero]
        direction = "bidirectional" if directions == 2 else "forward"
        operation = Operation(
            "DynamicQuantizeLSTM", operands, 3, 21, MICROSOFT, hidden_size=HIDDEN, direction=direction
        )
        check(operation, {"x0:1", "x0:2", "x1:2"})


def test_batch_first_moves_the_axes_and_nothing_else() -> None:
    x, w, r, b, lengths, h = _operands(3, 2)
    assert x is not None and h is not None
    operands = [np.swapaxes(x, 0, 1), w, r, b, lengths, np.swapaxes(h, 0, 1)]
    given = {"hidden_size": HIDDEN, "direction": "bidirectional", "layout": 1}
    checked = Checked(Operation("GRU", operands, 2, version=21, **given))
    assert set(checked.free().values()) == {"x0:0", "x0:2", "x1:1"}
    assert [[axis.size for axis in axes] for axes in checked.results] == [[BATCH, STEPS, 2, HIDDEN], [BATCH, 2, HIDDEN]]
