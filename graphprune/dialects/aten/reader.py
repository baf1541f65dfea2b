"""Reads a captured graph into a program. Weights are not copied: a stored tensor reads its numbers when asked.

Decides nothing about pruning. Every argument of an operator keeps its name in the operator's schema; where a value of
the graph stands in an argument, the argument holds an `At` with its place among the inputs of the node.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.fx import GraphModule
from torch.fx import Node as FxNode
from torch.utils import _pytree as pytree

from graphprune.dialects.aten.call import At
from graphprune.dialects.aten.capture import Captured
from graphprune.dialects.aten.dialect import AtenDialect
from graphprune.dialects.aten.flow import AROUND, FLOW
from graphprune.dialects.aten.places import arguments, operator_name
from graphprune.dialects.aten.sizes import size_of
from graphprune.errors import GraphPruneError
from graphprune.garbage import no_collection
from graphprune.program import Array, Block, Node, Program, Stored, Value

_TYPES = {
    torch.float32: "float", torch.float64: "double", torch.float16: "float16", torch.bfloat16: "bfloat16",
    torch.int64: "int64", torch.int32: "int32", torch.int16: "int16", torch.int8: "int8", torch.uint8: "uint8",
    torch.bool: "bool", torch.complex64: "complex64", torch.complex128: "complex128",
}  # fmt: skip

# Checks that torch.export writes into the graph; they compute nothing.
_CHECKS = ("_assert", "sym_constrain_range", "_check")


# What torch.export wraps around the constants of a model (`torch.tensor([0, 2, 1])`).
_HANDED_ON = ("aten.lift_fresh.default", "aten.lift_fresh_copy.default", "aten.detach_.default")

# What a node of a graph computes.
_COMPUTED = (torch.Tensor, torch.SymInt, torch.SymFloat, torch.SymBool, int, float, bool)

# What most arguments are that hold no value of the graph.
_PLAIN = frozenset({int, float, bool, str, type(None)})

# Tensors of which only the data type is read.
_TYPE_ONLY = {"type_as": "other", **{f"new_{name}": "self" for name in ("zeros", "ones", "full", "empty")}}


@no_collection()
def read(captured: Captured, rules: Mapping[str, str] | None = None) -> Program:
    """The program of a captured module. ``rules`` are rows in axis notation for operators that have none here, by name
    (``"my_library::scale": "n c ..., c -> n c ..."``)."""
    reader = _Reader(captured)
    main = reader.block(captured.graph, None)
    reader.other_names()
    source = captured.source
    name = type(source if source is not None else captured.graph).__name__
    program = Program(name, main, list(reader.stored.values()), native=captured, sizes=dict(captured.sizes))
    program.rules = dict(rules or {})
    program.dialect = AtenDialect.with_rows(program.rules, reader.constants)
    return program


class _Reader:
    def __init__(self, captured: Captured):
        self.captured = captured
        self.values: dict[FxNode, Any] = {}
        self.stored: dict[int, Stored] = {}
        self.tensors: dict[int, Value] = {}
        self.constants: set[Value] = set()
        self.paths = {module: path for path, module in captured.graph.named_modules()}

    def block(self, module: GraphModule, around: Sequence[Any] | None) -> Block:
        """The nodes of a graph. The last inputs of a body stand for the values ``around`` it (the main graph: none)."""
        nodes: list[Node] = []
        inputs: list[Value] = []
        outputs: list[Value | None] = []
        formal = module.graph.find_nodes(op="placeholder")
        bound = dict(zip(formal[::-1], (around or [])[::-1], strict=False))
        for node in module.graph.nodes:
            if isinstance(bound.get(node), FxNode):
                self.values[node] = self.values[bound[node]]
            elif node.op == "placeholder":
                self.values[node] = self.input(node, inputs, around is None)
            elif node.op == "get_attr":
                self.values[node] = self.attribute(module, node)
            elif node.op == "call_function":
                self.call(node, nodes)
            elif node.op == "output":
                found = [self.values.get(each) for each in pytree.tree_leaves(node.args[0])]
                outputs = [each if isinstance(each, Value) else None for each in found]
        return Block(nodes, inputs, outputs)

    def input(self, node: FxNode, inputs: list[Value], of_main: bool) -> Value | None:
        meta = node.meta.get("val")
        if of_main and not isinstance(meta, (torch.Tensor, torch.SymInt)):
            return None
        value = self.value(node.name, meta, node)
        inputs.append(value)
        return value

    def value(self, name: str, meta: Any, node: FxNode) -> Value:
        """A value that is computed; its native form is its node, what was traced, and the traced sizes."""
        fixed = self.captured.fixed
        if isinstance(meta, torch.Tensor):
            sizes = [size_of(size, fixed) for size in meta.shape]
            shape = tuple(size if isinstance(size, int) else str(size) for size in sizes)
            return Value(name, shape, type_name(meta.dtype), native=(node, meta, sizes))
        size = size_of(meta, fixed) if isinstance(meta, torch.SymInt | int) else 0
        return Value(name, (), "int64" if isinstance(meta, torch.SymInt | int) else "", native=(node, meta, [size]))

    def attribute(self, module: GraphModule, node: FxNode) -> Value | GraphModule | None:
        found: Any = operator.attrgetter(str(node.target))(module)
        if isinstance(found, GraphModule):
            return found
        if not isinstance(found, torch.Tensor):
            return None
        name = f"{self.paths[module]}.{node.target}".removeprefix(".")
        known = self.tensors.get(id(found))
        if known is None:
            known = self.tensors[id(found)] = self.keep(name, found, node)
        elif known.stored is not None and name not in known.stored.native:
            known.stored.native.append(name)
        return known

    def keep(self, name: str, tensor: torch.Tensor, node: FxNode) -> Value:
        shape = tuple(tensor.shape)
        dtype = type_name(tensor.dtype)
        stored = Stored(
            name, shape, dtype, tensor.numel() * tensor.element_size(), lambda: numbers(tensor), [name], tensor.is_meta
        )
        self.stored[id(tensor)] = stored
        value = Value(name, shape, dtype, stored, native=(node, tensor, list(shape)))
        self.constants.add(value)
        return value

    def other_names(self) -> None:
        """Tied tensors have names that no node reads them by: who writes one writes it under all."""
        for named in (self.captured.graph.named_parameters, self.captured.graph.named_buffers):
            for name, tensor in named(remove_duplicate=False):
                stored = self.stored.get(id(tensor))
                if stored is not None and name not in stored.native:
                    stored.native.append(name)

    def call(self, node: FxNode, nodes: list[Node]) -> None:
        meta = node.meta.get("val")
        whole = node.args[0] if node.target is operator.getitem else None
        if isinstance(whole, FxNode) and isinstance(self.values.get(whole), list):
            self.values[node] = self.values[whole][node.args[1]]
            return
        name = operator_name(node.target)
        if any(mark in name for mark in _CHECKS):
            return
        source = node.args[0] if name in _HANDED_ON else None
        if isinstance(source, FxNode) and self.values.get(source) in self.constants:
            self.values[node] = self.values[source]
            return
        found = Node(node.name, name, [], [], native=node)
        skipped = _TYPE_ONLY.get(name.split(".")[1] if name.startswith("aten.") else "", "")
        found.attributes = {
            key: None if key == skipped else self.argument(each, found) for key, each in arguments(node).items()
        }
        if isinstance(meta, tuple | list):
            many = [self.value(f"{node.name}.{k}", each, node) for k, each in enumerate(meta)]
            self.values[node], found.outputs = many, many
        elif isinstance(meta, _COMPUTED):
            self.values[node] = self.value(node.name, meta, node)
            found.outputs = [self.values[node]]
        for output in found.outputs:
            output.producer = found
        if name in FLOW:
            for key, each in found.attributes.items():
                body = each[-1] if isinstance(each, list) and each else each
                if isinstance(body, GraphModule):
                    around: Any = node.args[AROUND.get((name, key), -1)]
                    found.blocks[key] = self.block(body, around)
        elif any(each in self.constants for each in found.inputs) and all(
            each is None or each in self.constants for each in found.inputs
        ):
            self.constants.update(found.outputs)
        nodes.append(found)

    def argument(self, given: Any, node: Node) -> Any:
        if type(given) in _PLAIN:
            return given
        if isinstance(given, FxNode):
            value = self.values.get(given)
            if isinstance(value, GraphModule):
                return value
            if isinstance(value, list):
                return [self._input(each, node) for each in value]
            return self._input(value, node)
        if isinstance(given, list | tuple):
            return [self.argument(each, node) for each in given]
        if isinstance(given, slice):
            return [self.argument(each, node) for each in (given.start, given.stop, given.step)]
        return given

    @staticmethod
    def _input(value: Value | None, node: Node) -> At | None:
        if value is None:
            return None
        value.readers = 1  # parameters have one type for all their readers, however many
        node.inputs.append(value)
        return At(len(node.inputs) - 1)


def type_name(dtype: torch.dtype) -> str:
    """The name of a data type as the core knows it."""
    return _TYPES.get(dtype, str(dtype).removeprefix("torch."))


class NoNumbersError(GraphPruneError, ValueError):
    """A tensor has a shape and no numbers; a rule that cannot do without pins what it reads (as for any ValueError)."""


def numbers(tensor: torch.Tensor) -> Array:
    """The entries of a tensor; types that NumPy does not have as float32. Raises NoNumbersError, GP103."""
    plain = tensor.detach()
    if plain.is_meta:
        what = "a tensor on the meta device has no numbers, and they are needed here"
        remedy = "criterion='random' with verify=False does without; or give the model its weights first"
        raise NoNumbersError("GP103", what, "", remedy)
    plain = plain.cpu().resolve_conj().resolve_neg()
    if plain.dtype in {torch.bfloat16} or plain.dtype not in _TYPES:
        plain = plain.float()
    array: Array = plain.contiguous().numpy()
    return array
