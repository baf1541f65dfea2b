"""A training that was interrupted goes on bit by bit as if nothing had been."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

import graphprune as gp
from graphprune.errors import GraphPruneError
from tests.torch.lessons import data, pupil, same, taught
from tests.torch.test_finetune import HELD, Pairs, zeroed


def noisy(batch: Any) -> Any:
    """Draws from every global source of random numbers."""
    images, labels = batch
    scale = 1 + 0.1 * random.random() + 0.1 * float(np.random.rand())
    return images * scale + 0.1 * torch.randn_like(images), labels


class Stop:
    """A function for `augment` that interrupts at a step, once: by itself, or by a signal, which is heard later."""

    def __init__(self, step: int = 0, by_signal: bool = False) -> None:
        self.left, self.by_signal = step, by_signal

    def __call__(self, batch: Any) -> Any:
        self.left -= 1
        if self.left == 0:
            if not self.by_signal:
                raise KeyboardInterrupt
            os.kill(os.getpid(), signal.SIGINT)
        return noisy(batch)


WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "adamw": {"optimizer": "adamw", "rate": 0.01},
    "lora": {"train": "lora"},
    "kept zeros": {"keep_zeros": True},
    "more zeros": {"sparsity": 0.9},
    "zeros by movement": {"sparsity": 0.9, "zeros_by": "movement"},
    "often": {"validate_every": 2, "schedule": "one_cycle"},
    "loader": {"data": torch.utils.data.DataLoader(Pairs(), 16, shuffle=True)},
    "teacher": {"teacher": pupil(5), "features": ["block"]},
    "mixed": {"teacher": pupil(5), "loss": None, "mix": "mixup,cutmix"},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("step", "by_signal"), [(4, False), (7, False), (6, True), (11, True)])
def test_interrupted_and_resumed_is_uninterrupted(tmp_path: Path, way: str, step: int, by_signal: bool) -> None:
    options = {"epochs": 2, "validate": HELD, **WAYS[way]}
    model, _ = zeroed()
    whole = taught(model, augment=Stop(), **options)
    folder, told = tmp_path / "state", []
    with pytest.raises(KeyboardInterrupt):
        taught(model, augment=Stop(step, by_signal), checkpoint=folder, tell=told.append, **options)
    assert told[-1].startswith("interrupted: the training up to step")
    resumed = taught(model, augment=Stop(), checkpoint=folder, resume=True, **options)
    assert same(resumed.model, whole.model)
    plain = [(each.step, each.epoch, each.rate, each.loss, each.metric) for each in whole.history]
    assert [(each.step, each.epoch, each.rate, each.loss, each.metric) for each in resumed.history] == plain
    assert (resumed.best, resumed.best_step, resumed.steps) == (whole.best, whole.best_step, whole.steps)


def test_an_interrupted_validation_is_made_up_for(tmp_path: Path) -> None:
    calls = []

    def held() -> Any:
        calls.append(0)
        if len(calls) == 3:
            raise KeyboardInterrupt
        yield HELD

    options = {"validate": held, "validate_every": 2, "steps": 8, "checkpoint": tmp_path / "state"}
    with pytest.raises(KeyboardInterrupt):
        taught(pupil(), **options)
    resumed = taught(pupil(), resume=True, **options)
    assert [each.step for each in resumed.history] == [0, 2, 4, 6, 8]


def test_the_comparison_can_fail(tmp_path: Path) -> None:
    whole, shorter = taught(pupil(), epochs=2), taught(pupil(), epochs=2, steps=11)
    assert not same(whole.model, shorter.model)


def test_what_is_done_stays_done(tmp_path: Path) -> None:
    options = {"checkpoint": tmp_path / "state", "validate": HELD}
    first = taught(pupil(), resume=True, **options)  # nothing to go on from: it begins
    again = taught(pupil(), resume=True, **options)
    assert same(first.model, again.model) and again.history == first.history


def test_a_state_is_plain(tmp_path: Path) -> None:
    taught(pupil(), checkpoint=tmp_path / "state")
    assert sorted(each.name for each in (tmp_path / "state").iterdir()) == ["state.safetensors", "training.json"]
    assert [each.name for each in tmp_path.iterdir()] == ["state"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rate": 0.2}, "rate 0.1, and this is 0.2"),
        ({"epochs": 3}, "epochs 2"),
        ({"model": pupil(9)}, "model"),
        ({"loss": "mse"}, "loss 'cross_entropy'"),
    ],
)
def test_another_training_is_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    taught(pupil(), checkpoint=tmp_path / "state")
    model = changes.pop("model", pupil())
    with pytest.raises(GraphPruneError, match=words) as caught:
        taught(model, checkpoint=tmp_path / "state", resume=True, **changes)
    assert caught.value.code == "GP710"


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("all of it")
    for resume in (False, True):
        with pytest.raises(GraphPruneError) as caught:
            taught(pupil(), checkpoint=tmp_path, resume=resume)
        assert caught.value.code in {"GP104", "GP505"}
    assert (tmp_path / "thesis.tex").read_text() == "all of it"


@pytest.mark.parametrize("name", ["state.safetensors", "training.json"])
def test_a_damaged_state_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "state"
    taught(pupil(), checkpoint=folder)
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(GraphPruneError) as caught:
        taught(pupil(), checkpoint=folder, resume=True)
    assert caught.value.code == "GP505"


def test_the_last_good_state_is_kept(tmp_path: Path) -> None:
    images, labels = data()
    images[40] = torch.nan
    folder = tmp_path / "state"
    with pytest.raises(KeyboardInterrupt):
        taught(pupil(), checkpoint=folder, augment=Stop(1, by_signal=True), epochs=1)
    before = (folder / "state.safetensors").read_bytes()
    with pytest.raises(GraphPruneError, match=r"the training up to step 1 is in .*state") as caught:
        taught(pupil(), data=(images, labels), checkpoint=folder, resume=True, augment=Stop(), epochs=1)
    assert caught.value.code == "GP707"
    assert (folder / "state.safetensors").read_bytes() == before
    resumed = taught(pupil(), checkpoint=folder, resume=True, augment=Stop(), epochs=1)
    assert same(resumed.model, taught(pupil(), augment=Stop(), epochs=1).model)


def test_handlers_of_signals_are_put_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    gp.finetune(pupil(), data(), steps=1)
    assert signal.getsignal(signal.SIGINT) is before
