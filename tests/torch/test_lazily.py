"""Graphs that are captured and copied are compiled by their first run, and nobody else's are."""

from __future__ import annotations

import operator
import pickle
import threading

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import nn
from torch.fx import GraphModule, symbolic_trace

import graphprune as gp
from graphprune.dialects.aten.capture import capture
from graphprune.dialects.aten.lazily import compiled_when_run


def has_code(graph: GraphModule) -> bool:
    return hasattr(graph, "_code")


def test_a_graph_that_is_written_to_again_runs_what_was_written() -> None:
    class Model(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1

    graph = symbolic_trace(Model())
    one = torch.ones(())
    assert graph(one) == 2
    (call,) = graph.graph.find_nodes(op="call_function", target=operator.add)
    with compiled_when_run():
        call.args = (call.args[0], 2)
        graph.recompile()
        assert graph(one) == 3
        call.args = (call.args[0], 3)
        graph.recompile()
    assert graph(one) == 4


def test_code_is_made_at_once_outside_in_other_threads_and_after_an_error() -> None:
    made = []
    with pytest.raises(KeyError), compiled_when_run(), compiled_when_run():
        thread = threading.Thread(target=lambda: made.append(symbolic_trace(nn.ReLU())))
        thread.start()
        thread.join()
        made.append(symbolic_trace(nn.ReLU()))
        raise KeyError
    assert [has_code(each) for each in [*made, symbolic_trace(nn.ReLU())]] == [True, False, True]


def test_a_captured_graph_has_no_code_before_it_runs_and_checks_its_inputs_when_it_does() -> None:
    x = torch.randn(2, 4)
    model = nn.Linear(4, 3).eval()
    captured = capture(model, (x,))
    assert not has_code(captured.graph)
    with pytest.raises(RuntimeError, match=r"shape\[1\]"):
        captured.graph(torch.randn(2, 5))
    assert torch.equal(captured.graph(x), model(x))


def test_a_graph_that_is_handed_out_has_its_code() -> None:
    x = torch.randn(2, 4)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    graph = gp.prune(model, x, ratio=0.5, as_graph=True, verify=False).model
    assert "linear" in graph.code
    assert torch.equal(pickle.loads(pickle.dumps(graph))(x), graph(x))
