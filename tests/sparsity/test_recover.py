"""Recovery beside zeros: closer to the dense network on data that it did not see, and what is told about it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import graphprune as gp
from graphprune.calibrate import Calibration
from graphprune.dialects import tools_of
from graphprune.errors import GraphPruneError
from graphprune.fidelity import Fidelity
from graphprune.formats import parse
from graphprune.recover.least_squares import Sums
from graphprune.sparsity.check import verify_sparse
from graphprune.sparsity.choose import choose
from graphprune.sparsity.recover import recovered
from graphprune.sparsity.refit import Fit
from graphprune.sparsity.run import Sparsified
from tests.recover.networks import data, normalised, residual
from tests.sparsity.networks import kinds, numbers

FORMATS = [("unstructured", 0.6), ("2:4", None), ("2x1", 0.6), ("2x2", 0.5), ("1:4/2", None), ("balanced/6", 0.5),
           ("tile/2", 0.5), ("pattern:4/8", 0.6)]  # fmt: skip


def sparse(model: ir.Model, **options: Any) -> Sparsified:
    found: Sparsified = gp.sparsify(model, **options)
    return found


def error(dense: ir.Model, *others: ir.Model) -> list[float]:
    """Of the outputs, on data that nobody saw."""
    fidelity = Fidelity(gp.analyze(dense), data(seed=5))
    return [fidelity.error(fidelity.outputs(other)) for other in others]


@pytest.mark.parametrize(("text", "share"), FORMATS)
@pytest.mark.parametrize("criterion", ["l2", "obs"])
def test_what_stays_makes_up_for_zeros(text: str, share: float | None, criterion: str) -> None:
    """Convolutions and residual sums, in every format; the result is verified as it is made."""
    dense = residual()
    options: dict[str, Any] = {"format": text, "sparsity": share, "criterion": criterion, "calibration": data()}
    none, swept, exact = (sparse(dense, **options, recover=each) for each in ("none", "sparsegpt", "least_squares"))
    before, one, two = error(dense, none.model, swept.model, exact.model)
    assert one < 0.5 * before
    assert two < 0.5 * before
    for result in (swept, exact):
        assert result.verification is not None and result.verification.ok
        for mask in result.choice.layers:
            assert all(parse(text).holds(kept) for kept in mask.kept)
            assert np.count_nonzero(mask.kept) == pytest.approx(np.count_nonzero(of(none, mask.tensor)), rel=0.02)


def of(result: Sparsified, tensor: str) -> np.ndarray:
    return next(each.kept for each in result.choice.layers if each.tensor == tensor)


def test_sparsegpt_is_better_than_magnitude_and_wanda_alone() -> None:
    dense, options = residual(), {"format": "unstructured", "sparsity": 0.6, "calibration": data()}
    magnitude, wanda, surgeon = (
        sparse(dense, **options, **each).model
        for each in ({}, {"criterion": "wanda"}, {"criterion": "obs", "recover": "sparsegpt"})
    )
    found = error(dense, magnitude, wanda, surgeon)
    assert found[2] < 0.5 * min(found[:2])


def test_grouped_convolutions_are_fitted_group_by_group() -> None:
    """The Gram matrix of each group's own windows: the layer alone, so that least squares is the optimum there."""
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((64, 3, 8, 8)).astype(np.float32)
    dense, held = kinds(), rng.standard_normal((64, 3, 8, 8)).astype(np.float32)
    options: dict[str, Any] = {"format": "unstructured", "sparsity": 0.7, "only": ["grouped"], "calibration": inputs}
    fidelity = Fidelity(gp.analyze(dense), [{"x": held}])
    before, after = (
        fidelity.error(fidelity.outputs(sparse(dense, **options, recover=each).model)) for each in ("none", "sparsegpt")
    )
    assert after < 0.7 * before
    groups = of(sparse(dense, **options, recover="sparsegpt"), "grouped")
    assert [np.mean(group) for group in groups] == pytest.approx([0.3, 0.3], abs=0.01)


def test_least_squares_of_a_layer_has_no_slope() -> None:
    """For the sums of a layer, with its bias: the gradient at every kept weight is zero."""
    analysis = gp.analyze(residual())
    mask = next(each for each in choose(analysis, "unstructured", 0.5).layers if each.tensor == "b0")
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((500, 1, 108)) @ rng.standard_normal((108, 108)) / 10
    sums = Sums.of(rows, rows @ rng.standard_normal((108, 6)) + 3)
    old, ridge = rng.standard_normal((1, 109, 6)), 1e-3
    kept = mask.kept.reshape(1, 6, 108)
    new, same = Fit(mask, old, True, False).step("least_squares", sums, ridge, kept)
    assert np.array_equal(same, kept)
    slope = sums.gram[0] @ new[0] - sums.cross[0]
    slope[:-1] += ridge * np.diag(sums.gram[0])[:-1].mean() * (new[0] - old[0])[:-1]
    where = np.concatenate([mask.layer.matrices(mask.mask())[0].T, np.ones((1, 6), bool)])
    assert np.abs(slope[where]).max() < 1e-6 * np.abs(sums.cross).max()
    assert np.abs(slope[~where]).max() > 1e-2 * np.abs(sums.cross).max()
    assert not new[0][~where].any()


