"""What checks run a captured model on."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import nn  # noqa: E402

from graphprune.dialects.aten.capture import capture  # noqa: E402
from graphprune.dialects.aten.cases import cases, shortened  # noqa: E402
from graphprune.dialects.aten.tools import ATEN  # noqa: E402


class Words(nn.Module):
    """``ids[b, t] -> [b, t, 5]``."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(100, 8)
        self.last = nn.Linear(8, 5)

    def forward(self, ids: Any, scale: Any = None) -> Any:
        found = self.last(self.table(ids))
        return found if scale is None else found * scale


def shapes(case: Any) -> list[tuple[int, ...]]:
    args, kwargs = case
    return [tuple(each.shape) for each in (*args, *kwargs.values())]


def test_a_long_batch_is_run_in_part_and_then_whole() -> None:
    captured = capture(nn.Linear(6, 3), (torch.randn(64, 6),))
    short, whole = cases(captured, 0, 2)
    assert [shapes(each) for each in short] == [[(4, 6)], [(4, 6)]]
    assert [shapes(each) for each in whole] == [[(64, 6)], [(64, 6)]]
    assert torch.equal(short[0][0][0], captured.args[0][:4])
    assert not torch.equal(short[1][0][0], short[0][0][0])
    assert ATEN.runner(captured)(short[0])[0].shape == (4, 3)


def test_short_inputs_stay() -> None:
    captured = capture(nn.Linear(6, 3), (torch.randn(2, 6),))
    assert shortened(captured) is None
    (found,) = cases(captured, 0, 2)
    assert [shapes(each) for each in found] == [[(2, 6)], [(2, 6)]]


def test_tokens_are_run_once_and_in_part() -> None:
    """Nothing is drawn for them, and what was run once need not be run again."""
    captured = capture(Words().eval(), (torch.randint(0, 100, (2, 90)),))
    assert [[shapes(each) for each in found] for found in cases(captured, 0, 2)] == [[[(2, 32)]], [[(2, 90)]]]


def test_inputs_of_one_size_are_cut_alike() -> None:
    captured = capture(Words().eval(), (torch.randint(0, 100, (9, 90)), torch.randn(9, 90, 1)))
    short = next(cases(captured, 0, 1))
    assert shapes(short[0]) == [(4, 90), (4, 90, 1)]  # numbers along the axis may be a signal: that stays whole
    assert ATEN.runner(captured)(short[0])[0].shape == (4, 90, 5)


def test_sizes_that_others_follow_from_stay() -> None:
    class Doubled(nn.Module):
        def forward(self, x: Any, y: Any) -> Any:
            return torch.cat([x, x]) + y

    captured = capture(Doubled(), (torch.randn(6, 3), torch.randn(12, 3)))
    assert shortened(captured) is None
