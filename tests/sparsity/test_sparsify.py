"""Choosing zeros: which layers, how many where, which weights; and the checks of the result, each made to fail."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import parser

import graphprune as gp
from graphprune.dialects import tools_of
from graphprune.dialects.onnx.tools import ONNX
from graphprune.errors import GraphPruneError
from graphprune.formats import parse
from graphprune.passes import PASSES
from graphprune.pipeline import Pipeline
from graphprune.sparsity.check import differing, verify_sparse
from graphprune.sparsity.choose import LayerMask, choose
from graphprune.sparsity.importance import single_weights
from graphprune.sparsity.run import Sparsified
from graphprune.sparsity.zeros import zeros_of
from tests.sparsity.networks import kinds, numbers


def sparse(model: ir.Model, **options: Any) -> Sparsified:
    found: Sparsified = gp.sparsify(model, **options)
    return found


def codes(result: Sparsified) -> dict[str, str]:
    return {each.name: each.code for each in result.choice.left}


def test_layers_are_sparse_or_left_with_a_reason() -> None:
    result = sparse(kinds(), format="8x1", sparsity=0.75)
    assert sorted(result.masks) == ["gemm", "grouped", "other", "plain", "square"]
    assert codes(result) == {"first": "GP802", "deep": "GP802", "head": "GP802", "up": "GP803"}
    text = str(result.report)
    for words in ("GP802 first: it reads the input", "GP802 deep: it is depthwise", "GP803 up: ConvTranspose up"):
        assert words in text
    assert result.verification is not None and result.verification.ok


def test_weights_with_two_readers_are_left_dense() -> None:
    assert codes(sparse(kinds(shared=True), format="8x1", sparsity=0.5))["square"] == "GP803"


def test_what_does_not_fit_is_left_dense() -> None:
    left = codes(sparse(kinds(), format="16x16", sparsity=0.5))
    assert left["grouped"] == "GP801"  # eight outputs and inputs for each group
    assert "plain" not in left
    left = codes(sparse(kinds(), format="pattern:4/8", sparsity=0.6))
    assert {name for name, code in left.items() if code == "GP801"} == {"gemm", "square", "other"}


def test_what_is_named_is_sparse_all_the_same() -> None:
    result = sparse(kinds(), format="unstructured", sparsity=0.5, only=["head", "first", "deep"])
    assert set(result.masks) == {"head", "first", "deep"}
    assert set(codes(result).values()) == {"GP211"}
    result = sparse(kinds(), format="unstructured", sparsity=0.5, ignore=["pl*", "square"])
    assert codes(result)["plain"] == codes(result)["square"] == "GP211"


def test_a_layer_that_cannot_is_left_also_when_named() -> None:
    with pytest.raises(GraphPruneError, match="GP302") as caught:
        sparse(kinds(), format="64x1", sparsity=0.5, only=["plain"])
    assert "plain: GP801 16 outputs" in caught.value.where


def test_a_network_without_layers_is_told_so() -> None:
    text = '<ir_version: 10, opset_import: ["" : 21]> bare (float[1, 4] x) => (float[1, 4] y) { y = Relu (x) }'
    with pytest.raises(GraphPruneError, match="GP302") as caught:
        sparse(ir.serde.deserialize_model(parser.parse_model(text)), format="2:4")
    assert caught.value.where == "no operator that is known multiplies by stored weights"


@pytest.mark.parametrize("text", ["8x1", "1x8", "2:4", "1:4/4", "balanced/8", "tile/8", "unstructured", "pattern:2/4"])
def test_zeros_are_where_the_format_has_them(text: str) -> None:
    """Weights are taken from the written model as plain arrays, in the axes of ONNX, and arranged here by hand."""
    share = None if parse(text).sparsity else 0.75
    model = kinds()
    made = sparse(model, format=text, sparsity=share)
    matrices = {
        "plain": lambda w: w.reshape(16, 16, 9).transpose(0, 2, 1)[None],
        "grouped": lambda w: w.reshape(2, 8, 8, 9).transpose(0, 1, 3, 2),
        "gemm": lambda w: w[None, :, None, :],
        "square": lambda w: w.T[None, :, None, :],
    }
    checked = 0
    for name, arranged in matrices.items():
        if name not in made.masks:
            continue
        dense, zeroed = (arranged(numbers(each, name)) for each in (model, made.model))
        for a, b in zip(dense, zeroed, strict=True):
            expected = parse(text).project(np.square(a, dtype=np.float64), share)
            assert np.array_equal(np.where(expected, a, 0), b)
            checked += 1
    assert checked >= 2


def test_the_model_that_goes_in_stays_as_it_is() -> None:
    model = kinds()
    before = numbers(model, "plain").copy()
    sparse(model, format="8x1", sparsity=0.9)
    assert np.array_equal(numbers(model, "plain"), before)


def test_global_allocation_takes_from_where_it_matters_least() -> None:
    model = kinds()
    weak = model.graph.initializers["square"]
    weak.const_value = ir.tensor(numbers(model, "square") * 1e-3, name="square")
    result = sparse(model, format="8x1", sparsity=0.5, allocate="global")
    by_name = {each.name: each.sparsity for each in result.report.layers}
    assert by_name["square"] > 0.95
    assert min(by_name.values()) < 0.4
    weights = sum(int(np.prod(each.shape)) for each in result.report.layers)
    assert sum(each.nonzeros for each in result.report.layers) == pytest.approx(weights / 2, rel=0.02)


def test_global_allocation_is_the_threshold_over_all_weights() -> None:
    model = kinds()
    result = sparse(model, format="unstructured", sparsity=0.8, allocate="global")
    every = np.concatenate([np.abs(numbers(model, name)).reshape(-1) for name in result.masks])
    threshold = np.sort(every)[int(0.8 * len(every))]
    for name, mask in result.masks.items():
        assert np.mean(mask == (np.abs(numbers(model, name)) >= threshold)) > 0.999


def test_existing_zeros_stay_zero() -> None:
    model = kinds()
    once = sparse(model, format="unstructured", sparsity=0.5).model
    twice = sparse(once, format="unstructured", sparsity=0.8).model
    for name in ("plain", "gemm"):
        assert not np.any(numbers(twice, name)[numbers(once, name) == 0])
    assert np.mean(numbers(twice, "plain") == 0) == pytest.approx(0.8, abs=1e-3)


def test_wanda_is_the_formula() -> None:
    model = kinds()
    data = np.random.default_rng(5).standard_normal((8, 3, 8, 8)).astype(np.float32)
    result = sparse(model, format="unstructured", sparsity=0.5, criterion="wanda", calibration=data, only=["first"])
    padded = np.pad(data, [(0, 0), (0, 0), (1, 1), (1, 1)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))  # [n, c, y, x, 3, 3]
    norm = np.sqrt(np.square(windows.astype(np.float64)).mean(axis=(0, 2, 3)))
    saliency = np.abs(numbers(model, "first")) * norm
    kept = saliency >= np.sort(saliency, axis=None)[saliency.size // 2]
    assert np.array_equal(result.masks["first"], kept)


def test_wanda_does_not_see_a_rescaling_and_magnitude_does() -> None:
    """Inputs times c and their weights over c are the same layer (Sun et al., ICLR 2024)."""
    data = np.random.default_rng(5).standard_normal((8, 3, 8, 8)).astype(np.float32)
    scale = np.array([1.0, 16.0, 0.25], np.float32)
    other = kinds()
    scaled = numbers(other, "first") / scale[None, :, None, None]
    other.graph.initializers["first"].const_value = ir.tensor(scaled, name="first")
    same = {"format": "unstructured", "sparsity": 0.5, "only": ["first"], "verify": False}
    a = sparse(kinds(), **same, criterion="wanda", calibration=data).masks["first"]
    b = sparse(other, **same, criterion="wanda", calibration=data * scale[None, :, None, None]).masks["first"]
    assert np.array_equal(a, b)
    assert not np.array_equal(sparse(kinds(), **same).masks["first"], sparse(other, **same).masks["first"])


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ({"format": "8x2y"}, "GP106", "is not a sparsity format"),
        ({"format": "8x1"}, "GP107", "does not say how many"),
        ({"format": "2:4", "sparsity": 0.9}, "GP107", "2:4 removes 50.0%"),
        ({"format": "2:4", "allocate": "global"}, "GP107", "the same sparsity in every layer"),
        ({"format": "8x1", "sparsity": 0.5, "allocate": "globle"}, "GP106", "allocated by 'globle'"),
        ({"format": "8x1", "sparsity": 0.5, "criterion": "chip"}, "GP704", "nothing about single weights"),
        ({"format": "8x1", "sparsity": 0.5, "criterion": "wanda"}, "GP704", "needs calibration data"),
        ({"format": "8x1", "sparsity": 0.5, "criterion": "taylor"}, "GP704", "gradients"),
        ({"format": "8x1", "sparsity": 0.5, "criterion": "l3"}, "GP106", "l3"),
        ({"format": "8x1", "sparsity": 0.5, "only": ["plane"]}, "GP106", "matches 'plane'"),
        ({"format": "8x1", "sparsity": 0.5, "mask": True}, "GP106", "no option 'mask'"),
    ],
)
def test_mistakes_are_told(options: dict[str, Any], code: str, words: str) -> None:
    with pytest.raises(GraphPruneError) as caught:
        sparse(kinds(), **options)
    assert caught.value.code == code
    assert words in str(caught.value)


def test_criteria_of_single_weights() -> None:
    assert {"l1", "l2", "random", "wanda", "taylor", "snip"} <= set(single_weights())
    assert not {"chip", "fpgm"} & set(single_weights())


def test_zeros_by_chance_follow_the_seed_alone() -> None:
    """The control of every table: no weight is looked at."""
    model, other = kinds(), kinds()
    for value in other.graph.initializers.values():
        if value.const_value is not None and len(value.const_value.shape) > 1:
            value.const_value = ir.tensor(value.const_value.numpy() * -2 + 1, name=value.name)
    options = {"format": "unstructured", "sparsity": 0.5, "criterion": "random", "verify": False}
    once, again, another = (sparse(each, **options, seed=seed) for each, seed in ((model, 3), (other, 3), (model, 4)))
    assert all(np.array_equal(once.masks[name], again.masks[name]) for name in once.masks)
    assert all(np.mean(once.masks[name] == another.masks[name]) < 0.7 for name in once.masks)
    assert all(np.mean(mask) == pytest.approx(0.5, abs=0.01) for mask in once.masks.values())


def test_weights_that_are_not_finite_are_left() -> None:
    model = kinds()
    broken = numbers(model, "plain").copy()
    broken[0, 0, 0, 0] = np.nan
    model.graph.initializers["plain"].const_value = ir.tensor(broken, name="plain")
    assert codes(sparse(model, format="8x1", sparsity=0.5, verify=False))["plain"] == "GP803"


# The pass


def test_a_pipeline_of_channels_and_zeros() -> None:
    pipeline = Pipeline.from_text('width{ratio=0.5,align=8},sparsify{format="8x1",sparsity=0.5}', PASSES)
    result = pipeline.apply(kinds())
    assert [step.modified for step in result.report] == [True, True]
    assert numbers(result.model, "gemm").shape[0] < 32
    found = {each.name: each for each in zeros_of(gp.analyze(result.model))}
    assert "8x1" in [str(each.format) for each in found["square"].formats]


def test_a_pass_that_finds_all_zeros_there_changes_nothing() -> None:
    step = PASSES.load("sparsify")(format="8x1", sparsity=0.5)
    model = step.apply(kinds()).model
    again = step.apply(model)
    assert not again.modified and again.model is model
    with pytest.raises(GraphPruneError, match="GP106"):
        PASSES.load("sparsify")(format="8-1")


# The checks


def checked(change: Any, masks: Any = None) -> dict[str, bool]:
    """What the checks say of a sparse model that was changed; the first verdict of each kind that is not well."""
    dense = gp.analyze(kinds())
    choice = choose(dense, "8x1", 0.5)
    result = sparse(kinds(), format="8x1", sparsity=0.5)
    model = change(result.model)
    found = verify_sparse(dense, model, masks(choice.layers) if masks else choice.layers)
    verdicts: dict[str, bool] = {}
    for check in found.checks:
        verdicts[check.oracle] = verdicts.get(check.oracle, True) and check.ok
    return verdicts


def with_numbers(model: ir.Model, name: str, array: np.ndarray) -> ir.Model:
    analysis = gp.analyze(model)
    found: ir.Model = tools_of(model).with_stored(analysis.program, {name: array})
    return found


def test_a_right_model_passes() -> None:
    verdicts = checked(lambda model: model)
    assert verdicts == dict.fromkeys(("interface", "weights", "format", "output", "control"), True)


def test_a_right_model_passes_where_rounding_is_all_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Saturated outputs, such as one pixel of 1.2e-6 among zeros, differ by 5 % between two orders of the same sums:
    both models are run in the same way."""
    runner = ONNX.runner

    def other_order(model: ir.Model) -> Any:
        made = runner(model)
        run = made.run_feeds
        made.run_feeds = lambda feeds: [each * np.float32(1.05) for each in run(feeds)]
        return made

    monkeypatch.setattr(ONNX, "runner", other_order)
    assert checked(lambda model: model)["output"]


