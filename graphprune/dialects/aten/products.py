"""ATen operators that multiply tensors, or lay them out, in other ways than layers do."""

from __future__ import annotations

from collections.abc import Callable
from string import ascii_letters

from graphprune.dialects.aten.call import Call
from graphprune.dims import UNIT, Axis, Prod, find
from graphprune.program import Node
from graphprune.rules import linear
from graphprune.rules.operator import Operator
from graphprune.rules.trace import Operand, Trace, Typed, concatenated


def _einsum(equation: str) -> Operator:
    """The operands of an operator that is one equation."""

    def rule(trace: Trace, node: Node) -> list[Typed]:
        return [linear.einsum(trace, equation, Call(trace, node).data())]

    return Operator(rule)


def _added(equation: str) -> Operator:
    """``self`` broadcast to the product of the other two."""

    def rule(trace: Trace, node: Node) -> list[Typed]:
        bias, a, b = Call(trace, node).data()
        product = linear.einsum(trace, equation, [a, b])
        trace.broadcast([product.axes or [], bias.axes])
        return [product]

    return Operator(rule)


def _over(trace: Trace, a: Operand, b: Operand, over_a: list[int], over_b: list[int]) -> Typed:
    """Sums over axes of one operand and axes of another; the axes that are left, one operand's after the other's."""
    left, right = list(ascii_letters[: a.rank]), list(ascii_letters[26 : 26 + b.rank])
    for k, j in zip(over_a, over_b, strict=True):
        if a.axes[k].size != b.axes[j].size:
            raise ValueError("an axis of size 1 is summed against another")
        right[j] = left[k]
    out = [each for each in [*left, *right] if left.count(each) + right.count(each) == 1]
    return linear.einsum(trace, f"{''.join(left)},{''.join(right)}->{''.join(out)}", [a, b])


def _inner(trace: Trace, node: Node) -> list[Typed]:
    a, b = trace.need(0), trace.need(1)
    last = [-1] if a.rank and b.rank else []
    return [_over(trace, a, b, last, last)]


def _tensordot(trace: Trace, node: Node) -> list[Typed]:
    call = Call(trace, node)
    a, b = trace.need(0), trace.need(1)
    return [_over(trace, a, b, call.numbers("dims_self") or [], call.numbers("dims_other") or [])]


def _vecdot(trace: Trace, node: Node) -> list[Typed]:
    """A sum of products over one axis."""
    a, b = trace.need(0), trace.need(1)
    if Call(trace, node).number("dim", -1) not in {-1, max(a.rank, b.rank) - 1}:
        raise ValueError("it is not followed along other axes than the last")
    return [linear.einsum(trace, "...i,...i->...", [a, b])]


def _paired(join: Callable[[list[Axis]], Axis]) -> Operator:
    """Matrices and higher of which each axis is made of the axes of all."""

    def rule(trace: Trace, node: Node) -> list[Typed]:
        operands = Call(trace, node).data()
        rank = max(2 if "block_diag" in node.op else 0, *(x.rank for x in operands))
        filled = [[*[UNIT] * (rank - x.rank), *x.axes] for x in operands]
        return [Typed([join(list(axes)) for axes in zip(*filled, strict=True)])]

    return Operator(rule)


def _cross(trace: Trace, node: Node) -> list[Typed]:
    """``... 3, ... 3 -> ... 3``."""
    out = trace.broadcast([trace.need(0).axes, trace.need(1).axes])
    at = Call(trace, node).given.get("dim", -1 if "linalg" in node.op else None)
    if at is None:  # the first axis of size 3 there is
        at = [axis.size for axis in out].index(3)
    trace.structural(out[at], "the axes of space")
    return [Typed(out)]


PRODUCTS: dict[str, Operator] = {
    "aten.addr": _added("i,j->ij"),
    "aten.addbmm": _added("bij,bjk->ik"),
    "aten.vdot": _einsum("i,i->"),
    "aten.inner": Operator(_inner),
    "aten.tensordot": Operator(_tensordot),
    "aten.linalg_vecdot": Operator(_vecdot),
    "aten.kron": _paired(lambda axes: find(Prod(axes))),
    "aten.block_diag": _paired(concatenated),
    **{f"aten.{name}": Operator(_cross) for name in ("cross", "linalg_cross")},
}
