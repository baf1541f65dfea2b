"""Channels and zeros in one budget."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphprune as gp
from graphprune.analysis import Analysis
from graphprune.calibrate import Calibration
from graphprune.cost import Costing, measure
from graphprune.dialects import tools_of
from graphprune.errors import BudgetNotMet, GraphPruneError
from graphprune.fidelity import Fidelity
from graphprune.sparsity.divide import divide, left
from graphprune.sparsity.run import decided
from tests.recover.networks import data, residual


@pytest.mark.parametrize(
    "options", [{}, {"recover": "sparsegpt,least_squares"}, {"allocate": "global"}, {"width": {"criterion": "random"}}]
)
def test_the_best_of_what_was_tried_is_made(options: dict[str, Any]) -> None:
    told = list[str]()
    result = gp.sparsify(
        residual(), format="4x1", macs=0.4, calibration=data(), validation=data(3, seed=7), tell=told.append, **options
    )
    assert result.verification is not None and result.verification.ok
    assert 5 <= len(told) <= 7 and all("of the MACs" in line or "GP30" in line for line in told)
    dense = gp.analyze(residual())
    share = working(gp.analyze(result.model)) / working(dense)
    assert share <= 0.4
    assert f"at {share:.1%} of the MACs" in result.report.notes[0]
    error = Fidelity(dense, data(3, seed=7))
    errors = [float(line.split("error ")[1].split()[0]) for line in told if "error" in line]
    assert error.error(error.outputs(result.model)) == pytest.approx(min(errors), rel=1e-2)


def working(analysis: Analysis) -> float:
    """Multiply-accumulates with stored weights that are not zero."""
    costing = Costing(analysis, {})
    found = 0.0
    for each in analysis.contractions:
        assert each.weight is not None
        value = each.weight.node.inputs[each.weight.index]
        assert value is not None and value.stored is not None
        found += costing.product(each.macs, {}) * float((value.stored.read() != 0).mean())
    return found


def test_the_share_counts_weights_that_are_not_zero() -> None:
    analysis = gp.analyze(residual())
    choice = decided(analysis, format="unstructured", sparsity=0.5)
    kept = {each.layer.contraction: each.kept for each in choice.layers}
    whole = {each: left(analysis, None, {}) - left(analysis, _without(choice, each), {}) for each in kept}
    assert whole and all(saved >= 0 for saved in whole.values())
    saved = left(analysis, None, {}) - left(analysis, choice, {})
    assert saved == pytest.approx(sum(whole.values()))
    assert left(analysis, None, {}) == measure(analysis, {}).macs


def _without(choice: Any, contraction: Any) -> Any:
    from dataclasses import replace

    return replace(choice, layers=tuple(each for each in choice.layers if each.layer.contraction is contraction))


def test_a_budget_of_everything_changes_nothing() -> None:
    result = gp.sparsify(residual(), format="4x1", macs=1.0, calibration=data())
    assert result.plan is None and result.report.nonzeros[0] == result.report.nonzeros[1]
    case = data(1)[0]
    before, after = (tools_of(model).runner(model)(case) for model in (residual(), result.model))
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_budget_that_nothing_meets() -> None:
    with pytest.raises(BudgetNotMet, match=r"GP302 1\.0% of the MACs are reached in no way"):
        gp.sparsify(residual(), format="4x1", macs=0.01, calibration=data())


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"macs": 0.0}, "GP107"), ({"macs": 1.5}, "GP107"), ({"macs": True}, "GP107"),
        ({"sparsity": 0.5}, "GP107"), ({"format": "2:4"}, "GP107"), ({"format": "5by5"}, "GP106"),
        ({"permute": True, "tell": pytest.fail}, "GP107"),
        ({"calibration": None}, "GP701"), ({"recover": "bias"}, "GP106"), ({"width": {"macs": 0.5}}, "GP107"),
        ({"width": {"criterium": "l1"}}, "GP106"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else value,
)  # fmt: skip
def test_mistakes(options: dict[str, Any], code: str) -> None:
    given = {"format": "4x1", "macs": 0.5, "calibration": data(), **options}
    with pytest.raises(GraphPruneError, match=code):
        gp.sparsify(residual(), **given)


def test_it_is_the_same_each_time() -> None:
    analysis = gp.analyze(residual())
    held = Calibration(data(2, seed=3))
    assert divide(analysis, 0.5, held, format="8x1") == divide(analysis, 0.5, held, format="8x1")


def test_modules_keep_their_class_and_get_masks() -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3), torch.nn.ReLU(), torch.nn.Conv2d(16, 32, 3), torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(32, 10),
    )  # fmt: skip
    images = [torch.randn(4, 3, 12, 12) for _ in range(3)]
    result = gp.sparsify(model, images[0], format="4x1", macs=0.4, calibration=images)
    assert type(result.model) is torch.nn.Sequential
    assert result.verification is not None and result.verification.ok
    zeros = sum(int((module.weight == 0).sum()) for module in result.model if hasattr(module, "weight"))
    assert zeros or result.plan is not None
