"""Copies of the taps of a map: every tap is there, on a cache line, and in its part."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("tvm")

from graphprune.targets.network.layout import Digit, Storage, View
from graphprune.targets.rules.packing import packing
from graphprune.targets.rules.tables import Product


def product_of(taps: list[int], channels: int, channel: int) -> Product:
    offsets = (np.array(taps)[:, None] + channel * np.arange(channels)).reshape(-1)
    x = View(Storage(channels * channel), ((), (Digit(49, 1),)))
    return Product(np.ones((3, offsets.size), "float32"), offsets, None, x, 1, 3, channels)


@given(
    taps=st.lists(st.integers(0, 400), min_size=1, max_size=12, unique=True),
    channels=st.integers(2, 12),
    vectors=st.integers(1, 5),
    lanes=st.sampled_from([4, 8, 16]),
    data=st.data(),
)
def test_every_tap_is_found_in_the_copy(
    taps: list[int], channels: int, vectors: int, lanes: int, data: st.DataObject
) -> None:
    product = product_of(taps, channels, 600)
    found = packing(product, vectors, lanes)
    if found is None:
        assert product.split(lanes) < 0.3
        return
    parts = data.draw(st.sampled_from([each for each in range(1, channels + 1) if channels % each == 0]))
    per = channels // parts
    x = np.arange(channels * 600 + vectors * lanes)
    offsets = found.offsets(product, parts)
    assert (offsets % lanes == 0).all()
    copies = []
    for part in range(parts):
        copy = [
            x[(part * per + number) * found.channel + begin :][: (more + vectors) * lanes]
            for number in range(per)
            for begin, more in found.spans
        ]
        copies.append(np.concatenate(copy))
        assert copies[-1].size == per * found.size
    for column, (offset, there) in enumerate(zip(product.offsets, offsets, strict=True)):
        copy = copies[column % channels // per]
        assert (copy[there : there + vectors * lanes] == x[offset : offset + vectors * lanes]).all()


def test_taps_on_lines_and_channels_at_several_distances_are_not_copied() -> None:
    assert packing(product_of([0, 16, 32], 4, 160), 2, 16) is None
    product = product_of([0, 1, 2], 4, 160)
    assert packing(product, 2, 16) is not None
    product.offsets = product.offsets.copy()
    product.offsets[1] += 1
    assert packing(product, 2, 16) is None


def test_parts_divide_the_channels() -> None:
    found = packing(product_of([0, 1, 2, 8, 9, 10, 16, 17, 18], 512, 112), 4, 16)
    assert found is not None and len(found.spans) == 6 and found.size == 27 * 16
    assert found.parts(512) == [16, 32]
