"""Moves what constant channels add to a sum into its bias, after which the channels are dead. Exact up to rounding."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from graphprune.kept import labels
from graphprune.program import Array, Contraction, Stored, Use

if TYPE_CHECKING:
    from graphprune.analysis import Analysis
    from graphprune.dead import Fold

_FLOATS = frozenset({"float", "double", "float16"})


def can_fold(contraction: Contraction) -> bool:
    """A Conv without padding (at a border a constant would meet zeros) or a plain Gemm, whose weight and bias are
    stored for it alone."""
    node, attributes = contraction.node, contraction.node.attributes
    grouped = any(axis.size != 1 for axis in contraction.stationary)
    if node.frozen or grouped or not _alone(contraction.weight):
        return False
    if contraction.bias is not None and not _alone(contraction.bias):
        return False
    if node.op == "Conv":
        return not any(attributes.get("pads", ())) and attributes.get("auto_pad", "NOTSET") in {"NOTSET", "VALID"}
    plain = all(attributes.get(name, 1.0) == 1.0 for name in ("alpha", "beta"))
    return node.op == "Gemm" and plain and not attributes.get("transA", 0)


def _stored(use: Use | None) -> Stored | None:
    value = None if use is None else use.node.inputs[use.index]
    return None if value is None else value.stored


def _alone(use: Use | None) -> bool:
    stored = _stored(use)
    if use is None or stored is None or not isinstance(stored.native, ir.Value) or stored.dtype not in _FLOATS:
        return False
    value = use.node.inputs[use.index]
    whole = use.index == 1 or len(stored.shape) == 1
    return value is not None and value.readers == 1 and whole


def fold(analysis: Analysis, folds: list[Fold]) -> ir.Model:
    """A copy of the model with these constants in the biases and zeros in the weights that read them."""
    from graphprune.dialects.onnx.writer import Twins

    copy: ir.Model = analysis.program.native.clone()
    twins = Twins(analysis.program.native, copy)
    for each in folds:
        stored = _stored(each.contraction.weight)
        assert stored is not None
        twin = twins.values[stored.native]
        assert twin.const_value is not None
        weight = twin.const_value.numpy()
        silent, added = _moved(weight, each)
        twin.const_value = ir.tensor(silent, name=twin.name)
        _add(copy, twins.nodes[each.contraction.node.native], added.astype(weight.dtype))
    return copy


def _moved(weight: Array, each: Fold) -> tuple[Array, Array]:
    """The weight without the folded entries, and what they add to every output channel."""
    constants = np.zeros(weight.shape[each.position])
    for label in labels(each.axis, each.dim):
        inside = label >= 0
        constants[inside] = np.where(inside, each.constants[label], np.nan)[inside]
    folded = np.isfinite(constants) & (constants != 0)
    shape = [-1 if k == each.position else 1 for k in range(weight.ndim)]
    out = _out_axis(each)
    terms = weight.astype(np.float64) * np.where(folded, constants, 0.0).reshape(shape)
    added = terms.sum(axis=tuple(k for k in range(weight.ndim) if k != out))
    return np.where(folded.reshape(shape), np.zeros((), weight.dtype), weight), added


def _out_axis(each: Fold) -> int:
    """The axis of a weight with two axes and a kernel that is not reduced."""
    return 1 - each.position


def _add(model: ir.Model, node: ir.Node, added: Array) -> None:
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        bias = node.inputs[2]
        assert bias.const_value is not None
        bias.const_value = ir.tensor(bias.const_value.numpy() + added, name=bias.name)
        return
    name = f"{node.outputs[0].name}.bias"
    bias = ir.Value(name=name, const_value=ir.tensor(added, name=name))
    model.graph.register_initializer(bias)
    node.resize_inputs(3)
    node.replace_input_with(2, bias)
