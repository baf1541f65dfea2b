"""What an ONNX file must satisfy before anything is built from it: it may be damaged, or made to do harm.

Checks the message as parsed, without looking at the weights: names, order, nesting, sizes against data, the places of
external data. Decides nothing about pruning.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir

from graphprune.dialects.onnx.schemas import check_attributes, versions_of
from graphprune.errors import GraphPruneError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MOST_NODES = 2_000_000
"""Nodes after writing out every function call: calls in functions in functions can stand for any number of them."""
MOST_NESTING = 64

# The field of a TensorProto that holds data not stored as bytes; all others are in int32_data.
_FIELDS: dict[int, str] = {
    onnx.TensorProto.FLOAT: "float_data",
    onnx.TensorProto.COMPLEX64: "float_data",
    onnx.TensorProto.DOUBLE: "double_data",
    onnx.TensorProto.COMPLEX128: "double_data",
    onnx.TensorProto.INT64: "int64_data",
    onnx.TensorProto.UINT32: "uint64_data",
    onnx.TensorProto.UINT64: "uint64_data",
}
_DATA = ("raw_data", "float_data", "int32_data", "int64_data", "uint64_data", "double_data", "string_data")
_COMPLEX: frozenset[int] = frozenset({onnx.TensorProto.COMPLEX64, onnx.TensorProto.COMPLEX128})

_GRAPHS: frozenset[int] = frozenset({onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS})


@dataclass
class Findings:
    """What was seen on the way: whether a graph lists a node before one it reads, and the files of external data."""

    unsorted: bool = False
    data_files: set[str] = field(default_factory=set)


def check(model: onnx.ModelProto, folder: str) -> Findings:
    """Raise GraphPruneError unless the model can be read without surprises.

    folder: where the model file is; external data must be inside.
    Raises GP101 for missing external data, GP102 for what breaks the format, GP103 for features that cannot be kept,
    GP109 for data outside the folder, and for nesting and sizes beyond the limits.
    """
    findings = Findings()
    _check_versions(model)
    texts = [model.producer_name, model.producer_version, model.domain, model.doc_string]
    _check_text([*texts, *(text for entry in model.metadata_props for text in (entry.key, entry.value))], "the model")
    _Graph(folder, findings, versions_of(model.opset_import)).graph(model.graph, [], 0)
    for function in model.functions:
        _Graph(folder, findings, versions_of(function.opset_import)).function(function)
    _check_calls(model)
    return findings


def _bad(what: str, where: str = "") -> GraphPruneError:
    return GraphPruneError("GP102", what, where)


def _check_versions(model: onnx.ModelProto) -> None:
    if not model.HasField("graph"):
        raise _bad("it holds no graph")
    if model.ir_version < 1:
        raise _bad(f"its IR version is {model.ir_version}")
    if model.ir_version > onnx.IR_VERSION:
        what = f"its IR version {model.ir_version} is newer than the installed onnx knows ({onnx.IR_VERSION})"
        raise GraphPruneError("GP103", what, remedy="update the onnx package")
    if model.training_info:
        raise GraphPruneError("GP103", "it holds training information", remedy="export the model for inference")
    versions: dict[str, int] = {}
    for imported in (*model.opset_import, *(each for f in model.functions for each in f.opset_import)):
        domain = "" if imported.domain == "ai.onnx" else imported.domain
        versions[domain] = max(versions.get(domain, 0), imported.version)
        if imported.version < 1:
            raise _bad(f"it imports version {imported.version} of the operators of {domain or 'ai.onnx'}")
    newest = onnx.defs.onnx_opset_version()
    if versions.get("", 0) > newest:
        what = f"its opset {versions['']} is newer than the installed onnx knows ({newest})"
        raise GraphPruneError("GP103", what, remedy="update the onnx package, or export for an older opset")
    if "" not in versions and any(node.domain in {"", "ai.onnx"} for node in model.graph.node):
        raise _bad("it does not say which opset it uses")


class _Graph:
    """Walks one graph and the graphs inside it; returns what they read from outside."""

    def __init__(self, folder: str, findings: Findings, versions: Mapping[str, int]) -> None:
        self.folder = folder
        self.findings = findings
        self.versions = versions

    def graph(self, graph: onnx.GraphProto, outer: Sequence[frozenset[str]], depth: int) -> set[str]:
        where = f"graph {graph.name!r}"
        if depth > MOST_NESTING:
            raise GraphPruneError("GP109", f"graphs are nested more than {MOST_NESTING} deep", where)
        if graph.sparse_initializer:
            raise GraphPruneError("GP103", "it holds sparse initializers", where, "store them as dense tensors")
        inputs = [value.name for value in graph.input]
        stored = [tensor.name for tensor in graph.initializer]
        results = [value.name for value in graph.output]
        _check_text([*inputs, *stored, *results, graph.doc_string], where)
        if not all((*inputs, *stored, *results)):
            raise _bad("an input, output or initializer of the graph has no name", where)
        _check_text([each.name for each in graph.value_info], where)
        _check_distinct(inputs, "graph inputs", where)
        _check_distinct(stored, "initializers", where)
        for tensor in graph.initializer:
            self.tensor(tensor, f"initializer {tensor.name!r}")
        given = set(inputs) | set(stored)
        return self.body(graph.node, given, results, outer, depth, where)

    def function(self, function: onnx.FunctionProto) -> None:
        where = f"function {function.domain}:{function.name}"
        if not all((*function.input, *function.output)):
            raise _bad("an input or output has no name", where)
        _check_distinct(list(function.input), "inputs", where)
        self.body(function.node, set(function.input), list(function.output), [], 0, where)

    def body(
        self,
        nodes: Sequence[onnx.NodeProto],
        given: set[str],
        results: list[str],
        outer: Sequence[frozenset[str]],
        depth: int,
        where: str,
    ) -> set[str]:
        """Check names and order; the names that this body reads and does not make itself."""
        made = [name for node in nodes for name in node.output if name]
        _check_distinct(made, "outputs of nodes", where)
        both = given.intersection(made)
        if both:
            raise _bad(f"{min(both)!r} is made by a node and given as an input or initializer", where)
        mine = frozenset(given.union(made))
        scopes = [*outer, mine]
        reads: list[set[str]] = []
        for node in nodes:
            _check_text([node.name, node.op_type, node.domain, node.overload, *node.input, *node.output], where)
            if not node.op_type:
                raise _bad("a node has no operator", f"{where}, node {node.name!r}")
            names = {name for name in node.input if name}
            for inner in self.attributes(node):
                names |= self.graph(inner, scopes, depth + 1)
            reads.append(names)
        needed = set().union(*reads, (name for name in results if name))
        for name in needed - mine:
            if not any(name in scope for scope in outer):
                raise _bad(f"nothing produces {name!r}", where)
        self.order(nodes, reads, given, mine, where)
        return needed - mine

    def attributes(self, node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
        """Check the tensors among a node's attributes; its graphs."""
        where = f"node {node.name!r} ({node.op_type})"
        for attribute in node.attribute:
            _check_text([attribute.name, attribute.ref_attr_name, attribute.doc_string], where)
            if attribute.type == onnx.AttributeProto.UNDEFINED:
                raise _bad(f"the attribute {attribute.name!r} has no type", where)
            if attribute.type == onnx.AttributeProto.TENSOR and not (
                attribute.HasField("t") or attribute.ref_attr_name
            ):
                raise _bad(f"the attribute {attribute.name!r} holds no tensor", where)
            if attribute.ref_attr_name and attribute.type in _GRAPHS:
                what = f"the attribute {attribute.name!r} is a graph that is an argument of the function it stands in"
                raise GraphPruneError("GP103", what, where, "give the node a graph of its own")
            if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
                raise GraphPruneError("GP103", "it holds a sparse tensor", where, "store it as a dense tensor")
            if attribute.HasField("t"):
                self.tensor(attribute.t, f"{where}, attribute {attribute.name!r}")
            for tensor in attribute.tensors:
                self.tensor(tensor, f"{where}, attribute {attribute.name!r}")
            if attribute.HasField("g"):
                yield attribute.g
            yield from attribute.graphs
        check_attributes(node, self.versions, where)

    def order(
        self,
        nodes: Sequence[onnx.NodeProto],
        reads: list[set[str]],
        given: set[str],
        mine: frozenset[str],
        where: str,
    ) -> None:
        """Raise GP102 where nodes wait for each other in a circle; note where they are merely out of order."""
        ready = set(given)
        late = []
        for place, node in enumerate(nodes):
            if any(name in mine and name not in ready for name in reads[place]):
                late.append(place)
            else:
                ready.update(node.output)
        if late:
            self.findings.unsorted = True
            _check_acyclic(nodes, reads, ready, late, where)

    def tensor(self, tensor: onnx.TensorProto, where: str) -> None:
        """The declared size must be the size of the data."""
        if any(size < 0 for size in tensor.dims):
            raise _bad(f"a tensor has the negative size {min(tensor.dims)}", where)
        count = math.prod(tensor.dims)
        try:
            kind = ir.DataType(tensor.data_type)
        except ValueError:
            raise _bad(f"a tensor has the unknown data type {tensor.data_type}", where) from None
        if kind == ir.DataType.UNDEFINED:
            raise _bad("a tensor has no data type", where)
        if kind == ir.DataType.STRING:
            if len(tensor.string_data) != count or tensor.HasField("raw_data"):
                raise _bad(f"its shape asks for {count} strings and it holds {len(tensor.string_data)}", where)
            return
        need = (count * kind.bitwidth + 7) // 8
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            self.external(tensor, need, where)
            return
        held = [name for name in _DATA if len(getattr(tensor, name))]
        if len(held) > 1:
            raise _bad(f"it holds its numbers more than once: {', '.join(held)}", where)
        if tensor.HasField("raw_data"):
            if len(tensor.raw_data) != need:
                raise _bad(f"its shape asks for {need} bytes and it holds {len(tensor.raw_data)}", where)
        else:
            entries = len(getattr(tensor, _FIELDS.get(tensor.data_type, "int32_data")))
            packed = (count * kind.bitwidth + 7) // 8 if kind.bitwidth < 8 else count
            wanted = 2 * count if tensor.data_type in _COMPLEX else packed
            if entries != wanted:
                raise _bad(f"its shape asks for {wanted} numbers and it holds {entries}", where)

    def external(self, tensor: onnx.TensorProto, need: int, where: str) -> None:
        """External data must be a file inside the folder of the model, and long enough."""
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        if not location or "\0" in location:
            raise _bad("external data without a file name", where)
        try:
            offset, length = int(entries.get("offset", "0")), int(entries.get("length", str(need)))
        except ValueError:
            raise _bad("the offset or length of its external data is not a number", where) from None
        if offset < 0 or length != need:
            raise _bad(f"its shape asks for {need} bytes of external data, from {offset} on there are {length}", where)
        path = os.path.join(self.folder, location)
        inside = os.path.realpath(self.folder).rstrip(os.sep) + os.sep
        spelt = os.path.normpath(os.path.join(os.path.abspath(self.folder), location))
        if not os.path.realpath(path).startswith(inside) or not spelt.startswith(
            os.path.abspath(self.folder).rstrip(os.sep) + os.sep
        ):
            raise GraphPruneError("GP109", f"its external data {location!r} is outside the folder of the model", where)
        try:
            found = os.stat(path)
        except OSError as error:
            reason = (error.strerror or "unreadable").lower()
            raise GraphPruneError("GP101", f"external data {location!r}: {reason}", where) from None
        if not os.path.isfile(path) or found.st_nlink > 1:
            why = "has several hard links" if os.path.isfile(path) else "is not a file"
            remedy = "copy the file so that it stands alone beside the model"
            raise GraphPruneError("GP109", f"its external data {location!r} {why}", where, remedy)
        if found.st_size < offset + need:
            what = f"external data {location!r} ends at byte {found.st_size}, the tensor at {offset + need}"
            raise _bad(what, where)
        self.findings.data_files.add(os.path.realpath(path))


