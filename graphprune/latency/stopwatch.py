"""What measures: the runtime of a dialect, or any other; and how several runs are measured in turns.

On one thread the time of the processor is taken: it is that of the clock on a machine that does nothing else, and what
else runs disturbs it least. On several the clock is, because threads that wait take time of the processor, too.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from graphprune.latency.layers import Layer
from graphprune.report import Timing
from graphprune.runtime.cpu import cpu

Run = Callable[[], object]
Clock = Callable[[], float]

_LEAST_ROUNDS = 15
_MOST_ROUNDS = 2000
_SHORTEST_SECONDS = 2e-4
"""Runs shorter than this are repeated within a measurement: the clock and the call would dominate."""


class Stopwatch(Protocol):
    """Measures on one machine, with one runtime, at a number of threads."""

    machine: str
    """All of that in words: times under another name are not compared with these."""

    clock: Clock
    """What networks are measured with, in seconds."""

    def layers(self, layers: Sequence[Layer], seconds: float) -> list[float]:
        """Seconds of one run of each layer, of several in turns; in about so many seconds together."""

    def network(self, model: Any) -> Run:
        """A native model of the dialect, ready to run on inputs that it accepts. Raises GraphPruneError GP402."""


def machine_of(runtime: str, threads: int | None) -> str:
    """A runtime and its version, how many threads it has (None: as many as it takes), and the processor, in words."""
    counted = "as many threads as it takes" if threads is None else f"{threads} thread{'s' if threads > 1 else ''}"
    return f"{runtime}, {counted}, {cpu()}"


def clock_of(threads: int | None) -> Clock:
    """The clock for runs on so many threads, None for as many as a runtime takes."""
    return time.process_time if threads == 1 else time.perf_counter


def usual(seconds: Sequence[float]) -> float:
    """What several runs of the same take when nothing disturbs them: a quarter is faster. Others only ever make a run
    slower, but the fastest of all is luck."""
    return statistics.quantiles(seconds, n=4)[0] if len(seconds) > 1 else seconds[0]


def several_in_turns(runs: Sequence[Run], seconds: float, clock: Clock) -> list[float]:
    """Seconds of one run of each, in about so many seconds together; drifts hit all alike."""
    for run in runs:
        run()
    ends, found = time.perf_counter() + seconds, [[_seconds(run, 1, clock) for run in runs]]
    while len(found) < _MOST_ROUNDS and (len(found) < _LEAST_ROUNDS or time.perf_counter() < ends):
        found.append([_seconds(run, 1, clock) for run in runs])
    return [usual(times) for times in zip(*found, strict=True)]


def in_turns(slow: Run, fast: Run, seconds: float = 3.0, clock: Clock = time.perf_counter) -> Timing:
    """One run timed against another, so that the answer does not depend on the machine's mood.

    Each round runs the first, the second and the first again, in turning order, so that drifts of clock and load hit
    all alike; what the first differs from itself is the noise that a difference must exceed.
    """
    for run in (slow, fast, slow, fast):
        run()
    once = _seconds(slow, 1, clock)
    repeats = max(1, math.ceil(_SHORTEST_SECONDS / max(once, 1e-9)))
    rounds = int(min(_MOST_ROUNDS, max(_LEAST_ROUNDS, seconds / max(3 * once * repeats, 1e-9))))
    turns = [_round(slow, fast, repeats, turn, clock) for turn in range(rounds)]
    control = sorted(math.log(again / first) for first, _, again in turns)
    ratios = sorted(math.log((first + again) / 2 / other) for first, other, again in turns)
    low, high = bounds(ratios)
    return Timing(
        dense=statistics.median([first for first, _, _ in turns] + [again for _, _, again in turns]),
        pruned=statistics.median(other for _, other, _ in turns),
        speedup=math.exp(statistics.median(ratios)),
        low=math.exp(low),
        high=math.exp(high),
        noise=math.expm1(max(map(abs, bounds(control)))),
        rounds=rounds,
    )


def _round(slow: Run, fast: Run, repeats: int, turn: int, clock: Clock) -> tuple[float, float, float]:
    """Slow, fast, slow again; which comes first changes from turn to turn."""
    runs = (slow, fast, slow)
    times = [0.0] * 3
    for place in range(3):
        each = (place + turn) % 3
        times[each] = _seconds(runs[each], repeats, clock)
    return times[0], times[1], times[2]


def _seconds(run: Run, repeats: int, clock: Clock) -> float:
    start = clock()
    for _ in range(repeats):
        run()
    return (clock() - start) / repeats


def bounds(ordered: list[float]) -> tuple[float, float]:
    """The 99 % confidence interval of the median by order statistics: no assumption about how times are spread."""
    count = len(ordered)
    margin = math.ceil(2.576 * math.sqrt(count) / 2)
    return ordered[max(0, count // 2 - margin)], ordered[min(count - 1, (count - 1) // 2 + margin)]
