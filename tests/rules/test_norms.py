"""Normalisations: what follows the channels, and which statistics a cut changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphprune.dims import find
from tests.rules.laws import Checked, Operation, check

_random = np.random.default_rng(0)


def draw(*shape: int) -> np.ndarray:
    return _random.normal(size=shape).astype(np.float32)


def inexact(checked: Checked) -> set[str]:
    """Where the dimensions are first found whose cut changes a statistic."""
    return {place for leaf, place in checked.free().items() if leaf in checked.analysis.inexact}


@pytest.mark.parametrize("shape", [(2, 4), (2, 4, 5), (2, 4, 5, 3)])
def test_batch_norm_follows_channels_exactly(shape: tuple[int, ...]) -> None:
    operands = [draw(*shape), draw(4), draw(4), draw(4), np.abs(draw(4))]
    checked = check(Operation("BatchNormalization", operands, version=15), {f"x0:{k}" for k in range(len(shape))})
    assert inexact(checked) == set()


def test_running_statistics_come_out_with_the_channels() -> None:
    operands = [draw(2, 4, 5), draw(4), draw(4), draw(4), np.abs(draw(4))]
    checked = Checked(Operation("BatchNormalization", operands, 3, version=15, training_mode=1))
    assert [axis is checked.results[0][1] for (axis,) in checked.results[1:]] == [True, True]
    assert inexact(checked) == {"x0:0", "x0:2"}  # in this form the statistics are those of the batch


def test_instance_norm_keeps_channels_apart() -> None:
    operation = Operation("InstanceNormalization", [draw(2, 4, 5, 3), draw(4), draw(4)])
    checked = check(operation, {"x0:0", "x0:1", "x0:2", "x0:3"})
    assert inexact(checked) == {"x0:2", "x0:3"}


@pytest.mark.parametrize("axis", [-1, 2, 1])
def test_layer_norm_computes_over_the_last_axes(axis: int) -> None:
    shape = (2, 3, 4)
    normed = shape[axis:]
    checked = check(
        Operation("LayerNormalization", [draw(*shape), draw(*normed), draw(*normed)], axis=axis),
        {"x0:0", "x0:1", "x0:2"},
    )
    assert inexact(checked) == ({"x0:1", "x0:2"} if axis == 1 else {"x0:2"})


def test_layer_norm_with_its_statistics_and_without_a_shift() -> None:
    checked = check(Operation("LayerNormalization", [draw(2, 3, 4), draw(4)], 3), {"x0:0", "x0:1", "x0:2"})
    assert [axis.size for axis in checked.results[1]] == [2, 3, 1]


def test_rms_norm() -> None:
    checked = check(Operation("RMSNormalization", [draw(2, 3, 4), draw(4)], version=23), {"x0:0", "x0:1", "x0:2"})
    assert inexact(checked) == {"x0:2"}


@pytest.mark.parametrize(("channels", "groups", "dims"), [(6, 2, 2), (6, 1, 1), (6, 6, 1), (6, 3, 2)])
def test_group_norm_in_equal_shares_or_whole_groups(channels: int, groups: int, dims: int) -> None:
    operands = [draw(2, channels, 5), draw(channels), draw(channels)]
    checked = check(Operation("GroupNormalization", operands, version=21, num_groups=groups), {"x0:0", "x0:1", "x0:2"})
    assert sum(place == "x0:1" for place in checked.free().values()) == dims
    if groups == channels:
        assert "x0:1" not in inexact(checked)


def test_scale_per_group_in_old_files() -> None:
    operands = [draw(2, 6, 5), draw(2), draw(2)]
    checked = Checked(Operation("GroupNormalization", operands, version=18, num_groups=2))
    shares = {leaf for leaf, place in checked.free().items() if place == "x0:1"}
    assert {leaf.size for leaf in shares} == {2, 3}
    assert find(checked.inputs["x1"][0]) in shares


@pytest.mark.parametrize(
    ("op", "given", "axis"),
    [("LpNormalization", {"axis": 1, "p": 2}, 1), ("MeanVarianceNormalization", {"axes": [1]}, 1)],
)
def test_statistics_without_parameters(op: str, given: dict[str, Any], axis: int) -> None:
    checked = check(Operation(op, [draw(2, 4, 5)], version=13, **given), {"x0:0", "x0:1", "x0:2"})
    assert inexact(checked) == {f"x0:{axis}"}


def test_a_channel_normalised_by_its_neighbours_stays() -> None:
    check(Operation("LRN", [draw(2, 6, 5, 5)], size=3), {"x0:0", "x0:2", "x0:3"})
