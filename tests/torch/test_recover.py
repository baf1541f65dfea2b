"""Recovery of modules: the class that went in, with refitted weights, closer to the dense one than the cut alone."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import graphprune as gp
from graphprune.errors import GraphPruneError


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, 2 * width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(2 * width)
        self.conv2 = nn.Conv2d(2 * width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = torch.relu_(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += x
        return torch.relu_(out)


def network() -> nn.Module:
    """Two residual blocks whose statistics fit the data below, in place wherever networks are."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), Block(8), Block(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
    )
    model.train()
    with torch.no_grad():
        for batch in images(0):
            model(batch)
    return model.eval()


def images(seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    noise = [torch.randn(16, 3, 10, 10, generator=generator) for _ in range(6)]
    return [nn.functional.avg_pool2d(each, 3, 1) * 3 for each in noise]


@torch.no_grad()
def error(dense: nn.Module, other: nn.Module) -> float:
    pairs = [(dense(batch), other(batch)) for batch in images(5)]
    return float(sum(((a - b) ** 2).mean() for a, b in pairs) / sum(a.var() for a, _ in pairs))


def test_least_squares_keeps_the_class_and_comes_closer() -> None:
    dense = network()
    before = copy.deepcopy(dense.state_dict())
    plain = gp.prune(dense, images(0)[0], macs=0.6)
    fitted = gp.prune(dense, images(0)[0], macs=0.6, calibration=images(0), recover="least_squares")
    assert type(fitted.model) is nn.Sequential
    assert error(dense, fitted.model) < 0.5 * error(dense, plain.model)
    assert fitted.verification is not None and fitted.verification.ok
    assert all(torch.equal(value, before[name]) for name, value in dense.state_dict().items())


@pytest.mark.parametrize("recover", ["batch_norm", "bias", "batch_norm,least_squares"])
def test_every_recovery_leaves_a_module_that_runs_and_trains(recover: str) -> None:
    small = gp.prune(network(), images(0)[0], macs=0.6, calibration=images(0), recover=recover).model
    small(images(1)[0]).sum().backward()
    assert all(parameter.grad is not None for parameter in small.parameters())


def test_in_place_parameters_stay_the_same_objects() -> None:
    dense = network()
    expected = copy.deepcopy(dense)
    known = {name: id(parameter) for name, parameter in dense.named_parameters()}
    gp.prune_(dense, images(0)[0], macs=0.6, calibration=images(0), recover="least_squares")
    assert known == {name: id(parameter) for name, parameter in dense.named_parameters()}
    assert error(expected, dense) < 0.2


def test_a_failing_recovery_leaves_the_module_alone() -> None:
    dense = network()
    before = copy.deepcopy(dense.state_dict())
    bad = [batch.clone() for batch in images(0)]
    bad[2][0, 0, 0, 0] = float("nan")
    with pytest.raises(GraphPruneError):
        gp.prune_(dense, images(0)[0], macs=0.6, calibration=bad, recover="least_squares")
    assert all(torch.equal(value, before[name]) for name, value in dense.state_dict().items())


def test_graphs_and_exported_programs_recover_too() -> None:
    dense = network()
    for model in (dense, torch.export.export(dense, (images(0)[0],))):
        result = gp.prune(
            model, images(0)[0], macs=0.6, calibration=images(0), recover="least_squares",
            **({"as_graph": True} if model is dense else {}),
        )  # fmt: skip
        found = result.model if isinstance(result.model, nn.Module) else result.model.module()
        with torch.no_grad():
            batch = images(0)[1]
            assert float(((dense(batch) - found(batch)) ** 2).mean() / dense(batch).var()) < 0.2


def test_cuts_in_steps_keep_the_class() -> None:
    dense = network()
    options = {"macs": 0.5, "criterion": "wanda", "calibration": images(0), "recover": "least_squares"}
    result = gp.prune(dense, images(0)[0], **options, steps=3)
    assert type(result.model) is nn.Sequential
    assert result.verification is not None and result.verification.ok
    assert result.plan.options["steps"] == 3 and result.plan.options["refit"] == ["least_squares"]
    assert result.plan.costs["planned"]["macs"] <= 0.5 * result.plan.costs["dense"]["macs"]


def test_the_largest_cut_within_a_drop_keeps_the_class() -> None:
    dense = network()
    with torch.no_grad():
        held = [(batch, dense(batch).argmax(1)) for batch in images(9)[:3]]
    result = gp.prune(
        dense, images(0)[0], max_drop=0.2, macs=0.3, validation=held, calibration=images(0), recover="least_squares"
    )
    assert type(result.model) is nn.Sequential
    with torch.no_grad():
        right = torch.cat([result.model(batch).argmax(1) == label for batch, label in held])
    assert right.float().mean() >= 0.8
    assert "was found: metric of the dense model 1;" in str(result.report)


def test_gradients_of_what_is_left_are_taken_in_each_step() -> None:
    """Scores that need derivatives of the graph between two steps, by labels that come with the data."""
    dense, labels = network(), torch.arange(16) % 5
    data = [(batch, labels) for batch in images(0)[:2]]
    once, steps = (
        gp.plan(gp.analyze(dense, images(0)[0]), macs=0.4, criterion="taylor", calibration=data, steps=count)
        for count in (1, 3)
    )
    assert [cut.size for cut in once.groups] == [cut.size for cut in steps.groups]
    assert once.groups != steps.groups
