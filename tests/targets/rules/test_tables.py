"""How the work of a product is divided among threads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("tvm")

from graphprune.targets.rules.tables import division, slowest


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
