"""Products with few rows against numpy in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tvm")

from graphprune.targets.kernels.functions import RESULT, Apply, Leaf, Number
from graphprune.targets.kernels.gemv import Gemv
from graphprune.targets.kernels.pairs import packed as in_pairs
from graphprune.targets.kernels.tir import Machine
from tests.targets.kernels import harness


def packed(weight: np.ndarray, lanes: int, dense: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights [output][input] as [group][entry][lanes], the input of each entry, and where each group begins."""
    outputs, inputs = weight.shape
    groups = -(-outputs // lanes)
    wide = np.zeros((groups * lanes, inputs), weight.dtype)
    wide[:outputs] = weight
    blocks = wide.reshape(groups, lanes, inputs).transpose(0, 2, 1)
    kept = np.ones((groups, inputs), bool) if dense else (blocks != 0).any(2)
    values = np.concatenate([blocks[kept].ravel(), np.zeros(0 if kept.any() else 1, weight.dtype)])
    offsets = np.concatenate([np.nonzero(kept)[1], np.zeros(0 if kept.any() else 1)]).astype(np.int32)
    return values, offsets, np.concatenate([[0], kept.sum(1).cumsum()]).astype(np.int32)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    machine=st.sampled_from(harness.MACHINES),
    outputs=st.sampled_from([1, 3, 8, 15, 16, 17, 47, 64, 1000]),
    inputs=st.sampled_from([1, 2, 7, 8, 9, 33, 64]),
    rows=st.integers(1, 8),
    dense=st.booleans(),
    density=st.sampled_from([0.0, 0.1, 0.6]),
    bias=st.booleans(),
    epilogue=st.sampled_from(["none", "relu", "residual", "one number a row"]),
    odd=st.booleans(),
    turned=st.booleans(),
    gap=st.integers(0, 2),
    seed=st.integers(0, 99),
)
def test_shapes(
    machine: Machine, outputs: int, inputs: int, rows: int, dense: bool, density: float, bias: bool, epilogue: str,
    odd: bool, gap: int, seed: int, turned: bool,
) -> None:  # fmt: skip
    generator = np.random.default_rng(seed)
    lanes = machine.lanes
    weight = generator.standard_normal((outputs, inputs)).astype(np.float32)
    there = generator.random((-(-outputs // lanes), inputs)) < density
    if not dense:
        weight *= np.repeat(there, lanes, 0)[:outputs]
    x = generator.standard_normal((rows, inputs + gap)).astype(np.float32)
    values, offsets, groups = packed(weight, lanes, dense)
    x_row, x_step = (1, rows) if turned else (inputs + gap, 1)
    exact = x[:, :inputs].astype(np.float64)
    if odd and (dense or there.any()):
        x[0, 0] = generator.choice([np.nan, np.inf])
        exact = x[:, :inputs].astype(np.float64)
    given = np.ascontiguousarray(x[:, :inputs].T) if turned else x.ravel()[: x.size - gap]
    arrays = [given, values] + ([] if dense else [(offsets * x_step).astype(np.int32), groups])
    sums, size = np.zeros((rows, outputs)), np.zeros((rows, outputs))
    for g in range(groups.size - 1):  # a block that is not there multiplies nothing, a zero in one that is does
        entries = np.arange(inputs) if dense else offsets[groups[g] : groups[g + 1]]
        part = slice(g * lanes, (g + 1) * lanes)
        with np.errstate(all="ignore"):
            sums[:, part] = (exact[:, None, entries] * weight[None, part, entries]).sum(2)
        clean = np.where(np.isfinite(exact), exact, 0)
        size[:, part] = np.abs(clean[:, entries]) @ np.abs(weight[part, entries]).T
    if bias:
        arrays.append(generator.standard_normal(outputs).astype(np.float32))
        sums, size = sums + arrays[-1], size + np.abs(arrays[-1])
    expression, operands = RESULT, ()
    if epilogue == "relu":
        expression, sums = Apply("relu", (Leaf(0),)), np.maximum(sums, 0)
    elif epilogue != "none":
        more = generator.standard_normal((rows, outputs if epilogue == "residual" else 1)).astype(np.float32)
        expression = Apply("add", (Leaf(0), Apply("mul", (Leaf(1), Number(2.0)))))
        operands = ((more.shape[1], int(epilogue == "residual")),)
        arrays.append(more)
        sums, size = sums + 2.0 * more, size + 2 * np.abs(more)
    y = np.full((rows, outputs + gap), 77.0, np.float32)
    kernel = Gemv(outputs, inputs, rows, x_row, outputs + gap, dense, bias, expression, operands, x_step)
    found = harness.run(kernel, machine, *arrays, y.ravel()[: y.size - gap])
    whole = y.copy().ravel()
    whole[: y.size - gap] = found
    whole = whole.reshape(y.shape)
    assert (whole[:, outputs:] == 77.0).all()
    harness.close(whole[:, :outputs], sums, (inputs + 4) * 2.0**-23 * size)


@pytest.mark.skipif(not harness.PAIRS, reason="this processor has no AVX512_BF16")
@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    machine=st.sampled_from(harness.PAIRS or harness.MACHINES),
    outputs=st.sampled_from([1, 15, 16, 17, 47, 200]),
    inputs=st.sampled_from([1, 2, 9, 33, 64]),
    rows=st.integers(1, 4),
    dense=st.booleans(),
    bias=st.booleans(),
    odd=st.booleans(),
    seed=st.integers(0, 99),
)
def test_words_of_bfloat16(
    machine: Machine, outputs: int, inputs: int, rows: int, dense: bool, bias: bool, odd: bool, seed: int
) -> None:
    """Numbers of few bits are bfloat16 as they are: the error is that of sums in float32."""
    generator = np.random.default_rng(seed)
    weight = generator.integers(-64, 65, (outputs, 2 * inputs)).astype(np.float32)
    x = generator.integers(-64, 65, (rows, 2 * inputs)).astype(np.float32)
    if odd:
        x[0, -1] = generator.choice([np.nan, np.inf])
        weight[:, -1] = 3
    values, offsets, groups = packed(weight[:, ::2] + 1j * weight[:, 1::2], machine.lanes, dense)
    arrays = [in_pairs(x), in_pairs(np.stack([values.real, values.imag], -1).astype(np.float32)).ravel()]
    arrays += [] if dense else [offsets, groups]
    wanted = x.astype(np.float64) @ weight.T.astype(np.float64)
    if bias:
        arrays.append(generator.standard_normal(outputs).astype(np.float32))
        wanted = wanted + arrays[-1]
    kernel = Gemv(outputs, inputs, rows, inputs, outputs, dense, bias, numbers="bfloat16")
    found = harness.run(kernel, machine, *arrays, np.full((rows, outputs), 77.0, np.float32))
    size = np.abs(np.where(np.isfinite(x), x, 0)) @ np.abs(weight).T + 4
    harness.close(found, wanted, (2 * inputs + 4) * 2.0**-23 * size)
