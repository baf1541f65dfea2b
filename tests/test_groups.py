"""The coupling graph and its drawings."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import networkx
import pytest

from graphprune.groups import group_graph, to_dot, to_svg
from tests.models import CASES
from tests.planning import analysed, case, two_layers


@pytest.mark.parametrize("name", CASES)
def test_an_edge_for_each_member(name: str) -> None:
    analysis = case(name)
    graph = group_graph(analysis)
    assert graph.number_of_edges() == sum(len(each.members) for each in analysis.groups)
    assert networkx.is_bipartite(graph)
    assert {data["role"] for *_, data in graph.edges(data=True)} <= {"in", "out", "other"}


@pytest.mark.parametrize("name", CASES)
def test_drawings(name: str) -> None:
    graph = group_graph(case(name))
    root = ElementTree.fromstring(to_svg(graph))
    drawn = [each for each in root if each.tag.endswith("text")]
    assert len(drawn) == graph.number_of_nodes()
    dot = to_dot(graph)
    assert dot.count(" -- ") == graph.number_of_edges()


def test_names_are_escaped() -> None:
    model = two_layers()
    analysis = analysed(model)
    bad = '<b>&"\\\n'
    analysis.program.stored[0].name = bad
    graph = group_graph(analysis)
    root = ElementTree.fromstring(to_svg(graph))
    assert any('<b>&"' in (each.text or "") for each in root.iter())
    assert '\\"' in to_dot(graph)
    assert all(line.count('"') % 2 == line.count('\\"') % 2 for line in to_dot(graph).splitlines())


def test_what_is_coupled_can_be_asked() -> None:
    graph = group_graph(analysed(two_layers()))
    assert set(graph.neighbors(("group", "first:1"))) == {
        ("tensor", "first"),
        ("tensor", "first.bias"),
        ("tensor", "second"),
    }
