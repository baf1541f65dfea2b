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
    return [shape.reshape(trace, x, entries, zero_copies=False)]


def _view_as(trace: Trace, node: Node) -> list[Typed]:
    call = Call(trace, node)
    x, other = call.tensor("self"), call.tensor("other")
    return [shape.reshape(trace, x, [SizeOf(axis) for axis in other.axes], zero_copies=False)]


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
    return [replaced(x, at, [find(Prod([x.axes[at], trace.axis_of(count)]))])]


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
    axis = {"vstack": 0, "hstack": 1, "dstack": 2}.get(node.op.split(".")[1], call.numbers("dim", [0])[0])  # type: ignore[index]
    return [indexing.concat(trace, filled, axis)]


def _stack(trace: Trace, node: Node) -> list[Typed]:
    call = Call(trace, node)
    return [indexing.stack(trace, [x for x in call.tensors("tensors") if x is not None], call.number("dim", 0))]


def _split(trace: Trace, node: Node) -> list[Typed]:
    """Pieces of whatever sizes come out; the call is rewritten to give each size."""
    call = Call(trace, node)
    x, at = call.tensor("self"), call.number("dim", 0) % call.tensor("self").rank
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
    trace.whole(x.axes[at], "its entries are taken one by one")
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
    found = columns_to_image(trace, with_axes(x, [*[UNIT] * (3 - x.rank), *x.axes]), image, call.numbers("kernel_size") or [])
    return [Typed((found.axes or [])[3 - x.rank :])]


# ---------------------------------------------------------------- positions
def _along(reason: str, *names: str) -> Operator:
    """An operator that needs the axes named by an argument whole, and returns the same axes."""

    def rule(trace: Trace, node: Node) -> list[Typed]:
        call = Call(trace, node)
        x = trace.need(0)
        axes = next((call.numbers(name) for name in names if name in call.given), None)
        for k in range(x.rank) if not axes else axes:
            trace.whole(x.axes[k], reason)
        return [same(x) for _ in node.outputs]

    return Operator(rule)


def _triangle(trace: Trace, node: Node) -> list[Typed]:
    x = trace.need(0)
    for axis in x.axes[-2:]:
        trace.whole(axis, "its entries are chosen by position")
    return [same(x)]


def _diagonal(trace: Trace, node: Node) -> list[Typed]:
    call = Call(trace, node)
    x = call.tensor("self")
    gone = {call.number("dim1", 0) % x.rank, call.number("dim2", 1) % x.rank}
    for k in gone:
        trace.whole(x.axes[k], "a diagonal is taken")
    rest = [axis for k, axis in enumerate(x.axes) if k not in gone]
    return [made(call, dict(enumerate(rest)), "a diagonal")]


def _index_select(trace: Trace, node: Node) -> list[Typed]:
    call = Call(trace, node)
    x = call.tensor("self")
    return [indexing.gather(trace, x, call.tensor("index"), call.number("dim") % x.rank)]


def _embedding(trace: Trace, node: Node) -> list[Typed]:
    """``v c, ... -> ... c``: rows of a table; `padding_idx` matters in training only."""
    call = Call(trace, node)
    return [indexing.gather(trace, call.tensor("weight"), call.tensor("indices"), 0)]


def _index(trace: Trace, node: Node) -> list[Typed]:
    """NumPy's advanced indexing: the indexed axes stay, those of the positions come in their place (in front, where the
    indexed axes do not stand together)."""
    call = Call(trace, node)
    x, positions = call.tensor("self"), call.tensors("indices")
    given = [k for k, each in enumerate(positions) if each is not None]
    if any(each is not None and each.value.dtype in {"bool", "uint8"} for each in positions):
        return [_index_by_mask(call, x, positions)]
    lone = positions[given[0]] if len(given) == 1 else None
    if lone is not None:
        return [indexing.gather(trace, x, lone, given[0])]
    for k in given:
        trace.pin(x.axes[k], "GP207", indexing.INDEXED)
    new = trace.broadcast([each.axes for each in positions if each is not None])
    rest = [axis for k, axis in enumerate(x.axes) if k not in given]
    place = given[0] if given == list(range(given[0], given[-1] + 1)) else 0
    return [Typed([*rest[:place], *new, *rest[place:]])]


