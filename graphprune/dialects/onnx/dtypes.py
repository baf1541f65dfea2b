"""The data types of results that a file does not declare, from the schemas of operators: what memory and tolerances
are counted with. A type that is not found stays unknown ('')."""

from __future__ import annotations

from functools import cache

import onnx
import onnx_ir as ir

from graphprune.program import Node

# Attributes that hold the type of the result, as a number of onnx.
_TYPE_ATTRIBUTES = ("to", "dtype", "output_dtype", "output_datatype")
# Where the schema only says that an attribute may give the type, and the operand that gives it without.
_LIKE_OPERAND = {"QuantizeLinear": 2, "DequantizeLinear": 1, "EyeLike": 0, "Bernoulli": 0, "LinearAttention": 0}
_FLOATS = frozenset({"float", "float16", "bfloat16", "double"})


def result_type(node: Node, index: int) -> str:
    """The type of output ``index`` of a node by its operator, attributes and the types of its operands."""
    domain, _, name = node.op.rpartition(":")
    named = next((node.attributes[key] for key in _TYPE_ATTRIBUTES if node.attributes.get(key)), None)
    if isinstance(named, int):
        return _named(named)
    if name == "ConstantOfShape":
        value = node.attributes.get("value")
        return value.dtype.name.lower() if isinstance(value, ir.TensorProtocol) else "float"
    if name in _LIKE_OPERAND:
        return _operand(node, _LIKE_OPERAND[name]) or ("uint8" if name == "QuantizeLinear" else "")
    if node.blocks:  # branches, the body of a loop (which says first whether to go on), or that of a function
        outputs = next(iter(node.blocks.values())).outputs[name == "Loop" :]
        return getattr(outputs[index], "dtype", "") if index < len(outputs) else ""
    known = _of_schema(name, domain, node.version)
    if known is None:
        return _of_operands(node, name)
    kind, places = known[min(index, len(known) - 1)] if known else ("", ())
    return kind or next((found for place in places if (found := _operand(node, place))), "")


@cache
def _of_schema(name: str, domain: str, version: int) -> tuple[tuple[str, tuple[int, ...]], ...] | None:
    """For each output the type that it always has, or the operands whose type it shares; None without a schema."""
    try:
        schema = onnx.defs.get_schema(name, version, domain)
    except onnx.defs.SchemaError:
        return None
    only = {each.type_param_str: each.allowed_type_strs for each in schema.type_constraints}
    found = []
    for output in schema.outputs:
        allowed = only.get(output.type_str, [output.type_str])
        kind = allowed[0].removeprefix("tensor(").removesuffix(")") if len(allowed) == 1 else ""
        places = (place for place, operand in enumerate(schema.inputs) if operand.type_str == output.type_str)
        found.append((kind, tuple(places)))
    return tuple(found)


def _of_operands(node: Node, name: str) -> str:
    """For operators of onnxruntime and others without a schema: those on quantised numbers give what they get, the
    others floating-point numbers like those that they read."""
    if name.startswith("QLinear"):
        return _operand(node, 0)
    return next((value.dtype for value in node.inputs if value is not None and value.dtype in _FLOATS), "")


def _operand(node: Node, place: int) -> str:
    value = node.inputs[place] if place < len(node.inputs) else None
    return "" if value is None else value.dtype


def _named(number: int) -> str:
    try:
        return ir.DataType(number).name.lower()
    except ValueError:
        return ""
