"""PyTorch's samples of every operator of the table: gathered tensors give gathered results, along every free dimension,
and there are as many free dimensions as there must be."""

from __future__ import annotations

import pytest

from .floors import FLOORS, count, names, shortfalls, usable
from .oracle import Subject
from .samples import Case


def mismatches(cases: list[Case]) -> list[str]:
    """What does not hold of some cases, with their tensors stored and fed."""
    return [
        line for case in cases for stored in (True, False) for line in Subject(case, stored=stored).check().mismatches
    ]


@pytest.mark.parametrize("name", FLOORS)
def test_gathered_tensors_give_gathered_results(name: str) -> None:
    found = usable(name)
    assert mismatches(found) == []
    assert shortfalls(name, FLOORS[name], count(found)) == []


def test_every_function_is_one_that_there_are_samples_of() -> None:
    assert FLOORS.keys() - set(names()) == set()
