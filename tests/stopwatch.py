"""A runtime whose times are made up: its clock is moved by what it runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import onnx_ir as ir

from graphprune.latency.layers import Layer
from graphprune.latency.stopwatch import Run

Cost = Callable[[int, int], float]
"""Seconds of a layer by the first two sizes of its weight."""


def smooth(first: int, second: int) -> float:
    return 1e-6 + first * second * 1e-7


class Fake:
    """Runs models on paper: a layer takes what a function says, a network `overhead` times as much as all."""

    def __init__(self, cost: Cost = smooth, overhead: float = 1.0, machine: str = "a fake"):
        self.cost, self.overhead, self.machine = cost, overhead, machine
        self.now = 0.0
        self.asked: list[str] = []

    def clock(self) -> float:
        return self.now

    def layers(self, layers: Sequence[Layer], seconds: float) -> list[float]:
        self.asked += map(str, layers)
        return [self.cost(*(layer.shapes[1] or ())[:2]) for layer in layers]

    def network(self, model: Any) -> Run:
        if isinstance(model, ir.Model):
            shapes = [value.shape.numpy() for value in model.graph.initializers.values() if value.shape is not None]
        else:  # a captured module
            shapes = [tuple(each.shape) for each in model.graph.parameters()]
        seconds = self.overhead * sum(self.cost(*shape[:2]) for shape in shapes if len(shape) > 1)

        def run() -> None:
            self.now += seconds

        return run