def _index_by_mask(call: Call, x: Operand, positions: list[Operand | None]) -> Typed:
    """Flags choose among the entries of the axes that they cover."""
    trace, at = call.trace, 0
    rest: dict[int, Axis] = {}
    given = [each for each in positions if each is not None]
    if len(given) != 1:
        raise ValueError("it is indexed by flags and positions together")
    for each in positions:
        if each is None:
            rest[at] = x.axes[at]
            at += 1
            continue
        for axis in each.axes:
            trace.pin(axis, "GP207", "it flags entries by position")
            trace.pin(x.axes[at], "GP207", "entries of it are flagged by position")
            at += 1
    covered = given[0].rank
    first = next(k for k, each in enumerate(positions) if each is not None)
    known = {k if k < first else k - covered + 1: x.axes[k] for k in range(x.rank) if not first <= k < first + covered}
    return made(call, known, "the entries that are flagged")


def _index_put(trace: Trace, node: Node) -> list[Typed]:
    call = Call(trace, node)
    x, values = call.tensor("self"), call.tensor("values")
    positions = call.tensors("indices")
    given = [k for k, each in enumerate(positions) if each is not None]
    flags = any(each is not None and each.value.dtype in {"bool", "uint8"} for each in positions)
    covered = sum(each.rank if flags and each is not None else 1 for each in positions)
    for k in range(covered) if flags else given:
        trace.pin(x.axes[k], "GP207", indexing.INDEXED)
    for axis in (axis for each in positions if each is not None for axis in each.axes):
        trace.pin(axis, "GP207", "its entries are positions")
    rest = [axis for k, axis in enumerate(x.axes) if k >= covered or (not flags and k not in given)]
    tied = min(len(rest), values.rank)
    together = given == list(range(given[0], given[-1] + 1)) if given else True
    if tied and (given and given[0] == 0 or not together):
        trace.broadcast([rest[-tied:], values.axes[-tied:]])
    else:
        for axis in (*rest, *values.axes):
            trace.pin(axis, "GP207", "values are written to it by position")
    for axis in values.axes[: values.rank - tied]:
        trace.pin(axis, "GP207", "values are written by position")
    return [same(x)]


def _elements(trace: Trace, node: Node) -> list[Typed]:
    call = Call(trace, node)
    x, index = call.tensor("self"), call.tensor("index" if "index" in call.given else "indices")
    updates = call.optional("src")
    if not x.rank:
        return [same(index if updates is None and "scatter" not in node.op else x)]
    found = indexing.elements(trace, x, index, call.number("dim"), updates)
    return [same(x) if "scatter" in node.op else found]


def _index_copy(trace: Trace, node: Node) -> list[Typed]:
    """Rows of one tensor written to, or added at, positions of another."""
    call = Call(trace, node)
    x, source, at = call.tensor("self"), call.optional("source"), call.number("dim")
    trace.pin(x.axes[at], "GP207", indexing.INDEXED)
    for axis in call.tensor("index").axes:
        trace.pin(axis, "GP207", "its entries are positions")
    if source is not None:
        trace.pin(source.axes[at], "GP207", indexing.INDEXED)
        for k in range(x.rank):
            if k != at % x.rank:
                trace.tie(x.axes[k], source.axes[k])
    return [same(x)]


