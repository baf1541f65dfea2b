"""Modules that cannot be captured as they are, told by what they are, before any work, with what to do instead.

Imports torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from graphprune.errors import GraphPruneError

_FSDP = "prune before wrapping: FSDP holds slices of flattened parameters"
# by name: importing the classes would import what they need
_WRAPPERS = {
    "DataParallel": "prune the module inside: model.module",
    "DistributedDataParallel": "prune the module inside (model.module) on every rank, and wrap it anew",
    "FullyShardedDataParallel": _FSDP,
    "OptimizedModule": "prune before torch.compile, or use torch.compile(model, backend='graphprune')",
    "ScriptModule": "prune the module that was scripted, and script it again",
}
_QUANTISED = ("torch.ao.nn.quantized", "torch.nn.quantized", "torch.ao.nn.intrinsic.quantized")


def refuse(model: nn.Module, example_inputs: Any = None) -> None:
    """Raise GraphPruneError GP103 for wrappers, sharded, quantised and lazy modules, and for fake tensors; GP107 for
    inputs that are arrays of NumPy."""
    for each in type(model).__mro__:
        if each.__name__ in _WRAPPERS:
            what = f"{each.__name__} is a wrapper around a model, and cannot be pruned itself"
            raise GraphPruneError("GP103", what, type(model).__name__, _WRAPPERS[each.__name__])
    for path, module in model.named_modules():
        _refuse_part(path, module)
    for name, tensor in _tensors(model):
        _refuse_tensor(name, tensor)
        if tensor.is_inference():
            remedy = "build and load the model outside of torch.inference_mode; it may be called within"
            raise GraphPruneError("GP103", "it was made in inference mode, and cannot be captured", name, remedy)
    for each in pytree.tree_leaves(example_inputs):
        if isinstance(each, Tensor):
            _refuse_tensor("an example input", each)
        elif isinstance(each, np.ndarray):
            what = "an example input is an array of NumPy, and the model takes tensors"
            raise GraphPruneError("GP107", what, f"its shape is {each.shape}", "torch.from_numpy(array) is the tensor")


def _refuse_part(path: str, module: nn.Module) -> None:
    names = [each.__name__ for each in type(module).__mro__]
    where = path or names[0]
    if any("FSDP" in name or name == "FullyShardedDataParallel" for name in names):
        raise GraphPruneError("GP103", "it is sharded with FSDP", where, _FSDP)
    if names[0] in _WRAPPERS or "ScriptModule" in names:
        kind = next(name for name in names if name in _WRAPPERS)
        what = f"{kind} is a wrapper, and what is inside cannot be pruned through it"
        raise GraphPruneError("GP103", what, where, _WRAPPERS[kind])
    if type(module).__module__.startswith(_QUANTISED):
        raise _quantised(where)


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _refuse_tensor(name: str, tensor: Tensor) -> None:
    from torch._subclasses.fake_tensor import FakeTensor

    if torch.nn.parameter.is_lazy(tensor):
        remedy = "run the model once on the example inputs"
        raise GraphPruneError("GP103", "its shape is not known yet: it belongs to a lazy module", name, remedy)
    if isinstance(tensor, FakeTensor):
        remedy = "to plan without weights, build the model and its inputs on the meta device"
        raise GraphPruneError(
            "GP103", "it is a fake tensor, which has neither numbers nor a place for them", name, remedy
        )
    if tensor.is_quantized:
        raise _quantised(name)


def _quantised(where: str) -> GraphPruneError:
    remedy = "prune the model before it is quantised, and quantise the smaller one"
    return GraphPruneError("GP103", "it is quantised: its scales belong to channels that would go", where, remedy)
