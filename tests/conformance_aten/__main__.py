"""Run the gather oracle on PyTorch's samples from the command line, a line for each function.

``python -m tests.conformance_aten add cat``  some functions, with the samples that the tests take, each dimension alone
``python -m tests.conformance_aten --all``    every sample of every function: some 19,000, which take long
``python -m tests.conformance_aten --write``  write floors.json anew
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter

import torch

from . import floors
from .oracle import Subject, rows


def main() -> int:
    """The exit code: 1 where something does not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance_aten")
    parser.add_argument("functions", nargs="*", help="functions of PyTorch's database or of own.py; none: all")
    parser.add_argument("--all", action="store_true", help="every sample, and two draws of what is kept")
    parser.add_argument("--write", action="store_true", help="write floors.json anew")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.write:
        floors.write()
        return 0
    total: Counter[str] = Counter()
    operators: set[str] = set()
    for name in options.functions or floors.names():
        each: Counter[str] = Counter()
        for case in floors.usable(name, every=options.all):
            operators.update(rows(case))
            each["samples"] += 1
            for stored in (True, False):
                outcome = Subject(case, stored=stored).check(2 if options.all else 1, each=True)
                each.update(free=outcome.free, checked=outcome.checked, mismatches=len(outcome.mismatches))
                sys.stdout.writelines(f"  {line}\n" for line in outcome.mismatches)
        total.update(each)
        _say(name, each)
    _say(f"{len(operators)} operators of the table", total)
    return 1 if total["mismatches"] else 0


def _say(what: str, counts: Counter[str]) -> None:
    numbers = ", ".join(f"{counts[key]} {key}" for key in ("samples", "free", "checked", "mismatches"))
    sys.stdout.write(f"{what}: {numbers}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
