"""The commands from end to end on the example that the repository ships."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from graphprune import api
from graphprune.cli import main
from graphprune.output import UNFINISHED
from graphprune.verify import Check, Verification

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = ROOT / "examples" / "super_resolution.onnx"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a space in its name, which holds the dense model as dense.onnx."""
    found = tmp_path / "a folder"
    found.mkdir()
    shutil.copy(EXAMPLE, found / "dense.onnx")
    monkeypatch.chdir(found)
    return found


def data(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


def test_the_short_form_prunes_verifies_and_writes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dense.onnx", "small.onnx", "--macs", "60%"]) == 0
    out = capsys.readouterr().out
    for name in ("parameters", "non-zeros", "weights", "file", "MACs", "peak activations"):
        assert f"\n {name} " in out
    assert "verified: " in out
    assert out.endswith("wrote small.onnx, small.plan.json\n")
    assert sorted(os.listdir(folder)) == ["dense.onnx", "small.onnx", "small.plan.json"]
    assert main(["verify", "dense.onnx", "small.onnx"]) == 0


def test_the_budget_is_met(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prune", "dense.onnx", "small.onnx", "--macs", "0.6", "--json", "--quiet"]) == 0
    report = data(capsys)
    dense, pruned = report["dense"], report["pruned"]
    assert isinstance(dense, dict) and isinstance(pruned, dict)
    assert pruned["macs"] <= 0.6 * dense["macs"]
    assert report["written"] == ["small.onnx", "small.plan.json"]
    assert isinstance(report["verification"], dict) and report["verification"]["ok"]


def test_the_interface_stays(folder: Path) -> None:
    assert main(["dense.onnx", "small.onnx", "--macs", "0.6", "-q"]) == 0
    dense, small = onnx.load("dense.onnx"), onnx.load("small.onnx")
    weights = {each.name for each in dense.graph.initializer}  # old files list them among the inputs
    assert [each for each in dense.graph.input if each.name not in weights] == [
        each for each in small.graph.input if each.name not in weights
    ]
    assert list(dense.graph.output) == list(small.graph.output)
    assert {each.domain: each.version for each in dense.opset_import} == {
        each.domain: each.version for each in small.opset_import
    }


def test_quiet_says_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dense.onnx", "small.onnx", "--macs", "0.6", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_a_dry_run_writes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dense.onnx", "small.onnx", "--macs", "0.6", "--dry-run"]) == 0
    assert capsys.readouterr().out.endswith("dry run: nothing was written\n")
    assert os.listdir(folder) == ["dense.onnx"]


def test_a_budget_that_cannot_be_met(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dense.onnx", "small.onnx", "--macs", "0.001"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("GP301 ")
    assert os.listdir(folder) == ["dense.onnx"]


def test_plan_apply_and_prune_give_the_same_file(folder: Path) -> None:
    assert main(["dense.onnx", "small.onnx", "--macs", "0.6", "-q"]) == 0
    assert main(["plan", "dense.onnx", "--macs", "0.6", "-o", "made.json", "-q"]) == 0
    assert main(["apply", "dense.onnx", "made.json", "applied.onnx", "-q"]) == 0
    assert Path("small.onnx").read_bytes() == Path("applied.onnx").read_bytes()
    assert Path("small.plan.json").read_text() == Path("made.json").read_text()


def test_a_plan_fits_another_checkpoint(folder: Path) -> None:
    assert main(["plan", "dense.onnx", "--macs", "0.6", "-o", "made.json", "-q"]) == 0
    retrained = onnx.load("dense.onnx")
    for tensor in retrained.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.5), tensor.name))
    onnx.save(retrained, "retrained.onnx")
    assert main(["apply", "retrained.onnx", "made.json", "small.onnx", "-q"]) == 0
    assert main(["verify", "retrained.onnx", "small.onnx", "-q"]) == 0


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": "other"}'])
def test_what_is_not_a_plan(folder: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    Path("bad.json").write_text(text)
    assert main(["apply", "dense.onnx", "bad.json", "small.onnx"]) == 2
    assert capsys.readouterr().err.startswith("GP502 ")


def test_verify_finds_a_wrong_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dense.onnx", "small.onnx", "--macs", "0.6", "-q"]) == 0
    wrong = onnx.load("small.onnx")
    tensor = max(wrong.graph.initializer, key=lambda each: len(each.raw_data))
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor)[::-1].copy(), tensor.name))
    onnx.save(wrong, "small.onnx")
    assert main(["verify", "dense.onnx", "small.onnx"]) == 1
    assert "FAILED" in capsys.readouterr().out


def test_verify_without_a_plan_says_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "dense.onnx", "dense.onnx"]) == 0
    assert capsys.readouterr().err.startswith("there is no plan (dense.plan.json)")


