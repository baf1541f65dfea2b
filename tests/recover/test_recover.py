"""Recovery without training: closer to the dense network than the cut alone, on data it never saw."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

import graphprune as gp
from graphprune.calibrate import Calibration
from graphprune.dialects import tools_of
from graphprune.errors import GraphPruneError
from graphprune.fidelity import Fidelity, errors_of
from graphprune.recover import RECOVERIES
from graphprune.recover.least_squares import Walk
from graphprune.recover.obspa import error, updated
from graphprune.recover.pair import Pair, Recovered
from tests.recover.networks import data, model, normalised, residual, stored


def output_error(dense: ir.Model, other: ir.Model, cases: list[dict[str, np.ndarray]]) -> float:
    """The mean squared difference of outputs, as a share of the variance of the dense ones."""
    one, two = tools_of(dense).runner(dense), tools_of(other).runner(other)
    pairs = [(one(case)[0], two(case)[0]) for case in cases]
    difference = np.mean([np.square(a - b).mean() for a, b in pairs])
    return float(difference / np.var(np.concatenate([a.reshape(-1) for a, _ in pairs])))


def pair_of(dense: ir.Model, ratio: float, cases: list[dict[str, np.ndarray]], **options: object) -> Pair:
    analysis = gp.analyze(dense)
    plan = gp.plan(analysis, ratio=ratio, allocate="uniform", **options)  # type: ignore[arg-type]
    keep = plan.keep(analysis)
    return Pair.of(analysis, keep, gp.apply(analysis, plan), Calibration(cases))


@pytest.mark.parametrize("biases", [True, False])
def test_least_squares_is_closer_on_data_it_did_not_see(biases: bool) -> None:
    dense = residual(biases)
    pair = pair_of(dense, 0.4, data())
    made = RECOVERIES.load("least_squares")().run(pair)
    better = tools_of(dense).with_stored(pair.small.program, made.arrays)
    before = output_error(dense, pair.small.program.native, data(seed=1))
    after = output_error(dense, better, data(seed=1))
    assert after < 0.5 * before
    assert all(outcome.after < outcome.before for outcome in made.outcomes if outcome.applied)


def test_a_branch_that_is_computed_after_the_layer_counts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shortcut of the second block is scaled, and the node for it stands behind the layer that is fitted."""
    proto = ir.to_proto(residual())
    (last,) = [node for node in proto.graph.node if "s2" in node.output]
    place = list(proto.graph.node).index(last)
    proto.graph.node.insert(place, helper.make_node("Mul", ["s1", "three"], ["shortcut"]))
    proto.graph.initializer.append(numpy_helper.from_array(np.array(3, np.float32), "three"))
    (last,) = [node for node in proto.graph.node if "s2" in node.output]
    last.input[1] = "shortcut"
    pair = pair_of(ir.from_proto(proto), 0.4, data(), only=("a0:0", "a1:0"))

    def error() -> float:
        made = RECOVERIES.load("least_squares")().run(pair)
        native = pair.dense.program.native
        return output_error(native, tools_of(native).with_stored(pair.small.program, made.arrays), data(seed=1))

    found = error()
    monkeypatch.setattr(Walk, "_late", lambda *_: None)
    assert found < 0.9 * error()


def test_least_squares_of_nothing_cut_changes_nothing() -> None:
    made = RECOVERIES.load("least_squares")().run(pair_of(residual(), 0.0, data()))
    assert made.arrays == {}
    assert made.outcomes == ()


def test_an_exact_copy_of_a_channel_is_taken_over_exactly() -> None:
    """A channel that is twice another: least squares gives the one that stays what both of them did."""
    dense = residual(False)
    first, second = (dense.graph.initializers[name] for name in ("a0", "b0"))
    weight = first.const_value.numpy().copy()
    weight[1] = 2 * weight[0]
    first.const_value = ir.tensor(weight, name="a0")
    analysis = gp.analyze(dense)
    (group,) = [each for each in analysis.groups if each.name == "a0:0"]
    keep = {group.dim: np.delete(np.arange(12), 1)}
    small = tools_of(dense).write(analysis, keep)
    pair = Pair.of(analysis, keep, small, Calibration(data()))
    made = RECOVERIES.load("least_squares")(ridge=1e-8).run(pair)
    better = tools_of(dense).with_stored(pair.small.program, made.arrays)
    assert output_error(dense, small, data(seed=1)) > 1e-3
    assert output_error(dense, better, data(seed=1)) < 1e-6
    old = second.const_value.numpy()
    assert np.allclose(made.arrays["b0"][:, 0], old[:, 0] + 2 * old[:, 1], atol=1e-3)


