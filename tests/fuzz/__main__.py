"""The command of tests/fuzz; see __init__.py for how to use it."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .workers import Job, answers, is_defect

_CASES_PER_PROCESS = 200


def main() -> int:
    """Run the cases, tell about each defect as it is found, and sum up; the exit code is 1 where there was one."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Break models and prune what is left.")
    parser.add_argument("--count", type=int, default=10_000, help="cases to run")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="break the .onnx files of this folder too")
    parser.add_argument("--verify", action="store_true", help="run what comes out against what went in")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--gigabytes", type=float, default=8.0, help="address space of each process")
    parser.add_argument("--keep", type=Path, help="save the files of failed cases in this folder")
    given = parser.parse_args()
    job = Job(given.seed, given.folder, given.verify, given.gigabytes, given.keep)
    numbers = range(given.first, given.first + given.count)
    chunks = [numbers[k : k + _CASES_PER_PROCESS] for k in range(0, len(numbers), _CASES_PER_PROCESS)]
    counts: Counter[str] = Counter()
    defects = 0
    with ThreadPoolExecutor(given.jobs) as pool:
        for found in pool.map(lambda chunk: list(answers(job, chunk)), chunks):
            counts.update(text.split(":")[0] for _, text in found)
            for number, text in found:
                if is_defect(text):
                    defects += 1
                    print(f"case {number}: {text}", flush=True)
            print(f"{counts.total()} of {given.count}, {defects} defects", file=sys.stderr, flush=True)
    print(", ".join(f"{text} {count}" for text, count in sorted(counts.items())))
    print(f"{given.count - defects} of {given.count} broken models answered cleanly")
    return 1 if defects else 0


if __name__ == "__main__":
    sys.exit(main())