def _check_acyclic(
    nodes: Sequence[onnx.NodeProto], reads: list[set[str]], ready: set[str], late: list[int], where: str
) -> None:
    """Kahn's algorithm over the nodes that are listed too early: linear in their number, whatever the order."""
    makes = {name for place in late for name in nodes[place].output}
    readers: dict[str, list[int]] = {}
    count: dict[int, int] = {}
    for place in late:
        awaited = {name for name in reads[place] if name not in ready and name in makes}
        count[place] = len(awaited)
        for name in awaited:
            readers.setdefault(name, []).append(place)
    free = [place for place in late if count[place] == 0]
    done = 0
    while free:
        done += 1
        for name in nodes[free.pop()].output:
            for reader in readers.get(name, ()):
                count[reader] -= 1
                if count[reader] == 0:
                    free.append(reader)
    if done < len(late):
        stuck = next(nodes[place] for place in late if count[place])
        raise _bad(f"nodes depend on each other in a circle, among them {stuck.name or stuck.op_type!r}", where)


def _check_text(texts: Iterable[str | bytes], where: str) -> None:
    """protobuf hands over text that is not UTF-8 as it is, and refuses to write it later."""
    for text in texts:
        try:
            valid = isinstance(text, str) and text.encode() is not None
        except UnicodeEncodeError:
            valid = False
        if not valid:
            raise _bad(f"the name {text!r} is not valid UTF-8", where)


