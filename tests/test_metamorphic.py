"""The transformations keep the function, and the product cuts the same weights however a model is written."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import numpy_helper

import graphprune as gp
from tests.execution import difference, feeds, run
from tests.generator import NAMED, network
from tests.metamorphic import TRANSFORMATIONS, names, rename, renaming, split_convolution
from tests.models import CASES
from tests.oracles import prune_and_check, tensors

SEEDS = range(25)
EVERY_TRANSFORMATION = pytest.mark.parametrize("name", TRANSFORMATIONS)
EVERY_CASE = pytest.mark.parametrize("case", CASES)

# One member of a group and what the group is like: where it stands, its size, kind and exactness.
Place = tuple[str, int, int, str, bool]


def check_same_function(model: onnx.ModelProto, transformed: onnx.ModelProto) -> None:
    onnx.checker.check_model(transformed, full_check=True)
    inputs = feeds(model, sizes=NAMED)
    assert difference(run(model, inputs), run(transformed, inputs)) < 1e-4


def couplings(model: onnx.ModelProto, names_before: dict[str, str] | None = None) -> set[frozenset[Place]]:
    """Groups as sets of members, with the names that tensors had before."""
    known = names_before or {}
    return {
        frozenset((known.get(m.tensor, m.tensor), m.axis, group.size, group.kind, group.exact) for m in group.members)
        for group in gp.analyze(onnx_ir.from_proto(model)).groups
    }


def pruned(model: onnx.ModelProto) -> onnx.ModelProto:
    """What magnitude pruning leaves."""
    ir_model = onnx_ir.from_proto(model)
    plan = gp.plan(ir_model, criterion="l2", ratio=0.4, allocate="uniform")
    return onnx_ir.to_proto(gp.apply(ir_model, plan))


def pruned_weights(model: onnx.ModelProto, names_before: dict[str, str] | None = None) -> dict[str, np.ndarray]:
    """What magnitude pruning leaves of every weight, by the name it had before."""
    known = names_before or {}
    return {known.get(name, name): numpy_helper.to_array(tensor) for name, tensor in tensors(pruned(model)).items()}


@EVERY_CASE
@EVERY_TRANSFORMATION
def test_transformations_of_hard_cases_keep_the_function(name: str, case: str) -> None:
    model = CASES[case].build()
    check_same_function(model, TRANSFORMATIONS[name](model, 0))


@pytest.mark.parametrize("seed", SEEDS)
@EVERY_TRANSFORMATION
def test_transformations_of_generated_networks_keep_the_function(name: str, seed: int) -> None:
    model = network(seed)
    check_same_function(model, TRANSFORMATIONS[name](model, seed))


@EVERY_TRANSFORMATION
def test_transformations_leave_their_argument_alone_and_change_most_models(name: str) -> None:
    changed = 0
    for seed in SEEDS:
        model = network(seed)
        before = model.SerializeToString()
        changed += TRANSFORMATIONS[name](model, seed).SerializeToString() != before
        assert model.SerializeToString() == before
    assert changed > len(SEEDS) / 4


@EVERY_CASE
@pytest.mark.parametrize("name", sorted(set(TRANSFORMATIONS) - {"split_convolution"}))
def test_the_same_weights_are_cut(name: str, case: str) -> None:
    model = CASES[case].build()
    transformed = TRANSFORMATIONS[name](model, 1)
    known = renaming(model, transformed) if name == "rename" else None
    assert couplings(transformed, known) == couplings(model)
    expected, found = pruned_weights(model), pruned_weights(transformed, known)
    assert expected.keys() <= found.keys()
    assert [n for n, array in expected.items() if not np.array_equal(array, found[n])] == []


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", ["insert_identities", "rename", "reorder", "convert_opset"])
def test_generated_networks_have_the_same_couplings(name: str, seed: int) -> None:
    # onnx's converter writes the shapes it infers into the model, so the model has them before, too.
    model = onnx.shape_inference.infer_shapes(network(seed))
    transformed = TRANSFORMATIONS[name](model, seed)
    known = renaming(model, transformed) if name == "rename" else None
    assert couplings(transformed, known) == couplings(model)


@EVERY_CASE
@pytest.mark.parametrize("name", ["insert_identities", "split_convolution", "convert_opset"])
def test_pruning_transformed_models_holds(name: str, case: str) -> None:
    checked = prune_and_check(TRANSFORMATIONS[name](CASES[case].build(), 2), ratio=0.5, seed=2)
    assert checked.problems == []


def in_old_form(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same with IR version 3, which lists initializers among the inputs."""
    old = onnx.ModelProto.FromString(model.SerializeToString())
    old.ir_version = 3
    for tensor in old.graph.initializer:
        old.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return old