def test_an_update_that_does_not_hold_on_other_data_is_not_applied() -> None:
    """Two images cannot tell 108 inputs apart: what fits them is worse for the third, and is refused."""
    dense = residual(False)
    noise = [{"x": np.random.default_rng(k).standard_normal((1, 3, 2, 2)).astype(np.float32)} for k in range(3)]
    made = RECOVERIES.load("least_squares")(ridge=1e-12).run(pair_of(residual(False), 0.5, noise))
    refused = [outcome for outcome in made.outcomes if not outcome.applied]
    assert refused
    assert all("GP705" in outcome.note for outcome in refused)
    assert all(outcome.layer not in made.arrays for outcome in refused)
    assert dense.graph.name == "network"


def test_batch_norms_get_the_statistics_of_the_data() -> None:
    dense = normalised()
    pair = pair_of(dense, 0.0, cases := data())
    made = RECOVERIES.load("batch_norm")().run(pair)
    weight = dense.graph.initializers["w"].const_value.numpy()
    images = np.concatenate([case["x"] for case in cases])
    windows = np.lib.stride_tricks.sliding_window_view(images, (3, 3), (2, 3))
    before = np.einsum("nchwij,ocij->nohw", windows.astype(np.float64), weight)
    assert np.allclose(made.arrays["mean"], before.mean((0, 2, 3)), atol=1e-4)
    assert np.allclose(made.arrays["var"], before.var((0, 2, 3)), rtol=1e-3)


def test_bias_compensation_keeps_the_mean_of_the_output() -> None:
    dense = residual()
    pair = pair_of(dense, 0.3, cases := data(), only=("b0:1",))
    made = RECOVERIES.load("bias")().run(pair)
    better = tools_of(dense).with_stored(pair.small.program, made.arrays)

    def mean(native: ir.Model) -> np.ndarray:
        analysis = gp.analyze(native)
        node = next(each for each in analysis.program.main.nodes if each.place == "b0")
        staged = tools_of(native).staged(analysis.program, [], node.outputs)
        found = []
        for case in cases:
            state = staged.begin(case)
            staged.step(state)
            found.append(staged.read(state, node.outputs[0]))
        return np.concatenate(found).mean((0, 2, 3))

    assert not np.allclose(mean(pair.small.program.native), mean(dense), atol=1e-3)
    # At a border the removed inputs are padded with zeros, which their mean does not know of.
    gap = np.abs(mean(pair.small.program.native) - mean(dense)).max()
    assert np.abs(mean(better) - mean(dense)).max() < 0.3 * gap


def test_prune_recovers_after_it_has_verified() -> None:
    dense, cases = residual(), data()
    plain = gp.prune(dense, ratio=0.4, allocate="uniform", calibration=cases)
    fitted = gp.prune(dense, ratio=0.4, allocate="uniform", calibration=cases, recover="least_squares")
    assert fitted.verification is not None and fitted.verification.ok
    assert fitted.plan.options["recover"] == ["least_squares"]
    assert any("least_squares" in note for note in fitted.report.notes)
    assert output_error(dense, fitted.model, data(seed=2)) < output_error(dense, plain.model, data(seed=2))
    assert gp.verify(dense, fitted.model, fitted.plan).ok
    assert not gp.verify(dense, fitted.model, plain.plan).ok


def test_recovery_is_deterministic() -> None:
    dense = residual()
    first, again = (gp.prune(dense, ratio=0.4, calibration=data(), recover=["least_squares"]).model for _ in range(2))
    for name, value in first.graph.initializers.items():
        assert value.const_value.numpy().tobytes() == again.graph.initializers[name].const_value.numpy().tobytes()


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({}, "GP704"),
        ({"calibration": data(1), "recover": "lest_squares"}, "GP106"),
        ({"calibration": data(1), "recover": "least_squares,bias"}, "GP107"),
        ({"calibration": data(1), "recover": "bias,gauss_newton"}, "GP107"),
        ({"calibration": data(1), "recover": "least_squares,gauss_newton"}, "GP107"),
    ],
)
def test_what_recovery_needs_is_said(options: dict[str, object], code: str) -> None:
    with pytest.raises(GraphPruneError) as caught:
        gp.prune(residual(), ratio=0.4, **{"recover": "least_squares", **options})  # type: ignore[arg-type]
    assert caught.value.code == code


