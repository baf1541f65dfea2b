"""Modules are run and traced here without their owner noticing: whatever that changes is put back. Imports torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

_HELD = ("_parameters", "_buffers", "_modules")


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Put back the attributes of every submodule, and the contents of its buffers and other tensors that are no
    parameters. What a module computed and kept (`weight` under the first form of weight_norm) stays as it is then."""
    before = [
        (module, dict(vars(module)), {name: dict(vars(module)[name]) for name in _HELD}) for module in model.modules()
    ]
    held = _tensors(before)
    copies = [(tensor, tensor._version, tensor.detach().clone()) for tensor in held]
    try:
        yield
    finally:
        for module, attributes, kept in before:
            _restore(module, attributes, kept)
        with torch.inference_mode(False), torch.no_grad():
            for tensor, version, copied in copies:
                if tensor._version != version:
                    tensor.copy_(copied)


def _tensors(before: list[tuple[nn.Module, dict[str, Any], dict[str, dict[str, Any]]]]) -> list[Tensor]:
    """Buffers and plain attributes, each once; those that follow no versions cannot be changed in place either."""
    found = {
        id(each): each
        for _, attributes, kept in before
        for each in (*attributes.values(), *kept["_buffers"].values())
        if isinstance(each, Tensor) and not isinstance(each, FakeTensor) and not each.is_inference()
    }
    return list(found.values())


def _restore(module: nn.Module, attributes: dict[str, Any], kept: dict[str, dict[str, Any]]) -> None:
    now = vars(module)
    for name in [name for name in now if name not in attributes]:
        del now[name]
    for name, value in attributes.items():
        if not (_is_computed(value) and _is_computed(now.get(name))):
            now[name] = value
    for name, entries in kept.items():
        if list(now[name]) != list(entries) or any(now[name][each] is not entries[each] for each in entries):
            now[name].clear()
            now[name].update(entries)


def _is_computed(value: Any) -> bool:
    return isinstance(value, Tensor) and not isinstance(value, FakeTensor)
