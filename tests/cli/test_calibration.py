"""Calibration data on the command line, from end to end."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from graphprune.cli import main
from tests.models.case import seeded

DATA = np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    model = seeded("""
    rows (float[batch, 6] x) => (float[batch, 3] y)
    <float[6, 16] "first", float[16, 3] "second">
    {
        a = MatMul(x, "first")
        b = Relu(a)
        y = MatMul(b, "second")
    }""")
    onnx.save(model, tmp_path / "dense.onnx")
    np.savez(tmp_path / "data.npz", x=DATA)
    np.save(tmp_path / "data.npy", DATA)
    (tmp_path / "loading.py").write_text("import numpy\ndef batches():\n    yield numpy.load('data.npy')[:8]\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def planned(capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, object]:
    assert main(["plan", "dense.onnx", "--macs", "0.6", *more]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)["options"]
    return found


def failed(capsys: pytest.CaptureFixture[str], *more: str) -> list[str]:
    assert main(["plan", "dense.onnx", "--macs", "0.6", *more]) == 2
    return capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("data.npz", "arrays: 40 samples in 2 batches"),
        ("data.npy", "arrays: 40 samples in 2 batches"),
        ("loading:batches", "batches: 8 samples in 1 batches"),
        ("noise", "noise, no data: 512 samples in 16 batches"),
    ],
)
def test_a_plan_from_data(folder: Path, capsys: pytest.CaptureFixture[str], source: str, shown: str) -> None:
    options = planned(capsys, "--criterion", "wanda", "--calibration", source)
    assert str(options["calibration"]).startswith(f"{shown}, sha256 ")
    assert options == planned(capsys, "--criterion", "wanda", "--calibration", source)


def test_samples_and_batches(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = planned(capsys, "--criterion", "flap", "--calibration", "data.npz", "--samples", "10", "--batch", "4")
    assert str(options["calibration"]).startswith("arrays: 10 samples in 3 batches")


def test_labels(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save("labels.npy", np.arange(40))
    options = planned(capsys, "--criterion", "apoz", "--calibration", "data.npz", "--labels", "labels.npy")
    assert str(options["calibration"]).startswith("arrays: 40 samples with labels")


def test_the_short_form_prunes_by_activations(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["dense.onnx", "small.onnx", "--macs", "0.6", "--criterion", "thinet", "--calibration", "data.npz"]
    assert main(line) == 0
    out = capsys.readouterr().out
    assert "verified: " in out and "calibration data: arrays: 40 samples in 2 batches, sha256 " in out


def test_what_goes_wrong(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert failed(capsys, "--criterion", "wanda")[0].startswith("GP704 the criterion 'wanda' needs calibration data")
    assert failed(capsys, "--samples", "3")[0] == "GP107 --samples is about calibration data, and there is none"
    assert failed(capsys, "--criterion", "wanda", "--calibration", "none.npz")[0] == "GP101 there is no such file"
    assert failed(capsys, "--criterion", "wnada")[-1].startswith("  fix did you mean 'wanda'?")
    assert failed(capsys, "--calibration", "noise", "--mean", "a")[0].startswith("GP107 'a' is neither a number")
    np.savez("other.npz", z=DATA)
    lines = failed(capsys, "--criterion", "wanda", "--calibration", "other.npz")
    assert lines[0] == "GP702 other.npz has 'z', which is no input of the model"
    np.save("bad.npy", np.full((4, 6), np.inf, np.float32))
    assert failed(capsys, "--criterion", "wanda", "--calibration", "bad.npy")[0].startswith("GP703 bad.npy has numbers")


def test_data_that_nothing_looks_at_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "dense.onnx", "--macs", "0.6", "--calibration", "data.npz"]) == 0
    assert "the criterion l2 looks at no data" in capsys.readouterr().err


def test_images_with_their_statistics(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = pytest.importorskip("PIL.Image")
    model = seeded("""
    images (float[batch, 3, 8, 8] x) => (float[batch, 4, h, w] y)
    <float[8, 3, 3, 3] "first", float[4, 8, 3, 3] "second">
    {
        a = Conv(x, "first")
        y = Conv(a, "second")
    }""")
    onnx.save(model, "images.onnx")
    for kind in ("a", "b"):
        Path("pictures", kind).mkdir(parents=True)
        image.new("RGB", (12, 9), (200, 100, 50)).save(Path("pictures", kind, "it.png"))
    line = ["plan", "images.onnx", "--macs", "0.6", "--criterion", "chip", "--calibration", "pictures"]
    assert main([*line, "--labels", "folders", "--mean", "0.5,0.4,0.3", "--std", "0.2"]) == 0
    options = json.loads(capsys.readouterr().out)["options"]
    assert options["calibration"].startswith("images: 2 samples with labels in 1 batches")