@pytest.mark.parametrize("keep", [False, True])
def test_a_model_that_fails_verification_is_not_written(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, keep: bool
) -> None:
    failed = Verification((Check("mask", "y", 0.5, 1e-6, False),))
    monkeypatch.setattr(api, "verify", lambda *_, **__: failed)
    assert main(["dense.onnx", "small.onnx", "--macs", "0.6", *(["--keep-failed"] if keep else [])]) == 1
    assert capsys.readouterr().err.startswith(
        "GP401 the pruned model does not compute what it should\n  at  FAILED mask"
    )
    assert sorted(os.listdir(folder)) == ["dense.onnx", *(["small.onnx", "small.plan.json"] if keep else [])]


def test_the_input_is_overwritten_only_in_place(folder: Path) -> None:
    before = Path("dense.onnx").read_bytes()
    assert main(["dense.onnx", "./dense.onnx", "--macs", "0.6", "-q"]) == 2
    assert Path("dense.onnx").read_bytes() == before
    assert main(["dense.onnx", "dense.onnx", "--macs", "0.6", "-q", "--in-place"]) == 0
    assert Path("dense.onnx").read_bytes() != before


def test_clean_keeps_the_outputs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planted = onnx.load("dense.onnx")
    tensor = next(each for each in planted.graph.initializer if each.name == "conv2.weight")
    weight = numpy_helper.to_array(tensor).copy()
    weight[:, 10:20] = 0  # nobody reads channels 10 to 19 of the first convolution
    tensor.CopyFrom(numpy_helper.from_array(weight, tensor.name))
    onnx.save(planted, "planted.onnx")
    assert main(["clean", "planted.onnx", "cleaned.onnx", "--json"]) == 0
    report = data(capsys)
    assert isinstance(report["verification"], dict) and report["verification"]["ok"]
    shapes = {each.name: list(each.dims) for each in onnx.load("cleaned.onnx").graph.initializer}
    assert shapes["conv1.weight"][0] == shapes["conv2.weight"][1] == 53  # one was dead before


def test_inspect(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "dense.onnx"]) == 0
    out = capsys.readouterr().out
    assert "conv1.weight:0" in out and "conv2.weight:1" in out
    assert "GP202 1 axis: size of a graph output" in out
    assert main(["inspect", "dense.onnx", "--json"]) == 0
    found = data(capsys)
    assert isinstance(found["groups"], list)
    assert [group["size"] for group in found["groups"]] == [64, 64, 32]


@pytest.mark.parametrize("suffix", ["svg", "dot"])
def test_a_picture_of_the_groups(folder: Path, suffix: str) -> None:
    assert main(["inspect", "dense.onnx", "--graph", f"groups.{suffix}", "-q"]) == 0
    text = Path(f"groups.{suffix}").read_text()
    assert "conv1.weight" in text
    assert text.lstrip().startswith({"svg": "<", "dot": ("graph", "digraph", "strict")}[suffix])


def test_a_picture_of_another_kind(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "dense.onnx", "--graph", "groups.bmp"]) == 2
    assert capsys.readouterr().err.startswith("GP107 ")


def test_bench_is_honest_about_a_model_against_itself(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "dense.onnx", "dense.onnx", "--seconds", "0.3"]) == 0
    assert "ms" in capsys.readouterr().out


def test_bench_needs_onnxruntime(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert main(["bench", "dense.onnx", "dense.onnx"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "GP108 measuring latency needs onnxruntime",
        "  fix pip install 'graphprune[ort]'",
    ]


def test_conversion_to_another_opset_first(folder: Path) -> None:
    assert main(["dense.onnx", "small.onnx", "--macs", "0.6", "-q", "--opset", "18", "--optimize"]) == 0
    assert onnx.load("small.onnx").opset_import[0].version == 18


def test_a_kill_at_any_moment_leaves_no_partial_file(folder: Path) -> None:
    command = [sys.executable, "-m", "graphprune", "dense.onnx", "small.onnx", "--macs", "0.6", "-q"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    start = time.monotonic()
    subprocess.run(command, check=True, env=environment)
    whole = time.monotonic() - start
    expected = {name: Path(name).read_bytes() for name in ("small.onnx", "small.plan.json")}
    delays = random.Random(1)
    for _ in range(4):
        process = subprocess.Popen(command, env=environment)
        time.sleep(delays.uniform(0.3, 1.1) * whole)
        process.send_signal(signal.SIGKILL)
        process.wait()
        for path in folder.iterdir():
            assert (
                path.name.startswith(UNFINISHED)
                or path.name == "dense.onnx"
                or path.read_bytes() == expected[path.name]
            )


def test_being_asked_to_stop_cleans_up(folder: Path) -> None:
    """SIGTERM while the model is being verified: the process ends and nothing is left."""
    code = (
        "import sys, time; from graphprune import api; from graphprune.cli import main\n"
        "def wait(*_, **__):\n    print('now', flush=True); time.sleep(60)\n"
        "api.verify = wait; sys.argv[1:] = ['dense.onnx', 'small.onnx', '--macs', '0.6']; sys.exit(main())"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE
    )
    assert process.stdout is not None and process.stdout.readline() == b"now\n"
    process.terminate()
    assert process.wait(timeout=30) == 130
    process.stdout.close()
    assert os.listdir(folder) == ["dense.onnx"]
