"""The largest cut within a drop: bisection on data of its own, and what is told where there is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import graphprune as gp
from graphprune.calibrate import Calibration
from graphprune.cli import main
from graphprune.dialects import tools_of
from graphprune.drop import NEAR, divided
from graphprune.errors import BudgetNotMet, GraphPruneError
from graphprune.metric import measured
from tests.recover.networks import data, residual


def labelled(seed: int, batches: int = 4) -> Calibration:
    """Images with the labels that the dense network gives them."""
    cases = data(batches, seed=seed)
    run = tools_of(residual()).runner(residual())
    return Calibration(cases, labels=[run(case)[0].argmax(axis=1) for case in cases])


def accuracy_of(model: ir.Model, held: Calibration) -> float:
    run = tools_of(model).runner(model)
    assert held.labels is not None
    right = [run(case)[0].argmax(axis=1) == label for case, label in zip(held.cases, held.labels, strict=True)]
    return float(np.concatenate(right).mean())


class Flat:
    """A metric that is 1 for the first model, which is the dense one, and then what is asked for."""

    def __init__(self, *values: float) -> None:
        self.values, self.calls = list(values), 0

    def __call__(self, outputs: Any, labels: Any) -> float:
        self.calls += 1
        return 1.0 if self.calls == 1 else self.values[min(self.calls - 2, len(self.values) - 1)]


@pytest.mark.parametrize("recover", ["none", "least_squares"])
def test_the_result_is_within_the_drop_and_nothing_smaller_that_was_tried(recover: str) -> None:
    held, told = labelled(7), list[str]()
    result = gp.prune(residual(), max_drop=0.1, validation=held, calibration=data(), recover=recover, tell=told.append)
    assert result.verification is not None and result.verification.ok
    assert accuracy_of(result.model, held) >= 0.9
    target = result.plan.options["macs"]
    smaller = gp.prune(residual(), macs=target - NEAR, calibration=data(), recover=recover)
    assert accuracy_of(smaller.model, held) < 0.9
    assert 2 < len(told) < 10 and all("of the MACs" in line or "GP301" in line for line in told)
    assert f"macs {target:.1%} was found: metric of the dense model 1" in str(result.report)


def test_recovery_allows_a_larger_cut() -> None:
    held = labelled(7)
    plain, fitted = (
        gp.prune(residual(), max_drop=0.1, validation=held, calibration=data(), recover=each).plan.options["macs"]
        for each in ("none", "least_squares")
    )
    assert fitted < plain


def test_validation_data_as_whole_arrays_with_labels() -> None:
    held = labelled(7)
    assert held.labels is not None
    arrays = (np.concatenate([case["x"] for case in held.cases]), np.concatenate(held.labels))
    result = gp.prune(residual(), max_drop=1.0, macs=0.5, validation=arrays, calibration=data(2))
    assert "metric of the dense model 1;" in str(result.report)


def test_a_budget_is_the_lowest_share_that_is_tried() -> None:
    metric = Flat(1.0)
    result = gp.prune(residual(), macs=0.6, max_drop=0.5, metric=metric, calibration=data())
    assert metric.calls == 2 and result.plan.options["macs"] == 0.6
    metric = Flat(0.0, 1.0)
    result = gp.prune(residual(), params=0.6, max_drop=0.5, metric=metric, calibration=data())
    assert 0.6 < result.plan.options["params"] <= 0.6 + NEAR


def test_a_part_of_the_calibration_data_is_held_out() -> None:
    seen: list[int] = []

    def metric(outputs: Any, labels: Any) -> float:
        seen.append(len(outputs))
        return 1.0

    calibration = labelled(0, 8)
    result = gp.prune(residual(), macs=0.5, max_drop=0, metric=metric, calibration=calibration, recover="least_squares")
    assert set(seen) == {2}
    fit, judge = divided(calibration, None)
    assert fit is not None and len(fit.cases) == 6 and len(judge.cases) == 2
    again = gp.prune(residual(), macs=0.5, calibration=fit, recover="least_squares")
    one, two = (model.graph.initializers["b0"].const_value.numpy() for model in (result.model, again.model))
    assert np.array_equal(one, two)  # nothing was computed from what was held out


def test_no_cut_within_the_drop() -> None:
    metric = Flat(0.2)
    with pytest.raises(BudgetNotMet, match="GP304") as caught:
        gp.prune(residual(), macs=0.5, max_drop=0.1, metric=metric, calibration=data())
    assert "dense 1, at 99." in caught.value.where


def test_what_cannot_be_cut_that_far_is_a_probe_without_a_number() -> None:
    told: list[str] = []
    gp.prune(residual(), max_drop=0.5, metric=Flat(1.0), calibration=data(), tell=told.append, max_ratio=0.3)
    assert "GP301" in told[0] and any("metric 1" in line for line in told)


def test_after_an_interrupt_it_goes_on(tmp_path: Path) -> None:
    path, held = tmp_path / "probes.json", labelled(7)
    options: dict[str, Any] = {"max_drop": 0.1, "validation": held, "calibration": data(2), "probes": path}

    def stop(line: str) -> None:
        if line.startswith("[3]"):
            raise KeyboardInterrupt

    whole = gp.prune(residual(), **{**options, "probes": None})
    with pytest.raises(KeyboardInterrupt):
        gp.prune(residual(), **options, tell=stop)
    assert len(json.loads(path.read_text())["probes"]) == 3
    told: list[str] = []
    resumed = gp.prune(residual(), **options, resume=True, tell=told.append)
    assert resumed.plan.options["macs"] == whole.plan.options["macs"]
    assert told[0].startswith("[4]")
    told.clear()
    wider = gp.prune(residual(), **{**options, "max_drop": 0.3}, resume=True, tell=told.append)
    assert wider.plan.options["macs"] < whole.plan.options["macs"]  # the probes are of use for another drop, too
    with pytest.raises(GraphPruneError, match="probes with other options") as caught:
        gp.prune(residual(), **options, resume=True, criterion="l1")
    assert caught.value.code == "GP107"
    path.write_text("{}")
    with pytest.raises(GraphPruneError, match="not probes"):
        gp.prune(residual(), **options, resume=True)


def test_validation_data_is_no_calibration_data() -> None:
    with pytest.raises(GraphPruneError, match="GP711"):
        gp.prune(residual(), max_drop=0.1, validation=data(3)[2:], calibration=data())
    with pytest.raises(GraphPruneError, match="GP701"):
        gp.prune(residual(), max_drop=0.1)


def _fails(outputs: Any, labels: Any) -> float:
    return float(labels[0])


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ({"metric": "accuracy"}, "GP709", "no labels"),
        ({"metric": _fails}, "GP709", "(there are no labels): TypeError"),
        ({"metric": lambda outputs, labels: np.nan}, "GP709", "nan"),
        ({"metric": lambda outputs, labels: np.zeros(2)}, "GP709", "(2,)"),
        ({"metric": "acuracy"}, "GP106", "accuracy"),
        ({"metric": "no_such_module:it"}, "GP101", "no_such_module"),
        ({"metric": 3}, "GP107", "no function"),
        ({"max_drop": -1}, "GP107", "0.005"),
        ({"max_drop": float("nan")}, "GP107", "nan"),
        ({"ratio": 0.5}, "GP107", "one budget"),
        ({"macs": 0.5, "params": 0.5}, "GP107", "one budget"),
        ({"macs": 2}, "GP107", "share"),
        ({"resume": True}, "GP107", "nothing to go on from"),
    ],
)
def test_mistakes_are_told(options: dict[str, Any], code: str, words: str) -> None:
    with pytest.raises(GraphPruneError) as caught:
        gp.prune(residual(), **{"max_drop": 0.1, "calibration": data(2), **options})
    assert caught.value.code == code
    assert words in str(caught.value)


def test_accuracy_counts() -> None:
    outputs = [[np.array([[1.0, 2.0], [3.0, 0.0]])], [np.array([[0.0, 1.0]])]]
    assert measured("accuracy", outputs, [np.array([1, 1]), np.array([1])]) == pytest.approx(2 / 3)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model, calibration data, and other data with labels."""
    onnx.save(ir.to_proto(residual()), tmp_path / "dense.onnx")
    held = labelled(7)
    assert held.labels is not None
    np.savez(tmp_path / "data.npz", x=np.concatenate([case["x"] for case in data()]))
    np.savez(tmp_path / "other.npz", x=np.concatenate([case["x"] for case in held.cases]))
    np.save(tmp_path / "labels.npy", np.concatenate(held.labels))
    monkeypatch.chdir(tmp_path)
    return tmp_path


