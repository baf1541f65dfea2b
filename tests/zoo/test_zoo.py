"""A sample of the zoo that changes with the week, and what the harness says about models that go wrong."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from graphprune.dialects.aten import writer  # noqa: E402

from .__main__ import main  # noqa: E402
from .zoo import LIBRARIES, Model, Record, examine, missing, models_of, read_records, sampled  # noqa: E402

ROOT = Path(__file__).parents[2]
_EACH_WEEK = 2
"""Models of each library: with the slowest of them it stays below a minute on one core."""


@pytest.mark.parametrize("library", LIBRARIES)
def test_models_of_the_week(library: str) -> None:
    if lacking := missing(library):
        pytest.skip(f"{lacking} is not installed")
    week = datetime.date.today().isocalendar().week
    cheap = [model for model in models_of(library) if model.cheap]
    for model in sampled(cheap, _EACH_WEEK, week):
        record = examine(model)
        assert record.ok, f"{model.name}: {record.cause}"
        assert record.macs[1] <= model.macs * record.macs[0]


@pytest.mark.parametrize("library", LIBRARIES)
def test_each_library_stands_alone(library: str) -> None:
    """In a process of its own torchvision loads, with or without its compiled operators."""
    if lacking := missing(library) or missing("torchvision"):
        pytest.skip(f"{lacking} is not installed")
    run = [sys.executable, "-c", f"import {LIBRARIES[library]}, torchvision"]
    assert subprocess.run(run, check=False, capture_output=True, text=True, cwd=ROOT).stderr == ""


@pytest.mark.parametrize("library", LIBRARIES)
def test_names_are_unique(library: str) -> None:
    if lacking := missing(library):
        pytest.skip(f"{lacking} is not installed")
    names = [model.name for model in models_of(library)]
    assert len(set(names)) == len(names)


class Small(torch.nn.Module):  # type: ignore[misc,name-defined]
    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(3, 16, 3, padding=1)
        self.norm = torch.nn.BatchNorm2d(16)
        self.second = torch.nn.Conv2d(16, 16, 3)
        self.last = torch.nn.Linear(16, 5)

    def forward(self, x: Any) -> Any:
        """``n 3 8 8 -> n 5``."""
        return self.last(self.second(self.norm(self.first(x)).relu()).relu().mean((2, 3)))


SMALL = Model("small", "none", "small", Small, lambda: ((torch.randn(2, 3, 8, 8),), {}))


def test_a_model_that_is_right() -> None:
    record = examine(SMALL)
    assert record.ok
    assert not record.cause
    assert record.stage == "done"
    assert set(record.errors) == {"interface", "permutation", "mask"}
    assert record.groups == 2
    assert record.refusals == {"GP201": 1, "GP202": 1}


def test_a_weight_that_is_left_as_it_is_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Permuted out of step with what reads it, the graph runs and computes something else."""
    cut_tensors = writer.cut_tensors

    def forgetful(graph: Any, analysis: Any, cuts: Any) -> None:
        cut_tensors(graph, analysis, {name: each for name, each in cuts.items() if name != "second.weight"})

    monkeypatch.setattr(writer, "cut_tensors", forgetful)
    record = examine(SMALL)
    assert not record.ok
    assert record.cause


def test_the_wrong_survivors_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """All shapes are right, and the entries of one weight are others than those of its readers."""
    gathered = writer.gathered

    def shifted(tensor: Any, places: Any) -> Any:
        if tensor.shape == (16, 16, 3, 3):
            places = {axis: (kept + 1) % tensor.shape[axis] for axis, kept in places.items()}
        return gathered(tensor, places)

    monkeypatch.setattr(writer, "gathered", shifted)
    record = examine(SMALL)
    assert not record.ok
    assert "FAILED mask" in record.cause
    assert record.errors["mask"] > 1e-3


def test_an_operator_without_a_rule_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    from graphprune.dialects.aten import dialect

    monkeypatch.delitem(dialect.TABLE, "aten.relu")
    record = examine(SMALL)
    assert not record.ok
    assert record.unknown == ["aten.relu.default"]


def test_a_budget_that_cannot_be_met_fails() -> None:
    record = examine(replace(SMALL, macs=0.001))
    assert not record.ok
    assert "GP301" in record.cause
    assert record.errors["mask"] < 1e-5  # the rest was tried all the same


def test_a_model_that_cannot_be_captured_fails() -> None:
    class Branching(Small):
        def forward(self, x: Any) -> Any:
            return super().forward(x) if x.sum() > 0 else x

    stages: list[str] = []
    record = examine(replace(SMALL, build=Branching), lambda each: stages.append(each.stage))
    assert not record.ok
    assert record.cause.startswith("export: GP112")
    assert stages == ["build", "export"]


def test_records_are_read_back_and_models_in_them_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "records.json"
    if lacking := missing("timm"):
        pytest.skip(f"{lacking} is not installed")
    names = [model.name for model in models_of("timm")]
    records = [Record(name, "timm", "family", ok=name != names[0], stage="done") for name in names]
    records[1].stage, records[1].ok = "export", False
    path.write_text(json.dumps([each.as_json() for each in records]))
    assert read_records(path) == records
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["zoo", "--library", "timm", "--resume", "--json", str(path)])
        assert main() == 1
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("\u2502 timm "))
    assert [each.strip() for each in row.strip("\u2502").split("\u2502")][:6] == [
        "timm", str(len(names)), str(len(names) - 1), str(len(names) - 2), "1", "1",
    ]  # fmt: skip


def test_a_defect_escapes() -> None:
    def broken() -> Any:
        raise RuntimeError("no such model")

    with pytest.raises(RuntimeError, match="no such model"):
        examine(replace(SMALL, build=broken))


def test_samples_are_of_different_families_and_change_with_the_week() -> None:
    models = [replace(SMALL, name=f"{family}{k}", family=family) for family in "abcdefgh" for k in range(4)]
    draw: Callable[[int], list[str]] = lambda week: [each.name for each in sampled(models, 5, week)]  # noqa: E731
    assert draw(3) == draw(3)
    assert len({name[0] for name in draw(3)}) == 5
    assert len({tuple(draw(week)) for week in range(1, 54)}) > 40
    assert len(sampled(models, 100, 1)) == 8