def test_one_weight_that_came_back_is_found() -> None:
    def change(model: ir.Model) -> ir.Model:
        array = numbers(model, "plain").copy()
        array[np.unravel_index(np.flatnonzero(array == 0)[0], array.shape)] = 5
        return with_numbers(model, "plain", array)

    verdicts = checked(change)
    assert not verdicts["weights"] and not verdicts["format"] and not verdicts["output"]


def test_one_weight_too_many_that_went_is_found() -> None:
    def change(model: ir.Model) -> ir.Model:
        array = numbers(model, "plain").copy()
        array[np.unravel_index(np.abs(array).argmax(), array.shape)] = 0
        return with_numbers(model, "plain", array)

    verdicts = checked(change)
    assert not verdicts["weights"] and not verdicts["output"]
    assert verdicts["format"]


def test_another_tensor_that_changed_is_found() -> None:
    verdicts = checked(lambda model: with_numbers(model, "head", numbers(model, "head") * np.float32(1.5)))
    assert not verdicts["weights"] and not verdicts["output"]


def test_a_mask_of_another_format_is_found() -> None:
    def scattered(masks: tuple[LayerMask, ...]) -> tuple[LayerMask, ...]:
        first = masks[0]
        kept = first.kept.copy()
        kept[0, 0, 0, 0] = ~kept[0, 0, 0, 0]
        return (LayerMask(first.layer, first.format, kept), *masks[1:])

    assert not checked(lambda model: model, scattered)["format"]