def _check_distinct(names: Iterable[str], what: str, where: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise _bad(f"two {what} are called {name!r}", where)
        seen.add(name)


def _check_calls(model: onnx.ModelProto) -> None:
    """Functions must not call themselves, and must not stand for more nodes than can be analysed."""
    bodies = {(f.domain, f.name, f.overload): f for f in model.functions}
    sizes: dict[tuple[str, str, str], int] = {}
    active: list[tuple[str, str, str]] = []

    def expanded(nodes: Iterable[onnx.NodeProto]) -> int:
        total = 0
        for node in nodes:
            key = (node.domain, node.op_type, node.overload)
            inner = sum(
                expanded(graph.node) for attribute in node.attribute for graph in (attribute.g, *attribute.graphs)
            )
            total += 1 + inner + (size_of(key) if key in bodies else 0)
        return total

    def size_of(key: tuple[str, str, str]) -> int:
        if key in active:
            raise _bad(f"the function {key[0]}:{key[1]} calls itself")
        if len(active) > MOST_NESTING:
            raise GraphPruneError("GP109", f"functions call functions more than {MOST_NESTING} deep")
        if key not in sizes:
            active.append(key)
            sizes[key] = expanded(bodies[key].node)
            active.pop()
        return sizes[key]

    for key in bodies:
        size_of(key)
    total = expanded(model.graph.node)
    if total > MOST_NODES:
        raise GraphPruneError("GP109", f"its function calls stand for {total} nodes, more than {MOST_NODES}")
