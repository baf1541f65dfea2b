"""Products of integers, said as products of floating point between DequantizeLinear and QuantizeLinear.

That is how ONNX defines QLinearConv and QLinearMatMul, and onnxruntime QGemm; onnxruntime makes the same kernels of
both. In the second form products can be read before they are rounded and clipped, and weights have a grid
(:mod:`graphprune.recover.grid`), so that recoveries see the layers that they see in QDQ files. Stored tensors keep
their names: what is written to them there can be written here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir import tape

from graphprune.program import Array

_PER_AXIS = 13
"""The first operator set whose DequantizeLinear has an axis; onnxruntime has one of its own for those before."""


@dataclass(frozen=True)
class _Product:
    """Where a product of integers has its operands; each is followed by its scale and its zero point.

    axis: of the weight, along which it may have a scale for each entry; -1 is the last
    bias: in 32 bits, in units of what is multiplied
    """

    kind: str
    axis: Callable[[ir.Node], int]
    result: int
    bias: int | None = None
    left: int = 0
    right: int = 3


_PRODUCTS = {
    ("", "QLinearConv"): _Product("Conv", lambda node: 0, 6, bias=8),
    ("", "QLinearMatMul"): _Product("MatMul", lambda node: -1, 6),
    ("com.microsoft", "QGemm"): _Product("Gemm", lambda node: 0 if _whole(node, "transB") else 1, 7, bias=6),
}


def between_floats(model: ir.Model) -> ir.Model:
    """A copy whose products of integers are those of floating point, as far as their scales are constants; the model
    itself where there are none."""
    if not any(_key(node) in _PRODUCTS for node in model.graph):
        return model
    copy = model.clone()
    for node in list(copy.graph):
        product = _PRODUCTS.get(_key(node))
        if product is not None:
            _Writer(copy, node, product).write()
    return copy


def _key(node: ir.Node) -> tuple[str, str]:
    return "" if node.domain == "ai.onnx" else node.domain, node.op_type


def _whole(node: ir.Node, name: str) -> int:
    attribute = node.attributes.get(name)
    return 0 if attribute is None else int(attribute.value)


def _numbers(value: ir.Value | None) -> Array | None:
    return None if value is None or value.const_value is None else value.const_value.numpy()


class _Writer:
    """One product; nothing changes unless all of it can be said."""

    def __init__(self, model: ir.Model, node: ir.Node, product: _Product):
        self.model, self.node, self.product = model, node, product
        self.inputs = [*node.inputs, *[None] * 9]
        self.tape = tape.Tape()
        self.name = node.outputs[0].name

    def write(self) -> None:
        """Put the product between floats in the place of the node."""
        product, inputs = self.product, self.inputs
        ends = inputs[product.result : product.result + 2]
        left, right = self._read(product.left), self._read(product.right)
        alpha = self.node.attributes.get("alpha")
        if left is None or right is None or not self._per_tensor(ends) or (alpha and alpha.value != 1.0):
            return
        given = [left, right]
        codes = None if product.bias is None else inputs[product.bias]
        if codes is not None:
            given.append(self._bias(codes))
        kept = {name: each.value for name, each in self.node.attributes.items()}
        made = self._op(product.kind, given, f"{self.name}/product", kept)
        result = self._op("QuantizeLinear", [made, *ends], f"{self.name}/codes")
        ir.convenience.replace_nodes_and_values(
            self.model.graph, self.node, [self.node], list(self.tape.nodes), list(self.node.outputs), [result]
        )

    def _op(
        self, kind: str, inputs: Sequence[ir.Value | None], name: str, attributes: Mapping[str, Any] | None = None
    ) -> ir.Value:
        told = dict(attributes or {})
        old = kind == "DequantizeLinear" and "axis" in told and self.model.graph.opset_imports.get("", 1) < _PER_AXIS
        domain = "com.microsoft" if old else ""
        if old:
            self.model.graph.opset_imports.setdefault(domain, 1)
        value = self.tape.op(kind, inputs, told, domain=domain, name=name)
        value.name = name
        return value

    def _read(self, at: int) -> ir.Value | None:
        """What an operand stands for; None where its scale is no constant, or not along the axis it may be along."""
        codes, scale, zero = self.inputs[at : at + 3]
        factors, offsets = _numbers(scale), _numbers(zero)
        if codes is None or factors is None or (zero is not None and offsets is None):
            return None
        if factors.size == 1:
            return self._op("DequantizeLinear", [codes, scale, zero], f"{codes.name} of {self.name}")
        if at != self.product.right or codes.shape is None or factors.ndim != 1:
            return None
        if offsets is not None and offsets.shape != factors.shape:
            return None
        axis = self.product.axis(self.node) % len(codes.shape)
        return self._op("DequantizeLinear", [codes, scale, zero], f"{codes.name} of {self.name}", {"axis": axis})

    def _per_tensor(self, ends: Sequence[ir.Value | None]) -> bool:
        """Whether what is stored of the result has one scale, known beforehand."""
        factors, offsets = (_numbers(each) for each in ends)
        return factors is not None and factors.size == 1 and offsets is not None

    def _bias(self, codes: ir.Value) -> ir.Value:
        one, many = (_numbers(self.inputs[at + 1]) for at in (self.product.left, self.product.right))
        assert one is not None and many is not None, "the operands were read"
        name = f"{self.name}/bias_scale"
        factors = np.asarray((one.reshape(()) * many).astype(np.float32))
        scale = ir.Value(name=name, const_value=ir.tensor(factors, name=name))
        scale.shape, scale.dtype = ir.Shape(factors.shape), ir.DataType.FLOAT
        self.model.graph.register_initializer(scale)
        return self._op(
            "DequantizeLinear",
            [codes, scale],
            f"{codes.name} of {self.name}",
            {"axis": 0} if factors.size > 1 else None,
        )
