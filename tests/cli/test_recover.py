"""`--recover` on the command line, from end to end, and the list of recoveries."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import graphprune as gp
from graphprune import api
from graphprune.cli import main, recoveries
from graphprune.dialects import tools_of
from graphprune.recover import RECOVERIES
from graphprune.registry import Registry
from graphprune.verify import Check, Verification
from tests.recover.networks import data, residual

LINE = ["--macs", "0.6", "--calibration", "data.npz", "--batch", "16"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with dense.onnx and data.npz."""
    onnx.save(ir.to_proto(residual()), tmp_path / "dense.onnx")
    np.savez(tmp_path / "data.npz", x=np.concatenate([case["x"] for case in data()]))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def error_of(path: str) -> float:
    """The mean squared error of a pruned file on data that nothing was computed from."""
    models = [gp.load(name) for name in ("dense.onnx", path)]
    runs = [tools_of(each).runner(each) for each in models]
    return float(np.mean([np.square(runs[0](case)[0] - runs[1](case)[0]).mean() for case in data(seed=1)]))


@pytest.mark.parametrize("command", [[], ["prune"]])
def test_a_recovered_model_is_closer(folder: Path, capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    assert main([*command, "dense.onnx", "plain.onnx", *LINE, "-q"]) == 0
    assert main([*command, "dense.onnx", "small.onnx", *LINE, "--recover", "least_squares"]) == 0
    found = capsys.readouterr()
    assert "least_squares: " in found.out and "looks at no data" not in found.err
    assert "interface, permutation, control, mask" in found.out  # of the cut in memory, then of the file
    assert error_of("small.onnx") < 0.5 * error_of("plain.onnx")
    assert json.loads(Path("small.plan.json").read_text())["options"]["recover"] == ["least_squares"]
    assert main(["verify", "dense.onnx", "small.onnx"]) == 0


def test_several_in_order(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dense.onnx", "small.onnx", *LINE, "--recover", "least_squares, batch_norm", "--json"]) == 0
    notes = json.loads(capsys.readouterr().out)["notes"]
    assert [note.split(":")[0] for note in notes[1:]] == ["least_squares", "batch_norm", "recovery"]


def test_none_is_the_cut_alone(folder: Path) -> None:
    assert main(["dense.onnx", "small.onnx", "--macs", "0.6", "--recover", "none", "-q"]) == 0
    assert "recover" not in json.loads(Path("small.plan.json").read_text())["options"]


def test_a_dry_run_recovers_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dense.onnx", "small.onnx", *LINE, "--recover", "bias", "--dry-run"]) == 0
    assert "bias: " not in capsys.readouterr().out and not Path("small.onnx").exists()


def test_a_plan_that_is_applied_again_is_verified_as_a_cut(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dense.onnx", "small.onnx", *LINE, "--recover", "bias", "-q"]) == 0
    assert main(["apply", "dense.onnx", "small.plan.json", "again.onnx"]) == 0
    found = capsys.readouterr()
    assert "was made with --recover bias" in found.err and "mask" in found.out
    assert "recover" not in json.loads(Path("again.plan.json").read_text())["options"]


def test_what_goes_wrong(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def lines(*more: str) -> list[str]:
        assert main(["dense.onnx", "small.onnx", "--macs", "0.6", *more]) == 2
        return capsys.readouterr().err.splitlines()

    assert lines("--recover", "least_sqares")[-1].startswith("  fix did you mean 'least_squares'?")
    assert lines("--recover", "bias")[0] == "GP704 the recovery 'bias' needs calibration data"
    assert lines("--recover", "bias", "--calibration", "none.npz")[0] == "GP101 there is no such file"
    assert not Path("small.onnx").exists()


@pytest.mark.parametrize("keep", [False, True])
def test_a_wrong_cut_is_not_recovered(folder: Path, monkeypatch: pytest.MonkeyPatch, keep: bool) -> None:
    wrong = Verification((Check("mask", "y", 1.0, 0.0, False),))
    monkeypatch.setattr(api, "verify", lambda *_, **__: wrong)
    more = ["--keep-failed"] if keep else []
    assert main(["dense.onnx", "small.onnx", *LINE, "--recover", "bias", *more]) == 1
    assert Path("small.onnx").exists() == keep


def test_all_recoveries_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recoveries", "--json"]) == 0
    found = {each["name"]: each for each in json.loads(capsys.readouterr().out)}
    assert set(found) >= set(RECOVERIES.builtin)
    assert all(each["does"] and each["error"] is None for each in found.values())
    assert main(["recoveries"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["recovery", *RECOVERIES.names()]


def test_one_that_cannot_be_loaded_hides_no_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = Registry("graphprune.recoveries", {"broken": "no_such_module:It", "bias": RECOVERIES.builtin["bias"]})
    monkeypatch.setattr(recoveries, "RECOVERIES", broken)
    assert main(["recoveries", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found[1]["name"] == "broken" and found[1]["error"].startswith("GP111") and found[0]["error"] is None
