"""The law of every rule, checked on one operator: gather the operands, run the operator, and the result is the gathered
result. onnxruntime is the judge; the operands are stored tensors, so every axis starts out free."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx import helper, numpy_helper

from graphprune.analysis import Analysis, analyze_program
from graphprune.dialects.onnx.reader import read
from graphprune.dims import Dim, is_cut, leaves
from graphprune.kept import indices, labels
from graphprune.sizes import evaluate

MICROSOFT = "com.microsoft"


class Operation:
    """One operator with concrete operands; an operand of ``None`` is absent."""

    def __init__(
        self, op: str, operands: list[Any], outputs: int = 1, version: int = 23, domain: str = "", **attributes: Any
    ):
        self.operands = {f"x{k}": np.asarray(x) for k, x in enumerate(operands) if x is not None}
        self.names = [f"x{k}" if x is not None else "" for k, x in enumerate(operands)]
        self.outputs = [f"y{k}" for k in range(outputs)]
        self.op, self.domain, self.opset, self.attributes = op, domain, version, attributes

    def model(self, operands: dict[str, np.ndarray], attributes: dict[str, Any], stored: bool) -> onnx.ModelProto:
        node = helper.make_node(self.op, self.names, self.outputs, name="node", domain=self.domain, **attributes)
        kinds = {name: helper.np_dtype_to_tensor_dtype(x.dtype) for name, x in operands.items()}
        inputs = [] if stored else [helper.make_tensor_value_info(n, kinds[n], x.shape) for n, x in operands.items()]
        tensors = [numpy_helper.from_array(x, name) for name, x in operands.items()] if stored else []
        outputs = [helper.make_empty_tensor_value_info(name) for name in self.outputs]
        graph = helper.make_graph([node], "graph", inputs, outputs, tensors)
        imports = [helper.make_opsetid("", self.opset), helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=imports, ir_version=11)

    def run(self, operands: dict[str, np.ndarray], attributes: dict[str, Any]) -> list[np.ndarray]:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        model = self.model(operands, attributes, stored=False)
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return [np.asarray(y) for y in session.run(None, operands)]

    def analyze(self) -> Analysis:
        program = read(ir.from_proto(self.model(self.operands, self.attributes, stored=True)))
        program.main.outputs = []  # an axis of a graph output would be pinned
        return analyze_program(program)


class Checked:
    """An operation with its analysis; ``free`` lists its free dimensions by the first place they are found at."""

    def __init__(self, operation: Operation):
        self.operation = operation
        self.analysis = operation.analyze()
        node = next(iter(self.analysis.program.nodes()))
        types = self.analysis.trace.types
        self.inputs = {v.name: types[v].axes or [] for v in node.inputs if v is not None and v in types}
        self.results = [types[value].axes or [] for value in node.outputs]

    def free(self) -> dict[Dim, str]:
        found: dict[Dim, str] = {}
        for name, axes in [*self.inputs.items(), *zip(self.operation.outputs, self.results, strict=True)]:
            for place, axis in enumerate(axes):
                for leaf in leaves(axis):
                    if leaf.pin is None:
                        found.setdefault(leaf, f"{name}:{place}")
        return found

    def gathered(self, keep: dict[Dim, np.ndarray], operands: dict[str, np.ndarray]) -> list[np.ndarray]:
        """What the operator makes of gathered operands."""
        values = {leaf: len(kept) for leaf, kept in keep.items()}
        values |= {leaf: leaf.size for leaf in self.free() if leaf not in keep}
        attributes = {k: list(v) if isinstance(v, list) else v for k, v in self.operation.attributes.items()}
        for slot, size in self.analysis.bindings.items():
            if slot.index is None:
                attributes[str(slot.key)] = evaluate(size, values)
            else:
                attributes[str(slot.key)][slot.index] = evaluate(size, values)
        for default in self.analysis.trace.defaults:
            if is_cut(default.axis, keep):
                attributes[default.name] = default.value
        return self.operation.run({n: _take(x, self.inputs[n], keep) for n, x in operands.items()}, attributes)

    def masked(self, keep: dict[Dim, np.ndarray]) -> dict[str, np.ndarray]:
        """The operands with zeros (zero points are zero here) where contractions say that this removes an entry."""
        operands = {name: x.copy() for name, x in self.operation.operands.items()}
        for contraction in self.analysis.contractions:
            for use, place, axis in contraction.masks:
                x = operands[self.operation.names[use.index]]
                for leaf, kept in keep.items():
                    for label in labels(axis, leaf):
                        gone = np.flatnonzero((label >= 0) & ~np.isin(label, kept))
                        x[(slice(None),) * place + (gone,)] = 0
        return operands


def _take(x: np.ndarray, axes: list[Any], keep: dict[Dim, np.ndarray]) -> np.ndarray:
    for place, axis in enumerate(axes):
        if isinstance(axis.size, int):
            x = np.take(x, indices(axis, keep), place)
    return np.asarray(x, order="C")


def compare(checked: Checked, dense: list[np.ndarray], keep: dict[Dim, np.ndarray], operands: Any, what: str) -> None:
    pruned = checked.gathered(keep, operands)
    for name, old, new, axes in zip(checked.operation.outputs, dense, pruned, checked.results, strict=True):
        expected = _take(old, axes, keep)
        np.testing.assert_allclose(new, expected, rtol=2e-5, atol=2e-5, err_msg=f"{what} of {name}")


def check(operation: Operation, free: set[str], cuts: bool = True) -> Checked:
    """Permute every free dimension, and cut every exact one; ``free`` is which there must be. ``cuts=False`` where
    nothing can be zeroed to stand for a removed entry."""
    checked = Checked(operation)
    found = checked.free()
    assert set(found.values()) == free, f"free: {sorted(found.values())}"
    random = np.random.default_rng(0)
    dense = operation.run(operation.operands, operation.attributes)
    for leaf, place in found.items():
        keep = {leaf: random.permutation(leaf.size)}
        compare(checked, dense, keep, operation.operands, f"permuting {place}")
        if cuts and leaf not in checked.analysis.inexact:
            keep = {leaf: np.sort(random.permutation(leaf.size)[: max(1, leaf.size // 2)])}
            operands = checked.masked(keep)
            compare(checked, operation.run(operands, operation.attributes), keep, operands, f"cutting {place}")
    return checked
