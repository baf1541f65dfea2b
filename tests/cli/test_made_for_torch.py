"""`graphprune apply --made-for`: the plan of a module cuts the module's own ONNX export, and the other way round."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
pytest.importorskip("safetensors")
ort = pytest.importorskip("onnxruntime")

from graphprune.cli import main

MAKER = """
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(6, 12), nn.Linear(12, 16), nn.Linear(16, 3)

    def forward(self, rows):
        return self.last(self.second(self.first(rows).relu()).relu())
"""
MODULE = ("--weights", "weights.safetensors", "--input", "2,4,6")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module, its weights, its export dense.onnx, and a plan for the module."""
    import sys

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "linears", raising=False)
    Path("linears.py").write_text(MAKER)
    from importlib import import_module

    torch.manual_seed(0)
    model = import_module("linears").Net().eval()
    from safetensors.torch import save_file

    save_file(model.state_dict(), "weights.safetensors")
    rows = torch.randn(2, 4, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (rows,), "dense.onnx", dynamo=True, verbose=False, external_data=False)
        torch.export.save(torch.export.export(model, (rows,)), "dense.pt2")
    assert main(["plan", "linears:Net", *MODULE, "--ratio", "0.5", "-o", "net.plan.json", "-q"]) == 0
    return tmp_path


def run(path: str, rows: Any) -> Any:
    session = ort.InferenceSession(path)
    return session.run(None, {session.get_inputs()[0].name: rows})[0]


def test_the_plan_of_a_module_cuts_its_export(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["apply", "dense.onnx", "net.plan.json", "small.onnx", "--made-for", "linears:Net", *MODULE]) == 0
    assert "verified" in capsys.readouterr().out
    assert main(["apply", "linears:Net", "net.plan.json", "module.onnx", *MODULE, "-q"]) == 0
    rows = np.random.default_rng(0).standard_normal((2, 4, 6)).astype(np.float32)
    np.testing.assert_allclose(run("small.onnx", rows), run("module.onnx", rows), rtol=1e-4, atol=1e-5)
    ours, theirs = (
        json.loads(Path(name).read_text())["costs"]["planned"] for name in ("net.plan.json", "small.plan.json")
    )
    assert ours["macs"] == theirs["macs"]


def test_the_plan_of_an_export_cuts_the_module(folder: Path) -> None:
    assert main(["plan", "dense.onnx", "--ratio", "0.5", "-o", "file.plan.json", "-q"]) == 0
    assert main(["apply", "linears:Net", "file.plan.json", "small", *MODULE, "--made-for", "dense.onnx", "-q"]) == 0
    assert main(["apply", "dense.pt2", "file.plan.json", "small.pt2", "--made-for", "dense.onnx", "-q"]) == 0
    assert main(["apply", "dense.onnx", "file.plan.json", "small.onnx", "-q"]) == 0
    rows = np.random.default_rng(0).standard_normal((2, 4, 6)).astype(np.float32)
    found = torch.export.load("small.pt2").module()(torch.from_numpy(rows)).detach().numpy()
    np.testing.assert_allclose(found, run("small.onnx", rows), rtol=1e-4, atol=1e-5)
    assert torch.export.load("small.pt2").state_dict["second.weight"].numel() < 12 * 16


def test_without_it_the_plan_does_not_fit(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["apply", "dense.onnx", "net.plan.json", "small.onnx"]) == 2
    error = capsys.readouterr().err
    assert "GP501" in error and "first.weight:0" in error
    assert not Path("small.onnx").exists()


def test_another_network_has_no_such_groups(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither names nor numbers of the export are those of the module that the plan is said to be made for."""
    Path("others.py").write_text(MAKER.replace("first", "one").replace("second", "two").replace("last", "three"))
    assert main(["plan", "others:Net", *MODULE[2:], "--ratio", "0.5", "-o", "net.plan.json", "-q"]) == 0
    line = ["apply", "dense.onnx", "net.plan.json", "small.onnx", "--made-for", "others:Net", *MODULE[2:]]
    assert main(line) == 2
    error = capsys.readouterr().err
    assert "GP501" in error and "the same numbers" in error
    assert not Path("small.onnx").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("linears:Net", "--made-for", "linears:Net", *MODULE), "both models are made by a callable"),
        (("dense.onnx", "--made-for", "dense.pt2", *MODULE), "are for a module that a callable makes"),
        (("dense.onnx", "--made-for", "linears:Net"), "no input was given"),
        (("dense.onnx", "--made-for", "missing.onnx"), "GP101"),
    ],
)
def test_what_does_not_go_together(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    model, *rest = arguments
    out = "small" if model == "linears:Net" else "small.onnx"
    assert main(["apply", model, "net.plan.json", out, *rest]) == 2
    assert said in capsys.readouterr().err
    assert not Path(out).exists()
