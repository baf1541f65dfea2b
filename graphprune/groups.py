"""The coupling graph: which tensors share which groups, as a networkx graph to query, and as a drawing.

Nodes are stored tensors and groups; an edge says that a group runs through an axis of a tensor. Needs networkx only to
build the graph; drawing is plain text.

    >>> import networkx
    >>> graph = networkx.MultiGraph()
    >>> graph.add_node(("tensor", "w"), kind="tensor", label='w "1"')
    >>> print(to_dot(graph))
    graph groups {
      rankdir=LR;
      n0 [label="w \\"1\\"", shape=box];
    }
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from xml.sax.saxutils import escape

from graphprune.analysis import Analysis
from graphprune.errors import one_line
from graphprune.plan import named

_ROW = 22
_CHARACTER = 7
_GAP = 260
_MARGIN = 16
_HUES = 137.5
"""Degrees between the colours of groups that follow each other: the golden angle keeps neighbours apart."""


def group_graph(analysis: Analysis) -> Any:
    """The coupling graph as a ``networkx.MultiGraph``.

    Nodes: ``("tensor", name)`` with ``shape`` and ``dtype``, and ``("group", name)`` with ``size``, ``group_kind`` and
    ``exact``; all have ``kind`` (``tensor`` or ``group``) and ``label``. Edges have ``axis``, ``path`` and ``role`` of
    the member. Connected components are what is coupled through any weight at all.
    """
    import networkx

    graph = networkx.MultiGraph()
    stored = {each.name: each for each in analysis.program.stored}
    for name, group in named(analysis).items():
        node = ("group", name)
        label = f"{name} [{group.size}] {group.kind}" + ("" if group.exact else ", inexact")
        graph.add_node(node, kind="group", label=label, size=group.size, group_kind=group.kind, exact=group.exact)
        for member in group.members:
            tensor = ("tensor", member.tensor)
            shape = stored[member.tensor].shape
            text = f"{member.tensor} {list(shape)}"
            graph.add_node(tensor, kind="tensor", label=text, shape=shape, dtype=stored[member.tensor].dtype)
            graph.add_edge(node, tensor, axis=member.axis, path=member.path, role=member.role)
    return graph


def to_dot(graph: Any) -> str:
    """The graph in the language of Graphviz."""
    names = {node: f"n{place}" for place, node in enumerate(graph.nodes)}
    lines = ["graph groups {", "  rankdir=LR;"]
    for node, data in graph.nodes(data=True):
        shape = "box" if data["kind"] == "tensor" else "ellipse"
        lines.append(f'  {names[node]} [label="{_quoted(data["label"])}", shape={shape}];')
    for a, b, data in graph.edges(data=True):
        lines.append(f'  {names[a]} -- {names[b]} [label="{_quoted(_edge_text(data))}"];')
    return "\n".join([*lines, "}"])


def _quoted(text: str) -> str:
    return one_line(text).replace("\\", "\\\\").replace('"', '\\"')


def _edge_text(data: dict[str, Any]) -> str:
    return "/".join([f"{data['role']} {data['axis']}", *map(str, data["path"])])


def to_svg(graph: Any) -> str:
    """A drawing in two columns: groups on the left, tensors on the right, each group in a colour of its own."""
    columns: dict[str, list[Any]] = {"group": [], "tensor": []}
    for node, data in graph.nodes(data=True):
        columns[data["kind"]].append(node)
    labels = {node: one_line(data["label"]) for node, data in graph.nodes(data=True)}
    widths = {kind: _CHARACTER * max((len(labels[n]) for n in nodes), default=0) for kind, nodes in columns.items()}
    left, right = _MARGIN + widths["group"], _MARGIN + widths["group"] + _GAP
    rows = max(map(len, columns.values()))
    height = rows * _ROW + 2 * _MARGIN
    at = {}
    for nodes in columns.values():
        # The shorter column is spread over the height of the longer one, so that lines stay flat.
        pace = (height - 2 * _MARGIN) / max(1, len(nodes))
        at.update({node: _MARGIN + pace * (place + 0.5) for place, node in enumerate(nodes)})
    colours = {node: f"hsl({place * _HUES % 360:.0f},65%,40%)" for place, node in enumerate(columns["group"])}
    body: list[str] = []
    for a, b, data in graph.edges(data=True):
        group, tensor = (a, b) if a in colours else (b, a)
        body.append(_line(left + 6, at[group], right - 6, at[tensor], colours[group], _edge_text(data)))
    body += [_text(left, at[node], labels[node], "end", colours[node]) for node in columns["group"]]
    body += [_text(right, at[node], labels[node], "start", "#222") for node in columns["tensor"]]
    return _svg(right + widths["tensor"] + _MARGIN, height, body)


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, title: str) -> str:
    middle = (x1 + x2) / 2
    path = f"M{x1:.1f},{y1:.1f} C{middle:.1f},{y1:.1f} {middle:.1f},{y2:.1f} {x2:.1f},{y2:.1f}"
    return f'<path d="{path}" fill="none" stroke="{colour}"><title>{escape(title)}</title></path>'


def _text(x: float, y: float, text: str, anchor: str, colour: str) -> str:
    return f'<text x="{x:.1f}" y="{y + 4:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'


def _svg(width: float, height: float, body: Iterable[str]) -> str:
    size = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="monospace" font-size="11">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *body, "</svg>", ""])
