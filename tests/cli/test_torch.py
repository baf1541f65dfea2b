"""The commands on models of PyTorch: exported programs, and modules that a callable makes."""

import contextlib
import io
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from safetensors.torch import save_file

import graphprune.torch
from graphprune import api
from graphprune.cli import main
from graphprune.errors import GraphPruneError
from tests.torch.networks import Convolutions, images

MAKER = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Linear(8, 5)

    def forward(self, images):
        return self.last(torch.relu(self.norm(self.first(images))).mean((2, 3)))


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.last = nn.Embedding(11, 8), nn.Linear(8, 5)

    def forward(self, ids):
        return self.last(self.table(ids))


def broken(size):
    return Net()


def number():
    return 3


name = "not callable"
"""
INPUT = ("--input", "2,3,6,6")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with dense.pt2, nets.py and weights.safetensors."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    program = torch.export.export(Convolutions().eval(), (images(),), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    torch.export.save(program, "dense.pt2")
    Path("nets.py").write_text(MAKER)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def weights() -> dict[str, Any]:
    import nets  # of the folder

    torch.manual_seed(1)
    model = nets.Net()
    save_file(model.state_dict(), "weights.safetensors")
    return dict(model.state_dict())


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.delitem(sys.modules, "nets", raising=False)


def data(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


# ---------------------------------------------------------------- exported programs
def test_a_program_is_pruned_and_verified(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dense.pt2", "small.pt2", "--macs", "60%", "--json"]) == 0
    report = data(capsys)
    assert report["pruned"]["macs"] <= 0.6 * report["dense"]["macs"]
    assert report["verification"]["ok"]
    assert report["written"] == ["small.pt2", "small.plan.json"]
    small = torch.export.load("small.pt2")
    assert len(small.state_dict["stem.weight"]) < 8
    assert small.module()(images(3)).shape == (3, 5)
    assert main(["verify", "dense.pt2", "small.pt2"]) == 0
    assert "verified" in capsys.readouterr().out


def test_plan_apply_and_prune_give_the_same_program(folder: Path) -> None:
    assert main(["dense.pt2", "small.pt2", "--ratio", "0.4", "-q"]) == 0
    assert main(["plan", "dense.pt2", "--ratio", "0.4", "-o", "made.json", "-q"]) == 0
    assert main(["apply", "dense.pt2", "made.json", "applied.pt2", "-q"]) == 0
    first, second = (torch.export.load(name).state_dict for name in ("small.pt2", "applied.pt2"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert Path("small.plan.json").read_text() == Path("made.json").read_text()


def test_a_program_is_inspected_and_explained(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "dense.pt2"]) == 0
    assert "stem.weight:0" in capsys.readouterr().out
    assert main(["explain", "dense.pt2", "stem.weight:0"]) == 0
    assert "stem.weight" in capsys.readouterr().out


def test_a_program_becomes_an_onnx_file(folder: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    assert main(["dense.pt2", "small.onnx", "--ratio", "0.4", "-q"]) == 0
    assert main(["dense.pt2", "small.pt2", "--ratio", "0.4", "-q"]) == 0
    session = onnxruntime.InferenceSession("small.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: images(3).numpy()})
    expected = torch.export.load("small.pt2").module()(images(3))
    torch.testing.assert_close(torch.as_tensor(found), expected.detach(), rtol=1e-4, atol=1e-5)


def test_a_dry_run_writes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(os.listdir())
    assert main(["dense.pt2", "small.pt2", "--ratio", "0.4", "--dry-run"]) == 0
    assert capsys.readouterr().out.endswith("dry run: nothing was written\n")
    assert sorted(each for each in os.listdir() if each != "__pycache__") == before


def test_a_wrong_program_is_found(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dense.pt2", "small.pt2", "--ratio", "0.4", "-q"]) == 0
    program = torch.export.load("small.pt2")
    with torch.no_grad():
        program.state_dict["grouped.weight"].copy_(program.state_dict["grouped.weight"].flip(0))
    torch.export.save(program, "small.pt2")
    assert main(["verify", "dense.pt2", "small.pt2"]) == 1
    assert "FAILED" in capsys.readouterr().out


# ---------------------------------------------------------------- modules
def test_a_module_is_pruned_into_a_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import nets

    dense = weights()
    line = ["nets:Net", "small", "--weights", "weights.safetensors", *INPUT, "--ratio", "0.4", "--json"]
    assert main(line) == 0
    report = data(capsys)
    assert report["verification"]["ok"] and report["written"] == ["small"]
    small = graphprune.torch.load(nets.Net, "small")
    assert small.first.out_channels < 8
    assert set(small.norm.weight.tolist()) <= set(dense["norm.weight"].tolist())
    kept = [row for row in dense["first.weight"] if any(torch.equal(row, each) for each in small.first.weight)]
    assert len(kept) == small.first.out_channels


@pytest.mark.parametrize("out", ["small.pt2", "small.onnx"])
def test_a_module_is_pruned_into_a_file(folder: Path, out: str) -> None:
    weights()
    assert main(["prune", "nets:Net", out, "--weights", "weights.safetensors", *INPUT, "--macs", "0.6", "-q"]) == 0
    assert Path(out).exists() and Path("small.plan.json").exists()
    assert api.analyze(api.load(out)).groups


def test_inputs_of_other_types_and_by_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("2,5:int64", "ids=2,5:int64"):
        assert main(["inspect", "nets:Words", "--input", text]) == 0
        assert "table.weight:1" in capsys.readouterr().out
    assert main(["plan", "nets:Net", *INPUT, "--ratio", "0.4"]) == 0
    assert '"first.weight:0"' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("inspect nets:Net", "GP107 a module is captured by running it, but no input was given"),
        ("inspect nets:Net --input 1,x", "GP107 '1,x' is not a shape"),
        ("inspect nets:Net --input 1,0,3", "GP107 '1,0,3' is not a shape"),
        ("inspect nets:Net --input 2,3,6,6:flaot32", "GP106 there is no type 'flaot32'"),
        ("inspect nets:Net --input 2,4,6,6", "GP112 torch.export cannot capture it"),
        ("inspect nets:Words --input a=2,5:int64 --input 2,5", "GP107 some inputs have names and others have not"),
        ("inspect nets:Nat --input 2,3,6,6", "GP101 it cannot be imported: module 'nets' has no attribute 'Nat'"),
        ("inspect nuts:Net --input 2,3,6,6", "GP101 it cannot be imported: No module named 'nuts'"),
        ("inspect nets:name --input 2,3,6,6", "GP107 it is a str, not a callable that makes a model"),
        ("inspect nets:number --input 2,3,6,6", "GP107 it makes a int, not a torch.nn.Module"),
        ("inspect nets:broken --input 2,3,6,6", "GP107 it cannot be called without arguments"),
        ("inspect nets:Net --input 2,3,6,6 --weights w.pt", "GP103 weights are read from .safetensors, not .pt"),
        ("inspect nets:Net --input 2,3,6,6 --weights w.safetensors", "GP101 there is no such file"),
        ("inspect nets:Net --input 2,3,6,6 --weights other.safetensors", "GP504 the weights do not fit"),
        ("inspect nets:Net --input 2,3,6,6 --opset 18", "GP107 --optimize and --opset are for ONNX models"),
        ("inspect dense.pt2 --input 2,3,6,6", "GP107 --weights and --input are for a module"),
        ("prune dense.pt2 small --ratio 0.4", "GP107 an exported program has no class"),
        ("prune dense.pt2 small.pt --ratio 0.4", "GP107 a model of PyTorch is not written as .pt"),
        ("prune dense.pt2 dense.pt2 --ratio 0.4", "GP104 the output is the input model"),
        ("prune dense.pt2 small.pt2 --ratio 0.4 --bench", "GP107 --bench measures ONNX models only"),
        ("clean dense.pt2 small.pt2", "GP103 graphprune clean reads ONNX models only"),
    ],
)
def test_what_is_wrong_is_said(folder: Path, capsys: pytest.CaptureFixture[str], line: str, expected: str) -> None:
    save_file({"first.weight": torch.zeros(2)}, "other.safetensors")
    before = Path("dense.pt2").read_bytes()
    assert main(line.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(expected), err
    assert len(err.splitlines()) <= 3
    assert Path("dense.pt2").read_bytes() == before


# ---------------------------------------------------------------- files that want more than to be read
class _Runs:
    """Unpickling this makes a file."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("executed",)


