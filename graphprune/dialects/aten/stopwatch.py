"""Times layers and captured modules with PyTorch, on the processor, for tables of latencies. A layer is one call of its
operator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from graphprune.dialects.aten.call import At
from graphprune.dialects.aten.capture import CAPTURE_FAILS, Captured, cannot_run
from graphprune.errors import GraphPruneError
from graphprune.latency.layers import Layer
from graphprune.latency.stopwatch import Run, clock_of, machine_of, several_in_turns
from graphprune.program import Program


class AtenStopwatch:
    """See :class:`graphprune.latency.stopwatch.Stopwatch`. Raises GraphPruneError GP402 for models that are not on the
    processor."""

    def __init__(self, program: Program, threads: int | None):
        captured: Captured = program.native
        elsewhere = {each.device.type for each in captured.graph.parameters()} - {"cpu"}
        if elsewhere:
            what = f"times are measured on the processor, and the model is on {min(elsewhere)}"
            raise GraphPruneError(
                "GP402", what, "option latency", "model.cpu(), or a table that was measured elsewhere"
            )
        self.threads = threads or torch.get_num_threads()
        self.clock = clock_of(self.threads)
        self.machine = machine_of(f"torch {torch.__version__}", self.threads)

    def network(self, model: Captured) -> Run:
        """On the example inputs."""

        def run() -> object:
            with self._running():
                return model.graph(*model.args, **model.kwargs)

        try:
            run()
        except CAPTURE_FAILS as error:
            raise cannot_run(model.graph, error) from error
        return run

    def layers(self, layers: Sequence[Layer], seconds: float) -> list[float]:
        """Calls of their operators."""
        with self._running():
            return several_in_turns([_call(layer) for layer in layers], seconds, self.clock)

    @contextmanager
    def _running(self) -> Iterator[None]:
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            with torch.no_grad():
                yield
        finally:
            torch.set_num_threads(before)


def _call(layer: Layer) -> Run:
    """The operator on numbers that are not denormal. Raises GraphPruneError GP402 where it cannot be called alone."""
    tensors = [
        None if value is None or shape is None else torch.full(shape, 0.5).to(value.native[1].dtype)
        for value, shape in zip(layer.node.inputs, layer.shapes, strict=True)
    ]

    def filled(given: Any) -> Any:
        if isinstance(given, At):
            return tensors[given.index]
        return [filled(each) for each in given] if isinstance(given, list) else given

    target = layer.node.native.target
    arguments = {name: filled(given) for name, given in layer.attributes.items()}
    try:
        target(**arguments)
    except CAPTURE_FAILS as error:
        first = (str(error).strip().splitlines() or [""])[0]
        raise GraphPruneError("GP402", f"it cannot be run by itself: {first[:160]}", str(layer.node)) from error
    return lambda: target(**arguments)
