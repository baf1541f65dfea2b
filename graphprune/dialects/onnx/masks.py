"""The dense model with removed entries masked: what a pruned model is held against.

Entries are zeroed where a contraction sums over them, so nothing they are computed from matters any more. Where a
statistic is taken over a cut axis, the node is run on the survivors alone: its inputs are gathered, and its outputs
spread out again. This shares nothing with the writer but the index arrays.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from graphprune.analysis import Analysis
from graphprune.dialects.onnx.writer import Twins
from graphprune.dims import Axis, Keep, evaluated, find, indices, is_cut, leaves, whole_size
from graphprune.errors import GraphPruneError
from graphprune.program import Array, Node, Use
from graphprune.rules.trace import Typed


def masked(analysis: Analysis, keep: Keep) -> ir.Model:
    """A copy of the analysed model, of the same widths, in which the entries not in ``keep`` have no influence."""
    copy = analysis.program.native.clone()
    masker = _Masker(analysis, Twins(analysis.program.native, copy), keep)
    for contraction in analysis.contractions:
        for use, position, axis in contraction.masks:
            zero = contraction.zero_point if contraction.weight in {use, None} else None
            masker.mask(use, position, axis, zero)
    for node in dict.fromkeys(node for node, axis in analysis.trace.inexact_uses if is_cut(axis, keep)):
        masker.on_survivors(node)
    return copy  # type: ignore[no-any-return]


def inlined(model: ir.Model) -> ir.Model:
    """The model with its functions written out, so that each call can be masked by itself. ``GP402`` where they cannot
    be, as with functions written for another operator set than the model."""
    if not model.functions:
        return model
    from onnx_ir.passes.common import InlinePass

    try:
        return InlinePass()(model.clone()).model
    except ValueError as error:
        what = f"its functions cannot be written out: {error}"
        raise GraphPruneError("GP402", what, str(model.graph.name)) from error


def at_sizes(model: ir.Model, feeds: Mapping[str, Array]) -> ir.Model:
    """The model with the shapes of these inputs declared."""
    copy = model.clone()
    for value in copy.graph.inputs:
        if value.name is not None and value.name in feeds:
            value.shape = ir.Shape(feeds[value.name].shape)
    return copy


class _Masker:
    def __init__(self, analysis: Analysis, twins: Twins, keep: Keep):
        self.analysis, self.twins, self.keep = analysis, twins, keep
        self.done: set[tuple[ir.Node, int, int]] = set()
        self.made = 0

    def mask(self, use: Use, position: int, axis: Axis, zero_point: Use | None) -> None:
        """Zero the removed entries of one axis of one operand."""
        twin = self.twins.nodes[use.node.native]
        value = use.node.inputs[use.index]
        if not is_cut(axis, self.keep) or value is None or (twin, use.index, position) in self.done:
            return
        self.done.add((twin, use.index, position))
        kept = np.zeros(whole_size(axis), np.bool_)
        kept[indices(axis, self.keep)] = True
        typed = self.analysis.trace.typed(value, use)
        rank = len(typed.axes or [])
        if typed.axes is None or typed.axes[position].size != axis.size:
            return  # the operand is broadcast along this axis: the other one carries it
        shape = [-1 if k == position else 1 for k in range(rank)]
        source = twin.inputs[use.index]
        assert source is not None
        stored = source.const_value
        along = self._runs_along(zero_point, typed)
        if stored is not None and stored.dtype.is_integer():
            zero = self._zero(zero_point).reshape(along)
            array = np.where(kept.reshape(shape), stored.numpy(), zero.astype(stored.numpy().dtype))
            twin.replace_input_with(use.index, self._constant(twin, ir.Tensor(array, dtype=stored.dtype)))
            return
        dtype = (
            stored.dtype
            if stored is not None
            else ir.DataType[value.dtype.upper()]
            if value.dtype
            else ir.DataType.FLOAT
        )
        if dtype.is_integer():
            zero_value = None if zero_point is None else twin.inputs[zero_point.index]
            if zero_value is not None and along:
                zero_value = self._node(twin, "Reshape", [zero_value, self._constant(twin, ir.tensor(along))])
            twin.replace_input_with(use.index, self._zeroed(twin, source, kept.reshape(shape), zero_value, dtype))
            return
        factor = self._constant(twin, ir.Tensor(kept.reshape(shape).astype(dtype.numpy()), dtype=dtype))
        twin.replace_input_with(use.index, self._node(twin, "Mul", [source, factor]))

    def _zeroed(
        self, twin: ir.Node, source: ir.Value, kept: Array, zero: ir.Value | None, dtype: ir.DataType
    ) -> ir.Value:
        """A computed tensor of integers with removed entries at their zero point, worked out in 32 bits."""
        wide = [
            self._placed(twin, ir.Node("", "Cast", [each], [ir.AttrInt64("to", ir.DataType.INT32.value)]))
            for each in (source, zero)
            if each is not None
        ]
        if zero is None:
            wide.append(self._constant(twin, ir.tensor(np.zeros((), np.int32))))
        chosen = self._node(twin, "Where", [self._constant(twin, ir.tensor(kept)), *wide])
        return self._placed(twin, ir.Node("", "Cast", [chosen], [ir.AttrInt64("to", dtype.value)]))

    def _zero(self, zero_point: Use | None) -> Array:
        value = None if zero_point is None else zero_point.node.inputs[zero_point.index]
        if value is None or value.stored is None:
            return np.zeros((), np.int64)
        return value.stored.read()

    def _runs_along(self, zero_point: Use | None, typed: Typed) -> list[int]:
        """The shape in which zero points broadcast against their tensor: a vector along the axis it is tied to."""
        value = None if zero_point is None else zero_point.node.inputs[zero_point.index]
        axes = [] if value is None or zero_point is None else self.analysis.trace.typed(value, zero_point).axes or []
        if len(axes) != 1 or axes[0].size == 1:
            return [whole_size(axis) for axis in axes]
        tied = find(axes[0])
        return [-1 if list(leaves(axis)) == list(leaves(tied)) else 1 for axis in typed.axes or []]

    def on_survivors(self, node: Node) -> None:
        """Run one node on the survivors of all its cut axes, and spread its outputs over the old positions."""
        twin = self.twins.nodes[node.native]
        for index, value in enumerate(node.inputs):
            typed = Typed(None) if value is None else self.analysis.trace.typed(value, Use(node, index))
            for place, axis in enumerate(typed.axes or []):
                source = twin.inputs[index]
                if is_cut(axis, self.keep) and source is not None:
                    chosen = self._constant(twin, ir.tensor(indices(axis, self.keep)))
                    twin.replace_input_with(index, self._node(twin, "Gather", [source, chosen], place))
        self._numbers(node, twin)
        for value, output in zip(node.outputs, twin.outputs, strict=True):
            self._spread(output, self.analysis.trace.types[value])

    def _numbers(self, node: Node, twin: ir.Node) -> None:
        for slot, size in self.analysis.bindings.items():
            if slot.node is node and isinstance(slot.key, str) and slot.index is None:
                twin.attributes[slot.key] = ir.AttrInt64(slot.key, evaluated(size, self.keep))

    def _spread(self, output: ir.Value, typed: Typed) -> None:
        readers = list(output.uses())
        current = output
        for place, axis in enumerate(typed.axes or []):
            if not is_cut(axis, self.keep):
                continue
            kept = indices(axis, self.keep)
            back = np.zeros(whole_size(axis), np.int64)  # where removed entries read does not matter: nothing uses them
            back[kept] = np.arange(len(kept))
            producer = current.producer()
            assert producer is not None
            chosen = ir.Node("", "Constant", [], [ir.AttrTensor("value", ir.tensor(back))])
            gathered = ir.Node("", "Gather", [current, chosen.outputs[0]], [ir.AttrInt64("axis", place)])
            self._name(chosen.outputs[0])
            self._name(gathered.outputs[0])
            producer.append([chosen, gathered])
            current = gathered.outputs[0]
        if current is not output:
            for reader, index in readers:
                reader.replace_input_with(index, current)

    def _constant(self, before: ir.Node, tensor: ir.TensorProtocol) -> ir.Value:
        node = ir.Node("", "Constant", [], [ir.AttrTensor("value", tensor)])
        return self._placed(before, node)

    def _node(self, before: ir.Node, op: str, inputs: list[ir.Value], axis: int | None = None) -> ir.Value:
        attributes = [] if axis is None else [ir.AttrInt64("axis", axis)]
        return self._placed(before, ir.Node("", op, inputs, attributes))

    def _placed(self, before: ir.Node, node: ir.Node) -> ir.Value:
        self._name(node.outputs[0])
        before.prepend(node)
        return node.outputs[0]

    def _name(self, value: ir.Value) -> None:
        self.made += 1
        value.name = f"graphprune.mask.{self.made}"
