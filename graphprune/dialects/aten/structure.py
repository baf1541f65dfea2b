"""ATen operators that rearrange, put together, take apart and address."""

from __future__ import annotations

from collections.abc import Sequence

from graphprune.dialects.aten.call import Call, same
from graphprune.dims import UNIT, Axis, Prod, find
from graphprune.program import Node, Slot
from graphprune.rules import indexing, shape
from graphprune.rules.numbers import Number, SizeOf, now
from graphprune.rules.operator import Operator
from graphprune.rules.special import columns_to_image
from graphprune.rules.trace import Operand, Trace, Typed
from graphprune.sizes import product

_END = 2**63 - 1


def with_axes(x: Operand, axes: Sequence[Axis]) -> Operand:
    """An operand seen with other axes."""
    return Operand(x.use, x.value, Typed(list(axes)))


def replaced(x: Operand, at: int, axes: Sequence[Axis]) -> Typed:
    """The axes of an operand with one of them replaced by others."""
    return Typed([*x.axes[:at], *axes, *x.axes[at + 1 :]])


def made(call: Call, known: dict[int, Axis], reason: str = "the operator makes this axis anew") -> Typed:
    """The axes of the first output: those that are known, and new ones that stay, of the sizes that were traced."""
    trace = call.trace
    return Typed([known[k] if k in known else trace.fixed(size, reason) for k, size in enumerate(call.shape())])


# ---------------------------------------------------------------- shapes
def _view(trace: Trace, node: Node) -> list[Typed]:
    call = Call(trace, node)
    x = call.tensor("self")
    entries = call.entries("shape" if "shape" in call.given else "size")
    return [shape.reshape(trace, x, entries, zero_copies=False, known=call.shape())]


def _view_as(trace: Trace, node: Node) -> list[Typed]:
    call = Call(trace, node)
    x, other = call.tensor("self"), call.tensor("other")
    axes = shape.regroup(trace, x.axes, [axis.size for axis in other.axes])
    return [Typed([trace.tie(axis, size) for axis, size in zip(axes, other.axes, strict=True)])]


def _as_complex(trace: Trace, node: Node) -> list[Typed]:
    """``... 2 -> ...``: real and imaginary part next to each other become one number."""
    x = trace.need(0)
    trace.structural(x.axes[-1], "real and imaginary part")
    return [Typed(x.axes[:-1])]


def _as_real(trace: Trace, node: Node) -> list[Typed]:
    x = trace.need(0)
    return [Typed([*x.axes, trace.fixed(2, "real and imaginary part", "GP214")])]


def _flatten(trace: Trace, node: Node) -> list[Typed]:
    call = Call(trace, node)
    x = call.tensor("self")
    if not x.rank:
        return [Typed([UNIT])]
    start, end = call.number("start_dim", 0) % x.rank, call.number("end_dim", -1) % x.rank
    return [Typed([*x.axes[:start], find(Prod(x.axes[start : end + 1])), *x.axes[end + 1 :]])]


def _unflatten(trace: Trace, node: Node) -> list[Typed]:
    call = Call(trace, node)
    x = call.tensor("self")
    at = call.number("dim") % x.rank
    parts = shape.reshape(trace, with_axes(x, [x.axes[at]]), call.entries("sizes"), zero_copies=False)
    return [replaced(x, at, parts.axes or [])]


def _squeeze(trace: Trace, node: Node) -> list[Typed]:
    call = Call(trace, node)
    x, axes = call.tensor("self"), call.numbers("dim")
    if axes is None:
        return [shape.squeeze(trace, x, None)]
    for k in axes if x.rank else []:
        if isinstance(x.axes[k].size, int) and x.axes[k].size != 1:
            trace.whole(x.axes[k], "squeeze would drop it at width 1")
    return [shape.squeeze(trace, x, [k for k in axes if x.rank and x.axes[k].size == 1])]


def _unsqueeze(trace: Trace, node: Node) -> list[Typed]:
    call = Call(trace, node)
    return [shape.unsqueeze(trace, call.tensor("self"), [call.number("dim")])]


def _permute(trace: Trace, node: Node) -> list[Typed]:
    call = Call(trace, node)
    return [shape.transpose(trace, call.tensor("self"), call.numbers("dims") or [])]


def _transpose(trace: Trace, node: Node) -> list[Typed]:
    call = Call(trace, node)
    x = call.tensor("self")
    order = list(range(x.rank))
    first = call.numbers("dim0") or call.numbers("axis0") or [0]
    second = call.numbers("dim1") or call.numbers("axis1") or [0]
    order[first[0]], order[second[0]] = order[second[0]], order[first[0]]
    return [shape.transpose(trace, x, order)]


