"""How fast statistics of activations are collected, and what OBS takes with them.

    python benchmarks/calibration.py [--rounds N] [--json PATH]

Gram matrices are held against one product of NumPy with the same multiply-accumulates, on data that is laid out
already: `rate` is its time as a share of the time of the collection, which lays windows out itself. `general` is the
product of two different arrays; a product of an array with itself may take half the work, so that a rate can exceed
one. OBS is the elimination of all inputs of a layer of 768 x 3072, without the collection. Seconds are medians of
processor time of all threads, which other work on the machine hardly touches; OBS is held against the clock, too.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
from measure import Spread, interleaved, machine, note, table, write_json

from graphprune.calibrate import Gram, Moments
from graphprune.criteria.obs import OBS
from graphprune.layers import Rows

GOAL_RATE = 0.7
GOAL_SECONDS = 3.0
RNG = np.random.default_rng(0)


def linear(inputs: int, samples: int) -> Rows:
    """The inputs of a layer of tokens."""
    return Rows(RNG.standard_normal((samples, inputs), np.float32), 1, 1, inputs)


def convolution(channels: int, images: int, side: int) -> Rows:
    """The inputs under the windows of a convolution of 3 x 3 with borders."""
    data = np.pad(RNG.standard_normal((images, channels, side, side), np.float32), [(0, 0)] * 2 + [(1, 1)] * 2)
    windows = np.lib.stride_tricks.sliding_window_view(data, (3, 3), (2, 3))
    return Rows(windows.transpose(0, 2, 3, 1, 4, 5), 3, 1, channels * 9)


CASES: Mapping[str, Callable[[], Rows]] = {
    "linear 768": lambda: linear(768, 32768),
    "linear 3072": lambda: linear(3072, 8192),
    "conv 3x3, 64 channels": lambda: convolution(64, 8, 56),
    "conv 3x3, 128 channels": lambda: convolution(128, 8, 28),
}


def seconds(run: Callable[[], Any]) -> Callable[[], Mapping[str, float]]:
    """The processor time of a call, and the time by the clock."""

    def timed() -> Mapping[str, float]:
        begin, wall = time.process_time(), time.perf_counter()
        run()
        return {"seconds": time.process_time() - begin, "wall": time.perf_counter() - wall}

    return timed


def measured(rows: Rows, rounds: int) -> dict[str, Spread]:
    """Medians of a collection and of products of NumPy."""
    laid = np.ascontiguousarray(rows.take().reshape(len(rows), -1))
    other = laid.copy()
    runs = {
        "gram": seconds(lambda: Gram().update(rows, None)),
        "moments": seconds(lambda: Moments().update(rows, None)),
        "general": seconds(lambda: laid.T @ other),
        "itself": seconds(lambda: laid.T @ laid),
    }
    return {name: found["seconds"] for name, found in interleaved(runs, rounds).items()}


def elimination(outputs: int, inputs: int, rounds: int) -> dict[str, Spread]:
    """OBS of one layer."""
    gram = Gram()
    gram.add(RNG.standard_normal((4096, 1, inputs), np.float32))
    weight, labels = RNG.standard_normal((1, outputs, inputs)), np.arange(inputs)[None]
    part: Any = SimpleNamespace(matrices=weight, statistic=gram, labels=labels, size=inputs)
    return interleaved({"obs": seconds(lambda: OBS().together([part]))}, rounds)["obs"]


def main() -> None:
    parser = argparse.ArgumentParser(description="Time calibration.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", metavar="PATH")
    given = parser.parse_args()
    note(f"machine: {machine()}")
    results = {name: measured(make(), given.rounds) for name, make in CASES.items()}
    rates = {name: found["general"].median / found["gram"].median for name, found in results.items()}
    head = ("inputs", "gram", "moments", "general", "itself", "rate")
    rows = [(name, *(f"{each.median:.3f}" for each in results[name].values()), f"{rates[name]:.0%}") for name in rates]
    print(table(head, rows))
    verdict = "met" if min(rates.values()) >= GOAL_RATE else "NOT met"
    print(f"\nlowest rate: {min(rates.values()):.0%}; the goal of {GOAL_RATE:.0%} is {verdict}")
    obs = elimination(768, 3072, max(1, given.rounds // 2))
    wall = obs["wall"].median
    verdict = "met" if wall < GOAL_SECONDS else "NOT met"
    shown = f"{obs['seconds'].median:.2f} s of processor time, {wall:.2f} s by the clock"
    print(f"OBS of 768 x 3072: {shown}; the goal of {GOAL_SECONDS:g} s by the clock is {verdict}")
    write_json(given.json, "calibration", {"gram": results, "obs": obs})


if __name__ == "__main__":
    main()
