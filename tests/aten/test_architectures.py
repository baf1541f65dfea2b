"""Defects that whole architectures brought to light, each with the groups that its smallest form must have."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from graphprune.analysis import analyze_program  # noqa: E402
from graphprune.dialects.aten.capture import capture  # noqa: E402
from graphprune.dialects.aten.tools import ATEN  # noqa: E402
from graphprune.errors import GraphPruneError  # noqa: E402
from graphprune.plan import make_plan  # noqa: E402
from graphprune.verify import verify_models  # noqa: E402
from tests.aten.cases import examined, groups  # noqa: E402


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


class Experts(nn.Module):
    """Rows sorted by group, one matrix for each group."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Linear(3, 8)
        self.weight = nn.Parameter(torch.randn(2, 8, 6))
        self.out = nn.Linear(6, 4)

    def forward(self, x: Tensor, ends: Tensor) -> Tensor:
        return self.out(torch.ops.transformers.grouped_mm_fallback(self.into(x), self.weight, ends))


def test_experts_keep_their_number_and_lose_width() -> None:
    pytest.importorskip("transformers.integrations.moe", reason="it registers the operator", exc_type=Exception)
    analysis, verification = examined(Experts(), torch.randn(5, 3), torch.tensor([2, 5], dtype=torch.int32))
    assert verification.ok, verification
    assert groups(analysis) == {
        frozenset({"into.weight:0", "into.bias:0", "weight:1"}): 8,
        frozenset({"weight:2", "out.weight:1"}): 6,
    }


class GatedExperts(nn.Module):
    """Experts on PyTorch's own operator, whose rows must be multiples of 16 bytes: 8 entries of bfloat16, which is what
    torch.export takes. The first gives values and gates at once."""

    def __init__(self) -> None:
        super().__init__()
        dtype = torch.bfloat16
        self.into = nn.Linear(4, 32, dtype=dtype)
        self.up = nn.Parameter(torch.randn(2, 32, 2 * 24, dtype=dtype))
        self.down = nn.Parameter(torch.randn(2, 40, 24, dtype=dtype))
        self.out = nn.Linear(40, 4, dtype=dtype)

    def forward(self, x: Tensor, ends: Tensor) -> Tensor:
        gates, values = torch._grouped_mm(self.into(x), self.up, offs=ends).chunk(2, -1)
        return self.out(torch._grouped_mm(gates.sigmoid() * values, self.down.transpose(1, 2), offs=ends))


RUNS = torch.randn(5, 4, dtype=torch.bfloat16), torch.tensor([2, 5], dtype=torch.int32)


@pytest.mark.parametrize("ratio", [0.3, 0.45, 0.6])
def test_experts_keep_rows_that_their_operator_takes(ratio: float) -> None:
    captured = capture(GatedExperts().eval(), RUNS)
    analysis = analyze_program(ATEN.read(captured))
    plan = make_plan(analysis, ratio=ratio, criterion="random")
    assert [cut.size for cut in plan.groups] == [32, 24, 40]
    assert all(len(cut.keep) % 8 == 0 for cut in plan.groups)
    verification = verify_models(captured, ATEN.write(analysis, plan.keep(analysis)), plan)
    assert verification.ok, verification


def test_without_multiples_the_operator_would_refuse() -> None:
    captured = capture(GatedExperts().eval(), RUNS)
    analysis = analyze_program(ATEN.read(captured))
    analysis.trace.multiples.clear()
    plan = make_plan(analysis, ratio=0.3, criterion="random")
    with pytest.raises(GraphPruneError, match="GP402"):
        ATEN.runner(ATEN.write(analysis, plan.keep(analysis)))((RUNS, {}))


class Turned(nn.Module):
    """A rotary embedding by complex numbers, over a slice of the width whose start may be cut to an odd number."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Linear(3, 4 + 6)
        self.out = nn.Linear(4 + 6, 2)

    def forward(self, x: Tensor, angles: Tensor) -> Tensor:
        plain, turned = self.into(x).split([4, 6], dim=-1)
        pairs = torch.view_as_complex(turned.reshape(*turned.shape[:-1], -1, 2))
        pairs = pairs * torch.polar(torch.ones_like(angles), angles)
        return self.out(torch.cat([plain, torch.view_as_real(pairs).flatten(-2)], -1))


@pytest.mark.parametrize("ratio", [0.25, 0.5])
def test_complex_pairs_go_together_at_any_stride(ratio: float) -> None:
    analysis, verification = examined(Turned(), torch.randn(2, 5, 3), torch.randn(5, 1), ratio=ratio)
    assert verification.ok, verification
    assert sorted(groups(analysis).values()) == [3, 4]


class Chunks(nn.Module):
    """A sequence padded to full chunks: only the width says where the reshape meets."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(3, 12), nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.into(x).unflatten(-1, (4, 3))
        y = F.pad(y, (0, 0, 0, 0, 0, -y.shape[1] % 4))
        y = y.reshape(y.shape[0], -1, 4, 4, 3).cumsum(2)
        return self.out(y.reshape(y.shape[0], -1, 12))


