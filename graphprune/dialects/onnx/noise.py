"""A model whose weights are moved by their own rounding error: how much its outputs move says how well conditioned they
are, and so what agreement one may ask of two orders of the same arithmetic."""

from __future__ import annotations

from typing import TypeGuard

import numpy as np
import onnx_ir as ir

from graphprune.program import Array


def jittered(model: ir.Model, seed: int) -> ir.Model:
    """A copy in which every entry of every floating-point weight (two or more axes) is multiplied by ``1 + u``, with u
    uniform in plus or minus the machine epsilon of its data type; weights of bodies and functions, and those that
    Constant nodes hold, among them."""
    copy: ir.Model = model.clone()
    rng = np.random.Generator(np.random.PCG64(seed))
    for body in (copy.graph, *(function.graph for function in copy.functions.values())):
        for graph in (body, *body.subgraphs()):
            for value in graph.initializers.values():
                if _is_weight(value.const_value):
                    value.const_value = _jitter(value.const_value, int(rng.integers(2**63)))
        for node in body.all_nodes():
            held = node.attributes.get("value") if node.op_type == "Constant" and node.domain == "" else None
            if held is not None and not held.is_ref() and _is_weight(held.as_tensor()):
                node.attributes["value"] = ir.AttrTensor("value", _jitter(held.as_tensor(), int(rng.integers(2**63))))
    return copy


def _is_weight(tensor: ir.TensorProtocol | None) -> TypeGuard[ir.TensorProtocol]:
    return tensor is not None and len(tensor.shape) > 1 and tensor.dtype.is_floating_point()


def _jitter(tensor: ir.TensorProtocol, seed: int) -> ir.TensorProtocol:
    def numbers() -> ir.TensorProtocol:
        return ir.Tensor(_moved(tensor.numpy(), seed), dtype=tensor.dtype)

    return ir.LazyTensor(numbers, dtype=tensor.dtype, shape=ir.Shape(tensor.shape.numpy()), name=tensor.name)


def _moved(array: Array, seed: int) -> Array:
    rng = np.random.Generator(np.random.PCG64(seed))
    epsilon = 2.0**-7 if array.dtype.kind == "V" or array.dtype.name == "bfloat16" else float(np.finfo(array.dtype).eps)
    factor = 1.0 + epsilon * rng.uniform(-1.0, 1.0, array.shape)
    with np.errstate(over="ignore"):
        moved: Array = (array.astype(np.float64) * factor).astype(array.dtype)
    # The largest numbers of a type stand for minus infinity in masks: infinite ones would make other outputs.
    return np.where(np.isinf(moved), array, moved)