def _slice_scatter(trace: Trace, node: Node) -> list[Typed]:
    call = Call(trace, node)
    x, source = call.tensor("self"), call.tensor("src")
    at = call.number("dim", 0) % x.rank
    trace.pin(x.axes[at], "GP207", "a part of it is written by position")
    lone = node.op.startswith("aten.select")
    axes = [*source.axes[:at], UNIT, *source.axes[at:]] if lone else list(source.axes)
    for k, (a, b) in enumerate(zip(x.axes, axes, strict=True)):
        if k != at:
            trace.tie(a, b)
        elif not lone:
            trace.pin(b, "GP207", "it is written by position")
    return [same(x)]


def _meshgrid(trace: Trace, node: Node) -> list[Typed]:
    call = Call(trace, node)
    operands = [x for x in call.tensors("tensors") if x is not None]
    axes = [x.axes[0] if x.rank else UNIT for x in operands]
    if call.given.get("indexing") == "xy" and len(axes) > 1:
        axes[0], axes[1] = axes[1], axes[0]
    return [Typed(list(axes)) for _ in node.outputs]


def _one_hot(trace: Trace, node: Node) -> list[Typed]:
    call = Call(trace, node)
    x = call.tensor("self")
    return [made(call, dict(enumerate(x.axes)), "one-hot positions")]


def _everything(reason: str) -> Operator:
    """An operator that works with positions in whole tensors: nothing moves, and what comes out is new."""

    def rule(trace: Trace, node: Node) -> list[Typed]:
        call = Call(trace, node)
        for operand in call.data():
            for axis in operand.axes:
                trace.whole(axis, reason)
        return [
            Typed([trace.fixed(size, reason) for size in call.shape(k)]) if hasattr(out.native[1], "shape") else Typed([])
            for k, out in enumerate(node.outputs)
        ]

    return Operator(rule, pinned=reason)


_VIEWS = "view reshape _unsafe_view view_copy"
_CREATED = "zeros ones full empty new_zeros new_ones new_full new_empty rand randn empty_strided new_empty_strided"
_POSITIONS = "arange linspace logspace eye scalar_tensor randint randperm tril_indices triu_indices hann_window hamming_window"
_CUMULATIVE = "cumsum cumprod cummax cummin logcumsumexp"
_WHOLE = {
    "it works with positions in the whole tensor": """nonzero nonzero_static masked_select take put bincount histc
        searchsorted bucketize unique_consecutive _unique2 unique_dim as_strided multinomial masked_scatter""",
    "frequencies mix all positions": """fft_fft fft_ifft fft_rfft fft_irfft fft_fft2 fft_ifft2 fft_rfft2 fft_irfft2
        fft_fftn fft_ifftn fft_rfftn fft_irfftn fft_hfft fft_fftshift fft_ifftshift stft istft fft_fftfreq fft_rfftfreq""",
    "it is a factorisation of the whole matrix": """linalg_inv linalg_inv_ex linalg_det linalg_svd linalg_qr linalg_eigh
        linalg_cholesky linalg_cholesky_ex linalg_solve linalg_solve_triangular linalg_matrix_exp linalg_pinv linalg_lstsq
        linalg_slogdet cholesky inverse logdet det linalg_matrix_power linalg_lu_factor _linalg_slogdet linalg_eig""",
    "it is a loss, and no part of inference": """cross_entropy_loss nll_loss nll_loss_nd nll_loss2d ctc_loss mse_loss
        l1_loss smooth_l1_loss huber_loss binary_cross_entropy binary_cross_entropy_with_logits kl_div cosine_embedding_loss
        margin_ranking_loss triplet_margin_loss multi_margin_loss hinge_embedding_loss poisson_nll_loss soft_margin_loss
        multilabel_margin_loss""",
}  # fmt: skip

