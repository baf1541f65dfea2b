"""Time as a budget for modules: the class comes back, and layers can be run by themselves."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

import graphprune as gp
from graphprune.allocate.bounds import bounds
from graphprune.cost import LATENCY, Costing
from graphprune.dialects.aten.stopwatch import AtenStopwatch
from graphprune.errors import GraphPruneError
from graphprune.latency.layers import coarser, shapes_of
from graphprune.latency.table import Table
from tests.stopwatch import Fake

IMAGES = torch.zeros(1, 3, 8, 8)


def network() -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3, padding=1),
        torch.nn.BatchNorm2d(16),
        torch.nn.ReLU(),
        torch.nn.Conv2d(16, 16, 3, groups=16),
        torch.nn.ConvTranspose2d(16, 8, 2, stride=2),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(8, 4),
    ).eval()


def test_a_module_is_pruned_to_a_share_of_its_time() -> None:
    result = gp.prune(network(), IMAGES, latency=0.6, latency_table=Table(), stopwatch=Fake())
    assert type(result.model) is torch.nn.Sequential
    assert result.report.timing is not None
    assert 1 / result.report.timing.speedup <= 0.6 * 1.05
    dense, planned = (result.plan.costs[name][LATENCY] for name in ("dense", "planned"))
    assert planned <= 0.6 * dense


def test_pytorch_times_layers_of_all_kinds() -> None:
    """Real calls: that each can be made by itself, and takes some time."""
    analysis = gp.analyze(network(), IMAGES)
    allowed = coarser(analysis.groups, bounds(analysis, analysis.groups, align=4))
    watch = AtenStopwatch(analysis.program, 1)
    shapes = shapes_of(Costing(analysis, {}), analysis.groups, allowed)
    assert len(shapes) == 4
    for shape in shapes:
        layers = list(shape.layers())
        times = watch.layers(layers, 0.01)
        assert len(times) == len(layers)
        assert all(each > 0 for each in times)
    watch.network(analysis.program.native)()
    assert "1 thread" in watch.machine


def test_what_is_not_on_the_processor_is_refused() -> None:
    analysis = gp.analyze(network().to("meta"), IMAGES.to("meta"))
    with pytest.raises(GraphPruneError, match="on the processor") as error:
        AtenStopwatch(analysis.program, 1)
    assert error.value.code == "GP402"
