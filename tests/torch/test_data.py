"""Calibration data for modules: tensors and arguments in every form that a module is called with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import graphprune as gp
from graphprune.errors import GraphPruneError


class Two(torch.nn.Module):  # type: ignore[misc,name-defined]
    """Two inputs, one of them named as a function of Python is, and a number."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(4, 8), torch.nn.Linear(8, 3)

    def forward(self, input: Any, mask: Any = None, scale: float = 1.0) -> Any:
        return self.second(torch.relu(self.first(input))) * mask * scale


X, M = torch.randn(20, 4, generator=torch.Generator().manual_seed(0)), torch.ones(20, 1)
EXAMPLE = {"input": X[:2], "mask": M[:2], "scale": 2.0}


def loader() -> Iterator[Any]:
    for begin in range(0, 20, 8):
        yield X[begin : begin + 8], M[begin : begin + 8]


FORMS: dict[str, Any] = {
    "dict": {"input": X, "mask": M},
    "tuple": (X, M),
    "case": ((), {"input": X, "mask": M}),
    "generator of tuples": loader,
    "samples": [{"input": x, "mask": m} for x, m in zip(X, M, strict=True)],
    "half": (X.double(), M.numpy()),
}


@pytest.mark.parametrize("name", FORMS)
def test_all_forms_give_the_same_cases(name: str) -> None:
    found = gp.calibration(FORMS[name], Two().eval(), EXAMPLE, batch=8)
    args, kwargs = found.cases[1]
    assert args == () and list(kwargs) == ["input", "mask", "scale"]
    torch.testing.assert_close(kwargs["input"], X[8:16])
    assert kwargs["input"].dtype == torch.float32 and kwargs["scale"] == 2.0


def test_data_loaders_bring_labels() -> None:
    data = torch.utils.data.TensorDataset(X, M, torch.arange(20) % 3)
    found = gp.calibration(torch.utils.data.DataLoader(data, batch_size=10), Two().eval(), EXAMPLE)
    assert found.labels == [[k % 3 for k in range(10)], [k % 3 for k in range(10, 20)]]


@pytest.mark.parametrize("criterion", ["wanda", "flap", "chip", "thinet"])
def test_a_module_is_pruned_by_its_activations(criterion: str) -> None:
    model = Two().eval()
    result = gp.prune(model, EXAMPLE, macs=0.6, criterion=criterion, calibration=loader())
    assert result.model.first.out_features < 8
    assert result.verification is not None and result.verification.ok
    assert any(note.startswith("calibration data: batches: 20 samples in 3 batches") for note in result.report.notes)


def test_in_place_from_a_generator() -> None:
    model = Two().eval()
    result = gp.prune_(model, EXAMPLE, ratio=0.5, criterion="wanda", calibration=loader())
    assert model.first.out_features == 4 and "sha256" in result.plan.options["calibration"]


def test_noise_for_a_module() -> None:
    found = gp.calibration(None, Two().eval(), EXAMPLE, samples=10)
    assert found.data_free and found.cases[0][1]["input"].shape == (10, 4)


def test_the_wrong_tensors_are_refused() -> None:
    with pytest.raises(GraphPruneError, match=r"GP702.*gives 20x5"):
        gp.calibration((torch.randn(20, 5), M), Two().eval(), EXAMPLE)
    with pytest.raises(GraphPruneError, match=r"GP702.*'masks'"):
        gp.calibration({"input": X, "masks": M}, Two().eval(), EXAMPLE)
    assert np.isfinite(X.numpy()).all()
