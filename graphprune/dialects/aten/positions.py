"""ATen operators that read, write and choose entries by their position."""

from __future__ import annotations

from graphprune.dialects.aten.call import Call, same
from graphprune.dialects.aten.structure import made
from graphprune.dims import UNIT, Axis
from graphprune.program import Node
from graphprune.rules import indexing
from graphprune.rules.operator import Operator
from graphprune.rules.trace import Operand, Trace, Typed


def _along(reason: str, name: str, default: list[int] | None = None) -> Operator:
    """An operator that needs the axes named by an argument whole (all, where there is no default), and returns the same
    axes."""

    def rule(trace: Trace, node: Node) -> list[Typed]:
        call = Call(trace, node)
        x = trace.need(0)
        axes = call.numbers(name) or default or range(x.rank)
        for k in axes if x.rank else ():
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
    x = trace.need(0)
    first, second = (-2, -1) if "linalg" in node.op else (0, 1)
    gone = {call.number("dim1", first) % x.rank, call.number("dim2", second) % x.rank}
    for k in gone:
        trace.whole(x.axes[k], "a diagonal is taken")
    rest = [axis for k, axis in enumerate(x.axes) if k not in gone]
    return [made(call, dict(enumerate(rest)), "a diagonal")]


def _diagonal_matrices(trace: Trace, node: Node) -> list[Typed]:
    """``... n -> ... m m``: the last axis becomes a diagonal of two axes, wherever they stand."""
    call = Call(trace, node)
    x = trace.need(0)
    trace.whole(x.axes[-1], "it becomes a diagonal")
    new = {call.number("dim1", -2) % (x.rank + 1), call.number("dim2", -1) % (x.rank + 1)}
    rest = [k for k in range(x.rank + 1) if k not in new]
    return [made(call, dict(zip(rest, x.axes, strict=False)), "a diagonal")]


def _frequencies(trace: Trace, node: Node) -> list[Typed]:
    """Fourier transforms along some axes: each frequency is made of all positions."""
    call = Call(trace, node)
    x, sizes = trace.need(0), call.numbers("s")
    last = -len(sizes) if sizes else -2 if "fft2" in node.op else -x.rank if "fftn" in node.op else -1
    along = {k % x.rank for k in call.numbers("dim") or range(last, 0)}
    for k in along:
        trace.whole(x.axes[k], "frequencies mix all positions")
    return [made(call, {k: axis for k, axis in enumerate(x.axes) if k not in along}, "frequencies")]


def _index_select(trace: Trace, node: Node) -> list[Typed]:
    call = Call(trace, node)
    x = call.tensor("self")
    return [indexing.gather(trace, x, call.tensor("index"), call.number("dim") % x.rank)]


def _embedding(trace: Trace, node: Node) -> list[Typed]:
    """``v c, ... -> ... c``: rows of a table; `padding_idx` matters in training only."""
    call = Call(trace, node)
    return [indexing.gather(trace, call.tensor("weight"), call.tensor("indices"), 0)]


def _embedding_bag(trace: Trace, node: Node) -> list[Typed]:
    """``v c, positions -> bags c``: rows of a table, added up, averaged or the largest of each column. The other
    outputs are of use in training only."""
    call = Call(trace, node)
    table = call.tensor("weight")
    for name in ("indices", "offsets", "per_sample_weights"):
        given = call.optional(name)
        for axis in given.axes if given is not None else []:
            trace.whole(axis, "it says which rows are in which bag")
    indexing.gather(trace, table, call.tensor("indices"), 0)
    columns = [made(call, {1: table.axes[1]}, "bags")]
    for output in range(1, len(node.outputs)):
        sizes = call.shape(output)
        known = table.axes[1:] if len(sizes) == 2 else []  # where the largest are, column by column
        columns.append(Typed([*(trace.fixed(size, "bags") for size in sizes[: len(sizes) - len(known)]), *known]))
    return columns


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
    if tied and ((given and given[0] == 0) or not together):
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


def _difference(trace: Trace, node: Node) -> list[Typed]:
    """Differences of neighbours along one axis, with entries put before and after it first."""
    call = Call(trace, node)
    x = call.tensor("self")
    at = call.number("dim", -1) % x.rank
    parts = [each for each in (x, call.optional("prepend"), call.optional("append")) if each is not None]
    for each in parts:
        trace.whole(each.axes[at], "differences of its neighbours are taken")
    rest = trace.broadcast([[UNIT if k == at else axis for k, axis in enumerate(each.axes)] for each in parts])
    return [made(call, {k: axis for k, axis in enumerate(rest) if k != at}, "differences of neighbours")]


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
    for axis in x.axes if call.given.get("num_classes", -1) == -1 else []:
        trace.whole(axis, "the largest of its entries says how many classes there are")
    return [made(call, dict(enumerate(x.axes)), "one-hot positions")]


