"""`--recipe`: options that go together, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from graphprune.cli import main
from tests.recover.networks import data, residual


@pytest.fixture
def files(tmp_path: Path) -> Path:
    ir.save(residual(), tmp_path / "dense.onnx")
    np.savez(tmp_path / "data.npz", x=np.concatenate([case["x"] for case in data()]))
    return tmp_path


def run(*arguments: object) -> int:
    try:
        return int(main([str(each) for each in arguments]) or 0)
    except SystemExit as end:
        return int(end.code or 0)


def options(folder: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / "small.plan.json").read_text())["options"]
    return found


def test_auto_with_data_reconstructs(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dense, small = files / "dense.onnx", files / "small.onnx"
    assert run(dense, small, "--macs", "0.6", "--recipe", "auto", "--calibration", files / "data.npz") == 0
    assert options(files)["criterion"] == "obs"
    assert options(files)["recover"] == ["gauss_newton"]
    said = capsys.readouterr()
    assert "recipe reconstruct (there is calibration data)" in said.out + said.err


def test_auto_without_data_takes_magnitudes(files: Path) -> None:
    assert run(files / "dense.onnx", files / "small.onnx", "--macs", "0.6", "--recipe", "auto") == 0
    assert options(files)["criterion"] == "l2"
    assert "recover" not in options(files)


def test_what_is_given_comes_first(files: Path) -> None:
    more = ("--recipe", "reconstruct", "--calibration", files / "data.npz", "--allocate", "uniform")
    assert run(files / "dense.onnx", files / "small.onnx", "--macs", "0.6", *more) == 0
    assert options(files)["allocate"] == "uniform"
    assert options(files)["criterion"] == "obs"


@pytest.mark.parametrize(("recipe", "says"), [("aut", "did you mean 'auto'"), ("reconstruct", "GP704")])
def test_what_is_wrong_is_said(files: Path, recipe: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(files / "dense.onnx", files / "small.onnx", "--macs", "0.6", "--recipe", recipe) == 2
    assert says in capsys.readouterr().err
    assert not (files / "small.onnx").exists()