def _reversed_axes(trace: Trace, node: Node) -> list[Typed]:
    """`t`, `numpy_T`: all axes; `mT`, `adjoint`: the last two."""
    x = trace.need(0)
    last_two = "numpy" not in node.op and x.rank > 1
    return [Typed([*x.axes[:-2], x.axes[-1], x.axes[-2]] if last_two else x.axes[::-1])]


def _movedim(trace: Trace, node: Node) -> list[Typed]:
    call = Call(trace, node)
    x = call.tensor("self")
    source = [k % x.rank for k in call.numbers("source") or []]
    target = [k % x.rank for k in call.numbers("destination") or []]
    places = dict(zip(target, source, strict=True))
    rest = iter(k for k in range(x.rank) if k not in source)
    return [Typed([x.axes[places[k] if k in places else next(rest)] for k in range(x.rank)])]


def _expand(trace: Trace, node: Node) -> list[Typed]:
    call = Call(trace, node)
    x, target = call.tensor("self"), call.entries("size")
    shift = len(target) - x.rank
    kept = [SizeOf(x.axes[k - shift]) if now(each) == -1 else each for k, each in enumerate(target)]
    return [shape.expand(trace, x, kept)]


def _repeat(trace: Trace, node: Node) -> list[Typed]:
    call = Call(trace, node)
    x, counts = call.tensor("self"), call.entries("dims" if "dims" in call.given else "repeats")
    counts = [*[Number(1)] * (x.rank - len(counts)), *counts]
    out = []
    for axis, count in zip([*[UNIT] * (len(counts) - x.rank), *x.axes], counts, strict=True):
        out.append(axis if now(count) == 1 else find(Prod([trace.axis_of(count), axis])))
    for axis, count in zip(out, counts, strict=True):
        if now(count) == 1 and axis.size != 1:
            trace.hold(count, "an axis is repeated once")
    return [Typed(out)]


def _interleave(trace: Trace, node: Node) -> list[Typed]:
    """``c -> (c r)``: every entry r times in a row."""
    call = Call(trace, node)
    x, count = call.tensor("self"), call.entry("repeats")
    if "dim" not in call.given or count is None or not isinstance(now(count), int):
        raise ValueError("its repeats are computed at run time")
    at = call.number("dim") % x.rank
    repeated, total = find(Prod([x.axes[at], trace.axis_of(count)])), call.entry("output_size")
    if total is not None:
        trace.require(total, repeated)
    return [replaced(x, at, [repeated])]


def _filled(trace: Trace, node: Node) -> list[Typed]:
    return [shape.from_entries(trace, Call(trace, node).entries("size"), None)]


def _range(trace: Trace, node: Node) -> list[Typed]:
    """Positions: the axes that they count along stay."""
    for operand in trace.operands():
        for entry in (operand.typed.entries if operand is not None else None) or []:
            trace.hold(entry, "positions along it are computed")
    return [made(Call(trace, node), {}, "positions")]


def _pixel_shuffle(trace: Trace, node: Node) -> list[Typed]:
    call = Call(trace, node)
    x = call.tensor("self")
    lead = x.axes[:-3]
    block = call.number("upscale_factor" if "upscale_factor" in call.given else "downscale_factor")
    rule = shape.space_to_depth if "unshuffle" in node.op else shape.depth_to_space
    found = rule(trace, with_axes(x, [UNIT, *x.axes[-3:]]), block, True)
    return [Typed([*lead, *(found.axes or [])[1:]])]


def _channel_shuffle(trace: Trace, node: Node) -> list[Typed]:
    """``n (g c) ... -> n (c g) ...``."""
    call = Call(trace, node)
    x, groups = call.tensor("self"), call.entry("groups")
    outer, inner = trace.factor(x.axes[1], 1 if groups is None else now(groups))
    if groups is not None:
        trace.require(groups, outer)
    return [replaced(x, 1, [find(Prod([inner, outer]))])]


# ---------------------------------------------------------------- putting together, taking apart
def _cat(trace: Trace, node: Node) -> list[Typed]:
    call = Call(trace, node)
    operands = [x for x in call.tensors("tensors") if x is not None]
    filled = [x for x in operands if x.rank != 1 or x.axes[0].size != 0] or operands  # empty vectors fit anywhere
    if len(filled) == 1:
        return [same(filled[0])]
    return [indexing.concat(trace, filled, call.number("dim", 0))]


