"""What the core asks of captured PyTorch models: reading, writing, running and changing them for checks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from graphprune.analysis import Analysis
from graphprune.calibrate import Calibration
from graphprune.depth.residual import Residual
from graphprune.dialects.aten import depth, masks, reader, writer
from graphprune.dialects.aten.capture import CAPTURE_FAILS, Captured, cannot_run
from graphprune.dialects.aten.cases import Case, cases
from graphprune.dialects.aten.stages import AtenStaged, apart, write_tensor
from graphprune.dialects.aten.untouched import untouched
from graphprune.dialects.aten.vmap import levels_closed
from graphprune.dialects.tools import Tools
from graphprune.dims import Keep
from graphprune.latency.stopwatch import Stopwatch
from graphprune.program import Array, Node, Program, Value
from graphprune.workers import Each, workers


class _Runner:
    """A captured model, ready to run. ``GP402`` where it fails."""

    def __init__(self, captured: Captured):
        self.graph = captured.graph
        self.outputs = output_names(captured)

    def __call__(self, case: Case) -> list[Array]:
        args, kwargs = copied(case)
        try:
            with untouched(self.graph), levels_closed(), torch.no_grad():
                found = self.graph(*args, **kwargs)
                # copies: a buffer that is returned is about to be put back
                return [
                    reader.numbers(each).copy() for each in pytree.tree_leaves(found) if isinstance(each, torch.Tensor)
                ]
        except CAPTURE_FAILS as error:
            raise cannot_run(self.graph, error) from error


def copied(case: Case) -> Case:
    """Inputs that a model may write to without changing the case."""
    found: Case = pytree.tree_map(lambda each: each.clone() if isinstance(each, torch.Tensor) else each, case)
    return found


def _threads(count: int) -> int:
    """Run on so many threads from here on; how many it were."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    return before


def output_names(captured: Captured) -> list[str]:
    """The outputs that are tensors, by their place in what the model returns."""
    output = next(node for node in captured.graph.graph.nodes if node.op == "output")
    values = pytree.tree_leaves(output.args[0])
    names = [str(each) for each in values]
    return [
        name
        for name, each in zip(names, values, strict=True)
        if isinstance(each, torch.fx.Node) and isinstance(each.meta.get("val"), torch.Tensor)
    ]


class AtenTools:
    """See :class:`graphprune.dialects.tools.Tools`."""

    def read(self, model: Captured, rules: Mapping[str, str] | None = None) -> Program:
        return reader.read(model, rules)

    def write(self, analysis: Analysis, keep: Keep) -> Captured:
        return writer.write(analysis, keep)

    def out_of_step(self, analysis: Analysis, keep: Keep, right: Captured) -> Iterator[Captured]:
        return writer.out_of_step(analysis, keep, right)

    def masked(self, analysis: Analysis, keep: Keep) -> Captured:
        return masks.masked(analysis, keep)

    def without(self, analysis: Analysis, blocks: Sequence[Residual]) -> Captured:
        return depth.without(analysis, blocks)

    def silenced(self, analysis: Analysis, blocks: Sequence[Residual]) -> Captured:
        return depth.silenced(analysis, blocks)

    def at_sizes(self, model: Captured, case: Case) -> Captured:
        """The same graph, read with the numbers of the case for its symbolic sizes."""
        from graphprune.dialects.aten.capture import sizes_of

        return self.sized(model, sizes_of(model.graph, case))

    def sized(self, model: Captured, sizes: Mapping[str, int]) -> Captured:
        graph = model.with_graph(model.graph)
        graph.source, graph.fixed = model.source, dict(sizes)
        return graph

    def inlined(self, model: Captured) -> Captured:
        return model

    def between_floats(self, model: Captured) -> Captured:
        return model

    def stopwatch(
        self, program: Program, *, threads: int | None = None, seed: int = 0, sizes: Mapping[str, int] | None = None
    ) -> Stopwatch:
        from graphprune.dialects.aten.stopwatch import AtenStopwatch

        return AtenStopwatch(program, threads)

    def staged(self, program: Program, before: Sequence[Node], watched: Sequence[Value] = ()) -> AtenStaged:
        return AtenStaged(program, before, watched)

    def workers(self, program: Program) -> AbstractContextManager[Each]:
        return workers(_threads, None if apart(program.native.graph) else 1)

    def with_stored(self, program: Program, arrays: Mapping[str, Array]) -> Captured:
        captured: Captured = program.native
        graph, _ = captured.twin()
        for stored in program.stored:
            if stored.name in arrays:
                write_tensor(graph, stored, arrays[stored.name])
        return captured.with_graph(graph)

    def derivatives(
        self, program: Program, kind: str, calibration: Calibration | None, seed: int
    ) -> Iterator[Mapping[str, Array]]:
        from graphprune.dialects.aten.derivatives import derivatives

        return derivatives(program, kind, calibration, seed)

    def jittered(self, model: Captured, seed: int) -> Captured:
        generator = torch.Generator().manual_seed(seed)
        graph, _ = model.twin()
        moved: dict[int, torch.nn.Parameter] = {}
        for module in graph.modules():
            for name, tensor in list(module._parameters.items()):
                if tensor is None or tensor.dim() < 2 or not tensor.is_floating_point():
                    continue
                if id(tensor) not in moved:
                    noise = torch.rand(tensor.shape, generator=generator).to(tensor.device) * 2 - 1
                    factor = 1 + torch.finfo(tensor.dtype).eps * noise.double()
                    near = (tensor.detach() * factor).to(tensor.dtype)
                    moved[id(tensor)] = torch.nn.Parameter(torch.where(near.isinf(), tensor.detach(), near), False)
                module._parameters[name] = moved[id(tensor)]
        return model.with_graph(graph)

    def runner(self, model: Captured) -> _Runner:
        return _Runner(model)

    def cases(self, model: Captured, seed: int, sizes: Mapping[str, int], count: int) -> Iterator[list[Case]]:
        return cases(model, seed, count)

    def case(self, model: Captured, arrays: Mapping[str, Array]) -> Case:
        leaves, tree = pytree.tree_flatten((model.args, model.kwargs))
        names = [node.name for node in model.graph.graph.nodes if node.op == "placeholder"]
        found = [_filled(each, arrays.get(name)) for name, each in zip(names, leaves, strict=True)]
        made: Case = pytree.tree_unflatten(found, tree)
        return made

    def signature(self, model: Captured) -> object:
        """Structure, names, shapes and types of inputs and outputs."""
        nodes = [node for node in model.graph.graph.nodes if node.op == "placeholder"]
        output = next(node for node in model.graph.graph.nodes if node.op == "output")
        ends = [each for each in pytree.tree_leaves(output.args[0]) if isinstance(each, torch.fx.Node)]
        return (
            [(node.name, _described(node)) for node in nodes],
            [_described(node) for node in ends],
            str(pytree.tree_structure(output.args[0])),
        )

    def origin(self, model: Captured) -> str | None:
        return None

    def short_types(self, program: Program) -> set[str]:
        used = {stored.dtype for stored in program.stored}
        used |= {value.dtype for node in program.nodes() for value in node.outputs}
        return used & {"float16", "bfloat16"}


def _described(node: torch.fx.Node) -> str:
    value = node.meta.get("val")
    return f"{tuple(value.shape)} {value.dtype}" if isinstance(value, torch.Tensor) else type(value).__name__


def _filled(each: Any, array: Array | None) -> Any:
    if array is None or not isinstance(each, torch.Tensor):
        return each
    return torch.as_tensor(np.ascontiguousarray(array)).to(each.dtype).to(each.device)


ATEN: Tools = AtenTools()