@pytest.mark.parametrize("case", ["c2f_block", "squeeze_excite", "heads_through_reshape", "stacked_bidirectional_lstm"])
def test_initializers_that_are_listed_as_inputs_are_weights_all_the_same(case: str) -> None:
    model = CASES[case].build()
    old = in_old_form(model)
    assert couplings(old) == couplings(model)
    expected, found = pruned_weights(model), pruned_weights(old)
    assert [name for name, array in expected.items() if not np.array_equal(array, found[name])] == []
    small = pruned(old)
    assert small.ir_version == 3
    assert [value.name for value in small.graph.input] == [value.name for value in old.graph.input]
    shapes = {value.name: [size.dim_value for size in value.type.tensor_type.shape.dim] for value in small.graph.input}
    assert {name: shapes[name] for name in found} == {name: list(array.shape) for name, array in found.items()}
    assert prune_and_check(old, ratio=0.5, seed=0).problems == []


# Where onnxsim makes other weights of some, whose magnitudes are others then.
REWEIGHTED = {
    "heads_through_reshape": "queries, keys and values become one weight",
    "squeeze_excite_reshaped": "a scale for each channel goes into a convolution",
    "anchors_and_suppression": "a frozen normalisation goes into a convolution",
    "scale_from_head_width": "the scale is computed once and for all, which sets the width of queries free",
}


@EVERY_CASE
def test_simplifying_first_cuts_the_same_weights(case: str) -> None:
    onnxsim = pytest.importorskip("onnxsim")
    model = CASES[case].build()
    simplified, _ = onnxsim.simplify(model, skip_fuse_bn=True, certify=False)
    sizes, now = (sorted(next(iter(group))[2] for group in couplings(each)) for each in (model, simplified))
    assert sizes == now or case == "scale_from_head_width"
    if case in REWEIGHTED:
        return
    expected, found = pruned_weights(model), pruned_weights(simplified)
    assert [n for n in expected.keys() & found.keys() if not np.array_equal(expected[n], found[n])] == []
    assert len(expected.keys() & found.keys()) >= len(expected) - 2  # others have new names: their numbers show in
    inputs = feeds(model)  # the outputs
    assert difference(*(run(pruned(each), inputs) for each in (model, simplified))) < 1e-4


def test_the_comparison_of_simplified_models_can_fail() -> None:
    onnxsim = pytest.importorskip("onnxsim")
    for case in ("heads_through_reshape", "squeeze_excite_reshaped", "anchors_and_suppression"):
        model = CASES[case].build()
        simplified, _ = onnxsim.simplify(model, skip_fuse_bn=True, certify=False)
        inputs = feeds(model)
        assert difference(*(run(pruned(each), inputs) for each in (model, simplified))) > 1e-2


SPLIT = ["c2f_block", "cross_stage_partial", "dense_block", "squeeze_excite", "grouped_unequal", "flatten_by_shape"]


@pytest.mark.parametrize("case", SPLIT)
@pytest.mark.parametrize("seed", range(4))
def test_a_split_convolution_has_the_couplings_of_the_whole_in_two_parts(case: str, seed: int) -> None:
    model = CASES[case].build()
    transformed = split_convolution(model, seed)
    halves = {tensor.name for tensor in transformed.graph.initializer if "|" in tensor.name}
    whole = {name.partition("|")[0] for name in halves}
    known = {name: name.partition("|")[0] for name in halves}
    expected, found = couplings(model), couplings(transformed, known)
    assert halves
    assert {_outline(group) for group in expected} == {_outline(group) for group in found} | {
        _outline(group) for group in expected if _sizes_add_up(group, found, whole)
    }


def _outline(group: frozenset[Place]) -> frozenset[tuple[str, int]]:
    return frozenset((tensor, axis) for tensor, axis, *_ in group)


def _sizes_add_up(group: frozenset[Place], found: set[frozenset[Place]], whole: set[str]) -> bool:
    """Whether the group is of the split output axis, of which one half is too small (1) to be a group."""
    places = _outline(group)
    size = next(iter(group))[2]
    parts = [next(iter(other))[2] for other in found if _outline(other) == places]
    return any(tensor in whole and axis == 0 for tensor, axis in places) and sum(parts) in (size, size - 1)


def test_renaming_gives_new_names_to_everything_between_input_and_output() -> None:
    model = CASES["c2f_block"].build()
    assert names(model) & names(rename(model, 0)) == {"x", "y", ""}


def test_a_changed_weight_is_no_same_function() -> None:
    model = CASES["c2f_block"].build()
    other = CASES["c2f_block"].build()
    tensor = next(tensor for tensor in other.graph.initializer if tensor.name == "enter.weight")
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * 1.1, tensor.name))
    with pytest.raises(AssertionError):
        check_same_function(model, other)