def test_layers_that_stay_dense_are_fitted_unless_they_were_named() -> None:
    dense, options = residual(), {"format": "unstructured", "sparsity": 0.6, "calibration": data()}
    fitted = sparse(dense, **options, recover="least_squares")
    assert {"a0.bias", "b1.bias"} <= set(fitted.choice.others)
    few = sparse(dense, **options, recover="least_squares", only=["a0"])
    assert "b0" not in few.choice.others and np.array_equal(numbers(few.model, "b0"), numbers(dense, "b0"))
    swept = sparse(dense, **options, recover="sparsegpt", ignore=["b1"])
    assert set(swept.choice.others) <= {"a0.bias", "b0.bias", "a1.bias"}


def test_a_recovery_that_does_not_hold_on_other_data_is_not_applied() -> None:
    noise = [{"x": np.random.default_rng(k).standard_normal((1, 3, 2, 2)).astype(np.float32)} for k in range(3)]
    dense, same = residual(False), {"format": "unstructured", "sparsity": 0.02, "calibration": Calibration(noise)}
    result = sparse(dense, **same, recover="sparsegpt,least_squares")
    assert "would not lower its error on held-out data" in str(result.report)
    assert "layers have more inputs than there are samples" in str(result.report)
    refused = [each for each in result.choice.layers if each.numbers is None]
    assert refused
    for mask in refused:
        kept = mask.mask()
        assert np.array_equal(numbers(result.model, mask.tensor)[kept], numbers(dense, mask.tensor)[kept])


def test_batch_norms_get_new_statistics_where_that_helps() -> None:
    dense = normalised()
    options: dict[str, Any] = {"format": "unstructured", "sparsity": 0.7, "only": ["w"], "calibration": data()}
    analysis = gp.analyze(dense)
    norm = tools_of(dense).with_stored  # statistics that fit the data first
    windows = np.concatenate([case["x"] for case in data()])
    views = np.lib.stride_tricks.sliding_window_view(windows, (3, 3), (2, 3))
    results = np.einsum("nchwij,ocij->nohw", views.astype(np.float64), numbers(dense, "w"))
    fitting = norm(analysis.program, {"mean": results.mean((0, 2, 3)).astype(np.float32),
                                      "var": results.var((0, 2, 3)).astype(np.float32)})  # fmt: skip
    none, anew = (sparse(fitting, **options, recover=each) for each in ("none", "batch_norm"))
    one, two = error(fitting, none.model, anew.model)
    assert two < one
    assert set(anew.choice.others) == {"mean", "var"}
    # Where the statistics are wrong on purpose, right ones are further from the dense network.
    wrong = sparse(dense, format="unstructured", sparsity=0.02, only=["w"], calibration=data(), recover="batch_norm")
    assert not wrong.choice.others and "not applied, GP705" in str(wrong.report)


def test_numbers_beside_the_masks_are_verified() -> None:
    """Another number in a bias, or in a weight that is kept, is found."""
    dense = residual()
    analysis = gp.analyze(dense)
    calibration = Calibration(data())
    choice = recovered(analysis, choose(analysis, "2:4"), ["least_squares"], calibration)
    good = sparse(dense, format="2:4", recover="least_squares", calibration=data()).model
    assert verify_sparse(analysis, good, choice.layers, others=choice.others).ok
    for name in ("a0.bias", "a0"):
        array = numbers(good, name).copy()
        array.flat[np.abs(array).argmax()] *= 1.5
        bad = tools_of(good).with_stored(gp.analyze(good).program, {name: array})
        verdicts = {each.oracle: each.ok for each in verify_sparse(
            analysis, bad, choice.layers, others=choice.others).checks}  # fmt: skip
        assert not verdicts["weights"] and not verdicts["output"]
    assert not verify_sparse(analysis, good, choice.layers).ok  # nobody said that biases change