def _everything(reason: str) -> Operator:
    """An operator that works with positions in whole tensors: nothing moves, and what comes out is new."""

    def rule(trace: Trace, node: Node) -> list[Typed]:
        call = Call(trace, node)
        for operand in call.data():
            for axis in operand.axes:
                trace.whole(axis, reason)
        return [
            Typed([trace.fixed(size, reason) for size in call.shape(k)])
            if hasattr(out.native[1], "shape")
            else Typed([])
            for k, out in enumerate(node.outputs)
        ]

    return Operator(rule, pinned=reason)


_CUMULATIVE = "cumsum cumprod cummax cummin logcumsumexp"
_TRANSFORMS = "fft ifft rfft irfft fft2 ifft2 rfft2 irfft2 fftn ifftn rfftn irfftn hfft ihfft"
_WHOLE = {
    "it works with positions in the whole tensor": """nonzero nonzero_static masked_select take put bincount histc
        searchsorted bucketize isin histogram diagflat trace cov corrcoef cartesian_prod combinations
        unique_consecutive _unique2 unique_dim as_strided multinomial masked_scatter""",
    "frequencies mix all positions": "stft istft fft_fftfreq fft_rfftfreq",
    "it is a factorisation of the whole matrix": """linalg_inv linalg_inv_ex linalg_det linalg_svd linalg_qr
        linalg_eigh linalg_cholesky linalg_cholesky_ex linalg_solve linalg_solve_triangular linalg_matrix_exp
        linalg_pinv linalg_lstsq linalg_slogdet cholesky inverse logdet det linalg_matrix_power linalg_lu_factor
        _linalg_slogdet linalg_eig linalg_eigvals linalg_eigvalsh linalg_svdvals linalg_cond linalg_matrix_rank
        linalg_lu matrix_exp matrix_power svd qr slogdet pinverse cholesky_solve cholesky_inverse triangular_solve""",
    "it is a loss, and no part of inference": """cross_entropy_loss nll_loss nll_loss_nd nll_loss2d ctc_loss mse_loss
        l1_loss smooth_l1_loss huber_loss binary_cross_entropy binary_cross_entropy_with_logits kl_div
        cosine_embedding_loss margin_ranking_loss triplet_margin_loss multi_margin_loss hinge_embedding_loss
        poisson_nll_loss soft_margin_loss multilabel_margin_loss""",
}  # fmt: skip

POSITIONS: dict[str, Operator] = {
    "aten.roll": _along("its entries are rotated", "dims"),
    "aten.flip": _along("its entries are reversed", "dims"),
    "aten.fliplr": _along("its entries are reversed", "", [1]),
    "aten.flipud": _along("its entries are reversed", "", [0]),
    "aten.rot90": _along("it is turned", "dims"),
    **{f"aten.{name}": _along("each entry depends on those before it", "dim") for name in _CUMULATIVE.split()},
    **{f"aten.{name}": _along("its entries are put in order", "dim", [-1]) for name in ("sort", "argsort")},
    "aten.msort": _along("its entries are put in order", "dim", [0]),
    **{f"aten.{name}": Operator(_triangle, sizes=True) for name in ("tril", "triu")},
    **{f"aten.{name}": Operator(_diagonal) for name in ("diagonal", "linalg_diagonal", "diag")},
    "aten.diag_embed": Operator(_diagonal_matrices),
    "aten.index_select": Operator(_index_select, sizes=True),
    "aten.embedding": Operator(_embedding),
    **{f"aten.{name}": Operator(_embedding_bag) for name in ("embedding_bag", "_embedding_bag_forward_only")},
    **{f"aten.{name}": Operator(_index, sizes=True) for name in ("index", "_unsafe_index")},
    **{f"aten.{name}": Operator(_index_put) for name in ("index_put", "_unsafe_index_put")},
    **{
        f"aten.{name}": Operator(_elements)
        for name in ("gather", "scatter", "scatter_add", "scatter_reduce", "take_along_dim")
    },
    **{f"aten.{name}": Operator(_index_copy) for name in ("index_copy", "index_add", "index_fill", "index_reduce")},
    **{f"aten.{name}": Operator(_slice_scatter, sizes=True) for name in ("slice_scatter", "select_scatter")},
    **{f"aten.fft_{name}": Operator(_frequencies) for name in _TRANSFORMS.split()},
    **{f"aten.{name}": _along("its entries are rotated", "dim") for name in ("fft_fftshift", "fft_ifftshift")},
    "aten.diff": Operator(_difference),
    "aten.meshgrid": Operator(_meshgrid),
    "aten.one_hot": Operator(_one_hot),
    **{f"torchvision::{name}": _everything("boxes are chosen by position") for name in ("nms", "qnms")},
    **{f"aten.{name}": _everything(reason) for reason, names in _WHOLE.items() for name in names.split()},
}
