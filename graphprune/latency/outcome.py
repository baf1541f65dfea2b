"""What came of a budget of time: the pruned network, measured against the dense one and held against the plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from graphprune.cost import LATENCY
from graphprune.dialects import tools_of
from graphprune.errors import GraphPruneError
from graphprune.latency.stopwatch import in_turns

if TYPE_CHECKING:
    from graphprune.analysis import Analysis
    from graphprune.api import Result
    from graphprune.report import Timing

AGREES = 0.15
"""A time that is further than this share from the planned one is told."""
OVER = 0.05
"""The same for one above the budget."""


def timed(analysis: Analysis, result: Result, options: Mapping[str, Any], small: Any = None) -> Result:
    """A result whose report says what was planned and what is measured here, where time was a budget; GP305 where they
    differ. Where no runtime is installed nothing is measured.

    options: `threads`, `stopwatch`, `seed` and `sizes` of the plan
    small:   the pruned graph, where `.model` is none
    Raises GraphPruneError GP402 where the runtime cannot run the network.
    """
    plan, report = result.plan, result.report
    if LATENCY not in plan.costs.get("planned", {}):
        return result
    dense, planned = (plan.costs[name][LATENCY] * 1e-12 for name in ("dense", "planned"))
    report = report.with_(predicted=(dense, planned))
    running = {name: options[name] for name in ("threads", "seed", "sizes") if name in options}
    native = analysis.program.native
    try:
        stopwatch = options.get("stopwatch") or tools_of(native).stopwatch(analysis.program, **running)
    except GraphPruneError as error:
        if error.code != "GP108":
            raise
        told = f"latency is planned for {plan.options['machine']}, and not measured here"
        return replace(result, report=report.with_(notes=(*report.notes, told)))
    runs = (stopwatch.network(native), stopwatch.network(result.model if small is None else small))
    timing = in_turns(*runs, clock=stopwatch.clock)
    notes = [f"latency: {timing.rounds} rounds in turns, noise {timing.noise:.1%}; {stopwatch.machine}"]
    notes += missed(timing, planned / dense, float(plan.options[LATENCY]))
    return replace(result, report=report.with_(timing=timing, notes=(*report.notes, *notes)))


def missed(timing: Timing, planned: float, budget: float) -> list[str]:
    """What is wrong with a result, in a line; nothing where all is as it was planned.

    planned, budget: shares of the time of the dense network
    """
    measured = 1 / timing.speedup
    if timing.high < 1:
        return [f"GP305 slower than the dense network: {measured:.1%} of its time, {planned:.1%} were planned"]
    if abs(measured / planned - 1) > AGREES:
        return [f"GP305 {measured:.1%} of the time of the dense network, {planned:.1%} were planned"]
    if measured > budget * (1 + OVER):
        return [f"GP305 {measured:.1%} of the time of the dense network, above the budget of {budget:.1%}"]
    return []
