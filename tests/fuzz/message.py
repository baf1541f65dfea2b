"""What mutations of an ONNX message share: the table of them all, hostile values, and ways to find things in a model.

A mutation changes the message that it is given, in place, by choices of a seeded generator. Where a model has nothing
for it to change (no initializer, no attribute), it does nothing. May import onnx; must not import graphprune.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from onnx import GraphProto, ModelProto, NodeProto

Mutation = Callable[[Random, ModelProto], object]

MESSAGE: dict[str, Mutation] = {}
"""Every mutation of a message by its name."""

NAMES = (
    "", " ", "x" * 100_000, "a\0b", "\x1b[31mred\x07", "new\nline", "../../etc/passwd", "<script>alert(1)</script>",
    "名前", "\u202egnp.exe", "🧨" * 50, "%s%n{0}", "a:b/c", "weight:0", "é",
)  # fmt: skip
NUMBERS = (0, 1, -1, 2, -2, 3, 7, 127, 255, 2**16, 2**31 - 1, 2**31, -(2**31), 2**40, 2**62, 2**63 - 1, -(2**63))
REALS = (0.0, -0.0, 1e-45, 1e38, -1.0, math.inf, -math.inf, math.nan)


def mutation(change: Mutation) -> Mutation:
    """Register a mutation under its own name."""
    MESSAGE[change.__name__] = change
    return change


def pick(rng: Random, items: Sequence[Any]) -> Any:
    """One of the items, None where there are none."""
    return rng.choice(items) if len(items) else None


def graphs(model: ModelProto) -> list[GraphProto]:
    """The main graph and all graphs inside it; those inside functions as well."""
    found: list[GraphProto] = []
    pending: list[Any] = [model.graph, *model.functions]
    while pending:
        graph = pending.pop()
        if isinstance(graph, GraphProto):
            found.append(graph)
        pending += [inner for node in graph.node for each in node.attribute for inner in (*each.graphs, each.g)
                    if inner.node]  # fmt: skip
    return found


def nodes(model: ModelProto) -> list[NodeProto]:
    """All nodes, those of functions and of inner graphs as well."""
    inner = [node for graph in graphs(model) for node in graph.node]
    return [*inner, *(node for function in model.functions for node in function.node)]


def names(model: ModelProto) -> list[str]:
    """All names of values, in the order of the file."""
    found = [name for node in nodes(model) for name in (*node.input, *node.output)]
    found += [each.name for graph in graphs(model) for each in (*graph.input, *graph.initializer, *graph.output)]
    return list(dict.fromkeys(filter(None, found)))
