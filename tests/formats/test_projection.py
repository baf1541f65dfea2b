"""What a format chooses is the best there is: held against all masks of small matrices, told apart in plain loops."""

from __future__ import annotations

from itertools import product
from math import ceil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphprune.errors import GraphPruneError
from graphprune.formats import FORMATS, parse
from graphprune.formats.balanced import Balanced
from graphprune.formats.block import Block
from graphprune.formats.format import Array, kept
from graphprune.formats.nm import NM
from graphprune.formats.pattern import Pattern
from graphprune.formats.tile import Tile
from graphprune.formats.unstructured import Unstructured
from graphprune.formats.vector_nm import VectorNM

MOST = 12


def chunks(size: int, step: int) -> list[range]:
    return [range(begin, min(begin + step, size)) for begin in range(0, size, step)]


def pieces(shape: tuple[int, int, int], rows: int, columns: int) -> list[list[tuple[int, int, int]]]:
    """The entries of every block, the smaller ones at the ends included."""
    outputs, taps, channels = shape
    return [
        [(o, t, c) for o in band for c in wide]
        for band in chunks(outputs, rows)
        for t in range(taps)
        for wide in chunks(channels, columns)
    ]


def blocks_kept(mask: Array, rows: int, columns: int) -> int | None:
    """How many blocks are kept; None where one is kept in part."""
    count = 0
    for piece in pieces(mask.shape, rows, columns):
        there = [bool(mask[at]) for at in piece]
        if any(there) != all(there):
            return None
        count += any(there)
    return count


def grouped(mask: Array, vector: int, group: int, count: int, exact: bool) -> bool:
    """Whether each group of each band keeps so many whole vectors (at most, or exactly)."""
    outputs, taps, channels = mask.shape
    for band in chunks(outputs, vector):
        for t, wide in product(range(taps), chunks(channels, group)):
            vectors = [{bool(mask[o, t, c]) for o in band} for c in wide]
            used = sum(True in each for each in vectors)
            quota = ceil(count * len(wide) / group)
            if any(len(each) > 1 for each in vectors) or used > quota or (exact and used != quota):
                return False
    return True


def best(saliency: Array, legal: list[Array]) -> float:
    return max(float(saliency[mask].sum()) for mask in legal)


def masks(shape: tuple[int, int, int]) -> list[Array]:
    size = int(np.prod(shape))
    return [np.array(bits, bool).reshape(shape) for bits in product((False, True), repeat=size)]


@st.composite
def saliencies(draw: st.DrawFn, taps: tuple[int, ...] = (1, 2)) -> Array:
    """Few values, so that there are ties; up to twelve entries, so that there are few masks."""
    shapes = [
        (o, t, c) for o in range(1, 7) for t in taps for c in range(1, 13) if o * t * c <= MOST and (o > 1 or c > 1)
    ]
    shape = draw(st.sampled_from(shapes))
    values = draw(st.lists(st.integers(0, 5), min_size=MOST, max_size=MOST))
    return np.array(values[: int(np.prod(shape))], np.float32).reshape(shape)


SHARES = st.sampled_from([0.0, 0.25, 0.5, 0.6, 0.75, 0.9, 1.0])
SETTINGS = settings(max_examples=40, deadline=None)


@SETTINGS
@given(saliencies(), SHARES)
def test_unstructured(saliency: Array, share: float) -> None:
    mask = Unstructured().project(saliency, share)
    count = kept(saliency.size, share)
    assert mask.sum() == count
    assert saliency[mask].sum() == best(saliency, [m for m in masks(saliency.shape) if m.sum() <= count])


@SETTINGS
@given(saliencies(), SHARES, st.integers(1, 4), st.integers(1, 4))
def test_blocks(saliency: Array, share: float, rows: int, columns: int) -> None:
    mask = Block(rows, columns).project(saliency, share)
    count = kept(len(pieces(saliency.shape, rows, columns)), share)
    assert blocks_kept(mask, rows, columns) == count
    legal = [m for m in masks(saliency.shape) if (blocks_kept(m, rows, columns) or 0) <= count]
    legal = [m for m in legal if blocks_kept(m, rows, columns) is not None]
    assert saliency[mask].sum() == best(saliency, legal)


@SETTINGS
@given(saliencies(), st.integers(1, 4), st.integers(2, 5), st.integers(1, 4))
def test_n_m_and_vectors(saliency: Array, n: int, m: int, vector: int) -> None:
    n = min(n, m - 1)
    form = NM(n, m) if vector == 1 else VectorNM(n, m, vector)
    mask = form.project(saliency)
    assert grouped(mask, vector, m, n, exact=True)
    legal = [each for each in masks(saliency.shape) if grouped(each, vector, m, n, exact=False)]
    assert saliency[mask].sum() == best(saliency, legal)
    assert all(form.holds(each) == grouped(each, vector, m, n, exact=False) for each in masks(saliency.shape)[::7])


@SETTINGS
@given(saliencies(), st.integers(2, 5), SHARES)
def test_balanced(saliency: Array, bank: int, share: float) -> None:
    form = Balanced(bank)
    mask = form.project(saliency, share)
    legal = [each for each in masks(saliency.shape) if grouped(each, 1, bank, kept(bank, share), exact=True)]
    assert any(np.array_equal(mask, each) for each in legal)
    assert saliency[mask].sum() == best(saliency, legal)
    for each in masks(saliency.shape)[::7]:
        assert form.holds(each) == any(grouped(each, 1, bank, count, exact=True) for count in range(bank + 1))


