"""What the analysis asks of ATen: the rule of an operator, and the numbers behind a constant value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from graphprune.dialects.aten import channels, functions
from graphprune.dialects.aten.call import Call
from graphprune.dialects.aten.cells import CELLS
from graphprune.dialects.aten.compute import COMPUTE
from graphprune.dialects.aten.elementwise import ELEMENTWISE
from graphprune.dialects.aten.flex import LOOKUPS
from graphprune.dialects.aten.flow import FLOW
from graphprune.dialects.aten.places import operand
from graphprune.dialects.aten.positions import POSITIONS
from graphprune.dialects.aten.products import PRODUCTS
from graphprune.dialects.aten.statistics import STATISTICS
from graphprune.dialects.aten.structure import STRUCTURE
from graphprune.dialects.aten.vmap import LEVELS
from graphprune.dims import Axis, Dim, Misfit, find, fresh
from graphprune.functions import Function
from graphprune.program import Array, Contraction, Node, Value
from graphprune.rules.notation import checked_row
from graphprune.rules.operator import Operator
from graphprune.rules.trace import Trace, Typed
from graphprune.sizes import Extent

_TABLES = (ELEMENTWISE, STRUCTURE, POSITIONS, COMPUTE, PRODUCTS, STATISTICS, CELLS, FLOW, LOOKUPS, LEVELS)
_VIEWS = """alias as_strided detach diagonal expand narrow permute select slice split split_with_sizes squeeze t
transpose unbind unfold unsqueeze view view_as_complex view_as_real"""

TABLE: dict[str, Operator] = {name: row for table in _TABLES for name, row in table.items()}
TABLE |= {f"aten.{name}_copy": TABLE[f"aten.{name}"] for name in _VIEWS.split()}


class AtenDialect:
    """The ATen operator table and constants. ``extra`` are rows of the user, by operator name."""

    name = "aten"

    def __init__(self, extra: Mapping[str, Operator], constants: set[Value]):
        self.table = {**TABLE, **extra}
        self.constants = constants
        self.rows: dict[str, Operator | None] = {}

    @classmethod
    def with_rows(cls, rules: Mapping[str, str], constants: set[Value]) -> AtenDialect:
        """The table with rows of the user in axis notation. Raises ``GP107`` where one cannot be read."""
        return cls({name: Operator(_row_rule(name, text)) for name, text in rules.items()}, constants)

    def row(self, node: Node) -> Operator | None:
        """The row of the node's operator: in-place forms and overloads are the same operator."""
        if node.op not in self.rows:
            self.rows[node.op] = self._row(node.op)
        return self.rows[node.op]

    def _row(self, op: str) -> Operator | None:
        name = op if "::" in op or not op.startswith("aten.") else ".".join(op.split(".")[:2])
        name = name.partition(".")[0] if "::" in name else name
        for candidate in (op, name, name.removesuffix("_")):
            if candidate in self.table:
                row = self.table[candidate]
                return Operator(_checked(row.rule), row.sizes, row.pinned)
        return None

    def is_affine(self, node: Node) -> bool:
        """Whether an output entry whose weights are all zero is the bias as it is stored."""
        return channels.is_affine(node)

    def can_fold(self, contraction: Contraction) -> bool:
        """Constant channels are not moved into biases here (see :mod:`graphprune.dead`)."""
        return False

    def on_channels(self, node: Node, vectors: list[Array | None]) -> Array | None:
        """What a node makes of operands known channel by channel (see :mod:`graphprune.dead`)."""
        return channels.on_channels(node, vectors)

    def function(self, node: Node) -> Function | None:
        """What a node computes entry by entry (see :mod:`graphprune.functions`); ``None`` for all others."""
        return functions.function(node)

    def writes(self, node: Node) -> bool:
        """Whether a node writes to memory that it reads."""
        schema = getattr(getattr(node.native, "target", None), "_schema", None)
        return schema is not None and bool(schema.is_mutable)

    def is_constant(self, value: Value) -> bool:
        """Whether a value is computed from stored tensors alone."""
        return value in self.constants

    def constant(self, value: Value) -> Array | None:
        """The numbers of a constant value, ``None`` where it is not constant."""
        if value.stored is not None:
            return value.stored.read()
        if value not in self.constants:
            return None
        from graphprune.dialects.aten.reader import numbers

        with torch.no_grad():
            return numbers(_evaluated(value))


def _evaluated(value: Value) -> Any:
    """Run the nodes that a constant is computed by."""
    if value.stored is not None:
        return value.native[1]
    node = value.producer
    if node is None:
        raise ValueError("it is not computed from constants")
    fx = node.native
    known = {operand(fx, node, place): _evaluated(each) for place, each in enumerate(node.inputs) if each is not None}
    args, kwargs = torch.fx.map_arg((fx.args, fx.kwargs), lambda each: known[each])
    result = fx.target(*args, **kwargs)
    return result[node.outputs.index(value)] if isinstance(result, tuple | list) else result


def _checked(rule: Callable[[Trace, Node], list[Typed]]) -> Callable[[Trace, Node], list[Typed]]:
    """A rule whose results have the sizes that were traced; ``Misfit`` where they have not, so that all is pinned."""

    def checked(trace: Trace, node: Node) -> list[Typed]:
        found = rule(trace, node)
        for value, typed in zip(node.outputs, found, strict=False):
            if typed.axes is None or value.shape is None or not isinstance(value.native[1], torch.Tensor):
                continue
            sizes = [axis.size for axis in typed.axes]
            if sizes == value.native[2]:
                continue
            wrong = any(
                isinstance(a, int) and isinstance(b, int) and a != b for a, b in zip(sizes, value.shape, strict=False)
            )
            if len(sizes) != len(value.shape) or wrong:
                raise Misfit(f"the rule of {node.op} makes {sizes} of what is {list(value.shape)}")
            typed.axes = [_as_traced(axis, size) for axis, size in zip(typed.axes, value.native[2], strict=True)]
        return found

    return checked


def _as_traced(axis: Axis, size: Extent) -> Axis:
    """An axis of a run-time size under the name that size has in the whole graph, so that all who read it agree."""
    plain = find(axis)
    if isinstance(plain, Dim) and plain.pin is not None and plain.size != size:
        return fresh(size, plain.origin, plain.pin)
    return axis


def _row_rule(name: str, text: str) -> Callable[[Trace, Node], list[Typed]]:
    row = checked_row(name, text)
    return lambda trace, node: [row(trace, Call(trace, node).data())]
