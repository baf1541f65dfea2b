"""What the core asks of one kind of native model: reading, writing, running and changing it for checks.

Each dialect has one object of this kind, which :func:`graphprune.dialects.tools_of` finds by the type of the model. It
imports its framework when it is used, not before. No method changes a model that it is given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from graphprune.analysis import Analysis
    from graphprune.calibrate import Calibration
    from graphprune.depth.residual import Residual
    from graphprune.dims import Keep
    from graphprune.latency.stopwatch import Stopwatch
    from graphprune.program import Array, Node, Program, Stored, Value
    from graphprune.workers import Each

Model = Any
"""The native model of the dialect."""
Case = Any
"""One set of inputs for a model, in the form that its runner takes."""


class Runner(Protocol):
    """One model, ready to run. The same case gives the same outputs."""

    outputs: list[str]
    """The names of the outputs, in the order in which a call returns them."""

    def __call__(self, case: Case, /) -> list[Array]:
        """The outputs. Raises GraphPruneError GP402 where the model cannot be run on this case."""


class Staged(Protocol):
    """A model that is run in stages, each of which ends before one of the nodes that were asked for; the last one ends
    with the model. What was computed is kept in a state, of which there may be several at a time."""

    stages: int
    """How many there are: one more than the nodes to stop at."""

    def begin(self, case: Case) -> Any:
        """The state before the first stage."""

    def step(self, state: Any) -> None:
        """Run the next stage. Raises GraphPruneError GP402 where it cannot be run."""

    def read(self, state: Any, value: Value) -> Array:
        """A value that was asked for, or an input of the node that comes next."""

    def outputs(self, state: Any) -> list[Array]:
        """What the model returns, after the last stage."""

    def fork(self, state: Any) -> Any:
        """A second state that goes on from here by itself."""

    def write(self, stored: Stored, array: Array) -> None:
        """Give a stored tensor other numbers, of the same shape, for all stages to come."""

    def other(self, arrays: Mapping[Stored, Array]) -> Staged:
        """The same with other numbers in some stored tensors, of the same shapes; this one stays as it is. A state of
        one may go on in the other."""


def finished(staged: Staged, state: Any) -> list[Array]:
    """What the model returns, from a state on: all stages that are left are run."""
    while state.stage < staged.stages:
        staged.step(state)
    return staged.outputs(state)


class Tools(Protocol):
    """Everything the core needs of one kind of native model.

    An ``analysis`` is always of a program that :meth:`read` made; its model is ``analysis.program.native``.
    """

    def read(self, model: Model, rules: Mapping[str, str] | None = None) -> Program:
        """The program of a model, which is its ``native``.

        rules: rows in axis notation for operators that have none, by the name of the operator
        Raises GraphPruneError: GP102 where the graph is not one, GP107 for rules, GP109 for limits.
        """

    def write(self, analysis: Analysis, keep: Keep) -> Model:
        """A new model in which every dimension of ``keep`` has only the kept entries, in their order (which may be a
        permutation); interface and names stay. It knows where it came from as the analysed one does."""

    def out_of_step(self, analysis: Analysis, keep: Keep, right: Model) -> Iterator[Model]:
        """Deliberately wrong models: ``right``, which :meth:`write` made, but for one weight each that is as it was.

        Those nearest to the outputs come first. What compares models must find them wrong; some may not even run.
        """

    def masked(self, analysis: Analysis, keep: Keep) -> Model:
        """The model at its old widths, in which the entries not in ``keep`` have no influence.

        They are zeroed where a contraction sums over them; a node that takes a statistic over a cut axis sees the
        survivors alone. Shares no code with :meth:`write` but index arrays: it is what that is held against.
        """

    def without(self, analysis: Analysis, blocks: Sequence[Residual]) -> Model:
        """The model in which the sums at the end of these blocks are their skips; what only their branches needed is
        gone. It knows where it came from as the analysed one does."""

    def silenced(self, analysis: Analysis, blocks: Sequence[Residual]) -> Model:
        """The model in which the branches of these blocks are computed, and the sums read zeros in their place."""

    def at_sizes(self, model: Model, case: Case) -> Model:
        """The model for inputs of exactly the shapes of this case."""

    def sized(self, model: Model, sizes: Mapping[str, int]) -> Model:
        """The model for inputs of these sizes by name; a dynamic size without a number is 1."""

    def inlined(self, model: Model) -> Model:
        """The model with each call of a function of its own written out, so that each can be masked by itself; the
        same model where there are none. Raises GraphPruneError GP402 where that cannot be done."""

    def between_floats(self, model: Model) -> Model:
        """The model with its products of integers said as products of floats between steps that dequantise and
        quantise, stored tensors under their names; the same model where there are none."""

    def jittered(self, model: Model, seed: int) -> Model:
        """A model whose floating-point weights (two or more axes) are moved by their own rounding error, at random."""

    def runner(self, model: Model) -> Runner:
        """The model, ready to run as it is written. Raises GraphPruneError GP402 where it cannot be loaded."""

    def stopwatch(
        self, program: Program, *, threads: int | None = None, seed: int = 0, sizes: Mapping[str, int] | None = None
    ) -> Stopwatch:
        """What measures layers of a program and whole models, with the runtime that the dialect has.

        threads: None for as many as that takes; seed, sizes: of the inputs
        Raises GraphPruneError GP108 where the runtime is not installed.
        """

    def staged(self, program: Program, before: Sequence[Node], watched: Sequence[Value] = ()) -> Staged:
        """The model of a program, to be run in stages.

        before: nodes of the main graph to stop at, in running order
        watched: values of the main graph that can be read after the stage that computes them
        Raises GraphPruneError GP402 where it cannot be loaded.
        """

    def workers(self, program: Program) -> AbstractContextManager[Each]:
        """Threads that run the model of a program, each on itself alone, for independent cases; only one where the
        order of the cases counts: where running the model draws random numbers, or changes what it keeps."""

    def with_stored(self, program: Program, arrays: Mapping[str, Array]) -> Model:
        """A copy of the model of a program with other numbers, of the same shapes, in some stored tensors, by name."""

    def derivatives(
        self, program: Program, kind: str, calibration: Calibration | None, seed: int
    ) -> Iterator[Mapping[str, Array]]:
        """A derivative of the loss by every weight, by name (float64, its shape); for some kinds one after the other.

        kind: a name of `graphprune.criteria.DERIVATIVES`
        Raises GraphPruneError: GP704 where the dialect has no gradients, or data or labels are missing; GP703 where
        they are not finite; GP702 where labels do not fit.
        """

    def cases(self, model: Model, seed: int, sizes: Mapping[str, int], count: int) -> Iterator[list[Case]]:
        """Batches of seeded inputs to try in turn until the model runs on a whole one, at least one batch.

        sizes: numbers for dynamic axes by name; what to take for others is what the batches differ in
        count: how many cases a batch has at least; more where further inputs take other ways through the model
        Raises GraphPruneError GP402 where inputs would be too large.
        """

    def case(self, model: Model, arrays: Mapping[str, Array]) -> Case:
        """The inputs of a model from arrays, by the names of the inputs of its program. What is no array, such as a
        number that a module takes, is as in its example inputs."""

    def signature(self, model: Model) -> object:
        """Everything by which a caller knows the model: two of them are compared with ``==``."""

    def origin(self, model: Model) -> str | None:
        """Where the model came from, as a user knows it (the path of its file); None where that is not known."""

    def short_types(self, program: Program) -> set[str]:
        """Those of ``float16`` and ``bfloat16`` that results are rounded to on the way: the types of stored tensors,
        of values, and of casts."""
