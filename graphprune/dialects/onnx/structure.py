"""ONNX operators that rearrange, put together, take apart and address."""

from __future__ import annotations

from graphprune.dims import Axis
from graphprune.program import Node
from graphprune.rules import computed, indexing, shape
from graphprune.rules.numbers import Entry, Number, axes_in, now
from graphprune.rules.operator import Operator
from graphprune.rules.trace import MOST_ENTRIES, Operand, Trace, Typed


def axes_of(trace: Trace, node: Node, index: int) -> list[int] | None:
    """The axes a node works on: an attribute in old operator sets, an operand in new ones; ``None`` if not given.
    ``ValueError`` where they are computed at run time."""
    if "axes" in node.attributes:
        return [int(k) for k in node.attributes["axes"]]
    operand = trace.operand(index)
    if operand is None:
        return None
    axes = trace.constants(operand)
    if axes is None:
        raise ValueError("its axes are computed at run time")
    return axes


MOST_AXES = 64
"""More axes than NumPy can hold (64) no tensor has, whatever its shape vector says."""


def count(operand: Operand | None) -> int | None:
    """How many entries a vector has, where that is fixed. ``ValueError`` where no tensor has that many axes: a file of
    a few bytes can declare a vector of any length."""
    if operand is None or operand.typed.axes is None or len(operand.typed.axes) != 1:
        return None
    size = operand.typed.axes[0].size
    if isinstance(size, int) and size > MOST_AXES:
        raise ValueError(f"a shape of {size} axes")
    return size if isinstance(size, int) else None


def _reshape(trace: Trace, node: Node) -> list[Typed]:
    x = trace.need(0)
    target = trace.attributes("shape") if "shape" in node.attributes else computed.listed(trace, trace.need(1))
    zero_copies = not node.attributes.get("allowzero", 0)
    typed = shape.reshape(trace, x, target, zero_copies=zero_copies, rank=count(trace.operand(1)))
    return [Typed(typed.axes, trace.passed(x))]


def _flatten(trace: Trace, node: Node) -> list[Typed]:
    return [shape.flatten(trace, trace.need(0), int(node.attributes.get("axis", 1)))]


def _squeeze(trace: Trace, node: Node) -> list[Typed]:
    x = trace.need(0)
    return [Typed(shape.squeeze(trace, x, axes_of(trace, node, 1)).axes, trace.passed(x))]


def _unsqueeze(trace: Trace, node: Node) -> list[Typed]:
    x = trace.need(0)
    return [Typed(shape.unsqueeze(trace, x, axes_of(trace, node, 1) or []).axes, trace.passed(x))]


def _transpose(trace: Trace, node: Node) -> list[Typed]:
    x = trace.need(0)
    return [shape.transpose(trace, x, node.attributes.get("perm") or range(x.rank)[::-1])]


def _expand(trace: Trace, node: Node) -> list[Typed]:
    x, target = trace.need(0), trace.need(1)
    return [shape.expand(trace, x, computed.listed(trace, target), count(target))]


def _tile(trace: Trace, node: Node) -> list[Typed]:
    x = trace.need(0)
    return [shape.tile(trace, x, computed.listed(trace, trace.need(1)) if node.version >= 6 else None)]


def _shape(trace: Trace, node: Node) -> list[Typed]:
    start, end = node.attributes.get("start", 0), node.attributes.get("end")
    return [computed.shape_of(trace, trace.need(0), start, end)]


def _size(trace: Trace, node: Node) -> list[Typed]:
    return [computed.size_of(trace, trace.need(0))]


def _constant_of_shape(trace: Trace, node: Node) -> list[Typed]:
    target = trace.need(0)
    typed = shape.from_entries(trace, computed.listed(trace, target), count(target))
    value = node.attributes.get("value")
    number = 0 if value is None else value.numpy().reshape(-1)[0]
    return [
        computed.filled(trace, typed.axes, int(number) if number == int(number) else None)
        if typed.axes is not None
        else typed
    ]


def _concat(trace: Trace, node: Node) -> list[Typed]:
    operands = [operand for operand in trace.operands() if operand is not None]
    typed = indexing.concat(trace, operands, int(node.attributes.get("axis", 1)))
    if not computed.carries_sizes(operands):
        return [typed]
    entries = computed.concatenated(trace, operands)
    return [Typed(typed.axes if entries is None else [trace.fixed(len(entries))], entries)]


def _split(trace: Trace, node: Node) -> list[Typed]:
    x, axis = trace.need(0), int(node.attributes.get("axis", 0))
    if "split" in node.attributes:
        return indexing.split_into(trace, x, axis, trace.attributes("split"))
    sizes = trace.operand(1)
    if sizes is None:
        return indexing.split_equally(trace, x, axis, len(node.outputs), None if node.frozen else node)
    entries = computed.listed(trace, sizes)
    if entries is None:
        raise ValueError("its sizes are computed at run time")
    return indexing.split_into(trace, x, axis, entries)


def _slice(trace: Trace, node: Node) -> list[Typed]:
    x = trace.need(0)
    if "starts" in node.attributes:
        starts: list[Entry] | None = trace.attributes("starts")
        ends: list[Entry] | None = trace.attributes("ends")
        axes, steps = node.attributes.get("axes"), None
    else:
        starts, ends = computed.listed(trace, trace.need(1)), computed.listed(trace, trace.need(2))
        axes, steps = axes_of(trace, node, 3), trace.operand(4)
    if starts is None or ends is None:
        raise ValueError("its bounds are computed at run time")
    axes = list(range(len(starts))) if axes is None else axes
    strides = [1] * len(starts) if steps is None else trace.constants(steps)
    if strides is None:
        raise ValueError("its steps are computed at run time")
    entries = trace.passed(x) if x.rank == 1 else None
    if entries is not None:
        return [_slice_entries(trace, entries, now(starts[0]), now(ends[0]), strides[0])]
    out = list(x.axes)
    for start, end, axis, step in zip(starts, ends, axes, strides, strict=True):
        out[axis % x.rank] = indexing.slice_axis(trace, out[axis % x.rank], start, end, step)
    return [Typed(out)]


