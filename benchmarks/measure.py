"""What all benchmarks share: interleaved timing in one process, tables, JSON, and what the machine is."""

from __future__ import annotations

import gc
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Spread:
    """Seconds of several runs: the median, the fastest, the slowest and the quartiles."""

    median: float
    low: float
    high: float
    quartile_1: float
    quartile_3: float
    rounds: int

    @property
    def noise(self) -> float:
        """The interquartile range as a share of the median."""
        return (self.quartile_3 - self.quartile_1) / self.median if self.median else 0.0


def spread(seconds: Sequence[float]) -> Spread:
    """The spread of measured seconds.

    >>> spread([3.0, 1.0, 2.0]).median
    2.0
    """
    quartiles = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else [seconds[0]] * 3
    median = statistics.median(seconds)
    return Spread(median, min(seconds), max(seconds), quartiles[0], quartiles[2], len(seconds))


def interleaved(runs: Mapping[str, Callable[[], Mapping[str, float]]], rounds: int) -> dict[str, dict[str, Spread]]:
    """Run everything once to warm up, then in turn for so many rounds, so that a load on the machine hits all alike.

    Each run returns seconds by phase; the answer is the spread by run and phase. What one run leaves behind is
    collected before the next begins, so that nobody pays for another's garbage.
    """
    gc.freeze()
    seen: dict[str, dict[str, list[float]]] = {name: {} for name in runs}
    for turn in range(rounds + 1):
        for name, run in runs.items():
            gc.collect()
            for phase, seconds in run().items():
                if turn:
                    seen[name].setdefault(phase, []).append(seconds)
    return {name: {phase: spread(each) for phase, each in phases.items()} for name, phases in seen.items()}


class Stopwatch:
    """Seconds by phase: ``with watch("load"): ...``."""

    def __init__(self) -> None:
        self.phases: dict[str, float] = {}
        self._phase, self._start = "", 0.0

    def __call__(self, phase: str) -> Stopwatch:
        self._phase = phase
        return self

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.phases[self._phase] = self.phases.get(self._phase, 0.0) + time.perf_counter() - self._start


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table: the first column to the left, all others to the right."""
    cells = [list(map(str, head)), *([*map(str, row)] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = ["| " + " | ".join(_aligned(row, widths)) + " |" for row in cells]
    rule = "|" + "|".join("-" * (width + 1) + (":" if column else "-") for column, width in enumerate(widths)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def _aligned(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [
        cell.ljust(width) if not place else cell.rjust(width)
        for place, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.1f}" if seconds < 1 else f"{seconds * 1e3:.0f}"


def machine() -> dict[str, Any]:
    """What a reader must know of the machine to read the numbers."""
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def write_json(path: str | None, name: str, results: Any) -> None:
    """Write results with the machine they come from; nothing without a path."""
    if path is not None:
        content = {"benchmark": name, "machine": machine(), "results": results}
        Path(path).write_text(json.dumps(content, indent=1, default=_plain) + "\n", encoding="utf-8")


def _plain(item: Any) -> Any:
    return asdict(item)


def note(text: str) -> None:
    """Progress, on the standard error."""
    print(text, file=sys.stderr, flush=True)
