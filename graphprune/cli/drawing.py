"""Writes the picture of the coupling graph that `graphprune inspect --graph` asks for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from graphprune.errors import GraphPruneError
from graphprune.output import write_text

if TYPE_CHECKING:
    from graphprune.analysis import Analysis

_SUFFIXES = (".svg", ".dot", ".gv")


def check_picture(path: Path) -> None:
    """Raise GraphPruneError GP107 unless the suffix says which kind of picture is wanted."""
    if path.suffix.lower() not in _SUFFIXES:
        remedy = f"write {path.with_suffix('.svg').name!r} or {path.with_suffix('.dot').name!r}"
        what = f"pictures are .svg or .dot, not {path.suffix or 'without a suffix'}"
        raise GraphPruneError("GP107", what, str(path), remedy)


def draw(analysis: Analysis, path: Path) -> None:
    """Write the coupling graph as an SVG picture or as text for Graphviz. Raises GraphPruneError GP105 or GP107."""
    from graphprune.groups import group_graph, to_dot, to_svg

    check_picture(path)
    graph = group_graph(analysis)
    write_text(path, to_svg(graph) if path.suffix.lower() == ".svg" else to_dot(graph) + "\n")
