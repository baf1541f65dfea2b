"""The example of docs/accuracy.md runs as it stands there, and its tables name what there is."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import graphprune as gp
from graphprune.allocate import ALLOCATORS
from graphprune.calibrate import Moments
from graphprune.cli import main
from graphprune.criteria import CRITERIA
from graphprune.recover import RECOVERIES
from tests.recover.networks import data, residual

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "accuracy.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    onnx.save(ir.to_proto(residual()), tmp_path / "model.onnx")
    np.savez(tmp_path / "test.npz", x=data()[0]["x"])
    np.savez(tmp_path / "data.npz", x=np.concatenate([case["x"] for case in data()] * 8)[:256])
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_the_commands(folder: Path) -> None:
    (text,) = blocks("sh")
    for line in text.splitlines():
        name, *arguments = shlex.split(line)
        assert name == "graphprune" and main(arguments) == 0, line
    assert {each.name for each in folder.iterdir()} >= {"sweep.json", "small.onnx", "small.plan.json"}


@pytest.mark.slow
def test_the_python_example(folder: Path) -> None:
    found: dict[str, Any] = {}
    exec(compile("\n".join(blocks("python")), "docs/accuracy.md", "exec"), found)
    assert found["best"].recover == "least_squares"
    assert found["audited"].models[0].distances["noise"].error > 0


@pytest.mark.parametrize("registry", [CRITERIA, ALLOCATORS, RECOVERIES], ids=lambda each: each.group)
def test_the_tables_name_what_there_is(registry: object) -> None:
    rows = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    named = set(re.findall(r"`(\w+)`", " ".join(rows)))
    assert set(getattr(registry, "builtin")) <= named  # noqa: B009


def test_the_criterion_of_the_page_on_extending() -> None:
    page = (ROOT / "docs" / "extending.md").read_text()
    text = re.search(r"^@dataclass\(frozen=True\)\nclass Energy:\n.*?(?=^```)", page, re.MULTILINE | re.DOTALL)
    assert text is not None
    found = {"dataclass": dataclass, "ClassVar": ClassVar, "Moments": Moments, "np": np}
    exec(compile(text[0], "docs/extending.md", "exec"), found)
    dense = residual()
    cases = np.concatenate([case["x"] for case in data()])
    assert gp.plan(dense, macs=0.6, criterion=found["Energy"], calibration=cases).groups
