"""How many free dimensions there must be in the backend test cases of each operator, and counting them.

``floors.json`` holds, by operator, the number with all tensors stored and with all tensors fed, over all its cases.
Write it anew after a rule finds more: ``python -m tests.conformance.floors``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path

from .cases import FILES, Case, file_cases, node_cases
from .oracle import Subject

FILE = Path(__file__).with_name("floors.json")
TABLES: dict[str, dict[str, list[int]]] = json.loads(FILE.read_text())
FLOORS, FLOORS_OF_FILES = TABLES["operators"], TABLES["files"]


def count(cases: Iterable[Case]) -> list[int]:
    """The free dimensions of some cases, stored and fed."""
    return [sum(len(Subject(case, stored=stored).free) for case in cases) for stored in (True, False)]


def shortfalls(floors: dict[str, list[int]], cases: dict[str, list[Case]]) -> list[str]:
    """Where fewer dimensions are free than there must be."""
    found = []
    for name, floor in floors.items():
        free = count(cases[name])
        if any(now < least for now, least in zip(free, floor, strict=True)):
            found.append(f"{name}: {free} dimensions are free, {floor} must be")
    return found


def main() -> None:
    """Write the table of what is found now."""
    tables = {
        "operators": {name: count(cases) for name, cases in node_cases().items()},
        "files": {kind: count(file_cases(kind)) for kind in FILES},
    }
    lines = [
        f"  {json.dumps(kind)}: {{\n"
        + ",\n".join(f"    {json.dumps(name)}: {json.dumps(free)}" for name, free in table.items())
        + "\n  }"
        for kind, table in tables.items()
    ]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    sys.stdout.write(f"{FILE.name}: {sum(map(sum, tables['operators'].values()))} free dimensions\n")


if __name__ == "__main__":
    main()
