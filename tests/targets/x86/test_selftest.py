"""`graphprune targets --verify`: what this machine can run is built, run and held against onnxruntime."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("tvm")
pytest.importorskip("onnxruntime")

import graphprune as gp
from graphprune.cli import main
from graphprune.errors import GraphPruneError
from graphprune.formats import FORMATS
from graphprune.targets.selftest import selftest


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """One format, one variant."""
    monkeypatch.setattr(type(FORMATS), "names", lambda registry: ["block"] if registry is FORMATS else ["x86"])
    monkeypatch.setenv("GRAPHPRUNE_CPU", "v1")


@pytest.mark.usefixtures("few")
def test_formats_and_variants_are_built_and_run(capsys: pytest.CaptureFixture[str]) -> None:
    rows = list(selftest())
    assert [(each.target, each.variant, each.format, each.failure) for each in rows] == [
        ("x86", "v1", "dense", ""),
        ("x86", "v1", "4x1", ""),
        ("x86", "v1", "int8", ""),
    ]
    assert all(each.error is not None and 0 < each.error < 1e-5 for each in rows[:2])
    assert rows[2].error is not None and rows[2].error < 2.1 / 255
    assert main(["targets", "--verify"]) == 0
    told = capsys.readouterr().out
    assert " 4x1                 error " in told and " int8                error " in told
    assert "not verified, because they do not run here: v4-amx, v4-amx-int8, v4-bf16, v4-vnni, v4, v3\n" in told


@pytest.mark.usefixtures("few")
def test_what_is_wrong_is_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def wrong(*_: Any, **__: Any) -> Any:
        raise GraphPruneError("GP403", "the output 'y' of v1 is off by 1.0e+00", "model.onnx")

    monkeypatch.setattr(gp, "build", wrong)
    assert main(["targets", "--verify"]) == 1
    assert "GP403 the output 'y' of v1 is off by 1.0e+00" in capsys.readouterr().out


@pytest.mark.usefixtures("few")
def test_what_is_not_installed_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any, **__: Any) -> Any:
        raise GraphPruneError("GP108", "building for x86 needs TVM")

    monkeypatch.setattr(gp, "build", missing)
    with pytest.raises(GraphPruneError, match="GP108"):
        list(selftest())
