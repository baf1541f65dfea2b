"""`graphprune sparsify`, `formats` and what `inspect` says of zeros, from end to end."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import numpy_helper

from graphprune.cli import main
from graphprune.cli import sparsify as command
from graphprune.formats import FORMATS, parse
from graphprune.registry import Registry
from graphprune.verify import Check, Verification
from tests.sparsity.networks import kinds

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that holds the example as dense.onnx."""
    shutil.copy(ROOT / "examples" / "super_resolution.onnx", tmp_path / "dense.onnx")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def data(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def weights(path: str) -> dict[str, np.ndarray]:
    return {each.name: numpy_helper.to_array(each) for each in onnx.load(path).graph.initializer}


def test_the_file_is_the_dense_one_with_zeros(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (folder / "dense.onnx").read_bytes()
    assert main(["sparsify", "dense.onnx", "sparse.onnx", "--format", "8x1", "--sparsity", "90%"]) == 0
    out = capsys.readouterr().out
    assert "conv2.weight  8x1" in out
    assert "GP802 conv1.weight" in out
    assert "verified: 7 checks (interface, weights, format, output, control)" in out
    assert out.endswith("wrote sparse.onnx\n")
    assert sorted(os.listdir(folder)) == ["dense.onnx", "sparse.onnx"]
    assert (folder / "dense.onnx").read_bytes() == before
    dense, sparse = weights("dense.onnx"), weights("sparse.onnx")
    assert dense.keys() == sparse.keys()
    for name, array in dense.items():
        kept = sparse[name] != 0
        assert np.array_equal(sparse[name][kept], array[kept])
        if name in {"conv2.weight", "conv3.weight", "conv4.weight"}:
            blocks = parse("8x1").cover(kept.reshape(*kept.shape[:2], -1).swapaxes(1, 2))
            assert blocks is not None and np.mean(blocks) < 0.15  # some weights of the dense one are zero as well
        else:
            assert np.array_equal(sparse[name], array)


def test_the_outputs_are_those_of_the_dense_file_with_these_weights_zeroed(folder: Path) -> None:
    assert main(["sparsify", "dense.onnx", "sparse.onnx", "--format", "2:4", "-q"]) == 0
    sparse, model = weights("sparse.onnx"), onnx.load("dense.onnx")
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor).copy()
        if array.dtype == np.float32 and array.ndim > 1:
            array[sparse[tensor.name] == 0] = 0
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    onnx.save(model, "by_hand.onnx")
    sessions = [onnxruntime.InferenceSession(name) for name in ("sparse.onnx", "by_hand.onnx", "dense.onnx")]
    entry = sessions[0].get_inputs()[0]
    shape = [size if isinstance(size, int) else 1 for size in entry.shape]
    image = np.random.default_rng(0).random(shape).astype(np.float32)
    a, b, dense = (session.run(None, {entry.name: image})[0] for session in sessions)
    assert np.array_equal(a, b)
    assert not np.allclose(a, dense, atol=1e-3)


def test_json_is_the_report(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sparsify", "dense.onnx", "s.onnx", "--format", "unstructured", "--sparsity", "0.8", "--json"]) == 0
    report = data(capsys)
    assert report["verification"]["ok"]
    assert report["written"] == ["s.onnx"]
    assert {each["name"]: each["code"] for each in report["left"]} == {"conv1.weight": "GP802"}
    for layer in report["layers"]:
        assert layer["sparsity"] == pytest.approx(0.8, abs=1e-3)
        columns = 1 if np.prod(layer["shape"][2:]) < 256 else 2
        rows = layer["shape"][1] + 1
        assert layer["packed"] == layer["nonzeros"] * (4 + columns) + rows * 4


def test_a_dry_run_writes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sparsify", "dense.onnx", "s.onnx", "--format", "2:4", "--dry-run"]) == 0
    assert capsys.readouterr().out.endswith("dry run: nothing was written\n")
    assert os.listdir(folder) == ["dense.onnx"]


def test_quiet_says_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sparsify", "dense.onnx", "s.onnx", "--format", "2:4", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_the_same_twice_is_the_same_file(folder: Path) -> None:
    for name in ("a.onnx", "b.onnx"):
        assert main(["sparsify", "dense.onnx", name, "--format", "4x4", "--sparsity", "0.5", "-q"]) == 0
    assert (folder / "a.onnx").read_bytes() == (folder / "b.onnx").read_bytes()


def test_only_and_ignore(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["sparsify", "dense.onnx", "s.onnx", "--format", "unstructured", "--sparsity", "0.5", "--json"]
    assert main([*line, "--only", "conv1*", "--only", "conv2*"]) == 0
    assert [each["name"] for each in data(capsys)["layers"]] == ["conv1.weight", "conv2.weight"]
    assert main([*line, "--ignore", "conv2*"]) == 0
    assert [each["name"] for each in data(capsys)["layers"]] == ["conv3.weight", "conv4.weight"]


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("dense.onnx s.onnx --sparsity 0.9", "GP107", "it was not said in which format"),
        ("dense.onnx s.onnx --format 8y1 --sparsity 0.9", "GP106", "did you mean '8x1'?"),
        ("dense.onnx s.onnx --format 8x1", "GP107", "give a share such as 0.9"),
        ("dense.onnx s.onnx --format 8x1 --sparsity 90", "GP107", "write 90% or 0.9"),
        ("dense.onnx s.onnx --format 2:4 --sparsity 0.9", "GP107", "2:4 removes 50.0%"),
        ("dense.onnx s.onnx --format 2:4 --bench", "GP107", "multiplies by zeros"),
        ("dense.onnx dense.onnx --format 2:4", "GP104", "--in-place"),
        ("dense.onnx s.txt --format 2:4", "GP107", "is not called .onnx"),
        ("dense.onnx gone/s.onnx --format 2:4", "GP105", "folder does not exist"),
        ("gone.onnx s.onnx --format 2:4", "GP101", "no such file"),
        ("dense.onnx s.onnx --format 64x64 --sparsity 0.5 --only conv3*", "GP302", "GP801"),
        ("dense.onnx s.onnx --format 2:4 --recover sparsegpt", "GP704", "needs calibration data"),
        ("dense.onnx s.onnx --format 2:4 --recover none,least", "GP106", "least_squares"),
        ("dense.onnx s.onnx --format 2:4 --allocate erk", "GP107", "the same sparsity in every layer"),
        ("dense.onnx s.onnx --format 2:4 --only conf*", "GP106", "matches 'conf*'"),
    ],
)
def test_mistakes_are_told(folder: Path, capsys: pytest.CaptureFixture[str], line: str, code: str, words: str) -> None:
    assert main(["sparsify", *line.split()]) in {1, 2}
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(code) and words in err
    assert os.listdir(folder) == ["dense.onnx"]


def test_a_failed_check_writes_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from graphprune.sparsity import check

    wrong = Verification((Check("weights", "conv2.weight", 1.0, 0.0, False),))
    monkeypatch.setattr(check, "verify_sparse", lambda *_, **__: wrong)
    line = ["sparsify", "dense.onnx", "s.onnx", "--format", "2:4"]
    assert main(line) == 1
    assert capsys.readouterr().err.startswith("GP401")
    assert os.listdir(folder) == ["dense.onnx"]
    assert main([*line, "--keep-failed"]) == 1
    assert "NOT VERIFIED" in capsys.readouterr().out
    assert sorted(os.listdir(folder)) == ["dense.onnx", "s.onnx"]


def test_what_is_checked_is_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that loses a zero is found out, although the model in memory is right."""
    from graphprune.dialects.onnx import files

    def damaged(model: ir.Model, outputs: Any, real: Any = files.stage, **options: Any) -> list[str]:
        names: list[str] = real(model, outputs, **options)
        path = str(outputs.path(names[-1]))
        written = onnx.load(path)
        tensor = next(each for each in written.graph.initializer if each.name == "conv2.weight")
        array = numpy_helper.to_array(tensor).copy()
        array[np.unravel_index(np.flatnonzero(array == 0)[0], array.shape)] = 1e-6
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
        onnx.save(written, path)
        return names

    monkeypatch.setattr(files, "stage", damaged)
    assert main(["sparsify", "dense.onnx", "s.onnx", "--format", "2:4", "-q"]) == 1
    assert os.listdir(folder) == ["dense.onnx"]


def test_weights_that_stay_make_up_for_zeros(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The commands of docs/sparsity.md with data; closer on data that nobody saw."""
    from tests.recover.networks import data as batches
    from tests.recover.networks import residual

    onnx.save(ir.to_proto(residual()), "model.onnx")
    np.savez("data.npz", x=np.concatenate([case["x"] for case in batches()]))
    page = (ROOT / "docs" / "sparsity.md").read_text()
    (line,) = [each for each in page.splitlines() if "--recover" in each and "--format 2:4" in each]
    assert main([*line.split()[1:], "--batch", "16"]) == 0
    report = capsys.readouterr().out
    assert "sparsegpt and least_squares: " in report and "verified" in report
    assert main(["sparsify", "model.onnx", "plain.onnx", "--format", "2:4", "-q"]) == 0
    case = batches(seed=5)[0]
    dense, plain, sparse = (
        onnxruntime.InferenceSession(name).run(None, case)[0] for name in ("model.onnx", "plain.onnx", "sparse.onnx")
    )
    assert np.square(sparse - dense).sum() < 0.2 * np.square(plain - dense).sum()
    assert main([*line.split()[1:], "--batch", "16", "--recover", "none", "--json"]) == 0
    assert not any("sparsegpt" in note for note in data(capsys)["notes"])


def test_in_place(folder: Path) -> None:
    assert main(["sparsify", "dense.onnx", "dense.onnx", "--format", "2:4", "--in-place", "-q"]) == 0
    assert np.mean(weights("dense.onnx")["conv2.weight"] == 0) == 0.5


def test_external_data_stays_external(folder: Path) -> None:
    ir.save(kinds(), "big.onnx", external_data="big.onnx.data")
    assert main(["sparsify", "big.onnx", "s.onnx", "--format", "8x1", "--sparsity", "0.5", "-q"]) == 0
    assert {"s.onnx", "s.onnx.data"} <= set(os.listdir(folder))
    assert np.mean(weights("s.onnx")["plain"] == 0) == 0.5
    assert np.all(weights("big.onnx")["plain"] != 0)


def test_inspect_recognises_zeros(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "dense.onnx"]) == 0
    assert "conv2.weight   2.3%  unstructured (2.3%)" in capsys.readouterr().out  # what training left
    assert main(["sparsify", "dense.onnx", "s.onnx", "--format", "2:4", "-q"]) == 0
    assert main(["inspect", "s.onnx"]) == 0
    assert "conv2.weight  50.0%  2:4 (50.0%)" in capsys.readouterr().out
    assert main(["inspect", "s.onnx", "--json"]) == 0
    found = {each["name"]: each for each in data(capsys)["zeros"]}
    assert found["conv3.weight"]["formats"][0] == {
        "format": "2:4", "sparsity": 0.5, "explained": 1.0, "filled": 1.0,
    }  # fmt: skip


