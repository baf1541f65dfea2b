"""`graphprune sparsify` on exported programs and on modules that a callable makes."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from safetensors.torch import load_file, save_file

import graphprune as gp
from graphprune.cli import main
from graphprune.sparsity.zeros import zeros_of
from tests.torch.small import images
from tests.torch.test_sparse import Wide

LINE = ("--format", "4x1", "--sparsity", "0.75")
MAKER = """
from tests.torch.test_sparse import Wide


def wide():
    return Wide()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with dense.pt2, nets.py and weights.safetensors, all of one network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "nets", raising=False)
    torch.manual_seed(0)
    model = Wide().eval()
    torch.export.save(torch.export.export(model, (images(1),)), "dense.pt2")
    save_file(model.state_dict(), "weights.safetensors")
    Path("nets.py").write_text(MAKER)
    return tmp_path


def module(out: str, *more: str) -> int:
    shape = ",".join(map(str, images(1).shape))
    return main(["sparsify", "nets:wide", out, "--weights", "weights.safetensors", "--input", shape, *LINE, *more])


def test_a_program_stays_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sparsify", "dense.pt2", "sparse.pt2", *LINE, "--json"]) == 0
    report: Any = json.loads(capsys.readouterr().out)
    assert report["verification"]["ok"] and report["written"] == ["sparse.pt2"]
    state = torch.export.load("sparse.pt2").state_dict
    dense = load_file("weights.safetensors")
    for name in ("second.weight", "middle.weight"):
        kept = state[name] != 0
        assert 1 - kept.double().mean() == 0.75
        assert torch.equal(state[name][kept], dense[name][kept])
    assert torch.equal(state["first.weight"], dense["first.weight"])
    assert main(["inspect", "sparse.pt2"]) == 0
    assert "second.weight  75.0%  4x1 (75.0%)" in capsys.readouterr().out


@pytest.mark.parametrize("source", ["program", "module"])
def test_an_onnx_file_has_the_zeros(folder: Path, source: str) -> None:
    done = module("s.onnx", "-q") if source == "module" else main(["sparsify", "dense.pt2", "s.onnx", *LINE, "-q"])
    assert done == 0
    found = zeros_of(gp.analyze(gp.load("s.onnx")))
    assert [each.sparsity for each in found] == [0.75, 0.75]


def test_weights_alone_fit_the_class(folder: Path) -> None:
    assert module("sparse.safetensors", "-q") == 0
    fresh = Wide()
    fresh.load_state_dict(load_file("sparse.safetensors"))
    assert np.mean(fresh.second.weight.detach().numpy() == 0) == 0.75


def test_a_dry_run_writes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = set(os.listdir())
    assert module("s.onnx", "--dry-run") == 0
    assert capsys.readouterr().out.endswith("dry run: nothing was written\n")
    assert set(os.listdir()) - {"__pycache__"} == before - {"__pycache__"}


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("dense.pt2 out.safetensors", "GP107", ".pt2, .onnx"),
        ("dense.pt2 folder", "GP107", "as a folder"),
        ("nets:wide out.bin --input 1,3,8,8", "GP107", ".safetensors"),
        ("dense.pt2 dense.pt2", "GP104", "--in-place"),
        ("dense.pt2 gone/s.pt2", "GP105", "folder does not exist"),
    ],
)
def test_mistakes_are_told(folder: Path, capsys: pytest.CaptureFixture[str], line: str, code: str, words: str) -> None:
    assert main(["sparsify", *line.split(), *LINE]) == 2
    err = capsys.readouterr().err
    assert err.startswith(code) and words in err
