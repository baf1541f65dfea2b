"""Operators of other libraries, with rows in axis notation given for them: through every door that cuts."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn

import graphprune as gp
import graphprune.torch as door
from graphprune.errors import GraphPruneError
from tests.torch.compiling import compiled

OWN = {"graphprune_tests::scaled": "n c ..., c -> n c ..."}
IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@torch.library.custom_op("graphprune_tests::scaled", mutates_args=())
def scaled(x: Tensor, by: Tensor) -> Tensor:
    return x * by[:, None, None]


@scaled.register_fake
def _(x: Tensor, by: Tensor) -> Tensor:
    return torch.empty_like(x)


class Scaling(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 1)
        self.by = nn.Parameter(torch.linspace(0.5, 2, 16))
        self.head = nn.Linear(16, 5)

    def forward(self, images: Tensor) -> Tensor:
        hidden = scaled(torch.relu(self.first(images)), self.by)
        hidden = hidden + torch.relu(self.second(hidden))
        return self.head(hidden.mean((2, 3)))


def model() -> nn.Module:
    torch.manual_seed(0)
    return Scaling().eval()


@pytest.mark.parametrize(
    "options",
    [
        {"macs": 0.5},
        {"macs": 0.5, "as_graph": True},
        {"macs": 0.5, "steps": 2, "recover": "least_squares", "calibration": torch.randn(64, 3, 8, 8)},
        {"depth": 1, "as_graph": True, "calibration": torch.randn(64, 3, 8, 8)},
        {"depth": "auto", "macs": 0.5, "calibration": torch.randn(64, 3, 8, 8)},
    ],
)
def test_what_a_row_ties_together_is_cut_and_verified(options: dict[str, Any]) -> None:
    result = gp.prune(model(), IMAGES, rules=OWN, **options)
    assert result.verification is not None
    assert result.verification.ok
    assert result.report.pruned.macs < result.report.dense.macs
    if "depth" not in options:
        assert dict(result.model.named_parameters())["by"].shape[0] < 16


def test_without_its_row_an_operator_keeps_its_channels() -> None:
    with pytest.raises(GraphPruneError, match=r"GP302[\s\S]*no rule for the operator graphprune_tests::scaled"):
        gp.prune(model(), IMAGES, ratio=0.5)


def test_a_row_that_is_wrong_is_found_out() -> None:
    with pytest.raises(GraphPruneError, match=r"GP40[12]"):
        gp.prune(model(), IMAGES, ratio=0.5, rules={"graphprune_tests::scaled": "n c ..., d -> n c ..."})


def test_in_place_and_by_verify() -> None:
    dense = model()
    result = gp.prune_(dense, IMAGES, macs=0.5, rules=OWN)
    assert gp.verify(model(), dense, result.plan, example_inputs=IMAGES, rules=OWN).ok


def test_zeros_with_channels_in_another_order() -> None:
    result = gp.sparsify(model(), IMAGES, format="2:4", permute=True, only=["*"], rules=OWN)
    assert result.verification.ok


def test_inside_the_compiler() -> None:
    small = compiled(model(), macs=0.5, then="eager", rules=OWN, verify="full")
    with torch.no_grad():
        small(IMAGES)
    assert door.report(small).total.pruned.macs <= 0.5 * door.report(small).total.dense.macs
