"""Tables of weights, the tiles that are tried, and how the work of a product is divided among threads."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("tvm")

from graphprune.targets.kernels.tir import Machine
from graphprune.targets.network.layout import Digit, Storage, View
from graphprune.targets.rules.tables import VECTORS, Product, Run, Tile, division, slowest, table, tiles, widths


@given(
    passes=st.integers(1, 20), tiles=st.integers(1, 60), most=st.integers(1, 60), groups=st.integers(1, 40),
    threads=st.integers(1, 8),
)  # fmt: skip
def test_a_division_is_within_its_bounds_and_no_worse_than_none(
    passes: int, tiles: int, most: int, groups: int, threads: int
) -> None:
    block, pieces = division(passes, tiles, most, groups, threads)
    assert 1 <= block <= most and 1 <= pieces <= groups
    best = slowest(passes, tiles, block, groups, pieces, threads)
    assert passes * tiles * groups <= threads * best
    whole = -(-tiles // -(-tiles // most))  # the fewest strips, all alike
    assert 20 * best <= 21 * slowest(passes, tiles, whole, groups, 1, threads)


@pytest.mark.parametrize(
    ("of", "into"),
    [
        ((1, 50, 32, 8, 1), (25, 1)),  # one thread: as few strips as stay close
        ((1, 50, 32, 8, 2), (25, 1)),
        ((1, 13, 16, 16, 2), (13, 2)),  # an odd number of strips: the rows are cut
        ((1, 1, 8, 16, 2), (1, 2)),
        ((1, 7, 1, 6, 2), (1, 2)),
        ((1, 1, 1, 1, 2), (1, 1)),  # nothing to divide
    ],
)
def test_threads_end_at_the_same_time(of: tuple[int, int, int, int, int], into: tuple[int, int]) -> None:
    assert division(*of) == into


def test_the_slowest_thread() -> None:
    assert slowest(1, 50, 32, 8, 1, 2) == 32 * 8
    assert slowest(1, 3, 1, 5, 2, 2) == 3 + 2 + 3


@given(
    outputs=st.integers(1, 9), channels=st.integers(1, 12), taps=st.sampled_from([1, 3, 9]),
    rows=st.sampled_from([1, 2, 4]), parts=st.integers(1, 5), full=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_a_table_has_every_weight_once(
    outputs: int, channels: int, taps: int, rows: int, parts: int, full: bool, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    weights = generator.standard_normal((outputs, taps * channels)) * (generator.random((outputs, 1)) < 0.7)
    weights = np.where(generator.random(weights.shape) < 0.3, weights, 0).astype("float32")
    product = product_of(weights, taps, channels)
    parts = min(parts, channels)
    found = unpacked(product, Tile(rows, 1, full, parts))
    assert (found == weights).all()


def test_the_table_of_other_weights_is_told() -> None:
    weights = np.eye(3, 6, dtype="float32")
    product = product_of(weights, 3, 2)
    assert (unpacked(product, Tile(2, 1, parts=2)) != np.roll(weights, 1)).any()


def product_of(weights: np.ndarray, taps: int = 1, channels: int = 0) -> Product:
    """Over rows of 400 numbers, with taps 20 numbers apart."""
    channels = channels or weights.shape[1] // taps
    offsets = (20 * np.arange(taps)[:, None] + 400 * np.arange(channels)).reshape(-1)
    x = View(Storage(400 * channels), ((), (Digit(16, 1),)))
    return Product(weights, offsets, None, x, 1, len(weights), channels)


def unpacked(product: Product, tile: Tile) -> np.ndarray:
    """The weights that a kernel would multiply with, each with the input that its offset says; parts in order."""
    values, offsets, pointers = table(product, tile)
    groups = -(-product.weights.shape[0] // tile.rows)
    found = np.zeros((groups * tile.rows, product.weights.shape[1]), "float32")
    inputs = {int(offset): column for column, offset in enumerate(product.offsets)}
    for number, (first, last) in enumerate(itertools.pairwise(pointers)):
        part, group = divmod(number, groups)
        for entry in range(first, last):
            column = inputs[int(offsets[entry])]
            assert column % product.channels * tile.parts // product.channels == part
            found[group * tile.rows : (group + 1) * tile.rows, column] += values.reshape(-1, tile.rows)[entry]
    return found[: len(product.weights)]


def test_tiles_divide_a_short_run() -> None:
    assert widths(49, 16) == [1, 2, 4]
    assert widths(209, 16) == [1, 2, 3, 4, 5, 7, 14]
    assert tuple(widths(3000, 16)) == VECTORS


def test_what_a_tile_reads() -> None:
    product = product_of(np.ones((2, 6), "float32"), 3, 2)
    assert product.starts().tolist() == [0, 20, 40]
    assert product.held(16) == 2 * 64 * 4  # lines 0, 1 and 2, 2 and 3
    assert product.split(16) == pytest.approx(2 / 3)
    assert product.split(8) == pytest.approx(1 / 6)  # the third tap begins on half a line


def test_large_inputs_come_in_parts() -> None:
    weights = (np.random.default_rng(0).random((64, 4096)) < 0.1).astype("float32")
    offsets = 128 * np.arange(4096)
    x = View(Storage(128 * 4096), ((), (Digit(128, 1),)))
    found = tiles(Product(weights, offsets, None, x, 1, 64, 4096), Run(128, 1, 128, 1), Machine(16, 32))[1]
    assert any(tile.parts > 1 for tile in found) and found[-1].full
    few = Product(weights[:, :64], offsets[:64], None, x, 1, 64, 64)
    assert all(tile.parts == 1 for tile in tiles(few, Run(128, 1, 128, 1), Machine(16, 32))[1])
