"""Runs an ONNX model in stages: the nodes between two stops become a model of their own (see
`graphprune.dialects.tools`)."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from threading import Lock

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir import serde

from graphprune.dialects.onnx.runner import Runner, has_bfloat16, has_onnxruntime, loaded
from graphprune.errors import GraphPruneError
from graphprune.program import Array, Node, Program, Stored, Value


@dataclass(eq=False)
class _State:
    """Values by name, as long as a later stage reads them."""

    known: dict[str, Array]
    stage: int = 0
    outputs: list[Array] = field(default_factory=list)


@dataclass(eq=False)
class _Part:
    """The nodes of one stage; ``gives`` are the values that are needed after it, ``drops`` those that no longer are."""

    nodes: list[ir.Node]
    takes: list[str]
    gives: list[str]
    drops: list[str] = field(default_factory=list)
    runner: Runner | None = None


class OnnxStaged:
    """The main graph of a program, in stages. A stage is built when it is first run, with the numbers of its weights at
    that time, and again when they change."""

    def __init__(self, program: Program, before: Sequence[Node], watched: Sequence[Value]):
        self.model: ir.Model = program.native
        self.numbers: dict[str, Array] = {}
        self.building = Lock()
        nodes = [node for node in self.model.graph if not _is_constant(node)]
        self.constants = {**_initializers(self.model), **_constants(self.model)}
        order = {node: place for place, node in enumerate(nodes)}
        places = [order[node.native] for node in before]
        cuts = zip([0, *places], [*places, len(nodes)], strict=True)
        keep = {value.name for value in watched} | {value.name or "" for value in self.model.graph.outputs}
        self.derived = self._derived(nodes, keep)
        # What the node after a stop reads can be asked for, so it is handed on even where its stage would make it.
        self.parts = self._cut([nodes[a:b] for a, b in cuts], keep, [_reads(node.native) for node in before])
        self.stages = len(self.parts)

    def _cut(self, groups: list[list[ir.Node]], keep: set[str], asked: list[set[str]]) -> list[_Part]:
        parts: list[_Part] = []
        needed = set(keep)
        for place in range(len(groups) - 1, -1, -1):
            group = self._with_derived(groups[place])
            made = {value.name or "" for node in group for value in node.outputs} - {""}
            read = {name for node in group for name in _reads(node)} - made - set(self.constants)
            wanted = needed | (asked[place] if place < len(asked) else set())
            parts.append(_Part(group, sorted(read), sorted((made & wanted) - set(self.derived))))
            needed = (needed | read) - made - set(self.derived)
        parts.reverse()
        live = set(keep)
        for place in range(len(parts) - 1, -1, -1):
            later = live | (asked[place] if place < len(asked) else set())
            parts[place].drops = sorted(set(parts[place].takes) - later)
            live |= set(parts[place].takes)
        return parts

    def _derived(self, nodes: Sequence[ir.Node], keep: set[str]) -> dict[str, ir.Node]:
        """Weights that are dequantised from constants, by name: each stage that reads one computes it itself, so that
        it sees what was written to the codes."""
        found = [node for node in nodes if node.op_type == "DequantizeLinear" and _reads(node) <= set(self.constants)]
        return {node.outputs[0].name or "": node for node in found if node.outputs[0].name not in keep}

    def _with_derived(self, group: list[ir.Node]) -> list[ir.Node]:
        """The nodes of a stage after those that dequantise the weights they read."""
        rest = [node for node in group if self.derived.get(node.outputs[0].name or "") is not node]
        read = {name for node in rest for name in _reads(node)}
        return [*(node for name, node in self.derived.items() if name in read), *rest]

    def begin(self, case: Mapping[str, Array]) -> _State:
        return _State(dict(case))

    def step(self, state: _State) -> None:
        part = self.parts[state.stage]
        if part.gives:
            missing = [name for name in part.takes if name not in state.known]
            if missing:
                what = f"the value {missing[0]!r} is neither an input nor computed before"
                raise GraphPruneError("GP402", what, str(self.model.graph.name))
            given = {name: state.known[name] for name in part.takes}
            with self.building:
                part.runner = part.runner or Runner(self._built(part, given), optimised=True)
            found = part.runner(given)
            state.known.update(zip(part.gives, found, strict=True))
        for name in part.drops:
            del state.known[name]
        state.stage += 1
        if state.stage == self.stages:
            state.outputs = [self._value(state, value.name or "") for value in self.model.graph.outputs]

    def _built(self, part: _Part, given: Mapping[str, Array]) -> ir.Model:
        inputs = [_info(name, array) for name, array in given.items()]
        outputs = [onnx.helper.make_empty_tensor_value_info(name) for name in part.gives]
        read = {name for node in part.nodes for name in _reads(node)} & set(self.constants)
        tensors = [self._tensor(name) for name in sorted(read)]
        nodes = [serde.serialize_node(node) for node in part.nodes]
        graph = onnx.helper.make_graph(nodes, "stage", inputs, outputs, tensors)
        imports = [onnx.helper.make_opsetid(domain, number) for domain, number in self.model.opset_imports.items()]
        functions = [serde.serialize_function(each) for each in self.model.functions.values()]
        made = onnx.helper.make_model(graph, opset_imports=imports, functions=functions)
        made.ir_version = max(8, self.model.ir_version)
        return serde.deserialize_model(made)

    def _tensor(self, name: str) -> onnx.TensorProto:
        tensor = self.constants[name]
        if name in self.numbers:
            tensor = ir.Tensor(self.numbers[name], dtype=tensor.dtype, name=name)
        proto = serde.serialize_tensor(loaded(tensor, name))
        proto.name = name
        return proto

    def _value(self, state: _State, name: str) -> Array:
        if name in state.known:
            return state.known[name]
        if name in self.constants:
            return self.numbers.get(name, self.constants[name].numpy())
        raise GraphPruneError("GP402", f"the value {name!r} is not known at this stage", str(self.model.graph.name))

    def read(self, state: _State, value: Value) -> Array:
        return self._value(state, value.name)

    def outputs(self, state: _State) -> list[Array]:
        return state.outputs

    def fork(self, state: _State) -> _State:
        return _State(dict(state.known), state.stage, list(state.outputs))

    def write(self, stored: Stored, array: Array) -> None:
        dtype = self.constants[stored.name].dtype.numpy()
        self.numbers[stored.name] = np.ascontiguousarray(array.reshape(stored.shape), dtype)
        for part in self.parts:
            if any(stored.name in _reads(node) for node in part.nodes):
                part.runner = None

    def other(self, arrays: Mapping[Stored, Array]) -> OnnxStaged:
        made = copy.copy(self)
        made.numbers, made.parts = dict(self.numbers), [replace(part) for part in self.parts]
        for stored, array in arrays.items():
            made.write(stored, array)
        return made


_DRAWN = frozenset({"Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform",
                    "RandomUniformLike"})  # fmt: skip


def apart(model: ir.Model) -> bool:
    """Whether a model computes the same for a case whatever runs beside it: it draws no random numbers, and what runs
    it may be called from several threads."""
    inside = [*model.graph.all_nodes(), *(node for body in model.functions.values() for node in body.all_nodes())]
    return has_onnxruntime() and not has_bfloat16(model) and not any(node.op_type in _DRAWN for node in inside)


def with_stored(program: Program, arrays: Mapping[str, Array]) -> ir.Model:
    """See `graphprune.dialects.tools.Tools.with_stored`."""
    from graphprune.dialects.onnx.writer import Twins

    copy: ir.Model = program.native.clone()
    twins = Twins(program.native, copy)
    for stored in program.stored:
        if stored.name not in arrays:
            continue
        dtype = ir.DataType[stored.dtype.upper()]
        array = np.ascontiguousarray(arrays[stored.name].reshape(stored.shape), dtype.numpy())
        tensor = ir.Tensor(array, dtype=dtype, name=stored.name)
        if isinstance(stored.native, ir.Node):
            node = twins.nodes[stored.native]
            for name in [name for name in node.attributes if name.startswith("value")]:
                del node.attributes[name]
            node.attributes["value"] = ir.AttrTensor("value", tensor)
        else:
            twins.values[stored.native].const_value = tensor
    return copy


def _is_constant(node: ir.Node) -> bool:
    return node.op_type == "Constant" and node.domain in {"", "ai.onnx"}


def _initializers(model: ir.Model) -> dict[str, ir.TensorProtocol]:
    values = model.graph.initializers.values()
    return {value.name or "": value.const_value for value in values if value.const_value is not None}


def _constants(model: ir.Model) -> dict[str, ir.TensorProtocol]:
    """The tensors of Constant nodes, whichever attribute holds them."""
    found: dict[str, ir.TensorProtocol] = {}
    for node in filter(_is_constant, model.graph):
        for name, attribute in node.attributes.items():
            if name == "value":
                found[node.outputs[0].name or ""] = attribute.as_tensor()
            elif name in {"value_int", "value_ints", "value_float", "value_floats"}:
                dtype = np.int64 if "int" in name else np.float32
                found[node.outputs[0].name or ""] = ir.tensor(np.asarray(attribute.value, dtype))
    return found


def _reads(node: ir.Node) -> set[str]:
    """The names of what a node reads, in its bodies from outside as well."""
    found = {value.name or "" for value in node.inputs if value is not None}
    for body in _bodies(node):
        inside = {value.name or "" for value in (*body.inputs, *body.initializers.values())}
        for inner in body:
            found |= _reads(inner) - inside
            inside |= {value.name or "" for value in inner.outputs}
        found |= {value.name or "" for value in body.outputs if value is not None} - inside
    return found - {""}


def _bodies(node: ir.Node) -> Iterator[ir.Graph]:
    for attribute in node.attributes.values():
        if not attribute.is_ref() and attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()


def _info(name: str, array: Array) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), None)
