"""`--latency` from the command line, with times that are made up."""

from __future__ import annotations

import json
from pathlib import Path

import onnx_ir as ir
import pytest

from graphprune.cli import main
from graphprune.dialects.onnx.tools import OnnxTools
from graphprune.latency.table import Table
from tests.recover.networks import residual
from tests.stopwatch import Fake


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def stopwatch(self: OnnxTools, program: object, *, threads: int | None = None, **inputs: object) -> Fake:
        return Fake(machine=f"a fake, {threads} thread")

    monkeypatch.setattr(OnnxTools, "stopwatch", stopwatch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    ir.save(residual(), tmp_path / "dense.onnx")
    return tmp_path


def run(*arguments: object) -> int:
    try:
        return int(main([str(each) for each in arguments]) or 0)
    except SystemExit as end:
        return int(end.code or 0)


def test_prune_measures_and_says_so(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = files / "table.json"
    asked = ("--latency", "90%", "--params", "0.8", "--threads", 1, "--latency-table", table)
    assert run(files / "dense.onnx", files / "small.onnx", *asked, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["predicted"]["pruned"] <= 0.9 * report["predicted"]["dense"] + 1e-9
    assert report["timing"]["rounds"] >= 15
    assert any("1 thread" in note for note in report["notes"])
    assert "1 thread" in Table.load(table).machine
    plan = json.loads((files / "small.plan.json").read_text())
    assert plan["options"]["latency"] == 0.9
    assert plan["costs"]["planned"]["parameters"] <= 0.8 * plan["costs"]["dense"]["parameters"]


def test_a_plan_by_the_same_table_is_the_same(files: Path) -> None:
    asked = (files / "dense.onnx", "--latency", "0.9", "--threads", 1)
    assert run("plan", *asked, "-o", files / "first.json") == 0
    assert run("plan", *asked, "-o", files / "second.json") == 0
    assert (files / "first.json").read_bytes() == (files / "second.json").read_bytes()
    assert len(list((files / "cache").rglob("*.json"))) == 1


def test_threads_are_those_of_latency(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(files / "dense.onnx", files / "small.onnx", "--macs", "0.6", "--threads", 1) == 2
    assert "--threads is about times" in capsys.readouterr().err


def test_a_table_that_is_none(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "table.json").write_text("{}")
    asked = ("--latency", "0.9", "--latency-table", files / "table.json")
    assert run(files / "dense.onnx", files / "small.onnx", *asked) == 2
    assert "GP514" in capsys.readouterr().err
    assert not (files / "small.onnx").exists()
