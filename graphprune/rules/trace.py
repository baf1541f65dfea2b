"""What a rule may do: read the types of its operands, tie axes, pin them, bind numbers, declare contractions.

A rule types outputs and calls these methods; it never rewrites anything. Knows the algebra and the program, no
framework.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from graphprune.dims import (
    Axis,
    Dim,
    Misfit,
    Pin,
    Sum,
    factor,
    find,
    fresh,
    is_free,
    leaves,
    pin,
    reason,
    unify,
    walk,
)
from graphprune.program import Addition, BatchNorm, Block, Contraction, Dequantised, Node, Slot, Stored, Use, Value
from graphprune.rules.numbers import Arith, Entry, Number, Requirement, SizeOf, axes_in, now, slots_in
from graphprune.sizes import Extent, symbol

# Stored integer tensors up to this many entries are looked into for sizes and positions.
MOST_ENTRIES = 1024
MOST_PARTS = 1024
"""Parts that an axis may be joined of; a group convolution written out has one for each group."""
MOST_NESTING = 64
"""Products of sums of products in one axis; networks that people make stay below five."""


class Unranked(Exception):
    """A rule needs the axes of a value whose rank is not known."""


@dataclass(eq=False)
class Typed:
    """The type of a value: its axes (``None``: rank unknown) and, for small integer tensors, its entries."""

    axes: list[Axis] | None
    entries: list[Entry] | None = None


@dataclass(eq=False)
class Operand:
    """One input of the node at hand, as a rule sees it."""

    use: Use
    value: Value
    typed: Typed

    @property
    def axes(self) -> list[Axis]:
        if self.typed.axes is None:
            raise Unranked(self.value.name)
        return self.typed.axes

    @property
    def rank(self) -> int:
        return len(self.axes)


@dataclass(frozen=True, eq=False)
class Default:
    """An attribute left to a default that depends on the size of an axis: it is written out when that axis is cut."""

    node: Node
    name: str
    value: float
    axis: Axis


@dataclass(eq=False)
class Trace:
    """The state of one analysis: types by value, and everything the rules declared so far.

    ``skipped`` are nodes that no rule could be applied to; ``positions`` are stored vectors whose entries are positions
    along a first axis, one for each entry of a second; ``open`` are axes of run-time sizes that may still become those
    they are tied to; ``multiples`` are axes that an operator takes only at multiples of so many entries; ``counters``
    are numbers that stand for each position along an axis in turn; ``at_hand`` are the operands of a node.
    """

    is_constant: Callable[[Value], bool]
    types: dict[Value, Typed] = field(default_factory=dict)
    use_types: dict[Use, Typed] = field(default_factory=dict)
    requirements: list[Requirement] = field(default_factory=list)
    contractions: list[Contraction] = field(default_factory=list)
    batch_norms: list[BatchNorm] = field(default_factory=list)
    additions: list[Addition] = field(default_factory=list)
    dequantised: list[Dequantised] = field(default_factory=list)
    positions: dict[Use, tuple[Axis, Axis]] = field(default_factory=dict)
    skipped: list[Node] = field(default_factory=list)
    defaults: list[Default] = field(default_factory=list)
    inexact_uses: list[tuple[Node, Axis]] = field(default_factory=list)
    open: list[Axis] = field(default_factory=list)
    multiples: list[tuple[Axis, int]] = field(default_factory=list)
    counters: dict[Value, Axis] = field(default_factory=dict)
    symbol_count: int = 0
    node: Node = field(default_factory=lambda: Node("", "", [], []))
    at_hand: tuple[Node | None, list[Operand | None]] = (None, [])
    walk: Callable[[Block], None] = lambda block: None

    # ---------------------------------------------------------------- reading
    def turn_to(self, node: Node) -> list[Operand | None]:
        """Make a node the current one, and work out its operands once for all who ask."""
        self.node, self.at_hand = node, (None, [])
        operands = [self.operand(k) for k in range(len(node.inputs))]
        self.at_hand = node, operands
        return operands

    def operand(self, index: int) -> Operand | None:
        """Input ``index`` of the current node, ``None`` where it is absent."""
        node, operands = self.at_hand
        if node is self.node:
            return operands[index] if index < len(operands) else None
        if index >= len(self.node.inputs) or (value := self.node.inputs[index]) is None:
            return None
        use = Use(self.node, index)
        return Operand(use, value, self.typed(value, use))

    def need(self, index: int) -> Operand:
        """Input ``index`` of the current node, which must be there (``ValueError``)."""
        operand = self.operand(index)
        if operand is None:
            raise ValueError(f"input {index} is missing")
        return operand

    def operands(self) -> list[Operand | None]:
        """All inputs of the current node."""
        return [self.operand(k) for k in range(len(self.node.inputs))]

    def typed(self, value: Value, use: Use) -> Typed:
        """The type of a value at one use. Small stored vectors with several readers get a type per use: files share
        one vector of zeros among unrelated layers, and a copy costs nothing."""
        if value in self.types:
            return self.types[value]
        if value.stored is None:
            return Typed(None)
        if value.readers > 1 and len(value.stored.shape) <= 1 and not use.node.frozen:
            if use not in self.use_types:
                self.use_types[use] = self.typed_stored(value.stored)
            return self.use_types[use]
        self.types[value] = self.typed_stored(value.stored)
        return self.types[value]

    @staticmethod
    def typed_stored(stored: Stored) -> Typed:
        """Fresh, free axes for a stored tensor."""
        return Typed([fresh(size, f"{stored.name}:{axis}") for axis, size in enumerate(stored.shape)])

    def entries(self, operand: Operand) -> list[Entry] | None:
        """The entries of a small integer operand in row-major order, with the slots where they are stored."""
        if operand.typed.entries is not None:
            return operand.typed.entries
        stored = operand.value.stored
        if stored is None or stored.elements > MOST_ENTRIES or not stored.dtype.startswith(("int", "uint")):
            return None
        for axis in operand.axes:
            self.whole(axis, "its entries are sizes or positions")
        numbers = stored.read().reshape(-1).tolist()
        use = operand.use
        return [
            Number(number, None if use.node.frozen else Slot(use.node, use.index, i))
            for i, number in enumerate(numbers)
        ]

    def passed(self, operand: Operand) -> list[Entry] | None:
        """The entries that an operator which only moves numbers hands on: those computed from sizes, and stored
        integers that look like sizes (a vector of 64-bit integers) rather than weights."""
        stored = operand.value.stored
        if stored is not None and (stored.dtype != "int64" or len(stored.shape) > 1):
            return None
        return self.entries(operand)

    def constants(self, operand: Operand | None) -> list[int] | None:
        """The entries of an operand where all of them are plain numbers, else ``None``."""
        entries = None if operand is None else self.entries(operand)
        numbers = [entry.value for entry in entries or [] if isinstance(entry, Number)]
        return numbers if entries is not None and len(numbers) == len(entries) else None

    # ---------------------------------------------------------------- typing
    def unknown(self, hint: str = "") -> Extent:
        """A symbol for a size that only the run knows."""
        self.symbol_count += 1
        return symbol(f"{hint or self.node.place}#{self.symbol_count}")

    def derived(self, size: Extent, how: object) -> Extent:
        """One symbol for what a run-time size becomes under the same arithmetic, so that parallel branches agree."""
        return symbol(f"f({size}, {how})")

    def fixed(self, size: Extent, reason: str = "the operator makes this axis anew", code: str = "GP204") -> Axis:
        """A new axis that must not move."""
        return fresh(size, self.node.place, Pin(code, str(self.node), reason))

    def inherited(self, size: Extent, axis: Axis) -> Axis:
        """A new axis that stays for the same reason as the pinned axis it is made from."""
        return fresh(size, self.node.place, reason(axis))

    def free(self, size: Extent) -> Axis:
        """A new axis that may be pruned."""
        return fresh(size, self.node.place)

    # ---------------------------------------------------------------- ties
    def tie(self, a: Axis, b: Axis) -> Axis:
        """Two axes that share their fate; returns their common form."""
        a, b = find(a), find(b)
        if a is b:
            return a
        unify(a, b, Pin("GP205", str(self.node), "sizes cannot be refined"))
        return find(a)

    def factor(self, axis: Axis, outer: Extent) -> tuple[Axis, Axis]:
        """:func:`graphprune.dims.factor`, pinning the axis where it does not come in equal blocks."""
        try:
            return factor(axis, outer)
        except Misfit as misfit:
            self.pin(axis, "GP205", str(misfit))
            try:
                inner: Extent = axis.size // outer
            except (ValueError, ZeroDivisionError):
                inner = self.unknown()
            return self.fixed(outer, str(misfit), "GP205"), self.fixed(inner, str(misfit), "GP205")

    def broadcast(self, shapes: Sequence[Sequence[Axis]]) -> list[Axis]:
        """Multidirectional broadcasting: axes aligned from the right are tied, axes of size 1 stretch."""
        rank = max((len(shape) for shape in shapes), default=0)
        out: list[Axis | None] = [None] * rank
        for shape in shapes:
            for place, axis in enumerate(shape, rank - len(shape)):
                other = out[place]
                if other is None or other.size == 1:
                    out[place] = axis
                elif axis.size != 1:
                    self.tie(other, axis)
                    if not isinstance(other.size, int) and isinstance(axis.size, int):
                        out[place] = axis
        return [axis for axis in out if axis is not None]

    # ---------------------------------------------------------------- pins
    def pin(self, axis: Axis, code: str, reason: str) -> None:
        """This axis must not move."""
        pin(axis, Pin(code, str(self.node), reason))

    def whole(self, axis: Axis, reason: str) -> None:
        """The operator needs this axis whole."""
        self.pin(axis, "GP204", reason)

    def structural(self, axis: Axis, reason: str) -> None:
        """A factor of an axis that belongs to how the operator is built; not worth a word in a report."""
        self.pin(axis, "GP214", reason)

    def inexact(self, axis: Axis) -> None:
        """Removing entries of this axis changes statistics that the current node computes over it."""
        if is_free(axis):
            self.inexact_uses.append((self.node, axis))

    # ---------------------------------------------------------------- numbers
    def require(self, entry: Entry, axis: Axis, sign: int = 1) -> None:
        """The entry must equal ``sign`` times the extent of the axis after every cut."""
        self.requirements.append(Requirement(entry, axis, sign, self.node))

    def hold(self, entry: Entry, reason: str) -> None:
        """The entry is read as a number like any other: what it is computed from must stay."""
        for axis in axes_in(entry):
            self.pin(axis, "GP206", reason)
        for number in slots_in(entry):
            self.require(number, fresh(number.value, self.node.place, Pin("GP206", str(self.node), reason)))

    def axis_of(self, entry: Entry) -> Axis:
        """An axis whose size is given by an entry: the very axis it was read from, else a free one bound to it. A size
        that is computed at run time (the batch times the heads) may turn out to be that of a product of axes, so its
        axis is :attr:`open`."""
        if isinstance(entry, SizeOf):
            return entry.axis
        size = now(entry)
        if isinstance(size, int):
            axis = self.free(size) if size >= 0 else self.fixed(self.unknown(), code="GP208")
        elif isinstance(entry, Arith) and (any(map(is_free, axes_in(entry))) or any(True for _ in slots_in(entry))):
            axis = Dim(size, self.node.place)
            self.open.append(axis)
        else:
            axis = self.fixed(size, code="GP208")
        self.require(entry, axis)
        return axis

    def attribute(self, name: str, default: int = 0) -> Number:
        """An integer attribute of the current node with its slot; without a slot where it is left to the default."""
        if name not in self.node.attributes:
            return Number(default)
        slot = None if self.node.frozen else Slot(self.node, name, None)
        return Number(int(self.node.attributes[name]), slot)

    def attributes(self, name: str) -> list[Entry]:
        """The entries of a list attribute of the current node, with their slots."""
        values = self.node.attributes.get(name, [])
        return [Number(int(v), None if self.node.frozen else Slot(self.node, name, i)) for i, v in enumerate(values)]

    def close(self) -> None:
        """What is left of open axes is tied to nothing that says how it is made up: it stays."""
        for axis in self.open:
            for leaf in leaves(axis):
                if not isinstance(leaf.size, int):
                    pin(leaf, Pin("GP208", leaf.origin, f"its size {leaf.size} is only known at run time"))

    # ---------------------------------------------------------------- contractions
    def contract(self, contraction: Contraction) -> None:
        """Declare a contraction of the current node."""
        self.contractions.append(contraction)


def concatenated(parts: Sequence[Axis]) -> Axis:
    """The axis of parts laid end to end, in normal form; parts that all stay are one axis that stays. ``ValueError``
    where they are too many to keep apart, or nested too deep: an axis laid end to end with itself doubles them."""
    whole = find(Sum(list(parts)))
    depths = [len(path) for path, _ in walk(whole)]
    if len(depths) > MOST_PARTS or max(depths) > MOST_NESTING:
        raise ValueError(f"an axis of {len(depths)} parts in parts, {max(depths)} deep")
    if isinstance(whole, Sum) and not is_free(whole):
        return fresh(whole.size, "", reason(whole))
    return whole


def free_leaves(axis: Axis) -> list[Dim]:
    """The dimensions of an axis that are not pinned."""
    return [leaf for leaf in leaves(axis) if leaf.pin is None]
