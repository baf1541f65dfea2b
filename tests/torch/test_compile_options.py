"""The backend of `torch.compile`: its options, its refusals, its report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor

import graphprune as gp
import graphprune.torch as door
from graphprune.dialects.aten import writer
from graphprune.errors import BudgetNotMet, GraphPruneError
from graphprune.latency.table import Table
from graphprune.plan import Plan
from tests.stopwatch import Fake
from tests.torch.compiling import HALF, IMAGES, WORDS, Broken, Images, Words, close, compiled, fresh, refusal, varied

__all__ = ["fresh"]


def test_patterns_about_other_graphs_are_left_out() -> None:
    small = compiled(varied(Broken()), ratio=0.5, then="eager", ignore=["shared.*"])
    with torch.no_grad():
        small(torch.randn(4, 8))
    cuts = {cut.group for cut in door.report(small).plan.groups if len(cut.keep) < cut.size}
    assert cuts == {"last.0.weight:0"}
    assert any("no dimension can be pruned" in note for note in door.report(small).parts[0].notes)


def test_reports_are_told_apart_by_options() -> None:
    model = varied(Images())
    half, third = compiled(model, **HALF), compiled(model, then="eager", ratio=0.3)
    with torch.no_grad():
        half(IMAGES)
        with pytest.raises(GraphPruneError, match="GP603"):
            door.report(third)
        third(IMAGES)
    assert door.report(half).plan.groups != door.report(third).plan.groups
    torch._dynamo.reset()
    with pytest.raises(GraphPruneError, match="GP603"):
        door.report(half)


def test_every_graph_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    gather = writer.gathered

    def turned(tensor: Tensor, places: Any) -> Tensor:
        """Matrices in another order than the vectors that they are coupled to."""
        return gather(tensor, {axis: kept[::-1] if tensor.dim() == 4 else kept for axis, kept in places.items()})

    with monkeypatch.context() as patch:
        patch.setattr(writer, "gathered", turned)
        assert refusal(varied(Images()), IMAGES, **HALF).code == "GP401"
    small = compiled(varied(Images()), **HALF, verify="full")
    with torch.no_grad():
        small(IMAGES)
    checked = door.report(small).total.verification
    assert checked is not None
    assert {"permutation", "mask"} <= {check.oracle for check in checked.checks}


@pytest.mark.parametrize(
    ("options", "code", "remedy"),
    [
        ({"mcas": 0.5}, "GP106", "did you mean 'macs'"),
        ({"macs": 0.5, "mode": "prun"}, "GP107", "did you mean 'prune'"),
        ({"macs": 0.5, "then": "inductr"}, "GP107", "did you mean 'inductor'"),
        ({"macs": 50}, "GP107", "write 0.5"),
        ({"then": "eager"}, "GP107", "macs"),
        ({"mode": "exploit", "macs": 0.5}, "GP107", "leave them out"),
        ({"plan": "nowhere.json"}, "GP101", ""),
        ({"plan": 3}, "GP107", "path of a plan"),
        ({"macs": 0.001, "then": "eager"}, "GP301", ""),
    ],
)
def test_options_are_checked(options: dict[str, Any], code: str, remedy: str) -> None:
    error = refusal(varied(Images()), IMAGES, **options)
    assert error.code == code
    assert remedy in error.remedy
    assert isinstance(error, BudgetNotMet) == (code == "GP301")


def test_training_is_refused() -> None:
    error = refusal(varied(Images()), IMAGES, True, **HALF)
    assert error.code == "GP601"
    assert "no_grad" in error.remedy
    error = refusal(Images().train(), IMAGES, **HALF)
    assert error.code == "GP602"
    assert "eval()" in error.remedy


def test_a_plan_from_a_file(tmp_path: Path) -> None:
    model = varied(Images())
    result = gp.prune(model, IMAGES, ratio=0.3)
    result.plan.save(tmp_path / "plan.json")
    small = compiled(model, plan=str(tmp_path / "plan.json"), then="eager")
    with torch.no_grad():
        assert close(small(IMAGES), result.model(IMAGES))
    error = refusal(varied(Words()), WORDS, plan=result.plan, then="eager")
    assert error.code == "GP501"


def test_a_report_needs_a_run() -> None:
    small = compiled(Images(), **HALF)
    with pytest.raises(GraphPruneError, match="GP603"):
        door.report(small)


def test_another_backend_is_handed_a_smaller_graph() -> None:
    seen: list[int] = []

    def counting(graph: Any, inputs: list[Any], options: dict[str, Any]) -> Any:
        seen.append(sum(tensor.numel() for tensor in graph.buffers()) + options["more"])
        return graph.forward

    model = varied(Images())
    small = compiled(model, ratio=0.5, then=counting, then_options={"more": 0})
    with torch.no_grad():
        small(IMAGES)
    assert 0 < seen[0] < sum(tensor.numel() for tensor in model.parameters()) * 0.5


def test_calibration_data_is_given_as_to_a_plan() -> None:
    model, data = varied(Images()), [torch.randn(2, 3, 9, 9) for _ in range(3)]
    small = compiled(model, **HALF, criterion="wanda", calibration=(batch for batch in data))
    with torch.no_grad():
        small(IMAGES)
        small(IMAGES[:1])  # compiled anew, when the data has run out
    expected = gp.plan(model, IMAGES, macs=0.5, criterion="wanda", calibration=data)
    assert [cut.keep for cut in door.report(small).plan.groups] == [cut.keep for cut in expected.groups]
    error = refusal(varied(Images()), IMAGES, **HALF, criterion="wanda", calibration=[torch.randn(4, 5, 9, 9)])
    assert error.code == "GP702"


def test_calibration_data_is_for_whole_modules() -> None:
    data = [torch.randn(4, 8) for _ in range(3)]
    error = refusal(Broken().eval(), torch.randn(2, 8), **HALF, criterion="wanda", calibration=data)
    assert (error.code, error.where) == ("GP107", "option calibration")


def test_a_plan_of_code_that_was_compiled_anew_can_be_saved(tmp_path: Path) -> None:
    small = compiled(varied(Images()), **HALF, criterion=lambda rows: abs(rows).max(axis=1))
    with torch.no_grad():
        small(IMAGES)
        once = door.report(small).plan
        small(IMAGES[:1])
    again = door.report(small).plan
    assert again.options == once.options
    again.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json").groups == again.groups


def test_time_is_a_budget() -> None:
    small = compiled(varied(Images()), latency=0.5, latency_table=Table(), stopwatch=Fake(), then="eager")
    with torch.no_grad():
        small(IMAGES)
    assert door.report(small).plan.options["latency"] == 0.5
