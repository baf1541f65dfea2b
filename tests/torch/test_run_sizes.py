"""Costs of programs whose heights and widths are open: what stands behind a stride is counted as it is."""

import pytest
import torch
from torch import nn

import graphprune as gp
from graphprune import api


@pytest.mark.parametrize("size", [32, 45])
def test_open_sizes_cost_what_fixed_ones_do(size: int) -> None:
    torch.manual_seed(0)
    stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
    net = nn.Sequential(stem, nn.ReLU(), nn.MaxPool2d(3, stride=2), nn.Conv2d(8, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 1))
    edge = torch.export.Dim("edge", min=24, max=512)
    other = torch.export.Dim("other", min=24, max=512)
    image = torch.randn(1, 3, 64, 64)
    program = gp.analyze(torch.export.export(net.eval(), (image,), dynamic_shapes=({2: edge, 3: other},)))
    assert set(program.program.sizes.values()) == {64}
    assert api.cost(program).macs == api.cost(gp.analyze(net, image)).macs
    fixed = gp.analyze(net, torch.randn(1, 3, size, size))
    assert api.cost(program, sizes=dict.fromkeys(program.program.sizes, size)) == api.cost(fixed)
