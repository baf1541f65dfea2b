"""Holds the attributes of nodes against the schemas of the installed onnx: rules may rely on what is checked here.

Only what every runtime refuses is an error: a known attribute of another type, a required one that is missing, one
given twice. Attributes that the schema does not list are left to whoever wrote them, and so are operators without one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache

import onnx

from graphprune.errors import GraphPruneError

_MOST_VERSION = 2**31 - 1


def versions_of(imports: Iterable[onnx.OperatorSetIdProto]) -> dict[str, int]:
    """Opset versions by domain, the standard domain spelt ''."""
    return {"" if each.domain == "ai.onnx" else each.domain: min(each.version, _MOST_VERSION) for each in imports}


def check_attributes(node: onnx.NodeProto, versions: Mapping[str, int], where: str) -> None:
    """Raise GraphPruneError GP102 where a node's attributes cannot be what its operator asks for."""
    domain = "" if node.domain == "ai.onnx" else node.domain
    kinds, required = _schema(node.op_type, domain, versions.get(domain, 1))
    given = set()
    for attribute in node.attribute:
        if attribute.name in given:
            raise GraphPruneError("GP102", f"it has two attributes called {attribute.name!r}", where)
        given.add(attribute.name)
        kind = kinds.get(attribute.name, attribute.type)
        if attribute.type != kind:
            names = onnx.AttributeProto.AttributeType.Name
            what = f"its attribute {attribute.name!r} is of type {names(attribute.type)}, not {names(kind)}"
            raise GraphPruneError("GP102", what, where)
    missing = required - given
    if missing:
        raise GraphPruneError("GP102", f"it lacks the attribute {min(missing)!r}, which {node.op_type} needs", where)


@cache
def _schema(operator: str, domain: str, version: int) -> tuple[dict[str, int], frozenset[str]]:
    """The types of an operator's attributes, and the names of those it cannot do without; nothing if unknown."""
    try:
        schema = onnx.defs.get_schema(operator, version, domain)
    except onnx.defs.SchemaError:
        return {}, frozenset()
    kinds = {name: attribute.type.value for name, attribute in schema.attributes.items()}  # type: ignore[attr-defined]  # missing in its stubs
    return kinds, frozenset(name for name, attribute in schema.attributes.items() if attribute.required)
