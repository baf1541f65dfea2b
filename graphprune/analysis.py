"""Rules over a program: which dimensions there are, which tensors they run through, what is pinned and why.

The one walk that everything else reads. Each node's rule types its outputs and ties, pins and binds as it goes; once
all axes are refined the numbers are settled, and what is left free are the groups. Knows no framework.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from graphprune.dims import Axis, Dim, Misfit, find, fresh, is_free, leaves, reason, walk
from graphprune.garbage import no_collection
from graphprune.program import Block, Contraction, Node, Program, Slot, Stored, Use, Value
from graphprune.rules.numbers import settle
from graphprune.rules.pointwise import opaque
from graphprune.rules.trace import Operand, Trace, Typed, Unranked, free_leaves
from graphprune.sizes import Extent, symbol


class Member(NamedTuple):
    """One place where a group lives: axis ``axis`` of a stored tensor; ``path`` is the part of that axis (empty: all
    of it); ``role`` is ``out`` or ``in`` where a contraction makes or reduces it, else ``other``."""

    tensor: str
    axis: int
    path: tuple[int, ...]
    role: str

    @property
    def name(self) -> str:
        return "/".join([f"{self.tensor}:{self.axis}", *map(str, self.path)])


@dataclass(frozen=True, eq=False)
class Group:
    """One dimension that can be pruned, with everything that is coupled to it.

    ``kind`` is ``channel``, ``head`` or ``head width``; ``exact`` says whether removing an entry equals zeroing it (no
    statistics are computed over it).
    """

    name: str
    dim: Dim = field(repr=False)
    size: int
    members: tuple[Member, ...]
    kind: str
    exact: bool


@dataclass(frozen=True)
class Refusal:
    """Why an axis of a weight cannot be pruned; ``code`` is explained by ``graphprune explain``."""

    code: str
    tensor: str
    axis: int
    size: Extent
    where: str
    reason: str


@dataclass(eq=False)
class Analysis:
    """What the walk found. ``bindings`` are the stored numbers that follow a cut, as polynomials over dimensions."""

    program: Program
    trace: Trace
    bindings: dict[Slot, Extent]

    @property
    def contractions(self) -> list[Contraction]:
        return self.trace.contractions

    def stored_axes(self) -> Iterator[tuple[Stored, Value, Use | None, list[Axis]]]:
        """Every stored tensor with its axes; once per use where a small vector is typed use by use."""
        uses: dict[Value, list[tuple[Use, Typed]]] = {}
        for use, typed in self.trace.use_types.items():
            value = use.node.inputs[use.index]
            if value is not None:
                uses.setdefault(value, []).append((use, typed))
        for value in self.stored_values:
            if value.stored is None:
                continue
            if value in self.trace.types and (axes := self.trace.types[value].axes) is not None:
                yield value.stored, value, None, axes
            for use, typed in uses.get(value, []):
                yield value.stored, value, use, typed.axes or []

    @cached_property
    def stored_values(self) -> list[Value]:
        """The values that hold stored tensors, in the order of the program's list of them."""
        found = [value for value in [*self.trace.types, *self._used()] if value.stored is not None]
        order = {stored: place for place, stored in enumerate(self.program.stored)}
        return sorted(dict.fromkeys(found), key=lambda v: order.get(v.stored, -1) if v.stored else -1)

    def _used(self) -> Iterator[Value]:
        for use in self.trace.use_types:
            value = use.node.inputs[use.index]
            if value is not None:
                yield value

    @cached_property
    def inexact(self) -> frozenset[Dim]:
        """Dimensions whose removal changes statistics that some node computes over them."""
        return frozenset(leaf for _, axis in self.trace.inexact_uses for leaf in leaves(axis))

    @cached_property
    def roles(self) -> dict[Dim, set[str]]:
        """What contractions do with each dimension: ``out``, ``in`` (weights), ``head``, ``width`` (activations)."""
        found: dict[Dim, set[str]] = {}
        for contraction in self.contractions:
            weighted = contraction.weight is not None
            for axes, role in (
                (contraction.out, "out" if weighted else "width"),
                (contraction.reduced, "in" if weighted else "width"),
                (contraction.stationary, "out" if weighted else "head"),
            ):
                for leaf in (leaf for axis in axes for leaf in leaves(axis)):
                    found.setdefault(leaf, set()).add(role)
        return found

    @cached_property
    @no_collection()
    def groups(self) -> list[Group]:
        """The dimensions that can be pruned and that some weight contraction makes or reduces, in file order."""
        roles = self._weight_roles
        places: dict[Dim, dict[Member, None]] = {}
        for stored, value, _, axes in self.stored_axes():
            for place, axis in enumerate(axes):
                if not is_free(axis):
                    continue
                for path, dim in walk(axis):
                    if dim.pin is None:
                        role = roles.get((value, dim), "other")
                        places.setdefault(dim, {})[Member(stored.name, place, path, role)] = None
        taken: Counter[str] = Counter()
        found = []
        for dim, named in places.items():
            if self.roles.get(dim, set()) & {"out", "in"}:
                members = tuple(named)
                name = members[0].name
                taken[name] += 1
                unique = name if taken[name] == 1 else f"{name}#{taken[name]}"
                found.append(self._group(unique, dim, members))
        return found

    @cached_property
    def _weight_roles(self) -> dict[tuple[Value, Dim], str]:
        found: dict[tuple[Value, Dim], str] = {}
        for contraction in self.contractions:
            if contraction.weight is None:
                continue
            for value in self._sources(contraction.weight):
                for axes, role in (
                    (contraction.reduced, "in"),
                    (contraction.stationary, "out"),
                    (contraction.out, "out"),
                ):
                    for leaf in (leaf for axis in axes for leaf in leaves(axis)):
                        found[value, leaf] = role
        return found

    @staticmethod
    def _sources(use: Use) -> Iterator[Value]:
        """The stored values that a constant operand is computed from, each once: constants may share parts."""
        pending = [use.node.inputs[use.index]]
        seen: set[Value] = set()
        while pending:
            value = pending.pop()
            if value is None or value in seen:
                continue
            seen.add(value)
            if value.stored is not None:
                yield value
            elif value.producer is not None:
                pending.extend(value.producer.inputs)

    def _group(self, name: str, dim: Dim, members: tuple[Member, ...]) -> Group:
        roles = self.roles.get(dim, set())
        kind = "head" if "head" in roles else "head width" if "width" in roles else "channel"
        assert isinstance(dim.size, int)
        return Group(name, dim, dim.size, members, kind, dim not in self.inexact)

    @cached_property
    def refusals(self) -> list[Refusal]:
        """For every weight of a contraction: the axes (parts of axes) it makes or reduces that are pinned, and why; and
        the weights that operators read for which there was no rule to apply."""
        found: dict[Refusal, None] = {}
        for contraction in self.contractions:
            if contraction.weight is None:
                continue
            for value in self._sources(contraction.weight):
                axes = self.trace.typed(value, contraction.weight).axes or []
                found.update(dict.fromkeys(self._pinned_parts(value, axes[: len(axes) - contraction.window])))
        for node in self.trace.skipped:
            for index, operand in enumerate(node.inputs):
                constant = operand is not None and self.trace.is_constant(operand)
                for value in self._sources(Use(node, index)) if constant else ():
                    axes = self.trace.typed(value, Use(node, index)).axes or []
                    found.update(dict.fromkeys(self._pinned_parts(value, axes)))
        return list(found)

    @staticmethod
    def _pinned_parts(value: Value, axes: list[Axis]) -> Iterator[Refusal]:
        if value.dtype in {"int64", "bool"}:
            return  # sizes, positions and masks on the way, not weights
        for place, axis in enumerate(axes):
            parts = [leaf for leaf in leaves(axis) if leaf.size != 1]
            if not parts and axis.size != 1:
                why = reason(axis)
                yield Refusal(why.code, value.name, place, axis.size, why.where, why.reason)
            told = [leaf for leaf in parts if leaf.pin is not None and leaf.pin.code != "GP214"]
            for leaf in told if told or is_free(axis) else parts:  # fixed factors are worth a word only by themselves
                if leaf.pin is not None:
                    yield Refusal(leaf.pin.code, value.name, place, leaf.size, leaf.pin.where, leaf.pin.reason)


