"""Where an argument stands in a call: reading and replacing it by the name it has in the operator's schema."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch.fx import Node as FxNode

from graphprune.dialects.aten.call import At
from graphprune.program import Node


def operand(call: FxNode, node: Node, index: int) -> FxNode:
    """What input ``index`` of a node is in a call (a copy of the one that the node was read from)."""
    name, path = _place(node, index)
    found = _argument(call, name)
    for step in path:
        found = found[step]
    if not isinstance(found, FxNode):
        raise ValueError(f"input {index} of {node} is not a value of the graph")
    return found


def replace_operand(call: FxNode, node: Node, index: int, new: FxNode) -> None:
    """Let a call read another value as input ``index``."""
    name, path = _place(node, index)
    _set(call, name, _with(_argument(call, name), path, new))


def set_argument(call: FxNode, name: str, numbers: dict[int | None, int]) -> None:
    """Replace integers in an argument: by their place in a list, or (``None``) the argument itself."""
    if None in numbers:
        _set(call, name, numbers[None])
        return
    given = list(_argument(call, name))
    for index, number in numbers.items():
        given[index or 0] = number
    _set(call, name, given)


def _place(node: Node, index: int) -> tuple[str, tuple[int, ...]]:
    for name, given in node.attributes.items():
        for path, each in _walk(given):
            if each == At(index):
                return name, path
    raise LookupError(f"{node} has no input {index}")


def _walk(given: Any) -> Iterator[tuple[tuple[int, ...], Any]]:
    if isinstance(given, list):
        for place, each in enumerate(given):
            for path, inner in _walk(each):
                yield (place, *path), inner
    else:
        yield (), given


def argument_names(call: FxNode) -> list[str]:
    """The names of a call's arguments in the operator's schema (``"0"``, ``"1"``, ... where it has none)."""
    if isinstance(call.target, torch._ops.OpOverload):
        return _names(call.target)
    return [str(k) for k in range(len(call.args))]


@functools.cache
def _names(operator: torch._ops.OpOverload) -> list[str]:
    """Schemas make their arguments anew for all who ask."""
    return [each.name for each in operator._schema.arguments]


def arguments(call: FxNode) -> dict[str, Any]:
    """The arguments of a call that are given, by name."""
    return {**dict(zip(argument_names(call), call.args, strict=False)), **call.kwargs}


def _argument(call: FxNode, name: str) -> Any:
    place = argument_names(call).index(name)
    return call.args[place] if place < len(call.args) else call.kwargs[name]


def _set(call: FxNode, name: str, new: Any) -> None:
    place = argument_names(call).index(name)
    if place < len(call.args):
        call.args = (*call.args[:place], new, *call.args[place + 1 :])
    else:
        call.kwargs = {**call.kwargs, name: new}


def _with(given: Any, path: tuple[int, ...], new: FxNode) -> Any:
    if not path:
        return new
    return [_with(each, path[1:], new) if place == path[0] else each for place, each in enumerate(given)]


def operator_name(target: Any) -> str:
    """``aten.add.Tensor`` for overloads, ``operator.mul`` or ``math.floor`` for functions of Python."""
    if isinstance(target, torch._ops.OpOverload):
        return str(target) if target.namespace == "aten" else f"{target.namespace}::{str(target).partition('.')[2]}"
    if isinstance(target, torch._ops.HigherOrderOperator):
        return f"higher_order.{target.name()}"  # type: ignore[no-untyped-call]
    module = getattr(target, "__module__", "") or ""
    return f"{module.strip('_')}.{getattr(target, '__name__', target)}"
