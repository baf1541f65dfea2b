"""The comparison of benchmarks/against_worker.py accepts what is right, and nothing else."""

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn


class Net(nn.Module):
    """A convolution, a layer norm over its channels, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 4)
        nn.init.uniform_(self.norm.weight, 0.5, 1.5)
        nn.init.uniform_(self.norm.bias, 0.5, 1.5)

    def forward(self, images: Tensor) -> Tensor:
        hidden: Tensor = self.head(self.norm(self.conv(images).mean((2, 3))))
        return hidden


@pytest.fixture
def worker() -> ModuleType:
    folder = str(Path(__file__).parents[2] / "benchmarks")
    sys.path.insert(0, folder)
    try:
        return importlib.import_module("against_worker")
    finally:
        sys.path.remove(folder)


def pruned(worker: ModuleType) -> tuple[Any, ...]:
    torch.manual_seed(0)
    model, inputs = Net().eval(), (torch.randn(2, 3, 8, 8),)
    small, survivors, _ = worker.by_graphprune(model, inputs, False)
    return model, inputs, worker.outputs_of(small, inputs), survivors


def test_the_right_survivors_are_accepted(worker: ModuleType) -> None:
    model, inputs, found, survivors = pruned(worker)
    assert len(survivors["norm.weight"]) == 4
    masked = worker.masked_outputs(model, survivors, inputs)
    assert worker.gap(found, masked) < worker.SAME
    assert worker.gap(masked, worker.outputs_of(model, inputs)) > worker.LEAST_CONTROL


@pytest.mark.parametrize("name", ["conv.weight", "norm.weight", "norm.bias", "head.weight"])
def test_a_wrong_survivor_is_noticed(name: str, worker: ModuleType) -> None:
    model, inputs, found, survivors = pruned(worker)
    wrong = dict(survivors)
    wrong[name] = (survivors[name] + 1) % dict(model.named_parameters())[name].numel()
    assert worker.gap(found, worker.masked_outputs(model, wrong, inputs)) > worker.SAME


def test_numbers_that_are_none_are_noticed(worker: ModuleType) -> None:
    gap = worker.gap([torch.ones(1), torch.tensor([float("nan")])], [torch.ones(1), torch.ones(1)])
    assert not gap < worker.SAME