_PILED = {"hstack": (1, 2), "vstack": (0, 2), "row_stack": (0, 2), "dstack": (2, 3), "column_stack": (1, 2)}
"""Along which axis operands are laid end to end, and how many axes they must have for it."""


def _pile(trace: Trace, node: Node) -> list[Typed]:
    """`hstack`, `vstack` and `dstack`: laid end to end along the second, first and third axis, once there is one;
    `column_stack` makes columns of vectors."""
    name = node.op.split(".")[1]
    operands = [x for x in Call(trace, node).tensors("tensors") if x is not None]
    flat = name == "hstack" and max(x.rank for x in operands) < 2
    at, rank = (0, 1) if flat else _PILED[name]
    wide = []
    for x in operands:
        before = rank > 1 and x.rank < 2 and name != "column_stack"
        axes = [*([UNIT] if before else []), *(x.axes or [UNIT])]
        wide.append(with_axes(x, [*axes, *[UNIT] * (rank - len(axes))]))
    return [indexing.concat(trace, wide, at)]


def _stack(trace: Trace, node: Node) -> list[Typed]:
    call = Call(trace, node)
    return [indexing.stack(trace, [x for x in call.tensors("tensors") if x is not None], call.number("dim", 0))]


def split_axis(node: Node) -> int:
    """The axis that a split takes apart."""
    places = {"hsplit": min(1, len(node.outputs[0].shape or ()) - 1), "vsplit": 0, "dsplit": 2}
    return places.get(node.op.split(".")[1], int(node.attributes.get("dim", 0)))


def _split(trace: Trace, node: Node) -> list[Typed]:
    """Pieces of whatever sizes come out; the call is rewritten to give each size."""
    call = Call(trace, node)
    x, at = call.tensor("self"), split_axis(node) % call.tensor("self").rank
    given = call.given.get("split_sizes")
    if isinstance(given, list):
        return indexing.split_into(trace, x, at, call.entries("split_sizes"))
    sizes = [call.shape(k)[at] for k in range(len(node.outputs))]
    if not all(isinstance(size, int) for size in sizes):
        trace.whole(x.axes[at], "it is split into pieces by its size")
        return [replaced(x, at, [trace.inherited(size, x.axes[at])]) for size in sizes]
    pieces = [Number(int(size), Slot(node, "split_sizes", k)) for k, size in enumerate(sizes)]  # type: ignore[arg-type]
    return indexing.split_into(trace, x, at, pieces)


def _unbind(trace: Trace, node: Node) -> list[Typed]:
    call = Call(trace, node)
    x = call.tensor("self")
    at = call.number("dim", 0) % x.rank
    trace.structural(x.axes[at], "its entries are taken one by one")
    return [replaced(x, at, []) for _ in node.outputs]


def _slice(trace: Trace, node: Node) -> list[Typed]:
    call = Call(trace, node)
    x = call.tensor("self")
    at = call.number("dim", 0) % x.rank
    start, end = call.entry("start", 0), call.entry("end", _END)
    assert start is not None
    assert end is not None
    return [replaced(x, at, [indexing.slice_axis(trace, x.axes[at], start, end, call.number("step", 1))])]


def _narrow(trace: Trace, node: Node) -> list[Typed]:
    call = Call(trace, node)
    x, start, length = call.tensor("self"), call.entry("start"), call.entry("length")
    at = call.number("dim") % x.rank
    if start is None or length is None:
        raise ValueError("its range is computed at run time")
    before, middle, _ = indexing.cut(trace, x.axes[at], now(start), now(length))
    trace.require(start, before)
    trace.require(length, middle)
    return [replaced(x, at, [middle])]


def _select(trace: Trace, node: Node) -> list[Typed]:
    call = Call(trace, node)
    x = call.tensor("self")
    at = call.number("dim") % x.rank
    trace.pin(x.axes[at], "GP207", "one entry of it is taken by position")
    return [replaced(x, at, [])]


