"""How long the analysis takes after a file is read, on real files and on chains of 100 to 10,000 layers.

    python benchmarks/analysis.py FOLDER [--rounds N] [--json PATH]

Columns, medians in milliseconds: `walk` types every tensor and settles all numbers (`analyze_program`); `groups` and
`refusals` are what a user asks for next; `analysis` is the sum of the three, and `convert` is how long it takes to turn
the onnx-ir model into a program before. Times are processor time of this one thread, which other work on the machine
hardly touches; `wall` is the same sum by the clock. The noise is the interquartile range over the median.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import tempfile
import time
from pathlib import Path
from typing import Any

import models
from measure import Spread, interleaved, machine, milliseconds, note, table, write_json

import graphprune as gp
from graphprune.analysis import analyze_program
from graphprune.dialects.onnx.reader import read

GOAL_SECONDS = 0.1


def analysis_times(model: Any) -> dict[str, float]:
    """Processor seconds by phase, and the clock's for all phases of the analysis."""
    marks = [time.process_time()]
    program = read(model)
    marks.append(time.process_time())
    start = time.perf_counter()
    analysis = analyze_program(program)
    marks.append(time.process_time())
    _ = analysis.groups
    marks.append(time.process_time())
    _ = analysis.refusals
    marks.append(time.process_time())
    wall = time.perf_counter() - start
    convert, walk, groups, refusals = (after - before for before, after in itertools.pairwise(marks))
    return {
        "convert": convert,
        "walk": walk,
        "groups": groups,
        "refusals": refusals,
        "analysis": walk + groups + refusals,
        "wall": wall,
    }


def nodes_of(model: Any) -> int:
    return sum(1 for _ in read(model).nodes())


def report(title: str, times: dict[str, dict[str, Spread]], nodes: dict[str, int]) -> str:
    head = (title, "nodes", "convert", "walk", "groups", "refusals", "analysis", "noise", "min–max", "wall", "µs/node")
    rows = []
    for name, phases in times.items():
        total = phases["analysis"]
        medians = [milliseconds(phases[p].median) for p in ("convert", "walk", "groups", "refusals", "analysis")]
        span = f"{milliseconds(total.low)}–{milliseconds(total.high)}"
        wall = milliseconds(phases["wall"].median)
        each = f"{total.median / nodes[name] * 1e6:.0f}"
        rows.append((name, nodes[name], *medians, f"{total.noise:.0%}", span, wall, each))
    return table(head, rows)


def measured(paths: list[Path], rounds: int) -> tuple[dict[str, dict[str, Spread]], dict[str, int]]:
    loaded = {path.stem: gp.load(path) for path in paths}
    times = interleaved({name: functools.partial(analysis_times, model) for name, model in loaded.items()}, rounds)
    return times, {name: nodes_of(model) for name, model in loaded.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the analysis.")
    parser.add_argument("folder", type=Path, nargs="?", help="a folder of ONNX files; without it only the chains")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", metavar="PATH")
    given = parser.parse_args()
    note(f"machine: {machine()}")
    results: dict[str, Any] = {}
    if given.folder is not None:
        times, nodes = measured(sorted(given.folder.glob("*.onnx")), given.rounds)
        print(report("file", times, nodes), end="\n\n")
        slowest = max(times, key=lambda name: times[name]["analysis"].median)
        worst = times[slowest]["analysis"].median
        verdict = "met" if worst < GOAL_SECONDS else "NOT met"
        print(f"slowest: {slowest} with {milliseconds(worst)} ms; the goal of 100 ms is {verdict}\n")
        results["files"] = {name: {"nodes": nodes[name], **phases} for name, phases in times.items()}
    with tempfile.TemporaryDirectory() as folder:
        paths = [models.write(name, Path(folder)) for name in ("chain-100", "chain-1000", "chain-10000")]
        times, nodes = measured(paths, given.rounds)
    print(report("chain", times, nodes), end="\n\n")
    per_node = [phases["analysis"].median / nodes[name] for name, phases in times.items()]
    growth = [later / sooner for sooner, later in itertools.pairwise(per_node)]
    print("time per node, ten times the layers over the layers: " + ", ".join(f"{ratio:.2f}" for ratio in growth))
    results["chains"] = {name: {"nodes": nodes[name], **phases} for name, phases in times.items()}
    results["growth_per_node"] = growth
    write_json(given.json, "analysis", results)


if __name__ == "__main__":
    main()