def test_formats_are_listed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["formats"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(FORMATS.builtin)
    assert any("4x1, 8x1, 16x1" in line for line in lines)
    assert main(["formats", "--json"]) == 0
    found = {each["name"]: each for each in data(capsys)}
    assert found["vector_nm"]["needs"]["1:8/8"] == {
        "rows": 8, "inputs": 1, "fixed": True, "group": 8, "taps": False,
    }  # fmt: skip
    broken = Registry("graphprune.formats", {"broken": "no_such_module:It", "nm": FORMATS.builtin["nm"]})
    monkeypatch.setattr("graphprune.formats.FORMATS", broken)
    assert command._described("broken")["error"].startswith("GP111")


def test_channels_and_zeros_share_a_budget(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save("x.npy", np.random.default_rng(0).random((4, 1, 224, 224), np.float32))
    line = ["sparsify", "dense.onnx", "sparse.onnx", "--format", "4x1", "--macs", "0.3", "--calibration", "x.npy"]
    assert main([*line, "--batch", "1"]) == 0
    out, err = capsys.readouterr()
    assert "ways to divide the budget: channels to" in out and "[5] channels to 30.0%" in err
    assert "verified: " in out
    cut = "sparse.plan.json" in os.listdir(folder)
    small, dense = weights("sparse.onnx"), weights("dense.onnx")
    assert cut == any(small[name].shape != dense[name].shape for name in small)
    assert cut or (small["conv2.weight"] == 0).mean() > 0.5


def test_a_sparsity_beside_a_budget_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["sparsify", "dense.onnx", "sparse.onnx", "--format", "4x1", "--macs", "0.3", "--sparsity", "0.5"]
    assert main(line) == 2
    assert capsys.readouterr().err.startswith("GP107 the sparsity follows from the budget")
    assert main(line[:-2]) == 2
    assert capsys.readouterr().err.startswith("GP701 ")
    assert os.listdir(folder) == ["dense.onnx"]


def test_channels_in_another_order(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["sparsify", "dense.onnx", "sparse.onnx", "--format", "2:4", "--permute"]
    assert main([*line, "--json"]) == 0
    told = data(capsys)
    assert "permutation: 3 of 3 groups in another order" in told["notes"][0]
    assert {"permutation", "weights", "output"} <= {each["oracle"] for each in told["verification"]["checks"]}
    dense, sparse = weights("dense.onnx"), weights("sparse.onnx")
    kept = float(np.square(sparse["conv2.weight"], dtype=np.float64).sum())
    assert main([*line[:-1], "--in-place"]) == 0
    assert kept > float(np.square(weights("sparse.onnx")["conv2.weight"], dtype=np.float64).sum())
    assert not np.array_equal(sparse["conv1.bias"], dense["conv1.bias"])
    assert np.array_equal(np.sort(sparse["conv1.bias"]), np.sort(dense["conv1.bias"]))