LINE = ["prune", "dense.onnx", "small.onnx", "--calibration", "data.npz", "--validation", "other.npz",
        "--validation-labels", "labels.npy"]  # fmt: skip


def test_on_the_command_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = [*LINE, "--max-drop", "10%", "--recover", "least_squares", "--probes", "probes.json"]
    assert main([*line, "--json"]) == 0
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert report["notes"][0].startswith("macs ") and "metric of the dense model 1;" in report["notes"][0]
    assert "[1] 5.0%" in err
    assert accuracy_of(gp.load("small.onnx"), labelled(7)) >= 0.9
    probes = json.loads(Path("probes.json").read_text())
    assert probes["schema"] == "graphprune.probes" and len(probes["probes"]) > 3
    assert main(line) == 2
    assert "GP107 there is a file of this name already" in capsys.readouterr().err
    assert main([*line, "--resume", "-q"]) == 0
    assert "[1]" not in capsys.readouterr().err


def test_what_is_not_met_writes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "worsening.py").write_text(
        "def worse(outputs, labels, seen=[]):\n    seen.append(1)\n    return -len(seen)\n"
    )
    assert main([*LINE, "--max-drop", "0", "--metric", "worsening:worse"]) == 1
    assert capsys.readouterr().err.splitlines()[-3].startswith("GP304")
    assert not (folder / "small.onnx").exists()


def test_an_interrupt_says_how_to_go_on(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        (folder / "probes.json").write_text("{}")  # as a probe leaves it
        raise KeyboardInterrupt

    monkeypatch.setattr("graphprune.drop.find", stop)
    with pytest.raises(SystemExit) as caught:
        main([*LINE, "--max-drop", "1%", "--probes", "probes.json"])
    assert caught.value.code == 130
    assert "goes on with --resume" in capsys.readouterr().err
    assert main([*LINE, "--max-drop", "1%"]) == 130


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--max-drop x", "not a drop"),
        ("--max-drop -1", "not a drop"),
        ("--max-drop 1% --ratio 0.5", "one budget"),
        ("--max-drop 1% --resume", "nothing to go on from"),
        ("", "--validation is about a drop of a metric, and there is none"),
    ],
)
def test_mistakes_on_the_command_line(folder: Path, capsys: pytest.CaptureFixture[str], line: str, words: str) -> None:
    assert main([*LINE, *line.split()]) == 2
    assert words in capsys.readouterr().err
    assert main(["prune", "dense.onnx", "s.onnx", "--max-drop", "1%", "--validation-labels", "labels.npy"]) == 2
    assert "validation data, and there is none" in capsys.readouterr().err
