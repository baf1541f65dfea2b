"""A model whose weights are moved by their own rounding error: how much its outputs move says how well conditioned they
are, and so what agreement one may ask of two orders of the same arithmetic."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphprune.program import Array


def jittered(model: ir.Model, seed: int) -> ir.Model:
    """A copy in which every entry of every floating-point weight (two or more axes) is multiplied by ``1 + u``, with u
    uniform in plus or minus the machine epsilon of its data type."""
    copy: ir.Model = model.clone()
    rng = np.random.Generator(np.random.PCG64(seed))
    for value in copy.graph.initializers.values():
        tensor = value.const_value
        if tensor is not None and len(tensor.shape) > 1 and tensor.dtype.is_floating_point():
            value.const_value = _jitter(tensor, int(rng.integers(2**63)))
    return copy


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