STRUCTURE: dict[str, Operator] = {
    **{f"aten.{name}": Operator(_view, sizes=True) for name in _VIEWS.split()},
    **{f"aten.{name}": Operator(_view_as) for name in ("view_as", "reshape_as")},
    "aten.flatten": Operator(_flatten),
    "aten.ravel": Operator(_flatten),
    "aten.unflatten": Operator(_unflatten, sizes=True),
    "aten.squeeze": Operator(_squeeze),
    "aten.unsqueeze": Operator(_unsqueeze),
    "aten.permute": Operator(_permute),
    **{f"aten.{name}": Operator(_transpose) for name in ("transpose", "swapaxes", "swapdims")},
    **{f"aten.{name}": Operator(_reversed_axes) for name in ("t", "numpy_T", "mT", "mH", "adjoint", "matrix_H")},
    **{f"aten.{name}": Operator(_movedim) for name in ("movedim", "moveaxis")},
    **{f"aten.{name}": Operator(_expand, sizes=True) for name in ("expand", "broadcast_to", "expand_copy")},
    **{f"aten.{name}": Operator(_repeat, sizes=True) for name in ("repeat", "tile")},
    "aten.repeat_interleave": Operator(_interleave, sizes=True),
    **{f"aten.{name}": Operator(_filled, sizes=True) for name in _CREATED.split()},
    **{f"aten.{name}": Operator(_range, sizes=True) for name in _POSITIONS.split()},
    **{f"aten.{name}": Operator(_pixel_shuffle) for name in ("pixel_shuffle", "pixel_unshuffle")},
    **{f"aten.{name}": Operator(_channel_shuffle) for name in ("channel_shuffle", "native_channel_shuffle")},
    **{f"aten.{name}": Operator(_cat) for name in ("cat", "concat", "concatenate", "vstack", "hstack", "dstack")},
    "aten.stack": Operator(_stack),
    **{
        f"aten.{name}": Operator(_split, sizes=True)
        for name in ("split", "split_with_sizes", "chunk", "unsafe_split", "unsafe_chunk", "tensor_split",
                     "unsafe_split_with_sizes", "split_copy", "split_with_sizes_copy")
    },
    **{f"aten.{name}": Operator(_unbind) for name in ("unbind", "unbind_copy")},
    **{f"aten.{name}": Operator(_slice, sizes=True) for name in ("slice", "slice_copy")},
    "aten.narrow": Operator(_narrow, sizes=True),
    **{f"aten.{name}": Operator(_select, sizes=True) for name in ("select", "select_copy")},
    **{f"aten.{name}": Operator(_pad, sizes=True) for name in ("pad", "constant_pad_nd")},
    "aten.unfold": Operator(_unfold),
    "aten.im2col": Operator(_im2col),
    "aten.col2im": Operator(_col2im, sizes=True),
    "aten.roll": _along("its entries are rotated", "dims"),
    "aten.flip": _along("its entries are reversed", "dims"),
    "aten.rot90": _along("it is turned", "dims"),
    **{f"aten.{name}": _along("each entry depends on those before it", "dim") for name in _CUMULATIVE.split()},
    **{f"aten.{name}": _along("its entries are put in order", "dim") for name in ("sort", "argsort", "msort")},
    **{f"aten.{name}": Operator(_triangle, sizes=True) for name in ("tril", "triu")},
    **{f"aten.{name}": Operator(_diagonal) for name in ("diagonal", "linalg_diagonal", "diag")},
    "aten.index_select": Operator(_index_select),
    "aten.embedding": Operator(_embedding),
    "aten.index": Operator(_index),
    "aten._unsafe_index": Operator(_index),
    **{f"aten.{name}": Operator(_index_put) for name in ("index_put", "_unsafe_index_put")},
    **{
        f"aten.{name}": Operator(_elements)
        for name in ("gather", "scatter", "scatter_add", "scatter_reduce", "take_along_dim")
    },
    **{f"aten.{name}": Operator(_index_copy) for name in ("index_copy", "index_add", "index_fill", "index_reduce")},
    **{f"aten.{name}": Operator(_slice_scatter, sizes=True) for name in ("slice_scatter", "select_scatter")},
    "aten.meshgrid": Operator(_meshgrid),
    "aten.one_hot": Operator(_one_hot),
    **{f"aten.{name}": _everything(reason) for reason, names in _WHOLE.items() for name in names.split()},
}