def _slice_entries(trace: Trace, entries: list[Entry], start: object, end: object, step: int) -> Typed:
    if not isinstance(start, int) or not isinstance(end, int):
        raise ValueError("its bounds are computed at run time")
    return computed.vector(trace, entries[slice(start, None if step < 0 and end < -len(entries) else end, step)])


def _gather(trace: Trace, node: Node) -> list[Typed]:
    x, positions, axis = trace.need(0), trace.need(1), int(node.attributes.get("axis", 0))
    known = trace.passed(x) if x.rank == 1 else None
    if known is not None:
        places = trace.constants(positions)
        entries = None if places is None else computed.picked(known, places)
        return [Typed(list(positions.axes), entries)]
    return [indexing.gather(trace, x, positions, axis)]


def _gather_nd(trace: Trace, node: Node) -> list[Typed]:
    return [indexing.gather_nd(trace, trace.need(0), trace.need(1), int(node.attributes.get("batch_dims", 0)))]


def _scatter_nd(trace: Trace, node: Node) -> list[Typed]:
    return [indexing.scatter_nd(trace, trace.need(0), trace.need(1), trace.need(2))]


def _elements(trace: Trace, node: Node) -> list[Typed]:
    axis = int(node.attributes.get("axis", 0))
    return [indexing.elements(trace, trace.need(0), trace.need(1), axis, trace.operand(2))]


def _pad(trace: Trace, node: Node) -> list[Typed]:
    x = trace.need(0)
    old = node.attributes.get("pads", node.attributes.get("paddings"))
    name = "pads" if "pads" in node.attributes else "paddings"
    amounts = trace.attributes(name) if old is not None else computed.listed(trace, trace.need(1))
    axes = [k % x.rank for k in axes_of(trace, node, 3) or range(x.rank)]
    return [indexing.pad(trace, x, amounts, axes, node.attributes.get("mode", "constant") == "constant")]


def _depth_to_space(trace: Trace, node: Node) -> list[Typed]:
    crd = node.attributes.get("mode", "DCR") == "CRD"
    return [shape.depth_to_space(trace, trace.need(0), int(node.attributes["blocksize"]), crd)]


def _space_to_depth(trace: Trace, node: Node) -> list[Typed]:
    crd = node.attributes.get("mode", "DCR") == "CRD"
    return [shape.space_to_depth(trace, trace.need(0), int(node.attributes["blocksize"]), crd)]


def _one_hot(trace: Trace, node: Node) -> list[Typed]:
    x, depth = trace.need(0), trace.constants(trace.operand(1))
    axis = int(node.attributes.get("axis", -1)) % (x.rank + 1)
    new: Axis = trace.fixed(depth[0] if depth else trace.unknown(), "one-hot positions", "GP207")
    return [Typed([*x.axes[:axis], new, *x.axes[axis:]])]


def _range(trace: Trace, node: Node) -> list[Typed]:
    bounds = [trace.constants(trace.need(k)) for k in range(3)]
    if all(bounds):
        start, limit, step = (bound[0] for bound in bounds if bound)
        size = max(0, -(-(limit - start) // step)) if step else 0
        numbers: list[Entry] = []
        numbers.extend(Number(start + k * step) for k in range(min(size, MOST_ENTRIES)))
        return [Typed([trace.fixed(size)], numbers if len(numbers) == size else None)]
    limit_entries = trace.entries(trace.need(1))
    if bounds[0] == [0] and bounds[2] == [1] and limit_entries:
        for axis in axes_in(limit_entries[0]):
            trace.pin(axis, "GP206", "positions along it are computed")
        return [Typed([trace.fixed(now(limit_entries[0]), "positions up to a run-time size", "GP208")])]
    return [Typed([trace.fixed(trace.unknown(), "its length is computed at run time", "GP208")])]


STRUCTURE: dict[str, Operator] = {
    "Reshape": Operator(_reshape, sizes=True),
    "Flatten": Operator(_flatten),
    "Squeeze": Operator(_squeeze),
    "Unsqueeze": Operator(_unsqueeze),
    "Transpose": Operator(_transpose),
    "Expand": Operator(_expand, sizes=True),
    "Tile": Operator(_tile, sizes=True),
    "Shape": Operator(_shape, sizes=True),
    "Size": Operator(_size, sizes=True),
    "ConstantOfShape": Operator(_constant_of_shape, sizes=True),
    "Concat": Operator(_concat),
    "Split": Operator(_split, sizes=True),
    "Slice": Operator(_slice, sizes=True),
    "Gather": Operator(_gather),
    "GatherND": Operator(_gather_nd),
    "ScatterND": Operator(_scatter_nd),
    "GatherElements": Operator(_elements),
    "ScatterElements": Operator(_elements),
    "Scatter": Operator(_elements),
    "Pad": Operator(_pad, sizes=True),
    "DepthToSpace": Operator(_depth_to_space),
    "SpaceToDepth": Operator(_space_to_depth),
    "OneHot": Operator(_one_hot),
    "Range": Operator(_range),
}