def _pad(trace: Trace, node: Node) -> list[Typed]:
    """`pad` lists the last axis first, before and after; the rule takes all begins, then all ends."""
    call = Call(trace, node)
    x, amounts = call.tensor("self"), call.entries("pad")
    axes = [x.rank - 1 - k for k in range(len(amounts) // 2)]
    constant = call.given.get("mode", "constant") == "constant"
    return [indexing.pad(trace, x, [*amounts[::2], *amounts[1::2]], axes, constant)]


def _unfold(trace: Trace, node: Node) -> list[Typed]:
    call = Call(trace, node)
    x = call.tensor("self")
    at = call.number("dimension") % x.rank
    trace.whole(x.axes[at], "windows slide over it")
    return [made(call, {k: axis for k, axis in enumerate(x.axes) if k != at}, "windows")]


def _im2col(trace: Trace, node: Node) -> list[Typed]:
    """``n c h w -> n (c k) l``: blocks of k entries at l places."""
    call = Call(trace, node)
    x, sizes = call.tensor("self"), call.shape()
    for axis in x.axes[-2:]:
        trace.structural(axis, "windows slide over it")
    block = product(call.numbers("kernel_size") or [])
    packed = find(Prod([x.axes[-3], trace.fixed(block, "the entries of a window")]))
    return [Typed([*x.axes[:-3], packed, trace.fixed(sizes[-1], "windows")])]


def _col2im(trace: Trace, node: Node) -> list[Typed]:
    call = Call(trace, node)
    x = call.tensor("self")
    image = [size if isinstance(size, int) else -1 for size in call.shape()[-2:]]
    found = columns_to_image(
        trace, with_axes(x, [*[UNIT] * (3 - x.rank), *x.axes]), image, call.numbers("kernel_size") or []
    )
    return [Typed((found.axes or [])[3 - x.rank :])]


_VIEWS = "view reshape _unsafe_view"
_CREATED = "zeros ones full empty new_zeros new_ones new_full new_empty empty_strided new_empty_strided"
_POSITIONS = """arange linspace logspace eye scalar_tensor rand randn randint randperm tril_indices triu_indices
hann_window hamming_window bartlett_window blackman_window kaiser_window"""

STRUCTURE: dict[str, Operator] = {
    **{f"aten.{name}": Operator(_view, sizes=True) for name in _VIEWS.split()},
    **{f"aten.{name}": Operator(_view_as) for name in ("view_as", "reshape_as")},
    "aten.view_as_complex": Operator(_as_complex),
    "aten.view_as_real": Operator(_as_real),
    "aten.flatten": Operator(_flatten),
    "aten.ravel": Operator(_flatten),
    "aten.unflatten": Operator(_unflatten, sizes=True),
    "aten.squeeze": Operator(_squeeze),
    "aten.unsqueeze": Operator(_unsqueeze),
    "aten.permute": Operator(_permute),
    **{f"aten.{name}": Operator(_transpose) for name in ("transpose", "swapaxes", "swapdims")},
    **{f"aten.{name}": Operator(_reversed_axes) for name in ("t", "numpy_T", "mT", "mH", "adjoint", "matrix_H")},
    **{f"aten.{name}": Operator(_movedim) for name in ("movedim", "moveaxis")},
    **{f"aten.{name}": Operator(_expand, sizes=True) for name in ("expand", "broadcast_to")},
    **{f"aten.{name}": Operator(_repeat, sizes=True) for name in ("repeat", "tile")},
    "aten.repeat_interleave": Operator(_interleave, sizes=True),
    **{f"aten.{name}": Operator(_filled, sizes=True) for name in _CREATED.split()},
    **{f"aten.{name}": Operator(_range, sizes=True) for name in _POSITIONS.split()},
    **{f"aten.{name}": Operator(_pixel_shuffle) for name in ("pixel_shuffle", "pixel_unshuffle")},
    **{f"aten.{name}": Operator(_channel_shuffle) for name in ("channel_shuffle", "native_channel_shuffle")},
    **{f"aten.{name}": Operator(_cat) for name in ("cat", "concat", "concatenate")},
    **{f"aten.{name}": Operator(_pile) for name in ("hstack", "vstack", "row_stack", "dstack", "column_stack")},
    "aten.stack": Operator(_stack),
    **{
        f"aten.{name}": Operator(_split, sizes=True)
        for name in (
            "split",
            "split_with_sizes",
            "chunk",
            "unsafe_split",
            "unsafe_chunk",
            "tensor_split",
            "unsafe_split_with_sizes",
            "hsplit",
            "vsplit",
            "dsplit",
        )
    },
    "aten.unbind": Operator(_unbind),
    "aten.slice": Operator(_slice, sizes=True),
    "aten.narrow": Operator(_narrow, sizes=True),
    "aten.select": Operator(_select, sizes=True),
    **{f"aten.{name}": Operator(_pad, sizes=True) for name in ("pad", "constant_pad_nd")},
    "aten.unfold": Operator(_unfold),
    "aten.im2col": Operator(_im2col),
    "aten.col2im": Operator(_col2im, sizes=True),
}
