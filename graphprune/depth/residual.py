"""Residual blocks: sums ``x + f(x)`` from which the branch ``f`` can be dropped, so that ``x`` is left.

That is an identity rewrite wherever the skip has the shape and the type of the sum. What becomes of the branch is a
matter of who else reads it: a node is dropped if nobody but dropped nodes reads any of its results. A sum is a block if
what is dropped reads the skip, and has weights in it; so a shortcut that computes (a strided convolution beside the
branch) is none, nor is an activation that is written as a sum.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from graphprune.analysis import Analysis
from graphprune.cost import Costing
from graphprune.dims import find, leaves
from graphprune.program import Addition, Contraction, Node, Stored, Use, Value


@dataclass(frozen=True, eq=False)
class Residual:
    """One block.

    name:    that of the result of the sum, which writing keeps
    node:    the sum; skip, branch: what it reads
    dropped: the nodes of the main graph that nobody needs without the branch, in running order
    """

    name: str
    node: Node
    skip: Use
    branch: Use
    dropped: tuple[Node, ...]

    @property
    def before(self) -> Value:
        """What goes in, and is left of the sum without the branch."""
        return _value(self.skip)

    @property
    def after(self) -> Value:
        """The sum."""
        return self.node.outputs[0]

    def weights(self, analysis: Analysis) -> list[Stored]:
        """The stored tensors that only dropped nodes read."""
        inside = {each for node in self.dropped for each in _with_bodies(node)}
        read: dict[Stored, bool] = {}
        for node in analysis.program.nodes():
            for value in node.inputs:
                if value is not None and value.stored is not None:
                    read[value.stored] = read.get(value.stored, True) and node in inside
        return [stored for stored, alone in read.items() if alone]

    def contractions(self, analysis: Analysis) -> list[Contraction]:
        """The sums of products in dropped nodes."""
        inside = {each for node in self.dropped for each in _with_bodies(node)}
        return [each for each in analysis.contractions if each.node in inside]

    def cost(self, analysis: Analysis, costing: Costing) -> tuple[int, int]:
        """The multiply-accumulates and parameters that go with it."""
        macs = sum(costing.product(each.macs, {}) for each in self.contractions(analysis))
        return macs, sum(each.elements for each in self.weights(analysis) if each in costing.weights)


def residuals(analysis: Analysis) -> list[Residual]:
    """The blocks of the main graph, in running order. One may lie within the branch of another."""
    graph = _Graph(analysis)
    found = [graph.block(each) for each in analysis.trace.additions]
    return sorted((each for each in found if each is not None), key=lambda each: graph.order[each.node])


@dataclass(eq=False)
class _Graph:
    """Who reads what in the main graph; a node reads what its bodies read."""

    analysis: Analysis

    @cached_property
    def order(self) -> dict[Node, int]:
        return {node: place for place, node in enumerate(self.analysis.program.main.nodes)}

    @cached_property
    def outputs(self) -> set[Value]:
        return {value for value in self.analysis.program.main.outputs if value is not None}

    @cached_property
    def readers(self) -> Mapping[Value, dict[Node, None]]:
        found: dict[Value, dict[Node, None]] = {}
        for node in self.order:
            for value in _reads(node):
                found.setdefault(value, {})[node] = None
        return found

    @cached_property
    def fresh(self) -> set[Node]:
        """Nodes whose results share no memory with what they read."""
        nodes = {each.node for each in self.analysis.contractions}
        return nodes | {each.node for each in self.analysis.trace.batch_norms}

    def block(self, sum_: Addition) -> Residual | None:
        """The block that ends with a sum, where there is one."""
        if sum_.node not in self.order:
            return None
        for skip, branch in (sum_.operands, sum_.operands[::-1]):
            if not self._same(_value(skip), sum_.node.outputs[0]):
                continue
            dropped = self._dropped(sum_.node, _value(branch))
            found = Residual(sum_.node.outputs[0].name, sum_.node, skip, branch, dropped)
            reads = any(_value(skip) in _reads(node) for node in dropped)
            weighted = any(each.weight is not None for each in found.contractions(self.analysis))
            if reads and weighted and not any(self._writes_outside(node, dropped) for node in dropped):
                return found
        return None

    def _same(self, skip: Value, result: Value) -> bool:
        """Whether a value has the shape and the type of another for sure."""
        types = self.analysis.trace.types
        if skip not in types or result not in types or skip.dtype != result.dtype:
            return False
        a, b = types[skip].axes, types[result].axes
        return a is not None and b is not None and [find(x).size for x in a] == [find(y).size for y in b]

    def _dropped(self, node: Node, branch: Value) -> tuple[Node, ...]:
        """What nobody needs when a sum no longer reads a value."""
        gone: dict[Node, None] = {}
        pending = [branch.producer]
        while pending:
            each = pending.pop()
            if each is None or each in gone or each not in self.order or not self._unread(each, node, branch, gone):
                continue
            gone[each] = None
            pending += [value.producer for value in _reads(each)]
        return tuple(sorted(gone, key=lambda each: self.order[each]))

    def _unread(self, node: Node, end: Node, branch: Value, gone: Mapping[Node, None]) -> bool:
        for value in node.outputs:
            others = [each for each in self.readers.get(value, ()) if not (each is end and value is branch)]
            if value in self.outputs or any(each not in gone for each in others):
                return False
        return True

    def _writes_outside(self, node: Node, dropped: tuple[Node, ...]) -> bool:
        """Whether a node may write to memory that others read: it writes in place, and not to what a contraction or a
        norm of the branch has made."""
        if not self.analysis.program.dialect.writes(node):
            return False
        pending, seen = [node], set[Node]()
        while pending:
            for value in _reads(pending.pop()):
                producer = value.producer
                if self.analysis.trace.is_constant(value):
                    continue
                if producer is None or producer not in dropped:
                    return True
                if producer not in self.fresh and producer not in seen:
                    seen.add(producer)
                    pending.append(producer)
        return False


def _value(use: Use) -> Value:
    value = use.node.inputs[use.index]
    assert value is not None, "the operands of a sum are there"
    return value


def _with_bodies(node: Node) -> Iterator[Node]:
    yield node
    for block in node.blocks.values():
        for inner in block.nodes:
            yield from _with_bodies(inner)


def _reads(node: Node) -> list[Value]:
    """What a node reads, and its bodies with it."""
    found = [value for each in _with_bodies(node) for value in each.inputs]
    found += [value for each in _with_bodies(node) for block in each.blocks.values() for value in block.outputs]
    return [value for value in found if value is not None]


def features(block: Residual, analysis: Analysis) -> tuple[int, ...]:
    """The axes of the branch that its weights make: what a vector of the stream is; all but the first where none can
    be told from others."""
    axes = analysis.trace.types[_value(block.branch)].axes or []
    made = {leaf for each in block.contractions(analysis) for axis in each.out for leaf in leaves(axis)}
    found = tuple(place for place, axis in enumerate(axes) if made & set(leaves(axis)))
    return found or tuple(range(1, len(axes)))
