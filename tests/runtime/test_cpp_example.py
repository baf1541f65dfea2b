"""The example in C++ compiles against what the wheels bring, and computes what Python does."""

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from graphprune.runtime import load
from graphprune.runtime.cpu import ask
from graphprune.runtime.ffi import folder_of
from tests.runtime import handmade

SOURCE = Path(__file__).parent.parent.parent / "examples" / "run_artifact.cpp"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, compiled with the command that it names."""
    compiler, ffi, tvm = shutil.which("g++"), folder_of("tvm_ffi"), folder_of("tvm")
    if compiler is None:
        pytest.skip("needs g++")
    if ffi is None or tvm is None or not (ffi / "include").is_dir():
        pytest.skip("needs TVM with its headers (the extra tvm)")
    made = tmp_path_factory.mktemp("example") / "run_artifact"
    found = [f"-I{ffi}/include", f"-L{ffi}/lib", f"-L{tvm}/lib", "-Wl,--no-as-needed", "-ltvm_ffi", "-ltvm_runtime"]
    where = f"-Wl,-rpath,{ffi}/lib:{tvm}/lib"
    command = [
        compiler,
        "-O0",
        "-std=c++17",
        "-Wall",
        "-Wextra",
        "-Werror=return-type",
        SOURCE,
        "-o",
        made,
        *found,
        where,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    assert not [line for line in done.stderr.splitlines() if "run_artifact.cpp" in line and "warning" in line]
    return made


def run(program: Path, *words: object) -> subprocess.CompletedProcess[str]:
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run([program, *map(str, words)], capture_output=True, text=True, check=False, env=environment)


def test_it_computes_what_python_does(program: Path, made: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(3).standard_normal((4, 6)).astype(np.float32)
    x.tofile(tmp_path / "x.raw")
    wanted = load(made, variant="v1")(x)
    done = run(program, made, "v1", f"x={tmp_path / 'x.raw'}")
    assert done.returncode == 0, done.stderr
    lines = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert list(lines) == ["y", "calls"] and lines["calls"] == "1"
    found = np.array(lines["y"].split(), np.float32).reshape(4, 6)
    assert np.array_equal(found, wanted["y"])  # nine digits tell every float32 from its neighbours


def test_its_mistakes_are_told(program: Path, made: Path, tmp_path: Path) -> None:
    (tmp_path / "short.raw").write_bytes(b"1234")
    for words, text in [
        ((), "usage: "),
        ((tmp_path / "no.gp", "v1"), "cannot read"),
        ((made, "v9"), "it has no variant v9"),
        ((made, "v1"), "the input x is missing"),
        ((made, "v1", f"x={tmp_path / 'short.raw'}"), "has not the size of the input x"),
    ]:
        done = run(program, *words)
        assert done.returncode in (1, 2) and text in done.stderr, done.stderr
        assert done.stdout == ""
    tiles = handmade.network("v1")
    tiles = replace(tiles, variants=(replace(tiles.variants[0], features=("amx_tile",)),))
    done = run(program, handmade.artifact(tmp_path / "t.gp", tiles), "v1", f"x={tmp_path / 'x.raw'}")
    assert ("needs AMX, which the operating system refuses" in done.stderr) != ask()
    stepping = handmade.network("v1", kind="stepping")
    done = run(program, handmade.artifact(tmp_path / "s.gp", stepping), "v1")
    assert "need onnxruntime" in done.stderr
