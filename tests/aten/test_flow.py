"""Higher-order operators: what flows through branches, loops and scans is cut as it would be without them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._higher_order_ops.associative_scan import associative_scan
from torch._higher_order_ops.scan import scan
from torch._higher_order_ops.while_loop import while_loop
from torch.fx import GraphModule

import graphprune as gp
from graphprune.analysis import analyze_program
from graphprune.dialects.aten.capture import capture
from graphprune.dialects.aten.inline import separate_bodies
from graphprune.dialects.aten.tools import ATEN
from graphprune.errors import GraphPruneError
from graphprune.plan import make_plan
from tests.aten.cases import examined, groups


class Branches(nn.Module):
    """Two ways to compute twelve channels; one has channels, numbers and a constant of its own inside."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(8, 16)
        self.short = nn.Linear(16, 12)
        self.inner, self.outer = nn.Linear(16, 20), nn.Linear(20, 12)
        self.norm = nn.LayerNorm(20)
        self.register_buffer("order", torch.arange(20).view(5, 4).t().reshape(-1))
        self.down = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        def long(h: Tensor) -> Tensor:
            folded = self.inner(h).view(-1, 4, 5).transpose(1, 2).reshape(-1, 20)
            return torch.tanh(self.outer(self.norm(folded)[:, self.order])) * torch.tensor(0.5)

        def short(h: Tensor) -> Tensor:
            return torch.relu(self.short(h))

        h = torch.relu(self.up(x))
        return self.down(torch.cond(x.sum() > 0, long, short, (h,)))


class Loop(nn.Module):
    """A hidden state that goes three rounds through a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.wide, self.narrow = nn.Linear(8, 16), nn.Linear(16, 24), nn.Linear(24, 16)
        self.down = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        def again(count: Tensor, h: Tensor) -> Tensor:
            return count < 3

        def step(count: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
            return count + 1, h + self.narrow(torch.tanh(self.wide(h)))

        _, h = while_loop(again, step, (torch.tensor(0), torch.relu(self.up(x))))
        return self.down(h)


class Scan(nn.Module):
    """A plain recurrent cell: 16 channels in, a state of 12."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.reads, self.keeps = nn.Linear(8, 16), nn.Linear(16, 12), nn.Linear(12, 12)
        self.down = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        def step(state: Tensor, each: Tensor) -> tuple[Tensor, Tensor]:
            new = torch.tanh(self.reads(each) + self.keeps(state))
            return new, new.clone()

        read = torch.relu(self.up(x)).transpose(0, 1)
        state = read.new_zeros(x.shape[0], self.keeps.in_features)
        last, every = scan(step, state, read)
        return self.down(every) + self.down(last)


class Map(nn.Module):
    """A layer that is applied to each row, with a vector from around it."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.each, self.down = nn.Linear(8, 16), nn.Linear(16, 12), nn.Linear(12, 4)
        self.scale = nn.Parameter(torch.rand(16) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        from torch._higher_order_ops.map import map as each_of

        found: Tensor = each_of(lambda row, scale: torch.tanh(self.each(row * scale)), self.up(x), self.scale)
        return self.down(found)


class Associative(nn.Module):
    """A scan in a tree of pairs, which torch.export writes out with `vmap` over the steps of each round."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        steps = torch.tanh(self.up(x)).transpose(0, 1)
        found: Tensor = associative_scan(lambda a, b: a * b + a, steps, 0, combine_mode="generic")
        return self.down(found)


MODELS: dict[type[nn.Module], tuple[int, ...]] = {
    Branches: (3, 8),
    Loop: (3, 8),
    Scan: (3, 5, 8),
    Map: (3, 8),
    Associative: (3, 5, 8),
}
GROUPS = {
    Branches: {
        frozenset({"up.weight:0", "up.bias:0", "short.weight:1", "inner.weight:1"}): 16,
        frozenset({"short.weight:0", "short.bias:0", "outer.weight:0", "outer.bias:0", "down.weight:1"}): 12,
    },
    Loop: {
        frozenset(
            {"up.weight:0", "up.bias:0", "wide.weight:1", "narrow.weight:0", "narrow.bias:0", "down.weight:1"}
        ): 16,
        frozenset({"wide.weight:0", "wide.bias:0", "narrow.weight:1"}): 24,
    },
    Scan: {
        frozenset({"up.weight:0", "up.bias:0", "reads.weight:1"}): 16,
        frozenset(
            {"reads.weight:0", "reads.bias:0", "keeps.weight:0", "keeps.bias:0", "keeps.weight:1", "down.weight:1"}
        ): 12,
    },
    Map: {
        frozenset({"up.weight:0", "up.bias:0", "scale:0", "each.weight:1"}): 16,
        frozenset({"each.weight:0", "each.bias:0", "down.weight:1"}): 12,
    },
    Associative: {frozenset({"up.weight:0", "up.bias:0", "down.weight:1"}): 16},
}


