"""The optimizer of benchmarks/accuracy/muon.py: updates that are orthogonal, as long as AdamW's, and a descent."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

import importlib.util
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

_FOUND = importlib.util.spec_from_file_location("muon", Path(__file__).parents[2] / "benchmarks/accuracy/muon.py")
assert _FOUND is not None and _FOUND.loader is not None
_MUON = importlib.util.module_from_spec(_FOUND)
_FOUND.loader.exec_module(_MUON)
Muon, orthogonal = _MUON.Muon, _MUON.orthogonal

SEEDS = st.integers(0, 2**31)


def with_values(seed: int, rows: int, columns: int, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A matrix of these singular values, and the orthogonal one nearest to it."""
    generator = torch.Generator().manual_seed(seed)
    rank = min(rows, columns)
    left, right = (torch.linalg.qr(torch.randn(size, rank, generator=generator))[0] for size in (rows, columns))
    return left * values[:rank] @ right.T, left @ right.T


@given(SEEDS, st.integers(1, 24), st.integers(1, 24), st.floats(1e-6, 1e6))
def test_singular_values_come_near_to_one(seed: int, rows: int, columns: int, scale: float) -> None:
    """From whatever scale to 0.6..1.3, on the same singular vectors."""
    matrix, nearest = with_values(seed, rows, columns, torch.logspace(0, -1.5, 24) * scale)
    found = torch.linalg.svdvals(orthogonal(matrix))
    assert float(found.min()) > 0.6 and float(found.max()) < 1.3
    assert float((orthogonal(matrix) * nearest).sum()) > 0.6 * min(rows, columns)


@given(SEEDS, st.integers(1, 12), st.integers(1, 12))
def test_a_transposed_matrix_gives_the_transposed(seed: int, rows: int, columns: int) -> None:
    matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    assert torch.allclose(orthogonal(matrix.T), orthogonal(matrix).T, atol=1e-4)


def test_zeros_stay_zeros() -> None:
    assert torch.equal(orthogonal(torch.zeros(3, 4)), torch.zeros(3, 4))


@pytest.mark.parametrize("shape", [(8, 4, 3, 3), (6, 20), (20, 6)])
def test_a_step_is_as_long_as_one_of_adamw(shape: tuple[int, ...]) -> None:
    """The root of the mean square of what a weight moves by is 0.2 rates, where it has full rank."""
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(shape))
    before = weight.detach().clone()
    weight.grad = torch.randn(shape)
    Muon([weight], lr=0.01).step()
    length = float((weight.detach() - before).square().mean().sqrt())
    assert 0.7 * 0.2 * 0.01 < length < 1.2 * 0.2 * 0.01


def test_vectors_are_those_of_adamw() -> None:
    torch.manual_seed(0)
    ours, theirs = (torch.nn.Parameter(torch.ones(5)) for _ in range(2))
    one = Muon([ours], lr=0.01, weight_decay=0.1)
    other = torch.optim.AdamW([theirs], lr=0.01, betas=(0.9, 0.99), weight_decay=0.1)
    for _ in range(5):
        ours.grad = theirs.grad = torch.randn(5)
        one.step()
        other.step()
    assert torch.allclose(ours, theirs, atol=1e-6)
    assert not torch.allclose(ours, torch.ones(5), atol=1e-3)


def test_directions_of_small_gradients_move_as_far() -> None:
    """Least squares whose curvatures differ by 1,000: plain descent at its largest stable rate is left far behind."""
    torch.manual_seed(0)
    curvature = torch.logspace(0, -3, 8)
    wanted = torch.randn(8, 8)

    def reached(make: object) -> float:
        weight = torch.nn.Parameter(torch.zeros(8, 8))
        optimizer = make([weight])  # type: ignore[operator]
        for step in range(200):
            for group in optimizer.param_groups:
                group["lr"] = group.setdefault("first", group["lr"]) * (1 - step / 200)
            weight.grad = (weight.detach() - wanted) * curvature
            optimizer.step()
        return float((weight.detach() - wanted).square().mean())

    assert reached(lambda held: Muon(held, lr=0.3)) < 0.2 * reached(lambda held: torch.optim.SGD(held, lr=1.0))
