"""Runs a captured graph in stages, node by node, and stops where it is asked to (see `graphprune.dialects.tools`)."""

from __future__ import annotations

import copy
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.fx import GraphModule
from torch.fx import Node as FxNode
from torch.fx import _pytree as fx_pytree
from torch.utils import _pytree as pytree

from graphprune.dialects.aten.capture import CAPTURE_FAILS, Captured, cannot_run
from graphprune.dialects.aten.reader import numbers
from graphprune.dialects.aten.vmap import levels_closed
from graphprune.dialects.aten.writer import put
from graphprune.errors import GraphPruneError
from graphprune.program import Array, Node, Program, Stored, Value


@dataclass(eq=False)
class _State:
    """Results by node, as long as a later node reads them; copies of those that are watched."""

    known: dict[FxNode, Any]
    stage: int = 0
    watched: dict[str, Array] = field(default_factory=dict)
    outputs: list[Array] = field(default_factory=list)


class AtenStaged:
    """The graph of a program, in stages. Tensors that are written are its own; the captured model stays as it is."""

    def __init__(self, program: Program, before: Sequence[Node], watched: Sequence[Value]):
        captured: Captured = program.native
        self.graph, twins = captured.twin()
        nodes = list(self.graph.graph.nodes)
        self.twin = twins
        places = [nodes.index(twins[node.native]) for node in before]
        self.parts = [nodes[a:b] for a, b in zip([0, *places], [*places, len(nodes)], strict=True)]
        self.stages = len(self.parts)
        self.watched: dict[FxNode, list[Value]] = {}
        for value in watched:
            self.watched.setdefault(twins[value.native[0]], []).append(value)
        self.last: dict[FxNode, list[FxNode]] = {}
        for node in nodes:
            if node.users:
                self.last.setdefault(max(node.users, key=nodes.index), []).append(node)
        self.mutates = any(mutates(node) for node in nodes)
        self.own: dict[str, torch.Tensor] = {}

    def begin(self, case: tuple[tuple[Any, ...], dict[str, Any]]) -> _State:
        codegen = self.graph.graph._codegen
        spec = getattr(getattr(codegen, "pytree_info", None), "in_spec", None)
        args, kwargs = case
        flat = fx_pytree.tree_flatten_spec((args, kwargs), spec) if spec is not None else [*args, *kwargs.values()]
        if self.mutates:
            flat = [each.clone() if isinstance(each, torch.Tensor) else each for each in flat]
        inputs = [node for node in self.graph.graph.nodes if node.op == "placeholder"]
        return _State(dict(zip(inputs, flat, strict=True)))

    def step(self, state: _State) -> None:
        try:
            with levels_closed(), torch.no_grad():
                for node in self.parts[state.stage]:
                    self._run(node, state)
        except CAPTURE_FAILS as error:
            raise cannot_run(self.graph, error) from error
        state.stage += 1

    def _run(self, node: FxNode, state: _State) -> None:
        known = state.known

        def given(each: FxNode) -> Any:
            # Attributes are looked up where they are read, not where the graph names them: they may have been written.
            if each.op != "get_attr":
                return known[each]
            name = str(each.target)
            return self.own[name] if name in self.own else operator.attrgetter(name)(self.graph)

        if node.op == "call_function":
            args, kwargs = torch.fx.map_arg((node.args, node.kwargs), given)
            known[node] = node.target(*args, **kwargs)  # type: ignore[operator]  # of a call it is callable
        elif node.op == "output":
            found = torch.fx.map_arg(node.args[0], given)
            leaves = [each for each in pytree.tree_leaves(found) if isinstance(each, torch.Tensor)]
            state.outputs = [numbers(each).copy() for each in leaves]
        for value in self.watched.get(node, ()):
            state.watched[value.name] = self._numbers(given(node), value)
        for done in self.last.get(node, ()):
            known.pop(done, None)

    def _numbers(self, found: Any, value: Value) -> Array:
        if isinstance(found, list | tuple):
            found = found[int(value.name.rpartition(".")[2])]
        array = numbers(found)
        return array.copy() if self.mutates else array

    def read(self, state: _State, value: Value) -> Array:
        if value.name in state.watched:
            return state.watched[value.name]
        node = self.twin[value.native[0]]
        if node not in state.known:
            raise GraphPruneError("GP402", f"the value {value.name!r} is not known at this stage", "")
        return self._numbers(state.known[node], value)

    def outputs(self, state: _State) -> list[Array]:
        return state.outputs

    def fork(self, state: _State) -> _State:
        memo = {} if self.mutates else {id(each): each for each in state.known.values()}
        known = {node: copy.deepcopy(each, memo) for node, each in state.known.items()}
        return _State(known, state.stage, dict(state.watched), state.outputs)

    def write(self, stored: Stored, array: Array) -> None:
        write_tensor(self.graph, stored, array)

    def other(self, arrays: Mapping[Stored, Array]) -> AtenStaged:
        made = copy.copy(self)
        made.own = dict(self.own)
        for stored, array in arrays.items():
            made.own.update(dict.fromkeys(stored.native, _like(self.graph, stored, array)))
        return made


def _like(graph: GraphModule, stored: Stored, array: Array) -> torch.Tensor:
    """Other numbers in the type, shape and place of a stored tensor."""
    old: torch.Tensor = operator.attrgetter(stored.native[0])(graph)
    new = torch.as_tensor(array).to(old.dtype).to(old.device).reshape(old.shape)
    return torch.nn.Parameter(new, old.requires_grad) if isinstance(old, torch.nn.Parameter) else new


def write_tensor(graph: GraphModule, stored: Stored, array: Array) -> None:
    """Give a stored tensor other numbers, under all the names it has."""
    made = _like(graph, stored, array)
    for name in stored.native:
        put(graph, name, made)


def mutates(node: FxNode) -> bool:
    """Whether a call writes to memory that it reads."""
    schema = getattr(node.target, "_schema", None)
    return schema is not None and bool(schema.is_mutable)


def apart(graph: GraphModule) -> bool:
    """Whether a graph computes the same for a case whatever runs beside it: plain calls that write to nothing and draw
    no random numbers."""
    return not any(_bound(node) for node in graph.graph.nodes if node.op not in {"placeholder", "get_attr", "output"})


def _bound(node: FxNode) -> bool:
    if node.target is operator.getitem:
        return False
    return not isinstance(node.target, torch._ops.OpOverload) or _draws(node, node.target) or mutates(node)


def _draws(node: FxNode, target: torch._ops.OpOverload) -> bool:
    """Whether a call draws random numbers: of a kind that does, with no probability of zero, and not in evaluation."""
    if torch.Tag.nondeterministic_seeded not in target.tags:
        return False
    names = [each.name for each in target._schema.arguments]
    defaults = {each.name: each.default_value for each in target._schema.arguments if each.has_default_value()}
    given = {**defaults, **dict(zip(names, node.args, strict=False)), **node.kwargs}
    still = {"train": False, "dropout_p": 0, "p": 0}
    return not any(name in given and given[name] == value for name, value in still.items())
