"""The arguments of one operator call, as its rule asks for them: by their names in the operator's schema."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from graphprune.program import Node, Slot, Use
from graphprune.rules.numbers import Entry, Number, Opaque
from graphprune.rules.trace import Operand, Trace, Typed
from graphprune.sizes import Extent


@dataclass(frozen=True)
class At:
    """Stands in an argument for the value at this place among a node's inputs."""

    index: int


class Call:
    """One call of an operator. Tensors are asked for as operands, sizes as entries with the slot they stand at, and
    what no cut may change as plain numbers."""

    def __init__(self, trace: Trace, node: Node):
        self.trace = trace
        self.node = node
        self.given = node.attributes

    # ---------------------------------------------------------------- tensors
    def tensor(self, name: str) -> Operand:
        """A tensor that must be there (``ValueError``)."""
        found = self.optional(name)
        if found is None:
            raise ValueError(f"its argument {name!r} is missing")
        return found

    def optional(self, name: str) -> Operand | None:
        """A tensor that may be absent."""
        return self._operand(self.given.get(name))

    def tensors(self, name: str) -> list[Operand | None]:
        """A list of tensors, some of which may be absent."""
        return [self._operand(each) for each in self.given.get(name) or []]

    def _operand(self, given: Any) -> Operand | None:
        return self.trace.operand(given.index) if isinstance(given, At) else None

    def data(self) -> list[Operand]:
        """All operands of the call, sizes left out."""
        found = (self.trace.operand(k) for k in range(len(self.node.inputs)))
        return [each for each in found if each is not None and each.typed.entries is None]

    # ---------------------------------------------------------------- numbers
    def number(self, name: str, default: int | None = None) -> int:
        """A plain integer that no cut changes."""
        given = self.given.get(name, default)
        if isinstance(given, bool) or not isinstance(given, int):
            raise ValueError(f"its argument {name!r} is not a plain number")
        return given

    def flag(self, name: str, default: bool = False) -> bool:
        """A truth value."""
        return bool(self.given.get(name, default))

    def numbers(self, name: str, default: list[int] | None = None) -> list[int] | None:
        """A list of plain integers (one integer counts as a list of one); the default where it is not given."""
        given = self.given.get(name, default)
        if given is None:
            return None
        listed = given if isinstance(given, list) else [given]
        if any(not isinstance(each, int) for each in listed):
            raise ValueError(f"its argument {name!r} is not made of plain numbers")
        return listed

    def entry(self, name: str, default: int | None = None) -> Entry | None:
        """An integer that may follow a cut; `None` where it is not given and there is no default."""
        given = self.given.get(name)
        if given is None:
            return None if default is None else Number(default)
        return self._entry(given, name, None)

    def entries(self, name: str) -> list[Entry]:
        """A list of integers that may follow a cut."""
        given = self.given.get(name)
        listed = given if isinstance(given, list) else [] if given is None else [given]
        lone = not isinstance(given, list)
        return [self._entry(each, name, None if lone else place) for place, each in enumerate(listed)]

    def _entry(self, given: Any, name: str, place: int | None) -> Entry:
        if isinstance(given, int):
            return Number(int(given), None if self.node.frozen else Slot(self.node, name, place))
        operand = self._operand(given)
        if operand is None:
            raise ValueError(f"its argument {name!r} is not made of numbers")
        entries = operand.typed.entries
        return entries[0] if entries else Opaque(operand.value.native[2][0])

    # ---------------------------------------------------------------- what torch.export knows
    def shape(self, output: int = 0) -> list[Extent]:
        """The sizes of an output as they were traced."""
        return list(self.node.outputs[output].native[2])

    def use(self, operand: Operand | None) -> Use | None:
        """Where an operand is read."""
        return None if operand is None else operand.use


def same(x: Operand) -> Typed:
    """The axes of an operand."""
    return Typed(list(x.axes))