def _edited(record: str, change: Callable[[bytes], bytes]) -> Callable[[dict[str, bytes]], None]:
    def edit(records: dict[str, bytes]) -> None:
        name = next(each for each in records if each.endswith(record))
        changed = change(records[name])
        assert changed != records[name]
        records[name] = changed

    return edit


def _added(record: str, content: bytes) -> Callable[[dict[str, bytes]], None]:
    def edit(records: dict[str, bytes]) -> None:
        root = next(iter(records)).split("/")[0]
        records[f"{root}/{record}" if record != "version" else record] = content

    return edit


def _pickled() -> bytes:
    buffer = io.BytesIO()
    torch.save(((_Runs(),), {}), buffer)
    return buffer.getvalue()


def _replaced(old: str, new: str) -> Callable[[bytes], bytes]:
    return lambda data: data.replace(old.encode(), new.encode())


COMMAND = "__import__('os').mkdir('executed')"
HOSTILE: dict[str, Callable[[dict[str, bytes]], None]] = {
    "pickled inputs": _edited("sample_inputs/model.pt", lambda _: _pickled()),
    "a pickled weight": _edited("model_weights_config.json", _replaced('"use_pickle": false', '"use_pickle": true')),
    "a pickled object": _edited(
        "model_constants_config.json",
        lambda _: b'{"config": {"x": {"path_name": "custom_obj_0", "use_pickle": true, "is_param": false}}}',
    ),
    "a function as operator": _edited(
        "models/model.json", _replaced("torch.ops.aten.relu.default", "torch.serialization.os.mkdir")
    ),
    "an attribute as operator": _edited(
        "models/model.json", _replaced("torch.ops.aten.relu.default", "_operator.methodcaller")
    ),
    "a file as tensor": _edited(
        "models/model.json", _replaced("torch.ops.aten.relu.default", "torch.ops.aten.from_file.default")
    ),
    "code as size": _edited("models/model.json", _replaced("Symbol('", f"{COMMAND}+Symbol('")),
    "code as name": _edited("models/model.json", _replaced('"images"', f'"images={COMMAND}"')),
    "code as parameter": _edited("models/model.json", _replaced('"stem.weight"', "\"stem.weight\\\");import os\"")),
    "code in a trace": _edited("models/model.json", _replaced('"stack_trace": "', f'"stack_trace": "\\r{COMMAND}\\r')),
    "a class as container": _edited("models/model.json", _replaced("builtins.tuple", "builtins.object")),
    "a library": _added("data/aotinductor/model/x.so", b"x"),
    "the old format": _added("version", b"8.1"),
}  # fmt: skip