@no_collection()
def analyze_program(program: Program, *, pin_interface: bool = True) -> Analysis:
    """Run every rule once over the program, settle the numbers, and return what was found. Time is near-linear in the
    number of nodes and does not depend on widths.

    ``pin_interface=False`` asks what could be pruned if inputs and outputs of the graph were to change as well.
    """
    trace = Trace(program.dialect.is_constant)
    walker = _Walker(program, trace)
    trace.walk = walker.block
    for value in program.main.inputs:
        declared = _declared(trace, value, "GP201", "an axis of a graph input")
        trace.types[value] = declared if pin_interface else _freed(value, declared)
    for block in [program.main, *(block for node in program.nodes() for block in node.blocks.values())]:
        for result in block.outputs:
            if result is not None and result.stored is not None:  # one tensor for all its readers
                trace.types[result] = trace.typed_stored(result.stored)
    walker.block(program.main)
    for output in program.main.outputs if pin_interface else []:
        if output is not None:
            typed = trace.typed(output, Use(trace.node, -1))
            trace.node = Node(output.name, "output", [], [])
            for axis in typed.axes or []:
                trace.pin(axis, "GP202", f"an axis of the graph output {output.name!r}")
            for entry in typed.entries or []:
                trace.hold(entry, f"its size is a number in the graph output {output.name!r}")
    trace.close()
    analysis = Analysis(program, trace, settle(trace.requirements))
    _keep_what_is_not_as_declared(analysis)
    return analysis


