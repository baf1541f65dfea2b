"""The shape of a row of an operator table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from graphprune.program import Node
from graphprune.rules.trace import Trace, Typed


@dataclass(frozen=True)
class Operator:
    """How one operator is typed. ``sizes`` says that the rule looks at entries that are run-time sizes itself; for all
    others such entries flowing in are pinned. ``operands`` is how many operands it computes with; of those behind them
    it looks at the data type alone. ``pinned`` is the reason where the rule is to pin everything."""

    rule: Callable[[Trace, Node], list[Typed]]
    sizes: bool = False
    pinned: str = ""
    operands: int | None = None
