"""Gather, Pad, Resize and ScatterND by constant numbers against onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tvm")

from graphprune.targets.kernels.tir import Machine
from tests.targets.network.harness import MACHINES, check
from tests.targets.network.net import Net

SHAPES = [(1, 3, 5, 7), (2, 4, 1, 17), (2, 1, 9, 16)]


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    machine=st.sampled_from(MACHINES),
    shape=st.sampled_from([(7,), (3, 18), (2, 5, 7), (2, 3, 4, 5)]),
    axis=st.integers(0, 3),
    indices=st.sampled_from([(1,), (3, 2), (40,), (2, 1, 3)]),
    turned=st.booleans(),
    dtype=st.sampled_from(["float32", "int64"]),
    seed=st.integers(0, 99),
)
def test_gather(
    machine: Machine, shape: tuple[int, ...], axis: int, indices: tuple[int, ...], turned: bool, dtype: str, seed: int
) -> None:
    net = Net(seed=seed)
    x = net.input(*shape, dtype=dtype)
    if turned:
        x = net.op("Transpose", x)
    size = tuple(reversed(shape)) if turned else shape
    axis %= len(shape)
    where = net.constant(net.generator.integers(-size[axis], size[axis], indices), "int64")
    check(net.model(net.op("Gather", x, where, axis=axis)), machine)


@pytest.mark.parametrize("machine", MACHINES[::2], ids=str)
@pytest.mark.parametrize("mode", ["reflect", "edge", "wrap"])
@pytest.mark.parametrize("pads", [[0, 0, 0, 2, 0, 0, 0, 1], [0, 1, 2, 3, 0, 0, 1, 2]])
def test_borders(machine: Machine, mode: str, pads: list[int]) -> None:
    net = Net(opset=19)
    x = net.op("Sin", net.input(2, 3, 5, 6))
    y = net.op("Pad", x, net.numbers(*pads), mode=mode)
    check(net.model(y, net.op("Conv", y, net.weight(2, 3 + pads[1] + pads[5], 3, 3), pads=[1] * 4)), machine)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    machine=st.sampled_from(MACHINES),
    shape=st.sampled_from(SHAPES),
    sizes=st.tuples(st.integers(1, 20), st.integers(1, 33)),
    by=st.sampled_from(["sizes", "scales"]),
    mode=st.sampled_from(["nearest", "linear"]),
    transform=st.sampled_from(
        ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric"]
    ),
    rounding=st.sampled_from(["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"]),
)
def test_resize(
    machine: Machine, shape: tuple[int, ...], sizes: tuple[int, int], by: str, mode: str, transform: str, rounding: str
) -> None:
    if transform == "half_pixel_symmetric":
        mode = "linear"  # the middle of a map lies on an entry or between two: the last bit decides which is nearest
    net = Net(opset=19)
    x = net.op("Sin", net.input(*shape))
    attributes: dict[str, object] = {"mode": mode, "coordinate_transformation_mode": transform}
    if mode == "nearest":
        attributes["nearest_mode"] = rounding
    if by == "sizes":
        y = net.op("Resize", x, None, None, net.numbers(*shape[:2], *sizes), **attributes)
    else:
        # not the ratio of the sizes, and nowhere near where rounding decides about them
        scales = [1, 1, *((new + 0.3) / old for new, old in zip(sizes, shape[2:], strict=True))]
        y = net.op("Resize", x, None, net.constant(scales, "float32"), **attributes)
    check(net.model(net.op("Cos", y)), machine)


@pytest.mark.parametrize("attributes", [{"mode": "cubic"}, {"mode": "linear", "antialias": 1}], ids=str)
def test_other_ways_to_resize_fall_back(attributes: dict[str, object]) -> None:
    net = Net(opset=19)
    y = net.op("Resize", net.input(1, 2, 5, 6), None, net.constant([1, 1, 0.5, 2], "float32"), **attributes)
    check(net.model(y), fallbacks=["Resize"])


@pytest.mark.parametrize("box", [(0, 1, 0, 2), (1, 2, 3, 5), (0, 2, 0, 5)])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_scatter_into_a_box(box: tuple[int, int, int, int], depth: int) -> None:
    net = Net()
    data = net.input(2, 5, 7)
    ranges = [np.arange(*box[:2]), np.arange(*box[2:]), np.arange(2, 6)][:depth]
    indices = np.stack(np.meshgrid(*ranges, indexing="ij"), -1)
    updates = net.input(*indices.shape[:-1], *(2, 5, 7)[depth:])
    y = net.op("ScatterND", net.op("Sin", data), net.constant(indices, "int64"), net.op("Cos", updates))
    check(net.model(y, net.op("Abs", data)))


def test_scatter_elsewhere_falls_back() -> None:
    net = Net()
    y = net.op("ScatterND", net.input(5, 3), net.constant([[3], [1]], "int64"), net.input(2, 3))
    check(net.model(y), fallbacks=["ScatterND"])


@pytest.mark.parametrize("cut", [(1, 5), (2, 7), (0, 3)])
def test_a_part_of_interleaved_digits(cut: tuple[int, int]) -> None:
    """A slice that digits cannot say is one of a copy."""
    net = Net()
    x = net.op("Reshape", net.op("Transpose", net.input(4, 3, 2), perm=[1, 2, 0]), net.numbers(3, 8))
    check(net.model(net.op("Slice", x, net.numbers(cut[0]), net.numbers(cut[1]), net.numbers(1))))
