"""Graphs made plain after capture: arithmetic on sizes belongs to one reader each."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from graphprune.analysis import analyze_program
from graphprune.dialects.aten.capture import capture
from graphprune.dialects.aten.inline import separate_sizes
from graphprune.dialects.aten.tools import ATEN
from graphprune.plan import Plan
from graphprune.verify import verify_models


class Layers(torch.nn.Module):  # type: ignore[misc,name-defined]
    """Two attentions of four heads, which torch.export views as ``batch * 4``."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.MultiheadAttention(32, 4) for _ in range(2))

    def forward(self, x: Any) -> Any:
        """``s b 32 -> s b 32``."""
        for layer in self.layers:
            x = x + layer(x, x, x, need_weights=False)[0]
        return x


def test_layers_may_lose_different_heads() -> None:
    torch.manual_seed(0)
    captured = capture(Layers().eval(), (torch.randn(3, 2, 32),))
    analysis = analyze_program(ATEN.read(captured))
    heads = [group for group in analysis.groups if group.kind == "head"]
    assert len(heads) == 2
    keep = {heads[0].dim: np.array([0, 2, 3]), heads[1].dim: np.array([1])}
    pruned = ATEN.write(analysis, keep)
    assert verify_models(captured, pruned, Plan.of(analysis, keep)).ok


def _shared() -> Any:
    """A graph in which ``n * 4`` and ``n * 4 + 1`` have two readers each."""
    graph = torch.fx.Graph()
    x = graph.placeholder("x")
    size = graph.call_function(torch.ops.aten.sym_size.int, (x, 0))
    product = graph.call_function(operator.mul, (size, 4))
    total = graph.call_function(operator.add, (product, 1))
    made = [graph.call_function(torch.ops.aten.zeros.default, ([each],)) for each in (product, total, total)]
    graph.output(tuple(made))
    return torch.fx.GraphModule(torch.nn.Module(), graph)


def test_every_reader_gets_arithmetic_of_its_own() -> None:
    module = _shared()
    separate_sizes(module)
    module.recompile()
    module.graph.lint()
    arithmetic = [node for node in module.graph.nodes if node.target in {operator.mul, operator.add}]
    assert len(arithmetic) == 5  # a sum for each of two readers, a product for each sum and for the tensor
    assert all(len(node.users) == 1 for node in arithmetic)
    assert [tuple(each.shape) for each in module(torch.zeros(3))] == [(12,), (13,), (13,)]


def test_what_goes_out_is_not_copied() -> None:
    graph = torch.fx.Graph()
    x = graph.placeholder("x")
    size = graph.call_function(torch.ops.aten.sym_size.int, (x, 0))
    product = graph.call_function(operator.mul, (size, 4))
    made = graph.call_function(torch.ops.aten.zeros.default, ([product],))
    graph.output((made, product))
    module = torch.fx.GraphModule(torch.nn.Module(), graph)
    separate_sizes(module)
    module.recompile()
    assert module(torch.zeros(3))[1] == 12
