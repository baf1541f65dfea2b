"""Cuts by tensor name, against the tensors of the file that the same keep-set gives."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from graphprune.cuts import cuts_of
from graphprune.dialects.onnx.writer import write
from graphprune.errors import GraphPruneError
from graphprune.plan import make_plan
from tests.models import CASES
from tests.models.case import seeded
from tests.planning import analysed, case, group, two_layers

PRUNABLE = sorted(name for name in CASES if case(name).groups)


def test_the_cuts_by_hand() -> None:
    analysis = analysed(two_layers())
    keep = {group(analysis, "first:1").dim: np.array([0, 3]), group(analysis, "second:1").dim: np.arange(4)}
    found = cuts_of(analysis, keep)
    shown = {name: {place: kept.tolist() for place, kept in cut.items()} for name, cut in found.items()}
    assert shown == {"first": {1: [0, 3]}, "first.bias": {0: [0, 3]}, "second": {0: [0, 3]}}  # axis 1 loses nothing
    assert {kept.dtype for cut in found.values() for kept in cut.values()} == {np.dtype(np.int64)}
    assert cuts_of(analysis, {}) == {}


@pytest.mark.parametrize("name", PRUNABLE)
def test_cuts_make_the_tensors_of_the_file(name: str) -> None:
    analysis = case(name)
    keep = make_plan(analysis, ratio=0.4, criterion="random").keep(analysis)
    try:
        cuts = cuts_of(analysis, keep)
    except GraphPruneError:
        pytest.skip("a vector is shared by groups with different fates")
    written = {
        key: value.const_value.numpy()
        for key, value in write(analysis, keep).graph.initializers.items()
        if value.const_value is not None
    }
    weights = [stored for stored in analysis.program.stored if stored.name in written and "int" not in stored.dtype]
    assert weights
    for stored in weights:
        array = stored.read()
        for place, kept in cuts.get(stored.name, {}).items():
            array = np.take(array, kept, place)
        np.testing.assert_array_equal(array, written[stored.name])


SHARED = """
shared (float[batch, 3] x) => (float[batch, 2] y)
<float[3, 8] "first", float[8, 8] "second", float[8] "bias", float[8, 2] "third">
{
    a = Gemm(x, "first", "bias")
    b = Relu(a)
    c = Gemm(b, "second", "bias")
    d = Relu(c)
    y = MatMul(d, "third")
}"""


def test_readers_that_keep_different_entries_have_no_one_cut() -> None:
    analysis = analysed(seeded(SHARED))
    first, second = group(analysis, "first:1").dim, group(analysis, "second:1").dim
    assert first is not second
    agreed = cuts_of(analysis, {first: np.arange(5), second: np.arange(5)})
    assert agreed["bias"][0].tolist() == [0, 1, 2, 3, 4]
    for keep in ({first: np.arange(5)}, {first: np.arange(5), second: np.arange(1, 6)}):
        with pytest.raises(GraphPruneError, match="different entries") as error:
            cuts_of(analysis, keep)
        assert (error.value.code, error.value.where) == ("GP103", "bias")
        assert write(analysis, keep).graph.initializers  # the file gets copies


def test_the_comparison_with_the_file_can_fail() -> None:
    analysis = analysed(two_layers())
    keep = {group(analysis, "first:1").dim: np.array([0, 3])}
    tensor = write(analysis, keep).graph.initializers["first"].const_value
    assert isinstance(tensor, ir.TensorProtocol)
    other = cuts_of(analysis, {group(analysis, "first:1").dim: np.array([0, 4])})
    assert not np.array_equal(np.take(analysis.program.stored[0].read(), other["first"][1], 1), tensor.numpy())
