"""`flex_attention`: heads and their widths are cut, and with the heads what the scores look up for each."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._C._functorch import get_dynamic_layer_stack_depth
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

import graphprune as gp
from graphprune.dialects.aten import dialect
from graphprune.dialects.aten.capture import capture
from graphprune.dialects.aten.tools import ATEN
from graphprune.errors import GraphPruneError
from graphprune.rules.operator import Operator
from graphprune.rules.trace import Typed
from tests.aten.cases import examined, groups

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")

X = torch.randn(2, 16, 32, generator=torch.Generator().manual_seed(0))
Score = Callable[["Attention"], Callable[..., Tensor]]


class Attention(nn.Module):
    """Heads of width 8 over vectors of 32, with scores that `score` makes, and for causal ones a mask of blocks."""

    def __init__(self, score: Score, heads: int = 4, keys: int = 4, causal: bool = False, per_head: bool = False):
        super().__init__()
        self.heads, self.keys, self.causal = heads, keys, causal
        self.q, self.k, self.v = nn.Linear(32, 8 * heads), nn.Linear(32, 8 * keys), nn.Linear(32, 8 * keys)
        self.o = nn.Linear(8 * heads, 32)
        self.slopes, self.distances = nn.Parameter(torch.randn(4)), nn.Parameter(torch.randn(16))
        self.score, self.per_head = score, per_head

    def forward(self, x: Tensor) -> Tensor:
        """``b t 32 -> b t 32``."""
        b, t, _ = x.shape
        q = self.q(x).view(b, t, self.heads, -1).transpose(1, 2)
        k, v = (of(x).view(b, t, self.keys, -1).transpose(1, 2) for of in (self.k, self.v))
        mask = None
        if self.causal:
            many = self.heads if self.per_head else None
            mask = create_block_mask(lambda b, h, i, j: i >= j, None, many, t, t, device="cpu")
        y = flex_attention(q, k, v, score_mod=self.score(self), block_mask=mask, enable_gqa=self.heads != self.keys)
        return self.o(y.transpose(1, 2).reshape(b, t, -1))


def by_table(model: Attention) -> Callable[..., Tensor]:
    return lambda score, b, h, i, j: score + model.slopes[h] * (i - j)


def by_distance(model: Attention) -> Callable[..., Tensor]:
    return lambda score, b, h, i, j: score + model.distances[(i - j).abs()]


def by_number(model: Attention) -> Callable[..., Tensor]:
    return lambda score, b, h, i, j: score + 2.0 ** -(h + 1) * (i - j)


def by_other_head(model: Attention) -> Callable[..., Tensor]:
    return lambda score, b, h, i, j: score + model.slopes[3 - h] * (i - j)


def heads_of(analysis: gp.Analysis) -> set[str]:
    """What is cut with the heads of the queries."""
    return next(
        (set(names) for names, size in groups(analysis).items() if "q.weight:0/0" in names and size == 4), set()
    )


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("score", [by_table, by_distance])
def test_heads_and_widths_are_cut(score: Score, causal: bool) -> None:
    torch.manual_seed(0)
    analysis, verification = examined(Attention(score, causal=causal).eval(), X)
    assert verification.ok, str(verification)
    assert {"k.weight:0/0", "v.weight:0/0", "o.weight:1/0"} <= heads_of(analysis)
    assert ("slopes:0" in heads_of(analysis)) == (score is by_table)
    assert not analysis.trace.skipped
    assert {each.code for each in analysis.refusals} <= {"GP201", "GP202", "GP207"}


def test_several_heads_share_one_of_the_keys() -> None:
    torch.manual_seed(0)
    analysis, verification = examined(Attention(by_distance, heads=8, causal=True).eval(), X)
    assert verification.ok, str(verification)
    assert {"k.weight:0/0", "o.weight:1/0"} <= heads_of(analysis)


@pytest.mark.parametrize("score", [by_number, by_other_head])
def test_what_is_computed_from_the_number_of_a_head_keeps_all(score: Score) -> None:
    torch.manual_seed(0)
    analysis, verification = examined(Attention(score).eval(), X)
    assert verification.ok, str(verification)
    assert not heads_of(analysis)
    assert "something is computed from the number of the head" in {each.reason for each in analysis.refusals}


def test_masks_of_heads_keep_all() -> None:
    torch.manual_seed(0)
    analysis, verification = examined(Attention(by_table, causal=True, per_head=True).eval(), X)
    assert verification.ok, str(verification)
    assert not heads_of(analysis)
    assert "each head has a mask of its own" in {each.reason for each in analysis.refusals}


def test_a_table_that_is_left_as_it_is_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a rule that forgets the tie, heads would read the slopes of others."""
    forgetful = Operator(lambda trace, node: [Typed([])])
    monkeypatch.setitem(dialect.TABLE, "higher_order.flat_apply", forgetful)
    monkeypatch.setattr("graphprune.analysis._Walker._unaccounted", lambda self, operands, outputs: None)
    torch.manual_seed(0)
    _, verification = examined(Attention(by_table).eval(), X)
    assert {each.oracle for each in verification.checks if not each.ok} == {"permutation", "mask"}


def test_a_graph_that_fails_inside_a_vmap_leaves_no_level_open() -> None:
    captured = capture(Attention(by_table, causal=True).eval(), (X,))
    for node in captured.graph.graph.nodes:
        if node.target is torch.ops.aten.ge.Tensor:
            node.args = (node.args[0], torch.zeros(3).tolist())
    captured.graph.recompile()
    with pytest.raises(GraphPruneError, match="GP402"):
        ATEN.runner(captured)(((X,), {}))
    assert get_dynamic_layer_stack_depth() == 0
    assert np.isfinite(float(torch.vmap(torch.sum)(X).sum()))
