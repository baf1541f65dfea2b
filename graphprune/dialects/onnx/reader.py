"""Reads an onnx-ir model into a program. Weights are not loaded: a stored tensor reads its numbers when asked.

May import onnx-ir; decides nothing about pruning.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from graphprune.dialects.onnx.dialect import OnnxDialect, rows
from graphprune.dialects.onnx.dtypes import result_type
from graphprune.errors import GraphPruneError
from graphprune.garbage import no_collection
from graphprune.program import Array, Block, Node, Program, Stored, Value

# Control flow inside control flow, functions calling functions: real models stay in single digits.
MOST_NESTING = 64


@no_collection()
def read(model: ir.Model, rules: Mapping[str, str] | None = None) -> Program:
    """The program of a model. ``rules`` are rows in axis notation for operators that have none here, by name
    (``"my.domain:Scale": "n c ..., c -> n c ..."``). Raises :class:`GraphPruneError` where the graph is not one."""
    reader = _Reader(model)
    main = reader.graph(model.graph, dict(model.opset_imports), 0, {})
    program = Program(model.graph.name or "model", main, reader.stored, native=model)
    program.rules = dict(rules or {})
    program.dialect = OnnxDialect(rows(program.rules))
    return program


class _Reader:
    def __init__(self, model: ir.Model):
        self.model = model
        self.values: dict[ir.Value, Value] = {}
        self.stored: list[Stored] = []
        self.arguments: set[Value] = set()
        graphs: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
        every = (node for graph in graphs for node in ir.traversal.RecursiveGraphIterator(graph))
        self.calls = Counter(node.op_identifier() for node in every)

    def graph(
        self, graph: ir.Graph | ir.Function, imports: Mapping[str, int], depth: int, refs: Mapping[str, Any]
    ) -> Block:
        if depth > MOST_NESTING:
            raise GraphPruneError("GP109", f"graphs are nested more than {MOST_NESTING} deep", where=str(graph.name))
        initializers = graph.initializers if isinstance(graph, ir.Graph) else {}
        for value in initializers.values():
            self.value(value)
        inputs = [self.value(v) for v in graph.inputs if v is not None and v.name not in initializers]
        nodes: list[Node] = []
        for place, node in enumerate(graph):
            if node.op_type == "Constant" and node.domain in {"", "ai.onnx"} and node.outputs:
                self.constant(node, refs)
            else:
                nodes.append(self.node(node, place, imports, depth, refs))
        return Block(nodes, inputs, [None if v is None else self.read_again(v) for v in graph.outputs])

    def read_again(self, value: ir.Value) -> Value:
        found = self.value(value)
        found.readers += 1
        return found

    def value(self, value: ir.Value) -> Value:
        if value in self.values:
            return self.values[value]
        hidden = isinstance(value.type, ir.SequenceType | ir.OptionalType)  # the shape is that of what they hold
        shape = None if value.shape is None or hidden else tuple(_size(d) for d in value.shape)
        found = Value(
            value.name or "", shape, value.dtype.name.lower() if value.dtype is not None else "", native=value
        )
        tensor = value.const_value if value.is_initializer() else None
        if tensor is not None:
            self.keep(found, tensor, value)
        self.values[value] = found
        return found

    def keep(self, value: Value, tensor: ir.TensorProtocol, native: Any) -> None:
        shape = tuple(int(d) for d in tensor.shape if isinstance(d, int))
        if any(size < 0 for size in shape):
            raise GraphPruneError("GP102", f"a tensor has the negative size {min(shape)}", where=value.name)
        dtype = tensor.dtype.name.lower()
        nbytes = int(np.ceil(np.prod(shape, dtype=object) * tensor.dtype.bitwidth / 8)) if dtype != "string" else 0
        value.stored = Stored(value.name, shape, dtype, nbytes, lambda: _numbers(tensor), native)
        value.shape, value.dtype = shape, dtype
        self.stored.append(value.stored)

    def constant(self, node: ir.Node, refs: Mapping[str, Any]) -> None:
        value = self.value(node.outputs[0])
        if value.stored is not None:
            return
        for name in ("value", "value_int", "value_ints", "value_float", "value_floats"):
            attribute = node.attributes.get(name)
            if attribute is None:
                continue
            if attribute.is_ref():
                self.argument(value, name, refs.get(attribute.ref_attr_name or ""))
            elif name == "value":
                self.keep(value, attribute.as_tensor(), node)
            else:
                dtype = np.int64 if "int" in name else np.float32
                self.keep(value, ir.tensor(np.asarray(attribute.value, dtype)), node)

    def argument(self, value: Value, name: str, number: Any) -> None:
        """A constant that is an argument of the function it is in: a number of this call, which nothing rewrites."""
        if name not in {"value_int", "value_float"}:
            return
        value.shape, value.dtype = (), "int64" if name == "value_int" else "float"
        if isinstance(number, int | float):
            array = np.asarray(number, np.int64 if name == "value_int" else np.float32)
            value.stored = Stored(value.name, (), value.dtype, array.nbytes, lambda: array)
            self.arguments.add(value)

    def node(self, node: ir.Node, place: int, imports: Mapping[str, int], depth: int, refs: Mapping[str, Any]) -> Node:
        domain = "" if node.domain == "ai.onnx" else node.domain
        op = f"{domain}:{node.op_type}" if domain else node.op_type
        inputs = [None if v is None else self.read_again(v) for v in node.inputs]
        name = node.name or (node.outputs[0].name if node.outputs else "") or f"#{place}"
        found = Node(str(name), op, inputs, [], native=node, version=imports.get(node.domain, imports.get(domain, 1)))
        for key, attribute in node.attributes.items():
            if attribute.is_ref():
                found.frozen = True
                if attribute.ref_attr_name in refs:
                    found.attributes[key] = refs[attribute.ref_attr_name or ""]
            elif attribute.type == ir.AttributeType.GRAPH:
                found.blocks[key] = self.graph(attribute.as_graph(), imports, depth + 1, refs)
            elif attribute.type not in {ir.AttributeType.GRAPHS, ir.AttributeType.TYPE_PROTO}:
                found.attributes[key] = _plain(attribute)
        body = self.model.functions.get(node.op_identifier())
        if body is not None:
            for value in filter(None, inputs):
                value.readers -= 1  # those in the body are its readers
            found.blocks["call"] = self.call(body, found, found.attributes, depth)
        found.outputs = [self.value(v) for v in node.outputs]
        for index, output in enumerate(found.outputs):
            output.producer = found
            output.dtype = output.dtype or result_type(found, index)
        return found

    def call(self, body: ir.Function, call: Node, arguments: Mapping[str, Any], depth: int) -> Block:
        """The body of a called function with the values of this call in the place of its formal inputs. Constants are
        those of the function, tied among all its calls; numbers cannot be rewritten where there are several calls."""
        outside, self.values = self.values, dict(self.values)
        actual = [*call.inputs, *[None] * len(body.inputs)]
        for formal, value in zip(body.inputs, actual, strict=False):
            self.values[formal] = Value(formal.name or "") if value is None else value
        block = self.graph(body, dict(body.opset_imports), depth + 1, {**_defaults(body), **arguments})
        constants = {
            value: found
            for value, found in self.values.items()
            if found.stored is not None and found not in self.arguments
        }
        self.values = {**constants, **outside}
        if self.calls[body.identifier()] > 1 or body.attributes:
            _freeze(block)
        return block


def _freeze(block: Block) -> None:
    for node in block.nodes:
        node.frozen = True
        for output in node.outputs:
            output.native = None
        for inner in node.blocks.values():
            _freeze(inner)


def _defaults(body: ir.Function) -> dict[str, Any]:
    return {name: _plain(a) for name, a in body.attributes.items() if not a.is_ref() and a.value is not None}


def _plain(attribute: ir.Attr) -> Any:
    if attribute.type in {ir.AttributeType.INTS, ir.AttributeType.FLOATS, ir.AttributeType.STRINGS}:
        return list(attribute.value)
    return attribute.value


def _size(size: Any) -> int | str | None:
    if isinstance(size, int):
        return size if size >= 0 else None
    return None if size.value is None else str(size.value)


def _numbers(tensor: ir.TensorProtocol) -> Array:
    try:
        return tensor.numpy()
    except (ValueError, TypeError, OSError) as error:
        raise GraphPruneError(
            "GP102", f"its numbers cannot be read: {error}", where=tensor.name or "a tensor"
        ) from error
