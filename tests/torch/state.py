"""Everything that can be seen of a module, to be compared bit by bit before and after."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

State = dict[str, Any]


def state_of(model: nn.Module) -> State:
    """Every tensor with its identity, contents, gradient and flags; every attribute, mode, hook and config value."""
    found: State = {}
    for path, module in model.named_modules(remove_duplicate=False):
        found[f"{path}:class"] = type(module)
        for name, value in vars(module).items():
            if name in {"_parameters", "_buffers"}:
                for each, tensor in value.items():
                    found[f"{path}.{each}"] = None if tensor is None else _tensor(tensor)
            elif name == "_modules":
                found[f"{path}:modules"] = {each: id(child) for each, child in value.items()}
            else:
                found[f"{path}:{name}"] = _value(value)
    return found


def _tensor(tensor: Tensor) -> tuple[Any, ...]:
    empty = tensor.is_meta or torch.nn.parameter.is_lazy(tensor) or isinstance(tensor, FakeTensor)
    numbers = None if empty else tensor.detach().clone()
    if numbers is not None and numbers.is_quantized:
        numbers = numbers.int_repr()
    gradient = None if not tensor.is_leaf or tensor.grad is None else (id(tensor.grad), tensor.grad.clone())
    return (id(tensor), type(tensor), tensor.dtype, tensor.device, tensor.requires_grad, numbers, gradient)


def _value(value: Any) -> Any:
    if isinstance(value, Tensor):
        return _tensor(value)
    if isinstance(value, list | tuple):
        return [_value(each) for each in value]
    if isinstance(value, dict):
        return {key: _value(each) for key, each in value.items()}
    if isinstance(value, bool | int | float | str | type(None)):
        return value
    # an object such as a config: its identity, and its settings
    settings = vars(value) if hasattr(value, "__dict__") and not callable(value) else {}
    return (id(value), {name: each for name, each in settings.items() if isinstance(each, bool | int | float | str)})


def what_changed(before: State, after: State) -> list[str]:
    """The names of what is no longer the same."""
    names = dict.fromkeys([*before, *after])
    return [name for name in names if name not in before or name not in after or not _same(before[name], after[name])]


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        equal = first.shape == second.shape and first.dtype == second.dtype
        return equal and torch.equal(torch.nan_to_num(first), torch.nan_to_num(second))
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(map(_same, first, second))
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(_same(first[key], second[key]) for key in first)
    return bool(first == second)
