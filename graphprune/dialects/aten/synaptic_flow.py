"""Synaptic flow: how much of ``R``, the sum of the outputs of a network of absolute weights, runs through each weight
(Tanaka et al., Pruning neural networks without any data by iteratively conserving synaptic flow, NeurIPS 2020).

Every layer passes on what it gets: inputs are ones, biases and shifts zero, activations the identity (which is what
ReLU is on positive numbers), and a normalisation is its scale alone: ``|gamma| / sqrt(variance + epsilon)`` of a batch
norm, ``|gamma|`` of others. So what all weights of a layer are worth, ``|w| dR/d|w|``, is R for every layer in a chain.
Gates (sigmoids) are open, and what opens them carries as much as passes through. Queries and keys get next to nothing:
for inputs that are all equal, the softmax of their products does not depend on them.

Numbers are float64: R grows with the depth. No data is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import Interpreter
from torch.utils import _pytree as pytree

from graphprune.dialects.aten.capture import CAPTURE_FAILS, Captured
from graphprune.dialects.aten.derivatives import Tensors, leaves_of
from graphprune.errors import GraphPruneError
from graphprune.program import Program
from graphprune.torch.losses import prediction

_FLOATS = {torch.float16, torch.bfloat16, torch.float32}

_IDENTITY = frozenset({
    "relu", "relu6", "hardtanh", "gelu", "silu", "hardswish", "leaky_relu", "elu", "celu", "selu", "mish", "softplus",
    "prelu", "tanh", "threshold", "clamp", "clamp_min", "clamp_max",
})  # fmt: skip
"""Activations that are close to the identity, or to a multiple of it: for large numbers, tanh for small ones."""

_GATES = frozenset({"sigmoid", "hardsigmoid"})


def synaptic_flow(program: Program) -> Tensors:
    """``dR/d|w|`` for every weight, by name. Raises GraphPruneError GP402 where the network cannot be run so."""
    captured: Captured = program.native
    graph, twins = captured.twin()
    with torch.inference_mode(False), torch.enable_grad():
        leaves = leaves_of(program, graph, twins, lambda old: old.double().abs())
        args, kwargs = pytree.tree_map(_ones, (captured.args, captured.kwargs))
        spec = getattr(getattr(graph.graph._codegen, "pytree_info", None), "in_spec", None)
        flat = (
            torch.fx._pytree.tree_flatten_spec((args, kwargs), spec) if spec is not None else [*args, *kwargs.values()]
        )
        try:
            outputs = _Flow(graph).run(*flat, enable_io_processing=False)
            flow = prediction(outputs).sum()
            found = torch.autograd.grad(flow, list(leaves.values()), allow_unused=True)
        except CAPTURE_FAILS as error:
            what = f"PyTorch cannot run it on ones: {type(error).__name__}: {str(error).strip().splitlines()[:1]}"
            raise GraphPruneError("GP402", what, type(captured.source or graph).__name__) from error
    pairs = zip(leaves.items(), found, strict=True)
    return {name: torch.zeros_like(leaf) if each is None else each for (name, leaf), each in pairs}


def _ones(each: Any) -> Any:
    return torch.ones_like(each, dtype=torch.float64) if isinstance(each, Tensor) and each.is_floating_point() else each


class _Flow(Interpreter):
    """Runs a graph with what is not linear in the data, or shifts it, taken out; in float64."""

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        found = super().get_attr(target, args, kwargs)
        return found.clone() if isinstance(found, Tensor) else found  # the graph may write to it

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        args, kwargs = pytree.tree_map(_wide, (args, kwargs))
        name = getattr(target, "_opname", "").removesuffix("_")
        if not name:
            return super().call_function(target, args, kwargs)
        if name in _IDENTITY and isinstance(args[0], Tensor) and args[0].is_floating_point():
            return args[0].clone()
        if name in _GATES:
            return _open(args[0])
        given = _named(target, args, kwargs)
        if name in _SCALES:
            return _SCALES[name](given)
        if given.get("bias") is not None and "weight" in given:
            given["bias"] = torch.zeros_like(given["bias"])
        if name == "addmm" and given["self"].dim() == 1:
            given["self"] = torch.zeros_like(given["self"])
        return target(**given)


def _wide(each: Any) -> Any:
    if isinstance(each, Tensor) and each.dtype in _FLOATS:
        return each.double()
    return torch.float64 if isinstance(each, torch.dtype) and each in _FLOATS else each


def _named(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    names = [each.name for each in target._schema.arguments]
    return {**dict(zip(names, args, strict=False)), **kwargs}


def _open(data: Tensor) -> Tensor:
    """One, with the derivative of ``data / data``, of which the denominator is held."""
    held = data.detach()
    return 1 + (data - held) / held.clamp(min=torch.finfo(held.dtype).tiny)


def _batch_norm(given: dict[str, Any]) -> Tensor:
    scale = torch.rsqrt(given["running_var"] + given["eps"])
    if given.get("weight") is not None:
        scale = scale * given["weight"]
    data: Tensor = given["input"]
    return data * scale.reshape(-1, *[1] * (data.dim() - 2))


def _layer_norm(given: dict[str, Any]) -> Tensor:
    data: Tensor = given["input"]
    return data if given.get("weight") is None else data * given["weight"]


def _group_norm(given: dict[str, Any]) -> Tensor:
    data: Tensor = given["input"]
    return data if given.get("weight") is None else data * given["weight"].reshape(-1, *[1] * (data.dim() - 2))


_SCALES: dict[str, Callable[[dict[str, Any]], Tensor]] = {
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "rms_norm": _layer_norm,
    "group_norm": _group_norm,
    "instance_norm": _group_norm,
}
