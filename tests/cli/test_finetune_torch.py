"""`graphprune finetune`: from a checkpoint to a trained one, and after an interrupt."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from safetensors.torch import load_file, save_file

import graphprune as gp
from graphprune.cli import main
from tests.torch.lessons import Pupil, data, pupil, same, taught

MODULE = """
import torch
from tests.torch.lessons import Pupil, data

net = Pupil
calls = []


def train():
    return data()


def held():
    return data(60, seed=1)


def interrupting(batch):
    calls.append(0)
    if len(calls) == 9:
        raise KeyboardInterrupt
    return batch
"""
LINE = ("--data", "lesson:train", "--batch", "16", "--rate", "0.1", "--epochs", "2")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with lesson.py, dense.safetensors and the checkpoint `small`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "lesson", raising=False)
    Path("lesson.py").write_text(MODULE)
    dense = taught(pupil(), epochs=4).model.eval()
    save_file(dense.state_dict(), "dense.safetensors")
    gp.save(gp.prune(dense, data()[0][:2], macs=0.7, criterion="random", ignore=["stem.*"]).model, "small")
    return tmp_path


def test_a_checkpoint_is_trained_with_a_teacher(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    teacher = ("--teacher", "lesson:net", "--teacher-weights", "dense.safetensors", "--features", "block")
    line = ("finetune", "lesson:net", "tuned", "--weights", "small", *LINE, *teacher, "--validate", "lesson:held")
    assert main([*line, "--metric", "loss", "--json"]) == 0
    report: Any = json.loads(capsys.readouterr().out)
    assert report["written"] == ["tuned"] and report["stopped"] == "epochs" and report["steps"] == 12
    assert report["best"] < report["history"][0]["metric"]
    small, tuned = gp.load(Pupil, "small"), gp.load(Pupil, "tuned")
    assert tuned.inner.weight.shape == small.inner.weight.shape
    assert not torch.equal(tuned.inner.weight, small.inner.weight)
    dense = pupil()
    dense.load_state_dict(load_file("dense.safetensors"))
    expected = taught(small, teacher=dense, features=["block"], validate=data(60, seed=1), metric="loss").model
    assert same(tuned, expected)
    assert not Path("tuned.training").exists()


def test_batches_are_mixed_for_a_teacher_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    teacher = ("--teacher", "lesson:net", "--teacher-weights", "dense.safetensors", "--mix", "mixup,cutmix")
    line = ("finetune", "lesson:net", "tuned", "--weights", "small", *LINE, *teacher)
    assert main(line) == 2 and "option mix" in capsys.readouterr().err
    assert main([*line, "--loss", "none"]) == 0
    dense = pupil()
    dense.load_state_dict(load_file("dense.safetensors"))
    mixed, plain = (taught(gp.load(Pupil, "small"), teacher=dense, loss=None, mix=mix).model
                    for mix in ("mixup,cutmix", None))  # fmt: skip
    tuned = gp.load(Pupil, "tuned")
    assert same(tuned, mixed) and not same(tuned, plain)


def test_weights_alone_come_and_go(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ("finetune", "lesson:net", "out.safetensors", "--weights", "dense.safetensors", *LINE, "--train", "norms")
    assert main(line) == 0
    out = capsys.readouterr().out
    assert "stopped by epochs" in out and out.endswith("wrote out.safetensors\n")
    before, after = load_file("dense.safetensors"), load_file("out.safetensors")
    assert {name for name in before if not torch.equal(before[name], after[name])} >= {"norm.weight", "norm.bias"}
    assert torch.equal(before["stem.weight"], after["stem.weight"])


def test_after_an_interrupt_the_same_command_goes_on(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ("finetune", "lesson:net", "tuned", "--weights", "small", *LINE, "--augment", "lesson:interrupting")
    with pytest.raises(SystemExit) as done:
        main(line)
    assert done.value.code == 130
    told = capsys.readouterr().err
    assert "interrupted: the training up to step 8 is in tuned.training" in told and "--resume" in told
    assert not Path("tuned").exists()
    assert main(line) == 2 and "(resume)" in capsys.readouterr().err
    assert main([*line, "--resume"]) == 0
    assert "going on after step 8" in capsys.readouterr().err
    assert same(gp.load(Pupil, "tuned"), taught(gp.load(Pupil, "small")).model)


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("lesson:net out --epochs 1", "GP107", "--data package.module:callable"),
        ("lesson:net out --data lesson:train", "GP107", "how long"),
        ("lesson:net out.onnx --data lesson:train --epochs 1", "GP107", "not written as .onnx"),
        ("dense.safetensors out --data lesson:train --epochs 1", "GP103", "--weights"),
        ("gone out --data lesson:train --epochs 1", "GP101", "no such file"),
        ("lesson:net gone/out --data lesson:train --epochs 1", "GP105", "does not exist"),
        ("lesson:net out --data lesson:gone --epochs 1", "GP101", "cannot be imported"),
        ("lesson:net out --data lesson:train --epochs 1 --teacher-weights small", "GP107", "--teacher"),
        ("lesson:net out --data lesson:train --epochs 1 --weights nowhere", "GP103", ".safetensors"),
        ("lesson:net out --data lesson:train --epochs 1 --loss none", "GP704", "neither a loss nor a teacher"),
    ],
)
def test_mistakes_are_told(folder: Path, capsys: pytest.CaptureFixture[str], line: str, code: str, words: str) -> None:
    assert main(["finetune", *line.split()]) == 2
    err = capsys.readouterr().err
    assert err.startswith(code) and words in err
    assert not any(name.startswith("out") for name in (each.name for each in folder.iterdir()))
