"""Work on several threads: in order, a few items ahead, with products on one thread each, and to the same bits."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits
from torch import nn

import graphprune as gp
from graphprune import calibrate, workers
from graphprune.calibrate import Calibration, collect
from graphprune.dialects import tools_of
from graphprune.dialects.aten.stages import apart
from graphprune.layers import Rows, layers
from graphprune.program import Array
from tests.models import CASES


def unlimited(count: int) -> int:
    return count


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")


# ---------------------------------------------------------------- threads
@pytest.mark.parametrize("count", [1, 2, 5])
def test_results_come_in_the_order_of_the_items_however_long_each_takes(count: int) -> None:
    def late(number: int) -> int:
        time.sleep(0.001 * (7 - number))
        return number

    with workers.workers(unlimited, count) as each:
        assert list(each(late, range(7))) == list(range(7))
        assert list(each(late, [])) == []


def test_only_a_few_items_ahead_are_begun() -> None:
    begun: list[int] = []
    with workers.workers(unlimited, 2) as each:
        for number in each(lambda item: begun.append(item) or item, range(20)):  # type: ignore[func-returns-value]
            assert max(begun) <= number + 3
    assert sorted(begun) == list(range(20))


def test_the_first_item_that_fails_is_told() -> None:
    def failing(number: int) -> int:
        if number in {3, 5}:
            raise ValueError(f"item {number}")
        return number

    with pytest.raises(ValueError, match="item 3"), workers.workers(unlimited, 2) as each:
        list(each(failing, range(9)))


def test_products_run_on_one_thread_inside_and_as_before_after_it() -> None:
    def get() -> int:
        return max(each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas")

    with threadpool_limits(limits=2, user_api="blas"):
        possible = get()
        assert possible == 2  # NumPy brings a library that can be told
        with workers.workers(unlimited, 2) as each:
            assert set(each(lambda _: get(), range(4))) == {1}
            with workers.lone_products():
                assert get() == 1
            assert get() == 1
        assert get() == possible
        with pytest.raises(KeyError), workers.lone_products():
            raise KeyError
        assert get() == possible
        with workers.workers(unlimited, 1) as each:  # what must go in turn may divide its products
            assert list(each(lambda _: get(), range(2))) == [possible] * 2


def test_networks_run_on_one_thread_inside_and_as_before_after_it() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        model = gp.analyze(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)), torch.ones(2, 4))
        with tools_of(model.program.native).workers(model.program) as each:
            assert set(each(lambda _: torch.get_num_threads(), range(8))) == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_how_many_threads_can_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert workers.cores() == 3
    for told in ("", "0", "many"):
        monkeypatch.setenv("OMP_NUM_THREADS", told)
        assert 1 <= workers.cores() <= 8


# ---------------------------------------------------------------- what may run side by side
class Drawing(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.rand_like(x)


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count.add_(1)
        return x * self.count


class Attention(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.scaled_dot_product_attention(x, x, x)


@pytest.mark.parametrize(
    ("module", "free"),
    [
        (nn.Identity(), True),
        (nn.Dropout(0.5).eval(), True),
        (nn.Dropout(0.5).train(), False),
        (Attention(), True),
        (Drawing(), False),
        (Counting(), False),
    ],
    ids=["nothing", "dropout, evaluated", "dropout, trained", "attention", "random numbers", "state"],
)
def test_what_draws_or_writes_runs_in_turn(module: nn.Module, free: bool) -> None:
    graph = torch.export.export(nn.Sequential(nn.Linear(4, 4), module), (torch.ones(1, 2, 3, 4),)).graph_module
    assert apart(graph) == free


# ---------------------------------------------------------------- bits
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 16, 3, padding=1), nn.ReLU(),
        nn.Conv2d(16, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 64, 5),
    ).eval()  # fmt: skip


def pruned(monkeypatch: pytest.MonkeyPatch, threads: int, seed: int = 0) -> bytes:
    monkeypatch.setenv("OMP_NUM_THREADS", str(threads))
    images = torch.randn(96, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    data = Calibration([((each,), {}) for each in images.split(8)])
    result = gp.prune(network(), images[:2], macs=0.5, recipe="reconstruct", calibration=data)
    return b"".join(each.contiguous().numpy().tobytes() for _, each in sorted(result.model.state_dict().items()))


def test_the_number_of_threads_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = pruned(monkeypatch, 1)
    assert pruned(monkeypatch, 3) == alone
    assert pruned(monkeypatch, 3, seed=1) != alone  # other data gives other numbers: they are looked at


class Order:
    """Takes down which case came when; the first cases are slow."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def update(self, rows: Rows, chosen: Array | None) -> None:
        number = float(rows.take()[0, 0, 0])
        time.sleep(0.02 / (1 + number))
        self.seen.append(number)


def seen(model: Any) -> list[list[float]]:
    analysis = gp.analyze(model, torch.ones(2, 4))
    cases: Iterator[Any] = iter([((torch.full((2, 4), float(number)),), {}) for number in range(8)])
    found = collect(analysis, layers(analysis), cases, lambda layer: Order())
    return [each.seen for each in found.values()]  # type: ignore[attr-defined]


def test_statistics_take_cases_in_their_order(three: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.no_grad():
        model = nn.Sequential(*(nn.Linear(4, 4, bias=False) for _ in range(3)))
        for each in model:
            each.weight.copy_(torch.eye(4))
    assert seen(model) == [list(map(float, range(8)))] * 3
    monkeypatch.setattr(calibrate._Turn, "at", lambda self, place: nullcontext())
    assert seen(model) != [list(map(float, range(8)))] * 3  # without turns the order would be another


# ---------------------------------------------------------------- other numbers
def both() -> list[Any]:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    return [gp.analyze(module, torch.ones(2, 4)), gp.analyze(ir.from_proto(CASES["squeeze_excite"].build()))]


@pytest.mark.parametrize("which", [0, 1], ids=["aten", "onnx"])
def test_the_same_with_other_numbers_leaves_the_first_as_it_is(which: int) -> None:
    analysis = both()[which]
    native = analysis.program.native
    tools = tools_of(native)
    case = next(tools.cases(native, 0, {}, 1))[0]
    last = [layer for layer in layers(analysis) if layer.stored is not None][-1]
    assert last.stored is not None
    staged = tools.staged(analysis.program, [last.node])
    new = last.stored.read() * 2 + 1
    state = staged.begin(case)
    staged.step(state)
    other, fork = staged.other({last.stored: new}), staged.fork(state)
    other.step(fork)
    staged.step(state)
    expected = tools.runner(native)(case)
    for a, b in zip(expected, staged.outputs(state), strict=True):
        assert np.allclose(a, b, atol=1e-5)
    written = tools.runner(tools.with_stored(analysis.program, {last.stored.name: new}))(case)
    for a, b in zip(written, other.outputs(fork), strict=True):
        assert np.allclose(a, b, atol=1e-4)
    assert not all(np.allclose(a, b, atol=1e-4) for a, b in zip(written, expected, strict=True))
