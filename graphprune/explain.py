"""Answers "why are these tied?" and "why can this not be pruned?" for an axis of a tensor, and says what codes mean."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from graphprune.analysis import Analysis, Group
from graphprune.codes import CODES
from graphprune.dims import Axis, Dim, find, leaves
from graphprune.errors import GraphPruneError, did_you_mean, one_line
from graphprune.program import Node, Program, Use, Value

_WIDTH = 100
_MOST_LINES = 40


def explain_code(code: str) -> str:
    """What a code means and what to do about it. Raises GraphPruneError GP106 for an unknown one."""
    row = CODES.get(code.upper())
    if row is None:
        raise GraphPruneError("GP106", f"there is no code {code!r}", remedy=did_you_mean(code.upper(), CODES))
    text = textwrap.fill(row.text, _WIDTH)
    remedy = textwrap.fill(f"fix {row.remedy}", _WIDTH, subsequent_indent="    ")
    return f"{row.code} {row.title} ({row.family})\n\n{text}\n\n{remedy}"


def explain(analysis: Analysis, name: str) -> str:
    """What a tensor, an axis of it (`conv1.weight:0`) or a group consists of, is tied to, and why it is pinned.

    Raises GraphPruneError GP106 for a name that the model does not have, with the closest one.
    """
    groups = {group.name: group for group in analysis.groups}
    if name in groups:
        return "\n".join(_free(analysis, groups[name], groups[name].dim))
    tensor, place = _split(name)
    axes = _axes(analysis)
    if name in axes:  # a tensor whose name ends in a colon and digits
        tensor, place = name, None
    if tensor not in axes:
        known = [*groups, *axes]
        raise GraphPruneError("GP106", f"the model has no tensor or group {name!r}", remedy=_closest(name, known))
    if place is not None and place >= len(axes[tensor]):
        what = f"{tensor!r} has {len(axes[tensor])} axes, there is no axis {place}"
        raise GraphPruneError("GP106", what, remedy="axes are counted from 0")
    chosen = range(len(axes[tensor])) if place is None else [place]
    by_dim = {group.dim: group for group in analysis.groups}
    blocks = [_axis(analysis, f"{tensor}:{k}", axes[tensor][k], by_dim) for k in chosen]
    return "\n\n".join("\n".join(block) for block in blocks) or f"{tensor} is a single number: it has no axes"


def _split(name: str) -> tuple[str, int | None]:
    """`conv1.weight:0` and `conv1.weight:0/1` as tensor and axis."""
    tensor, colon, place = name.rpartition(":")
    digits = place.split("/")[0]
    return (tensor, int(digits)) if colon and digits.isascii() and digits.isdigit() else (name, None)


def _closest(name: str, known: list[str]) -> str:
    shown = did_you_mean(name, known)
    return shown if len(known) <= 20 else f"{shown.split('known:')[0]}see graphprune inspect for all {len(known)} names"


def _axes(analysis: Analysis) -> dict[str, list[Axis]]:
    """The axes of every tensor: activations by value name, stored tensors by theirs."""
    found: dict[str, list[Axis]] = {}
    for value, typed in analysis.trace.types.items():
        if value.name and typed.axes is not None:
            found[value.name] = typed.axes
    for stored, _, _, axes in analysis.stored_axes():
        found.setdefault(stored.name, axes)
    return found


def _axis(analysis: Analysis, name: str, axis: Axis, groups: dict[Dim, Group]) -> list[str]:
    plain = find(axis)
    lines = [f"{one_line(name)}  size {plain.size}"]
    if not isinstance(plain, Dim):
        lines.append(f"  made of {one_line(repr(plain))}")
    for dim in dict.fromkeys(leaves(plain)):
        if dim.pin is not None:
            lines += _pinned(dim)
        elif dim in groups:
            lines += [f"  {line}" for line in _free(analysis, groups[dim], dim)]
        else:
            lines += [
                f"  a free dimension of size {dim.size} that no stored weight makes or reduces: nothing to prune",
                *(f"    {line}" for line in _nodes(analysis, dim)),
            ]
    return lines


def _pinned(dim: Dim) -> list[str]:
    assert dim.pin is not None
    row = CODES[dim.pin.code]
    return [
        f"  size {dim.size} is kept: {row.code} {row.title}",
        f"    because {one_line(dim.pin.reason)}",
        *([f"    at  {one_line(dim.pin.where)}"] if dim.pin.where else []),
        f"    fix {row.remedy}",
    ]


def _free(analysis: Analysis, group: Group, dim: Dim) -> list[str]:
    exact = "removing an entry equals zeroing it" if group.exact else "statistics are computed over it (inexact)"
    lines = [f"group {one_line(group.name)}: {group.size} {group.kind}s that can be pruned; {exact}"]
    words = {"out": "made by", "in": "reduced by", "other": "carried by"}
    lines += [f"  {words.get(member.role, member.role)} {one_line(member.name)}" for member in group.members]
    return [*lines, *_nodes(analysis, dim)]


def _nodes(analysis: Analysis, dim: Dim) -> list[str]:
    """The nodes that a dimension runs through, in order."""
    through = [f"  through {one_line(str(node))}: {one_line(ties)}" for node, ties in ties_of(analysis, dim)]
    if len(through) > _MOST_LINES:
        return [*through[:_MOST_LINES], f"  and {len(through) - _MOST_LINES} more nodes"]
    return through


def ties_of(analysis: Analysis, dim: Dim) -> Iterator[tuple[Node, str]]:
    """Every node with an operand or result that has the dimension, and which axes of which tensors those are."""
    for node in _all_nodes(analysis.program):
        places = []
        for k, value in enumerate(node.inputs):
            if value is not None:
                places += _places(analysis, value, Use(node, k), dim)
        for value in node.outputs:
            places += _places(analysis, value, None, dim)
        if places:
            yield node, ", ".join(dict.fromkeys(places))


def _all_nodes(program: Program) -> Iterator[Node]:
    seen: set[int] = set()  # a function called twice has one body
    for node in program.nodes():
        if id(node) not in seen:
            seen.add(id(node))
            yield node


def _places(analysis: Analysis, value: Value, use: Use | None, dim: Dim) -> list[str]:
    typed = analysis.trace.use_types.get(use) if use is not None else None
    typed = typed or analysis.trace.types.get(value)
    axes = typed.axes if typed is not None else None
    return [f"{value.name}:{place}" for place, axis in enumerate(axes or []) if dim in leaves(axis)]