def _keep_what_is_not_as_declared(analysis: Analysis) -> None:
    """A stored axis has a size. Where it was tied to one that only a run knows, some declared shape is wrong, and
    nothing can be said about its entries."""
    for stored, _, _, axes in analysis.stored_axes():
        for axis in axes:
            if any(not isinstance(leaf.size, int) for leaf in leaves(axis)):
                analysis.trace.node = Node(stored.name, "stored", [], [])
                analysis.trace.pin(axis, "GP205", "it is tied to an axis whose size only a run knows")


def _declared(trace: Trace, value: Value, code: str, reason: str) -> Typed:
    """Pinned axes for a value from outside, as declared."""
    trace.node = Node(value.name, "input", [], [])
    if value.shape is None:
        return Typed(None)
    sizes: list[Extent] = [
        size
        if isinstance(size, int) and size >= 0
        else symbol(size)
        if isinstance(size, str)
        else trace.unknown(value.name)
        for size in value.shape
    ]
    return Typed([trace.fixed(size, reason, code) for size in sizes])


def _freed(value: Value, declared: Typed) -> Typed:
    """The same axes, free where their sizes are known."""
    if declared.axes is None:
        return declared
    return Typed([fresh(axis.size, f"{value.name}:{place}") for place, axis in enumerate(declared.axes)])


