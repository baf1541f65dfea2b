"""Fills a table with the times that a plan needs and that it lacks, and holds what is planned against a run of it."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from graphprune.allocate.bounds import Bound
from graphprune.analysis import Analysis, Group
from graphprune.cost import Costing
from graphprune.dialects import tools_of
from graphprune.dims import Dim
from graphprune.errors import BudgetNotMet, GraphPruneError
from graphprune.latency.cost import Latency
from graphprune.latency.layers import Shape, Widths, coarser, shapes_of
from graphprune.latency.stopwatch import Run, Stopwatch, in_turns
from graphprune.latency.table import Table, cached
from graphprune.output import Outputs
from graphprune.plan import fingerprint

SECONDS = 30.0
"""How long to measure layers for, beside what it takes to load them."""
_OF_A_NETWORK = 3.0

CLOSE, ROUNDS = 0.02, 6
"""A network is planned again where its prediction was off by more than this share, so many times at most."""


class Measurements:
    """What is measured for one plan.

    bounds:    of the groups; after that those that allow only widths that a table has
    table:     a table, or a file of one, which may not exist yet; None for that of this machine in the user's cache
    threads:   how many the runtime of the dialect has, None for as many as it takes
    stopwatch: what measures, if not that runtime. Where it is not installed, all times must be in the table

    Gives a costing its latency. Raises GraphPruneError: GP108 where nothing measures and there is no table, GP515 where
    times are missing that cannot be measured here, GP402 where the runtime cannot run the network; GP101, GP105, GP503
    and GP514 for the file.
    """

    def __init__(
        self,
        costing: Costing,
        groups: Sequence[Group],
        bounds: Mapping[Dim, Bound],
        table: Table | str | os.PathLike[str] | None = None,
        threads: int | None = None,
        stopwatch: Stopwatch | None = None,
        seed: int = 0,
        sizes: Mapping[str, int] | None = None,
    ):
        self.analysis, self.groups, self.sizes = costing.analysis, groups, dict(sizes or {})
        self.bounds = coarser(groups, bounds)
        running = {"threads": threads, "seed": seed, "sizes": self.sizes}
        self.stopwatch = stopwatch or _installed(self.analysis, table is not None, running)
        self.table, self.path = _opened(table, self.stopwatch)
        self._dense: Run | None = None
        costing.latency = self.latency = self._completed(costing)

    def settle(
        self, allocate: Callable[[], dict[Dim, int]], loss: Callable[[Widths], float], limit: int
    ) -> dict[Dim, int]:
        """Plan, run what was planned, and correct what is predicted, until both agree, at most :data:`ROUNDS` times.
        Returns the widths that lose least among those measured within the limit, or the fastest where none are.

        How much of what layers save is saved in the network is not the same at all widths. So what was seen above the
        limit and below it bounds the next guess, which else could go from one to the other for ever.

        limit: picoseconds
        Where nothing can be measured, predictions stay what layers alone say. Raises BudgetNotMet GP301.
        """
        tried: list[tuple[dict[Dim, int], int]] = []
        low, high, refused = 0.0, math.inf, None
        for _ in range(1 + ROUNDS):
            share = self.latency.share
            try:
                widths = allocate()
            except BudgetNotMet as error:
                if not tried:
                    raise
                low, refused = max(low, share), error  # by a guess that was too low, perhaps
            else:
                measured = self._measured(widths)
                if measured is None:
                    return widths
                tried.append((widths, measured))
                predicted = self.latency.cost(widths)
                if abs(measured - predicted) <= CLOSE * predicted:
                    break
                low, high = (low, min(high, share)) if measured > limit else (max(low, share), high)
                self.latency.fit(widths, measured)
            if high < math.inf and not low < self.latency.share < high:
                self.latency.scale((low + high) / 2)
        within = [each for each in tried if each[1] <= limit * (1 + CLOSE)]
        if refused is not None and not within:
            raise refused
        if within:
            widths, measured = min(within, key=lambda each: loss(each[0]))
        else:
            widths, measured = min(tried, key=lambda each: each[1])
        self.latency.fit(widths, measured)  # a plan says what was measured of it
        return widths

    def _measured(self, widths: Widths) -> int | None:
        """Picoseconds of the whole network at these widths; None where they are not known and cannot be measured."""
        name = self._name(widths)
        if self.table.missing([name]):
            if self.stopwatch is None or self.table.machine != self.stopwatch.machine:
                return None
            kept = {dim: np.arange(width) for dim, width in widths.items()}
            small = self.stopwatch.network(tools_of(self.analysis.program.native).write(self.analysis, kept))
            run = self._dense_run(self.stopwatch)
            speedup = in_turns(run, small, _OF_A_NETWORK, self.stopwatch.clock).speedup
            self.table.add({name: self.latency.dense * 1e-12 / speedup})
            self._save()
        return self.table.picoseconds(name)

    def _completed(self, costing: Costing) -> Latency:
        """The latency, once the table has all that it needs."""
        shapes = shapes_of(costing, self.groups, self.bounds)
        layers = {str(layer): layer for shape in shapes for layer in shape.layers()}
        dense = self._name({})
        missing = self.table.missing([dense, *layers])
        if missing:
            stopwatch = self._measuring(missing)
            try:
                if dense in missing:
                    run = self._dense_run(stopwatch)
                    self.table.add({dense: in_turns(run, run, _OF_A_NETWORK, stopwatch.clock).dense})
                for batch in _batches(shapes, missing):
                    share = SECONDS * len(batch) / len(missing)
                    found = stopwatch.layers([layers[key] for key in batch], share)
                    self.table.add(dict(zip(batch, found, strict=True)))
            finally:  # what was measured before an interrupt need not be measured again
                self._save()
        return Latency(costing, shapes, self.table, self.table.picoseconds(dense))

    def _measuring(self, missing: Sequence[str]) -> Stopwatch:
        stopwatch, machine = self.stopwatch, self.table.machine
        if stopwatch is None or (machine and machine != stopwatch.machine):
            here = "nothing measures here" if stopwatch is None else f"this is {stopwatch.machine}"
            what = f"{len(missing)} times are not in the table of {machine or 'no machine'}, and {here}"
            raise GraphPruneError("GP515", what, missing[0])
        if self.path is not None:
            with Outputs(self.path):
                pass  # a file that cannot be written is told before anything is measured, not after
        self.table.machine = stopwatch.machine
        return stopwatch

    def _dense_run(self, stopwatch: Stopwatch) -> Run:
        self._dense = self._dense or stopwatch.network(self.analysis.program.native)
        return self._dense

    def _name(self, widths: Widths) -> str:
        """What a table calls the whole network at these widths."""
        kept = [(group.name, widths.get(group.dim, group.size)) for group in self.groups]
        digest = hashlib.sha256(repr(kept).encode()).hexdigest()[:16]
        sizes = [f"{name}={size}" for name, size in sorted(self.sizes.items())]
        return " ".join(["network", fingerprint(self.analysis), digest, *sizes])

    def _save(self) -> None:
        if self.path is not None:
            self.table.save(self.path)


def _installed(analysis: Analysis, optional: bool, running: Mapping[str, Any]) -> Stopwatch | None:
    """The runtime of the dialect. Raises GraphPruneError GP108 where it is not installed and not optional."""
    try:
        return tools_of(analysis.program.native).stopwatch(analysis.program, **running)
    except GraphPruneError as error:
        if error.code != "GP108" or not optional:
            raise
        return None


def _opened(
    table: Table | str | os.PathLike[str] | None, stopwatch: Stopwatch | None
) -> tuple[Table, str | os.PathLike[str] | None]:
    """A table, and where to write it when it has grown."""
    if isinstance(table, Table):
        return table, None
    if table is not None:
        return (Table.load(table) if os.path.exists(table) else Table()), table
    assert stopwatch is not None, "without a table it is not optional"
    path = cached(stopwatch.machine)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return (Table.load(path) if path.exists() else Table()), path
    except (OSError, GraphPruneError):
        return Table(), None  # a cache that cannot be used is no reason to stop


def _batches(shapes: Sequence[Shape], missing: Sequence[str]) -> Iterator[list[str]]:
    """The missing times of one node after the other, each once."""
    left = dict.fromkeys(missing)
    for shape in shapes:
        batch = [key for key in dict.fromkeys(map(str, shape.layers())) if key in left]
        for key in batch:
            del left[key]
        if batch:
            yield batch
