"""Products with constant weights against numpy in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tvm")

from graphprune.targets.kernels.contract import Contract, Operand
from graphprune.targets.kernels.functions import Apply, Expression, Leaf
from graphprune.targets.kernels.tir import Machine
from tests.targets.kernels import harness

EPILOGUES: dict[str, Expression] = {
    "none": Leaf(0),
    "relu": Apply("relu", (Leaf(0),)),
    "gelu": Apply("gelu", (Leaf(0),)),
    "residual": Apply("relu", (Apply("add", (Leaf(0), Leaf(1))),)),
}


def packed(weight: np.ndarray, rows: int, parts: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights [output][input] as [entry][row of the group], the input of each entry, and where each group begins; all
    groups with the first part of the inputs come before those with the next."""
    outputs, inputs = weight.shape
    groups = -(-outputs // rows)
    wide = np.zeros((groups * rows, inputs), weight.dtype)
    wide[:outputs] = weight
    blocks = wide.reshape(groups, rows, inputs).transpose(0, 2, 1)
    values, offsets, counts = [np.zeros(0)], [np.zeros(0)], []
    for columns in np.array_split(np.arange(inputs), parts):
        kept = (blocks[:, columns] != 0).any(2)
        values.append(blocks[:, columns][kept].ravel())
        offsets.append(columns[np.nonzero(kept)[1]])
        counts.append(kept.sum(1))
    nothing = np.zeros(0 if np.concatenate(counts).any() else 1)
    return (
        np.concatenate([*values, nothing]).astype(weight.dtype),
        np.concatenate([*offsets, nothing]).astype(np.int32),
        np.concatenate([[0], np.concatenate(counts).cumsum()]).astype(np.int32),
    )


def product(weight: np.ndarray, rows: int, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What groups of rows compute in float64, and the sum of what is added: a block that is not there multiplies
    nothing, a zero in one that is there does."""
    outputs = weight.shape[0]
    wanted, size = (np.zeros((x.shape[0], outputs, x.shape[2])) for _ in range(2))
    clean = np.where(np.isfinite(x), x, 0)
    for first in range(0, outputs, rows):
        part = slice(first, first + rows)
        entries = np.flatnonzero((weight[part] != 0).any(0))
        factors = weight[None, part, entries, None]
        with np.errstate(all="ignore"):
            wanted[:, part] = (factors * x[:, None, entries]).sum(2)
        size[:, part] = (np.abs(factors) * np.abs(clean[:, None, entries])).sum(2)
    return wanted, size


@settings(max_examples=70, deadline=None, derandomize=True)
@given(
    machine=st.sampled_from(harness.MACHINES),
    outer=st.integers(1, 3),
    outputs=st.sampled_from([1, 3, 4, 7, 16, 33]),
    inputs=st.sampled_from([1, 2, 9, 40]),
    length=st.sampled_from([1, 3, 15, 16, 17, 49, 64, 65, 100, 200]),
    rows=st.sampled_from([1, 2, 4, 6]),
    vectors=st.sampled_from([1, 2, 4]),
    chunks=st.sampled_from([1, 2, 3]),
    parts=st.sampled_from([1, 1, 2, 3]),
    ahead=st.sampled_from([0, 1, 4]),
    density=st.sampled_from([0.0, 0.2, 1.0]),
    bias=st.booleans(),
    epilogue=st.sampled_from(sorted(EPILOGUES)),
    border=st.sampled_from(["scratch", "guarded", "masked"]),
    odd=st.booleans(),
    seed=st.integers(0, 99),
)
def test_shapes(
    machine: Machine, outer: int, outputs: int, inputs: int, length: int, rows: int, vectors: int, chunks: int,
    parts: int, ahead: int, density: float, bias: bool, epilogue: str, border: str, odd: bool, seed: int,
) -> None:  # fmt: skip
    generator = np.random.default_rng(seed)
    groups = -(-outputs // rows)
    there = generator.random((groups, inputs)) < density
    weight = (generator.standard_normal((outputs, inputs)) * np.repeat(there, rows, 0)[:outputs]).astype(np.float32)
    pitch = harness.pitch(length)
    x = np.full((outer, inputs, pitch), np.nan, np.float32)
    x[..., :length] = generator.standard_normal((outer, inputs, length))
    if odd:
        x[0, 0, 0] = generator.choice([np.nan, np.inf])
    values, offsets, starts = packed(weight, rows, parts)
    arrays = [x, values, offsets * pitch, starts]
    wanted, size = product(weight, rows, x[..., :length].astype(np.float64))
    if bias:
        arrays.append(generator.standard_normal(outputs).astype(np.float32))
        wanted, size = wanted + arrays[-1][:, None], size + np.abs(arrays[-1])[:, None]
    mask = (np.arange(length) % 9 != 8).astype(np.float32)
    if border == "masked":  # where the mask ends nothing may be written either
        arrays.append(np.concatenate([mask, np.zeros(pitch - length, np.float32)]))
    operands: tuple[Operand, ...] = ()
    if epilogue == "residual":
        add = generator.standard_normal((outer, outputs, pitch)).astype(np.float32)
        arrays.append(add)
        operands = (Operand(pitch, 1, (outputs * pitch,)),)
        wanted, size = wanted + add[..., :length], size + np.abs(add[..., :length])
    y = np.full((outer, outputs, pitch), 77.0, np.float32)
    kernel = Contract(
        outputs,
        length,
        pitch,
        rows,
        vectors,
        outer=((outer, inputs * pitch, outputs * pitch),),
        bias=bias,
        masked=border == "masked",
        guarded=border == "guarded",
        epilogue=EPILOGUES[epilogue],
        operands=operands,
        chunks=min(chunks, groups),
        parts=parts,
        ahead=ahead,
    )
    found = harness.run(kernel, machine, *arrays, y)
    if border != "scratch":
        assert (found[..., length:] == 77.0).all()
    found = found[..., :length]
    if border == "masked":
        assert (found[..., mask == 0] == 77.0).all()
        found, wanted, size = found[..., mask > 0], wanted[..., mask > 0], size[..., mask > 0]
    finished(epilogue, found, wanted, (inputs + 4) * 2.0**-23 * size)


def finished(epilogue: str, found: np.ndarray, total: np.ndarray, tolerance: np.ndarray) -> None:
    """Compares what was written with the epilogue of the sums in float64, whose rounding errors `tolerance` bounds."""
    wanted = np.maximum(total, 0) if epilogue in {"relu", "residual"} else total
    if epilogue == "gelu":
        wanted = gelu(total)
        tolerance = 1.2 * tolerance + 1e-6 * (1 + np.abs(np.where(np.isfinite(wanted), wanted, 0)))
    harness.close(found, wanted, tolerance)


def gelu(x: np.ndarray) -> np.ndarray:
    from scipy.special import erf

    with np.errstate(all="ignore"):
        return np.asarray(0.5 * x * (1 + erf(x / 2**0.5)))


def test_the_reference_tells_another_product() -> None:
    generator = np.random.default_rng(0)
    weight, x = generator.standard_normal((4, 3)), generator.standard_normal((1, 3, 5))
    wanted, size = product(weight, 2, x)
    harness.close(np.einsum("oi,bip->bop", weight, x), wanted, 1e-12 * size)
    with pytest.raises(AssertionError):
        harness.close(np.einsum("oi,bip->bop", weight[::-1], x), wanted, 1e-5 * size)


@pytest.mark.parametrize("machine", harness.MACHINES, ids=str)
def test_a_convolution_is_a_table_of_offsets(machine: Machine) -> None:
    """Taps of a 3x3 kernel are constant distances in a map whose rows share one border column."""
    generator = np.random.default_rng(0)
    channels, outputs, height, width = 3, 5, 6, 7
    pitch, size = width + 1, 8 * 8 + 32
    x = np.zeros((channels, size), np.float32)
    image = generator.standard_normal((channels, height, width)).astype(np.float32)
    for c in range(channels):
        x[c, pitch + 1 : pitch + 1 + height * pitch].reshape(height, pitch)[:, :width] = image[c]
    weight = generator.standard_normal((outputs, channels, 3, 3)).astype(np.float32)
    values, entries, starts = packed(weight.reshape(outputs, -1), 2)
    c, i, j = np.unravel_index(entries, weight.shape[1:])
    mask = (np.arange(harness.pitch(height * pitch)) % pitch < width).astype(np.float32)
    mask[height * pitch :] = 0
    out = mask.size
    kernel = Contract(outputs, height * pitch, out, 2, 2, bias=False, masked=True)
    table = (c * size + i * pitch + j).astype(np.int32)
    found = harness.run(kernel, machine, x, values, table, starts, mask, np.zeros((outputs, out), np.float32))
    assert not found[:, mask == 0].any()
    around = np.pad(image.astype(np.float64), ((0, 0), (1, 1), (1, 1)))
    wanted = sum(
        np.einsum("oc,chw->ohw", weight[:, :, a, b], around[:, a : a + height, b : b + width])
        for a in range(3)
        for b in range(3)
    )
    harness.close(found[:, mask > 0], np.asarray(wanted).reshape(outputs, -1), 2e-5)
