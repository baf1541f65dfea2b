"""How many free dimensions there must be in the samples of each function, and counting them.

``floors.json`` holds, by function and by the operators that its samples become (those with a row of the table, by
name), the number with all tensors stored and with all tensors fed. Write it anew after a rule finds more, or for
another version of PyTorch: ``python -m tests.conformance_aten --write``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from .oracle import Subject, rows
from .own import OWN
from .samples import Case, cases, functions

Counts = dict[str, list[int]]

FILE = Path(__file__).with_name("floors.json")
FLOORS: dict[str, Counts] = json.loads(FILE.read_text()) if FILE.exists() else {}


def names() -> list[str]:
    """Every function there are samples of: PyTorch's, then our own."""
    return [*functions(), *OWN]


def usable(name: str, *, every: bool = False) -> list[Case]:
    """The cases of a function that say anything: those in which some operator has a row of the table."""
    return [case for case in cases(name, every) if rows(case)]


def count(found: Iterable[Case]) -> Counts:
    """The free dimensions of some cases by their operators, stored and fed."""
    return checked(found, check=False)[0]


def checked(found: Iterable[Case], *, check: bool = True) -> tuple[Counts, list[str]]:
    """The free dimensions of some cases, and what does not hold of them, where that is to be checked."""
    counts: Counts = {}
    mismatches: list[str] = []
    for case in found:
        each = counts.setdefault(" ".join(rows(case)), [0, 0])
        for place, stored in enumerate((True, False)):
            subject = Subject(case, stored=stored)
            each[place] += len(subject.free)
            mismatches += subject.check().mismatches if check else []
    return counts, mismatches


def shortfalls(name: str, floors: Counts, counts: Counts) -> list[str]:
    """Where fewer dimensions are free than there must be."""
    found = []
    for operators, floor in floors.items():
        free = counts.get(operators, [0, 0])
        if any(now < least for now, least in zip(free, floor, strict=True)):
            found.append(f"{name} ({operators}): {free} dimensions are free, {floor} must be")
    return found


def by_operator(floors: dict[str, Counts]) -> Counts:
    """The floors of all functions, added up for each operator that takes part."""
    found: Counts = {}
    for counts in floors.values():
        for operators, floor in counts.items():
            for operator in operators.split():
                each = found.setdefault(operator, [0, 0])
                each[0], each[1] = each[0] + floor[0], each[1] + floor[1]
    return dict(sorted(found.items()))


def write() -> None:
    """Write the table of what is found now, a line for each function."""
    table = {name: count(usable(name)) for name in names()}
    lines = [f"  {json.dumps(name)}: {json.dumps(counts)}" for name, counts in table.items() if counts]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")
