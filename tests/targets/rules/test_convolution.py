"""Convolutions of every kind against onnxruntime, alone and with what is fused into them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tvm")

from graphprune.targets.kernels.tir import Machine
from tests.targets.network.harness import MACHINES, built, check, compare
from tests.targets.network.net import Net

SIZES = [1, 2, 3, 5, 8, 15, 16, 17, 20]
ACTIVATIONS = ["Relu", "Sigmoid", "HardSwish", "Tanh", "LeakyRelu"]


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    machine=st.sampled_from(MACHINES),
    batch=st.integers(1, 3),
    groups=st.sampled_from([1, 1, 1, 2, 4, "depthwise"]),
    inner=st.sampled_from([1, 3, 4]),
    per=st.sampled_from([1, 2, 5, 8]),
    size=st.tuples(st.sampled_from(SIZES), st.sampled_from(SIZES)),
    kernel=st.tuples(st.sampled_from([1, 2, 3, 5, 7]), st.sampled_from([1, 3, 5, 7])),
    strides=st.sampled_from([(1, 1), (1, 1), (2, 2), (3, 3), (1, 2), (3, 1)]),
    dilations=st.sampled_from([(1, 1), (1, 1), (2, 2), (1, 3)]),
    pads=st.tuples(*[st.integers(0, 3)] * 4),
    auto_pad=st.sampled_from(["NOTSET", "NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]),
    density=st.sampled_from([1.0, 0.3, 0.0]),
    after=st.sampled_from([None, "Relu", "HardSwish"]),
    before=st.booleans(),
    seed=st.integers(0, 99),
)
def test_shapes(
    machine: Machine, batch: int, groups: int | str, inner: int, per: int, size: tuple[int, int],
    kernel: tuple[int, int], strides: tuple[int, int], dilations: tuple[int, int], pads: tuple[int, int, int, int],
    auto_pad: str, density: float, after: str | None, before: bool, seed: int,
) -> None:  # fmt: skip
    net = Net(seed=seed)
    groups, inner = (6, 1) if groups == "depthwise" else (int(groups), inner)
    attributes = {"group": groups, "strides": strides, "dilations": dilations, "auto_pad": auto_pad}
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    if auto_pad == "NOTSET":
        attributes["pads"] = pads
        reach = [r - pads[a] - pads[2 + a] for a, r in enumerate(reach)]
    if auto_pad in {"NOTSET", "VALID"}:
        size = (max(size[0], reach[0]), max(size[1], reach[1]))
    x = net.input(batch, groups * inner, *size)
    x = net.op("Abs", x) if before else x  # a map of our own, else the user's tensor
    y = net.op(
        "Conv", x, net.weight(groups * per, inner, *kernel, density=density), net.weight(groups * per), **attributes
    )
    check(net.model(net.op(after, y) if after else y), machine)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    machine=st.sampled_from(MACHINES),
    batch=st.integers(1, 2),
    size=st.tuples(st.sampled_from(SIZES), st.sampled_from(SIZES)),
    kernels=st.lists(st.sampled_from([1, 3, 5]), min_size=2, max_size=4),
    strides=st.lists(st.sampled_from([1, 1, 2]), min_size=4, max_size=4),
    what=st.lists(st.sampled_from(["residual", "gate", "activation", "norm", "scale", "concat", "pool"]), max_size=4),
    activation=st.sampled_from(ACTIVATIONS),
    seed=st.integers(0, 99),
)
def test_chains(
    machine: Machine, batch: int, size: tuple[int, int], kernels: list[int], strides: list[int], what: list[str],
    activation: str, seed: int,
) -> None:  # fmt: skip
    """Maps that several readers want with different borders; sums, gates and norms behind convolutions."""
    net = Net(seed=seed)
    channels = 4
    x = net.op("Relu", net.input(batch, channels, *size))
    for place, (kernel, stride) in enumerate(zip(kernels, strides, strict=False)):
        kind = what[place] if place < len(what) else "activation"
        given = x
        half = kernel // 2
        y = net.op(
            "Conv", x, net.weight(channels, channels, kernel, kernel, density=0.6), net.weight(channels),
            pads=[half] * 4, strides=[stride] * 2,
        )  # fmt: skip
        x = appended(net, kind, y, given if stride == 1 else y, activation, channels)
    check(net.model(x), machine)


def appended(net: Net, kind: str, y: str, other: str, activation: str, channels: int) -> str:
    match kind:
        case "residual":
            return net.op(activation, net.op("Add", y, other))
        case "gate":
            pooled = net.op("GlobalAveragePool", y)
            squeezed = net.op("Relu", net.op("Conv", pooled, net.weight(2, channels, 1, 1), net.weight(2)))
            return net.op("Mul", net.op("Sigmoid", net.op("Conv", squeezed, net.weight(channels, 2, 1, 1))), y)
        case "norm":
            factors = [net.constant(net.generator.uniform(0.5, 1.5, channels), "float32") for _ in range(4)]
            return net.op(activation, net.op("BatchNormalization", y, *factors))
        case "scale":
            return net.op("Mul", net.op("Sigmoid", y), y)
        case "concat":
            side = net.op("Conv", other, net.weight(channels, channels, 1, 1))
            joined = net.op("Concat", y, side, axis=1)
            return net.op("Conv", net.op(activation, joined), net.weight(channels, 2 * channels, 1, 1))
        case "pool":
            return net.op("MaxPool", y, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    return net.op(activation, y)


@pytest.mark.parametrize("machine", MACHINES[::2], ids=str)
def test_rows_of_zeros(machine: Machine) -> None:
    """Outputs without a weight are the bias; blocks of rows without one are not stored."""
    net = Net()
    x = net.op("Relu", net.input(2, 5, 6, 7))
    weight = net.generator.standard_normal((9, 5, 3, 3))
    weight[[0, 1, 2, 3, 5, 8]] = 0
    y = net.op("Conv", x, net.constant(weight, "float32"), net.weight(9), pads=[1] * 4)
    check(net.model(y), machine)


@pytest.mark.parametrize("cut", [(3, 1, 7), (3, 0, 6), (2, 1, 6), (1, 1, 3)])
def test_a_part_of_a_map_with_a_border_has_other_neighbours(cut: tuple[int, int, int]) -> None:
    """What lies around a slice of a map is not zero, though the map has a border of zeros."""
    axis, start, stop = cut
    net = Net()
    x = net.op("Relu", net.input(1, 4, 6, 7))
    whole = net.op("Conv", x, net.weight(4, 4, 3, 3), pads=[1] * 4)
    part = net.op("Slice", x, net.numbers(start), net.numbers(stop), net.numbers(axis))
    channels = stop - start if axis == 1 else 4
    y = net.op("Conv", part, net.weight(3, channels, 3, 3), pads=[1] * 4)
    check(net.model(whole, y))


@pytest.mark.parametrize("order", [(0, 1, 3, 2), (1, 0, 2, 3), (0, 2, 3, 1), (0, 3, 1, 2)])
def test_a_turned_map(order: tuple[int, ...]) -> None:
    net = Net()
    sizes = (2, 4, 6, 7)
    x = net.op("Relu", net.input(*sizes))
    whole = net.op("Conv", x, net.weight(4, 4, 3, 3), pads=[1] * 4)
    channels = sizes[order[1]]
    turned = net.op("Transpose", x, perm=order)
    y = net.op("Conv", turned, net.weight(3, channels, 3, 3), pads=[1] * 4)
    z = net.op("Conv", turned, net.weight(3, channels, 1, 1))
    check(net.model(whole, y, z))


@pytest.mark.parametrize("shape", [(1, 4, 1, 1), (1, 4, 1, 9), (1, 4, 9, 1), (3, 4, 1, 1), (3, 1, 1, 1), (2, 1, 1, 5)])
@pytest.mark.parametrize("kernel", [1, 3])
def test_maps_of_one_row_or_column(shape: tuple[int, ...], kernel: int) -> None:
    net = Net()
    x = net.input(*shape)
    pads = [kernel // 2] * 4
    y = net.op("Relu", net.op("Conv", x, net.weight(5, shape[1], kernel, kernel), net.weight(5), pads=pads))
    z = net.op("Conv", y, net.weight(4, 5, kernel, kernel), pads=pads)
    check(net.model(z, net.op("Add", z, net.op("Conv", y, net.weight(4, 5, 1, 1)))))


def test_borders_of_several_widths_around_maps_of_one_size() -> None:
    net = Net()
    x = net.op("Relu", net.input(1, 3, 9, 10))
    ys = []
    for kernel in (1, 3, 5, 7, 3, 5):
        x = net.op("Relu", net.op("Conv", x, net.weight(3, 3, kernel, kernel), pads=[kernel // 2] * 4))
        ys.append(x)
    joined = net.op("Concat", ys[0], ys[3], ys[5], axis=1)
    check(net.model(net.op("Conv", joined, net.weight(3, 9, 3, 3), pads=[1] * 4), ys[4]))


def test_windows_of_one_size_with_other_reach_share_no_zeros() -> None:
    """Workspaces of strided windows over one map: what one of them writes another must not take for zero."""
    net = Net()
    x = net.op("Relu", net.input(1, 3, 12, 12))
    results = []
    for kernel, pads in ((3, [1, 1, 1, 1]), (4, [1, 1, 1, 1]), (5, [2, 2, 2, 2]), (2, [0, 0, 0, 0]), (3, [0, 0, 1, 1])):
        y = net.op("Conv", x, net.weight(3, 3, kernel, kernel), pads=pads, strides=[2, 2])
        results.append(net.op("Conv", y, net.weight(2, 3, 1, 1)))
        x = net.op("Sigmoid", x)
    check(net.model(*results))


def test_a_convolution_whose_weights_are_computed_falls_back() -> None:
    net = Net()
    weight = net.op("Mul", net.input(4, 3, 3, 3), net.constant(0.5, "float32"))
    check(net.model(net.op("Conv", net.input(1, 3, 8, 8), weight)), fallbacks=["Conv"])


def test_nan_and_inf_reach_the_windows_they_are_in() -> None:
    net = Net()
    model = net.model(net.op("Relu", net.op("Conv", net.input(1, 2, 8, 8), net.weight(3, 2, 3, 3), pads=[1] * 4)))
    from tests.execution import feeds

    case = feeds(model)
    (array,) = case.values()
    array[0, 0, 2, 3], array[0, 1, 6, 6] = float("nan"), float("inf")
    compare(built(model), [case, feeds(model)])


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    machine=st.sampled_from(MACHINES),
    batch=st.integers(1, 2),
    size=st.tuples(st.sampled_from(SIZES), st.sampled_from([3, 7, 16, 33, 56, 70])),
    kernel=st.tuples(st.sampled_from([1, 2, 3, 5]), st.sampled_from([1, 2, 3, 5])),
    rows=st.integers(1, 3),
    pads=st.tuples(*[st.integers(0, 2)] * 4),
    after=st.sampled_from(["", "Relu", "HardSwish", "residual", "padded"]),
    before=st.booleans(),
    seed=st.integers(0, 99),
)
def test_every_second_column_of_each_channel(
    machine: Machine, batch: int, size: tuple[int, int], kernel: tuple[int, int], rows: int,
    pads: tuple[int, int, int, int], after: str, before: bool, seed: int,
) -> None:  # fmt: skip
    """The kernel `Strided`; where another array joins it comes behind, and a border of the result stays zero."""
    net = Net(seed=seed)
    size = max(size[0], kernel[0] - pads[0] - pads[2]), max(size[1], kernel[1] - pads[1] - pads[3])
    x = net.input(batch, 5, *size)
    x = net.op("Abs", x) if before else x
    weights = [net.weight(5, 1, *kernel), *([net.weight(5)] if seed % 2 else [])]
    attributes = {"group": 5, "strides": (rows, 2), "pads": pads}
    y = net.op("Conv", x, *weights, **attributes)
    if after == "residual":
        y = net.op("Add", y, net.op("Conv", x, net.weight(5, 1, *kernel), **attributes))
    elif after == "padded":
        y = net.op("Conv", y, net.weight(3, 5, 3, 3), pads=(1, 1, 1, 1))
    elif after:
        y = net.op(after, y)
    model = net.model(y)
    check(model, machine)
    assert any(name.startswith("strided") for name in built(model, machine).program.names)