def test_a_reshape_that_meets_only_from_the_end() -> None:
    analysis, verification = examined(Chunks(), torch.randn(2, 6, 3))
    assert verification.ok, verification
    assert sorted(groups(analysis).values()) == [3, 4]


class Shared(nn.Module):
    """Batch and heads in one axis whose size is computed at run time, for a tensor that is made anew."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.out = nn.Linear(3, 12), nn.Linear(3, 12), nn.Linear(4, 2)

    def heads(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        return x.view(b, t, 4, 3).transpose(1, 2).reshape(b * 4, t, 3)

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        scores = torch.baddbmm(
            torch.zeros(b * 4, t, t), self.heads(self.query(x)), self.heads(self.key(x)).transpose(1, 2), beta=1.0
        )
        return self.out(scores.view(b, 4, t, t).mean(-1).transpose(1, 2))


def test_a_computed_size_becomes_the_product_it_is_tied_to() -> None:
    analysis, verification = examined(Shared(), torch.randn(2, 5, 3))
    assert verification.ok, verification
    assert groups(analysis) == {
        frozenset({"query.weight:0/0", "query.bias:0/0", "key.weight:0/0", "key.bias:0/0", "out.weight:1"}): 4,
        frozenset({"query.weight:0/1", "query.bias:0/1", "key.weight:0/1", "key.bias:0/1"}): 3,
    }


class Looked(nn.Module):
    """An entry of the width is taken, but only for its shape."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.into(x)
        return self.out(y + torch.arange(y[:, :, -1].shape[1])[None, :, None])


def test_what_is_looked_at_for_its_shape_may_be_cut() -> None:
    analysis, verification = examined(Looked(), torch.randn(2, 5, 3))
    assert verification.ok, verification
    assert groups(analysis) == {frozenset({"into.weight:0", "into.bias:0", "out.weight:1"}): 8}


class Stepped(nn.Module):
    """A cell stepped by hand from a state of zeros."""

    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.cell, self.out = kind(3, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        state = torch.zeros(x.shape[0], 6)
        for k in range(3):
            state = self.cell(x[:, k], state)
        return self.out(state)


class Long(nn.LSTMCell):
    """An LSTM cell that starts from the same zeros twice, and hands on its hidden state."""

    def forward(self, x: Tensor, state: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x, (state, state))[0]


@pytest.mark.parametrize(("kind", "part"), [(nn.GRUCell, "/1"), (nn.RNNCell, ""), (Long, "/1")])
def test_cells_stepped_by_hand(kind: type[nn.Module], part: str) -> None:
    analysis, verification = examined(Stepped(kind), torch.randn(2, 3, 3))
    assert verification.ok, verification
    rows = {f"cell.{name}:0{part}" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
    assert groups(analysis) == {frozenset({*rows, "cell.weight_hh:1", "out.weight:1"}): 6}


class Listed(nn.Module):
    """Queries of several heads with one key in one projection, taken apart by lists of positions."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(3, 5 * 4), nn.Linear(4 * 4, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.into(x).view(x.shape[0], x.shape[1], 5, 4)
        return self.out((y[:, :, :-1] * y[:, :, [-1]]).flatten(-2))


def test_one_entry_by_a_list_of_positions() -> None:
    analysis, verification = examined(Listed(), torch.randn(2, 5, 3))
    assert verification.ok, verification
    assert sorted(groups(analysis).values()) == [4, 4]


class Unit(nn.Module):
    """Directions per head: a norm of removed entries would be zero in a masked model, and a quotient no number."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(3, 12), nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.into(x).unflatten(-1, (4, 3))
        return self.out((y / y.norm(dim=-1, keepdim=True)).flatten(-2))


def test_masked_entries_are_numbers() -> None:
    analysis, verification = examined(Unit(), torch.randn(2, 5, 3))
    assert verification.ok, verification
    assert sorted(groups(analysis).values()) == [3, 4]


class Interleaved(nn.Module):
    """Pairs turned by taking every other entry, and put back by the shape of what they came from."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.into(x)
        turned = torch.stack([-y[..., 1::2], y[..., ::2]], -1).reshape_as(y)
        return self.out(y + turned)


def test_interleaved_pairs() -> None:
    analysis, verification = examined(Interleaved(), torch.randn(2, 5, 3))
    assert verification.ok, verification
    assert groups(analysis) == {frozenset({"into.weight:0/0", "into.bias:0/0", "out.weight:1/0"}): 4}
