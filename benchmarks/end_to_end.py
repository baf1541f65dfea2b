"""How long pruning takes from file to file, by phase, on the shapes of BERT-base and ResNet-50.

    python benchmarks/end_to_end.py [--macs 0.6] [--rounds N] [--json PATH]

Columns, medians in seconds: `end to end` is `load`, `plan` (analysis included), `apply` and `save` together; `verify`
runs both networks several times in onnxruntime and is timed apart. Every round is a full walk from file to file in
one process; the import of the libraries is not counted.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
from pathlib import Path
from typing import Any

import models
from measure import Stopwatch, interleaved, machine, note, table, write_json

import graphprune as gp

GOAL_SECONDS = 5.0
PHASES = ("load", "analyze", "plan", "apply", "save")


def walk(source: Path, macs: float, found: dict[str, Any]) -> dict[str, float]:
    """Seconds by phase of one walk from file to file, without verification."""
    watch, target = Stopwatch(), source.with_name(f"{source.stem}.small.onnx")
    with watch("load"):
        dense = gp.load(source)
    with watch("analyze"):
        analysis = gp.analyze(dense)
        _ = analysis.groups
    with watch("plan"):
        plan = gp.plan(analysis, macs=macs)
    with watch("apply"):
        pruned = gp.apply(analysis, plan)
    with watch("save"):
        gp.save(pruned, target)
    found[source.stem] = (target, plan)
    return {**watch.phases, "end to end": sum(watch.phases.values())}


def verified(source: Path, target: Path, plan: Any) -> tuple[bool, float]:
    """Whether the saved model passes all oracles, and how long they take."""
    watch = Stopwatch()
    with watch("verify"):
        outcome = gp.verify(gp.load(source), gp.load(target), plan)
    return outcome.ok, watch.phases["verify"]


def macs_of(path: Path) -> int:
    from graphprune.cost import measure

    return measure(gp.analyze(gp.load(path)), {}).macs


def main() -> None:
    parser = argparse.ArgumentParser(description="Time pruning from file to file.")
    parser.add_argument("--macs", type=float, default=0.6)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", metavar="PATH")
    given = parser.parse_args()
    note(f"machine: {machine()}")
    with tempfile.TemporaryDirectory() as folder:
        sources = [models.write(name, Path(folder)) for name in ("bert-base", "resnet-50")]
        found: dict[str, Any] = {}
        runs = {source.stem: functools.partial(walk, source, given.macs, found) for source in sources}
        times = interleaved(runs, given.rounds)
        rows, results = [], {}
        for source in sources:
            target, plan = found[source.stem]
            ok, seconds = verified(source, target, plan)
            phases, share = times[source.stem], macs_of(target) / macs_of(source)
            total = phases["end to end"]
            medians = [f"{phases[phase].median:.2f}" for phase in (*PHASES, "end to end")]
            span = f"{total.low:.2f}–{total.high:.2f}"
            rows.append((source.stem, *medians, span, f"{seconds:.1f}", "ok" if ok else "FAILED", f"{share:.1%}"))
            results[source.stem] = {"phases": phases, "verify": seconds, "ok": ok, "macs": share}
    print(table(("model", *PHASES, "end to end", "min–max", "verify", "oracles", "MACs left"), rows))
    slowest = max(phases["end to end"].median for phases in times.values())
    print(f"\nthe goal of {GOAL_SECONDS:.0f} s end to end is {'met' if slowest < GOAL_SECONDS else 'NOT met'}")
    write_json(given.json, "end_to_end", results)


if __name__ == "__main__":
    main()