class _Walker:
    """Visits nodes in order; control flow comes back to :meth:`block` for its bodies."""

    def __init__(self, program: Program, trace: Trace):
        self.dialect = program.dialect
        self.trace = trace

    def block(self, block: Block) -> None:
        for node in block.nodes:
            self.node(node)

    def node(self, node: Node) -> None:
        trace = self.trace
        operands = trace.turn_to(node)
        row, applied = self.dialect.row(node), True
        ranks = [None if value.shape is None else len(value.shape) for value in node.outputs]
        if row is None:
            typed = opaque(trace, operands, ranks, "GP203", f"there is no rule for the operator {node.op}")
            self._skip(node)
        else:
            try:
                typed = row.rule(trace, node)
            except Unranked as missing:
                why = f"the rank of {missing} is not known"
                typed, applied = opaque(trace, operands, ranks, "GP212", why), False
                self._skip(node)
            except (Misfit, LookupError, ArithmeticError, ValueError) as misfit:
                why = f"it is not used as its specification says ({misfit})"
                typed, applied = opaque(trace, operands, ranks, "GP203", why), False
                self._skip(node)
        trace.node = node
        if row is None or not row.sizes or not applied:
            self._sizes_as_data(node, typed)
        if row is not None and not node.blocks:
            self._unaccounted(operands[1 if row.sizes else 0 : row.operands], typed)
        for value, each in zip(node.outputs, typed, strict=False):
            trace.types[value] = self._reconciled(value, each)
        for value in node.outputs[len(typed) :]:
            trace.types[value] = _declared(trace, value, "GP203", f"an output of {node.op} without a rule")

    def _unaccounted(self, operands: list[Operand | None], outputs: list[Typed]) -> None:
        """What a rule does not account for stays: a free dimension that goes in must come out, be reduced by a
        contraction, or be declared inexact. This makes a forgotten operand cost prunability, never correctness."""
        trace = self.trace
        handed_on = {find(axis) for typed in outputs for axis in typed.axes or []}
        free = [
            leaf
            for operand in operands
            if operand
            for axis in operand.typed.axes or []
            if is_free(axis) and find(axis) not in handed_on
            for leaf in free_leaves(axis)
        ]
        if not free:
            return
        known = {leaf for typed in outputs for axis in typed.axes or [] for leaf in leaves(axis)}
        for contraction in reversed(trace.contractions):
            if contraction.node is not trace.node:
                break
            known.update(leaf for axis in contraction.reduced for leaf in leaves(axis))
        for node, axis in reversed(trace.inexact_uses):
            if node is not trace.node:
                break
            known.update(leaves(axis))
        for axis in (trace.counters[value] for value in trace.node.inputs if value in trace.counters):
            known.update(leaves(axis))  # a table is read at each of its positions in turn
        for leaf in free:
            if leaf not in known:
                trace.pin(leaf, "GP203", f"the rule of {trace.node.op} does not say what becomes of it")

    def _skip(self, node: Node) -> None:
        """No rule could be applied: what the node's bodies read from outside must stay, too."""
        self.trace.skipped.append(node)
        for inner in (inner for block in node.blocks.values() for inner in block.nodes):
            for k, value in enumerate(inner.inputs):
                if value is not None and (value in self.trace.types or value.stored is not None):
                    for axis in self.trace.typed(value, Use(inner, k)).axes or []:
                        self.trace.pin(axis, "GP203", f"read inside {node.op}, to which no rule could be applied")
            self._skip(inner)

    def _sizes_as_data(self, node: Node, outputs: list[Typed]) -> None:
        """Run-time sizes that flow into arithmetic no rule follows would change a result: they pin."""
        if any(typed.entries is not None for typed in outputs):
            return
        for value in node.inputs:
            entries = None if value is None or value not in self.trace.types else self.trace.types[value].entries
            for entry in entries or []:
                self.trace.hold(entry, "its size is used as a number in a computation")

    def _reconciled(self, value: Value, typed: Typed) -> Typed:
        """Sizes that only the file knows: where a rule could not tell, the declared shape does."""
        if value.shape is None:
            return typed
        if typed.axes is None:
            return Typed(_declared(self.trace, value, "GP212", "the rule could not tell its axes").axes, typed.entries)
        if len(typed.axes) != len(value.shape):
            return typed
        axes = list(typed.axes)
        for place, (axis, size) in enumerate(zip(axes, value.shape, strict=True)):
            if isinstance(axis.size, int) or not isinstance(size, int) or size < 1:
                continue
            plain = find(axis)
            if isinstance(plain, Dim):
                axes[place] = fresh(size, plain.origin, plain.pin)
        return Typed(axes, typed.entries)