def signed(model: type[nn.Module], sign: int = 1) -> Tensor:
    """An input of a model whose sum is positive, or negative."""
    torch.manual_seed(0)
    return sign * torch.randn(MODELS[model]).abs()


@pytest.mark.parametrize("model", MODELS)
def test_channels_flow_through_bodies(model: type[nn.Module]) -> None:
    analysis, verification = examined(model(), signed(model))
    found = groups(analysis)
    assert {each: found.get(each) for each in GROUPS[model]} == GROUPS[model]
    assert verification.ok, str(verification)
    assert {each.code for each in analysis.refusals} == {"GP201", "GP202"}


def difference(model: type[nn.Module], sign: int) -> float:
    """How far a model that is cut is from one that is masked; other branches are taken for another sign."""
    captured = capture(model().eval(), (signed(model),))
    analysis = analyze_program(ATEN.read(captured))
    keep = make_plan(analysis, ratio=0.5, criterion="random").keep(analysis)
    case: Any = ((signed(model, sign),), {})
    small, masked = (ATEN.runner(made(analysis, keep))(case)[0] for made in (ATEN.write, ATEN.masked))
    assert np.abs(masked - ATEN.runner(captured)(case)[0]).max() > 1e-3
    return float(np.abs(small - masked).max())


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("model", MODELS)
def test_what_is_cut_is_as_if_it_were_masked(model: type[nn.Module], sign: int) -> None:
    assert difference(model, sign) < 1e-5


@pytest.mark.parametrize("model", MODELS)
def test_modules_are_pruned(model: type[nn.Module]) -> None:
    x = signed(model)
    result = gp.prune(model().eval(), x, ratio=0.5)
    assert isinstance(result.model, GraphModule if model is Branches else model)  # numbers stand in the code of one
    assert result.report.pruned.parameters < 0.6 * result.report.dense.parameters
    with torch.no_grad():
        assert result.model(-x).shape[-1] == 4


def untied(trace: Any, blocks: Any) -> Any:
    """Branches whose results have nothing to do with each other."""
    node = trace.node
    for block in blocks:
        trace.walk(block)
    trace.node = node
    return [trace.types[value] for value in blocks[0].outputs]


def unlooped(trace: Any, body: Any, carried: Any, leading: int, scans: Any) -> Any:
    """A loop whose state does not come round again."""
    node = trace.node
    for formal, typed in zip(body.inputs, [*carried, *scans], strict=False):
        trace.types[formal] = typed
    trace.walk(body)
    trace.node = node
    return [trace.types[value] for value in body.outputs]


@pytest.mark.parametrize(("model", "name", "wrong"), [(Branches, "branch", untied), (Scan, "loop", unlooped)])
def test_a_wrong_rule_is_caught(
    model: type[nn.Module], name: str, wrong: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"graphprune.rules.control.{name}", wrong)
    with pytest.raises((GraphPruneError, AssertionError), match=r"GP402|is far"):
        assert difference(model, -1) < 1e-3, "what is cut is far from what is masked"


def test_calls_that_share_a_body_get_their_own() -> None:
    graph = capture(Branches().eval(), (signed(Branches),)).graph
    node = next(each for each in graph.graph.nodes if "cond" in str(each.target))
    expected = graph(signed(Branches))
    node.args = (node.args[0], node.args[1], node.args[1], node.args[3])
    separate_bodies(graph)
    graph.recompile()
    bodies = [graph.get_submodule(each.target) for each in node.args[1:3]]
    assert bodies[0] is not bodies[1]
    assert [str(each) for each in bodies[0].graph.nodes] == [str(each) for each in bodies[1].graph.nodes]
    torch.testing.assert_close(graph(signed(Branches)), expected)


@pytest.mark.parametrize("model", [Branches, Scan, Associative])
def test_a_pruned_graph_with_bodies_is_exported_again(model: type[nn.Module]) -> None:
    x = signed(model)
    small = gp.prune(model().eval(), x, ratio=0.5, as_graph=True).model
    with torch.no_grad():
        again = torch.export.export(small, (x,)).module()
        for each in (x, -x):
            torch.testing.assert_close(again(each), small(each))


def test_bodies_hold_no_tensors() -> None:
    """What traces a pruned graph anew (torch.export, torch.compile) would mistake them for others."""
    x = signed(Branches)
    dense = capture(Branches().eval(), (x,)).graph
    small = gp.prune(Branches().eval(), x, ratio=0.5, as_graph=True).model
    for graph in (dense, small):
        bodies = [each for each in graph.modules() if isinstance(each, GraphModule) and each is not graph]
        assert len(bodies) == 2
        assert not any(body.graph.find_nodes(op="get_attr") for body in bodies)


@pytest.mark.parametrize("model", [Branches, Loop])
def test_modules_with_bodies_are_compiled(model: type[nn.Module]) -> None:
    x = signed(model)
    compiled = torch.compile(model().eval(), backend="graphprune", options={"ratio": 0.5, "then": "aot_eager"})
    with torch.no_grad():
        for each in (x, -x):
            assert compiled(each).shape[-1] == 4
