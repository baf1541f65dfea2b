"""Verification must pass what is right and fail what is wrong: each helper has a case in which it must fail."""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import numpy_helper, parser

from graphprune.analysis import Analysis, analyze_program
from graphprune.dialects.onnx.reader import read
from graphprune.dialects.onnx.tools import ONNX
from graphprune.dialects.onnx.writer import out_of_step, write
from graphprune.errors import GraphPruneError
from graphprune.plan import Plan
from graphprune.program import Array
from graphprune.verify import (
    Verification,
    _interface,
    _Session,
    difference,
    runnable_cases,
    tolerance,
    verify_models,
)
from tests.algebra import LAWS

MLP = """
<ir_version: 10, opset_import: ["" : 21]>
mlp ({kind}[N, 5] x) => ({kind}[N, 3] y) {{
  a = MatMul (x, first)
  b = Add (a, bias)
  c = Relu (b)
  d = MatMul (c, second)
  e = Relu (d)
  y = MatMul (e, third)
}}
"""
NORM = """
<ir_version: 10, opset_import: ["" : 21]>
normed (float[N, 5] x) => (float[N, 3] y) {
  a = MatMul (x, first)
  b = LayerNormalization (a, bias)
  y = MatMul (b, second)
}
"""
SOME_PLACES = """
<ir_version: 10, opset_import: ["" : 21]>
some_places (float[2, 3, 4, 4] x, bool[4] rows, bool[4] columns)
=> (float[2, 5, Height, Width] y)
<int64[3] grouped = {{0, 4, -1}}, int64[3] flat = {{0, 1, -1}}, int64[2] single = {{0, -1}}> {{
  some_rows = Compress <axis = 2> (x, rows)
  some = Compress <axis = 3> (some_rows, columns)
  a = Conv (some, enter)
  {body}
  y = Conv (b, leave)
}}
"""
# Over an axis that multiplies channels with how many places were chosen, which no size of an input tells.
CHANNELS_FIRST = """
  sizes = Shape (a)
  parts = Reshape (a, grouped)
  normed = InstanceNormalization (parts, factors, terms)
  b = Reshape (normed, sizes)
"""
PRODUCT = """
  parts = Reshape (a, single)
  turned = Transpose (parts)
  products = MatMul (parts, turned)
  mean = ReduceMean <keepdims = 0> (products)
  b = Mul (a, mean)
"""
TURNED = """
  turned = Transpose <perm = {there}> (a)
  sizes = Shape (turned)
  parts = Reshape (turned, flat)
  normed = LpNormalization <axis = 2> (parts)
  apart = Reshape (normed, sizes)
  b = Transpose <perm = {back}> (apart)
"""
CHANNELS_LAST = TURNED.format(there=[0, 2, 3, 1], back=[0, 3, 1, 2])
CHANNELS_AMID = TURNED.format(there=[0, 2, 1, 3], back=[0, 2, 1, 3])
SHAPES = {"first": (5, 8), "bias": (8,), "second": (8, 6), "third": (6, 3)}


def model(text: str = MLP, kind: str = "float", scale: float = 1.0, **shapes: tuple[int, ...]) -> ir.Model:
    """The network with seeded weights."""
    proto = parser.parse_model(text.format(kind=kind) if text is MLP else text)
    random = np.random.default_rng(0)
    dtype = {"float": np.float32, "float16": np.float16, "double": np.float64}[kind]
    for name, shape in {**SHAPES, **shapes}.items():
        if any(name in node.input for node in proto.graph.node):
            array = random.normal(scale=scale, size=shape).astype(dtype)
            proto.graph.initializer.append(numpy_helper.from_array(array, name))
    onnx.checker.check_model(proto)
    return ir.from_proto(proto)


def some_places(body: str) -> ir.Model:
    return model(SOME_PLACES.format(body=body), enter=(8, 3, 1, 1), leave=(5, 8, 1, 1), factors=(4,), terms=(4,))


def analysed(dense: ir.Model) -> Analysis:
    return analyze_program(read(dense))


