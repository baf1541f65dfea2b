"""Sweeps: rows are what a cut by hand measures, controls are among them, and what was done is not done again."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import graphprune as gp
from graphprune.cli import main
from graphprune.cli.sweep import shares
from graphprune.dialects import tools_of
from graphprune.errors import GraphPruneError
from graphprune.fidelity import relative_error
from graphprune.program import Array
from graphprune.sweep import split, sweep
from graphprune.sweep_text import Head, Row, Sweep, load
from tests.models.case import seeded

DATA = np.random.default_rng(0).standard_normal((64, 6)).astype(np.float32)
LINE = ["sweep", "dense.onnx", "--macs", "0.5,0.7", "--calibration", "data.npz", "--batch", "8"]


def dense() -> onnx.ModelProto:
    return seeded("""
    rows (float[batch, 6] x) => (float[batch, 3] y)
    <float[6, 16] "first", float[16, 3] "second">
    {
        a = MatMul(x, "first")
        b = Relu(a)
        y = MatMul(b, "second")
    }""")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    onnx.save(dense(), tmp_path / "dense.onnx")
    np.savez(tmp_path / "data.npz", x=DATA)
    (tmp_path / "judging.py").write_text("def largest(outputs, labels):\n    return max(o[0].max() for o in outputs)\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made(**options: Any) -> Any:
    analysis = gp.analyze(ir.from_proto(dense()))
    data = gp.calibration(DATA, analysis, batch=8)
    return sweep(analysis, calibration=data, macs=[0.6], criteria=["wanda"], seeds=(3, 4), **options)


def test_rows_are_what_cuts_by_hand_measure() -> None:
    analysis = gp.analyze(ir.from_proto(dense()))
    fit, held = split(gp.calibration(DATA, analysis, batch=8))
    assert (len(fit.cases), len(held.cases)) == (6, 2)
    rows = {(row.criterion, row.recover): row for row in made(recover=["none", "least_squares"]).rows}
    run = tools_of(analysis.program.native).runner(analysis.program.native)
    for way in ("none", "least_squares"):
        small = gp.prune(analysis.program.native, macs=0.6, criterion="wanda", seed=3, calibration=fit, recover=way)
        other = tools_of(small.model).runner(small.model)
        pairs = [(run(case)[0], other(case)[0]) for case in held.cases]
        error = sum(np.square(a - b).sum() for a, b in pairs) / sum(np.square(a).sum() for a, _ in pairs)
        assert rows["wanda", way].error == pytest.approx(float(error), rel=1e-5)
        assert rows["wanda", way].macs == pytest.approx(small.report.pruned.macs / small.report.dense.macs)


def test_controls_are_there_and_only_what_is_random_is_repeated() -> None:
    found = made()
    assert {(row.criterion, row.seed) for row in found.rows} == {("wanda", 3), ("random", 3), ("random", 4), ("l1", 3)}
    means = {each.criterion: each for each in found.means()}
    assert means["random"].count == 2 and means["random"].spread > 0
    assert means["l1"].count == 1 and math.isnan(means["l1"].spread)
    assert "±" in found.table()


def test_a_metric_sees_outputs_and_labels() -> None:
    seen = []

    def count(outputs: list[list[Array]], labels: Any) -> float:
        seen.append(labels)
        return sum(len(batch[0]) for batch in outputs)

    found = made(metric=count)
    assert found.dense_metric == 16 and {row.metric for row in found.rows} == {16} and set(seen) == {None}
    assert "the metric of the dense model is 16" in found.table()
    with pytest.raises(GraphPruneError, match="return one number"):
        made(metric=lambda outputs, labels: np.zeros(3))
    with pytest.raises(GraphPruneError, match="GP709 there are no labels"):
        made(metric="accuracy")
    with pytest.raises(GraphPruneError, match=r"GP709 the metric failed .*ZeroDivisionError"):
        made(metric=lambda outputs, labels: 1 / 0)


def test_a_budget_that_cannot_be_met_is_in_its_row() -> None:
    found = made(max_ratio=0.1)
    assert all(row.failure.startswith("GP301") for row in found.rows)
    assert "GP301" in found.table()


def test_what_a_comparison_lacks_is_told() -> None:
    def found(targets: int, seeds: int, metric: float, without: str = "", failure: str = "") -> Sweep:
        rows = [
            Row(name, seed, target / 10, "none", 0.5, 0.5, 0.1, 0.9, failure=failure if target == 2 else "")
            for name in ("random", "l1", "obs")
            for target in range(1, 1 + targets)
            for seed in range(seeds if name == "random" else 1)
            if (name, target) != (without, 3)
        ]
        return Sweep(Head("model", "weights", "data", 1, "macs", {}), tuple(rows), metric)

    whole = found(5, 3, 0.9)
    assert whole.lacks() == () and "it lacks" not in whole.table() and whole.to_dict()["lacks"] == []
    for other, lacking in (
        (found(4, 3, 0.9), "5 budgets (4)"),
        (found(5, 2, 0.9), "3 seeds of what is drawn (2)"),
        (found(5, 3, math.nan), "a metric"),
        (found(5, 3, 0.9, without="random"), "random at each budget"),
        (found(5, 3, 0.9, without="l1"), "l1 at each budget"),
    ):
        assert other.lacks() == (lacking,) and other.table().endswith(f"it lacks {lacking}")
    assert "a number in every row" in found(5, 3, 0.9, failure="GP301").lacks()


def test_an_interrupt_loses_one_row(tmp_path: Path) -> None:
    path, told = tmp_path / "sweep.json", list[str]()

    def stop(text: str) -> None:
        told.append(text)
        if len(told) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made(path=path, tell=stop)
    assert len(load(path).rows) == 2
    again: list[str] = []
    found = made(path=path, resume=True, tell=again.append)
    assert len(again) == 2 and len(found.rows) == 4
    once = made()
    assert [(row.key, row.error) for row in found.rows] == [(row.key, row.error) for row in once.rows]
    more: list[str] = []
    made(path=path, resume=True, recover=["none", "bias"], tell=more.append)
    assert len(more) == 4  # only what is new
    with pytest.raises(GraphPruneError, match="other options"):
        made(path=path, resume=True, normalize="max")


def test_other_weights_and_other_data_do_not_go_on(tmp_path: Path) -> None:
    path = tmp_path / "sweep.json"
    made(path=path)
    analysis = gp.analyze(ir.from_proto(dense()))
    with pytest.raises(GraphPruneError, match="other data"):
        sweep(analysis, calibration=gp.calibration(DATA * 2, analysis, batch=8), macs=[0.6], path=path, resume=True)
    path.write_text("{}")
    with pytest.raises(GraphPruneError, match="not a sweep"):
        made(path=path, resume=True)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"macs": 0.5}, "GP107"),
        ({"macs": [0.5], "ratio": [0.5]}, "GP107"),
        ({"macs": [0.5], "criteria": ["wnada"]}, "GP106"),
        ({"macs": [0.5], "recover": ["bais"]}, "GP106"),
        ({"macs": [0.5], "calibration": None}, "GP704"),
        ({"macs": [0.5], "calibration": [DATA]}, "GP701"),
        ({"macs": [0.5], "seeds": []}, "GP107"),
    ],
)
def test_what_goes_wrong(options: dict[str, Any], code: str) -> None:
    with pytest.raises(GraphPruneError) as caught:
        sweep(ir.from_proto(dense()), **{"calibration": DATA, **options})
    assert caught.value.code == code


def test_errors_of_other_types() -> None:
    assert relative_error([np.ones(2)], [np.array([np.nan, 1.0])]) == math.inf
    assert relative_error([np.ones(2)], [np.ones(3)]) == math.inf
    assert relative_error([np.zeros(2)], [np.zeros(2)]) == 0


# ---------------------------------------------------------------- the command
def test_the_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = [*LINE, "--criterion", "wanda", "--recover", "none,least_squares", "--metric", "judging:largest"]
    assert main([*line, "--json", "sweep.json", "--seeds", "0,1"]) == 0
    found = capsys.readouterr()
    assert found.out.split()[:5] == ["macs", "criterion", "recover", "MACs", "error"]
    assert "[1/16] wanda, seed 0, 50%, recover none: error" in found.err and "wrote sweep.json" in found.err
    assert len(json.loads(Path("sweep.json").read_text())["rows"]) == 16
    assert main([*line, "--json", "sweep.json"]) == 2
    assert "--resume" in capsys.readouterr().err
    assert main([*line, "--json", "sweep.json", "--seeds", "0,1", "--resume"]) == 0
    assert "[1/" not in capsys.readouterr().err


def test_an_interrupted_command_says_how_to_go_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(self: Row) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(Row, "__str__", stop)
    with pytest.raises(SystemExit) as caught:
        main([*LINE, "--json", "sweep.json"])
    assert caught.value.code == 130 and "goes on with --resume" in capsys.readouterr().err
    assert len(load("sweep.json").rows) == 1


def test_wrong_command_lines(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def first(*line: str) -> str:
        assert main([*line]) == 2
        return capsys.readouterr().err.splitlines()[0]

    assert first("sweep", "dense.onnx", "--macs", "0.5").startswith("GP704 errors are measured on data")
    assert first(*LINE, "--resume") == "GP107 there is nothing to go on from"
    assert first(*LINE, "--png", "sweep.svg") == "GP107 the picture of a sweep is a .png"
    assert first(*LINE, "--seeds", "a") == "GP107 'a' are not seeds"
    assert first("sweep", "dense.onnx", "--macs", "0.9:0.3:0.1") == "GP107 '0.9:0.3:0.1' is a range of -5 shares"


def test_ranges() -> None:
    assert shares("0.3:0.9:0.1", "--macs") == (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    assert shares("0:0.5:0.25", "--ratio") == (0.0, 0.25, 0.5)


def test_the_picture(folder: Path) -> None:
    pytest.importorskip("matplotlib")
    assert main([*LINE, "--recover", "none,bias", "--png", "sweep.png", "-q"]) == 0
    assert Path("sweep.png").read_bytes().startswith(b"\x89PNG")
