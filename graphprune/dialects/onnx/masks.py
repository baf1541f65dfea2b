"""The dense model with removed entries masked: what a pruned model is held against.

Entries are zeroed where a contraction sums over them, so nothing they are computed from matters any more. Where a
statistic is taken over a cut axis, the node is run on the survivors alone: its inputs are gathered, and its outputs
spread out again. This shares nothing with the writer but the index arrays.

How many values a condition chooses, or a branch yields, is not known even at given sizes of the inputs. Where such a
size is multiplied with channels, the positions along the axis are counted in the masked model itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest

import numpy as np
import onnx_ir as ir

from graphprune.analysis import Analysis
from graphprune.dialects.onnx.writer import Twins
from graphprune.dims import Axis, Keep, Prod, find, is_cut, leaves
from graphprune.errors import GraphPruneError
from graphprune.kept import evaluated, indices, whole_size, width
from graphprune.program import Array, Node, Use
from graphprune.rules.trace import Typed
from graphprune.sizes import Extent


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


def at_sizes(model: ir.Model, shapes: Mapping[str, Sequence[int]]) -> ir.Model:
    """The model with these shapes of its inputs declared."""
    copy = model.clone()
    for value in copy.graph.inputs:
        if value.name is not None and value.name in shapes:
            value.shape = ir.Shape(shapes[value.name])
    return copy


def _around(axis: Axis, keep: Keep) -> tuple[Axis, Axis]:
    """What lies before and after the run-time sizes in an axis. ``GP402`` where entries are removed in between: their
    positions depend on sizes that cannot be told apart."""
    axis = find(axis)
    parts = axis.parts if isinstance(axis, Prod) else (axis,)
    unknown = [place for place, part in enumerate(parts) if not isinstance(part.size, int)]
    first, last = unknown[0], unknown[-1] + 1
    if is_cut(Prod(parts[first:last]), keep):
        what = f"entries are removed amid {axis}, whose sizes follow from more than those of the inputs"
        raise GraphPruneError("GP402", what, "", "compare the two models on data of your own")
    return Prod(parts[:first]), Prod(parts[last:])


def _alike(axis: Axis, other: Axis) -> bool:
    """Whether two axes are one; of what is pinned, where ties say nothing, it is the sizes that agree."""
    pairs = zip_longest(leaves(find(axis)), leaves(find(other)))
    return all(a is b or (a and b and a.pin and b.pin and a.size == b.size) for a, b in pairs)


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
            array = np.where(self._kept(axis).reshape(shape), stored.numpy(), zero.astype(stored.numpy().dtype))
            twin.replace_input_with(use.index, self._constant(twin, ir.Tensor(array, dtype=stored.dtype)))
            return
        dtype = (
            stored.dtype
            if stored is not None
            else ir.DataType[value.dtype.upper()]
            if value.dtype
            else ir.DataType.FLOAT
        )
        kept = self._kept_along(twin, source, position, axis, shape)
        if dtype.is_integer():
            zero_value = None if zero_point is None else twin.inputs[zero_point.index]
            if zero_value is not None and along:
                zero_value = self._node(twin, "Reshape", [zero_value, self._constant(twin, ir.tensor(along))])
            twin.replace_input_with(use.index, self._zeroed(twin, source, kept, zero_value, dtype))
            return
        factor = self._placed(twin, ir.Node("", "Cast", [kept], [ir.AttrInt64("to", dtype.value)]))
        twin.replace_input_with(use.index, self._node(twin, "Mul", [source, factor]))

    def _kept(self, axis: Axis) -> Array:
        """For each entry of an axis whether it stays."""
        kept = np.zeros(whole_size(axis), np.bool_)
        kept[indices(axis, self.keep)] = True
        return kept

    def _kept_along(self, twin: ir.Node, source: ir.Value, place: int, axis: Axis, shape: list[int]) -> ir.Value:
        """For each entry along one axis of a value whether it stays, in a shape that broadcasts against the value."""
        if isinstance(axis.size, int):
            return self._constant(twin, ir.tensor(self._kept(axis).reshape(shape)))
        outer, inner = (self._kept(part) for part in _around(axis, self.keep))
        above = np.where(outer[:, None, None] & inner, -1, np.iinfo(np.int64).max)
        positions = self._positions(twin, source, place, [len(outer), -1, len(inner)])
        kept = self._node(twin, "Greater", [positions, self._constant(twin, ir.tensor(above))])
        return self._node(twin, "Reshape", [kept, self._constant(twin, ir.tensor(shape))])

    def _zeroed(
        self, twin: ir.Node, source: ir.Value, kept: ir.Value, zero: ir.Value | None, dtype: ir.DataType
    ) -> ir.Value:
        """A computed tensor of integers with removed entries at their zero point, worked out in 32 bits."""
        wide = [
            self._placed(twin, ir.Node("", "Cast", [each], [ir.AttrInt64("to", ir.DataType.INT32.value)]))
            for each in (source, zero)
            if each is not None
        ]
        if zero is None:
            wide.append(self._constant(twin, ir.tensor(np.zeros((), np.int32))))
        chosen = self._node(twin, "Where", [kept, *wide])
        return self._placed(twin, ir.Node("", "Cast", [chosen], [ir.AttrInt64("to", dtype.value)]))

    def _zero(self, zero_point: Use | None) -> Array:
        value = None if zero_point is None else zero_point.node.inputs[zero_point.index]
        if value is None or value.stored is None:
            return np.zeros((), np.int64)
        return value.stored.read()

    def _runs_along(self, zero_point: Use | None, typed: Typed) -> list[int]:
        """The shape in which zero points broadcast against their tensor: along the axes that theirs are, in order."""
        value = None if zero_point is None else zero_point.node.inputs[zero_point.index]
        axes = [] if value is None or zero_point is None else self.analysis.trace.typed(value, zero_point).axes or []
        whole = typed.axes or []
        if len(axes) in {0, len(whole)} or (len(axes) == 1 and axes[0].size == 1):
            return [whole_size(axis) for axis in axes]
        shape, rest = [], list(axes)
        for axis in whole:
            shape.append(whole_size(rest.pop(0)) if rest and _alike(axis, rest[0]) else 1)
        return shape

    def on_survivors(self, node: Node) -> None:
        """Run one node on the survivors of all its cut axes, and spread its outputs over the old positions."""
        twin = self.twins.nodes[node.native]
        for index, value in enumerate(node.inputs):
            typed = Typed(None) if value is None else self.analysis.trace.typed(value, Use(node, index))
            for place, axis in enumerate(typed.axes or []):
                source = twin.inputs[index]
                if is_cut(axis, self.keep) and source is not None:
                    chosen = self._chosen(twin, source, place, axis, whole_size, lambda part: indices(part, self.keep))
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
            producer = current.producer()
            assert producer is not None
            gathered = ir.Node("", "Gather", [current, None], [ir.AttrInt64("axis", place)])
            self._name(gathered.outputs[0])
            producer.append(gathered)
            chosen = self._chosen(gathered, current, place, axis, lambda part: width(part, self.keep), self._back)
            gathered.replace_input_with(1, chosen)
            current = gathered.outputs[0]
        if current is not output:
            for reader, index in readers:
                reader.replace_input_with(index, current)

    def _back(self, axis: Axis) -> Array:
        """Where each entry of an axis is found among the survivors; where removed ones read does not matter, as nothing
        uses them."""
        kept = indices(axis, self.keep)
        back = np.zeros(whole_size(axis), np.int64)
        back[kept] = np.arange(len(kept))
        return back

    def _chosen(
        self,
        before: ir.Node,
        source: ir.Value,
        place: int,
        axis: Axis,
        size: Callable[[Axis], Extent],
        pick: Callable[[Axis], Array],
    ) -> ir.Value:
        """What to gather along one axis of a value, given the entries to pick of an axis of known size and how many
        there are in the value."""
        if isinstance(axis.size, int):
            return self._constant(before, ir.tensor(pick(axis)))
        outer, inner = _around(axis, self.keep)
        positions = self._positions(before, source, place, [size(outer), -1, size(inner)])
        for at, part in ((0, outer), (2, inner)):
            positions = self._node(before, "Gather", [positions, self._constant(before, ir.tensor(pick(part)))], at)
        return self._node(before, "Reshape", [positions, self._constant(before, ir.tensor([-1]))])

    def _positions(self, before: ir.Node, source: ir.Value, place: int, shape: Sequence[Extent]) -> ir.Value:
        """The positions along one axis of a value, counted at run time, in a shape."""
        zero, one, at, sizes = (self._constant(before, ir.tensor(np.array(n, np.int64))) for n in (0, 1, place, shape))
        count = self._node(before, "Gather", [self._node(before, "Shape", [source]), at], 0)
        return self._node(before, "Reshape", [self._node(before, "Range", [zero, count, one]), sizes])

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