def test_the_same_twice_is_the_same() -> None:
    options: dict[str, Any] = {"format": "unstructured", "sparsity": 0.5, "criterion": "obs", "calibration": data()}
    one, two = (sparse(residual(), **options, recover="sparsegpt,least_squares").model for _ in range(2))
    assert all(np.array_equal(numbers(one, name), numbers(two, name)) for name in one.graph.initializers)


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ({"recover": "sparsegtp"}, "GP106", "sparsegpt"),
        ({"recover": "least_squares"}, "GP704", "needs calibration data"),
        ({"criterion": "obs"}, "GP704", "the criterion obs needs calibration data"),
    ],
)
def test_mistakes_are_told(options: dict[str, Any], code: str, words: str) -> None:
    with pytest.raises(GraphPruneError) as caught:
        sparse(residual(), format="2:4", **options)
    assert caught.value.code == code
    assert words in str(caught.value)


# Allocation


def test_erk_is_the_formula_and_meets_the_sparsity() -> None:
    model = kinds()
    result = sparse(model, format="unstructured", sparsity=0.6, allocate="erk")
    shapes = {name: numbers(model, name).shape for name in result.masks}
    ratio = {name: sum(shape) / np.prod(shape) for name, shape in shapes.items()}
    density = {name: float(np.mean(mask)) for name, mask in result.masks.items()}
    scale = {name: density[name] / ratio[name] for name in shapes if density[name] < 1}
    assert max(scale.values()) == pytest.approx(min(scale.values()), rel=0.02)
    assert all(ratio[name] >= max(ratio[each] for each in scale) for name in shapes if density[name] == 1)
    size = {name: np.prod(shape) for name, shape in shapes.items()}
    kept = sum(density[name] * size[name] for name in shapes)
    assert kept == pytest.approx(0.4 * sum(size.values()), rel=0.01)


def test_erk_keeps_small_layers_whole_where_there_is_room() -> None:
    result = sparse(kinds(), format="unstructured", sparsity=0.1, allocate="erk")
    density = {name: float(np.mean(mask)) for name, mask in result.masks.items()}
    assert max(density.values()) == 1.0 and min(density.values()) < 0.9
    assert sum(map(np.sum, result.masks.values())) == pytest.approx(
        0.9 * sum(mask.size for mask in result.masks.values()), rel=0.01
    )


def test_smart_ratios_are_the_formula_and_meet_the_sparsity() -> None:
    result = sparse(kinds(), format="unstructured", sparsity=0.7, allocate="smart")
    sizes = [each.kept.size for each in result.choice.layers]
    density = [float(each.kept.mean()) for each in result.choice.layers]
    count = len(sizes)
    assert density[-1] == pytest.approx(0.3, abs=0.01)
    ratio = [(count - place) ** 2 + (count - place) for place in range(count)]
    scale = [got / each for got, each in zip(density[:-1], ratio, strict=False) if got < 1]
    assert len(scale) > 1 and max(scale) == pytest.approx(min(scale), rel=0.05)
    assert np.dot(density, sizes) == pytest.approx(0.3 * sum(sizes), rel=0.01)
    assert density[:-1] == sorted(density[:-1], reverse=True)


def test_smart_ratios_of_one_layer_are_the_sparsity() -> None:
    result = sparse(kinds(), format="unstructured", sparsity=0.9, allocate="smart", only=["plain"])
    assert [float(each.kept.mean()) for each in result.choice.layers] == [pytest.approx(0.1, rel=0.01)]


def test_lamp_ranks_weights_by_their_share_in_what_is_left_of_their_layer() -> None:
    model = kinds()
    result = sparse(model, format="unstructured", sparsity=0.8, allocate="lamp")
    squares = {name: np.sort(numbers(model, name).astype(np.float64).reshape(-1) ** 2) for name in result.masks}
    scores = {name: each / np.cumsum(each[::-1])[::-1] for name, each in squares.items()}
    every = np.sort(np.concatenate(list(scores.values())))
    threshold = every[round(0.8 * len(every))]
    for name, mask in result.masks.items():
        assert np.mean(mask) == pytest.approx(np.mean(scores[name] >= threshold), abs=0.003)
    plain = sparse(model, format="unstructured", sparsity=0.8, allocate="global")
    assert any(
        np.mean(plain.masks[name]) != pytest.approx(np.mean(mask), rel=0.05) for name, mask in result.masks.items()
    )


def test_lamp_does_not_see_the_scale_of_a_layer() -> None:
    model = kinds()
    before = sparse(model, format="4x1", sparsity=0.5, allocate="lamp").masks
    scaled = model.graph.initializers["square"]
    scaled.const_value = ir.tensor(numbers(model, "square") * 0.125, name="square")
    after = sparse(model, format="4x1", sparsity=0.5, allocate="lamp").masks
    assert all(np.array_equal(before[name], after[name]) for name in before)
    moved = sparse(model, format="4x1", sparsity=0.5, allocate="global").masks
    assert not np.array_equal(before["square"], moved["square"])
