"""`graphprune build`, `run` and `targets`, with networks that were made by hand in the place of the compiler's."""

import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest

from graphprune.cli import main
from tests.runtime import handmade
from tests.runtime.conftest import compiler  # noqa: F401  # a fixture


@pytest.fixture
def place(
    compiler: None,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """The current folder, with model.onnx; the compiler makes what it computes."""
    module = ModuleType("a_compiler")
    module.build = lambda model, shapes, variants, threads, tune: handmade.network(  # type: ignore[attr-defined]
        *(each.name for each in variants), kind="plain"
    )
    monkeypatch.setitem(sys.modules, "a_compiler", module)
    monkeypatch.setattr("graphprune.targets.x86.target._COMPILER", "a_compiler")
    onnx.save(handmade.model(), tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def data(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_build_and_run(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", "model.onnx", "-o", "small.gp", "--variants", "v3,v1"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].split()[:3] == ["variant", "runs", "here"]
    assert [line.split()[0] for line in out[1:3]] == ["v3", "v1"]
    assert "error 0.0e+00 of " in out[1]
    assert out[-1] == "wrote small.gp"
    x = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
    np.save("x.npy", x)
    assert main(["run", "small.gp", "--input", "x=x.npy", "-o", "y.npz"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("y: float32[4, 6]  0 to ") and out[-1] == "wrote y.npz"
    with np.load("y.npz", allow_pickle=False) as found:
        assert found.files == ["y"] and np.array_equal(found["y"], handmade.expected(x))
    assert sorted(os.listdir(place)) == ["model.onnx", "small.gp", "x.npy", "y.npz"]


def test_the_artifact_is_named_after_the_model(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", "model.onnx", "--variants", "v1", "--json"]) == 0
    report = data(capsys)
    assert report["written"] == "model.gp" and report["verification"][0]["ok"] is True
    assert report["variants"][0]["layers"][0]["kernel"] == "chain"
    assert main(["build", "model.onnx", "--variants", "v1"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "GP105 cannot write: it exists",
        "  at  model.gp",
        "  fix allow replacing it with --force",
    ]
    assert main(["build", "model.onnx", "--variants", "v1", "--force", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_fallbacks_are_named(place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    build = lambda *_: handmade.network("v1", kind="stepping")  # noqa: E731
    monkeypatch.setattr(sys.modules["a_compiler"], "build", build)
    assert main(["build", "model.onnx", "--no-verify"]) == 0
    out = capsys.readouterr().out
    assert "onnxruntime runs Add Add_1: no kernel adds a number to itself\n" in out
    assert "not compared" in out


def test_a_wrong_build_is_not_written(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = handmade.BIAS + np.float32(0.5)
    monkeypatch.setattr(sys.modules["a_compiler"], "build", lambda *_: handmade.network("v1", kind="plain", bias=wrong))
    assert main(["build", "model.onnx"]) == 1
    assert capsys.readouterr().err.startswith("GP403 the output 'y' of v1 is off by ")
    assert os.listdir(place) == ["model.onnx"]


@pytest.mark.parametrize(
    ("line", "first"),
    [
        ("build no.onnx", "GP101 there is no such file"),
        ("build model.onnx --target x68", "GP106 no 'x68' in graphprune.targets"),
        ("build model.onnx --variants v7", "GP106 the target x86 has no variant 'v7'"),
        ("build model.onnx --variants ,", "GP107 no variant was chosen"),
        ("build model.onnx --shape x", "GP107 'x' is not a name and a shape"),
        ("build model.onnx --shape x=1,0", "GP107 'x=1,0' is not a name and a shape"),
        ("build model.onnx --shape y=4,6", "GP106 the model has no input 'y'"),
        ("build model.onnx --tune nan", "GP107 nan is no number of seconds"),
        ("build model.onnx -o no/model.gp", "GP105 cannot write: its folder does not exist"),
        ("build model.onnx -o model.onnx", "GP105 cannot write: something is there that is no artifact"),
        ("run no.gp", "GP101 there is no such artifact"),
        ("run model.onnx", "GP509 it is a file, and an artifact is a folder"),
        ("run ready.gp --input x=no.npy", "GP101 there is no such file"),
        ("run ready.gp --input x=model.onnx", "GP107 it is no .npy or .npz file"),
        ("run ready.gp --input z=x.npy", "GP106 there is no input 'z'"),
        ("run ready.gp --input x=all.npz", "GP107 'x=all.npz' names one input for a file of several"),
        ("run ready.gp --input x=wrong.npy", "GP512 'x' has the shape [4, 7], not [4, 6]"),
        ("run ready.gp --input x=pickle.npy", "GP107 it is no .npy or .npz file"),
        ("run ready.gp --random --variant v3", "GP106 it has no variant 'v3'"),
        ("run ready.gp --random -o y.npy", "GP107 the output 'y.npy' is not called .npz"),
        ("run ready.gp --random -o no/y.npz", "GP105 cannot write: its folder does not exist"),
    ],
)
def test_mistakes(place: Path, capsys: pytest.CaptureFixture[str], line: str, first: str) -> None:
    handmade.artifact(place / "ready.gp", handmade.network("v1", kind="plain"))
    np.save("x.npy", np.zeros((4, 6), np.float32))
    np.save("wrong.npy", np.zeros((4, 7), np.float32))
    np.save("pickle.npy", np.array([{}]), allow_pickle=True)
    np.savez("all.npz", x=np.zeros((4, 6), np.float32))
    before = sorted(os.listdir(place))
    assert main(line.split()) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(first), err
    assert sorted(os.listdir(place)) == before


@pytest.mark.parametrize("given", ["x=x.npy", "x.npy", "all.npz"])
def test_inputs_from_files(place: Path, capsys: pytest.CaptureFixture[str], given: str) -> None:
    handmade.artifact(place / "ready.gp", handmade.network("v1", kind="plain"))
    np.save("x.npy", np.ones((4, 6), np.float32))
    np.savez("all.npz", x=np.ones((4, 6), np.float32))
    assert main(["run", "ready.gp", "--input", given, "--json"]) == 0
    assert data(capsys)["outputs"] == [
        {"name": "y", "dtype": "float32", "shape": [4, 6], "numbers": "0 to 3.5, mean 1.33333"}
    ]


def test_without_inputs_it_says_what_it_takes(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    handmade.artifact(place / "ready.gp", handmade.network("v1", kind="plain"))
    assert main(["run", "ready.gp"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "input   x: float32[4, 6]",
        "output  y: float32[4, 6]",
        "add --random, or --input NAME=FILE for each",
    ]


def test_names_of_outputs_are_any(tmp_path: Path) -> None:
    """Also those that are parameters of numpy.savez."""
    from graphprune.cli.run import write

    arrays = {"file": np.ones(2), "../up": np.zeros(1), "allow_pickle": np.ones(3)}
    write(tmp_path / "out.npz", arrays)
    with np.load(tmp_path / "out.npz", allow_pickle=False) as found:
        assert {name: found[name].tolist() for name in found.files} == {k: v.tolist() for k, v in arrays.items()}


def test_targets(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHPRUNE_CPU", "v1")
    assert main(["targets"]) == 0
    out = capsys.readouterr().out
    assert " x86     v1 " in out and "limited to v1 by GRAPHPRUNE_CPU" in out
    assert main(["targets", "--json"]) == 0
    rows = {row["variant"]: row for row in data(capsys)["targets"]}
    assert rows["v3"]["runs here"].startswith("no: ")
    assert rows["v1"]["needs"] == []


@pytest.mark.parametrize(("ours", "advised"), [(0.002, True), (0.0005, False)])
def test_where_onnxruntime_is_faster_it_is_recommended(
    ours: float, advised: bool, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graphprune.targets.pace.in_turns", lambda calls: {"graphprune": ours, "onnxruntime": 0.001})
    assert main(["build", "model.onnx", "--variants", "v1"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert f"a call takes {1e3 * ours:.3g} ms here, and 1 ms in onnxruntime: {0.001 / ours:.2f} times as fast" in out
    assert ("onnxruntime is faster on this network and this machine: use that" in out) == advised
