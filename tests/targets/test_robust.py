"""Builds as things go wrong: shared caches, interrupts at any moment, damage, missing packages, odd places."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import onnx
import pytest

pytest.importorskip("tvm")

import graphprune as gp
from graphprune.errors import GraphPruneError
from graphprune.runtime import load
from graphprune.targets.interrupts import heard
from graphprune.targets.network import tune
from tests.execution import difference, feeds, run
from tests.targets.network.net import Net

SIZES = (24, 40, 17, 33, 20)
ROOT = Path(__file__).parents[2]
SECONDS = 240  # for one build in a process of its own, on a machine that has other work


def network() -> onnx.ModelProto:
    """Products of as many shapes as SIZES has neighbours, and an operator that falls back."""
    net = Net()
    x = net.input(9, SIZES[0])
    for inner, outputs in pairwise(SIZES):
        x = net.op("Relu", net.op("MatMul", x, net.weight(inner, outputs, density=0.5)))
    return net.model(net.op("Det", net.op("MatMul", x, net.op("Transpose", x))), x)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file, and a cache of measurements that is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "model.onnx"
    onnx.save(network(), path)
    return path


def started(model: Path, output: Path) -> subprocess.Popen[str]:
    """A build in a process of its own, for every processor, as the command starts it."""
    line = [sys.executable, "-m", "graphprune", "build", str(model), "-o", str(output), "--variants", "v1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def cached() -> dict[str, list[float]]:
    """What is remembered, all of which has to be whole."""
    folder = tune.cache_folder()
    found = {}
    for path in folder.glob("*.json") if folder.is_dir() else []:
        seconds = json.loads(path.read_text())["seconds"]
        assert seconds and all(0 < value < 60 for value in seconds)
        found[path.stem] = seconds
    return found


def right(artifact: Path) -> None:
    case = feeds(network(), seed=5)
    assert difference(run(network(), case), load(artifact).session().run(case)) < 2e-5


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A line for each measurement in this process."""
    lines: list[str] = []
    original = tune.timed

    def counted(*given: Any, **named: Any) -> Any:
        lines.append("measured")
        return original(*given, **named)

    monkeypatch.setattr(tune, "timed", counted)
    return lines


def test_two_builds_share_a_cache(model: Path, tmp_path: Path, measured: list[str]) -> None:
    builds = [started(model, tmp_path / f"{number}.gp") for number in (1, 2)]
    for build in builds:
        _, errors = build.communicate(timeout=SECONDS)
        assert build.returncode == 0, errors
    right(tmp_path / "1.gp")
    right(tmp_path / "2.gp")
    assert len(cached()) == len(SIZES) - 1
    assert not [path for path in tune.cache_folder().iterdir() if path.suffix != ".json"]
    gp.build(model, tmp_path / "3.gp", variants=["v1"])
    assert not measured


@pytest.mark.parametrize(("kind", "after"), [(signal.SIGINT, 2), (signal.SIGKILL, 0), (signal.SIGKILL, 2)])
def test_an_interrupted_build_goes_on_where_it_was(
    model: Path, tmp_path: Path, measured: list[str], kind: signal.Signals, after: int
) -> None:
    """`after` so many measurements, and a moment more."""
    build = started(model, tmp_path / "model.gp")
    until = time.monotonic() + SECONDS
    while len(cached()) < after and build.poll() is None and time.monotonic() < until:
        time.sleep(0.005)
    time.sleep(random.Random(after).uniform(0, 0.2))
    build.send_signal(kind)
    _, errors = build.communicate(timeout=SECONDS)
    known = cached()
    ended = build.returncode == 0  # it was faster
    assert ended or (build.returncode == -kind if kind == signal.SIGKILL else build.returncode == 130), errors
    assert "Traceback" not in errors
    assert (tmp_path / "model.gp").exists() == ended
    if kind == signal.SIGINT:
        assert {path.name for path in tmp_path.iterdir()} - {"model.gp"} <= {"model.onnx", "cache"}
    gp.build(model, tmp_path / "again.gp", variants=["v1"])
    assert len(measured) == len(SIZES) - 1 - len(known)
    assert known.items() <= cached().items()
    right(tmp_path / "again.gp")


@pytest.mark.parametrize("becomes", [RuntimeError, None])
def test_an_interrupt_that_tvm_makes_something_else_of(becomes: type[Exception] | None) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), heard():
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            if becomes is not None:
                raise becomes from None
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(ValueError), heard():
        raise ValueError
    with heard():
        pass


def test_a_damaged_cache_is_measured_again(model: Path, measured: list[str]) -> None:
    gp.build(model, variants=["v1"], verify=False)
    broken = ["{", "\0", '{"seconds": ["fast"]}', '{"seconds": [-1, 0, NaN]}']
    for path, content in zip(sorted(tune.cache_folder().iterdir()), broken, strict=True):
        path.write_text(content)
    gp.build(model, variants=["v1"], verify=False)
    assert len(measured) == 2 * len(broken) and len(cached()) == len(broken)


