"""The command of tests/zoo; see __init__.py for how to use it."""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from .workers import Limits, run
from .zoo import LIBRARIES, Model, Record, examine, missing, models_of, read_records, sampled

MOST_JOBS = 2
_MOST_TEXT = 80
"""Characters of a cause in the table; the JSON has all of it."""


def main() -> int:
    """Run the models, print a table, write the records; the exit code is 1 where a model failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.zoo", description="Prune whole libraries without a hint.")
    parser.add_argument("--library", choices=list(LIBRARIES), action="append", help="all, unless given")
    parser.add_argument("--only", nargs="+", default=["*"], help="names, or patterns of names")
    parser.add_argument("--sample", type=int, help="run so many models of different families")
    parser.add_argument("--week", type=int, default=datetime.date.today().isocalendar().week, help="draws the sample")
    parser.add_argument("--json", type=Path, help="write the records to this file")
    parser.add_argument("--resume", action="store_true", help="leave out the models that the file has records of")
    parser.add_argument("--jobs", type=int, default=1, choices=range(1, MOST_JOBS + 1), help="processes")
    parser.add_argument("--seconds", type=float, default=Limits.seconds, help="time limit of each model")
    parser.add_argument("--gigabytes", type=float, default=Limits.gigabytes, help="address space of each process")
    parser.add_argument("--here", action="store_true", help="in this process, so that exceptions are seen whole")
    given = parser.parse_args()
    console = Console(stderr=True)
    chosen: list[Model] = []
    for library in given.library or LIBRARIES:
        if lacking := missing(library):
            console.print(f"{library}: skipped, because {lacking} is not installed")
            continue
        found = [each for each in models_of(library) if any(fnmatch(each.name, pattern) for pattern in given.only)]
        chosen += found if given.sample is None else sampled(found, given.sample, given.week)
    limits = Limits(given.seconds, given.gigabytes)
    records = read_records(given.json) if given.resume and given.json and given.json.exists() else []
    done = {(each.library, each.name) for each in records}
    chosen = [each for each in chosen if (each.library, each.name) not in done]
    with Progress(console=console, disable=given.here) as progress:
        task = progress.add_task("models", total=len(chosen))
        for record in map(examine, chosen) if given.here else run(chosen, limits, given.jobs):
            records.append(record)
            progress.console.print(_line(record), highlight=False, markup=False, soft_wrap=True)
            progress.advance(task)
            if given.json:
                given.json.write_text(json.dumps([each.as_json() for each in records], indent=1) + "\n")
    if given.here:
        Console().print_json(data=[each.as_json() for each in records])
    out = Console(width=None if sys.stdout.isatty() else 160)
    out.print(_table(records))
    out.print(_summary(records))
    return 0 if records and all(record.ok for record in records) else 1


def _line(record: Record) -> str:
    return f"{'ok    ' if record.ok else 'FAILED'} {record.library}/{record.name} {record.seconds:.1f} s {record.cause}"


def _table(records: Sequence[Record]) -> Table:
    good = sum(record.ok for record in records)
    table = Table(title=f"{good} of {len(records)} models pruned and verified", title_justify="left")
    for name in ("model", "groups", "MACs", "parameters", "worst error", "export s", "analysis ms", "stays", "cause"):
        table.add_column(name, justify="left" if name in {"model", "stays", "cause"} else "right", overflow="fold")
    for record in sorted(records, key=lambda each: each.ok):
        errors = [error for oracle, error in record.errors.items() if oracle != "interface"]
        table.add_row(
            f"{'' if record.ok else '[red]'}{record.name}",
            str(record.groups),
            _share(record.macs),
            _share(record.parameters),
            f"{max(errors):.0e}" if errors else "",
            f"{record.export_seconds:.1f}",
            f"{record.analysis_seconds * 1000:.0f}",
            " ".join(f"{code[2:]}:{count}" for code, count in record.refusals.items()),
            record.cause[:_MOST_TEXT].replace("[", r"\["),
        )
    return table


def _summary(records: Sequence[Record]) -> Table:
    """By library: how many there are, of how many torch.export makes a graph, how many are pruned right."""
    table = Table(title="by library", title_justify="left")
    for name in ("library", "models", "captured", "pruned and verified", "not captured", "failed", "revision"):
        table.add_column(name, justify="left" if name in {"library", "revision"} else "right")
    for library in dict.fromkeys(each.library for each in records):
        of = [each for each in records if each.library == library]
        captured = [each for each in of if each.stage not in {"build", "export"}]
        good = sum(each.ok for each in of)
        counts = (len(of), len(captured), good, len(of) - len(captured), len(captured) - good)
        table.add_row(library, *map(str, counts), " ".join(sorted({each.revision for each in of})))
    return table


def _share(before_and_after: tuple[int, int]) -> str:
    before, after = before_and_after
    return f"{before / 1e6:.1f} M -> {after / before:.0%}" if before else ""


if __name__ == "__main__":
    sys.exit(main())
