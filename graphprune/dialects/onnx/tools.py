"""What the core asks of ONNX models (see :class:`graphprune.dialects.tools.Tools`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from graphprune.errors import GraphPruneError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import onnx_ir as ir

    from graphprune.analysis import Analysis
    from graphprune.calibrate import Calibration
    from graphprune.depth.residual import Residual
    from graphprune.dialects.onnx.runner import Runner
    from graphprune.dialects.tools import Staged, Tools
    from graphprune.dims import Keep
    from graphprune.latency.stopwatch import Stopwatch
    from graphprune.program import Array, Node, Program, Value
    from graphprune.workers import Each

_SHORT = {10: "float16", 16: "bfloat16"}
"""ONNX's numbers of the short floating-point types."""


class OnnxTools:
    """Forwards to the modules of this dialect, which are imported when they are needed."""

    def read(self, model: ir.Model, rules: Mapping[str, str] | None = None) -> Program:
        from graphprune.dialects.onnx.reader import read

        return read(model, rules)

    def write(self, analysis: Analysis, keep: Keep) -> ir.Model:
        from graphprune.dialects.onnx.files import carry
        from graphprune.dialects.onnx.writer import write

        written = write(analysis, keep)
        carry(analysis.program.native, written)
        return written

    def out_of_step(self, analysis: Analysis, keep: Keep, right: ir.Model) -> Iterator[ir.Model]:
        from graphprune.dialects.onnx.writer import out_of_step

        return out_of_step(analysis, keep)

    def masked(self, analysis: Analysis, keep: Keep) -> ir.Model:
        from graphprune.dialects.onnx.masks import masked

        return masked(analysis, keep)

    def without(self, analysis: Analysis, blocks: Sequence[Residual]) -> ir.Model:
        from graphprune.dialects.onnx.depth import without
        from graphprune.dialects.onnx.files import carry

        made = without(analysis, blocks)
        carry(analysis.program.native, made)
        return made

    def silenced(self, analysis: Analysis, blocks: Sequence[Residual]) -> ir.Model:
        from graphprune.dialects.onnx.depth import silenced

        return silenced(analysis, blocks)

    def at_sizes(self, model: ir.Model, case: Mapping[str, Array]) -> ir.Model:
        from graphprune.dialects.onnx.masks import at_sizes

        return at_sizes(model, {name: array.shape for name, array in case.items()})

    def sized(self, model: ir.Model, sizes: Mapping[str, int]) -> ir.Model:
        from graphprune.dialects.onnx.masks import at_sizes
        from graphprune.dialects.onnx.runner import shapes

        return at_sizes(model, shapes(model, sizes))

    def inlined(self, model: ir.Model) -> ir.Model:
        from graphprune.dialects.onnx.masks import inlined

        return inlined(model)

    def between_floats(self, model: ir.Model) -> ir.Model:
        from graphprune.dialects.onnx.between import between_floats

        return between_floats(model)

    def jittered(self, model: ir.Model, seed: int) -> ir.Model:
        from graphprune.dialects.onnx.noise import jittered

        return jittered(model, seed)

    def runner(self, model: ir.Model) -> Runner:
        from graphprune.dialects.onnx.runner import Runner

        return Runner(model)

    def workers(self, program: Program) -> AbstractContextManager[Each]:
        from graphprune.dialects.onnx.stages import apart
        from graphprune.workers import workers

        # onnxruntime has threads of its own, as many as there are cores, for all that runs at a time.
        return workers(lambda count: count, None if apart(program.native) else 1)

    def stopwatch(
        self, program: Program, *, threads: int | None = None, seed: int = 0, sizes: Mapping[str, int] | None = None
    ) -> Stopwatch:
        from graphprune.dialects.onnx.stopwatch import OnnxStopwatch

        return OnnxStopwatch(program, threads, seed, sizes or {})

    def staged(self, program: Program, before: Sequence[Node], watched: Sequence[Value] = ()) -> Staged:
        from graphprune.dialects.onnx.stages import OnnxStaged

        return OnnxStaged(program, before, watched)

    def with_stored(self, program: Program, arrays: Mapping[str, Array]) -> ir.Model:
        from graphprune.dialects.onnx.files import carry
        from graphprune.dialects.onnx.stages import with_stored

        made = with_stored(program, arrays)
        carry(program.native, made)
        return made

    def derivatives(
        self, program: Program, kind: str, calibration: Calibration | None, seed: int
    ) -> Iterator[Mapping[str, Array]]:
        what = "it needs gradients, and ONNX models have none"
        remedy = "prune the PyTorch module it was exported from, or choose a criterion without gradients"
        raise GraphPruneError("GP704", what, program.name, remedy)

    def cases(
        self, model: ir.Model, seed: int, sizes: Mapping[str, int], count: int
    ) -> Iterator[list[dict[str, Array]]]:
        """One batch for each number of ``runner.DYNAMIC_SIZES``, from small to large, with the inputs that take the
        other sides of conditionals."""
        from graphprune.dialects.onnx.runner import DYNAMIC_SIZES, feeds, integer_choices

        for dynamic in DYNAMIC_SIZES:
            cases = [feeds(model, seed + k, sizes, dynamic) for k in range(count)]
            yield cases + [{**cases[0], name: number} for name, number in integer_choices(model, cases[0])]

    def case(self, model: ir.Model, arrays: Mapping[str, Array]) -> dict[str, Array]:
        return dict(arrays)

    def signature(self, model: ir.Model) -> object:
        """Names, shapes and data types of the inputs and outputs; and the operator sets."""
        real = [value for value in model.graph.inputs if value.name not in model.graph.initializers]
        values = [(value.name, str(value.shape), str(value.dtype)) for value in (*real, *model.graph.outputs)]
        return values, dict(model.opset_imports)

    def origin(self, model: ir.Model) -> str | None:
        from graphprune.dialects.onnx.files import path_of

        return path_of(model)

    def short_types(self, program: Program) -> set[str]:
        nodes = list(program.nodes())
        values = [*program.main.inputs, *(value for node in nodes for value in node.outputs)]
        values += [value for node in nodes for block in node.blocks.values() for value in block.inputs]
        casts: list[Any] = [node.attributes.get("to") for node in nodes if node.op == "Cast"]
        found = {stored.dtype for stored in program.stored} | {value.dtype for value in values}
        return (found | {_SHORT.get(number, "") for number in casts}) & set(_SHORT.values())


ONNX: Tools = OnnxTools()
