"""Channels in another order: the search against brute force, the function that must stay, and what must not move."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphprune as gp
from graphprune.dialects import tools_of
from graphprune.errors import GraphPruneError
from graphprune.formats import parse
from graphprune.passes import PASSES
from graphprune.sparsity import stripes
from graphprune.sparsity.permute import Ordered, ordered
from graphprune.sparsity.stripes import Reader, best_order
from graphprune.verify import verify_order
from tests import execution
from tests.models import CASES
from tests.sparsity.networks import kinds, numbers


def kept(values: np.ndarray, size: int, quotas: np.ndarray) -> float:
    """What stripes keep of ``[rows, columns]``, row by row and stripe by stripe."""
    total = 0.0
    for row in values:
        for stripe, quota in enumerate(quotas):
            total += sum(sorted(row[stripe * size : (stripe + 1) * size])[::-1][:quota])
    return total


class Problem:
    """Columns that several matrices read, each with other columns before them, which stay, unless stripes are aligned;
    then all stripes keep a half, too."""

    def __init__(self, seed: int, count: int, size: int, readers: int, aligned: bool) -> None:
        rng = np.random.default_rng(seed)
        self.size, self.matrices, self.quotas, self.places = size, [], [], []
        for _ in range(readers):
            before = 0 if aligned else int(rng.integers(0, size))
            whole = -(-(before + count) // size)
            matrix = np.zeros((int(rng.integers(1, 4)), whole * size))
            matrix[:, : before + count] = rng.random((len(matrix), before + count)) ** 3
            self.matrices.append(matrix)
            self.quotas.append(np.full(whole, size // 2) if aligned else rng.integers(1, size + 1, whole))
            self.places.append(np.arange(before, before + count))

    def readers(self) -> list[Reader]:
        found = zip(self.matrices, self.quotas, self.places, strict=True)
        return [Reader(matrix.T.copy(), quotas, places) for matrix, quotas, places in found]

    def kept(self, order: np.ndarray) -> float:
        total = 0.0
        for matrix, quotas, places in zip(self.matrices, self.quotas, self.places, strict=True):
            moved = matrix.copy()
            moved[:, places] = matrix[:, places[order]]
            total += kept(moved, self.size, quotas)
        return total


problems = st.builds(
    Problem, st.integers(0, 10**6), st.integers(2, 9), st.integers(2, 4), st.integers(1, 3), st.booleans()
)


@settings(max_examples=60, deadline=None)
@given(problems)
def test_no_swap_keeps_more_than_the_order_that_is_found(problem: Problem) -> None:
    readers = problem.readers()
    count = len(problem.places[0])
    order = best_order(readers, count)
    assert sorted(order) == list(range(count))
    found = problem.kept(order)
    assert found >= problem.kept(np.arange(count)) * (1 - 1e-9)
    for a, b in itertools.combinations(range(count), 2):
        other = order.copy()
        other[[a, b]] = other[[b, a]]
        assert problem.kept(other) <= found * (1 + 1e-6) + 1e-9
    for reader, matrix in zip(readers, problem.matrices, strict=True):  # they are left in that order
        assert np.array_equal(reader.columns[reader.places], matrix.T[reader.places[order]])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3))
def test_two_stripes_of_two_are_ordered_as_brute_force_does(seed: int, readers: int) -> None:
    """There every division is one swap away, so that no optimum among swaps is another one."""
    problem = Problem(seed, 4, 2, readers, aligned=True)
    best = max(problem.kept(np.array(order)) for order in itertools.permutations(range(4)))
    assert problem.kept(best_order(problem.readers(), 4)) == pytest.approx(best)


def test_what_was_planted_is_found() -> None:
    """Columns of which all that counts stands in the same rows; apart, nothing is lost."""
    matrix = np.kron(np.eye(4), np.ones((3, 2)))  # eight columns, two of each kind: 1:2 keeps all of them apart
    reader = Reader(matrix.T.copy(), np.ones(4, int), np.arange(8))
    order = best_order([reader], 8)
    assert kept(matrix, 2, np.ones(4, int)) == matrix.sum() / 2
    assert kept(matrix[:, order], 2, np.ones(4, int)) == matrix.sum()


def test_windows_and_little_time_find_less_and_nothing_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    matrix, quotas = rng.random((6, 48)) ** 4, np.full(12, 2)

    def found() -> float:
        order = best_order([Reader(matrix.T.copy(), quotas, np.arange(48))], 48)
        assert sorted(order) == list(range(48))
        return kept(matrix[:, order], 4, quotas)

    dense, whole = kept(matrix, 4, quotas), found()
    monkeypatch.setattr(stripes, "_WINDOW", 16)
    parts = found()
    monkeypatch.setattr(stripes, "_WORK", 1)
    assert dense < found() < parts
    assert parts == pytest.approx(whole, rel=0.02)


# Networks


def importance(result: Any) -> float:
    """The squares that the masks keep, from the arrays of the result alone."""
    return sum(float(np.square(numbers(result.model, name), dtype=np.float64).sum()) for name in result.masks)


@pytest.mark.parametrize("text", ["2:4", "1:4", "4:8", "2:4/4", "balanced/8"])
def test_the_function_stays_and_more_is_kept(text: str) -> None:
    share = None if parse(text).sparsity else 0.75
    dense = kinds()
    order = ordered(gp.analyze(dense), format=text, sparsity=share)
    assert order.orders and order.after > order.before
    inputs = execution.feeds(ir.to_proto(dense))
    before, after = (execution.run(ir.to_proto(each), inputs) for each in (dense, order.model))
    assert execution.difference(before, after) < 1e-5
    assert not np.array_equal(numbers(order.model, "square"), numbers(dense, "square"))
    for name in ("plain", "grouped", "square", "head"):  # the same numbers at other places
        assert np.array_equal(np.sort(numbers(order.model, name), None), np.sort(numbers(dense, name), None))
    plain = gp.sparsify(dense, format=text, sparsity=share)
    moved = gp.sparsify(dense, format=text, sparsity=share, permute=True)
    assert moved.verification is not None and moved.verification.ok
    assert {"permutation", "control", "weights"} <= {each.oracle for each in moved.verification.checks}
    every = sum(float(np.square(numbers(dense, name), dtype=np.float64).sum()) for name in plain.masks)
    kept_share = [importance(each) / every for each in (plain, moved)]
    assert kept_share == pytest.approx([order.before, order.after], rel=1e-6)
    assert dict(moved.orders) == dict(order.orders)
    for name in moved.orders:
        assert sorted(moved.orders[name]) == list(range(len(moved.orders[name])))
    assert "permutation: " in str(moved.report)
    assert not plain.orders and "permutation" not in str(plain.report)


def test_the_same_again() -> None:
    once, again = (gp.sparsify(kinds(), format="2:4", permute=True) for _ in range(2))
    assert once.orders == again.orders
    assert ir.to_proto(once.model).SerializeToString() == ir.to_proto(again.model).SerializeToString()


def test_with_data_and_recoveries() -> None:
    data = np.random.default_rng(5).standard_normal((32, 3, 8, 8)).astype(np.float32)
    options: dict[str, Any] = {"format": "2:4", "criterion": "obs", "recover": "sparsegpt", "calibration": data}
    result = gp.sparsify(kinds(), **options, permute=True)
    assert result.verification is not None and result.verification.ok
    assert result.orders


def found_order(case: str) -> tuple[onnx.ModelProto, Ordered | None]:
    """A hard case, every layer of it with 1:2 as far as it fits; None where none does."""
    dense = CASES[case].build()
    try:
        return dense, ordered(gp.analyze(ir.from_proto(dense)), format="1:2", only=["*"])
    except GraphPruneError as error:
        assert error.code == "GP302"
        return dense, None


@pytest.mark.parametrize("case", sorted(CASES))
def test_what_is_bound_moves_as_it_may(case: str) -> None:
    """Heads and their widths, groups of queries, shuffles, gates, loops, tied weights: the outputs stay."""
    dense, order = found_order(case)
    if order is not None:
        assert bool(order.keep) == (order.after > order.before)
        inputs = execution.feeds(dense)
        expected = execution.run(dense, inputs)
        assert execution.difference(expected, execution.run(ir.to_proto(order.model), inputs)) < 1e-4


def test_most_of_them_move() -> None:
    moved = [order for case in CASES if (order := found_order(case)[1]) is not None and order.keep]
    assert len(moved) > len(CASES) / 2


def test_entries_that_stand_more_than_once_in_a_group_of_inputs_stay() -> None:
    """Heads of six in groups of four inputs: what is best for one depends on what stands in the next."""
    dense = ir.from_proto(CASES["heads_through_reshape"].build())
    order = ordered(gp.analyze(dense), format="2:4", only=["*"])
    assert set(order.left) == {"q.weight:1/0", "v.weight:1/1"}
    assert all("more than once in a group of 4 inputs" in reason for reason in order.left.values())
    assert any("in their order: " in note for note in order.notes)


def test_a_tensor_that_did_not_move_along_is_found() -> None:
    dense = gp.analyze(kinds())
    order = ordered(dense, format="2:4")
    assert verify_order(dense, order.model, order.keep).ok
    wrong = next(iter(tools_of(order.model).out_of_step(dense, order.keep, order.model)))
    verdicts = {check.oracle: check.ok for check in verify_order(dense, wrong, order.keep).checks}
    assert verdicts["interface"] and not verdicts["permutation"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"format": "8x1", "sparsity": 0.5}, "8x1 does not keep some of every few inputs"),
        ({"format": "2:4", "criterion": "random"}, "drawn for places"),
    ],
)
def test_where_no_order_is_better_it_is_said(options: dict[str, Any], words: str) -> None:
    with pytest.raises(GraphPruneError, match="GP107") as caught:
        gp.sparsify(kinds(), **options, permute=True)
    assert words in str(caught.value)


def test_the_pass_permutes() -> None:
    step = PASSES.load("sparsify")(format="2:4", permute=True)
    assert "permutation: " in str(step.apply(kinds()).report)
