"""`graphprune bench MODEL ARTIFACT`: runtimes in processes of their own, in turns."""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from graphprune.cli import main
from graphprune.dialects.onnx import peers
from tests.runtime import handmade
from tests.runtime.conftest import compiler  # noqa: F401  # a fixture


@pytest.fixture
def place(
    compiler: None,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    pytest.importorskip("onnxruntime")
    if not hasattr(signal, "SIGSTOP"):
        pytest.skip("needs SIGSTOP")
    onnx.save(handmade.model(), tmp_path / "model.onnx")
    handmade.artifact(tmp_path / "model.gp", handmade.network("v1", kind="plain"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def data(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_every_runtime_has_a_row_for_each_number_of_threads(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "model.onnx", "model.gp", "--threads", "1,2", "--seconds", "0.2", "--json"]) == 0
    rows = [row for row in data(capsys) if row["runtime"] != "openvino"]
    assert [(row["runtime"], row["threads"]) for row in rows] == [
        ("onnxruntime", 1),
        ("graphprune", 1),
        ("onnxruntime", 2),
        ("graphprune", 2),
    ]
    for row in rows:
        assert 0 < row["p50"] <= row["p90"] < 1
        assert 0 < row["low"] <= row["speedup"] <= row["high"]
        assert row["rounds"] >= 15 and row["error"] == 0
    assert rows[1]["version"].endswith(" v1")
    assert rows[0]["speedup"] == pytest.approx(1)


def test_as_a_table(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "model.onnx", "model.gp", "--seconds", "0.2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["threads", "runtime"]
    assert "onnxruntime" in lines[1] and any(" graphprune " in line for line in lines)
    assert "rounds in turns on 1 thread; onnxruntime differs from itself by up to" in lines[-1]


def test_an_artifact_of_another_model_is_seen_in_the_error(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = handmade.network("v1", kind="plain", bias=handmade.BIAS + np.float32(1))
    handmade.artifact(place / "other.gp", other)
    assert main(["bench", "model.onnx", "other.gp", "--seconds", "0.2", "--json"]) == 0
    assert {row["runtime"]: row["error"] > 0.01 for row in data(capsys) if row["runtime"] != "openvino"} == {
        "onnxruntime": False,
        "graphprune": True,
    }


def test_what_a_runtime_says_when_it_fails(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(handmade.model(rows=5), place / "other.onnx")
    assert main(["bench", "other.onnx", "model.gp"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("GP402 onnxruntime cannot run it: ") and "Expected: 5" in err


def test_a_damaged_artifact_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (library,) = (place / "model.gp").glob("*.so")
    library.write_bytes(library.read_bytes()[:-1])
    assert main(["bench", "model.onnx", "model.gp"]) == 2
    assert capsys.readouterr().err.startswith("GP509 ")


@pytest.mark.parametrize(
    ("line", "first"),
    [
        ("bench model.onnx model.gp --threads 0", "GP107 '0' is not one or several numbers of threads"),
        ("bench model.onnx model.gp --threads 1,", "GP107 '1,' is not one or several numbers of threads"),
        ("bench model.onnx model.onnx --threads 1", "GP107 --threads is for artifacts"),
        ("bench model.onnx model.onnx --python openvino=python", "GP107 --python is for artifacts"),
        ("bench model.onnx model.gp --python openvino", "GP107 'openvino' is not a runtime and the path of a Python"),
        ("bench model.onnx model.gp --python openvin=python", "GP106 there is no runtime 'openvin'"),
        ("bench model.onnx model.gp --python onnxruntime=no/python", "GP101 no/python cannot be run"),
        ("bench model.onnx no.gp", "GP101 "),
    ],
)
def test_mistakes(place: Path, capsys: pytest.CaptureFixture[str], line: str, first: str) -> None:
    assert main(line.split()) == 2
    assert capsys.readouterr().err.startswith(first)


def test_no_process_is_left(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    begin = peers._Worker.__init__

    def watched(self: Any, *arguments: Any) -> None:
        begin(self, *arguments)
        started.append(self.process)

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(peers._Worker, "__init__", watched)
    monkeypatch.setattr(peers, "_rounds", interrupt)
    with pytest.raises(KeyboardInterrupt):
        peers.compare("model.onnx", "model.gp")
    assert len(started) >= 2 and all(each.returncode is not None for each in started)


def test_workers_are_told_how_many_threads(place: Path) -> None:
    worker = peers._Worker("graphprune", "model.gp", 3, os.fspath(place), sys.executable)
    try:
        environment = Path(f"/proc/{worker.process.pid}/environ")
        if not environment.exists():
            pytest.skip("reads /proc")
        told = b""
        for _ in range(1000):  # it is empty until the program has begun
            told = told or environment.read_bytes()
            time.sleep(0 if told else 0.01)
        assert b"TVM_NUM_THREADS=3\0" in told
    finally:
        worker.__exit__()
