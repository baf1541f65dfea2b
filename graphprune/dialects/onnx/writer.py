"""Writes a pruned copy of a model: gathers in stored tensors, numbers in their slots, true declared shapes.

Nothing is decided here. Tensors are cut lazily, so that writing a large model holds one tensor at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property, partial
from typing import Any

import numpy as np
import onnx_ir as ir

from graphprune.analysis import Analysis
from graphprune.dims import Axis, Keep, is_cut
from graphprune.kept import evaluated, indices, whole_size, width
from graphprune.program import Array, Node, Use, Value


def write(analysis: Analysis, keep: Keep) -> ir.Model:
    """A copy of the analysed model in which every dimension of ``keep`` is reduced to the kept entries, in their order.
    The model that was read is not changed; tensors that are not cut are shared with it."""
    copy = analysis.program.native.clone()
    twins = Twins(analysis.program.native, copy)
    keep = {dim: np.asarray(kept, np.int64) for dim, kept in keep.items()}
    edits = _Edits(analysis, twins)
    edits.numbers(keep)
    edits.tensors(keep)
    edits.finish()
    _declare_shapes(analysis, twins, keep)
    return copy  # type: ignore[no-any-return]


def out_of_step(analysis: Analysis, keep: Keep, most: int = 8) -> Iterator[ir.Model]:
    """Deliberately wrong copies: one weight each is left as it is while all else is cut, the weights nearest to the
    outputs first. What compares models must find these wrong."""
    weights = [
        value for _, value, _, axes in analysis.stored_axes() if len(axes) > 1 and any(is_cut(a, keep) for a in axes)
    ]
    for value in list(dict.fromkeys(reversed(weights)))[:most]:
        copy = analysis.program.native.clone()
        edits = _Edits(analysis, Twins(analysis.program.native, copy))
        edits.numbers(keep)
        edits.tensors(keep, skipped=value)
        edits.finish()
        yield copy


class Twins:
    """The nodes and values of a cloned model by those of the original, found by walking both side by side."""

    def __init__(self, model: ir.Model, copy: ir.Model):
        self.nodes: dict[ir.Node, ir.Node] = {}
        self.values: dict[ir.Value, ir.Value] = {}
        self._graph(model.graph, copy.graph)
        for key, function in model.functions.items():
            self._graph(function, copy.functions[key])

    def _graph(self, old: Any, new: Any) -> None:
        for a, b in zip(old.inputs, new.inputs, strict=True):
            self.values[a] = b
        if isinstance(old, ir.Graph):
            for name, value in old.initializers.items():
                self.values[value] = new.initializers[name]
        for a, b in zip(old, new, strict=True):
            self.nodes[a] = b
            self.values.update(zip(a.outputs, b.outputs, strict=True))
            for name, attribute in a.attributes.items():
                if not attribute.is_ref() and attribute.type == ir.AttributeType.GRAPH:
                    self._graph(attribute.as_graph(), b.attributes[name].as_graph())


class _Edits:
    """Collects what each use of a stored tensor is to read, then changes tensors in place where all uses agree and
    gives a use its own copy where they do not."""

    def __init__(self, analysis: Analysis, twins: Twins):
        self.analysis = analysis
        self.twins = twins
        self.uses: dict[Value, dict[Use, tuple[object, Callable[[], ir.TensorProtocol]]]] = {}
        self.whole: dict[Value, Callable[[], ir.TensorProtocol]] = {}

    def numbers(self, keep: Keep) -> None:
        """Re-evaluate every bound number."""
        changed: dict[Use, dict[int, int]] = {}
        lists: dict[tuple[Node, str], dict[int | None, int]] = {}
        for slot, size in self.analysis.bindings.items():
            number = evaluated(size, keep)
            if isinstance(slot.key, str):
                lists.setdefault((slot.node, slot.key), {})[slot.index] = number
            else:
                changed.setdefault(Use(slot.node, slot.key), {})[slot.index or 0] = number
        for use, (source, picked) in self.analysis.trace.positions.items():
            if is_cut(source, keep) or is_cut(picked, keep):
                self._positions(use, source, picked, keep)
        for default in self.analysis.trace.defaults:
            if is_cut(default.axis, keep):
                twin = self.twins.nodes[default.node.native]
                twin.attributes[default.name] = ir.AttrFloat32(default.name, default.value)
        for (node, name), numbers in lists.items():
            if name == "split" and name not in node.attributes:
                _write_out_split(self.twins.nodes[node.native], self._pieces(node, keep), node.version)
            else:
                _set_attribute(self.twins.nodes[node.native], name, numbers)
        for use, entries in changed.items():
            value = use.node.inputs[use.index]
            assert value is not None and value.stored is not None
            old = value.stored.read()
            new = old.copy().reshape(-1)
            new[list(entries)] = list(entries.values())
            if (new != old.reshape(-1)).any():
                tensor = ir.tensor(new.reshape(old.shape), name=value.name)
                self.uses.setdefault(value, {})[use] = (tuple(new.tolist()), partial(_itself, tensor))

    def _pieces(self, node: Node, keep: Keep) -> list[int]:
        """The sizes of all pieces of a Split, of those that are not cut as well."""
        place = int(node.attributes.get("axis", 0))
        axes = [(self.analysis.trace.types[value].axes or [])[place] for value in node.outputs]
        return [int(width(axis, keep)) for axis in axes]  # type: ignore[arg-type]  # even pieces have known sizes

    def _positions(self, use: Use, source: Axis, picked: Axis, keep: Keep) -> None:
        """Where the picked entries that are left stand among the entries of the source that are left."""
        value = use.node.inputs[use.index]
        assert value is not None and value.stored is not None
        old = value.stored.read()
        kept = indices(source, keep)
        place = np.full(whole_size(source), -1, old.dtype)
        place[kept] = np.arange(len(kept))
        tensor = ir.tensor(place[old[indices(picked, keep)]], name=value.name)
        self.uses.setdefault(value, {})[use] = (tuple(tensor.numpy().tolist()), partial(_itself, tensor))

    def tensors(self, keep: Keep, skipped: Value | None = None) -> None:
        """Gather the survivors of every cut axis."""
        for _, value, use, axes in self.analysis.stored_axes():
            if value is skipped:
                continue
            cut = {place: axis for place, axis in enumerate(axes) if is_cut(axis, keep)}
            if not cut:
                continue
            make = _gathered(value, axes, cut, keep)
            if use is None:
                self.whole[value] = make
            else:
                what = tuple((place, indices(axis, keep).tobytes()) for place, axis in cut.items())
                self.uses.setdefault(value, {})[use] = (what, make)

    def finish(self) -> None:
        """Put the new tensors where they belong."""
        for value, make in self.whole.items():
            self._replace(value, make())
        for value, uses in self.uses.items():
            if len({what for what, _ in uses.values()}) == 1 and len(uses) == value.readers:
                self._replace(value, next(iter(uses.values()))[1]())
                continue
            copies: dict[object, ir.Value] = {}
            for use, (what, make) in uses.items():
                twin, inside = self.twins.nodes[use.node.native], use.node.native in self._in_functions
                key = (what, use if inside else None)
                if key not in copies or isinstance(value.stored and value.stored.native, ir.Node):
                    copies[key] = self._copy(value, make(), twin, len(copies), inside)
                twin.replace_input_with(use.index, copies[key])
            self._drop_unused(value)

    def _replace(self, value: Value, tensor: ir.TensorProtocol) -> None:
        assert value.stored is not None
        native = value.stored.native
        if isinstance(native, ir.Node):
            node = self.twins.nodes[native]
            for name in list(node.attributes):
                if name.startswith("value"):
                    del node.attributes[name]
            node.attributes["value"] = ir.AttrTensor("value", tensor)
        else:
            self.twins.values[native].const_value = tensor

    @cached_property
    def _in_functions(self) -> set[ir.Node]:
        """The nodes of functions, which see no initializer of the model."""
        functions = self.analysis.program.native.functions.values()
        return {node for function in functions for node in ir.traversal.RecursiveGraphIterator(function)}

    def _copy(
        self, value: Value, tensor: ir.TensorProtocol, reader: ir.Node, count: int, inside: bool = False
    ) -> ir.Value:
        """A tensor of its own for one reader, named after the one it was shared from; `inside` a function a node."""
        twin = self.twins.values[value.native]
        name = self._free_name(f"{value.name}.{reader.name or reader.op_type}.{count}")
        if twin.is_initializer() and twin.graph is not None and not inside:
            new = ir.Value(
                name=name, shape=ir.Shape(tensor.shape.numpy()), type=ir.TensorType(tensor.dtype), const_value=tensor
            )
            twin.graph.register_initializer(new)
            return new
        node = ir.Node("", "Constant", [], [ir.AttrTensor("value", tensor)], name=name)
        node.outputs[0].name = name
        reader.prepend(node)
        return node.outputs[0]

    def _free_name(self, name: str) -> str:
        taken = self.__dict__.setdefault("names", {value.name for value in self.twins.values.values()})
        while name in taken:
            name += "_"
        taken.add(name)
        return name

    def _drop_unused(self, value: Value) -> None:
        twin = self.twins.values[value.native]
        if twin.uses() or twin.is_graph_output():
            return
        if twin.is_initializer() and twin.graph is not None and not twin.is_graph_input():
            del twin.graph.initializers[twin.name or ""]
        elif (producer := twin.producer()) is not None and producer.graph is not None:
            producer.graph.remove(producer, safe=True)


def _itself(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    return tensor


def _gathered(value: Value, axes: list[Axis], cut: dict[int, Axis], keep: Keep) -> Callable[[], ir.TensorProtocol]:
    stored = value.stored
    assert stored is not None
    places = {place: indices(axis, keep) for place, axis in cut.items()}
    shape = [len(places[k]) if k in places else size for k, size in enumerate(stored.shape)]
    dtype = ir.DataType[stored.dtype.upper()]

    def numbers() -> ir.TensorProtocol:
        array: Array = stored.read()
        for place, kept in places.items():
            array = np.take(array, kept, axis=place)
        if dtype == ir.DataType.STRING:
            return ir.StringTensor(array, shape=ir.Shape(shape), name=stored.name)
        return ir.Tensor(np.ascontiguousarray(array), dtype=dtype, name=stored.name)

    if dtype == ir.DataType.STRING:
        return numbers  # text cannot be written lazily
    return lambda: ir.LazyTensor(numbers, dtype=dtype, shape=ir.Shape(shape), name=stored.name)


def _set_attribute(node: ir.Node, name: str, numbers: dict[int | None, int]) -> None:
    if None in numbers:
        node.attributes[name] = ir.AttrInt64(name, numbers[None])
        return
    values = list(node.attributes[name].as_ints())
    for index, number in numbers.items():
        values[index or 0] = number
    node.attributes[name] = ir.AttrInt64s(name, values)


def _write_out_split(node: ir.Node, sizes: list[int], version: int) -> None:
    """Give a Split that divides evenly its sizes, as an attribute up to operator set 12 and as an input from 13 on."""
    if len(set(sizes)) == 1:
        return
    if version < 13:
        node.attributes["split"] = ir.AttrInt64s("split", sizes)
        return
    node.attributes.pop("num_outputs", None)
    constant = ir.Node("", "Constant", [], [ir.AttrTensor("value", ir.tensor(np.asarray(sizes, np.int64)))])
    constant.outputs[0].name = f"{node.outputs[0].name}.sizes"
    node.prepend(constant)
    node.resize_inputs(2)
    node.replace_input_with(1, constant.outputs[0])


def _declare_shapes(analysis: Analysis, twins: Twins, keep: Keep) -> None:
    """Declared shapes of intermediate values stay true."""
    for value, typed in analysis.trace.types.items():
        twin = twins.values.get(value.native)
        if twin is None or typed.axes is None or value.native.shape is None:
            continue
        if len(typed.axes) != len(value.native.shape) or not any(is_cut(axis, keep) for axis in typed.axes):
            continue
        sizes = list(value.native.shape)
        for place, axis in enumerate(typed.axes):
            if is_cut(axis, keep):
                new = width(axis, keep)
                sizes[place] = new if isinstance(new, int) else None
        twin.shape = ir.Shape(sizes)
    for _, value, _, _ in analysis.stored_axes():
        twin = twins.values.get(value.native)
        if twin is None or twin.const_value is value.native.const_value:
            continue  # not cut: what was declared stays as it was, right or wrong
        if twin.const_value is not None and twin.shape is not None:
            twin.shape = ir.Shape(twin.const_value.shape.numpy())