def cut(dense: ir.Model) -> tuple[ir.Model, Plan]:
    """The first half of the entries of every group."""
    analysis = analysed(dense)
    keep = {group.dim: np.arange(group.size // 2) for group in analysis.groups}
    return write(analysis, keep), Plan.of(analysis, keep)


def changed(pruned: ir.Model, name: str, change: Callable[[np.ndarray], np.ndarray]) -> ir.Model:
    """The model with one tensor replaced."""
    copy = pruned.clone()
    value = copy.graph.initializers[name]
    assert value.const_value is not None
    value.const_value = ir.tensor(np.ascontiguousarray(change(value.const_value.numpy())), name=name)
    return copy


def failed(found: Verification) -> set[str]:
    assert not found.ok
    return {check.oracle for check in found.checks if not check.ok}


# ---------------------------------------------------------------- whole models


@pytest.mark.parametrize("kind", ["float", "float16", "double"])
def test_a_right_cut_passes(kind: str) -> None:
    dense = model(kind=kind)
    pruned, plan = cut(dense)
    found = verify_models(dense, pruned, plan)
    assert found.ok, str(found)
    assert [check.oracle for check in found.checks] == ["interface", "permutation", "control", "mask"]
    assert verify_models(dense, dense.clone(), Plan.empty(analysed(dense))).ok


def test_a_right_cut_of_a_statistic_is_held_against_a_slice() -> None:
    dense = model(NORM, second=(8, 3))
    pruned, plan = cut(dense)
    found = verify_models(dense, pruned, plan)
    assert found.ok and [check.oracle for check in found.checks][-1] == "slice", str(found)
    wrong = changed(pruned, "bias", lambda x: x[::-1])
    assert failed(verify_models(dense, wrong, plan)) == {"slice"}


@pytest.mark.parametrize(("body", "oracle"), [(CHANNELS_FIRST, "slice"), (CHANNELS_LAST, "slice"), (PRODUCT, "mask")])
def test_channels_times_a_size_that_only_the_run_knows_are_masked(body: str, oracle: str) -> None:
    dense = some_places(body)
    pruned, plan = cut(dense)
    found = verify_models(dense, pruned, plan)
    assert found.ok and [check.oracle for check in found.checks][-1] == oracle, str(found)
    wrong = changed(pruned, "leave", lambda x: x[:, ::-1])
    assert failed(verify_models(dense, wrong, plan)) == {oracle}


def test_channels_amid_sizes_that_only_the_run_knows_cannot_be_verified() -> None:
    dense = some_places(CHANNELS_AMID)
    with pytest.raises(GraphPruneError, match=r"GP402 entries are removed amid "):
        verify_models(dense, *cut(dense))


@pytest.mark.parametrize("kind", ["float", "float16", "double"])
@pytest.mark.parametrize("name", ["first", "second", "third", "bias"])
def test_two_channels_swapped_in_one_tensor_fail(kind: str, name: str) -> None:
    dense = model(kind=kind)
    pruned, plan = cut(dense)
    wrong = changed(pruned, name, lambda x: x[[1, 0, *range(2, len(x))]])
    assert failed(verify_models(dense, wrong, plan)) == {"mask"}


@pytest.mark.parametrize("name", ["first", "second"])
def test_the_wrong_survivors_fail(name: str) -> None:
    """A tensor of the right shape that holds the second half instead of the first."""
    dense = model()
    pruned, plan = cut(dense)
    whole = dense.graph.initializers[name].const_value
    assert whole is not None
    columns = whole.shape[1]
    wrong = changed(pruned, name, lambda x: whole.numpy()[: x.shape[0], columns // 2 :])
    assert failed(verify_models(dense, wrong, plan)) == {"mask"}


def test_a_plan_that_is_not_the_one_applied_fails() -> None:
    dense = model()
    pruned, _ = cut(dense)
    analysis = analysed(dense)
    other = Plan.of(analysis, {group.dim: np.arange(group.size)[-group.size // 2 :] for group in analysis.groups})
    assert failed(verify_models(dense, pruned, other)) == {"mask"}


def test_a_tensor_of_the_wrong_width_is_an_error() -> None:
    dense = model()
    pruned, plan = cut(dense)
    wrong = changed(pruned, "first", lambda x: x[:, :-1])
    with pytest.raises(GraphPruneError, match="GP402"):
        verify_models(dense, wrong, plan)
    with pytest.raises(GraphPruneError, match="GP402"):
        verify_models(dense, wrong)


RESHAPED = """
<ir_version: 10, opset_import: ["" : 21]>
reshaped (float[2, 5] x) => (float[2, 6] y)
<int64[3] shape = {2, 4, 2}, int64[2] flat = {2, -1}>
{
  a = MatMul (x, first)
  b = Reshape (a, shape)
  c = Softmax <axis = 2> (b)
  d = Reshape (c, flat)
  y = MatMul (d, second)
}
"""


def test_a_number_that_was_not_rewritten_right_fails() -> None:
    dense = model(RESHAPED)
    pruned, plan = cut(dense)
    assert verify_models(dense, pruned, plan).ok
    name = next(name for name, value in pruned.graph.initializers.items() if value.const_value.shape == (3,))
    assert pruned.graph.initializers[name].const_value.numpy().tolist() == [2, 2, 2]  # type: ignore[union-attr]
    wrong = changed(pruned, name, lambda x: np.array([2, 1, 4]))  # the same number of entries: it runs
    assert failed(verify_models(dense, wrong, plan)) & {"mask", "slice"}


def test_a_changed_interface_fails() -> None:
    dense = model()
    pruned, plan = cut(dense)

    def renamed(copy: ir.Model) -> None:
        copy.graph.outputs[0].name = "z"

    def reshaped(copy: ir.Model) -> None:
        copy.graph.outputs[0].shape = ir.Shape(["M", 3])

    def another_opset(copy: ir.Model) -> None:
        copy.graph.opset_imports[""] = 20

    def retyped(copy: ir.Model) -> None:
        copy.graph.inputs[0].type = ir.TensorType(ir.DataType.DOUBLE)

    for change in (renamed, reshaped, another_opset):
        wrong = pruned.clone()
        change(wrong)
        assert "interface" in failed(verify_models(dense, wrong, plan))
    wrong = pruned.clone()
    retyped(wrong)
    assert not _interface(dense, wrong).ok


def test_without_a_plan_the_pruned_model_itself_is_checked() -> None:
    dense = model()
    pruned, _ = cut(dense)
    found = verify_models(dense, pruned)
    assert found.ok and [check.oracle for check in found.checks] == ["interface", "permutation", "control"]


def test_the_exact_pass_is_held_against_the_dense_model() -> None:
    dense = model()
    pruned, plan = cut(dense)
    claimed = Plan(plan.groups, {"pass": "clean"}, plan.model, plan.versions)
    assert failed(verify_models(dense, pruned, claimed)) == {"same"}


def test_conditioning_is_measured_only_where_a_check_fails_without(monkeypatch: pytest.MonkeyPatch) -> None:
    dense = model()
    pruned, plan = cut(dense)
    jittered, measured = ONNX.jittered, []
    monkeypatch.setattr(ONNX, "jittered", lambda *given: measured.append(given) or jittered(*given))
    assert verify_models(dense, pruned, plan).ok
    assert not measured
    assert failed(verify_models(dense, changed(pruned, "bias", lambda x: x[::-1]), plan)) == {"mask"}
    assert measured


def test_no_checks_prove_nothing() -> None:
    assert not Verification().ok


# ---------------------------------------------------------------- the oracles


def session(dense: ir.Model) -> _Session:
    return _Session(analysed(dense), 0, {})


def test_a_coupling_that_was_missed_fails_the_permutation(monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer forgets one tensor: exactly what a rule that forgets a tie would do."""
    dense = model()

    def forgetful(analysis: Analysis, keep: dict[object, np.ndarray]) -> ir.Model:
        return next(out_of_step(analysis, keep))  # type: ignore[arg-type]

    monkeypatch.setattr("graphprune.dialects.onnx.writer.write", forgetful)
    assert "permutation" in {check.oracle for check in session(dense).permutation() if not check.ok}


def test_the_control_finds_a_tensor_out_of_step() -> None:
    found = [check for check in session(model()).permutation() if check.oracle == "control"]
    assert len(found) == 1 and found[0].ok and found[0].error > 0.01 and found[0].note == "must differ, and does"


def test_the_control_fails_where_the_tolerance_hides_a_real_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Session, "_sensitivity", lambda self, *given: [10.0])
    (control,) = [check for check in session(model()).permutation() if check.oracle == "control"]
    assert not control.ok and "cannot tell right from wrong" in control.note


def test_other_inputs_are_tried_where_those_are_ill_conditioned(monkeypatch: pytest.MonkeyPatch) -> None:
    dense = model()
    drawn = [np.concatenate([case["x"] for case in next(ONNX.cases(dense, seed, {}, 2))]) for seed in (0, 2)]
    for worst, place in (([10.0, 0.0], 1), ([10.0, 1.0, 9.0, 2.0], 1), ([0.01], 0)):
        left = iter(worst)
        monkeypatch.setattr(_Session, "_sensitivity", lambda self, *given, left=left: [next(left)])
        taken = np.concatenate([case["x"] for case in session(dense).cases])
        assert np.array_equal(taken, drawn[place]), worst
        assert next(left, None) is None, "it stops at the first that is conditioned well"


def test_the_control_says_where_no_output_depends_on_the_weights() -> None:
    dense = changed(model(), "third", np.zeros_like)
    (control,) = [check for check in session(dense).permutation() if check.oracle == "control"]
    assert control.ok and control.error == 0.0 and "proves little" in control.note


def test_dynamic_sizes_are_those_of_the_program_unless_they_are_given() -> None:
    analysis = analysed(model())
    analysis.program.sizes["N"] = 3
    for sizes, rows in (({}, 3), ({"N": 2}, 2)):
        assert {case["x"].shape for case in _Session(analysis, 0, sizes).cases} == {(rows, 5)}


class Picky:
    """Runs on numbers that it accepts, and returns them; on zero its output is empty."""

    def __init__(self, *accepted: int):
        self.accepted = accepted
        self.outputs = ["y"]
        self.asked: list[int] = []

    def __call__(self, case: int) -> list[Array]:
        self.asked.append(case)
        if case not in self.accepted:
            raise GraphPruneError("GP402", f"it cannot run on {case}")
        return [np.full(min(case, 1), case)]


def test_the_first_batch_that_runs_as_a_whole_is_taken_else_that_which_runs_most() -> None:
    batches = [[1, 2, 3], [4, 5, 6], [7, 8]]
    for accepted, taken, asked in (((1, 2, 3, 4), [1, 2, 3], 3), ((1, 4, 6), [4, 6], 8), ((1, 2, 7, 8), [1, 2], 8)):
        run = Picky(*accepted)
        cases, outputs = runnable_cases(iter(batches), run)
        assert (cases, len(run.asked)) == (taken, asked)
        assert [output.tolist() for (output,) in outputs] == [[case] for case in taken]


def test_inputs_that_no_batch_has_are_an_error() -> None:
    with pytest.raises(GraphPruneError, match="cannot run on 1"):  # the first failure
        runnable_cases(iter([[1], [2]]), Picky())
    with pytest.raises(GraphPruneError, match="outputs are empty"):
        runnable_cases(iter([[0], [0]]), Picky(0))


# ---------------------------------------------------------------- comparing numbers

FLOATS = arrays.arrays(
    st.sampled_from([np.float16, np.float32, np.float64]),
    arrays.array_shapes(min_dims=0, max_dims=2, max_side=4),
    elements=st.floats(-1000, 1000, width=16),
)


@LAWS
@given(FLOATS, st.data())
def test_one_entry_off_is_seen_at_its_size(x: np.ndarray, data: st.DataObject) -> None:
    assert difference(x, x.copy()) == 0.0
    y = x.astype(np.float64)
    place = tuple(data.draw(st.integers(0, size - 1)) for size in y.shape)
    y[place] += 7.0
    y = y.astype(x.dtype)
    expected = abs(float(y[place]) - float(x[place]))
    largest = float(np.abs(x).max())
    if largest:
        assert difference(x, y) == pytest.approx(expected / largest)
    else:
        assert difference(x, y) > 1e200


NAN, INF = np.nan, np.inf


@pytest.mark.parametrize(
    ("expected", "found"),
    [
        ([1.0, NAN], [1.0, 2.0]),
        ([1.0, 2.0], [1.0, NAN]),
        ([1.0, INF], [1.0, 2.0]),
        ([1.0, 2.0], [1.0, INF]),
        ([1.0, INF], [1.0, -INF]),
        ([1.0, INF], [1.0, NAN]),
        ([NAN, 1.0], [1.0, NAN]),
    ],
)
def test_what_is_not_a_number_must_be_the_same(expected: list[float], found: list[float]) -> None:
    assert difference(np.array(expected), np.array(found)) == INF


def test_equal_infinities_and_nans_do_not_count() -> None:
    x = np.array([NAN, INF, -INF, 2.0])
    assert difference(x, x.copy()) == 0.0
    assert difference(x, np.array([NAN, INF, -INF, 3.0])) == 0.5
    assert difference(x[:3], x[:3].copy()) == 0.0


def test_shapes_and_data_types_must_be_the_same() -> None:
    x = np.zeros((2, 1), np.float32)
    for other in (np.zeros((1, 2), np.float32), np.zeros(2, np.float32), np.zeros((2, 1), np.float64)):
        assert difference(x, other) == INF


def test_zeros_tolerate_nothing() -> None:
    assert difference(np.zeros(2), np.zeros(2)) == 0.0
    assert difference(np.zeros(2), np.array([0.0, 1e-30])) > 1e200
    assert difference(np.array([0.0, 1e-30]), np.zeros(2)) == 1.0


@pytest.mark.parametrize(
    ("expected", "found", "error"),
    [
        (np.array([1, 5]), np.array([1, 4]), 0.2),
        (np.array([True, False]), np.array([True, True]), 1.0),
        (np.array([250], np.uint8), np.array([0], np.uint8), 1.0),
        (np.array(["a", "b"]), np.array(["a", "c"]), INF),
        (np.array([1 + 2j]), np.array([1 - 2j]), 2.0),
        (np.array([1.0, 2.0], ml_dtypes.bfloat16), np.array([1.0, 3.0], ml_dtypes.bfloat16), 0.5),
        (np.array([1.0, 2.0], ml_dtypes.float8_e4m3fn), np.array([1.0, 3.0], ml_dtypes.float8_e4m3fn), 0.5),
    ],
)
def test_numbers_of_all_kinds_are_compared(expected: np.ndarray, found: np.ndarray, error: float) -> None:
    assert difference(expected, found) == error
    assert difference(expected, expected.copy()) == 0.0


def test_the_tolerance_follows_the_data_type_and_the_number_of_terms() -> None:
    analysis, longer = analysed(model()), analysed(model(first=(5, 800), bias=(800,), second=(800, 6)))
    double, single, half = (tolerance(analysis, np.dtype(kind)) for kind in (np.float64, np.float32, np.float16))
    terms = 1 + 5 + 8 + 6
    assert single == pytest.approx(8 * 2.0**-23 * terms**0.5)
    assert double == pytest.approx(8 * 2.0**-52 * terms**0.5)
    assert half == pytest.approx(8 * 2.0**-10)  # sums run in float32, and are rounded once
    assert tolerance(analysis, np.dtype(ml_dtypes.bfloat16)) == pytest.approx(8 * 2.0**-7)
    assert tolerance(longer, np.dtype(np.float32)) > 5 * single
    assert tolerance(analysis, np.dtype(np.int64)) == single


@pytest.mark.parametrize(("kind", "relative"), [("float", 1e-3), ("double", 1e-9), ("float16", 0.1)])
def test_an_error_above_the_tolerance_of_its_type_fails_and_one_below_passes(kind: str, relative: float) -> None:
    dense = model(kind=kind)
    pruned, plan = cut(dense)
    for factor, ok in ((1 + relative, False), (1.0, True)):
        other = changed(pruned, "third", lambda x, factor=factor: (x * factor).astype(x.dtype))  # type: ignore[misc]
        (check,) = [each for each in verify_models(dense, other, plan).checks if each.oracle == "mask"]
        assert check.ok == ok, check