def test_a_cache_that_cannot_be_written_is_done_without(model: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("no folder")
    right(gp.build(model, tmp_path / "model.gp", variants=["v1"]).path)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("robust")
    onnx.save(network(), place / "model.onnx")
    return gp.build(place / "model.onnx", place / "model.gp", variants=["v1"]).path


def test_a_moved_artifact_runs_in_any_folder(artifact: Path, tmp_path: Path) -> None:
    place = tmp_path / "a place with spaces" / "größer.gp"
    place.parent.mkdir()
    shutil.copytree(artifact, tmp_path / "copy.gp")
    os.rename(tmp_path / "copy.gp", place)
    right(place)


def test_a_build_between_folders_with_spaces(model: Path, tmp_path: Path) -> None:
    place = tmp_path / "a place with spaces"
    place.mkdir()
    os.rename(model, place / "my model.onnx")
    right(gp.build(place / "my model.onnx", place / "größer model.gp", variants=["v1"]).path)


def places(artifact: Path) -> list[tuple[str, int]]:
    """Thirty bits, of every file some."""
    generator = random.Random(7)
    files = sorted(path.name for path in artifact.iterdir())
    return [
        (name, generator.randrange(8 * (artifact / name).stat().st_size))
        for name in (files[number % len(files)] for number in range(30))
    ]


def test_a_flipped_bit_anywhere_is_refused_or_harmless(artifact: Path, tmp_path: Path) -> None:
    """A bit of the manifest may be one between its values."""
    refused = 0
    for number, (name, bit) in enumerate(places(artifact)):
        place = tmp_path / f"{number}.gp"
        shutil.copytree(artifact, place)
        content = bytearray((place / name).read_bytes())
        content[bit // 8] ^= 1 << bit % 8
        (place / name).write_bytes(content)
        if name != "manifest.json":
            with pytest.raises(GraphPruneError, match="GP509"):
                load(place)
            refused += 1
            continue
        try:
            right(place)
        except GraphPruneError:
            refused += 1
    assert refused >= 20


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_a_file_that_is_cut_off_is_refused(artifact: Path, tmp_path: Path, share: float) -> None:
    for path in sorted(artifact.iterdir()):
        place = tmp_path / path.name
        shutil.copytree(artifact, place)
        content = path.read_bytes()
        (place / path.name).write_bytes(content[: int(share * len(content))])
        with pytest.raises(GraphPruneError, match="GP509"):
            load(place)


def test_a_wrong_target_suggests_the_right_one(model: Path, tmp_path: Path) -> None:
    with pytest.raises(GraphPruneError, match="GP106") as caught:
        gp.build(model, tmp_path / "model.gp", target="x68")
    assert "x86" in str(caught.value)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that nobody can write")
def test_a_folder_that_cannot_be_written(model: Path) -> None:
    with pytest.raises(GraphPruneError, match="GP105 cannot write"):
        gp.build(model, "/proc/model.gp", variants=["v1"])


# Without onnxruntime

BLOCKED = """
import sys
sys.modules["onnxruntime"] = None
from graphprune.cli import main
sys.exit(main(sys.argv[1:]))
"""


def without(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-c", BLOCKED, *arguments]
    return subprocess.run(line, capture_output=True, text=True, check=False, env=environment, timeout=SECONDS)


def test_without_onnxruntime_the_onnx_package_is_the_judge(model: Path, tmp_path: Path) -> None:
    net = Net()
    onnx.save(net.model(net.op("Relu", net.op("MatMul", net.input(9, 12), net.weight(12, 5)))), model)
    done = without("build", str(model), "-o", str(tmp_path / "model.gp"), "--variants", "v1")
    assert done.returncode == 0, done.stderr
    manifest = load(tmp_path / "model.gp").about
    assert [row["ok"] for row in manifest.verification] == [True]
    note = "onnxruntime is not installed, so the reference evaluator of onnx was compared with"
    assert note in manifest.notes and note in done.stdout


def test_steps_that_onnxruntime_runs_need_it(model: Path, artifact: Path, tmp_path: Path) -> None:
    done = without("build", str(model), "-o", str(tmp_path / "model.gp"), "--variants", "v1")
    assert done.returncode not in {0, -signal.SIGSEGV} and "Traceback" not in done.stderr
    assert "GP108" in done.stderr and "pip install" in done.stderr
    assert not (tmp_path / "model.gp").exists()
    done = without("run", str(artifact))
    assert "GP108" in done.stderr and "Traceback" not in done.stderr


def test_without_measurements_the_bytes_are_the_same(model: Path, tmp_path: Path) -> None:
    for name in ("one.gp", "two.gp"):
        gp.build(model, tmp_path / name, variants=["v1"], tune=0, verify=False)
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one.gp", "two.gp"))
    assert one == two and len(one) > 2
    assert not cached()
