"""Products whose vectors lie across the outputs against numpy in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tvm")

from graphprune.targets.kernels import across
from graphprune.targets.kernels.across import Across, together
from graphprune.targets.kernels.contract import Operand
from graphprune.targets.kernels.tir import Machine
from tests.targets.kernels import harness
from tests.targets.kernels.test_contract import EPILOGUES, finished, packed, product


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    machine=st.sampled_from(harness.MACHINES),
    images=st.integers(1, 3),
    apart=st.booleans(),
    outer=st.integers(1, 3),
    outputs=st.sampled_from([1, 7, 16, 32, 50]),
    inputs=st.sampled_from([1, 2, 9, 40]),
    length=st.sampled_from([1, 3, 7, 14, 20, 49]),
    vectors=st.sampled_from([1, 2, 3]),
    pixels=st.sampled_from([1, 2, 7, 14, 20]),
    density=st.sampled_from([0.0, 0.3, 1.0]),
    bias=st.booleans(),
    epilogue=st.sampled_from(sorted(EPILOGUES)),
    odd=st.booleans(),
    seed=st.integers(0, 99),
)
def test_shapes(
    machine: Machine, images: int, apart: bool, outer: int, outputs: int, inputs: int, length: int, vectors: int,
    pixels: int, density: float, bias: bool, epilogue: str, odd: bool, seed: int,
) -> None:  # fmt: skip
    """Rows lie one right behind the other: whatever is written behind one is found in the next."""
    generator = np.random.default_rng(seed)
    rows = vectors * machine.lanes
    there = generator.random((-(-outputs // rows), inputs)) < density
    weight = (generator.standard_normal((outputs, inputs)) * np.repeat(there, rows, 0)[:outputs]).astype(np.float32)
    whole = images * outer
    x = generator.standard_normal((whole, inputs, length)).astype(np.float32)
    if odd:
        x[0, 0, 0] = generator.choice([np.nan, np.inf])
    values, offsets, starts = packed(weight, rows)
    arrays = [x, values, offsets * length, starts]
    wanted, size = product(weight, rows, x.astype(np.float64))
    if bias:
        arrays.append(generator.standard_normal(outputs).astype(np.float32))
        wanted, size = wanted + arrays[-1][:, None], size + np.abs(arrays[-1])[:, None]
    operands: tuple[Operand, ...] = ()
    if epilogue == "residual":
        arrays.append(generator.standard_normal((whole, outputs, length)).astype(np.float32))
        operands = (Operand(length, 1, (outer * outputs * length, outputs * length)),)
        wanted, size = wanted + arrays[-1], size + np.abs(arrays[-1])
    kernel = Across(
        outputs,
        length,
        length,
        rows,
        pixels,
        outer=(
            (images, outer * inputs * length, outer * outputs * length),
            (outer, inputs * length, outputs * length),
        ),
        bias=bias,
        epilogue=EPILOGUES[epilogue],
        operands=operands,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(across, "NEAR", 0 if apart else 1 << 20)  # images one after the other, or all at once
        harness.compiled.cache_clear()
        found = harness.run(kernel, machine, *arrays, np.full((whole, outputs, length), 77.0, np.float32))
    finished(epilogue, found, wanted, (inputs + 4) * 2.0**-23 * size)


def test_images_whose_inputs_stay_close_go_together() -> None:
    """Rows of pixels always do, and maps of four pixels more often than those of 196."""
    rows = (14, (16, 16))
    assert together(()) == together((rows,)) == 1
    assert together(((8, (1024 * 224, 1)), rows)) == 1
    assert together(((8, (512 * 16, 1)), (2, (8, 8)))) == 2
    assert together(((1 << 10, (1 << 10, 1)),)) == 1