def test_the_control_says_where_the_outputs_depend_on_nothing() -> None:
    model = kinds()
    model.graph.initializers["head"].const_value = ir.tensor(np.zeros((32, 10), np.float32), name="head")
    verification = sparse(model, format="8x1", sparsity=0.5).verification
    assert verification is not None and verification.ok
    assert "no output tells a dense layer from a sparse one" in verification.checks[-1].note


def test_the_control_fails_where_overwriting_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The dense model that the sparse one is held against has zeros once, and never its own weights again."""
    from graphprune.dialects.onnx.stages import OnnxStaged

    def once(self: Any, stored: Any, array: Any, real: Any = OnnxStaged.write) -> None:
        if np.any(array == 0):
            real(self, stored, array)

    monkeypatch.setattr(OnnxStaged, "write", once)
    with pytest.raises(GraphPruneError, match="GP401") as caught:
        sparse(kinds(), format="8x1", sparsity=0.5)
    assert "with its own weights the dense model computes something else" in caught.value.where


def test_bits_are_compared() -> None:
    assert differing(np.array([np.nan]), np.array([np.nan])) == 0
    assert differing(np.array([0.0], np.float32), np.array([-0.0], np.float32)) == 1
    assert differing(np.zeros(3), np.zeros(4)) == 3
    assert differing(np.zeros((0, 4), np.int64), np.zeros((0, 4), np.int64)) == 0


# Zeros that are there


def test_zeros_of_a_grouped_convolution_are_those_of_all_groups() -> None:
    made = sparse(kinds(), format="8x1", sparsity=0.75).model
    found = {each.name: each for each in zeros_of(gp.analyze(made))}
    assert set(found) == {"gemm", "grouped", "other", "plain", "square"}
    assert str(found["grouped"].formats[0].format) == "8x1"
    array = numbers(made, "grouped").copy()
    rng = np.random.default_rng(0)
    array[8:] = np.where(rng.random(array[8:].shape) < 0.5, 0, 1)
    found = {each.name: each for each in zeros_of(gp.analyze(with_numbers(made, "grouped", array)))}
    assert [str(each.format) for each in found["grouped"].formats] == ["unstructured"]
