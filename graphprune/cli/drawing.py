"""Draws which tensors each group runs through, as an SVG picture or as text for Graphviz.

Tensors stand on the left in the order of the file, groups on the right; a line is an axis of the tensor in the group.
"""

from __future__ import annotations

import colorsys
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from graphprune.errors import GraphPruneError, one_line
from graphprune.output import write_text

if TYPE_CHECKING:
    from graphprune.analysis import Analysis, Group

_ROW = 22
_CHARACTER = 7.2
_GAP = 260
_LONGEST_NAME = 60


def draw(analysis: Analysis, path: Path) -> None:
    """Write the picture; the suffix says which kind. Raises GraphPruneError GP105, and GP107 for another suffix."""
    suffix = path.suffix.lower()
    if suffix not in {".svg", ".dot", ".gv"}:
        remedy = f"write {path.with_suffix('.svg').name!r} or {path.with_suffix('.dot').name!r}"
        raise GraphPruneError(
            "GP107", f"pictures are .svg or .dot, not {suffix or 'without a suffix'}", str(path), remedy
        )
    lines = _svg(analysis.groups) if suffix == ".svg" else _dot(analysis.groups)
    write_text(path, "\n".join(lines) + "\n")


def _tensors(groups: list[Group]) -> list[str]:
    return list(dict.fromkeys(member.tensor for group in groups for member in group.members))


def _title(group: Group) -> str:
    return f"{_short(group.name)}  {group.size} {group.kind}s{'' if group.exact else ', inexact'}"


def _short(name: str) -> str:
    name = one_line(name)
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME // 2]}...{name[-_LONGEST_NAME // 2 :]}"


def _colour(place: int) -> str:
    red, green, blue = colorsys.hsv_to_rgb(place * 0.618034 % 1.0, 0.75, 0.7)  # the golden ratio keeps neighbours apart
    return f"#{int(red * 255):02x}{int(green * 255):02x}{int(blue * 255):02x}"


def _dot(groups: list[Group]) -> Iterator[str]:
    yield "graph groups {"
    yield "  rankdir=LR; node [fontname=Helvetica]; edge [fontname=Helvetica, fontsize=10];"
    for place, tensor in enumerate(_tensors(groups)):
        yield f"  t{place} [shape=box, label={_quoted(_short(tensor))}];"
    places = {tensor: place for place, tensor in enumerate(_tensors(groups))}
    for place, group in enumerate(groups):
        colour = _colour(place)
        label = _quoted(_title(group))
        yield f'  g{place} [shape=ellipse, style=filled, fillcolor="{colour}33", color="{colour}", label={label}];'
        for member in group.members:
            label = _quoted(f"axis {member.axis} {member.role}")
            yield f'  t{places[member.tensor]} -- g{place} [color="{colour}", label={label}];'
    yield "}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _svg(groups: list[Group]) -> Iterator[str]:
    tensors = _tensors(groups)
    left = 20 + max((len(_short(name)) for name in tensors), default=0) * _CHARACTER
    right = left + _GAP
    width = right + 40 + max((len(_title(group)) for group in groups), default=20) * _CHARACTER
    height = _ROW * (2 + max(len(tensors), len(groups), 1))
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height}" '
        f'font-family="monospace" font-size="12">'
    )
    yield f'<rect width="{width:.0f}" height="{height}" fill="white"/>'
    heights = {tensor: _ROW * (place + 1.5) for place, tensor in enumerate(tensors)}
    step = (height - 2 * _ROW) / max(1, len(groups))
    for place, group in enumerate(groups):
        y, colour = _ROW + step * (place + 0.5), _colour(place)
        for member in group.members:
            start = heights[member.tensor]
            bend = _GAP / 2
            yield (
                f'<path d="M{left:.0f},{start:.1f} C{left + bend:.0f},{start:.1f} {right - bend:.0f},{y:.1f} '
                f'{right:.0f},{y:.1f}" fill="none" stroke="{colour}" stroke-width="1.5">'
                f"<title>{escape(_short(member.name))} ({escape(member.role)})</title></path>"
            )
        yield f'<circle cx="{right:.0f}" cy="{y:.1f}" r="5" fill="{colour}"/>'
        yield f'<text x="{right + 10:.0f}" y="{y + 4:.1f}">{escape(_title(group))}</text>'
    for tensor, y in heights.items():
        yield f'<text x="{left - 6:.0f}" y="{y + 4:.1f}" text-anchor="end">{escape(_short(tensor))}</text>'
    yield "</svg>"