def rewritten(edit: Callable[[dict[str, bytes]], None]) -> None:
    with zipfile.ZipFile("dense.pt2") as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    edit(records)
    with zipfile.ZipFile("hostile.pt2", "w") as archive:
        for name, content in records.items():
            archive.writestr(name, content)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_cannot_run_code(folder: Path, name: str) -> None:
    rewritten(HOSTILE[name])
    with pytest.raises(GraphPruneError) as found:
        api.load("hostile.pt2")
    assert found.value.code == "GP103" and found.value.remedy
    assert not Path("executed").exists()


def test_the_attack_works_on_a_reader_that_trusts(folder: Path) -> None:
    """The pickled inputs above do run their code when the file is given to PyTorch: the refusal is what stops them."""
    rewritten(HOSTILE["pickled inputs"])
    with contextlib.suppress(AssertionError, TypeError):  # what is unpickled is no input; by then it is done
        torch.export.load("hostile.pt2")
    assert Path("executed").exists()


def test_a_rewritten_file_that_is_harmless_is_read(folder: Path) -> None:
    rewritten(lambda records: None)
    assert api.load("hostile.pt2").state_dict.keys() == torch.export.load("dense.pt2").state_dict.keys()


@pytest.mark.parametrize("content", [b"", b"PK", pickle.dumps({}), None], ids=["empty", "short", "pickle", "cut"])
def test_a_damaged_file(folder: Path, content: bytes | None) -> None:
    whole = Path("dense.pt2").read_bytes()
    Path("bad.pt2").write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(GraphPruneError, match="GP102"):
        api.load("bad.pt2")


def test_a_program_is_saved_whole(folder: Path) -> None:
    program = api.load("dense.pt2")
    shutil.copy("dense.pt2", "old.pt2")
    assert api.save(program, "new.pt2") == [Path("new.pt2").resolve()]
    assert torch.equal(api.load("new.pt2").module()(images()), program.module()(images()))


# ---------------------------------------------------------------- recovery
@pytest.mark.parametrize("out", ["small.pt2", "small.onnx"])
def test_a_program_is_recovered(folder: Path, capsys: pytest.CaptureFixture[str], out: str) -> None:
    import numpy as np

    np.save("data.npy", images(64).numpy())
    line = ["dense.pt2", out, "--macs", "0.6", "--calibration", "data.npy", "--batch", "16"]
    assert main([*line, "--recover", "least_squares", "--json"]) == 0
    report = data(capsys)
    assert any(note.startswith("least_squares: ") for note in report["notes"])
    oracles = [check["oracle"] for check in report["verification"]["checks"]]
    assert "mask" in oracles and oracles.count("permutation") == 2  # of the cut, then of what was made of it
    assert json.loads(Path("small.plan.json").read_text())["options"]["recover"] == ["least_squares"]


def test_a_module_is_recovered_into_a_folder(folder: Path) -> None:
    import numpy as np

    np.save("data.npy", np.random.default_rng(0).standard_normal((64, 3, 6, 6)).astype(np.float32))
    weights()
    line = ["nets:Net", "OUT", *INPUT, "--weights", "weights.safetensors", "--macs", "0.6"]
    assert main([*line[:1], "plain", *line[2:], "-q"]) == 0
    assert main([*line[:1], "small", *line[2:], "--calibration", "data.npy", "--recover", "least_squares", "-q"]) == 0
    import nets

    plain, small = (graphprune.torch.load(nets.Net, name, torch.zeros(2, 3, 6, 6)) for name in ("plain", "small"))
    assert plain.last.weight.shape == small.last.weight.shape
    assert not torch.equal(plain.last.weight, small.last.weight)


def test_a_wrong_program_is_not_recovered(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    from graphprune.verify import Check, Verification

    np.save("data.npy", images(16).numpy())
    wrong = Verification((Check("mask", "y", 1, 0, False),))
    monkeypatch.setattr(import_module("graphprune.verify"), "verify_models", lambda *_, **__: wrong)
    line = ["dense.pt2", "small.pt2", "--macs", "0.6", "--calibration", "data.npy", "--recover", "bias"]
    assert main(line) == 1 and not Path("small.pt2").exists()
    assert main([*line, "--keep-failed"]) == 1 and Path("small.pt2").exists()
