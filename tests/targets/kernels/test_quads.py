"""Words of four 8-bit integers, and products of them, against numpy in int64: every sum is exact."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tvm")

from graphprune.targets.kernels.across import Across
from graphprune.targets.kernels.contract import Contract, Operand
from graphprune.targets.kernels.functions import Apply, Expression, Leaf, Number
from graphprune.targets.kernels.quads import Quads, packed
from graphprune.targets.kernels.tir import Machine
from graphprune.targets.kernels.window import Window
from tests.targets.kernels import harness
from tests.targets.kernels.test_contract import packed as tabled

EVERY = [*harness.DOTS, *harness.MACHINES]


def activations(generator: np.random.Generator, *shape: int) -> np.ndarray:
    """The extremes are as frequent as all others."""
    array = generator.integers(0, 256, shape)
    return np.where(generator.random(shape) < 0.5, generator.choice([0, 255], shape), array).astype(np.uint8)


def weights(generator: np.random.Generator, *shape: int) -> np.ndarray:
    array = generator.integers(-128, 128, shape)
    return np.where(generator.random(shape) < 0.5, generator.choice([-128, 127], shape), array).astype(np.int8)


def test_weights_are_packed_in_fours() -> None:
    found = packed(np.array([[1, -1, 127, -128, 5]], np.int8))
    assert found.view(np.int8).tolist() == [[1, -1, 127, -128, 5, 0, 0, 0]]


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    machine=st.sampled_from(EVERY),
    dtype=st.sampled_from(["uint8", "int8"]),
    outer=st.integers(1, 3),
    count=st.integers(1, 4),
    rows=st.sampled_from([1, 3]),
    length=st.sampled_from([1, 7, 16, 17, 40, 64, 150]),
    step=st.sampled_from([1, 2, 3]),
    guarded=st.booleans(),
    seed=st.integers(0, 99),
)
def test_words(
    machine: Machine, dtype: str, outer: int, count: int, rows: int, length: int, step: int, guarded: bool, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    x = activations(generator, outer, 6, rows, length * step).view(dtype)
    table = generator.integers(0, 6, 4 * count).astype(np.int32)
    down, pitch = length * step, harness.pitch(length)
    kernel = Quads(
        count, rows, length, down, step, rows * pitch, pitch,
        ((outer, (6 * rows * down, count * rows * pitch)),), dtype, guarded,
    )  # fmt: skip
    y = np.full((outer, count, rows, pitch), 77, np.int32)
    found = harness.run(kernel, machine, x, table * rows * down, y)
    shifted = (x.astype(np.int64) + (128 if dtype == "int8" else 0))[:, table].reshape(outer, count, 4, rows, -1)
    wanted = (shifted[..., ::step] << (8 * np.arange(4))[:, None, None]).sum(2).astype(np.uint32).view(np.int32)
    assert np.array_equal(found[..., :length], wanted)
    assert (found[..., length:] == 77).all()


QUANTISE: Expression = Apply(
    "cast:uint8",
    (Apply("within", (Apply("add", (Apply("round", (Leaf(0),)), Number(3.0))), Number(0.0), Number(255.0))),),
)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    machine=st.sampled_from(EVERY),
    across=st.booleans(),
    outputs=st.sampled_from([1, 7, 16, 33]),
    inputs=st.sampled_from([4, 20, 160]),
    length=st.sampled_from([1, 7, 16, 49, 100]),
    rows=st.sampled_from([1, 4, 6]),
    vectors=st.sampled_from([1, 2, 4]),
    density=st.sampled_from([0.0, 0.3, 1.0]),
    result=st.sampled_from(["int32", "float32", "uint8", "residual"]),
    border=st.sampled_from(["guarded", "masked"]),
    seed=st.integers(0, 99),
)
def test_products(
    machine: Machine, across: bool, outputs: int, inputs: int, length: int, rows: int, vectors: int, density: float,
    result: str, border: str, seed: int,
) -> None:  # fmt: skip
    generator = np.random.default_rng(seed)
    rows = machine.lanes * min(vectors, 2) if across else rows
    groups = -(-outputs // rows)
    weight = weights(generator, outputs, inputs)
    there = np.repeat(generator.random((groups, inputs // 4)) < density, rows, 0)[:outputs]
    weight = weight * np.repeat(there, 4, 1).astype(np.int8)
    x = activations(generator, inputs, length)
    pitch = harness.pitch(length)
    words = np.zeros((inputs // 4, pitch), np.int32)
    words[:, :length] = np.ascontiguousarray(x.T).view("<i4").T
    bias = generator.integers(-(1 << 20), 1 << 20, outputs).astype(np.int32)
    total = weight.astype(np.int64) @ x.astype(np.int64) + bias[:, None]
    values, offsets, starts = tabled(packed(weight), rows)
    arrays = [words, values.astype(np.int32), offsets * pitch, starts, bias]
    dtype, epilogue, operands = result, Leaf(0), ()
    wanted: np.ndarray = total
    if result != "int32":
        scale = (generator.uniform(0.5, 2, outputs) / (100 * inputs)).astype(np.float32)
        arrays.append(scale)
        wanted = total.astype(np.float32) * scale[:, None]
    masked = border == "masked" and not across
    mask = np.arange(pitch) % 9 != 8
    if masked:
        arrays.append((mask & (np.arange(pitch) < length)).astype(np.float32))
    if result == "residual":
        arrays.append(activations(generator, outputs, pitch))
        epilogue, dtype = Apply("add", (Leaf(0), Apply("cast:float32", (Leaf(1),)))), "float32"
        operands = (Operand(pitch, 1, (), "uint8"),)
        wanted = wanted + arrays[-1][:, :length].astype(np.float32)
    elif result == "uint8":
        epilogue = QUANTISE
        wanted = np.clip(np.rint(wanted) + 3, 0, 255)
    more = {"numbers": "int8", "scaled": result != "int32", "result": dtype, "epilogue": epilogue, "operands": operands}
    kernel: Across | Contract
    if across:
        kernel = Across(outputs, length, pitch, rows, min(7, length), **more)
    else:
        kernel = Contract(outputs, length, pitch, rows, vectors, guarded=not masked, masked=masked, **more)
    found = harness.run(kernel, machine, *arrays, np.full((outputs, pitch), 77, dtype))
    kept = mask[:length] if masked else np.ones(length, bool)
    rounding = 1e-6 * np.abs(total).max() if result == "residual" else 0.0  # multiplied and added as one
    assert np.abs(found[:, :length][:, kept] - wanted[:, kept].astype(dtype)).max(initial=0) <= rounding
    assert (found[:, length:] == 77).all() and (found[:, :length][:, ~kept] == 77).all()


@pytest.mark.parametrize("machine", EVERY, ids=str)
def test_sums_of_extremes_do_not_saturate(machine: Machine) -> None:
    """255 * 127 twice is more than 16 bits hold."""
    x = np.full((1, 16), -1, np.int32)  # four times 255
    for extreme, word in ((127, 0x7F7F7F7F), (-128, -0x7F7F7F80)):
        arrays = [x, np.array([word], np.int32), np.zeros(1, np.int32), np.array([0, 1], np.int32)]
        kernel = Contract(1, 16, 16, 1, 1, bias=False, numbers="int8", result="int32")
        assert (harness.run(kernel, machine, *arrays, np.zeros((1, 16), np.int32)) == 4 * 255 * extreme).all()


@pytest.mark.parametrize("machine", EVERY, ids=str)
@pytest.mark.parametrize("length", [5, 16, 37])
def test_maxima_of_steps(machine: Machine, length: int) -> None:
    generator = np.random.default_rng(length)
    x = activations(generator, 3, length + 2)
    kernel = Window("max", (0, 1, 2), length, (1, 1), ((3, (length + 2, length)),), guarded=True, dtype="uint8")
    found = harness.run(kernel, machine, x, np.zeros((3, length), np.uint8))
    assert np.array_equal(found, np.maximum(np.maximum(x[:, :-2], x[:, 1:-1]), x[:, 2:]))
