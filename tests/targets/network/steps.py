"""Quantised networks in a few lines, and what they make beside onnxruntime, in steps of their outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from tests import execution
from tests.targets.network.harness import MACHINES, Built, Machine, built
from tests.targets.network.net import Net

ONE = 1  # step: what rounding next to the middle of two steps may make of a number


def stored(net: Net, x: str, scale: float = 0.05, zero: int = 128, dtype: str = "uint8") -> str:
    return net.op("QuantizeLinear", x, net.constant(scale, "float32"), net.constant(zero, dtype))


def numbers(net: Net, x: str, scale: float = 0.05, zero: int = 128, dtype: str = "uint8") -> str:
    return net.op("DequantizeLinear", x, net.constant(scale, "float32"), net.constant(zero, dtype))


def rounded(net: Net, x: str, scale: float = 0.05, zero: int = 128, dtype: str = "uint8") -> str:
    """Numbers of 8 bits, as a QDQ file has them before each operator."""
    return numbers(net, stored(net, x, scale, zero, dtype), scale, zero, dtype)


def integers(net: Net, *shape: int, density: float = 1.0) -> np.ndarray:
    """Weights, the extremes among them."""
    array = net.generator.integers(-127, 128, shape)
    array = np.where(net.generator.random(shape) < 0.05, net.generator.choice([-128, 127], shape), array)
    return (array * (net.generator.random(shape) < density)).astype(np.int8)


def weight(net: Net, array: np.ndarray, axis: int, one: bool = False) -> tuple[str, np.ndarray]:
    """Numbers of stored weights, and their scales: one for each place of `axis`, or the same for all."""
    scale = net.generator.uniform(0.5, 2.0, 1 if one else array.shape[axis]).astype(np.float32) / 500
    given: dict[str, Any] = {} if one else {"axis": axis}
    scale = scale.reshape(()) if one else scale
    names = net.constant(array), net.constant(scale), net.constant(np.zeros(scale.shape, np.int8))
    return net.op("DequantizeLinear", *names, **given), scale


def bias(net: Net, count: int, x_scale: float, scale: np.ndarray) -> str:
    array = net.generator.integers(-3000, 3000, count).astype(np.int32)
    units = (np.float32(x_scale) * np.broadcast_to(scale, count)).astype(np.float32)
    return net.op("DequantizeLinear", net.constant(array), net.constant(units), axis=0)


def within(
    model: onnx.ModelProto,
    machine: Machine = MACHINES[0],
    *,
    cases: Sequence[Mapping[str, np.ndarray]] = (),
    steps: float = ONE,
    most: float = 0.01,
    fallbacks: Sequence[str] = (),
    scale: float = 1.0,
) -> Built:
    """Builds and runs a model whose outputs are stored integers, or numbers of a step of `scale`. Raises AssertionError
    where one is more than `steps` from onnxruntime's, or where more than the share `most` are not the same."""
    network = built(model, machine)
    cases = list(cases) or [execution.feeds(model, seed=seed) for seed in (0, 1)]
    compare(network, model, [*cases, *cases], steps, most, scale)
    assert network.fallbacks == list(fallbacks), [refusal.reasons for refusal in network.lowered.refusals]
    return network


def compare(
    network: Built,
    model: onnx.ModelProto,
    cases: Sequence[Mapping[str, np.ndarray]],
    steps: float = ONE,
    most: float = 0.01,
    scale: float = 1.0,
) -> None:
    """The outputs of a network beside those of a model in onnxruntime."""
    session = execution.session(model)
    for case, results in zip(cases, network.run(*cases), strict=True):
        for (name, found), wanted in zip(results.items(), session.run(None, dict(case)), strict=True):
            assert found.dtype == wanted.dtype and found.shape == wanted.shape
            apart = np.abs(found.astype(np.float64) - wanted.astype(np.float64)) / scale
            assert apart.max(initial=0) <= steps + 1e-3, f"{name}: {apart.max()} steps"
            assert (apart > 0.5).sum() <= max(1, most * apart.size), f"{name}: {(apart > 0.5).mean():.2%} differ"
