"""Contractions: onnxruntime agrees on every permutation and cut of what the rules leave free."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphprune.dims import leaves
from tests.rules.laws import Checked, Operation, check

_random = np.random.default_rng(0)


def draw(*shape: int) -> np.ndarray:
    return _random.normal(size=shape).astype(np.float32)


MATRICES: list[tuple[tuple[int, ...], tuple[int, ...], set[str]]] = [
    ((3, 4), (4, 5), {"x0:0", "x0:1", "x1:1"}),
    ((4,), (4, 5), {"x0:0", "x1:1"}),
    ((3, 4), (4,), {"x0:0", "x0:1"}),
    ((4,), (4,), {"x0:0"}),
    ((2, 3, 4), (2, 4, 5), {"x0:0", "x0:1", "x0:2", "x1:2"}),
    ((2, 3, 4), (4, 5), {"x0:0", "x0:1", "x0:2", "x1:1"}),
    ((3, 4), (2, 4, 5), {"x0:0", "x0:1", "x1:0", "x1:2"}),
    ((2, 1, 3, 4), (6, 4, 5), {"x0:0", "x0:2", "x0:3", "x1:0", "x1:2"}),
    ((1, 3, 4), (2, 4, 5), {"x0:1", "x0:2", "x1:0", "x1:2"}),
]


@pytest.mark.parametrize(("a", "b", "free"), MATRICES)
def test_matrix_products(a: tuple[int, ...], b: tuple[int, ...], free: set[str]) -> None:
    check(Operation("MatMul", [draw(*a), draw(*b)]), free)


@pytest.mark.parametrize("swap", [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("bias", [None, (5,), (1, 5), (3, 5), (3, 1), (1,), ()])
def test_products_with_a_bias(swap: tuple[int, int], bias: tuple[int, ...] | None) -> None:
    a = draw(4, 3) if swap[0] else draw(3, 4)
    b = draw(5, 4) if swap[1] else draw(4, 5)
    operands = [a, b, *([draw(*bias)] if bias is not None else [])]
    free = {"x0:0", "x0:1", f"x1:{0 if swap[1] else 1}"}
    check(Operation("Gemm", operands, alpha=0.5, beta=2.0, transA=swap[0], transB=swap[1]), free)


@pytest.mark.parametrize(
    ("equation", "shapes", "free"),
    [
        ("ij,jk->ik", [(3, 4), (4, 5)], {"x0:0", "x0:1", "x1:1"}),
        ("ij,jk", [(3, 4), (4, 5)], {"x0:0", "x0:1", "x1:1"}),
        ("bhqd,bhkd->bhqk", [(2, 3, 4, 5), (2, 3, 6, 5)], {"x0:0", "x0:1", "x0:2", "x0:3", "x1:2"}),
        ("...ij,...jk->...ik", [(2, 3, 4), (2, 4, 5)], {"x0:0", "x0:1", "x0:2", "x1:2"}),
        ("i,j->ij", [(3,), (4,)], {"x0:0", "x1:0"}),
        ("ij,ij->", [(3, 4), (3, 4)], {"x0:0", "x0:1"}),
        ("ij,j,jk->ik", [(3, 4), (4,), (4, 5)], {"x0:0", "x0:1", "x2:1"}),
        ("ij->ji", [(3, 4)], {"x0:0", "x0:1"}),
        ("b...d,de->b...e", [(2, 3, 4), (4, 5)], {"x0:0", "x0:1", "x0:2", "x1:1"}),
    ],
)
def test_einstein_sums(equation: str, shapes: list[tuple[int, ...]], free: set[str]) -> None:
    check(Operation("Einsum", [draw(*shape) for shape in shapes], equation=equation), free)


def test_a_sum_over_one_operand_alone_is_inexact() -> None:
    checked = check(Operation("Einsum", [draw(3, 4), draw(3, 5)], equation="ij,ik->ik"), {"x0:0", "x0:1", "x1:1"})
    summed = {leaf for leaf, place in checked.free().items() if place == "x0:1"}
    assert summed <= checked.analysis.inexact


def test_a_diagonal_stays() -> None:
    checked = Checked(Operation("Einsum", [draw(4, 4)], equation="ii->i"))
    assert checked.free() == {}


def kernels(rank: int) -> tuple[int, ...]:
    return (3,) * rank


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(
    ("inputs", "outputs", "groups", "free"),
    [
        (4, 6, 1, {"x0:0", "x0:1", "x1:0"}),
        (4, 6, 2, {"x0:0", "x0:1", "x1:0"}),
        (6, 6, 6, {"x0:0", "x0:1"}),
        (3, 6, 3, {"x0:0", "x0:1", "x1:0"}),
        (6, 3, 3, {"x0:0", "x0:1"}),
    ],
)
def test_convolutions(inputs: int, outputs: int, groups: int, free: set[str], rank: int, bias: bool) -> None:
    operands = [draw(2, inputs, *(5,) * rank), draw(outputs, inputs // groups, *kernels(rank))]
    operands += [draw(outputs)] if bias else []
    given: dict[str, Any] = {"group": groups} if groups > 1 else {}
    checked = check(Operation("Conv", operands, **given), free)
    dims = {1: 3, 2: 4, 6: 2, 3: 3}[groups]
    assert len(checked.free()) == dims  # the batch, the groups, and the channels in and out of a group


@pytest.mark.parametrize("groups", [1, 2])
def test_transposed_convolutions(groups: int) -> None:
    operands = [draw(2, 4, 5, 5), draw(4, 3, 3, 3), draw(3 * groups)]
    given: dict[str, Any] = {"group": groups} if groups > 1 else {}
    checked = check(Operation("ConvTranspose", operands, **given), {"x0:0", "x0:1", "x1:1"})
    assert len(checked.free()) == (3 if groups == 1 else 4)


def test_the_number_of_groups_is_rewritten() -> None:
    checked = Checked(Operation("Conv", [draw(1, 6, 5, 5), draw(6, 1, 3, 3)], group=6))
    ((slot, size),) = checked.analysis.bindings.items()
    (channels,) = leaves(checked.inputs["x1"][0])
    assert (slot.key, str(size)) == ("group", repr(channels))


@pytest.mark.parametrize("groups", [1, 2])
def test_what_a_convolution_declares(groups: int) -> None:
    given: dict[str, Any] = {"group": groups} if groups > 1 else {}
    checked = Checked(Operation("Conv", [draw(2, 4, 5, 5), draw(6, 4 // groups, 3, 3), draw(6)], **given))
    (contraction,) = checked.analysis.contractions

    def sizes(axes: tuple[Any, ...]) -> list[int]:
        return sorted(axis if isinstance(axis, int) else axis.size for axis in axes)

    assert sizes(contraction.reduced) == [4 // groups]
    assert sizes(contraction.out) == [6 // groups]
    assert sizes(contraction.stationary) == [groups]
    assert np.prod(sizes(contraction.macs)) == 2 * 6 * (4 // groups) * 9 * 9
    assert contraction.weight is not None and contraction.weight.index == 1
    assert contraction.bias is not None and contraction.bias.index == 2
    assert contraction.activation is not None and contraction.activation.index == 0
    assert [place for _, place, _ in contraction.masks] == [1]


@pytest.mark.parametrize(
    ("op", "operands", "given"),
    [
        ("MatMul", [draw(7, 4), draw(4, 5)], {}),
        ("Gemm", [draw(7, 4), draw(5, 4), draw(5)], {"transB": 1}),
        ("Einsum", [draw(7, 4), draw(4, 5)], {"equation": "ij,jk->ik"}),
    ],
)
def test_what_a_product_declares(op: str, operands: list[np.ndarray], given: dict[str, Any]) -> None:
    (contraction,) = Checked(Operation(op, operands, **given)).analysis.contractions
    assert [axis.size for axis in contraction.reduced] == [4]
    assert [axis.size for axis in contraction.out] == [5]
    assert [getattr(axis, "size", axis) for axis in contraction.stationary] == []
    assert np.prod([getattr(axis, "size", axis) for axis in contraction.macs]) == 7 * 4 * 5
    assert (contraction.bias is not None) == (op == "Gemm")