def test_a_constant_for_every_position_is_no_bias() -> None:
    """What is added to a layer differs from token to token: no number for each output could be taken into it."""
    rng = np.random.default_rng(0)
    dense = model(
        [
            helper.make_node("MatMul", ["x", "first"], ["h"]),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("MatMul", ["r", "second"], ["s"]),
            helper.make_node("Add", ["s", "places"], ["y"]),
        ],
        [stored(rng, "first", 6, 12), stored(rng, "second", 12, 5), stored(rng, "places", 4, 5)],
        ("n", 4, 6),
    )
    tokens = [{"x": rng.standard_normal((16, 4, 6)).astype(np.float32)} for _ in range(5)]
    made = RECOVERIES.load("least_squares")().run(pair_of(dense, 0.4, tokens))
    assert "second" in made.arrays
    assert "places" not in made.arrays


# OBSPA


def test_the_update_of_obspa_is_that_of_optimal_brain_surgeon() -> None:
    """``W_K - W_P [(H^-1)_PP]^-1 (H^-1)_PK``, and the least squares of the layer on the inputs that stay."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((2, 200, 7)) @ rng.standard_normal((2, 7, 7))
    weight, kept, gone = rng.standard_normal((2, 3, 7)), np.array([0, 2, 3, 6]), np.array([1, 4, 5])
    second = np.einsum("gsi,gsj->gij", rows, rows)
    found = updated(weight, second, kept, 0.0)
    for group in range(2):
        inverse = np.linalg.inv(second[group])
        step = weight[group][:, gone] @ np.linalg.inv(inverse[np.ix_(gone, gone)]) @ inverse[np.ix_(gone, kept)]
        np.testing.assert_allclose(found[group], weight[group][:, kept] - step, rtol=1e-6)
        best, *_ = np.linalg.lstsq(rows[group][:, kept], rows[group] @ weight[group].T, rcond=None)
        np.testing.assert_allclose(found[group], best.T, rtol=1e-6)
    assert error(weight, found, second, kept) < error(weight, weight[:, :, kept], second, kept)


@pytest.mark.parametrize(
    "cases", [data(), [{"x": np.random.default_rng(5).standard_normal((64, 3, 8, 8), np.float32)}]]
)
def test_obspa_lowers_the_error_of_layers_and_of_the_network(cases: list[dict[str, np.ndarray]]) -> None:
    """On the data of the layers, and on noise."""
    dense = residual()
    pair = pair_of(dense, 0.4, cases, criterion="obspa", calibration=Calibration(cases))
    made = RECOVERIES.load("obspa")().run(pair)
    assert made.outcomes and all(each.after < each.before for each in made.outcomes if each.applied)
    assert {each.layer for each in made.outcomes if each.applied} == set(made.arrays)
    better = tools_of(dense).with_stored(pair.small.program, made.arrays)
    before = output_error(dense, pair.small.program.native, data(seed=1))
    assert output_error(dense, better, data(seed=1)) < before


def test_obspa_beside_bias_is_refused() -> None:
    with pytest.raises(GraphPruneError, match="GP107"):
        gp.prune(residual(), ratio=0.3, calibration=data()[0]["x"], recover=["obspa", "bias"])


class Shrinks:
    """A recovery that only makes things worse: all weights halved."""

    def run(self, pair: Pair) -> Recovered:
        arrays = {each.stored.name: each.stored.read() * np.float32(0.5) for _, each in pair.layers if each.stored}
        return Recovered(arrays, ())


def test_what_recovery_does_to_the_outputs_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    dense, cases = residual(), data()
    good = gp.prune(dense, ratio=0.4, calibration=cases, recover="least_squares")
    plain = gp.prune(dense, ratio=0.4)
    fidelity = Fidelity(gp.analyze(dense), cases[-max(1, round(len(cases) * 0.2)) :])
    before, after = (fidelity.error(fidelity.outputs(each.model)) for each in (plain, good))
    assert after < before
    assert f"the last fifth of the data {before:.3g} -> {after:.3g}" in str(good.report)
    assert "GP712" not in str(good.report)
    monkeypatch.setitem(RECOVERIES.builtin, "least_squares", f"{__name__}:Shrinks")
    assert "GP712" in str(gp.prune(dense, ratio=0.4, calibration=cases, recover="least_squares").report)
    assert "last fifth" not in str(gp.prune(dense, ratio=0.4, calibration=cases[:1], recover="least_squares").report)


def test_errors_case_by_case_are_those_of_all_together() -> None:
    dense, cases = residual(), data()
    others = [gp.prune(dense, ratio=each, verify=False).model for each in (0.2, 0.5)]
    analysis, fidelity = gp.analyze(dense), Fidelity(gp.analyze(dense), cases)
    expected = [fidelity.error(fidelity.outputs(each)) for each in others]
    assert errors_of(analysis, others, cases) == pytest.approx(expected, rel=1e-12)
    assert expected[0] != pytest.approx(expected[1], rel=0.1)
    assert errors_of(analysis, [dense], cases) == [0.0]
