"""Products of one channel whose taps share vectors, against numpy in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tvm")

from graphprune.targets.kernels.contract import Operand
from graphprune.targets.kernels.sliding import Sliding, shared
from graphprune.targets.kernels.tir import Machine
from tests.targets.kernels import harness
from tests.targets.kernels.test_contract import EPILOGUES, finished

TAPS = {
    "3x3": [8 * row + column for row in range(3) for column in range(3)],
    "5x5": [57 * row + column for row in range(5) for column in range(5)],
    "dilated": [40 * row + 7 * column for row in range(2) for column in range(3)],
    "backwards": [3, 1, 200, 61, 190],
    "one": [5],
}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    machine=st.sampled_from(harness.MACHINES),
    outer=st.integers(1, 3),
    outputs=st.sampled_from([1, 3, 7, 16]),
    taps=st.sampled_from(sorted(TAPS)),
    length=st.sampled_from([1, 15, 16, 17, 49, 55, 64, 65, 130]),
    vectors=st.sampled_from([1, 2, 4, 5]),
    chunks=st.sampled_from([1, 2, 3]),
    block=st.sampled_from([1, 2]),
    epilogue=st.sampled_from(sorted(EPILOGUES)),
    border=st.sampled_from(["scratch", "guarded", "masked"]),
    odd=st.booleans(),
    seed=st.integers(0, 99),
)
def test_shapes(
    machine: Machine, outer: int, outputs: int, taps: str, length: int, vectors: int, chunks: int, block: int,
    epilogue: str, border: str, odd: bool, seed: int,
) -> None:  # fmt: skip
    generator = np.random.default_rng(seed)
    places = np.array(TAPS[taps])
    pitch = harness.pitch(length)
    plane = int(places.max()) + length  # numbers behind belong to the next channel, and those behind the last are NaN
    weight = generator.standard_normal((outputs, places.size)).astype(np.float32)
    weight[0, -1] = 0  # a weight of zero is kept
    x = generator.standard_normal((outer, outputs, plane)).astype(np.float32)
    if odd:
        x[0, 0, places[0]] = generator.choice([np.nan, np.inf, -np.inf])
        x[-1, -1, -1] = np.nan
    read = np.stack([x[:, :, tap : tap + length] for tap in places], 2).astype(np.float64)
    bias = generator.standard_normal(outputs).astype(np.float32)
    with np.errstate(all="ignore"):
        wanted = (weight[None, :, :, None] * read).sum(2) + bias[:, None]
    size = (np.abs(weight)[None, :, :, None] * np.abs(np.where(np.isfinite(read), read, 0))).sum(2)
    size += np.abs(bias)[:, None]
    offsets = (plane * np.arange(outputs)[:, None] + places).astype(np.int32).ravel()
    starts = np.arange(outputs + 1, dtype=np.int32) * places.size
    arrays = [x, weight, offsets, starts, bias]
    mask = (np.arange(length) % 9 != 8).astype(np.float32)
    if border == "masked":
        arrays.append(np.concatenate([mask, np.zeros(pitch - length, np.float32)]))
    operands: tuple[Operand, ...] = ()
    if epilogue == "residual":
        add = generator.standard_normal((outer, outputs, pitch)).astype(np.float32)
        arrays.append(add)
        operands = (Operand(pitch, 1, (outputs * pitch,)),)
        wanted, size = wanted + add[..., :length], size + np.abs(add[..., :length])
    kernel = Sliding(
        outputs, length, pitch, 1, vectors,
        outer=((outer, outputs * plane, outputs * pitch),), masked=border == "masked", guarded=border == "guarded",
        epilogue=EPILOGUES[epilogue], operands=operands, chunks=min(chunks, outputs), block=block,
        taps=tuple(int(tap) for tap in places - places[0]),
    )  # fmt: skip
    found = harness.run(kernel, machine, *arrays, np.full((outer, outputs, pitch), 77.0, np.float32))
    if border != "scratch":
        assert (found[..., length:] == 77.0).all()
    found = found[..., :length]
    if border == "masked":
        assert (found[..., mask == 0] == 77.0).all()
        found, wanted, size = found[..., mask > 0], wanted[..., mask > 0], size[..., mask > 0]
    finished(epilogue, found, wanted, (places.size + 4) * 2.0**-23 * size)


def test_another_tap_is_told() -> None:
    """The control: taps that lie one too far apart give another product."""
    x = np.random.default_rng(0).standard_normal((1, 80)).astype(np.float32)
    wanted = x[0, 3:19].astype(np.float64) + x[0, 5:21]
    table = [np.ones(2, np.float32), np.array([3, 5], np.int32), np.array([0, 2], np.int32)]
    for taps, right in (((0, 2), True), ((0, 3), False)):
        kernel = Sliding(1, 16, 16, 1, 1, bias=False, taps=taps)
        found = harness.run(kernel, harness.MACHINES[0], x, *table, np.zeros((1, 16), np.float32))
        if right:
            harness.close(found[0], wanted, 1e-6)
            continue
        with pytest.raises(AssertionError):
            harness.close(found[0], wanted, 1e-3)


@given(taps=st.lists(st.integers(-300, 300), min_size=1, max_size=25, unique=True), lanes=st.sampled_from([4, 8, 16]))
def test_every_tap_is_in_one_row(taps: list[int], lanes: int) -> None:
    found = {tap: begin + shift for begin, members in shared(taps, lanes) for tap, shift in members}
    assert found == dict(enumerate(taps))
    for begin, members in shared(taps, lanes):
        assert members[0] == (taps.index(begin), 0) and all(0 <= shift < lanes for _, shift in members)


def test_rows_that_share_a_list_have_no_taps_of_their_own() -> None:
    with pytest.raises(ValueError, match="2 rows"):
        Sliding(4, 16, 16, 2, 1)
