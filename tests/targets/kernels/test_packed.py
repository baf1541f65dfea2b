"""Products whose inputs are copied to whole cache lines, against numpy in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tvm")

from graphprune.targets.kernels.contract import Operand
from graphprune.targets.kernels.packed import Packed
from graphprune.targets.kernels.tir import Machine
from graphprune.targets.network.layout import Digit, Storage, View
from graphprune.targets.rules.packing import packing
from graphprune.targets.rules.tables import Product, Tile, table
from tests.targets.kernels import harness
from tests.targets.kernels.test_contract import EPILOGUES, finished, product

TAPS = {
    "3x3": [8 * row + column for row in range(3) for column in range(3)],
    "far": [3, 1, 200, 61, 190],
    "one": [5],
}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    machine=st.sampled_from(harness.MACHINES),
    outer=st.integers(1, 3),
    outputs=st.sampled_from([1, 3, 7, 16, 33]),
    channels=st.sampled_from([(2, 1), (4, 2), (6, 3), (6, 6), (8, 1)]),
    taps=st.sampled_from(sorted(TAPS)),
    length=st.sampled_from([1, 15, 16, 17, 49, 55, 64, 65, 130]),
    rows=st.sampled_from([1, 2, 4]),
    vectors=st.sampled_from([1, 2, 4, 5]),
    chunks=st.sampled_from([1, 2, 3]),
    density=st.sampled_from([0.0, 0.1, 1.0]),
    epilogue=st.sampled_from(sorted(EPILOGUES)),
    border=st.sampled_from(["scratch", "guarded", "masked"]),
    odd=st.booleans(),
    seed=st.integers(0, 99),
)
def test_shapes(
    machine: Machine, outer: int, outputs: int, channels: tuple[int, int], taps: str, length: int, rows: int,
    vectors: int, chunks: int, density: float, epilogue: str, border: str, odd: bool, seed: int,
) -> None:  # fmt: skip
    generator = np.random.default_rng(seed)
    (count, parts), starts, groups = channels, np.array(TAPS[taps]), -(-outputs // rows)
    there = generator.random((groups, starts.size * count)) < density
    weight = generator.standard_normal((outputs, starts.size * count)) * np.repeat(there, rows, 0)[:outputs]
    pitch = harness.pitch(length)
    plane = int(starts.max()) + pitch
    x = generator.standard_normal((outer, count, plane)).astype(np.float32)
    if odd:
        x[0, 0, starts[0]] = generator.choice([np.nan, np.inf])
    offsets = (starts[:, None] + plane * np.arange(count)).reshape(-1)
    made = Product(
        weight.astype(np.float32), offsets, None, View(Storage(x.size), ((), (Digit(length, 1),))), 1, outputs, count
    )
    copy = packing(made, vectors, machine.lanes, least=0.0)
    assert copy is not None
    values, entries, pointers = table(made, Tile(rows, vectors, parts=parts, packed=copy))
    bias = generator.standard_normal(outputs).astype(np.float32)
    read = np.stack([x[:, channel, tap : tap + length] for tap in starts for channel in range(count)], 1)
    wanted, size = product(made.weights, rows, read.astype(np.float64))
    wanted, size = wanted + bias[:, None], size + np.abs(bias)[:, None]
    arrays = [x, values, entries, pointers, bias]
    mask = (np.arange(length) % 9 != 8).astype(np.float32)
    if border == "masked":
        arrays.append(np.concatenate([mask, np.zeros(pitch - length, np.float32)]))
    operands: tuple[Operand, ...] = ()
    if epilogue == "residual":
        add = generator.standard_normal((outer, outputs, pitch)).astype(np.float32)
        arrays.append(add)
        operands = (Operand(pitch, 1, (outputs * pitch,)),)
        wanted, size = wanted + add[..., :length], size + np.abs(add[..., :length])
    kernel = Packed(
        outputs, length, pitch, rows, vectors,
        outer=((outer, count * plane, outputs * pitch),), masked=border == "masked", guarded=border == "guarded",
        epilogue=EPILOGUES[epilogue], operands=operands, chunks=min(chunks, groups), parts=parts, ahead=seed % 3,
        channels=count, channel=plane, spans=copy.spans, lanes=machine.lanes,
    )  # fmt: skip
    found = harness.run(kernel, machine, *arrays, np.full((outer, outputs, pitch), 77.0, np.float32))
    if border != "scratch":
        assert (found[..., length:] == 77.0).all()
    found = found[..., :length]
    if border == "masked":
        assert (found[..., mask == 0] == 77.0).all()
        found, wanted, size = found[..., mask > 0], wanted[..., mask > 0], size[..., mask > 0]
    finished(epilogue, found, wanted, (starts.size * count + 4) * 2.0**-23 * size)


def test_another_tap_is_told() -> None:
    """The control: entries that point one line too far give another product."""
    x = np.random.default_rng(0).standard_normal((1, 2, 80)).astype(np.float32)
    lanes = harness.MACHINES[0].lanes
    kernel = Packed(1, 16, 16, 1, 1, bias=False, channels=2, channel=80, spans=((5, 1),), lanes=lanes)
    weights, pointers, y = np.ones(1, np.float32), np.array([0, 1], np.int32), np.zeros((1, 16), np.float32)
    right = harness.run(kernel, harness.MACHINES[0], x, weights, np.zeros(1, np.int32), pointers, y)
    harness.close(right[0, :lanes], x[0, 0, 5 : 5 + lanes].astype(np.float64), 0.0)
    wrong = harness.run(kernel, harness.MACHINES[0], x, weights, np.full(1, lanes, np.int32), pointers, y)
    with pytest.raises(AssertionError):
        harness.close(wrong[0, :lanes], x[0, 0, 5 : 5 + lanes].astype(np.float64), 1e-3)


def test_channels_that_parts_do_not_divide() -> None:
    with pytest.raises(ValueError, match="3 parts"):
        Packed(1, 16, 16, 1, 1, channels=4, parts=3)
