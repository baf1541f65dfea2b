"""Residual blocks of modules: the graph without them, modules that cannot follow, and operators that write in place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn

import graphprune as gp
from graphprune.calibrate import Calibration
from graphprune.depth.residual import residuals
from graphprune.errors import GraphPruneError


class Block(nn.Module):
    """As in ResNets, written as many write it: in place."""

    def __init__(self, width: int, inplace: bool, before: bool = False) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(2))
        self.norm, self.other = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
        self.relu, self.before = nn.ReLU(inplace=inplace), before

    def forward(self, x: Tensor) -> Tensor:
        if self.before:
            return x + self.second(self.relu(self.norm(self.first(self.relu(x[:])))))
        out = self.other(self.second(self.relu(self.norm(self.first(x)))))
        if self.relu.inplace:
            out += x
        else:
            out = x + out
        return self.relu(out)


class Net(nn.Module):
    def __init__(self, inplace: bool, before: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.Sequential(*(Block(8, inplace, before) for _ in range(3)))
        self.head = nn.Linear(8, 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(images)).mean((2, 3)))


def images(seed: int = 0) -> Tensor:
    return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def net(inplace: bool = False, before: bool = False) -> Net:
    torch.manual_seed(0)
    return Net(inplace, before).eval()


def prune(model: Any, depth: int = 1, **options: Any) -> gp.Result:
    return gp.prune(model, images(), depth=depth, calibration=Calibration([((images(1),), {})]), **options)


def without(model: Net, gone: int) -> Tensor:
    """What the module computes where one block is only the activation at its end."""
    with torch.no_grad():
        x = model.stem(images(2))
        for place, block in enumerate(model.blocks):
            x = torch.relu(x) if place == gone else block(x)
        return model.head(x.mean((2, 3)))


@pytest.mark.parametrize("inplace", [False, True])
def test_the_graph_without_a_block(inplace: bool) -> None:
    model = net(inplace)
    found = residuals(gp.analyze(model, images()))
    assert len(found) == 3
    result = prune(model)
    assert result.verification is not None and result.verification.ok
    (name,) = result.plan.blocks
    gone = [each.name for each in found].index(name)
    given = images(2)
    torch.testing.assert_close(result.model(given), without(model, gone), rtol=1e-4, atol=1e-5)
    assert torch.equal(given, images(2))
    left = {each for each, _ in result.model.named_parameters()}
    assert not any(each.startswith(f"blocks.{gone}.") for each in left) and len(left) == 16
    assert any("GraphModule" in note for note in result.report.notes)


def test_a_branch_that_writes_to_its_skip_stays() -> None:
    """In ``x + f(relu_(x[:]))`` the skip is what the branch has written."""
    assert len(residuals(gp.analyze(net(before=True), images()))) == 3
    assert residuals(gp.analyze(net(inplace=True, before=True), images())) == []


def test_all_blocks() -> None:
    result = prune(net(inplace=True), 3)
    model = net()
    with torch.no_grad():
        expected = model.head(torch.relu(model.stem(images(2))).mean((2, 3)))
    torch.testing.assert_close(result.model(images(2)), expected, rtol=1e-4, atol=1e-5)


def test_a_class_cannot_follow() -> None:
    for change in (lambda: prune(net(), as_graph=False), lambda: gp.prune_(net(), images(), plan=prune(net()).plan)):
        with pytest.raises(GraphPruneError, match="residual blocks") as caught:
            change()
        assert caught.value.code == "GP507"
    with pytest.raises(GraphPruneError, match="masks hide channels"):
        gp.mask(net(), prune(net()).plan, images())


def test_exported_programs_and_plans_for_other_checkpoints() -> None:
    result = prune(net(), 2)
    program = torch.export.export(net(), (images(),))
    small = prune(program, 2).model
    assert type(small) is torch.export.ExportedProgram
    torch.testing.assert_close(small.module()(images()), result.model(images()), rtol=1e-4, atol=1e-5)
    again = gp.prune(net(), images(), plan=result.plan)
    assert torch.equal(again.model(images(2)), result.model(images(2)))


def test_it_is_saved_and_loaded(tmp_path: Path) -> None:
    result = prune(net(), 2)
    gp.save(result.model, tmp_path / "small")
    loaded = gp.load(net, tmp_path / "small", images())
    assert torch.equal(loaded(images(2)), result.model(images(2)))


def test_recovery_and_training_go_on() -> None:
    dense = net()
    plain, better = prune(dense), prune(dense, recover="least_squares")
    held = images(3)
    gaps = [(each.model(held) - dense(held)).square().sum().item() for each in (plain, better)]
    assert gaps[1] < gaps[0]
    better.model(images()).sum().backward()
    assert all(each.grad is not None and np.isfinite(each.grad.numpy()).all() for each in better.model.parameters())