@SETTINGS
@given(saliencies(), st.integers(2, 4), SHARES)
def test_tiles(saliency: Array, outputs: int, share: float) -> None:
    form = Tile(outputs)
    mask = form.project(saliency, share)
    count = kept(len(pieces(saliency.shape, outputs, 1)), share)
    legal = [m for m in masks(saliency.shape) if (blocks_kept(m, outputs, 1) or 0) <= count]
    legal = [m for m in legal if blocks_kept(m, outputs, 1) is not None]
    assert saliency[mask].sum() == best(saliency, legal)
    assert form.holds(mask)


def patterned(mask: Array, entries: int, library: Array, count: int) -> bool:
    """Whether each output keeps so many kernels, each with a pattern of the library."""
    allowed = {tuple(each) for each in library.tolist()}
    for output in mask.transpose(0, 2, 1).tolist():
        there = [tuple(kernel) for kernel in output if any(kernel)]
        if len(there) != count or not set(there) <= allowed:
            return False
    return True


@SETTINGS
@given(saliencies(taps=(3, 4)), st.integers(1, 2), st.integers(1, 3), SHARES)
def test_patterns(saliency: Array, entries: int, most: int, share: float) -> None:
    form = Pattern(entries, most)
    mask = form.project(saliency, share)
    taps, channels = saliency.shape[1:]
    used = {tuple(k) for output in mask.transpose(0, 2, 1).tolist() for k in output if any(k)}
    assert len(used) <= most
    count = int(mask.any(axis=1).sum(axis=1).max())
    asked = min(1.0, (1 - share) * taps / entries) * channels
    assert count == (0 if share == 1 else min(channels, max(1, int(asked + 0.5))))
    library = form.library(saliency.astype(np.float64))
    legal = [each for each in masks(saliency.shape) if patterned(each, entries, library, count)]
    assert patterned(mask, entries, library, count)
    assert saliency[mask].sum() == best(saliency, legal)
    assert form.holds(mask)


def test_with_all_patterns_the_choice_is_the_best_of_all() -> None:
    saliency = np.random.default_rng(0).integers(0, 9, (2, 4, 1)).astype(np.float64)
    mask = Pattern(2, 6).project(saliency, 0.5)
    legal = [m for m in masks((2, 4, 1)) if (m.sum(axis=1) == 2).all()]
    assert saliency[mask].sum() == best(saliency, legal)


def test_the_brute_force_can_find_a_mistake() -> None:
    """A mask that drops the heaviest block keeps less than the best one, and a block kept in part is no block."""
    saliency = np.array([[[5.0, 1.0]], [[4.0, 1.0]]])
    legal = [m for m in masks((2, 1, 2)) if blocks_kept(m, 2, 1) == 1]
    assert best(saliency, legal) == 9.0
    assert blocks_kept(np.array([[[True, False]], [[False, False]]]), 2, 1) is None
    assert not grouped(np.array([[[True, True]]]), 1, 2, 1, exact=False)
    assert not grouped(np.array([[[False, False]]]), 1, 2, 1, exact=True)


ALL = [text for name in FORMATS.names() for text in FORMATS.load(name).examples]


@pytest.mark.parametrize("text", ALL)
def test_projecting_again_changes_nothing(text: str) -> None:
    """Importance that is zero where the mask is leads to the same mask: the projection is idempotent."""
    form = parse(text)
    saliency = np.random.default_rng(1).random((192, 9, 72)) + 0.1
    share = form.sparsity or 0.8
    mask = form.project(saliency, share)
    assert form.holds(mask)
    assert np.array_equal(form.project(np.where(mask, saliency, 0.0), share), mask)


@pytest.mark.parametrize("text", ALL)
def test_what_is_kept_grows_with_the_levels_of_gains(text: str) -> None:
    form = parse(text)
    saliency = np.random.default_rng(1).random((128, 1, 128))
    gains = None if form.misfit(128, 1, 128) else form.gains(saliency)
    if gains is None:
        assert form.sparsity is not None or form.name == "pattern"
        return
    assert np.all(np.diff(gains) <= 1e-9)
    for levels in (1, len(gains) // 3, len(gains)):
        mask = form.project(saliency, 1 - levels / len(gains))
        assert saliency[mask].sum() == pytest.approx(gains[:levels].sum())


@pytest.mark.parametrize(
    ("text", "share", "words"),
    [
        ("2:4", 0.9, "2:4 removes 50.0% of the weights, not 90.0%"),
        ("8x1", None, "8x1 does not say how many weights to remove"),
        ("8x1", 1.5, "1.5 is not a share from 0 to 1"),
        ("unstructured", float("nan"), "nan is not a share from 0 to 1"),
    ],
)
def test_a_sparsity_that_it_cannot_have_is_refused(text: str, share: float | None, words: str) -> None:
    with pytest.raises(GraphPruneError, match="GP107") as caught:
        parse(text).project(np.ones((8, 8)), share)
    assert caught.value.what == words


@pytest.mark.parametrize("value", [-1.0, float("nan")])
def test_saliency_must_be_a_number_from_0_on(value: float) -> None:
    with pytest.raises(GraphPruneError, match="GP107"):
        parse("unstructured").project(np.array([[1.0, value]]), 0.5)


def test_infinite_saliency_is_kept() -> None:
    saliency = np.array([[1.0, np.inf, 2.0, 3.0]])
    for text in ("unstructured", "1x2", "balanced/4"):
        assert parse(text).project(saliency, 0.5)[0, 1]
    assert NM(2, 4).project(saliency).tolist() == [[False, True, False, True]]
